//! Where does the time of one request go? Spans, handed to a [`Sink`] that sends them on. The sink belongs to the process
//! like its log does; without one (`tracing` is not configured) a span costs one look at an atomic.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Spans that wait to be sent at most; what comes then is dropped.
const MAX_WAITING: usize = 2048;
/// So many that wait are worth a message.
pub const WORTH_SENDING: usize = 512;

static SINK: ArcSwapOption<Sink> = ArcSwapOption::const_empty();

/// From now on finished spans go to this sink, or nowhere.
pub fn set_sink(sink: Option<Arc<Sink>>) {
    SINK.store(sink);
}

/// What a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Something inside this process.
    Internal,
    /// A request of somebody else.
    Server,
    /// A request to somebody else.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(String),
    /// A number.
    Int(i64),
}

impl From<&str> for Attribute {
    fn from(v: &str) -> Self {
        Attribute::Text(v.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(v: String) -> Self {
        Attribute::Text(v)
    }
}

impl From<usize> for Attribute {
    fn from(v: usize) -> Self {
        Attribute::Int(i64::try_from(v).unwrap_or(i64::MAX))
    }
}

/// A span that is over.
#[derive(Debug, Clone)]
pub struct FinishedSpan {
    /// The trace.
    pub trace_id: u128,
    /// The span.
    pub span_id: u64,
    /// The span it belongs to, 0 for none.
    pub parent_id: u64,
    /// What happened.
    pub name: String,
    /// What it stands for.
    pub kind: SpanKind,
    /// Begin, nanoseconds since the epoch.
    pub start_ns: u64,
    /// End, nanoseconds since the epoch.
    pub end_ns: u64,
    /// Details.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Takes finished spans until somebody sends them.
#[derive(Debug)]
pub struct Sink {
    /// A new trace is recorded when the lower half of its id, without its first bit, is below.
    below: u64,
    waiting: Mutex<VecDeque<FinishedSpan>>,
    dropped: AtomicU64,
    /// Told when there is enough to send.
    pub enough: Notify,
}

impl Sink {
    /// A sink for this share (0 to 1) of the traces that begin here; those that others began are recorded if they say so.
    #[must_use]
    pub fn new(fraction: f64) -> Arc<Self> {
        let below = (fraction.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
        Arc::new(Self { below, waiting: Mutex::default(), dropped: AtomicU64::new(0), enough: Notify::new() })
    }

    /// At most so many spans, oldest first.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<FinishedSpan> {
        let mut waiting = self.waiting.lock();
        let n = waiting.len().min(most);
        waiting.drain(..n).collect()
    }

    /// Spans that were dropped since the last time somebody asked.
    #[must_use]
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn samples(&self, trace_id: u128) -> bool {
        (trace_id as u64 >> 1) < self.below
    }

    fn push(&self, span: FinishedSpan) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(span);
        let enough = waiting.len() >= WORTH_SENDING;
        drop(waiting);
        if enough {
            self.enough.notify_one();
        }
    }
}

/// A recorded span that others may belong to.
pub struct Parent {
    trace_id: u128,
    span_id: u64,
    sink: Arc<Sink>,
}

/// Where a span begins.
#[derive(Clone, Default)]
pub enum SpanContext {
    /// Outside of any trace: what begins here is a new one.
    #[default]
    Outside,
    /// Inside a trace that is not recorded.
    Unrecorded,
    /// Inside a recorded one.
    Recorded(Arc<Parent>),
}

impl fmt::Debug for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpanContext::Outside => "Outside",
            SpanContext::Unrecorded => "Unrecorded",
            SpanContext::Recorded(_) => "Recorded",
        })
    }
}

/// An id that is not 0.
fn id() -> u64 {
    fastrand::u64(1..)
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl SpanContext {
    /// The trace that a request belongs to according to its `traceparent` header (W3C Trace Context).
    #[must_use]
    pub fn of_header(header: Option<&str>) -> Self {
        let Some(sink) = SINK.load_full() else { return SpanContext::Outside };
        Self::read(header.unwrap_or_default(), sink).unwrap_or_default()
    }

    fn read(header: &str, sink: Arc<Sink>) -> Option<Self> {
        let mut parts = header.split('-');
        let version = parts.next().filter(|v| v.len() == 2 && *v != "ff")?;
        let hex = |text: Option<&str>, digits: usize| {
            let text = text.filter(|t| t.len() == digits && t.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u128::from_str_radix(text, 16).ok()
        };
        let trace_id = hex(parts.next(), 32).filter(|v| *v != 0)?;
        let span_id = hex(parts.next(), 16).and_then(|v| u64::try_from(v).ok()).filter(|v| *v != 0)?;
        let flags = hex(parts.next(), 2)?;
        if version == "00" && parts.next().is_some() {
            return None;
        }
        Some(if flags & 1 == 1 {
            SpanContext::Recorded(Arc::new(Parent { trace_id, span_id, sink }))
        } else {
            SpanContext::Unrecorded
        })
    }

    /// Begins a span here.
    pub fn start(&self, name: &str, kind: SpanKind) -> Span {
        match self {
            SpanContext::Outside => match SINK.load_full() {
                None => Span::Off,
                Some(sink) => Self::begin(sink, name, kind),
            },
            SpanContext::Unrecorded => Span::Unrecorded,
            SpanContext::Recorded(parent) => {
                let me = Parent { span_id: id(), trace_id: parent.trace_id, sink: Arc::clone(&parent.sink) };
                Span::open(me, parent.span_id, name, kind)
            }
        }
    }

    fn begin(sink: Arc<Sink>, name: &str, kind: SpanKind) -> Span {
        let trace_id = u128::from(id()) << 64 | u128::from(id());
        if sink.samples(trace_id) {
            Span::open(Parent { trace_id, span_id: id(), sink }, 0, name, kind)
        } else {
            Span::Unrecorded
        }
    }
}

/// A recorded span that is not over.
pub struct OpenSpan {
    me: Arc<Parent>,
    span: FinishedSpan,
}

/// Time that is being measured; over when dropped.
#[must_use]
pub enum Span {
    /// Nothing is traced.
    Off,
    /// This trace is not recorded.
    Unrecorded,
    /// It is.
    Recorded(Box<OpenSpan>),
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.context(), f)
    }
}

impl Span {
    fn open(me: Parent, parent_id: u64, name: &str, kind: SpanKind) -> Self {
        let start_ns = now_ns();
        let span = FinishedSpan {
            trace_id: me.trace_id,
            span_id: me.span_id,
            parent_id,
            name: name.to_owned(),
            kind,
            start_ns,
            end_ns: start_ns,
            attributes: Vec::new(),
            failure: None,
        };
        Span::Recorded(Box::new(OpenSpan { me: Arc::new(me), span }))
    }

    /// Whether it will be sent.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        matches!(self, Span::Recorded(_))
    }

    /// Where spans inside of this one begin.
    #[must_use]
    pub fn context(&self) -> SpanContext {
        match self {
            Span::Off => SpanContext::Outside,
            Span::Unrecorded => SpanContext::Unrecorded,
            Span::Recorded(open) => SpanContext::Recorded(Arc::clone(&open.me)),
        }
    }

    /// Notes a detail; costs nothing unless the span is recorded.
    pub fn set(&mut self, key: &'static str, value: impl Into<Attribute>) {
        if let Span::Recorded(open) = self {
            open.span.attributes.push((key, value.into()));
        }
    }

    /// It failed.
    pub fn fail(&mut self, why: &dyn fmt::Display) {
        if let Span::Recorded(open) = self {
            open.span.failure = Some(why.to_string());
        }
    }

    /// The `traceparent` header for a request that belongs to this span.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        match self {
            Span::Recorded(open) => Some(format!("00-{:032x}-{:016x}-01", open.me.trace_id, open.me.span_id)),
            Span::Off | Span::Unrecorded => None,
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let span = FinishedSpan {
            // A clock that went back must not make a span end before it began.
            end_ns: now_ns().max(self.span.start_ns),
            name: std::mem::take(&mut self.span.name),
            attributes: std::mem::take(&mut self.span.attributes),
            failure: self.span.failure.take(),
            ..self.span
        };
        self.me.sink.push(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_belong_to_one_another() {
        let sink = Sink::new(1.0);
        let mut outer = SpanContext::begin(Arc::clone(&sink), "outer", SpanKind::Server);
        outer.set("n", 3usize);
        let mut inner = outer.context().start("inner", SpanKind::Internal);
        inner.fail(&"broken");
        drop(inner);
        drop(outer);
        let spans = sink.take(10);
        let [inner, outer] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((inner.name.as_str(), outer.name.as_str()), ("inner", "outer"));
        assert_eq!((inner.trace_id, inner.parent_id, outer.parent_id), (outer.trace_id, outer.span_id, 0));
        assert_eq!(inner.failure.as_deref(), Some("broken"));
        assert_eq!(outer.attributes, [("n", Attribute::Int(3))]);
        assert!(outer.start_ns <= inner.start_ns && inner.end_ns <= outer.end_ns);
    }

    #[test]
    fn a_share_of_new_traces_is_recorded() {
        for (fraction, want) in [(0.0, 0..=0), (0.25, 400..=600), (1.0, 2000..=2000)] {
            let sink = Sink::new(fraction);
            let recorded = (0..2000)
                .filter(|_| SpanContext::begin(Arc::clone(&sink), "x", SpanKind::Server).is_recorded());
            let recorded = recorded.count();
            assert!(want.contains(&recorded), "{recorded} of 2000 at {fraction}");
        }
    }

    #[test]
    fn headers_of_others_decide() {
        let sink = Sink::new(0.0);
        let read = |text: &str| SpanContext::read(text, Arc::clone(&sink));
        let recorded = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = read(recorded).expect("a header").start("x", SpanKind::Server);
        let header = span.header().expect("recorded");
        assert!(
            header.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && header.ends_with("-01"),
            "{header}"
        );
        assert_ne!(header, recorded);
        drop(span);
        assert_eq!(sink.take(1)[0].parent_id, 0x00f0_67aa_0ba9_02b7);
        let silent = read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").expect("a header");
        assert!(!silent.start("x", SpanKind::Server).is_recorded());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-0-0-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_nobody_fetches_is_dropped_and_counted() {
        let sink = Sink::new(1.0);
        for _ in 0..MAX_WAITING + 3 {
            drop(SpanContext::begin(Arc::clone(&sink), "x", SpanKind::Internal));
        }
        assert_eq!(
            (sink.take(usize::MAX).len(), sink.take_dropped(), sink.take_dropped()),
            (MAX_WAITING, 3, 0)
        );
    }
}
