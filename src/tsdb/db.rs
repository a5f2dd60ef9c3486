//! The storage as a whole: opens a directory, replays what is there, and hands out the doors.
//!
//! Own files have names that Prometheus does not use (`docs/format/README.md` lists them), so that a directory of
//! Prometheus is never damaged by being opened.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::block::BlockMeta;
use super::changes::Changes;
use super::door::{
    Appendable, Appender, BatchOptions, ExemplarQuerier, ExemplarSeries, MetadataStore, Querier, Queryable,
    StorageError,
};
use super::head::append::HeadAppender;
use super::head::chunks::ChunkStore;
use super::head::metrics::{HeadMetrics, register};
use super::head::query::{HeadQuerier, HeadView};
use super::head::replay::{Recovery, replay};
use super::head::truncate::{Cardinality, HeadStats};
use super::head::{Head, Limits};
use super::merge::MergedQuerier;
use super::vfs::{LockGuard, Vfs, io_error, replace_file};
use super::wal::segment::remove_leftovers;
use super::wal::writer::WalMetrics;
use super::wal::{Wal, WalOptions};
use crate::model::Matcher;
use crate::model::clock::Clock;
use crate::model::metadata::Metadata;
use crate::telemetry::Registry;

/// History that comes as blocks.
mod added;
/// What Prometheus left.
mod adopt;
/// What leaves the head early.
mod early;
/// Instruments of blocks.
mod metrics;
/// How a storage is opened.
mod options;
/// What a closed storage answers.
mod refused;
/// Copies of the storage.
mod snapshot;
/// What lies in blocks, and how it gets there.
mod stored;
/// Readers of the log.
mod tails;
#[cfg(test)]
mod tests;

pub use options::{AgentOptions, DbOptions};
use refused::Refused;
use stored::Stored;

/// Version of the directory; a later one is refused.
const FORMAT_VERSION: u64 = 1;
pub(super) const FORMAT_FILE: &str = "meerkat.json";
pub(super) const WAL_DIR: &str = "meerkat-wal";
pub(super) const CHUNKS_DIR: &str = "meerkat-head";
const TAILS_DIR: &str = "meerkat-tails";
const LOCK_FILE: &str = "lock";
/// A checkpoint is written when this many samples have come since the last one: they replay in well under a second.
const CHECKPOINT_SAMPLES: u64 = 5_000_000;
/// But not before this many have come for each series, because a checkpoint writes all series.
const CHECKPOINT_SAMPLES_PER_SERIES: u64 = 5;
/// Also after so many new series, and a quarter of all: to create them takes longer than to read them.
const CHECKPOINT_CREATED: u64 = 200_000;
/// How often the background thread looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// Refused series are logged at most this often.
const TELL_REFUSED: Duration = Duration::from_secs(60);
const COMPACT_THREAD: &str = "tsdb-compact";
/// How much less urgent compaction is than the rest of the process.
const COMPACT_NICE: i32 = 10;
/// Longest time that closing waits for compaction.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Background {
    stop: Mutex<bool>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How far everything was at the last checkpoint; negative what was replayed at the start.
struct Checkpointed {
    bytes: i64,
    samples: i64,
    created: i64,
}

/// The storage.
pub struct Db {
    head: Arc<Head>,
    wal: Arc<Wal>,
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    wal_dir: PathBuf,
    options: DbOptions,
    retention_ms: AtomicI64,
    retention_bytes: AtomicU64,
    recovery: Recovery,
    closed: AtomicBool,
    /// Held while a checkpoint is written.
    checkpointed: Mutex<Checkpointed>,
    /// Missing in an agent, which has no blocks.
    stored: Option<Stored>,
    /// When an agent cut its log, and which segment it was in then, oldest first.
    cuts: Mutex<VecDeque<(Instant, u32)>>,
    background: Arc<Background>,
    /// How many refused series the log knows of, and since when.
    refusals_told: Mutex<(u64, Option<Instant>)>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

fn check_format(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(FORMAT_FILE);
    if !vfs.exists(&path) {
        return replace_file(vfs, &path, format!("{{\"format\":{FORMAT_VERSION}}}\n").as_bytes());
    }
    let bytes = vfs.sealed(&path, false).map_err(|e| io_error("read", &path, &e))?;
    let version =
        serde_json::from_slice::<serde_json::Value>(&bytes).ok().and_then(|v| v.get("format")?.as_u64());
    match version {
        Some(version) if version > FORMAT_VERSION => Err(StorageError::NotReady(format!(
            "{} says format {version}, this program knows formats up to {FORMAT_VERSION}: use a newer one",
            path.display()
        ))),
        Some(_) => Ok(()),
        None => {
            tracing::error!(path = %path.display(), "the format file is damaged, writing it again");
            replace_file(vfs, &path, format!("{{\"format\":{FORMAT_VERSION}}}\n").as_bytes())
        }
    }
}

impl Db {
    /// Opens a directory, which is created if missing, and replays its log.
    pub fn open(
        options: DbOptions,
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Arc<Self>, StorageError> {
        let begun = Instant::now();
        let (dir, wal_dir, chunks_dir) =
            (options.path.clone(), options.path.join(WAL_DIR), options.path.join(CHUNKS_DIR));
        let fresh = !vfs.exists(&dir);
        for dir in [&dir, &wal_dir, &chunks_dir] {
            vfs.create_dir_all(dir).map_err(|e| io_error("create directory", dir, &e))?;
        }
        // What is acknowledged in a directory whose own name is lost by a power cut is lost, too.
        vfs.sync_dir(&dir).map_err(|e| io_error("sync directory", &dir, &e))?;
        if fresh {
            for parent in dir.ancestors().skip(1) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                match vfs.sync_dir(parent) {
                    // Whoever made directories that are closed to us has to care for them.
                    Err(e) if e.kind() != std::io::ErrorKind::PermissionDenied => {
                        return Err(io_error("sync directory", parent, &e));
                    }
                    _ => {}
                }
            }
        }
        let lock_path = dir.join(LOCK_FILE);
        let lock = if options.no_lockfile {
            None
        } else {
            Some(vfs.lock(&lock_path).map_err(|e| {
                if e.kind() == std::io::ErrorKind::WouldBlock {
                    let path = lock_path.display();
                    StorageError::NotReady(format!(
                        "{path} is locked: another process uses this data directory"
                    ))
                } else {
                    io_error("lock", &lock_path, &e)
                }
            })?)
        };
        check_format(&*vfs, &dir)?;
        super::exchange::publish::finish(&*vfs, &dir)?;
        remove_leftovers(&*vfs, &wal_dir);
        adopt::recover(&*vfs, &dir, &wal_dir, &chunks_dir)?;
        let numbers = super::wal::segment::list(&*vfs, &wal_dir)?;
        let next = numbers.iter().map(|f| f.number + 1).max().unwrap_or(1);
        let wal_options = WalOptions {
            dir: wal_dir.clone(),
            segment_bytes: options.wal_segment_bytes,
            sync_interval: options.wal_sync_interval,
            retry_interval: options.retry_interval,
            compress: options.wal_compression,
            tails_dir: dir.join(TAILS_DIR),
            max_held_bytes: options.max_held_log_bytes,
        };
        let wal = Wal::new(Arc::clone(&vfs), wal_options, WalMetrics::new(registry), next);
        wal.metrics().bytes.set(numbers.iter().map(|f| f.len as f64).sum());
        let chunks = ChunkStore::open(Arc::clone(&vfs), &chunks_dir)?;
        let limits = Limits::new(
            options.block_range_ms.max(2),
            options.out_of_order_window_ms,
            options.max_series,
            options.max_series_per_job.clone(),
            Arc::clone(&options.memory),
            registry,
        );
        let head = Head::new(
            chunks,
            Arc::clone(&wal),
            limits,
            options.exemplar_capacity,
            HeadMetrics::new(registry),
        );
        let mut recovery = replay(&head, &*vfs, &wal_dir, &options.replay)?;
        if let Some(report) = adopt::run(&*vfs, &dir, (&wal_dir, &chunks_dir), next, &head)? {
            recovery.damaged += report.damaged;
        }
        wal.metrics().corruptions.add((recovery.damaged + recovery.unusable) as f64);
        register(&head, registry);
        let log_bytes = wal.metrics().bytes.get() as i64;
        let stored = match &options.agent {
            None => Some(Stored::open(&options, &vfs, &head, registry)?),
            Some(_) => None,
        };
        let took = begun.elapsed();
        let help = "Time taken to replay the data on disk.";
        registry.gauge("prometheus_tsdb_data_replay_duration_seconds", help, &[]).set(took.as_secs_f64());
        let help = "-1: lockfile is disabled. 0: a lockfile from a previous execution was replaced. 1: lockfile creation was clean";
        let clean = if options.no_lockfile { -1.0 } else { f64::from(u8::from(recovery.clean)) };
        registry.gauge("prometheus_tsdb_clean_start", help, &[]).set(clean);
        if recovery.damaged + recovery.unusable > 0 {
            tracing::error!(
                ?recovery,
                ?took,
                "the storage is open; damaged parts were skipped and kept on disk"
            );
        } else {
            tracing::info!(?recovery, ?took, "the storage is open");
        }
        let db = Arc::new(Self {
            head,
            wal,
            vfs,
            clock,
            wal_dir,
            retention_ms: AtomicI64::new(options.retention_ms),
            retention_bytes: AtomicU64::new(options.retention_bytes),
            options,
            recovery,
            closed: AtomicBool::new(false),
            checkpointed: Mutex::new(Checkpointed {
                bytes: -log_bytes,
                samples: -recovery.samples.cast_signed(),
                created: 0,
            }),
            stored,
            cuts: Mutex::default(),
            background: Arc::default(),
            refusals_told: Mutex::default(),
            lock: Mutex::new(lock),
        });
        db.start();
        Ok(db)
    }

    fn start(self: &Arc<Self>) {
        let Some(sync) = self.wal.start() else { return };
        let mut threads = self.background.threads.lock();
        threads.push(sync);
        let tick = self.each(TICK, Self::maintain);
        threads.extend(std::thread::Builder::new().name("tsdb".into()).spawn(tick).ok());
        if let Some(stored) = &self.stored {
            let compact = self.each(stored.interval(), |db| {
                if let Err(error) = db.compact() {
                    tracing::error!(%error, "compaction failed; it is tried again later");
                }
            });
            let compact = move || {
                // Scrapes and queries go first, so that a range that is over is no cliff; on Linux this is the thread's alone.
                if let Err(error) = rustix::process::nice(COMPACT_NICE) {
                    tracing::debug!(%error, "compaction keeps the priority of the process");
                }
                compact();
            };
            threads.extend(std::thread::Builder::new().name(COMPACT_THREAD.into()).spawn(compact).ok());
        }
    }

    /// A loop that does something again and again as long as the storage is there and not closed.
    fn each<F: Fn(&Self) + Send>(self: &Arc<Self>, wait: Duration, due: F) -> impl FnOnce() + Send + use<F> {
        let (db, background) = (Arc::downgrade(self), Arc::clone(&self.background));
        move || {
            loop {
                let mut stop = background.stop.lock();
                if !*stop {
                    background.wake.wait_for(&mut stop, wait);
                }
                if *stop {
                    return;
                }
                drop(stop);
                let Some(db) = db.upgrade() else { return };
                due(&db);
            }
        }
    }

    /// Writes blocks of what is old enough, merges and drops blocks: everything that is due now. Returns the number
    /// of steps done. The background thread calls this each minute.
    pub fn compact(&self) -> Result<usize, StorageError> {
        self.stored.as_ref().map_or(Ok(0), |stored| stored.cycle(self))
    }

    /// `meta.json` of each block, oldest first.
    #[must_use]
    pub fn blocks(&self) -> Vec<BlockMeta> {
        self.sized_blocks().into_iter().map(|(meta, _)| meta).collect()
    }

    /// `meta.json` of each block and the bytes that it takes on disk, oldest first.
    #[must_use]
    pub fn sized_blocks(&self) -> Vec<(BlockMeta, u64)> {
        let Some(stored) = &self.stored else { return Vec::new() };
        stored.blocks.blocks().iter().map(|b| (b.meta().clone(), b.size_bytes())).collect()
    }

    /// Removes deleted samples from blocks. Returns how many blocks were rewritten.
    pub fn clean_tombstones(&self) -> Result<usize, StorageError> {
        self.stored.as_ref().map_or(Ok(0), |stored| stored.clean_tombstones(self.clock.now_ms()))
    }

    /// Logs that series were refused, not more than once a minute.
    fn tell_refused(&self) {
        let (number, reason) = self.head.limits.refused();
        let mut told = self.refusals_told.lock();
        if number > told.0 && told.1.is_none_or(|at| at.elapsed() >= TELL_REFUSED) {
            let refused = number - told.0;
            tracing::warn!(refused, reason, "new series are refused, those that exist go on");
            *told = (number, Some(Instant::now()));
        }
    }

    /// What is due: a new file of chunks when the open one is long, a checkpoint when much log has gathered, a word about
    /// refused series. Called each second.
    pub fn maintain(&self) {
        self.tell_refused();
        self.release_log();
        self.cut_agent_log();
        if let Err(error) = self.head.chunks.rotate() {
            tracing::warn!(%error, "a long file of head chunks could not be closed");
        }
        if self.is_checkpoint_due()
            && self.wal.failure().is_none()
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint could be written; the log stays as it is");
        }
    }

    /// What has to be replayed takes time by the sample and by the new series, what is written by the series.
    fn is_checkpoint_due(&self) -> bool {
        let last = self.checkpointed.lock();
        let (bytes, samples) = self.wal.written();
        let (series, created) = self.head.series_and_created();
        bytes.saturating_sub_signed(last.bytes) >= self.options.checkpoint_bytes
            || samples.saturating_sub_signed(last.samples)
                >= CHECKPOINT_SAMPLES.max(CHECKPOINT_SAMPLES_PER_SERIES * series)
            || created.saturating_sub_signed(last.created) >= CHECKPOINT_CREATED.max(series / 4)
    }

    /// Writes the state of the head to disk, so that the log before it is not needed any more.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        let mut last = self.checkpointed.lock();
        let (bytes, samples) = self.wal.written();
        let (_, created) = self.head.series_and_created();
        self.head.checkpoint(&*self.vfs, &self.wal_dir)?;
        *last = Checkpointed {
            bytes: bytes.cast_signed(),
            samples: samples.cast_signed(),
            created: created.cast_signed(),
        };
        Ok(())
    }

    /// Stops background work, makes everything durable, writes a checkpoint so that the next start is quick, and
    /// releases the directory. Later calls do nothing.
    pub fn close(&self) -> Result<(), StorageError> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        *self.background.stop.lock() = true;
        self.background.wake.notify_all();
        if let Some(stored) = &self.stored {
            stored.stop();
        }
        self.wal.stop();
        let threads = std::mem::take(&mut *self.background.threads.lock());
        let patience = Instant::now() + CLOSE_PATIENCE;
        for thread in threads {
            // The last owner may be the background thread itself, which cannot wait for its own end.
            if thread.thread().id() != std::thread::current().id() {
                // What a step leaves behind when it is cut off, the next start cleans up.
                while thread.thread().name() == Some(COMPACT_THREAD)
                    && !thread.is_finished()
                    && Instant::now() < patience
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                if thread.thread().name() == Some(COMPACT_THREAD) && !thread.is_finished() {
                    continue;
                }
                let _ = thread.join();
            }
        }
        let synced = self.wal.sync();
        let saved = synced.and_then(|()| self.checkpoint());
        self.lock.lock().take();
        saved
    }

    /// What the start found.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Numbers about the head.
    #[must_use]
    pub fn head_stats(&self) -> HeadStats {
        self.head.stats()
    }

    /// Statistics of labels for `/api/v1/status/tsdb`.
    #[must_use]
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        self.head.cardinality(limit)
    }

    /// Heap bytes of series and index, by estimate.
    #[must_use]
    pub fn head_heap_bytes(&self) -> usize {
        self.head.heap_bytes()
    }

    /// The newest batch was refused because nothing can be written, for this reason.
    #[must_use]
    pub fn write_failure(&self) -> Option<StorageError> {
        self.head.write_failure()
    }

    /// Bytes written to the log since the start.
    #[must_use]
    pub fn wal_bytes_written(&self) -> u64 {
        self.wal.bytes_written()
    }

    /// Changes the out-of-order window, milliseconds; 0 refuses out-of-order samples.
    pub fn set_out_of_order_window(&self, window_ms: i64) {
        self.head.limits.out_of_order_window_ms.store(window_ms.max(0), Ordering::Relaxed);
    }

    /// Changes which share of ended series is worth a block of their own before their range is over; 0 = none.
    pub fn set_ended_series_share(&self, share: f64) {
        if let Some(stored) = &self.stored {
            stored.early.set_share(share);
        }
    }

    /// Changes the retention: milliseconds and bytes, 0 = no limit.
    pub fn set_retention(&self, retention_ms: i64, retention_bytes: u64) {
        self.retention_ms.store(retention_ms, Ordering::Relaxed);
        self.retention_bytes.store(retention_bytes, Ordering::Relaxed);
        if let Some(stored) = &self.stored {
            stored.set_retention(retention_ms, retention_bytes);
        }
    }

    /// Shows at `/metrics` which share of the disk the size of the retention stands for, percent; 0 = none.
    pub fn note_retention_percentage(&self, percent: f64) {
        if let Some(stored) = &self.stored {
            stored.note_percentage(percent);
        }
    }

    /// The retention: milliseconds and bytes, 0 = no limit.
    #[must_use]
    pub fn retention(&self) -> (i64, u64) {
        (self.retention_ms.load(Ordering::Relaxed), self.retention_bytes.load(Ordering::Relaxed))
    }

    /// Changes how many exemplars are kept.
    pub fn set_exemplar_capacity(&self, capacity: usize) {
        self.head.set_exemplar_capacity(capacity);
    }

    /// Hides samples of the selected series in a range (both ends included), durably.
    pub fn delete_series(
        &self,
        matchers: &[Matcher],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), StorageError> {
        // What is on its way from the head to a block must not escape.
        let _guard = self.stored.as_ref().map(Stored::at_rest);
        let from_head = self.head.delete(matchers, min_t_ms, max_t_ms);
        let deleted = from_head.and_then(|()| match &self.stored {
            Some(stored) => stored.delete(matchers, min_t_ms, max_t_ms),
            None => Ok(()),
        });
        // Also when it failed half way.
        self.head.changes.note(min_t_ms, max_t_ms);
        deleted
    }

    /// The head, for compaction.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// The clock of the storage.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // A storage that is dropped without `close` must look like a crash to the next start, nothing more.
        *self.background.stop.lock() = true;
        self.background.wake.notify_all();
        if let Some(stored) = &self.stored {
            stored.stop();
        }
        self.wal.stop();
    }
}

impl Appendable for Db {
    fn appender(&self, options: BatchOptions) -> Box<dyn Appender + '_> {
        if self.closed.load(Ordering::SeqCst) {
            return Box::new(Refused);
        }
        Box::new(HeadAppender::new(&self.head, options))
    }
}

impl Queryable for Db {
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        // The head first: a block is shown before the head forgets its range, so no sample is in neither.
        let head = Box::new(HeadQuerier(HeadView::open(&self.head, min_t_ms, max_t_ms)));
        let Some(stored) = &self.stored else { return Ok(head) };
        let mut sources = stored.blocks.queriers(min_t_ms, max_t_ms);
        if sources.is_empty() {
            return Ok(head);
        }
        sources.push(head);
        Ok(Box::new(MergedQuerier::new(sources)))
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        Some(Arc::clone(&self.head.changes))
    }
}

impl ExemplarQuerier for Db {
    fn select_exemplars(
        &self,
        start_ms: i64,
        end_ms: i64,
        matcher_sets: &[Vec<Matcher>],
    ) -> Result<Vec<ExemplarSeries>, StorageError> {
        Ok(self.head.select_exemplars(start_ms, end_ms, matcher_sets))
    }
}

impl MetadataStore for Db {
    fn metadata(&self, metric_name: Option<&str>) -> Vec<(String, Metadata)> {
        self.head.metadata_of(metric_name)
    }
}
