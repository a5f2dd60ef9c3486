//! When do series that have ended, and gathered out-of-order samples, go to blocks before their range is over?

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::super::block::{BlockMeta, new_ulid, write_block};
use super::super::compact::AnyBlock;
use super::super::compact::sources::FlushSeries;
use super::super::door::StorageError;
use super::super::head::leave::{FROM_OUT_OF_ORDER, FROM_STALE_SERIES, LeavePolicy, Leaving, MAX_SERIES};
use super::stored::Stored;
use super::{Db, DbOptions};
use crate::telemetry::memory::Pressure;

/// Out-of-order samples in memory beyond which they go to a block at once: some 30 MB.
const MOST_LATE: u64 = 500_000;
/// Under memory pressure a block is worth while for this share of ended series.
const SHARE_UNDER_PRESSURE: f64 = 0.01;

/// When the last ended series left, and how patient this storage is.
pub(super) struct Early {
    last_ms: AtomicI64,
    /// A block range is so many milliseconds.
    range_ms: i64,
    /// Bits of the share of ended series that is worth a block; 0 = never.
    share: AtomicU64,
}

impl Early {
    pub(super) fn new(options: &DbOptions) -> Self {
        Self {
            last_ms: AtomicI64::new(i64::MIN),
            range_ms: options.block_range_ms.max(2),
            share: AtomicU64::new(options.ended_series_share.to_bits()),
        }
    }

    pub(super) fn set_share(&self, share: f64) {
        self.share.store(share.to_bits(), Ordering::Relaxed);
    }

    fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Ordering::Relaxed))
    }

    /// Five minutes after the marker, half an hour after the last sample without one, with blocks of two hours.
    fn policy(&self, pressed: bool) -> LeavePolicy {
        LeavePolicy {
            stale_after_ms: self.range_ms / 24,
            idle_after_ms: self.range_ms / 4,
            share: if pressed { SHARE_UNDER_PRESSURE.min(self.share()) } else { self.share() },
            most_late: MOST_LATE,
        }
    }

    /// Whether enough time has passed since the last block of ended series: ten minutes, one under pressure.
    fn is_due(&self, now_ms: i64, pressed: bool) -> bool {
        let wait = self.range_ms / if pressed { 120 } else { 12 };
        self.share() > 0.0 && now_ms >= self.last_ms.load(Ordering::Relaxed).saturating_add(wait)
    }
}

/// Whether a block holds what left the head early.
pub(super) fn is_early(meta: &BlockMeta) -> bool {
    meta.compaction.hints.iter().any(|hint| hint == FROM_STALE_SERIES || hint == FROM_OUT_OF_ORDER)
}

impl Stored {
    /// Writes what should leave early to blocks and lets the head forget it. Returns whether there was anything.
    pub(super) fn leave_early(
        &self,
        db: &Db,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, StorageError> {
        let pressed = db.options.memory.pressure() >= Pressure::Series;
        let policy = self.early.policy(pressed);
        let now_ms = db.clock.now_ms();
        let mut leaving = db.head.late_samples(&policy)?;
        if leaving.is_none() && self.early.is_due(now_ms, pressed) {
            leaving = db.head.ended_series(&policy)?;
            // With more to come, the next step goes on at once.
            if leaving.as_ref().is_some_and(|leaving| leaving.series() < MAX_SERIES) {
                self.early.last_ms.store(now_ms, Ordering::Relaxed);
            }
        }
        let Some(leaving) = leaving else { return Ok(false) };
        let samples = self.write_parts(&leaving, now_ms, cancelled)?;
        let removed = db.head.let_go(&leaving, cancelled)?;
        if self.stopped() {
            return Err(StorageError::Canceled);
        }
        // Otherwise a restart would bring them back to memory.
        db.checkpoint()?;
        let (series, reason) = (leaving.series(), leaving.hint());
        tracing::info!(series, removed, samples, reason, "a part of the head left for a block");
        Ok(true)
    }

    pub(super) fn write_parts(
        &self,
        leaving: &Leaving,
        now_ms: i64,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<u64, StorageError> {
        let mut samples = 0;
        for range in leaving.ranges() {
            let mut meta = BlockMeta::new(new_ulid(now_ms), range.min_t_ms, range.max_t_ms.saturating_add(1));
            meta.compaction.hints = vec![leaving.hint().to_owned()];
            let part = leaving.part(range);
            let written = write_block(self.blocks.dir(), meta, &mut FlushSeries::new(&part), cancelled)?;
            if let Some((dir, meta, _)) = written {
                self.blocks.publish(Some(AnyBlock::open(&dir)?), &[])?;
                samples += meta.stats.num_samples;
            }
        }
        Ok(samples)
    }
}
