//! The few file operations that blocks need, with errors that name operation and path.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::tsdb::StorageError;

/// An I/O error in words.
#[must_use]
pub fn io_error(operation: &'static str, path: &Path, error: &io::Error) -> StorageError {
    StorageError::Io { operation, path: path.display().to_string(), message: error.to_string() }
}

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| io_error("sync", dir, &e))
}

/// Renames a file or directory.
pub fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(|e| io_error("rename", from, &e))
}

/// Writes a file durably and at once: a temporary file is synced and renamed over it, then the directory synced.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temp = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temp)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    };
    write().map_err(|e| io_error("write", &temp, &e))?;
    rename(&temp, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Reads a file of at most `limit` bytes; `None` when it does not exist.
pub fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StorageError> {
    let len = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("open", path, &e)),
    };
    if len > limit {
        let message = format!("file has {len} bytes, more than the {limit} allowed");
        return Err(StorageError::Corrupt { path: path.display().to_string(), offset: 0, message });
    }
    fs::read(path).map(Some).map_err(|e| io_error("read", path, &e))
}

/// A directory that is removed again unless it is kept.
#[derive(Debug)]
pub struct TempDir {
    path: Option<PathBuf>,
}

impl TempDir {
    /// Creates the directory; its parent must exist.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        fs::create_dir(path).map_err(|e| io_error("create", path, &e))?;
        Ok(Self { path: Some(path.to_owned()) })
    }

    /// Leaves the directory where it is.
    pub fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing more can be done about a failure here; the next start cleans up.
            let _ = fs::remove_dir_all(path);
        }
    }
}
