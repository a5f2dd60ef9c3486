//! Messages for the user interface over HTTP: as a list, and live as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::sync::broadcast::error::RecvError;

use super::context::Api;
use super::json;
use super::notifications::Notification;
use super::reply::success;

/// `/api/v1/notifications`
pub async fn list(api: Arc<Api>, _request: Request) -> Response {
    let all = api.notifications.list();
    success(|out| json::list(out, &all, |out, n| n.write(out)))
}

fn event(notification: &Notification) -> Bytes {
    let mut out = b"data: ".to_vec();
    notification.write(&mut out);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// `/api/v1/notifications/live`
pub async fn live(api: Arc<Api>, _request: Request) -> Response {
    let Some((current, changes)) = api.notifications.subscribe() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    // A comment first, so that headers leave at once.
    let head = std::iter::once(Bytes::from_static(b": live\n\n")).chain(current.iter().map(event));
    let head = stream::iter(head.collect::<Vec<_>>());
    let (stop, notifications) = (api.stop.clone(), Arc::clone(&api.notifications));
    let tail =
        stream::unfold((changes, stop, notifications), |(mut changes, stop, notifications)| async move {
            loop {
                let next = tokio::select! {
                    next = changes.recv() => next,
                    () = stop.cancelled() => return None,
                };
                match next {
                    Ok(notification) => return Some((event(&notification), (changes, stop, notifications))),
                    Err(RecvError::Lagged(missed)) => notifications.note_missed(missed),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
    let mut response = Response::new(Body::from_stream(head.chain(tail).map(Ok::<_, Infallible>).fuse()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
