//! How does an answer leave without being held as a whole? Work runs on threads that give way and writes into an
//! [`Out`], which hands full chunks to the connection through a short channel. A client that goes away cancels
//! the work; a small answer is sent in one piece with its length.

use std::io;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use super::error::{ApiError, ErrorKind};
use super::json;
use crate::query::CancelToken;

/// Bytes of one chunk; an answer below this size is sent whole.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way to a slow reader.
const CHUNKS_IN_FLIGHT: usize = 4;

enum Part {
    Failed(ApiError),
    Chunk(Bytes),
    Last(Bytes),
}

/// Where an answer is written to.
#[derive(Debug)]
pub struct Out {
    /// What is not sent yet; writers append here.
    pub buf: Vec<u8>,
    parts: mpsc::Sender<Part>,
    gone: bool,
}

impl Out {
    /// Sends what has gathered if it is enough for a chunk. Call it often, after each series for instance.
    pub fn flush_if_full(&mut self) {
        if self.buf.len() >= CHUNK_BYTES {
            let full = std::mem::replace(&mut self.buf, Vec::with_capacity(CHUNK_BYTES + 4096));
            self.gone |= self.parts.blocking_send(Part::Chunk(full.into())).is_err();
        }
        if self.gone {
            self.buf.clear();
        }
    }

    /// Appends a part that was written elsewhere; a large one is not copied.
    pub fn part(&mut self, text: Vec<u8>) {
        if text.len() < CHUNK_BYTES / 2 {
            self.buf.extend_from_slice(&text);
        } else if !self.gone {
            let before = std::mem::take(&mut self.buf);
            for chunk in [before, text] {
                if !chunk.is_empty() {
                    self.gone |= self.parts.blocking_send(Part::Chunk(chunk.into())).is_err();
                }
            }
        }
        self.flush_if_full();
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Appends raw text.
    pub fn raw(&mut self, text: &str) {
        self.buf.extend_from_slice(text.as_bytes());
    }

    /// Writes the envelope of a success around what `data` writes.
    pub fn success(&mut self, warnings: &[String], infos: &[String], data: impl FnOnce(&mut Self)) {
        self.raw("{\"status\":\"success\",\"data\":");
        data(self);
        for (name, texts) in [("warnings", warnings), ("infos", infos)] {
            if !texts.is_empty() {
                self.raw(",\"");
                self.raw(name);
                self.raw("\":");
                json::strings(&mut self.buf, texts.iter().map(String::as_str));
            }
        }
        self.raw("}");
        self.flush_if_full();
    }
}

/// Cancels a query when the request it belongs to is dropped.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs `work` on threads that give way and answers with what it writes, as JSON.
pub async fn stream_json(
    cancel: CancelToken,
    work: impl FnOnce(&mut Out) -> Result<(), ApiError> + Send + 'static,
) -> Response {
    stream("application/json", cancel, work).await
}

/// Runs `work` on threads that give way and answers with what it writes.
pub async fn stream(
    content_type: &str,
    cancel: CancelToken,
    work: impl FnOnce(&mut Out) -> Result<(), ApiError> + Send + 'static,
) -> Response {
    // The handlers' content types are plain ASCII.
    let content_type =
        HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let guard = CancelOnDrop(cancel);
    let (parts, mut received) = mpsc::channel(CHUNKS_IN_FLIGHT);
    super::workers::run(move || {
        let mut out = Out { buf: Vec::with_capacity(4096), parts, gone: false };
        let last = match work(&mut out) {
            Ok(()) => Part::Last(std::mem::take(&mut out.buf).into()),
            Err(error) => Part::Failed(error),
        };
        // Nobody is there to tell when this fails.
        let _ = out.parts.blocking_send(last);
    });
    let mut response = match received.recv().await {
        Some(Part::Last(whole)) => Response::new(Body::from(whole)),
        Some(Part::Chunk(first)) => Response::new(Body::from_stream(chunks(first, received, guard))),
        Some(Part::Failed(error)) => return error.into_response(),
        None => {
            return ApiError::new(ErrorKind::Internal, "the request failed inside the server; see its log")
                .into_response();
        }
    };
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn chunks(
    first: Bytes,
    received: mpsc::Receiver<Part>,
    guard: CancelOnDrop,
) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::unfold((Some(first), Some(received), guard), |(first, received, guard)| async move {
        if let Some(first) = first {
            return Some((Ok(first), (None, received, guard)));
        }
        let mut received = received?;
        match received.recv().await {
            Some(Part::Chunk(chunk)) => Some((Ok(chunk), (None, Some(received), guard))),
            Some(Part::Last(chunk)) => Some((Ok(chunk), (None, None, guard))),
            // The status line is out already: breaking the body off is the only way left to say so.
            Some(Part::Failed(error)) => Some((Err(io::Error::other(error.message)), (None, None, guard))),
            None => Some((Err(io::Error::other("the answer broke off")), (None, None, guard))),
        }
    })
    // Compressing layers ask again after the end.
    .fuse()
}

/// Answers with a JSON body that is already there.
#[must_use]
pub fn json_body(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers with a success envelope around what `data` writes; for small answers.
pub fn success(data: impl FnOnce(&mut Vec<u8>)) -> Response {
    let mut body = b"{\"status\":\"success\",\"data\":".to_vec();
    data(&mut body);
    body.push(b'}');
    json_body(body)
}

/// Answers in plain text.
pub fn text(status: http::StatusCode, body: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_has_ended_may_be_asked_again() {
        let response = stream("text/plain", CancelToken::default(), |out| {
            for _ in 0..3 {
                out.buf.resize(CHUNK_BYTES, b'x');
                out.flush_if_full();
            }
            Ok(())
        })
        .await;
        let mut body = response.into_body().into_data_stream();
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            length += chunk.expect("a chunk").len();
        }
        assert_eq!(length, 3 * CHUNK_BYTES);
        assert!(body.next().await.is_none());
    }
}
