//! The endpoints about silences. Reading asks every Alertmanager that alerts are sent to; writing goes to one of them,
//! needs `--web.enable-admin-api` (whoever may write here uses the credentials of the configuration) and refuses
//! requests that another site's page makes a browser send.

use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

use super::error::{ApiError, ErrorKind};
use super::json::{self, Object};
use super::reply::success;
use super::routes::Call;
use super::sources::RulesSource;
use crate::alert::silences::{SilenceCall, SilenceDoor};

/// Alertmanagers that one request asks.
const MAX_ALERTMANAGERS: usize = 16;
const MAX_BODY: usize = 64 << 10;
const MAX_MATCHERS: usize = 64;

/// A wish to silence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// One of the active Alertmanagers; the first when missing.
    alertmanager: Option<String>,
    silence: Silence,
}

/// A silence as Alertmanager's second API takes it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Silence {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    matchers: Vec<SilenceMatcher>,
    starts_at: String,
    ends_at: String,
    created_by: String,
    comment: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SilenceMatcher {
    name: String,
    value: String,
    is_regex: bool,
    is_equal: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expiry {
    alertmanager: Option<String>,
    id: String,
}

/// `/api/v1/alertmanagers/silences`
pub async fn silences(call: Call) -> Response {
    if call.method == Method::POST {
        return match add(call).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
    }
    let (mut urls, _) = call.services.rules.alertmanagers();
    urls.truncate(MAX_ALERTMANAGERS);
    let answers = join_all(urls.iter().map(|url| list(&*call.services.rules, url))).await;
    success(|out| {
        let mut object = Object::open(out);
        object.boolean("writable", call.api.options.admin_api);
        let all: Vec<_> = urls.iter().zip(&answers).collect();
        json::list(object.key("alertmanagers"), &all, |out, (url, answer)| {
            let mut object = Object::open(out);
            object.text("url", url);
            match answer {
                Ok(list) => object.key("silences").extend_from_slice(list),
                Err(error) => {
                    object.text("error", error);
                }
            }
            object.close();
        });
        object.close();
    })
}

/// The silences of one Alertmanager as a JSON list.
async fn list(rules: &dyn RulesSource, url: &str) -> Result<Vec<u8>, String> {
    let door = rules.silences(url).ok_or("it is no longer configured")?;
    let body = door.call(SilenceCall::List).await?;
    // Read and printed anew: only a list of objects is passed on.
    let list: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(&body).map_err(|e| format!("its answer is not understood: {e}"))?;
    serde_json::to_vec(&list).map_err(|e| e.to_string())
}

async fn add(call: Call) -> Result<Response, ApiError> {
    let (call, body) = writable(call).await?;
    let wish: Wish = serde_json::from_slice(&body).map_err(|e| ApiError::bad_data(e.to_string()))?;
    if wish.silence.matchers.is_empty() || wish.silence.matchers.len() > MAX_MATCHERS {
        return Err(ApiError::bad_data(format!("a silence has 1 to {MAX_MATCHERS} matchers")));
    }
    if wish.silence.comment.trim().is_empty() || wish.silence.created_by.trim().is_empty() {
        return Err(ApiError::bad_data("a silence has an author and a comment"));
    }
    let door = door(&call, wish.alertmanager.as_deref())?;
    let text = serde_json::to_vec(&wish.silence).map_err(|e| ApiError::internal(e.to_string()))?;
    let answer = door.call(SilenceCall::Put(text)).await.map_err(refused)?;
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Added {
        #[serde(rename = "silenceID")]
        silence_id: String,
    }
    let added: Added = serde_json::from_slice(&answer).map_err(|e| refused(e.to_string()))?;
    Ok(success(|out| json::pairs(out, [("silenceID", added.silence_id.as_str())])))
}

/// `/api/v1/alertmanagers/silences/expire`
pub async fn expire(call: Call) -> Response {
    let run = async {
        let (call, body) = writable(call).await?;
        let expiry: Expiry = serde_json::from_slice(&body).map_err(|e| ApiError::bad_data(e.to_string()))?;
        let door = door(&call, expiry.alertmanager.as_deref())?;
        door.call(SilenceCall::Expire(expiry.id)).await.map_err(refused)
    };
    match run.await {
        Ok(_) => success(|out| out.extend_from_slice(b"{}")),
        Err(error) => error.into_response(),
    }
}

fn refused(reason: String) -> ApiError {
    ApiError::new(ErrorKind::Execution, reason)
}

/// The Alertmanager at `url`, or the first.
fn door(call: &Call, url: Option<&str>) -> Result<SilenceDoor, ApiError> {
    let (urls, _) = call.services.rules.alertmanagers();
    let Some(url) = url.or(urls.first().map(String::as_str)) else {
        return Err(ApiError::new(ErrorKind::NotFound, "no Alertmanager is configured"));
    };
    call.services
        .rules
        .silences(url)
        .ok_or_else(|| ApiError::bad_data(format!("{url:?} is none of the configured Alertmanagers")))
}

/// Refuses what may not write, then reads the body.
async fn writable(mut call: Call) -> Result<(Call, Vec<u8>), ApiError> {
    if !call.api.options.admin_api {
        let text = "silences can be changed here when the server runs with --web.enable-admin-api";
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    }
    own_page(&call.headers).map_err(ApiError::bad_data)?;
    let body = axum::body::to_bytes(std::mem::take(&mut call.body), MAX_BODY)
        .await
        .map_err(|e| ApiError::bad_data(format!("reading the silence (at most {MAX_BODY} bytes): {e}")))?;
    Ok((call, body.to_vec()))
}

/// Whether a request is no browser's doing on behalf of another site. A form cannot send JSON without asking first, and
/// browsers state where a script comes from.
fn own_page(headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name: header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err("the body must be application/json");
    }
    let foreign = "this request comes from another site's page";
    match text(header::HeaderName::from_static("sec-fetch-site")) {
        Some("same-origin" | "none") => return Ok(()),
        Some(_) => return Err(foreign),
        None => {}
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    if text(header::HOST).is_some_and(|own| own.eq_ignore_ascii_case(host)) { Ok(()) } else { Err(foreign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused() {
        let json = ("content-type", "application/json");
        let host = ("host", "mon:9090");
        for (headers, allowed) in [
            (vec![json, host], true),
            (vec![json, host, ("origin", "http://mon:9090")], true),
            (vec![json, host, ("origin", "http://evil:9090")], false),
            (vec![json, host, ("origin", "null")], false),
            (vec![json, host, ("sec-fetch-site", "same-origin"), ("origin", "https://proxy")], true),
            (vec![json, host, ("sec-fetch-site", "cross-site")], false),
            (vec![json, host, ("sec-fetch-site", "same-site")], false),
            (vec![("content-type", "text/plain"), host], false),
            (vec![host], false),
        ] {
            let map: HeaderMap = headers
                .iter()
                .map(|(n, v)| (header::HeaderName::from_static(n), header::HeaderValue::from_static(v)))
                .collect();
            assert_eq!(own_page(&map).is_ok(), allowed, "{headers:?}");
        }
    }
}
