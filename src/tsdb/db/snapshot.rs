//! How is the storage copied while it runs? Blocks never change, so a snapshot is a directory of hard links to them,
//! with the head written as one more block.

use super::super::block::{BlockMeta, new_ulid, write_block};
use super::super::compact::sources::FlushSeries;
use super::super::door::StorageError;
use super::super::head::flush::FlushRange;
use super::super::vfs::Place;
use super::Db;

/// Directory of the snapshots below the data directory, as in Prometheus.
const SNAPSHOTS_DIR: &str = "snapshots";
/// Ending of a snapshot that is not complete.
const UNFINISHED: &str = ".tmp-for-creation";

/// `20060102T150405Z-` and a random number, as Prometheus names snapshots.
fn name_at(now_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
    format!("{}-{:016x}", time.strftime("%Y%m%dT%H%M%SZ"), fastrand::u64(..))
}

/// Links the files of a block: those in its directory and one level below (`chunks/` of Prometheus).
fn link_block(from: &Place, to: &Place, levels: u32) -> Result<(), StorageError> {
    to.create_dir_all()?;
    for entry in from.list()? {
        let (path, target) = (from.join(&entry.name), to.join(&entry.name));
        if !entry.is_dir {
            path.link_or_copy(&target)?;
        } else if levels > 0 {
            link_block(&path, &target, levels - 1)?;
        }
    }
    to.sync_dir()
}

/// Removes what a crash left of snapshots.
pub(super) fn remove_unfinished(data: &Place) {
    let all = data.join(SNAPSHOTS_DIR);
    // Mostly there is no such directory.
    for entry in all.list().unwrap_or_default().iter().filter(|e| e.name.ends_with(UNFINISHED)) {
        match all.join(&entry.name).remove_dir_all() {
            Ok(()) => tracing::info!(snapshot = entry.name, "an unfinished snapshot was removed"),
            Err(error) => tracing::warn!(snapshot = entry.name, %error, "an unfinished snapshot stays"),
        }
    }
}

impl Db {
    /// Copies all blocks, and the head as a block if asked for, into a new directory below `snapshots/`, whose name
    /// is returned. Links where the file system can: it costs hardly any space.
    pub fn snapshot(&self, with_head: bool) -> Result<String, StorageError> {
        let Some(stored) = &self.stored else {
            return Err(StorageError::NotReady("an agent has no blocks to take a snapshot of".into()));
        };
        let now_ms = self.clock.now_ms();
        let data = stored.blocks.dir();
        let all = data.join(SNAPSHOTS_DIR);
        let name = name_at(now_ms);
        let unfinished = all.join(format!("{name}{UNFINISHED}"));
        let guard = unfinished.temporary_dir()?;
        self.fill_snapshot(&unfinished, with_head, now_ms)?;
        unfinished.rename(&all.join(&name))?;
        guard.keep();
        all.sync_dir()?;
        data.sync_dir()?;
        Ok(name)
    }

    fn fill_snapshot(&self, dir: &Place, with_head: bool, now_ms: i64) -> Result<(), StorageError> {
        let Some(stored) = &self.stored else { return Ok(()) };
        let view = {
            let _guard = stored.at_rest();
            for block in stored.blocks.blocks().iter() {
                link_block(block.dir(), &dir.join(block.meta().ulid.to_string()), 1)?;
            }
            let stats = self.head.stats();
            let range = FlushRange { min_t_ms: stats.min_time, max_t_ms: stats.max_time };
            (with_head && range.min_t_ms <= range.max_t_ms).then(|| self.head.copy_view(range))
        };
        if let Some(view) = view {
            let range = view.range();
            let meta = BlockMeta::new(new_ulid(now_ms), range.min_t_ms, range.max_t_ms.saturating_add(1));
            let closed = || self.closed.load(std::sync::atomic::Ordering::SeqCst);
            write_block(dir, meta, &mut FlushSeries::new(&*view), &closed)?;
        }
        dir.sync_dir()
    }
}
