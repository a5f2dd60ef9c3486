//! The remote-write endpoint: media types, encodings, limits and status codes around the receiver.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::reply;
use super::routes::Call;
use crate::remote::receive::{Failure, MAX_REQUEST_BYTES, MessageVersion, Outcome, Packing};

const V1_NAME: &str = "prometheus.WriteRequest";
const V2_NAME: &str = "io.prometheus.write.v2.Request";

fn refuse(status: StatusCode, message: impl Into<String>) -> Response {
    let mut message = message.into();
    message.push('\n');
    reply::text(status, message)
}

/// The message that a content type names.
fn message_version(content_type: Option<&str>) -> Result<MessageVersion, String> {
    let Some(content_type) = content_type.filter(|c| !c.is_empty()) else { return Ok(MessageVersion::V1) };
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or("");
    if media != "application/x-protobuf" {
        return Err(format!(
            "expected application/x-protobuf as the first (media) part, got {content_type} content-type"
        ));
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, got {part} in {content_type} content-type"
            ));
        };
        if name.trim() == "proto" {
            return match value.trim() {
                V1_NAME => Ok(MessageVersion::V1),
                V2_NAME => Ok(MessageVersion::V2),
                _ => Err(format!(
                    "got {content_type} content type; unknown remote write protobuf message {value}, supported: \
                     {V1_NAME}, {V2_NAME}"
                )),
            };
        }
    }
    Ok(MessageVersion::V1)
}

fn text_of<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).map(|v| v.to_str().unwrap_or("?"))
}

/// `/api/v1/write`
pub async fn write(call: Call) -> Response {
    if !call.api.options.remote_write_receiver {
        return refuse(
            StatusCode::NOT_FOUND,
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver",
        );
    }
    debug_assert!(call.method == Method::POST, "the table lets only POST in");
    let version = match message_version(text_of(&call.headers, &CONTENT_TYPE)) {
        Ok(version) => version,
        Err(e) => return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, e),
    };
    let (v1, v2) = call.api.options.accepted_messages;
    let (accepted, name) = if version == MessageVersion::V1 { (v1, V1_NAME) } else { (v2, V2_NAME) };
    if !accepted {
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "{name} protobuf message is not accepted by this server; see --web.remote-write-receiver.accepted-protobuf-messages"
            ),
        );
    }
    let encoding = text_of(&call.headers, &CONTENT_ENCODING).unwrap_or("snappy");
    let packing = match encoding {
        "" | "snappy" => Packing::Snappy,
        "zstd" => Packing::Zstd,
        _ => {
            let message = format!(
                "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
            );
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        }
    };
    let body = match axum::body::to_bytes(call.body, MAX_REQUEST_BYTES).await {
        Ok(body) => body,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, format!("reading the request: {e}")),
    };
    let mut hasher = std::hash::DefaultHasher::new();
    call.peer.hash(&mut hasher);
    let source = hasher.finish();
    let receiver = Arc::clone(&call.services.receiver);
    let outcome =
        tokio::task::spawn_blocking(move || receiver.receive(&body, packing, version, source)).await;
    match outcome {
        Ok(outcome) => {
            let mut response = answer(version, outcome);
            // RFC 7694: a sender that can may use zstd from now on.
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("snappy, zstd"));
            response
        }
        Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the server; see its log")
        }
    }
}

fn answer(version: MessageVersion, outcome: Outcome) -> Response {
    let mut response = match outcome.failure {
        None => {
            let mut response = Body::empty().into_response();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Some(Failure::Refused(message)) => refuse(StatusCode::BAD_REQUEST, message),
        Some(Failure::Retry(message)) => {
            tracing::error!(err = %message, "Error appending remote write");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    };
    if version == MessageVersion::V2 {
        let headers = response.headers_mut();
        for (name, count) in [
            ("X-Prometheus-Remote-Write-Samples-Written", outcome.written.samples),
            ("X-Prometheus-Remote-Write-Histograms-Written", outcome.written.histograms),
            ("X-Prometheus-Remote-Write-Exemplars-Written", outcome.written.exemplars),
        ] {
            headers.insert(name, HeaderValue::from(count));
        }
    }
    response
}

/// The peer's address out of a request's extensions.
#[must_use]
pub fn peer_of(extensions: &http::Extensions) -> Option<std::net::SocketAddr> {
    extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|ConnectInfo(peer)| *peer)
}
