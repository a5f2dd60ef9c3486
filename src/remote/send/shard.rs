//! One shard: a bounded queue and the task that empties it, one request at a time, so that the samples of a series
//! arrive in order. A full queue makes the reader of the log wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::{Answer, WriteClient};
use super::metrics::{Dropped, Kind, Metrics};
use super::progress::Progress;
use crate::config::QueueConfig;
use crate::model::clock::Clock;
use crate::remote::receive::{MessageVersion, Written};
use crate::remote::write_encode::{Content, Entry, FamilyMetadata, version_1, version_2};
use crate::telemetry::spans::{SpanContext, SpanKind};

/// Requests that may be spent on finding out which samples a peer has already, for each queue.
const MAX_SPLITS: u64 = 10_000;

/// Something to send, and where it came from.
#[derive(Debug, Clone)]
pub struct Item {
    /// What is sent.
    pub entry: Entry,
    /// Ticket of its batch.
    pub ticket: u64,
    /// It may have been sent before the last restart.
    pub again: bool,
}

/// What all shards of a queue share.
pub struct Common {
    /// To the peer.
    pub client: WriteClient,
    /// Its name and URL, without credentials.
    pub names: (String, String),
    /// Version of the messages.
    pub version: MessageVersion,
    /// Settings.
    pub queue: QueueConfig,
    /// Counters.
    pub metrics: Metrics,
    /// What is settled.
    pub progress: Progress,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Metadata for messages of version 2.0.
    pub families: Arc<dyn FamilyMetadata>,
    /// Whether failed requests are logged in detail.
    pub log_failures: bool,
    /// Items sent, and nanoseconds that it took, since the queue began.
    pub sent: AtomicU64,
    /// See `sent`.
    pub busy_ns: AtomicU64,
    /// When a request was last taken, milliseconds.
    pub last_taken_ms: AtomicI64,
    /// Newest timestamp sent, milliseconds.
    pub newest_sent_ms: AtomicI64,
    /// The last request was not taken.
    pub stuck: AtomicBool,
    /// Requests spent on splitting.
    pub splits: AtomicU64,
    /// Woken when there is room in a shard.
    pub room: (Mutex<()>, Condvar),
}

impl Common {
    fn kind(&self, content: &Content) -> &Kind {
        match content {
            Content::Float(_) => &self.metrics.samples,
            Content::Histogram(_) => &self.metrics.histograms,
            Content::Exemplar(_) => &self.metrics.exemplars,
        }
    }

    /// Counts items by kind.
    fn each_kind(&self, items: &[Item], mut count: impl FnMut(&Kind, f64)) {
        let (mut floats, mut histograms, mut exemplars) = (0, 0, 0);
        for item in items {
            match item.entry.content {
                Content::Float(_) => floats += 1,
                Content::Histogram(_) => histograms += 1,
                Content::Exemplar(_) => exemplars += 1,
            }
        }
        let m = &self.metrics;
        for (kind, n) in [(&m.samples, floats), (&m.histograms, histograms), (&m.exemplars, exemplars)] {
            if n > 0 {
                count(kind, f64::from(n));
            }
        }
    }

    fn settle(&self, items: &[Item]) {
        self.each_kind(items, |kind, n| kind.pending.add(-n));
        self.progress.settle(items.iter().map(|i| i.ticket));
    }

    /// Takes items off that are too old to be sent.
    fn drop_old(&self, items: &mut Vec<Item>) {
        let limit = self.queue.sample_age_limit.0;
        if limit <= 0 {
            return;
        }
        let oldest = self.clock.now_ms() - limit;
        let (old, young): (Vec<Item>, Vec<Item>) =
            std::mem::take(items).into_iter().partition(|i| i.entry.t_ms < oldest);
        for item in &old {
            self.kind(&item.entry.content).drop(Dropped::TooOld, 1);
        }
        self.settle(&old);
        *items = young;
    }

    fn encode(&self, items: &[Item]) -> Vec<u8> {
        match self.version {
            MessageVersion::V1 => version_1(items.iter().map(|i| &i.entry)),
            MessageVersion::V2 => {
                let entries: Vec<Entry> = items.iter().map(|i| i.entry.clone()).collect();
                version_2(&entries, &*self.families)
            }
        }
    }

    fn count_taken(&self, items: &[Item], written: Option<Written>) {
        self.sent.fetch_add(items.len() as u64, Ordering::Relaxed);
        self.last_taken_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        if let Some(newest) = items.iter().map(|i| i.entry.t_ms).max() {
            let newest = self.newest_sent_ms.fetch_max(newest, Ordering::Relaxed).max(newest);
            self.metrics.highest_sent.set((newest / 1000) as f64);
        }
        let m = &self.metrics;
        self.each_kind(items, |kind, n| {
            let taken = match written {
                None => n,
                Some(w) if std::ptr::eq(kind, &m.samples) => n.min(w.samples as f64),
                Some(w) if std::ptr::eq(kind, &m.histograms) => n.min(w.histograms as f64),
                Some(w) => n.min(w.exemplars as f64),
            };
            kind.sent.add(taken);
            kind.failed.add(n - taken);
        });
    }
}

/// How sending some items ended.
enum Ended {
    /// Settled, one way or the other.
    Settled,
    /// The shard shall stop; these are still to be sent.
    Stopped(Vec<Item>),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// When the first of them came.
    since: Option<Instant>,
}

/// One shard.
pub struct Shard {
    common: Arc<Common>,
    waiting: Mutex<Waiting>,
    came: Notify,
    /// Nothing more comes: send what there is, then end.
    closing: AtomicBool,
    /// End after the request that is under way.
    stop: CancellationToken,
}

impl Shard {
    /// An empty shard.
    #[must_use]
    pub fn new(common: Arc<Common>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            common,
            waiting: Mutex::default(),
            came: Notify::new(),
            closing: AtomicBool::new(false),
            stop,
        })
    }

    /// Takes items over if there is room. Gives them back if there is none.
    pub fn offer(&self, items: Vec<Item>) -> Result<(), Vec<Item>> {
        let capacity = usize::try_from(self.common.queue.capacity).unwrap_or(1);
        let mut waiting = self.waiting.lock();
        // An empty shard takes whatever comes, or a batch larger than the capacity would never get in.
        if !waiting.items.is_empty() && waiting.items.len() + items.len() > capacity {
            return Err(items);
        }
        self.common.each_kind(&items, |kind, n| kind.pending.add(n));
        waiting.items.extend(items);
        waiting.since.get_or_insert_with(Instant::now);
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.came.notify_one();
    }

    /// What was not sent, after the task has ended.
    pub fn take_rest(&self) -> Vec<Item> {
        let items = Vec::from(std::mem::take(&mut self.waiting.lock().items));
        self.common.each_kind(&items, |kind, n| kind.pending.add(-n));
        items
    }

    /// The next items for one request: those of unknown fate are not mixed with new ones.
    fn take(&self) -> Result<Vec<Item>, Option<Duration>> {
        let most = usize::try_from(self.common.queue.max_samples_per_send).unwrap_or(1);
        let deadline = self.common.queue.batch_send_deadline.as_std();
        let mut waiting = self.waiting.lock();
        let Some(again) = waiting.items.front().map(|i| i.again) else { return Err(None) };
        let run = waiting.items.iter().take(most).take_while(|i| i.again == again).count();
        let whole = run == most || run < waiting.items.len();
        let left = deadline.saturating_sub(waiting.since.map_or(Duration::ZERO, |s| s.elapsed()));
        if !whole && !left.is_zero() && !self.closing.load(Ordering::SeqCst) {
            return Err(Some(left));
        }
        let taken = waiting.items.drain(..run).collect();
        waiting.since = (!waiting.items.is_empty()).then(Instant::now);
        drop(waiting);
        let (lock, condvar) = &self.common.room;
        drop(lock.lock());
        condvar.notify_all();
        Ok(taken)
    }

    /// Sends until it is told to stop, or closed and empty.
    pub async fn run(self: Arc<Self>) {
        loop {
            if self.stop.is_cancelled() {
                return;
            }
            match self.take() {
                Ok(items) => {
                    if let Ended::Stopped(rest) = self.deliver(items).await {
                        let mut waiting = self.waiting.lock();
                        for item in rest.into_iter().rev() {
                            waiting.items.push_front(item);
                        }
                        return;
                    }
                }
                Err(wait) => {
                    if wait.is_none() && self.closing.load(Ordering::SeqCst) {
                        return;
                    }
                    let wait = wait.unwrap_or(Duration::from_secs(3600));
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = self.came.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Sends items; splits them when a peer refuses them because it has some of them already.
    async fn deliver(&self, items: Vec<Item>) -> Ended {
        let common = &*self.common;
        let mut parts = vec![items];
        while let Some(mut part) = parts.pop() {
            common.drop_old(&mut part);
            if part.is_empty() {
                continue;
            }
            let split = part[0].again
                && part.len() > 1
                && common.version == MessageVersion::V1
                && common.splits.load(Ordering::Relaxed) < MAX_SPLITS;
            match self.attempts(&mut part).await {
                None => {
                    // The parts that are still to come follow the one that was stopped.
                    part.extend(parts.into_iter().rev().flatten());
                    return Ended::Stopped(part);
                }
                Some(Answer::Taken(written)) => {
                    let missing = written.is_none() && common.version == MessageVersion::V2;
                    if missing {
                        tracing::error!(
                            "the remote peer took a request of version 2.0 without saying how much of it was written: \
                             it probably does not know this version, set protobuf_message to prometheus.WriteRequest"
                        );
                    }
                    common.count_taken(&part, if missing { Some(Written::default()) } else { written });
                    common.settle(&part);
                }
                Some(Answer::Refused { .. }) if split => {
                    common.splits.fetch_add(2, Ordering::Relaxed);
                    // Newer samples are more likely to be missing there; the order within a series stays.
                    let rest = part.split_off(part.len() / 2);
                    parts.push(rest);
                    parts.push(part);
                }
                Some(Answer::Refused { reason, written }) => {
                    if part[0].again {
                        tracing::debug!(count = part.len(), reason, "sent before the restart already");
                    } else {
                        tracing::error!(
                            count = part.len(),
                            reason,
                            "non-recoverable error, samples are not sent again"
                        );
                        if common.log_failures {
                            self.log(&part);
                        }
                    }
                    match written {
                        Some(written) => common.count_taken(&part, Some(written)),
                        None => common.each_kind(&part, |kind, n| kind.failed.add(n)),
                    }
                    common.settle(&part);
                }
                Some(Answer::Retry { .. }) => {}
            }
        }
        Ended::Settled
    }

    fn log(&self, items: &[Item]) {
        for item in items.iter().take(20) {
            tracing::warn!(series = ?item.entry.series, timestamp = item.entry.t_ms, value = ?item.entry.content, "not sent");
        }
    }

    /// Repeats a request until the peer takes or refuses it; `None` when the shard shall stop.
    async fn attempts(&self, items: &mut Vec<Item>) -> Option<Answer> {
        let common = &*self.common;
        let mut backoff = common.queue.min_backoff.as_std();
        let mut attempt = 0;
        let mut packed = None;
        loop {
            let (body, encoding) = match packed.clone() {
                Some(packed) => packed,
                None => match common.client.pack(&common.encode(items)) {
                    Ok(fresh) => packed.insert(fresh).clone(),
                    Err(reason) => return Some(Answer::Refused { reason, written: None }),
                },
            };
            let size = body.len();
            let begun = Instant::now();
            let mut span = SpanContext::Outside.start("Remote Send Batch", SpanKind::Internal);
            span.set("request_size", size);
            span.set("items", items.len());
            span.set("try", usize::try_from(attempt).unwrap_or(usize::MAX));
            span.set("remote_name", common.names.0.as_str());
            span.set("remote_url", common.names.1.as_str());
            let answer =
                common.client.send(body, encoding, attempt, common.clock.now_ms(), span.context()).await;
            if let Answer::Retry { reason, .. } | Answer::Refused { reason, .. } = &answer {
                span.fail(reason);
            }
            drop(span);
            let took = begun.elapsed();
            common.metrics.batch_duration.observe(took.as_secs_f64());
            let busy = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            common.busy_ns.fetch_add(busy, Ordering::Relaxed);
            common.metrics.bytes.add(size as f64);
            let Answer::Retry { reason, after } = answer else {
                common.stuck.store(false, Ordering::Relaxed);
                return Some(answer);
            };
            if encoding == "zstd" {
                packed = None;
            }
            common.stuck.store(true, Ordering::Relaxed);
            if attempt == 0 {
                tracing::warn!(err = %reason, "Failed to send batch, retrying");
            }
            common.each_kind(items, |kind, n| kind.retried.add(n));
            attempt += 1;
            let wait = after.unwrap_or(backoff);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
            backoff = (backoff * 2).min(common.queue.max_backoff.as_std());
            let before = items.len();
            common.drop_old(items);
            if items.is_empty() {
                return Some(Answer::Retry { reason, after: None });
            }
            if items.len() != before {
                packed = None;
            }
        }
    }
}
