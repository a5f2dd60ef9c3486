//! How does an answer leave without being held as a whole? Work runs on threads that give way and writes into an
//! [`Out`], which hands full chunks to the connection through a short channel. A client that goes away cancels
//! the work; a small answer is sent in one piece with its length.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use super::error::{ApiError, ErrorKind};
use super::json;
use super::quick::{self, Question, Quick};
use crate::query::CancelToken;

/// Bytes of one chunk; an answer below this size is sent whole.
const CHUNK_BYTES: usize = 64 << 10;
/// What writers append at a time, about.
const SLACK_BYTES: usize = 20 << 10;
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
    /// Where chunks go; without it the answer is kept as a whole.
    parts: Option<mpsc::Sender<Part>>,
    sent: usize,
    gone: bool,
}

impl Out {
    fn new(parts: Option<mpsc::Sender<Part>>) -> Self {
        Self { buf: Vec::with_capacity(4096), parts, sent: 0, gone: false }
    }

    /// Sends what has gathered if it is enough for a chunk. Call it often, after each series for instance.
    pub fn flush_if_full(&mut self) {
        if self.parts.is_none() {
            self.gone |= self.buf.len() > quick::MOST;
        } else if self.buf.len() >= CHUNK_BYTES {
            let full = std::mem::replace(&mut self.buf, Vec::with_capacity(CHUNK_BYTES + SLACK_BYTES));
            self.send(full);
        }
        if self.gone {
            self.buf.clear();
        }
    }

    fn send(&mut self, chunk: Vec<u8>) {
        self.sent += chunk.len();
        if let Some(parts) = &self.parts {
            self.gone |= parts.blocking_send(Part::Chunk(chunk.into())).is_err();
        }
    }

    /// Appends a part that was written elsewhere; a large one is not copied.
    pub fn part(&mut self, text: Vec<u8>) {
        if text.len() < CHUNK_BYTES / 2 || self.parts.is_none() {
            self.buf.extend_from_slice(&text);
        } else if !self.gone {
            let before = std::mem::take(&mut self.buf);
            for chunk in [before, text] {
                if !chunk.is_empty() {
                    self.send(chunk);
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

/// Like [`stream_json`], but here and now if there is a question and its last answer was quick. If this one turns out
/// not to be within the patience that `work` is given, `work` is done once more, where it may take its time.
pub async fn stream_or_at_once(
    quick: Arc<Quick>,
    question: Option<Question>,
    cancel: CancelToken,
    work: impl Fn(&mut Out, Option<Duration>) -> Result<(), ApiError> + Send + 'static,
) -> Response {
    let Some(question) = question else { return stream_json(cancel, move |out| work(out, None)).await };
    let timed = move |quick: &Quick, out: &mut Out, patience| {
        let began = Instant::now();
        let outcome = work(out, patience);
        quick.note(question, began.elapsed(), out.sent + out.buf.len());
        outcome
    };
    if let Some(turn) = quick.turn(question) {
        let mut out = Out::new(None);
        let outcome = timed(&quick, &mut out, Some(quick::PATIENCE));
        drop(turn);
        match outcome {
            Ok(()) if !out.gone => return json_body(out.buf),
            Err(error) if error.kind != ErrorKind::Timeout => return error.into_response(),
            _ => {}
        }
    }
    stream_json(cancel, move |out| timed(&quick, out, None)).await
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
        let mut out = Out::new(Some(parts.clone()));
        let last = match work(&mut out) {
            Ok(()) => Part::Last(std::mem::take(&mut out.buf).into()),
            Err(error) => Part::Failed(error),
        };
        // Nobody is there to tell when this fails.
        let _ = parts.blocking_send(last);
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

    #[tokio::test]
    async fn what_was_expected_to_be_quick_and_is_not_begins_anew() {
        let quick = Arc::new(Quick::default());
        let question = Question::new("up");
        for (length, late, expected) in [
            (10, false, 1),
            (20, false, 1),
            (30, true, 2),
            (40, false, 1),
            (quick::MOST + 1, false, 2),
            (50, false, 1),
        ] {
            let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counted = Arc::clone(&calls);
            let work = move |out: &mut Out, patience: Option<Duration>| {
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if late && patience.is_some() {
                    return Err(ApiError::new(
                        ErrorKind::Timeout,
                        "query timed out in expression evaluation",
                    ));
                }
                for _ in 0..length {
                    out.buf.push(b'x');
                    out.flush_if_full();
                }
                Ok(())
            };
            let cancel = CancelToken::default();
            let response = stream_or_at_once(Arc::clone(&quick), Some(question), cancel, work).await;
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            assert!(body.len() == length && body.iter().all(|b| *b == b'x'), "{length}: {}", body.len());
            assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), expected, "{length} {late}");
            quick.note(question, Duration::ZERO, 0);
        }
    }
}
