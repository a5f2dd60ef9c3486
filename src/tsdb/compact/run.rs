//! How do several blocks become one, or one smaller? A merge or a rewrite without deletions writes one block, and can
//! be given up at each series.

use std::sync::Arc;

use parking_lot::Mutex;
use ulid::Ulid;

use crate::tsdb::block::meta::BlockDesc;
use crate::tsdb::block::{BlockMeta, Cancelled, SeriesSource, new_ulid, write_block};
use crate::tsdb::door::StorageError;

use super::block_set::{AnyBlock, BlockSet, BlockWalk};
use super::plan::Retention;
use super::sources::MergedSource;

/// How blocks grow and go.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompactorOptions {
    /// What to keep.
    pub retention: Retention,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These blocks became one; `None` when nothing was left of them.
    Merged(Vec<Ulid>, Option<Ulid>),
    /// These blocks cannot be read whole, for this reason; they stay as they are.
    Refused(Vec<Ulid>, String),
}

/// Runs the steps.
#[derive(Debug)]
pub struct Compactor {
    blocks: Arc<BlockSet>,
    options: Mutex<CompactorOptions>,
}

impl Compactor {
    /// A compactor for a set of blocks.
    #[must_use]
    pub fn new(blocks: Arc<BlockSet>, options: CompactorOptions) -> Self {
        Self { blocks, options: Mutex::new(options) }
    }

    /// Changes the options from the next step on.
    pub fn set_options(&self, options: CompactorOptions) {
        *self.options.lock() = options;
    }

    /// Merges blocks (or rewrites one) into one without what was deleted from them.
    pub fn merge(&self, group: &[Ulid], now_ms: i64, cancelled: Cancelled<'_>) -> Result<Step, StorageError> {
        let all = self.blocks.blocks();
        let parents: Vec<&AnyBlock> = all.iter().filter(|b| group.contains(&b.meta().ulid)).collect();
        let meta = merged_meta(&parents, now_ms);
        let mut walks: Vec<BlockWalk> = parents.iter().map(|b| b.source()).collect();
        let written = {
            let sources = walks.iter_mut().map(|w| w as &mut dyn SeriesSource).collect();
            write_block(self.blocks.dir(), meta, &mut MergedSource::new(sources), cancelled)?
        };
        let damaged: Vec<(Ulid, String)> = parents
            .iter()
            .zip(&walks)
            .filter_map(|(b, w)| w.warnings().first().map(|text| (b.meta().ulid, text.clone())))
            .collect();
        if let Some((_, reason)) = damaged.first() {
            // The sources stay: what is readable in them stays readable, and a person may repair the rest.
            if let Some((dir, ..)) = &written {
                dir.remove_dir_all()?;
            }
            let reason = reason.clone();
            let ulids: Vec<Ulid> = damaged.into_iter().map(|(ulid, _)| ulid).collect();
            return Ok(Step::Refused(ulids, reason));
        }
        let retired: Vec<Ulid> = parents.iter().map(|b| b.meta().ulid).collect();
        let (new, ulid) = match written {
            None => (None, None),
            Some((dir, meta, _)) => (Some(AnyBlock::open(&dir)?), Some(meta.ulid)),
        };
        self.blocks.publish(new, &retired)?;
        Ok(Step::Merged(retired, ulid))
    }

    /// Rewrites every block from which something was deleted. Returns how many there were.
    pub fn clean_tombstones(&self, now_ms: i64, cancelled: Cancelled<'_>) -> Result<usize, StorageError> {
        let dirty: Vec<Ulid> =
            self.blocks.blocks().iter().filter(|b| b.has_deletions()).map(|b| b.meta().ulid).collect();
        for ulid in &dirty {
            self.merge(&[*ulid], now_ms, cancelled)?;
        }
        Ok(dirty.len())
    }

    /// Drops blocks that are past retention; `extra_bytes` (log, head) count towards the size limit. Returns what
    /// went.
    pub fn apply_retention(&self, extra_bytes: u64) -> Result<Vec<Ulid>, StorageError> {
        let retention = self.options.lock().retention;
        let blocks = self.blocks.blocks();
        let sized: Vec<(&BlockMeta, u64)> = blocks.iter().map(|b| (b.meta(), b.size_bytes())).collect();
        let victims = retention.victims(&sized, extra_bytes);
        if !victims.is_empty() {
            self.blocks.publish(None, &victims)?;
        }
        Ok(victims)
    }
}

fn merged_meta(parents: &[&AnyBlock], now_ms: i64) -> BlockMeta {
    let metas: Vec<&BlockMeta> = parents.iter().map(|b| b.meta()).collect();
    let min = metas.iter().map(|m| m.min_time).min().unwrap_or(i64::MAX);
    let max = metas.iter().map(|m| m.max_time).max().unwrap_or(i64::MIN);
    let mut meta = BlockMeta::new(new_ulid(now_ms), min, max);
    meta.compaction.sources = metas.iter().flat_map(|m| m.compaction.sources.iter().copied()).collect();
    meta.compaction.sources.sort_unstable();
    meta.compaction.sources.dedup();
    let level = metas.iter().map(|m| m.compaction.level).max().unwrap_or(0);
    // Working in deletions is no new level.
    meta.compaction.level = level + u32::from(metas.len() > 1);
    meta.compaction.parents = metas
        .iter()
        .map(|m| BlockDesc { ulid: m.ulid, min_time: m.min_time, max_time: m.max_time })
        .collect();
    meta
}
