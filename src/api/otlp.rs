//! The OTLP endpoint: media types, encodings and status codes around the receiver.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::reply;
use super::routes::Call;
use crate::remote::otlp::{Form, Outcome, decompress, response};
use crate::remote::receive::MAX_REQUEST_BYTES;

fn refuse(status: StatusCode, message: impl std::fmt::Display) -> Response {
    reply::text(status, format!("{message}\n"))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// `/api/v1/otlp/v1/metrics`
pub async fn metrics(call: Call) -> Response {
    if !call.api.options.otlp_receiver {
        let message = "otlp write receiver needs to be enabled with --web.enable-otlp-receiver";
        return refuse(StatusCode::NOT_FOUND, message);
    }
    let content_type = text_of(&call.headers, &CONTENT_TYPE);
    let form = match content_type.split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" => Form::Protobuf,
        "application/json" => Form::Json,
        _ => {
            let message = format!(
                "unsupported content type: {content_type}, supported: [application/json, application/x-protobuf]"
            );
            return refuse(StatusCode::BAD_REQUEST, message);
        }
    };
    let encoding = text_of(&call.headers, &CONTENT_ENCODING).to_owned();
    let body = match axum::body::to_bytes(call.body, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, format!("reading the request: {e}")),
    };
    let mut hasher = std::hash::DefaultHasher::new();
    ("otlp", call.peer).hash(&mut hasher);
    let source = hasher.finish();
    let receiver = Arc::clone(&call.services.otlp);
    let outcome = tokio::task::spawn_blocking(move || match decompress(&body, &encoding) {
        Ok(message) => receiver.receive(&message, form, source),
        Err(e) => Outcome::Refused(e),
    });
    match outcome.await {
        Ok(Outcome::Stored(rejected)) => {
            let mut answer = Response::new(axum::body::Body::from(response(form, &rejected)));
            let kind = match form {
                Form::Protobuf => "application/x-protobuf",
                Form::Json => "application/json",
            };
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            answer
        }
        Ok(Outcome::Refused(e)) => refuse(StatusCode::BAD_REQUEST, e),
        Ok(Outcome::Retry(e)) => {
            tracing::error!(err = %e, "Error appending OTLP write");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, e)
        }
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the server; see its log")
        }
    }
}
