//! How does history get in that never passed the head? As a block of its own, beside whatever covers the same time:
//! backfilled rules come this way, at any age.

use super::super::block::Cancelled;
use super::super::block::{BlockMeta, SeriesSource, new_ulid, write_block};
use super::super::compact::AnyBlock;
use super::super::door::StorageError;
use super::Db;

impl Db {
    /// Writes a block of samples in `[min_t_ms, max_t_ms]` and shows it to all queriers opened from now on; `None` if
    /// the source had none. It survives a power cut when this returns. Overlapping blocks are merged by compaction.
    pub fn add_block(
        &self,
        min_t_ms: i64,
        max_t_ms: i64,
        source: &mut dyn SeriesSource,
        cancelled: Cancelled<'_>,
    ) -> Result<Option<BlockMeta>, StorageError> {
        let Some(stored) = &self.stored else {
            return Err(StorageError::NotReady("this storage keeps no blocks".into()));
        };
        let _guard = stored.at_rest();
        if self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(StorageError::NotReady("the storage is closed".into()));
        }
        let meta = BlockMeta::new(new_ulid(self.clock.now_ms()), min_t_ms, max_t_ms.saturating_add(1));
        let Some((dir, meta, _)) = write_block(stored.blocks.dir(), meta, source, cancelled)? else {
            return Ok(None);
        };
        stored.blocks.publish(Some(AnyBlock::open(&dir)?), &[])?;
        self.head.changes.note(min_t_ms, max_t_ms);
        self.head.changes.note(min_t_ms, max_t_ms);
        tracing::info!(ulid = %meta.ulid, samples = meta.stats.num_samples, "a block of backfilled samples was added");
        Ok(Some(meta))
    }
}
