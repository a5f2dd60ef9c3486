//! What becomes of the part of a request that nobody read? Closing a connection while the client still sends resets it,
//! and the client loses the answer that was on its way. So short rests are read and thrown away before the answer is
//! written, as Go's server does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

/// Most bytes that are read in vain; behind a longer rest the connection is closed.
const MAX_BYTES: u64 = 256 << 10;
/// Longest wait for a rest.
const PATIENCE: Duration = Duration::from_millis(500);

/// A request's body that comes back when it is dropped before its end.
#[derive(Debug)]
pub struct Returning {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Where an unread rest comes back.
#[derive(Debug)]
pub struct Rest(oneshot::Receiver<Incoming>);

/// Ties a body to the place where its rest comes back.
#[must_use]
pub fn returning(body: Incoming) -> (Returning, Rest) {
    let (back, rest) = oneshot::channel();
    (Returning { body: Some(body), back: Some(back) }, Rest(rest))
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            // Nobody waits for it once the answer is being written.
            let _ = back.send(body);
        }
    }
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Rest {
    /// Reads what came back, unless it is long or slow in coming; whether nothing is left.
    pub async fn discard(mut self) -> bool {
        let Ok(mut body) = self.0.try_recv() else { return true };
        let mut left = MAX_BYTES;
        if body.size_hint().lower() > left {
            return false;
        }
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or(false)
    }
}
