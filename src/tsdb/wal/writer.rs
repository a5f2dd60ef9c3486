//! The writing end of the log: which segment takes the next batch, when is it synced, and what happens when the
//! disk says no?
//!
//! One mutex orders appends. Syncs run outside of it, one at a time, each for everything appended before it; waiters
//! that come meanwhile share the next one. Batches that are not synced yet are kept in memory, so that after a
//! failed write or sync a new segment can take them: the failed file is never touched again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::door::StorageError;
use super::super::vfs::{Vfs, VfsFile, io_error};
use super::batch::BatchEncoder;
use super::frame::{FrameWriter, KEEP, kind};
use super::holds::Holds;
use super::segment::{FileKind, path_of};
use super::{LogBatch, SeriesNames};
use crate::telemetry::{Counter, Gauge, Registry, Summary};

/// A disk rests between two syncs that somebody waits for as long as the last one took, so that a slow one is not busy
/// with nothing else; but not longer than this.
const MAX_SYNC_GAP: Duration = Duration::from_millis(10);
/// Samples kept for a rewrite. If syncs fail for so long that this is not enough, ingestion stops.
const MAX_UNSYNCED_SAMPLES: usize = 20_000_000;

/// How the log is written.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// A segment is closed when it is longer, bytes.
    pub segment_bytes: u64,
    /// A sync follows a write at most this much later; zero = only when somebody waits for it.
    pub sync_interval: Duration,
    /// How long to wait between attempts to write again after a failure.
    pub retry_interval: Duration,
    /// Whether to compress.
    pub compress: bool,
    /// Where the marks of readers are kept.
    pub tails_dir: PathBuf,
    /// Most bytes of replaced segments that are kept for readers.
    pub max_held_bytes: u64,
}

/// Instruments of the log.
#[derive(Debug, Clone)]
pub struct WalMetrics {
    /// Damaged places found.
    pub corruptions: Counter,
    /// Number of the open segment.
    pub segment: Gauge,
    /// Bytes of all files of the log.
    pub bytes: Gauge,
    /// Bytes ever written.
    pub written: Counter,
    /// Failed writes.
    pub writes_failed: Counter,
    /// Failed syncs.
    pub syncs_failed: Counter,
    /// Duration of syncs.
    pub sync_duration: Summary,
    /// Sequence numbers that are not power-safe yet.
    pub unsynced: Gauge,
}

impl WalMetrics {
    /// Registers the instruments under Prometheus's names.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        Self {
            corruptions: counter("prometheus_tsdb_wal_corruptions_total", "Total number of WAL corruptions."),
            segment: registry.gauge(
                "prometheus_tsdb_wal_segment_current",
                "WAL segment index that TSDB is currently writing to.",
                &[],
            ),
            bytes: registry.gauge(
                "prometheus_tsdb_wal_storage_size_bytes",
                "Size of the write log directory.",
                &[],
            ),
            writes_failed: counter(
                "prometheus_tsdb_wal_writes_failed_total",
                "Total number of WAL writes that failed.",
            ),
            syncs_failed: counter(
                "meerkat_tsdb_wal_syncs_failed_total",
                "Total number of WAL syncs that failed.",
            ),
            sync_duration: registry.summary(
                "prometheus_tsdb_wal_fsync_duration_seconds",
                "Duration of write log fsync.",
                &[0.5, 0.9, 0.99],
                &[],
            ),
            written: counter(
                "meerkat_tsdb_wal_written_bytes_total",
                "Bytes written to the log, those that were dropped again included.",
            ),
            unsynced: registry.gauge(
                "meerkat_tsdb_wal_unsynced_batches",
                "Batches that are written but not yet synced.",
                &[],
            ),
        }
    }
}

struct Segment {
    number: u32,
    salt: u32,
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    len: u64,
}

struct Failure {
    error: StorageError,
    tried: Instant,
}

struct Inner {
    segment: Option<Segment>,
    /// Closed segments whose last bytes are not synced.
    closing: Vec<(PathBuf, Arc<dyn VfsFile>)>,
    next_number: u32,
    /// A segment was created whose name is not synced. That waits for the next sync, so that a disk that hangs in it does
    /// not hold up those who append.
    dir_changed: bool,
    sequence: u64,
    encoder: BatchEncoder,
    frames: FrameWriter,
    /// Reused: the payload of a batch, and its frame.
    buffers: (Vec<u8>, Vec<u8>),
    /// Batches that are not synced, oldest first.
    unsynced: VecDeque<(u64, Arc<LogBatch>)>,
    unsynced_samples: usize,
    failure: Option<Failure>,
    bytes: u64,
    samples: u64,
}

#[derive(Default)]
struct Durable {
    /// All batches up to this one survive a power cut.
    sequence: u64,
    /// An attempt to make batches up to this one durable failed.
    failed: Option<(u64, StorageError)>,
    stop: bool,
}

/// The log.
pub struct Wal {
    vfs: Arc<dyn Vfs>,
    options: WalOptions,
    metrics: WalMetrics,
    holds: Holds,
    names: OnceLock<Weak<dyn SeriesNames>>,
    inner: Mutex<Inner>,
    durable: Mutex<Durable>,
    wake: Condvar,
    /// Held while syncing; when the last one ended, and how long it took.
    syncing: Mutex<Option<(Instant, Duration)>>,
}

fn samples_of(batch: &LogBatch) -> usize {
    1 + batch.floats.len() + batch.out_of_order.len() + 8 * batch.histograms.len() + 4 * batch.exemplars.len()
}

impl Wal {
    /// A log whose next segment has the given number. Nothing is written before the first batch.
    #[must_use]
    pub fn new(vfs: Arc<dyn Vfs>, options: WalOptions, metrics: WalMetrics, next_number: u32) -> Arc<Self> {
        let frames = FrameWriter::new(options.compress);
        let holds = Holds::open(Arc::clone(&vfs), options.tails_dir.clone(), options.max_held_bytes);
        Arc::new(Self {
            vfs,
            options,
            metrics,
            holds,
            names: OnceLock::new(),
            inner: Mutex::new(Inner {
                segment: None,
                closing: Vec::new(),
                next_number,
                dir_changed: false,
                sequence: 0,
                encoder: BatchEncoder::default(),
                frames,
                buffers: Default::default(),
                unsynced: VecDeque::new(),
                unsynced_samples: 0,
                failure: None,
                bytes: 0,
                samples: 0,
            }),
            durable: Mutex::default(),
            wake: Condvar::new(),
            syncing: Mutex::new(None),
        })
    }

    /// Says who knows the series. Must be called once, before the first batch.
    pub fn set_names(&self, names: Weak<dyn SeriesNames>) {
        let _ = self.names.set(names);
    }

    /// Starts the thread that syncs in the background, if the options ask for one.
    pub fn start(self: &Arc<Self>) -> Option<std::thread::JoinHandle<()>> {
        if self.options.sync_interval.is_zero() {
            return None;
        }
        let wal = Arc::clone(self);
        let run = move || {
            loop {
                let mut durable = wal.durable.lock();
                if durable.stop {
                    return;
                }
                wal.wake.wait_for(&mut durable, wal.options.sync_interval);
                if durable.stop {
                    return;
                }
                drop(durable);
                if let Err(error) = wal.sync() {
                    tracing::error!(%error, "the write-ahead log cannot be synced");
                }
            }
        };
        std::thread::Builder::new().name("wal-sync".into()).spawn(run).ok()
    }

    /// Stops the background thread at its next turn.
    pub fn stop(&self) {
        self.durable.lock().stop = true;
        self.wake.notify_all();
    }

    /// Writes a batch; when this returns it survives `kill -9`. Returns its sequence number.
    pub fn append(&self, batch: Arc<LogBatch>) -> Result<u64, StorageError> {
        let names = self.names()?;
        let mut inner = self.inner.lock();
        self.ready(&mut inner, &*names)?;
        if inner.unsynced_samples > MAX_UNSYNCED_SAMPLES {
            return Err(StorageError::ReadOnly(
                "too much is waiting for a sync of the write-ahead log".into(),
            ));
        }
        if inner.segment.as_ref().is_some_and(|s| s.len >= self.options.segment_bytes) {
            self.roll(&mut inner);
        }
        let sequence = inner.sequence + 1;
        if let Err(error) = self.write(&mut inner, sequence, &batch, &*names) {
            tracing::warn!(%error, "write to the log failed, going on in a new segment");
            self.metrics.writes_failed.inc();
            self.abandon(&mut inner);
            let again = self.rewrite(&mut inner, &*names);
            if let Err(error) = again.and_then(|()| self.write(&mut inner, sequence, &batch, &*names)) {
                return Err(self.fail(&mut inner, error));
            }
        }
        inner.sequence = sequence;
        inner.samples += (batch.floats.len() + batch.out_of_order.len() + batch.histograms.len()) as u64;
        inner.unsynced_samples += samples_of(&batch);
        inner.unsynced.push_back((sequence, batch));
        Ok(sequence)
    }

    fn names(&self) -> Result<Arc<dyn SeriesNames>, StorageError> {
        let names = self.names.get().and_then(Weak::upgrade);
        names.ok_or_else(|| StorageError::NotReady("the write-ahead log has no series".into()))
    }

    /// After a failure: tries again if the last attempt is long enough ago.
    fn ready(&self, inner: &mut Inner, names: &dyn SeriesNames) -> Result<(), StorageError> {
        let Some(failure) = &inner.failure else { return Ok(()) };
        if failure.tried.elapsed() < self.options.retry_interval {
            return Err(failure.error.clone());
        }
        match self.rewrite(inner, names) {
            Ok(()) => {
                tracing::info!("the write-ahead log can be written again");
                inner.failure = None;
                Ok(())
            }
            Err(error) => Err(self.fail(inner, error)),
        }
    }

    fn fail(&self, inner: &mut Inner, error: StorageError) -> StorageError {
        self.abandon(inner);
        let error = match error {
            StorageError::ReadOnly(_) => error,
            other => StorageError::ReadOnly(format!(
                "{other}; ingestion resumes by itself when the log can be written again"
            )),
        };
        inner.failure = Some(Failure { error: error.clone(), tried: Instant::now() });
        error
    }

    /// Never writes to the open segment again.
    fn abandon(&self, inner: &mut Inner) {
        inner.segment = None;
        inner.closing.clear();
        inner.encoder.reset();
    }

    /// Closes the open segment in peace.
    fn roll(&self, inner: &mut Inner) {
        if let Some(segment) = inner.segment.take() {
            inner.closing.push((segment.path, segment.file));
        }
        inner.encoder.reset();
    }

    /// Writes everything that is not synced into a new segment.
    fn rewrite(&self, inner: &mut Inner, names: &dyn SeriesNames) -> Result<(), StorageError> {
        let tail: Vec<(u64, Arc<LogBatch>)> = inner.unsynced.iter().cloned().collect();
        for (sequence, batch) in tail {
            if let Err(error) = self.write(inner, sequence, &batch, names) {
                self.abandon(inner);
                return Err(error);
            }
        }
        Ok(())
    }

    fn open_segment(&self, inner: &mut Inner) -> Result<(), StorageError> {
        // A number whose file could not be created properly is not used again.
        let number = inner.next_number;
        inner.next_number += 1;
        let salt = fastrand::u32(..);
        let path = path_of(&self.options.dir, FileKind::Segment, number, salt);
        let file = self.vfs.create(&path).map_err(|e| io_error("create", &path, &e))?;
        inner.dir_changed = true;
        self.metrics.segment.set(f64::from(number));
        inner.segment = Some(Segment { number, salt, path, file, len: 0 });
        Ok(())
    }

    fn write(
        &self,
        inner: &mut Inner,
        sequence: u64,
        batch: &LogBatch,
        names: &dyn SeriesNames,
    ) -> Result<(), StorageError> {
        if inner.segment.is_none() {
            inner.encoder.reset();
            self.open_segment(inner)?;
        }
        let (payload, frame) = &mut inner.buffers;
        for buffer in [&mut *payload, &mut *frame] {
            buffer.clear();
            buffer.shrink_to(KEEP);
        }
        inner.encoder.put(payload, sequence, batch, names);
        let Some(segment) = &mut inner.segment else {
            return Err(StorageError::NotReady("no open segment".into()));
        };
        let framed = inner.frames.put(frame, segment.salt, kind::BATCH, payload);
        framed.map_err(|e| StorageError::Io {
            operation: "encode",
            path: segment.path.display().to_string(),
            message: e.to_string(),
        })?;
        segment.file.append(frame).map_err(|e| io_error("write", &segment.path, &e))?;
        segment.len += frame.len() as u64;
        inner.bytes += frame.len() as u64;
        self.metrics.bytes.add(frame.len() as f64);
        self.metrics.written.add(frame.len() as f64);
        Ok(())
    }

    /// Blocks until the batch survives a power cut.
    pub fn wait_durable(&self, sequence: u64) -> Result<(), StorageError> {
        {
            let durable = self.durable.lock();
            if durable.sequence >= sequence {
                return Ok(());
            }
            if let Some((_, error)) = durable.failed.as_ref().filter(|(upto, _)| *upto >= sequence) {
                return Err(error.clone());
            }
        }
        self.sync_for(Some(sequence))
    }

    /// Makes everything appended so far durable.
    pub fn sync(&self) -> Result<(), StorageError> {
        self.sync_for(None)
    }

    fn sync_for(&self, waited_for: Option<u64>) -> Result<(), StorageError> {
        let mut last = self.syncing.lock();
        if let Some(sequence) = waited_for {
            // Whoever held the lock may have done it.
            if self.durable.lock().sequence >= sequence {
                return Ok(());
            }
            let rest = last.and_then(|(ended, took)| took.min(MAX_SYNC_GAP).checked_sub(ended.elapsed()));
            if let Some(rest) = rest.filter(|_| !self.options.sync_interval.is_zero()) {
                std::thread::sleep(rest);
            }
        }
        let begun = Instant::now();
        let result = self.sync_once();
        let took = begun.elapsed();
        *last = Some((Instant::now(), took));
        self.metrics.sync_duration.observe(took.as_secs_f64());
        result
    }

    fn sync_once(&self) -> Result<(), StorageError> {
        let (target, files, dir_changed) = {
            let mut inner = self.inner.lock();
            if inner.unsynced.is_empty() && inner.closing.is_empty() {
                return Ok(());
            }
            if inner.failure.is_some() {
                let names = self.names()?;
                if let Err(error) = self.ready(&mut inner, &*names) {
                    return self.note_failure(inner.sequence, error);
                }
            }
            let mut files = std::mem::take(&mut inner.closing);
            files.extend(inner.segment.as_ref().map(|s| (s.path.clone(), Arc::clone(&s.file))));
            (inner.sequence, files, std::mem::take(&mut inner.dir_changed))
        };
        let Err(error) = self.sync_files(&files, dir_changed) else { return self.note_success(target) };
        self.metrics.syncs_failed.inc();
        tracing::warn!(%error, "sync of the log failed, going on in a new segment");
        let mut inner = self.inner.lock();
        self.abandon(&mut inner);
        let names = self.names()?;
        let target = inner.sequence;
        let rewritten = self.rewrite(&mut inner, &*names);
        let file = inner.segment.as_ref().map(|s| (s.path.clone(), Arc::clone(&s.file)));
        inner.dir_changed = false;
        let synced = rewritten.and_then(|()| self.sync_files(file.as_slice(), true));
        if let Err(error) = synced {
            let error = self.fail(&mut inner, error);
            return self.note_failure(target, error);
        }
        drop(inner);
        self.note_success(target)
    }

    /// Syncs files, and the names of those that were created.
    fn sync_files(
        &self,
        files: &[(PathBuf, Arc<dyn VfsFile>)],
        dir_changed: bool,
    ) -> Result<(), StorageError> {
        for (path, file) in files {
            file.sync_data().map_err(|e| io_error("sync", path, &e))?;
        }
        let dir = &self.options.dir;
        if dir_changed {
            self.vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))?;
        }
        Ok(())
    }

    fn note_success(&self, target: u64) -> Result<(), StorageError> {
        let mut inner = self.inner.lock();
        while inner.unsynced.front().is_some_and(|(sequence, _)| *sequence <= target) {
            if let Some((_, batch)) = inner.unsynced.pop_front() {
                inner.unsynced_samples -= samples_of(&batch);
            }
        }
        self.metrics.unsynced.set(inner.unsynced.len() as f64);
        drop(inner);
        let mut durable = self.durable.lock();
        durable.sequence = durable.sequence.max(target);
        Ok(())
    }

    fn note_failure(&self, target: u64, error: StorageError) -> Result<(), StorageError> {
        self.durable.lock().failed = Some((target, error.clone()));
        Err(error)
    }

    /// The slot gets another series. Everything about the old one must be durable.
    pub fn forget(&self, slots: impl IntoIterator<Item = u32>) {
        let mut inner = self.inner.lock();
        for slot in slots {
            inner.encoder.forget(slot);
        }
    }

    /// Closes the open segment; what comes later goes into segments from the returned number on.
    pub fn cut(&self) -> u32 {
        let mut inner = self.inner.lock();
        self.roll(&mut inner);
        inner.next_number
    }

    /// Number of the open segment, or of the next one.
    #[must_use]
    pub fn current(&self) -> u32 {
        let inner = self.inner.lock();
        inner.segment.as_ref().map_or(inner.next_number, |s| s.number)
    }

    /// Number of the open segment and its length in bytes, or of the next one.
    #[must_use]
    pub fn end(&self) -> (u32, u64) {
        let inner = self.inner.lock();
        inner.segment.as_ref().map_or((inner.next_number, 0), |s| (s.number, s.len))
    }

    /// What readers still need.
    #[must_use]
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Bytes appended since the start.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.inner.lock().bytes
    }

    /// Bytes and samples appended since the start.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.bytes, inner.samples)
    }

    /// Why nothing can be written now, if so.
    #[must_use]
    pub fn failure(&self) -> Option<StorageError> {
        self.inner.lock().failure.as_ref().map(|f| f.error.clone())
    }

    /// The instruments.
    #[must_use]
    pub fn metrics(&self) -> &WalMetrics {
        &self.metrics
    }
}
