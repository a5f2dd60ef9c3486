//! What does a data directory of Prometheus hold besides blocks, and how does it get into a head? The write-ahead log
//! with its checkpoint, the log of out-of-order samples, and the chunks that its head moved to files.
//!
//! The logs have every sample that is not in a block; the chunk files repeat a part of them, and are asked only where
//! the logs are damaged or begin later. Damage is skipped, counted and named.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ulid::Ulid;

use crate::model::metadata::{Metadata, MetricType};
use crate::model::sample::Value;
use crate::tsdb::Map;
use crate::tsdb::block::{BlockMeta, SeriesColumns};
use crate::tsdb::door::StorageError;
use crate::tsdb::head::import::HeadLoader;
use crate::tsdb::vfs::{Entry, Vfs, io_error};

use super::log::{Found, Records};
use head_chunks::Chunks;
use record::{Record, decode};

/// Files of head chunks.
pub mod head_chunks;
/// Records.
pub mod record;

const WAL: &str = "wal";
const OUT_OF_ORDER_LOG: &str = "wbl";
const HEAD_CHUNKS: &str = "chunks_head";
const CHECKPOINT: &str = "checkpoint.";
/// Hint of blocks that say nothing about how far in-order samples are in blocks.
const OUT_OF_ORDER_HINT: &str = "from-out-of-order";
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// The files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The checkpoint's segments, then those after it.
    log: Vec<PathBuf>,
    /// Segments of out-of-order samples.
    out_of_order: Vec<PathBuf>,
    chunks: Vec<PathBuf>,
    /// Directories that all this lies in, and others that mean nothing without it.
    pub dirs: Vec<PathBuf>,
}

impl Files {
    /// All segments.
    pub fn log_files(&self) -> impl Iterator<Item = &Path> {
        self.log.iter().chain(&self.out_of_order).map(PathBuf::as_path)
    }

    /// Whether a segment is the last one of its log, whose last write may be cut off.
    #[must_use]
    pub fn is_last(&self, segment: &Path) -> bool {
        [&self.log, &self.out_of_order].iter().any(|log| log.last().is_some_and(|last| last == segment))
    }

    /// All files of head chunks.
    pub fn chunk_files(&self) -> impl Iterator<Item = &Path> {
        self.chunks.iter().map(PathBuf::as_path)
    }
}

/// What is in a directory; nothing if there is none.
fn entries(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Entry>, StorageError> {
    match vfs.list(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|e| io_error("list", dir, &e)),
    }
}

/// Numbered files of a directory in order.
fn numbered(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    let mut files: Vec<(u64, PathBuf)> = entries(vfs, dir)?
        .iter()
        .filter(|e| !e.is_dir)
        .filter_map(|e| Some((e.name.parse().ok()?, dir.join(&e.name))))
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Looks for a log and head chunks of Prometheus below a data directory. A directory that cannot be listed is an error:
/// nobody shall believe that it is empty.
pub fn find(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Files>, StorageError> {
    let ours = |name: &str| {
        [WAL, OUT_OF_ORDER_LOG, HEAD_CHUNKS].contains(&name) || name.starts_with("chunk_snapshot.")
    };
    let found = entries(vfs, dir)?;
    let dirs: Vec<PathBuf> =
        found.iter().filter(|e| e.is_dir && ours(&e.name)).map(|e| dir.join(&e.name)).collect();
    if dirs.is_empty() {
        return Ok(None);
    }
    let wal = dir.join(WAL);
    let newest = entries(vfs, &wal)?
        .into_iter()
        .filter(|e| e.is_dir)
        .filter_map(|e| Some((e.name.strip_prefix(CHECKPOINT)?.parse::<u64>().ok()?, wal.join(&e.name))))
        .max();
    let mut log = Vec::new();
    if let Some((_, checkpoint)) = &newest {
        log.extend(numbered(vfs, checkpoint)?.into_iter().map(|(_, path)| path));
    }
    let replaced = newest.map(|(number, _)| number);
    let segments = numbered(vfs, &wal)?.into_iter().filter(|(n, _)| replaced.is_none_or(|r| *n > r));
    log.extend(segments.map(|(_, path)| path));
    let paths = |name: &str| -> Result<Vec<PathBuf>, StorageError> {
        Ok(numbered(vfs, &dir.join(name))?.into_iter().map(|(_, path)| path).collect())
    };
    Ok(Some(Files { log, out_of_order: paths(OUT_OF_ORDER_LOG)?, chunks: paths(HEAD_CHUNKS)?, dirs }))
}

/// Until when in-order samples are in Prometheus's blocks, exclusive. Samples of the log before that are left-overs, and
/// may have been deleted from the blocks. A block that ends after `newest_t_ms`, the newest sample of the log, came from
/// elsewhere and says nothing.
fn in_blocks_until(vfs: &dyn Vfs, dir: &Path, newest_t_ms: i64) -> i64 {
    let entries = vfs.list(dir).unwrap_or_default();
    entries
        .iter()
        .filter(|e| e.is_dir && Ulid::from_string(&e.name).is_ok())
        .filter_map(|e| {
            // A block that cannot be read is named when blocks are opened.
            let bytes = vfs.sealed(&dir.join(&e.name).join("meta.json"), false).ok()?;
            serde_json::from_slice::<BlockMeta>(&bytes).ok()
        })
        .filter(|meta| !meta.is_native() && !meta.compaction.hints.iter().any(|h| h == OUT_OF_ORDER_HINT))
        .map(|meta| meta.max_time)
        .filter(|end| *end <= newest_t_ms)
        .max()
        .unwrap_or(i64::MIN)
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Samples that were stored.
    pub samples: u64,
    /// Damaged places that were skipped.
    pub damaged: u64,
    /// Samples and chunks of series that no record names.
    pub unnamed: u64,
}

struct Import<'a, 'h> {
    vfs: &'a dyn Vfs,
    head: HeadLoader<'h>,
    by_ref: Map<u64, u32>,
    /// In-order samples before this are in blocks.
    from_t_ms: i64,
    report: Report,
    told: Instant,
}

/// Reads everything into an empty or replayed head.
pub fn load(vfs: &dyn Vfs, dir: &Path, files: &Files, head: HeadLoader<'_>) -> Result<Report, StorageError> {
    let newest = newest_sample(vfs, files);
    let from_t_ms = in_blocks_until(vfs, dir, newest);
    let mut import = Import {
        vfs,
        head,
        by_ref: Map::default(),
        from_t_ms,
        report: Report::default(),
        told: Instant::now(),
    };
    import.head.valid_from(from_t_ms);
    let all = files.log.len() + files.out_of_order.len();
    for (i, path) in files.log.iter().enumerate() {
        import.progress(i, all);
        import.segment(path, false, files.is_last(path))?;
    }
    import.head.settle()?;
    for (i, path) in files.out_of_order.iter().enumerate() {
        import.progress(files.log.len() + i, all);
        import.segment(path, true, files.is_last(path))?;
    }
    import.head.settle()?;
    let complete = import.report.damaged == 0 && import.report.unnamed == 0;
    for path in &files.chunks {
        import.chunks(path, complete)?;
    }
    import.head.settle()?;
    let mut report = import.report;
    report.samples = import.head.finish()?;
    Ok(report)
}

/// The newest sample of the log: that of its last segment that has any.
fn newest_sample(vfs: &dyn Vfs, files: &Files) -> i64 {
    for path in files.log.iter().rev() {
        let Ok(bytes) = vfs.sealed(path, true) else { continue };
        let times = Records::new(&bytes).filter_map(|found| {
            let Found::Record { bytes, .. } = found else { return None };
            let Ok(Record::Samples(samples)) = decode(&bytes) else { return None };
            samples.iter().map(|s| s.t_ms).max()
        });
        if let Some(newest) = times.max() {
            return newest;
        }
    }
    i64::MIN
}

/// The family that a series belongs to.
fn family<'a>(metric: &'a str, metadata: &Metadata) -> &'a str {
    let suffixes: &[&str] = match metadata.metric_type {
        MetricType::Histogram | MetricType::GaugeHistogram => &["_bucket", "_count", "_sum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(metric)
}

impl Import<'_, '_> {
    fn progress(&mut self, done: usize, all: usize) {
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            tracing::info!(segment = done + 1, of = all, "importing the write-ahead log of Prometheus");
        }
    }

    fn segment(&mut self, path: &Path, out_of_order: bool, last: bool) -> Result<(), StorageError> {
        let bytes = match self.vfs.sealed(path, true) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a segment of Prometheus's log cannot be read");
                self.report.damaged += 1;
                return Ok(());
            }
        };
        for found in Records::new(&bytes) {
            match found {
                Found::Record { bytes, offset } => match decode(&bytes) {
                    Ok(record) => self.record(record, out_of_order)?,
                    Err(error) => {
                        tracing::error!(path = %path.display(), offset, %error, "a record of Prometheus's log cannot be used");
                        self.report.damaged += 1;
                    }
                },
                Found::Damage { offset, len, at_end: true } if last => {
                    tracing::info!(path = %path.display(), offset, len, "the last write of Prometheus was not complete");
                }
                Found::Damage { offset, len, .. } => {
                    tracing::error!(path = %path.display(), offset, len, "damage in Prometheus's log, going on behind it");
                    self.report.damaged += 1;
                }
            }
        }
        Ok(())
    }

    fn slot(&self, series: u64) -> Option<u32> {
        self.by_ref.get(&series).copied()
    }

    fn record(&mut self, record: Record, out_of_order: bool) -> Result<(), StorageError> {
        match record {
            Record::Series(all) => {
                for (series, labels) in all.iter().filter(|(_, labels)| !labels.is_empty()) {
                    let slot = self.head.series(labels);
                    self.by_ref.insert(*series, slot);
                }
            }
            Record::Samples(all) => {
                for sample in all {
                    if !out_of_order && sample.t_ms < self.from_t_ms {
                        continue;
                    }
                    let Some(slot) = self.slot(sample.series) else {
                        self.report.unnamed += 1;
                        continue;
                    };
                    self.head.sample(slot, sample.t_ms, sample.start_ms, sample.value)?;
                }
            }
            Record::Deletions(all) => {
                for (series, min, max) in all {
                    if let Some(slot) = self.slot(series) {
                        self.head.delete(slot, min, max);
                    }
                }
            }
            Record::Exemplars(all) => {
                for (series, t_ms, value, labels) in all {
                    if let Some(slot) = self.slot(series) {
                        self.head.exemplar(slot, t_ms, value, labels);
                    }
                }
            }
            Record::Metadata(all) => {
                for (series, metadata) in all {
                    if let Some(slot) = self.slot(series) {
                        let labels = self.head.labels(slot);
                        self.head.metadata(family(labels.metric_name(), &metadata), &metadata);
                    }
                }
            }
            Record::Nothing => {}
        }
        Ok(())
    }

    /// Takes from a file of head chunks what the logs did not have; if they were `complete`, only what lies outside of
    /// the time that they cover.
    fn chunks(&mut self, path: &Path, complete: bool) -> Result<(), StorageError> {
        let Ok(bytes) = self.vfs.sealed(path, true) else {
            tracing::error!(path = %path.display(), "a file of Prometheus's head chunks cannot be read");
            self.report.damaged += 1;
            return Ok(());
        };
        for found in Chunks::new(&bytes) {
            let chunk = match found {
                Ok(chunk) => chunk,
                Err((offset, error)) => {
                    tracing::error!(path = %path.display(), offset, %error, "damage in Prometheus's head chunks");
                    self.report.damaged += 1;
                    continue;
                }
            };
            if !chunk.out_of_order && chunk.max_t_ms < self.from_t_ms {
                continue;
            }
            let Some(slot) = self.slot(chunk.series) else {
                // Late samples may long be in a block, and their series gone.
                self.report.unnamed += u64::from(!chunk.out_of_order);
                continue;
            };
            let known = self.head.range(slot);
            let covered = known.is_some_and(|(from, to)| {
                chunk.out_of_order || (chunk.min_t_ms.max(self.from_t_ms) >= from && chunk.max_t_ms <= to)
            });
            if complete && covered {
                continue;
            }
            match chunk.decode() {
                Ok(columns) => self.columns(slot, &columns, chunk.out_of_order)?,
                Err(error) => {
                    tracing::error!(path = %path.display(), offset = chunk.offset, %error, "a head chunk of Prometheus cannot be read");
                    self.report.damaged += 1;
                }
            }
        }
        Ok(())
    }

    fn columns(&mut self, slot: u32, columns: &SeriesColumns, all: bool) -> Result<(), StorageError> {
        let wanted = |t: i64| all || t >= self.from_t_ms;
        let start = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
        for (i, (t, v)) in
            columns.timestamps.iter().zip(&columns.values).enumerate().filter(|(_, (t, _))| wanted(**t))
        {
            self.head.late(slot, *t, start(&columns.float_start_ts, i), Value::Float(*v))?;
        }
        for (i, (t, h)) in columns.histograms.iter().enumerate().filter(|(_, (t, _))| wanted(*t)) {
            self.head.late(slot, *t, start(&columns.histogram_start_ts, i), Value::Histogram(h.clone()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
