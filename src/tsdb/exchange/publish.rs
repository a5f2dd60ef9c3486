//! How do several blocks appear in a data directory together? They are written into a directory that nobody looks at;
//! its rename is the moment of decision. After that the blocks move up one by one, and whoever opens the directory next
//! finishes that if it was cut off.

use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::super::block::new_ulid;
use super::super::block::writer::TEMP_SUFFIX;
use super::super::door::StorageError;
use super::super::vfs::{RealVfs, Vfs, io_error};
use super::now_ms;

/// Ending of a directory whose blocks are complete and about to move up.
const READY_SUFFIX: &str = ".import";

/// A directory for blocks that are not decided yet; dropped without [`Staging::publish`] it goes away.
pub struct Staging {
    dir: PathBuf,
    path: PathBuf,
    ready: PathBuf,
    done: bool,
}

impl Staging {
    /// A new one below a data directory, which is created if missing.
    pub fn create(dir: &Path) -> Result<Self, StorageError> {
        RealVfs.create_dir_all(dir).map_err(|e| io_error("create directory", dir, &e))?;
        finish(&RealVfs, dir)?;
        let ulid = new_ulid(now_ms());
        let path = dir.join(format!("{ulid}{TEMP_SUFFIX}"));
        RealVfs.create_dir_all(&path).map_err(|e| io_error("create directory", &path, &e))?;
        Ok(Self { dir: dir.to_owned(), path, ready: dir.join(format!("{ulid}{READY_SUFFIX}")), done: false })
    }

    /// Where blocks are written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows the blocks, all or none.
    pub fn publish(mut self) -> Result<(), StorageError> {
        let vfs = RealVfs;
        vfs.sync_dir(&self.path).map_err(|e| io_error("sync directory", &self.path, &e))?;
        vfs.rename(&self.path, &self.ready).map_err(|e| io_error("rename", &self.path, &e))?;
        self.done = true;
        vfs.sync_dir(&self.dir).map_err(|e| io_error("sync directory", &self.dir, &e))?;
        finish(&vfs, &self.dir)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // What stays is removed at the next start.
            let _ = RealVfs.remove_dir_all(&self.path);
        }
    }
}

/// Moves up the blocks of decided imports that were cut off.
pub(in crate::tsdb) fn finish(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    for entry in vfs.list(dir).map_err(|e| io_error("list", dir, &e))? {
        if !entry.is_dir || !entry.name.ends_with(READY_SUFFIX) {
            continue;
        }
        let ready = dir.join(&entry.name);
        for block in vfs.list(&ready).map_err(|e| io_error("list", &ready, &e))? {
            if block.is_dir && Ulid::from_string(&block.name).is_ok() {
                let from = ready.join(&block.name);
                vfs.rename(&from, &dir.join(&block.name)).map_err(|e| io_error("rename", &from, &e))?;
            }
        }
        vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))?;
        vfs.remove_dir_all(&ready).map_err(|e| io_error("remove", &ready, &e))?;
        vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))?;
    }
    Ok(())
}
