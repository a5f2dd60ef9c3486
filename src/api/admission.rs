//! How much may run at once? Requests that compute wait for a place without holding a thread, and are turned away
//! with 503 when the queue is long or the wait is, so that health checks, scrapes and rules go on under a flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, ErrorKind};

/// Requests that may wait for a place, of each kind.
const MAX_WAITING: usize = 1024;
/// Lookups that run at once: labels, series, targets, rules and the like.
const LOOKUPS: usize = 32;

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Next to nothing, or bounded elsewhere.
    Free,
    /// A walk over an index or a list.
    Lookup,
    /// A PromQL evaluation.
    Query,
}

#[derive(Debug)]
struct Queue {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Queue {
    fn new(places: usize) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0) }
    }

    async fn enter(&self, longest: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Waiting::begin(&self.waiting).ok_or_else(|| {
            ApiError::new(ErrorKind::Timeout, "too many requests are waiting; try again later")
        })?;
        let entered = tokio::time::timeout(longest, Arc::clone(&self.places).acquire_owned()).await;
        drop(waiting);
        match entered {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::new(ErrorKind::Timeout, "query timed out in query queue")),
        }
    }
}

/// Counts one waiting request until dropped, however it ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queues of one server.
#[derive(Debug)]
pub struct Admission {
    lookups: Queue,
    queries: Queue,
}

impl Admission {
    /// Queues of which that for queries has this many places (`--query.max-concurrency`).
    #[must_use]
    pub fn new(queries: usize) -> Self {
        Self { lookups: Queue::new(LOOKUPS), queries: Queue::new(queries) }
    }

    /// Waits for a place, at most `longest`; `None` for requests that need none.
    pub async fn enter(
        &self,
        cost: Cost,
        longest: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        match cost {
            Cost::Free => Ok(None),
            Cost::Lookup => self.lookups.enter(longest).await.map(Some),
            Cost::Query => self.queries.enter(longest).await.map(Some),
        }
    }
}

/// Keeps a place for as long as an answer is streamed: its result is in memory until then. An answer that is complete
/// gives the place back at once.
pub fn hold(permit: Option<OwnedSemaphorePermit>, response: Response) -> Response {
    let complete = hyper::body::Body::size_hint(response.body()).exact().is_some();
    match permit {
        Some(permit) if !complete => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &permit;
                frame
            }))
        }),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_too_long_is_turned_away() {
        let admission = Admission::new(1);
        let moment = Duration::from_millis(20);
        let first = admission.enter(Cost::Query, moment).await.expect("a free place");
        let late = admission.enter(Cost::Query, moment).await.expect_err("no place");
        assert_eq!(
            (late.kind, late.message.as_str()),
            (ErrorKind::Timeout, "query timed out in query queue")
        );
        admission.enter(Cost::Lookup, moment).await.expect("another queue");
        drop(first);
        admission.enter(Cost::Query, moment).await.expect("free again");
        assert_eq!(admission.queries.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let queue = Queue::new(1);
        let _first = queue.enter(Duration::from_secs(60)).await.expect("a free place");
        queue.waiting.store(MAX_WAITING, Ordering::Relaxed);
        let refused = queue.enter(Duration::from_secs(3600)).await.expect_err("full");
        assert!(refused.message.contains("too many requests"), "{refused}");
        assert_eq!(queue.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }
}
