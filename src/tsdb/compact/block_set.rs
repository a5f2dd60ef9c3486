//! Which blocks does a data directory hold? Opens them all, native and Prometheus's, cleans up what a crash left,
//! sets damaged ones aside, and swaps the list in one step when compaction or retention changes it.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use crate::model::Matcher;
use crate::tsdb::block::meta::META_FILE;
use crate::tsdb::block::tombstones::Tombstone;
use crate::tsdb::block::{Block, BlockMeta, BlockQuerier, BlockSource, SeriesSource, writer::TEMP_SUFFIX};
use crate::tsdb::door::{Querier, StorageError};
use crate::tsdb::prometheus::{PrometheusBlock, PrometheusQuerier, PrometheusSource};
use crate::tsdb::vfs::{Entry, Place};

/// Directories with this end are being deleted; they are removed at start.
pub const DELETED_SUFFIX: &str = ".tmp-for-deletion";
/// Directories with this end are damaged and kept for a person to look at.
pub const QUARANTINE_SUFFIX: &str = ".quarantine";

/// What was the `meta.json` of a block before it was damaged.
const DAMAGED_META_FILE: &str = "meta.json.damaged";

/// A block of either format.
#[derive(Debug, Clone)]
pub enum AnyBlock {
    /// Meerkat's own.
    Native(Arc<Block>),
    /// Prometheus's.
    Prometheus(Arc<PrometheusBlock>),
}

impl AnyBlock {
    /// Opens the block in `dir`, whichever format it has.
    pub fn open(dir: impl Into<Place>) -> Result<Self, StorageError> {
        let dir = dir.into();
        if BlockMeta::read(&dir)?.is_native() {
            Block::open(dir).map(Self::Native)
        } else {
            PrometheusBlock::open(dir).map(Self::Prometheus)
        }
    }

    /// Its meta data.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        match self {
            Self::Native(b) => b.meta(),
            Self::Prometheus(b) => b.meta(),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Place {
        match self {
            Self::Native(b) => b.dir(),
            Self::Prometheus(b) => b.dir(),
        }
    }

    /// A view of `[min_t_ms, max_t_ms]`.
    #[must_use]
    pub fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Box<dyn Querier> {
        match self {
            Self::Native(b) => Box::new(BlockQuerier::new(Arc::clone(b), min_t_ms, max_t_ms)),
            Self::Prometheus(b) => Box::new(PrometheusQuerier::new(Arc::clone(b), min_t_ms, max_t_ms)),
        }
    }

    /// A walk over all series, deletions applied.
    #[must_use]
    pub fn source(&self) -> BlockWalk {
        match self {
            Self::Native(b) => BlockWalk::Native(BlockSource::new(Arc::clone(b))),
            Self::Prometheus(b) => BlockWalk::Prometheus(PrometheusSource::new(Arc::clone(b))),
        }
    }

    /// Hides samples at once and durably.
    pub fn delete(&self, min_t_ms: i64, max_t_ms: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        match self {
            Self::Native(b) => b.delete(min_t_ms, max_t_ms, matchers),
            Self::Prometheus(b) => b.delete(min_t_ms, max_t_ms, matchers),
        }
    }

    /// Whether something was deleted from it.
    #[must_use]
    pub fn has_deletions(&self) -> bool {
        match self {
            Self::Native(b) => !b.tombstones().is_empty(),
            Self::Prometheus(b) => b.has_deletions(),
        }
    }

    /// About which share of its samples is deleted, by series and time, at most 1. Of Prometheus's blocks that is not
    /// looked up: rewriting one makes it a native one, which only merging should do.
    #[must_use]
    pub fn deleted_share(&self) -> f64 {
        let Self::Native(block) = self else { return 0.0 };
        let meta = block.meta();
        let all = (meta.max_time - meta.min_time).max(1) as f64 * meta.stats.num_series.max(1) as f64;
        let of = |deletion: &Tombstone| {
            let first = deletion.min_t_ms.max(meta.min_time);
            let end = deletion.max_t_ms.saturating_add(1).min(meta.max_time);
            let series = block.select_ids(&deletion.matchers).map_or(0, |ids| ids.len());
            end.saturating_sub(first).max(0) as f64 * series as f64 / all
        };
        let tombstones = block.tombstones();
        tombstones.iter().map(of).sum::<f64>().min(1.0)
    }

    /// Bytes of its files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        dir_size(self.dir())
    }
}

/// A walk over the series of a block of either format. Where a block is damaged in a place that all its series need, it
/// ends with a warning: that is no reason to give up what other blocks have.
pub enum BlockWalk {
    /// Meerkat's own.
    Native(BlockSource),
    /// Prometheus's.
    Prometheus(PrometheusSource),
}

impl BlockWalk {
    /// What was left out because it is damaged.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Native(s) => &s.warnings,
            Self::Prometheus(s) => &s.warnings,
        }
    }
}

impl SeriesSource for BlockWalk {
    fn next_series(
        &mut self,
        out: &mut crate::tsdb::block::SeriesColumns,
    ) -> Result<Option<crate::model::Labels>, StorageError> {
        let (next, warnings) = match self {
            Self::Native(s) => (s.next_series(out), &mut s.warnings),
            Self::Prometheus(s) => (s.next_series(out), &mut s.warnings),
        };
        match next {
            Err(error @ StorageError::Corrupt { .. }) => {
                warnings.push(format!("series of a block were left out: {error}"));
                Ok(None)
            }
            other => other,
        }
    }
}

fn dir_size(dir: &Place) -> u64 {
    // What cannot be listed counts as nothing: the size is needed again in a minute.
    let entries = dir.list().unwrap_or_default();
    entries.into_iter().map(|e| if e.is_dir { dir_size(&dir.join(e.name)) } else { e.len }).sum()
}

/// A native block whose `meta.json` alone is damaged. That is kept beside a new one made from the block's footer.
fn without_meta(dir: &Place, ulid: Ulid) -> Option<AnyBlock> {
    let Err(StorageError::Corrupt { .. }) = BlockMeta::read(dir) else { return None };
    let block = Block::open_without_meta(dir, ulid).ok()?;
    let file = dir.join(META_FILE);
    // A damaged file that cannot be replaced now is found damaged again at the next start.
    if file.exists_here() && file.rename(&dir.join(DAMAGED_META_FILE)).is_err() {
        return Some(AnyBlock::Native(block));
    }
    if let Err(error) = block.meta().write(dir) {
        tracing::warn!(block = %ulid, %error, "the description of a block cannot be written");
    }
    Some(AnyBlock::Native(block))
}

/// What opening or reloading found besides sound blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSetReport {
    /// Left-overs of crashes that were removed.
    pub cleaned: Vec<PathBuf>,
    /// Damaged blocks, under their new names, with the reason.
    pub quarantined: Vec<(PathBuf, String)>,
    /// Blocks whose `meta.json` was damaged and was written again from what the block itself says, with the reason.
    pub repaired: Vec<(PathBuf, String)>,
    /// Blocks that could not be opened for another reason and are not shown; they stay where they are.
    pub unreadable: Vec<(PathBuf, String)>,
}

impl BlockSetReport {
    /// How many files of blocks were found damaged.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.quarantined.len() + self.repaired.len()
    }
}

/// The blocks of a data directory.
#[derive(Debug)]
pub struct BlockSet {
    dir: Place,
    /// Sorted by range.
    blocks: RwLock<Arc<Vec<AnyBlock>>>,
    /// Held while the directory is changed.
    changing: Mutex<()>,
}

impl BlockSet {
    /// Opens all blocks below `dir`, which must exist. Damage never fails it.
    pub fn open(dir: impl Into<Place>) -> Result<(Self, BlockSetReport), StorageError> {
        let this = Self { dir: dir.into(), blocks: RwLock::default(), changing: Mutex::new(()) };
        let mut report = BlockSetReport::default();
        for Entry { name, .. } in this.dir.list()? {
            let left_over = [TEMP_SUFFIX, DELETED_SUFFIX]
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|ulid| Ulid::from_string(ulid).is_ok()));
            let path = this.dir.join(&name);
            if left_over && path.remove_dir_all().is_ok() {
                report.cleaned.push(path.to_path_buf());
            }
        }
        let found = this.reload()?;
        report.quarantined = found.quarantined;
        report.repaired = found.repaired;
        report.unreadable = found.unreadable;
        Ok((this, report))
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Place {
        &self.dir
    }

    /// The blocks as of now, sorted by range.
    #[must_use]
    pub fn blocks(&self) -> Arc<Vec<AnyBlock>> {
        Arc::clone(&self.blocks.read())
    }

    /// Views of the blocks that overlap `[min_t_ms, max_t_ms]`, in order of range.
    #[must_use]
    pub fn queriers(&self, min_t_ms: i64, max_t_ms: i64) -> Vec<Box<dyn Querier>> {
        self.blocks()
            .iter()
            .filter(|b| b.meta().min_time <= max_t_ms && b.meta().max_time > min_t_ms)
            .map(|b| b.querier(min_t_ms, max_t_ms))
            .collect()
    }

    /// Bytes of all blocks.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.blocks().iter().map(AnyBlock::size_bytes).sum()
    }

    /// Looks at the directory again: new blocks appear, vanished ones go, damaged ones are set aside.
    pub fn reload(&self) -> Result<BlockSetReport, StorageError> {
        let _changing = self.changing.lock();
        let mut report = BlockSetReport::default();
        let known = self.blocks();
        let mut blocks: Vec<AnyBlock> = Vec::new();
        for entry in self.dir.list()?.into_iter().filter(|e| e.is_dir) {
            let Ok(ulid) = Ulid::from_string(&entry.name) else { continue };
            let path = self.dir.join(&entry.name);
            if let Some(block) = known.iter().find(|b| b.meta().ulid == ulid) {
                blocks.push(block.clone());
                continue;
            }
            match AnyBlock::open(&path) {
                Ok(block) => blocks.push(block),
                Err(e @ StorageError::Corrupt { .. }) => {
                    if let Some(block) = without_meta(&path, ulid) {
                        tracing::error!(block = %ulid, err = %e, "damaged description of a block written again");
                        report.repaired.push((path.to_path_buf(), e.to_string()));
                        blocks.push(block);
                        continue;
                    }
                    let aside = self.dir.join(format!("{}{QUARANTINE_SUFFIX}", entry.name));
                    match path.rename(&aside) {
                        Ok(()) => {
                            tracing::error!(block = %ulid, err = %e, "damaged block set aside");
                            report.quarantined.push((aside.to_path_buf(), e.to_string()));
                        }
                        Err(_) => report.unreadable.push((path.to_path_buf(), e.to_string())),
                    }
                }
                Err(e) => {
                    tracing::error!(block = %ulid, err = %e, "block cannot be opened");
                    report.unreadable.push((path.to_path_buf(), e.to_string()));
                }
            }
        }
        // A crash between publishing a merged block and removing its parents leaves both.
        let parents: Vec<Ulid> = blocks
            .iter()
            .flat_map(|b| b.meta().compaction.parents.iter().map(|p| p.ulid).filter(|p| *p != b.meta().ulid))
            .collect();
        let (retired, kept): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|b| parents.contains(&b.meta().ulid));
        self.replace(kept);
        self.remove_dirs(&retired)?;
        Ok(report)
    }

    fn replace(&self, mut blocks: Vec<AnyBlock>) {
        blocks.sort_by_key(|b| (b.meta().min_time, b.meta().max_time, b.meta().ulid));
        *self.blocks.write() = Arc::new(blocks);
    }

    /// Shows `new` instead of `retired` to all queriers opened from now on, and removes the retired from disk.
    /// Queriers that are open keep what they have mapped.
    pub fn publish(&self, new: Option<AnyBlock>, retired: &[Ulid]) -> Result<(), StorageError> {
        let _changing = self.changing.lock();
        let (gone, mut kept): (Vec<AnyBlock>, Vec<AnyBlock>) =
            self.blocks().iter().cloned().partition(|b| retired.contains(&b.meta().ulid));
        kept.extend(new);
        self.replace(kept);
        self.remove_dirs(&gone)
    }

    fn remove_dirs(&self, blocks: &[AnyBlock]) -> Result<(), StorageError> {
        for block in blocks {
            let doomed = self.dir.join(format!("{}{DELETED_SUFFIX}", block.meta().ulid));
            block.dir().rename(&doomed)?;
            self.dir.sync_dir()?;
            doomed.remove_dir_all()?;
        }
        Ok(())
    }
}
