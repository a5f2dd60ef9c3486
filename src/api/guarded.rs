//! How long may a client dawdle? A stream with three deadlines: a request's headers must be complete soon after
//! their first byte, reading or idling must make progress, and so must writing to a slow reader.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the stream and the requests on it share.
#[derive(Debug)]
pub struct ConnectionState {
    in_flight: AtomicUsize,
    begun: AtomicUsize,
    multiplexed: AtomicBool,
    /// Whether any request on the connection had a body.
    had_body: AtomicBool,
    /// Whether an answer was given before the body of its request was read to the end.
    left_unread: AtomicBool,
    /// Since when nothing is in flight, microseconds since the process first asked.
    idle_since: AtomicU64,
}

/// How long a client may go on sending after the end of what it is answered.
const LINGER: Duration = Duration::from_millis(500);
/// Reads in a row while waiting for that.
const LINGER_READS: usize = 16;

/// Stands for a connection whose first byte has not been waited for yet: nobody knows whether it dawdles.
const NOT_YET: u64 = u64::MAX;

/// Microseconds since the first call.
fn now_us() -> u64 {
    static BEGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let begin = BEGIN.get_or_init(std::time::Instant::now);
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl ConnectionState {
    /// A connection without requests.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            multiplexed: AtomicBool::new(false),
            had_body: AtomicBool::new(false),
            left_unread: AtomicBool::new(false),
            idle_since: AtomicU64::new(NOT_YET),
        })
    }
}

impl ConnectionState {
    /// The connection speaks HTTP/2: bytes between requests are its own business, not unfinished headers.
    pub fn set_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    /// The client may still be sending when its answer is there.
    pub fn leave_unread(&self) {
        self.left_unread.store(true, Ordering::Relaxed);
    }

    /// Requests begun so far.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// There was nothing to read: from now on the connection can be without a request.
    pub fn waits(&self) {
        if self.idle_since.load(Ordering::Relaxed) == NOT_YET {
            self.idle_since.store(now_us(), Ordering::Relaxed);
        }
    }

    /// Tells which connections have been without a request for as long as `grace` at this moment.
    pub fn idle_at_least(grace: Duration) -> impl Fn(&Self) -> bool {
        let since = now_us().checked_sub(u64::try_from(grace.as_micros()).unwrap_or(u64::MAX));
        move |state| {
            state.in_flight.load(Ordering::Relaxed) == 0
                && since.is_some_and(|since| state.idle_since.load(Ordering::Relaxed) <= since)
        }
    }

    /// Whether the next byte can only belong to a request's head: HTTP/1, nothing in flight, no bodies so far.
    #[must_use]
    pub fn is_between_bodiless_requests(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
            && !self.had_body.load(Ordering::Relaxed)
            && !self.multiplexed.load(Ordering::Relaxed)
    }
}

/// Marks a request as in flight until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<ConnectionState>);

impl InFlight {
    /// A request's headers are complete.
    #[must_use]
    pub fn begin(state: &Arc<ConnectionState>, has_body: bool) -> Self {
        if has_body {
            state.had_body.store(true, Ordering::Relaxed);
        }
        state.begun.fetch_add(1, Ordering::Relaxed);
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }

    /// Ties the mark to the life of the answer's body.
    pub fn around(self, body: Body) -> Body {
        Body::new(body.map_frame(move |frame| {
            let _ = &self;
            frame
        }))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since.store(now_us(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    state: Arc<ConnectionState>,
    header_deadline: Duration,
    read_timeout: Duration,
    write_stall: Duration,
    /// Requests begun when the header clock was last looked at.
    seen: usize,
    /// When the first byte of headers came that are not complete yet.
    header_since: Option<Instant>,
    /// Whether bytes came that no request began with yet.
    heard: bool,
    read_since: Instant,
    write_since: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    /// Until when a client that is told that all was said may still be sending.
    linger_until: Option<Instant>,
}

impl<S> Guarded<S> {
    /// Wraps a fresh connection.
    pub fn new(
        stream: S,
        state: Arc<ConnectionState>,
        header_deadline: Duration,
        read_timeout: Duration,
        write_stall: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            state,
            header_deadline,
            read_timeout,
            write_stall,
            seen: 0,
            // A connection that never says anything is treated as one that never ends its headers.
            header_since: Some(now),
            heard: false,
            read_since: now,
            write_since: None,
            read_timer: Box::pin(tokio::time::sleep_until(now + header_deadline)),
            write_timer: Box::pin(tokio::time::sleep_until(now + write_stall)),
            linger_until: None,
        }
    }

    fn write_outcome<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_since = None;
            return outcome;
        }
        let since = *self.write_since.get_or_insert_with(Instant::now);
        let timer = self.write_timer.as_mut();
        let deadline = since + self.write_stall;
        if timer.deadline() != deadline {
            self.write_timer.as_mut().reset(deadline);
        }
        match self.write_timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begun = this.state.begun.load(Ordering::Relaxed);
        if begun != this.seen {
            this.seen = begun;
            this.header_since = None;
            this.heard = false;
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        let idle = this.state.in_flight.load(Ordering::Relaxed) == 0;
        if outcome.is_ready() {
            this.read_since = Instant::now();
            if idle && buf.filled().len() > before {
                this.header_since.get_or_insert(this.read_since);
                this.heard = true;
            }
            return outcome;
        }
        this.state.waits();
        let deadline = match this.header_since {
            Some(since) if idle && !this.state.multiplexed.load(Ordering::Relaxed) => {
                since + this.header_deadline
            }
            _ if idle => this.read_since + this.read_timeout,
            // Whoever waits for an answer need not send anything; the answer has its own deadline.
            _ => return Poll::Pending,
        };
        if this.read_timer.deadline() != deadline {
            this.read_timer.as_mut().reset(deadline);
        }
        match this.read_timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Throws away what still comes, until the client closes too or had its time: to close at once would reset the
    /// connection of a client that is still sending, and take the answer from it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.linger_until.get_or_insert_with(|| Instant::now() + LINGER);
        let mut scratch = [0; 8 << 10];
        // Others want their turn too.
        for _ in 0..LINGER_READS {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    if self.read_timer.deadline() != until {
                        self.read_timer.as_mut().reset(until);
                    }
                    return self.read_timer.as_mut().poll(cx);
                }
            }
            if Instant::now() >= until {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.read_since = Instant::now();
        this.write_outcome(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.write_outcome(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger_until.is_none() {
            let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
            match this.write_outcome(cx, outcome) {
                Poll::Ready(Ok(())) if this.heard || this.state.left_unread.load(Ordering::Relaxed) => {}
                outcome => return outcome,
            }
        }
        this.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.read_since = Instant::now();
        this.write_outcome(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
