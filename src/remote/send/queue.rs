//! One peer: a thread reads the log, decides what to send and deals it out to shards; the place from which a restart
//! has to go on is saved behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::metrics::Dropped;
use super::scaling::{PERIOD, Scaling, Window};
use super::series::SeriesMap;
use super::shard::{Common, Item, Shard};
use crate::remote::receive::MessageVersion;
use crate::remote::write_encode::{Content, Entry, has_custom_buckets};
use crate::tsdb::{LogPosition, LogTail, StorageError, TailBatch, TailMarks};

/// How often the end of the log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often marks are saved, and how often so that they survive a power cut.
const SAVE: Duration = Duration::from_millis(100);
const SAVE_DURABLY: Duration = Duration::from_secs(10);
/// How far the mark of what may have been passed on is ahead, bytes of log: it is saved before anything behind it goes
/// out, and not for each batch.
const AHEAD_BYTES: u64 = 1 << 20;

/// What a queue sends.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// `send_exemplars`
    pub exemplars: bool,
    /// `send_native_histograms`, always in version 2.0
    pub histograms: bool,
}

/// Figures of the whole storage.
pub trait Newest: Send + Sync {
    /// Newest sample of all, milliseconds.
    fn newest_ms(&self) -> i64;
}

struct Shards {
    list: Vec<Arc<Shard>>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

/// How a queue is told to end.
#[derive(Debug, Default)]
pub struct Ending {
    /// Send what is there, if the peer takes it, then end.
    pub flush: AtomicBool,
    /// End now.
    pub now: AtomicBool,
}

/// The reader of one queue.
pub struct Reader {
    /// Shared with the shards.
    pub common: Arc<Common>,
    /// The log.
    pub tail: Box<dyn LogTail>,
    /// Series on their way out.
    pub series: SeriesMap,
    /// What is sent.
    pub wanted: Wanted,
    /// For the backlog.
    pub newest: Arc<dyn Newest>,
    /// Where shards run.
    pub runtime: tokio::runtime::Handle,
    /// When to end.
    pub ending: Arc<Ending>,
    /// Most time for flushing.
    pub flush_deadline: Duration,
}

impl Reader {
    /// Reads until told to end.
    pub fn run(mut self) {
        let least = usize::try_from(self.common.queue.min_shards).unwrap_or(1);
        let most = usize::try_from(self.common.queue.max_shards).unwrap_or(1);
        let metrics = self.common.metrics.clone();
        metrics.shards_min.set(least as f64);
        metrics.shards_max.set(most as f64);
        metrics.shard_capacity.set(self.common.queue.capacity as f64);
        metrics.max_per_send.set(self.common.queue.max_samples_per_send as f64);
        metrics.shards_desired.set(least as f64);
        let mut marks = self.tail.marks();
        let begun_before = marks.begun;
        let mut shards = self.start(least, Vec::new());
        let mut scaling = Scaling::default();
        let mut window = Window::default();
        let mut decided = Instant::now();
        let (mut saved, mut synced) = (Instant::now(), Instant::now());
        let (mut sent_before, mut busy_before) = (0, 0);
        let mut complained = false;
        while !self.ending.now.load(Ordering::SeqCst) && !self.ending.flush.load(Ordering::SeqCst) {
            let batch = match self.tail.next_batch() {
                Ok(batch) => batch,
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "the log cannot be read for remote write; trying on");
                    }
                    None
                }
            };
            metrics.damaged.add(self.tail.take_damaged() as f64);
            let lost = self.tail.take_lost();
            metrics.samples.drop(Dropped::Unintentionally, usize::try_from(lost).unwrap_or(usize::MAX));
            match batch {
                Some(batch) => {
                    complained = false;
                    if batch.end > marks.begun {
                        let ahead = LogPosition { offset: batch.end.offset + AHEAD_BYTES, ..batch.end };
                        marks.begun = ahead;
                        self.save(&mut marks, false);
                    }
                    metrics.segment.set(f64::from(batch.end.segment));
                    metrics.records.inc();
                    let again = batch.start < begun_before;
                    let dealt = self.deal(batch, again, shards.list.len(), &mut window);
                    self.put(&shards, dealt, &mut marks, &mut saved);
                }
                None => std::thread::sleep(POLL),
            }
            if saved.elapsed() >= SAVE {
                let durable = synced.elapsed() >= SAVE_DURABLY;
                self.save(&mut marks, durable);
                saved = Instant::now();
                if durable {
                    synced = saved;
                }
            }
            let elapsed = decided.elapsed();
            if elapsed >= PERIOD {
                decided = Instant::now();
                let sent = self.common.sent.load(Ordering::Relaxed);
                let busy = self.common.busy_ns.load(Ordering::Relaxed);
                window.sent = (sent - sent_before) as f64;
                window.busy_seconds = (busy - busy_before) as f64 / 1e9;
                (sent_before, busy_before) = (sent, busy);
                let newest_sent = self.common.newest_sent_ms.load(Ordering::Relaxed);
                let delay = if newest_sent == 0 {
                    0.0
                } else {
                    self.newest.newest_ms().saturating_sub(newest_sent) as f64 / 1000.0
                };
                let now = shards.list.len();
                let (ideal, count) = scaling.decide(window, elapsed.as_secs_f64(), delay, now, (least, most));
                window = Window::default();
                metrics.shards_desired.set(ideal);
                let quiet = self.common.clock.now_ms() - self.common.last_taken_ms.load(Ordering::Relaxed);
                // A peer that takes nothing at all would not take more from more shards.
                let alive = quiet < 2 * PERIOD.as_millis() as i64;
                if count != now && alive {
                    tracing::info!(from = now, to = count, "Remote storage resharding");
                    let rest = self.stop_shards(shards);
                    shards = self.start(count, rest);
                }
            }
        }
        self.finish(shards, &mut marks);
    }

    fn start(&self, count: usize, rest: Vec<Item>) -> Shards {
        let stop = CancellationToken::new();
        let list: Vec<Arc<Shard>> =
            (0..count.max(1)).map(|_| Shard::new(Arc::clone(&self.common), stop.clone())).collect();
        let mut dealt: Vec<Vec<Item>> = list.iter().map(|_| Vec::new()).collect();
        for item in rest {
            let at = shard_of(&item, list.len());
            dealt[at].push(item);
        }
        for (shard, items) in list.iter().zip(dealt) {
            // An empty shard takes everything.
            let refused = if items.is_empty() { Ok(()) } else { shard.offer(items) };
            debug_assert!(refused.is_ok(), "a new shard is empty");
        }
        let tasks = list.iter().map(|shard| self.runtime.spawn(Arc::clone(shard).run())).collect();
        self.common.metrics.shards.set(list.len() as f64);
        Shards { list, tasks, stop }
    }

    /// Ends the tasks after the requests that are under way; what is left comes back in an order that keeps each
    /// series in order.
    fn stop_shards(&self, shards: Shards) -> Vec<Item> {
        shards.stop.cancel();
        for task in shards.tasks {
            // A panic in it was logged; its items come back below or are settled.
            let _ = self.runtime.block_on(task);
        }
        shards.list.iter().flat_map(|shard| shard.take_rest()).collect()
    }

    fn save(&mut self, marks: &mut TailMarks, durable: bool) {
        if let Some(done) = self.common.progress.done() {
            marks.done = done;
        }
        if *marks == self.tail.marks() && !durable {
            return;
        }
        if let Err(error) = self.tail.save(*marks, durable) {
            tracing::warn!(%error, "how far remote write has come cannot be saved; a restart would send samples again");
        }
    }

    /// Waits until there is room for everything.
    fn put(&mut self, shards: &Shards, dealt: Vec<Vec<Item>>, marks: &mut TailMarks, saved: &mut Instant) {
        for (shard, mut items) in shards.list.iter().zip(dealt) {
            while !items.is_empty() {
                match shard.offer(items) {
                    Ok(()) => break,
                    Err(back) => items = back,
                }
                self.common.metrics.enqueue_retries.inc();
                let common = Arc::clone(&self.common);
                let (lock, condvar) = &common.room;
                condvar.wait_for(&mut lock.lock(), POLL);
                if self.ending.now.load(Ordering::SeqCst) || self.ending.flush.load(Ordering::SeqCst) {
                    // They are not settled, so they come again after the next start.
                    return;
                }
                if saved.elapsed() >= SAVE {
                    self.save(marks, false);
                    *saved = Instant::now();
                }
            }
        }
    }

    /// Deals a batch out to shards.
    fn deal(&mut self, batch: TailBatch, again: bool, shards: usize, window: &mut Window) -> Vec<Vec<Item>> {
        self.series.enter(batch.end.segment);
        for (number, labels) in &batch.series {
            self.series.define(*number, labels);
        }
        let mut dealt: Vec<Vec<Item>> = (0..shards).map(|_| Vec::new()).collect();
        let metrics = self.common.metrics.clone();
        let version = self.common.version;
        let series = &self.series;
        let mut count = 0;
        let mut newest = i64::MIN;
        let mut add = |number: u32, t_ms: i64, start_ms: i64, content: Content| {
            window.came += 1.0;
            let kind = match &content {
                Content::Float(_) => &metrics.samples,
                Content::Histogram(_) => &metrics.histograms,
                Content::Exemplar(_) => &metrics.exemplars,
            };
            let Some(known) = series.get(number) else { return kind.drop(Dropped::Unintentionally, 1) };
            let Some(identity) = known else {
                window.dropped += 1.0;
                return kind.drop(Dropped::Series, 1);
            };
            if let Content::Histogram(value) = &content
                && version == MessageVersion::V1
                && has_custom_buckets(value)
            {
                return kind.drop(Dropped::CustomBuckets, 1);
            }
            let entry = Entry { series: Arc::clone(identity), t_ms, start_ms, content };
            let item = Item { entry, ticket: 0, again };
            count += 1;
            newest = newest.max(t_ms);
            dealt[shard_of(&item, shards)].push(item);
        };
        for sample in batch.floats {
            add(sample.series, sample.t_ms, sample.start_ms, Content::Float(sample.value));
        }
        if self.wanted.histograms {
            for sample in batch.histograms {
                add(sample.series, sample.t_ms, sample.start_ms, Content::Histogram(sample.value));
            }
        }
        if self.wanted.exemplars {
            for exemplar in batch.exemplars {
                let content = Content::Exemplar(Box::new((exemplar.value, exemplar.labels)));
                add(exemplar.series, exemplar.t_ms, 0, content);
            }
        }
        if batch.passed {
            return dealt;
        }
        if newest != i64::MIN {
            let shown = metrics.highest_queued.get().max((newest / 1000) as f64);
            metrics.highest_queued.set(shown);
        }
        let ticket = self.common.progress.begin(batch.end, count);
        for item in dealt.iter_mut().flatten() {
            item.ticket = ticket;
        }
        dealt
    }

    /// Sends what is waiting, as long as the peer takes it, and saves how far that came.
    fn finish(&mut self, shards: Shards, marks: &mut TailMarks) {
        let deadline = Instant::now() + self.flush_deadline;
        if self.ending.flush.load(Ordering::SeqCst) {
            shards.list.iter().for_each(|shard| shard.close());
            while !shards.tasks.iter().all(JoinHandle::is_finished)
                && Instant::now() < deadline
                && !self.ending.now.load(Ordering::SeqCst)
                // The log keeps what a peer does not take; waiting for it would only delay the end.
                && !self.common.stuck.load(Ordering::Relaxed)
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let rest = self.stop_shards(shards);
        if !rest.is_empty() {
            tracing::info!(
                items = rest.len(),
                "not sent before the end; the log keeps them for the next start"
            );
        }
        if let Some(done) = self.common.progress.done() {
            marks.done = done;
        }
        let saved: Result<(), StorageError> = self.tail.save(*marks, true);
        if let Err(error) = saved {
            tracing::warn!(%error, "how far remote write has come cannot be saved; a restart would send samples again");
        }
        self.common.metrics.shards.set(0.0);
    }
}

/// All items of a series go to one shard.
fn shard_of(item: &Item, shards: usize) -> usize {
    // Addresses are multiples of the allocation granularity; the multiplication spreads them.
    let address = Arc::as_ptr(&item.entry.series).addr() as u64;
    let spread = (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (spread % shards.max(1) as u64) as usize
}
