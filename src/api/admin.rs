//! Administration of storage over HTTP, behind `--web.enable-admin-api`.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::error::{ApiError, ErrorKind};
use super::params::{MAX_TIME_MS, MIN_TIME_MS, parse_switch};
use super::reply::success;
use super::routes::Call;
use super::{json, selectors};

pub(super) fn check_enabled(call: &Call) -> Result<(), ApiError> {
    if call.api.options.admin_api {
        return Ok(());
    }
    Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("the request failed inside the server; see its log")))
}

fn done(outcome: Result<(), ApiError>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

/// `/api/v1/admin/tsdb/snapshot`
pub async fn snapshot(call: Call) -> Response {
    let run = async move {
        check_enabled(&call)?;
        let skip_head = match call.params.first("skip_head") {
            "" => false,
            text => parse_switch(text)
                .map_err(|e| ApiError::parameter("skip_head", format!("unable to parse boolean: {e}")))?,
        };
        tracing::info!(skip_head, "snapshot asked for over HTTP");
        let services = call.services.clone();
        blocking(move || services.storage.snapshot(skip_head).map_err(ApiError::from)).await
    };
    match run.await {
        Ok(name) => success(|out| json::pairs(out, [("name", name.as_str())])),
        Err(error) => error.into_response(),
    }
}

/// `/api/v1/admin/tsdb/delete_series`
pub async fn delete_series(call: Call) -> Response {
    let run = async move {
        check_enabled(&call)?;
        call.params.require_sound()?;
        if call.params.all("match[]").next().is_none() {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        let start = call.params.time("start", MIN_TIME_MS)?;
        let end = call.params.time("end", MAX_TIME_MS)?;
        let sets = selectors::of_deletion(&call.params)?;
        tracing::info!(start, end, sets = sets.len(), "deletion of series asked for over HTTP");
        let services = call.services.clone();
        blocking(move || {
            sets.iter().try_for_each(|matchers| Ok(services.storage.delete(start, end, matchers)?))
        })
        .await
    };
    done(run.await)
}

/// `/api/v1/admin/tsdb/clean_tombstones`
pub async fn clean_tombstones(call: Call) -> Response {
    let run = async move {
        check_enabled(&call)?;
        tracing::info!("cleaning of tombstones asked for over HTTP");
        let services = call.services.clone();
        blocking(move || services.storage.clean_tombstones().map_err(ApiError::from)).await
    };
    done(run.await)
}
