//! How do samples get from the head into blocks, and blocks into fewer and older ones, until they go? One cycle does
//! everything that is due in steps; a step writes at most one block and can be given up at each series.
//!
//! The order of a flush: view, block written and read back, block shown to queries, head told to forget, checkpoint.
//! Whatever ends the process in between, each sample is in the log, in a block, or in both, and queries return it once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use ulid::Ulid;

use super::super::block::{BlockMeta, new_ulid, write_block};
use super::super::compact::plan::next_merge;
use super::super::compact::sources::FlushSeries;
use super::super::compact::{AnyBlock, BlockSet, Compactor, CompactorOptions, Retention, Step};
use super::super::door::{SelectHints, StorageError};
use super::super::head::Head;
use super::super::vfs::{Place, Vfs};
use super::early::{Early, is_early};
use super::metrics::StoredMetrics;
use super::{Db, DbOptions};
use crate::model::Matcher;
use crate::telemetry::Registry;

/// Longest block whatever the retention, milliseconds: 31 days, as in Prometheus.
const LONGEST_MS: i64 = 31 * 24 * 3_600_000;
/// How often a cycle lets deletions and snapshots go first before it insists on finishing a step.
const PATIENCE: u32 = 3;

/// A block is rewritten when more than this share of it is deleted, as in Prometheus.
const MOST_DELETED: f64 = 0.05;

/// Blocks and what is needed to make them.
pub(super) struct Stored {
    pub(super) blocks: Arc<BlockSet>,
    compactor: Compactor,
    metrics: StoredMetrics,
    retention_ms: AtomicI64,
    retention_bytes: AtomicU64,
    block_range_ms: i64,
    max_block_ms: i64,
    /// Held while blocks are made or changed: a deletion must not fall between reading a block and replacing it.
    work: Mutex<()>,
    /// Callers that want `work` soon.
    waiting: AtomicUsize,
    stop: AtomicBool,
    /// A block up to here is published, and the head has not forgotten yet.
    pending: Mutex<Option<i64>>,
    /// Blocks that cannot be read whole and stay as they are.
    refused: Mutex<HashSet<Ulid>>,
    pub(super) early: Early,
}

/// Block ranges from the first one up, each three times the one before.
fn ranges(first_ms: i64, max_block_ms: i64, retention_ms: i64) -> Vec<i64> {
    let mut most = if max_block_ms > 0 { max_block_ms } else { LONGEST_MS };
    if max_block_ms <= 0 && retention_ms > 0 {
        most = most.min(retention_ms / 10);
    }
    let mut ranges = vec![first_ms.max(1)];
    let next = |range: i64| range.checked_mul(3).filter(|r| *r <= most);
    ranges.extend(std::iter::successors(next(first_ms.max(1)), |range| next(*range)));
    ranges
}

impl Stored {
    /// Opens the blocks below the data directory.
    pub(super) fn open(
        options: &DbOptions,
        vfs: &Arc<dyn Vfs>,
        head: &Arc<Head>,
        registry: &Registry,
    ) -> Result<Self, StorageError> {
        let (blocks, report) = BlockSet::open(Place::new(Arc::clone(vfs), &options.path))?;
        for path in &report.cleaned {
            tracing::info!(path = %path.display(), "an unfinished block was removed");
        }
        super::snapshot::remove_unfinished(blocks.dir());
        let blocks = Arc::new(blocks);
        let metrics = StoredMetrics::new(registry, &blocks, head);
        metrics.reloads.inc();
        metrics.damaged.add(report.damaged() as f64);
        let this = Self {
            compactor: Compactor::new(Arc::clone(&blocks), CompactorOptions::default()),
            blocks,
            metrics,
            retention_ms: AtomicI64::new(0),
            retention_bytes: AtomicU64::new(0),
            block_range_ms: options.block_range_ms.max(2),
            max_block_ms: options.max_block_ms,
            work: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            pending: Mutex::new(None),
            refused: Mutex::default(),
            early: Early::new(options),
        };
        this.set_retention(options.retention_ms, options.retention_bytes);
        Ok(this)
    }

    pub(super) fn set_retention(&self, time_ms: i64, bytes: u64) {
        self.retention_ms.store(time_ms, Ordering::Relaxed);
        self.retention_bytes.store(bytes, Ordering::Relaxed);
        self.compactor.set_options(CompactorOptions { retention: self.retention() });
        self.metrics.limit_seconds.set(time_ms as f64 / 1000.0);
        self.metrics.limit_bytes.set(bytes as f64);
    }

    pub(super) fn note_percentage(&self, percent: f64) {
        self.metrics.limit_percentage.set(percent);
    }

    fn retention(&self) -> Retention {
        Retention {
            time_ms: self.retention_ms.load(Ordering::Relaxed),
            bytes: self.retention_bytes.load(Ordering::Relaxed),
        }
    }

    /// How often a cycle should run: each minute, more often where blocks are short.
    pub(super) fn interval(&self) -> Duration {
        let part = u64::try_from(self.block_range_ms / 120).unwrap_or(0);
        Duration::from_millis(part).clamp(Duration::from_millis(200), Duration::from_secs(60))
    }

    /// Gives up the step that runs, and begins none.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits for the blocks to be at rest; a step that runs is given up and repeated later.
    pub(super) fn at_rest(&self) -> MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.work.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    /// Everything that is due. Returns the number of steps done.
    pub(super) fn cycle(&self, db: &Db) -> Result<usize, StorageError> {
        if self.stopped() {
            return Ok(0);
        }
        self.metrics.triggered.inc();
        self.reload(db)?;
        self.drop_old(db)?;
        let (mut steps, mut patience) = (0, PATIENCE);
        while !self.stopped() {
            let guard = self.work.lock();
            let begun = Instant::now();
            let polite = patience > 0;
            let cancelled = || self.stopped() || (polite && self.waiting.load(Ordering::SeqCst) > 0);
            match self.step(db, &cancelled) {
                Ok(false) => break,
                Ok(true) => {
                    steps += 1;
                    self.metrics.compactions.inc();
                    self.metrics.duration.observe(begun.elapsed().as_secs_f64());
                    drop(guard);
                    self.drop_old(db)?;
                }
                Err(StorageError::Canceled) if !self.stopped() => {
                    patience = patience.saturating_sub(1);
                    MutexGuard::unlock_fair(guard);
                }
                Err(StorageError::Canceled) => break,
                Err(error) => {
                    self.metrics.failed.inc();
                    return Err(error);
                }
            }
        }
        Ok(steps)
    }

    /// Looks for blocks that others put into the directory (backfilling tools do).
    fn reload(&self, db: &Db) -> Result<(), StorageError> {
        let _guard = self.work.lock();
        self.metrics.reloads.inc();
        let ulids = || self.blocks.blocks().iter().map(|b| b.meta().ulid).collect::<Vec<_>>();
        let before = ulids();
        let reloaded = self.blocks.reload();
        if ulids() != before {
            db.head.changes.note_all();
        }
        let report = reloaded.inspect_err(|_| self.metrics.reloads_failed.inc())?;
        self.metrics.damaged.add(report.damaged() as f64);
        Ok(())
    }

    /// Applies retention.
    fn drop_old(&self, db: &Db) -> Result<(), StorageError> {
        let retention = self.retention();
        if retention == Retention::default() {
            return Ok(());
        }
        let guard = self.work.lock();
        let log = db.wal.metrics().bytes.get().max(0.0) as u64;
        let gone = self.compactor.apply_retention(log.saturating_add(db.head.chunks.bytes()))?;
        drop(guard);
        if gone.is_empty() {
            return Ok(());
        }
        db.head.changes.note_all();
        tracing::info!(blocks = gone.len(), ?retention, "blocks past retention were deleted");
        if retention.bytes > 0 {
            self.metrics.size_retentions.inc();
        }
        if retention.time_ms > 0 {
            self.metrics.time_retentions.inc();
        }
        Ok(())
    }

    /// Does the most urgent thing, if there is one.
    fn step(&self, db: &Db, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<bool, StorageError> {
        // A block was written, and forgetting failed: no second block of the same samples.
        let pending = *self.pending.lock();
        if let Some(t_ms) = pending {
            self.forget(db, t_ms, true, cancelled)?;
            return Ok(true);
        }
        let now_ms = db.clock.now_ms();
        if let Some(range) = db.head.range_to_flush(now_ms) {
            let begun = Instant::now();
            let view = db.head.flush_view(range)?;
            let end = range.max_t_ms.saturating_add(1);
            let meta = BlockMeta::new(new_ulid(now_ms), range.min_t_ms, end);
            let written = write_block(self.blocks.dir(), meta, &mut FlushSeries::new(&*view), cancelled)?;
            drop(view);
            let is_some = written.is_some();
            if let Some((dir, meta, _)) = written {
                self.blocks.publish(Some(AnyBlock::open(&dir)?), &[])?;
                let (samples, took) = (meta.stats.num_samples, begun.elapsed());
                tracing::info!(ulid = %meta.ulid, ?range, samples, ?took, "the oldest range of the head is a block");
            }
            *self.pending.lock() = Some(end);
            self.forget(db, end, is_some, cancelled)?;
            if !is_some {
                db.head.find_oldest()?;
            }
            return Ok(true);
        }
        Ok(self.leave_early(db, cancelled)? || self.merge(db, now_ms, cancelled)?)
    }

    fn forget(
        &self,
        db: &Db,
        t_ms: i64,
        checkpoint: bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), StorageError> {
        if cancelled() {
            return Err(StorageError::Canceled);
        }
        db.head.forget_before(t_ms, cancelled)?;
        if self.stopped() {
            return Err(StorageError::Canceled);
        }
        // A range without samples leaves nothing in the log that would have to go.
        if checkpoint {
            db.checkpoint()?;
        }
        *self.pending.lock() = None;
        Ok(())
    }

    fn merge(
        &self,
        db: &Db,
        now_ms: i64,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, StorageError> {
        let blocks = self.blocks.blocks();
        let begun = db.head.valid_from_ms();
        // What left early waits for the rest of its range: merging the same samples again and again pays nobody.
        let waits = |meta: &BlockMeta| is_early(meta) && meta.max_time > begun;
        let metas: Vec<BlockMeta> = blocks.iter().map(|b| b.meta().clone()).filter(|m| !waits(m)).collect();
        let ranges = ranges(self.block_range_ms, self.max_block_ms, self.retention().time_ms);
        let group = next_merge(&metas, &ranges, |ulid| self.refused.lock().contains(ulid));
        if group.is_empty() {
            return self.rewrite(now_ms, cancelled);
        }
        let mut members: Vec<&BlockMeta> = metas.iter().filter(|m| group.contains(&m.ulid)).collect();
        members.sort_by_key(|m| m.min_time);
        if members.windows(2).any(|w| w[1].min_time < w[0].max_time) {
            self.metrics.vertical.inc();
        }
        match self.compactor.merge(&group, now_ms, cancelled)? {
            Step::Refused(ulids, reason) => {
                tracing::error!(?ulids, reason, "damaged blocks are not merged; they stay as they are");
                self.refused.lock().extend(ulids);
            }
            step => tracing::info!(?step, "blocks were merged"),
        }
        Ok(true)
    }

    /// Rewrites a block of which much was deleted, if there is one: nobody should have to ask for the space.
    fn rewrite(&self, now_ms: i64, cancelled: &(dyn Fn() -> bool + Sync)) -> Result<bool, StorageError> {
        let blocks = self.blocks.blocks();
        let usable = blocks.iter().filter(|b| !self.refused.lock().contains(&b.meta().ulid));
        let Some(block) = usable.filter(|b| b.has_deletions()).find(|b| b.deleted_share() > MOST_DELETED)
        else {
            return Ok(false);
        };
        match self.compactor.merge(&[block.meta().ulid], now_ms, cancelled)? {
            Step::Refused(ulids, reason) => {
                tracing::error!(?ulids, reason, "a damaged block keeps what was deleted from it");
                self.refused.lock().extend(ulids);
            }
            step => tracing::info!(?step, "a block was rewritten without what was deleted from it"),
        }
        Ok(true)
    }

    /// Hides samples that are in blocks. The caller holds [`Stored::at_rest`].
    pub(super) fn delete(
        &self,
        matchers: &[Matcher],
        min_t_ms: i64,
        max_t_ms: i64,
    ) -> Result<(), StorageError> {
        for block in self.blocks.blocks().iter() {
            let meta = block.meta();
            if meta.min_time > max_t_ms || meta.max_time <= min_t_ms {
                continue;
            }
            let found = block.querier(min_t_ms, max_t_ms).select(&SelectHints::default(), matchers);
            // What cannot be looked at is deleted by rule all the same.
            if found.is_ok_and(|set| set.is_empty() && set.warnings().is_empty()) {
                continue;
            }
            block.delete(min_t_ms, max_t_ms, matchers)?;
        }
        Ok(())
    }

    /// Rewrites blocks without what was deleted.
    pub(super) fn clean_tombstones(&self, now_ms: i64) -> Result<usize, StorageError> {
        let _guard = self.at_rest();
        let begun = Instant::now();
        let cleaned = self.compactor.clean_tombstones(now_ms, &|| self.stopped())?;
        self.metrics.tombstone_cleanup.observe(begun.elapsed().as_secs_f64());
        Ok(cleaned)
    }
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn ranges_grow_from_the_first_block() {
        assert_eq!(ranges(10, 0, 0)[..4], [10, 30, 90, 270]);
        assert_eq!(ranges(10, 0, 1000), [10, 30, 90]);
        assert_eq!(ranges(10, 10, 0), [10], "a longest block as long as the first switches merging off");
        assert_eq!(ranges(10, 30, 5), [10, 30]);
        assert!(ranges(0, 0, 0).len() < 64);
    }
}
