//! The remote-read endpoint: limits, encodings and status codes around the answers that `remote` composes.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};

use super::error::ApiError;
use super::reply;
use super::routes::Call;
use crate::query::CancelToken;
use crate::remote::read::messages::{ResponseType, decode_request};
use crate::remote::read::server::{self, ReadError, negotiate};
use crate::remote::receive::{MAX_REQUEST_BYTES, decompress};

fn refuse(status: StatusCode, message: impl std::fmt::Display) -> Response {
    reply::text(status, format!("{message}\n"))
}

/// `/api/v1/read`
pub async fn read(call: Call) -> Response {
    let services = Arc::clone(&call.services);
    // The gate is never closed.
    let Ok(permit) = Arc::clone(&services.read_gate).acquire_owned().await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping");
    };
    let body = match axum::body::to_bytes(call.body, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, format!("reading the request: {e}")),
    };
    let request = match decompress(&body).and_then(|message| decode_request(&message)) {
        Ok(request) => request,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, e),
    };
    let form = match negotiate(&request) {
        Ok(form) => form,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, e),
    };
    let limits = services.read_limits;
    let external = services.config.external_labels();
    if form == ResponseType::StreamedChunks {
        let content = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
        return reply::stream(content, CancelToken::default(), move |out| {
            let _permit = permit;
            let mut send = |frame: &[u8]| {
                out.buf.extend_from_slice(frame);
                out.flush_if_full();
                !out.is_gone()
            };
            match server::stream(&*services.queryable, &request, &external, limits, &mut send) {
                Ok(()) | Err(ReadError::Gone) => Ok(()),
                Err(e) => Err(ApiError::new(super::error::ErrorKind::Internal, e.to_string())),
            }
        })
        .await;
    }
    let answered = super::workers::run(move || {
        let _permit = permit;
        let message = server::samples(&*services.queryable, &request, &external, limits)?;
        Ok(snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default())
    });
    match answered.await {
        Ok(Ok(packed)) => {
            let mut response = Response::new(axum::body::Body::from(packed));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
            response
        }
        Ok(Err(e @ ReadError::TooManySamples(_))) => refuse(StatusCode::BAD_REQUEST, e),
        Ok(Err(e)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, e),
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the server; see its log")
        }
    }
}
