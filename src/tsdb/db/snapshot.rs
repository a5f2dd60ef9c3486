//! How is the storage copied while it runs? Blocks never change, so a snapshot is a directory of hard links to them,
//! with the head written as one more block.

use std::fs;
use std::path::Path;

use super::super::block::files::{io_error, rename, sync_dir};
use super::super::block::{BlockMeta, new_ulid, write_block};
use super::super::compact::sources::FlushSeries;
use super::super::door::StorageError;
use super::super::head::flush::FlushRange;
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

/// Links a file, or copies it where links are impossible (another file system).
fn link(from: &Path, to: &Path) -> Result<(), StorageError> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map(|_| ()).map_err(|e| io_error("copy", from, &e))
}

/// Links the files of a block: those in its directory and one level below (`chunks/` of Prometheus).
fn link_block(from: &Path, to: &Path, levels: u32) -> Result<(), StorageError> {
    fs::create_dir(to).map_err(|e| io_error("create", to, &e))?;
    for entry in fs::read_dir(from).map_err(|e| io_error("list", from, &e))? {
        let entry = entry.map_err(|e| io_error("list", from, &e))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if !path.is_dir() {
            link(&path, &target)?;
        } else if levels > 0 {
            link_block(&path, &target, levels - 1)?;
        }
    }
    sync_dir(to)
}

impl Db {
    /// Copies all blocks, and the head as a block if asked for, into a new directory below `snapshots/`, whose name
    /// is returned. Links where the file system can: it costs hardly any space.
    pub fn snapshot(&self, with_head: bool) -> Result<String, StorageError> {
        let Some(stored) = &self.stored else {
            return Err(StorageError::NotReady("snapshots need files of the machine".into()));
        };
        let now_ms = self.clock.now_ms();
        let all = stored.dir().join(SNAPSHOTS_DIR);
        fs::create_dir_all(&all).map_err(|e| io_error("create", &all, &e))?;
        let name = name_at(now_ms);
        let unfinished = all.join(format!("{name}{UNFINISHED}"));
        fs::create_dir(&unfinished).map_err(|e| io_error("create", &unfinished, &e))?;
        let filled = self.fill_snapshot(&unfinished, with_head, now_ms);
        if let Err(error) = filled.and_then(|()| rename(&unfinished, &all.join(&name))) {
            // Nothing more can be done about a failure here; the directory says that it is unfinished.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        sync_dir(&all)?;
        Ok(name)
    }

    fn fill_snapshot(&self, dir: &Path, with_head: bool, now_ms: i64) -> Result<(), StorageError> {
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
        sync_dir(dir)
    }
}
