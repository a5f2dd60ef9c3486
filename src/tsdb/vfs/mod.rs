//! How does storage touch the disk? Only through a [`Vfs`]: the real file system in production, one in memory that
//! can fail any call, fill up and lose power in tests.
//!
//! Rules for callers: a file is written from its start to its end and never changed after that; a failed append
//! or sync is never repeated on the same file; only sealed files are mapped; small files are replaced as a whole
//! with [`replace_file`].

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::door::StorageError;

/// A file system in memory that crashes on demand.
pub mod crash;
/// A path on a file system.
pub mod place;
/// The machine's file system.
pub mod real;

pub use crash::CrashVfs;
pub use place::Place;
pub use real::RealVfs;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes, 0 for directories.
    pub len: u64,
}

/// What keeps the bytes of a file.
pub trait Held: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Nobody will read this part soon: its memory may be given back. It can still be read.
    fn release(&self, _part: Range<usize>) {}
}

struct InMemory<T>(T);

impl<T: Deref<Target = [u8]> + Send + Sync> Held for InMemory<T> {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The content of a sealed file: mapped, or in memory. Clones share it; the map lives as long as the last clone.
#[derive(Clone)]
pub struct FileBytes(Arc<dyn Held>);

impl FileBytes {
    /// Wraps anything that derefs to bytes.
    pub fn new(bytes: impl Deref<Target = [u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(InMemory(bytes)))
    }

    /// Wraps what knows how to give memory back.
    pub fn held(bytes: impl Held + 'static) -> Self {
        Self(Arc::new(bytes))
    }

    /// Nobody will read this part soon: its memory may be given back. It can still be read.
    pub fn release(&self, part: Range<usize>) {
        self.0.release(part);
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileBytes({} bytes)", self.len())
    }
}

/// A file that is being written or read. Methods take `&self`: appends come from one writer at a time, reads and
/// syncs may come from other threads.
pub trait VfsFile: Send + Sync {
    /// Writes all bytes at the end. After an error the end of the file is undefined.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended so far survive a power cut. After an error nothing is known.
    fn sync_data(&self) -> io::Result<()>;

    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Holds an exclusive lock until dropped.
pub trait LockGuard: Send + Sync {}

/// A file system.
pub trait Vfs: Send + Sync + fmt::Debug {
    /// Creates a file for appending; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// The whole content of a file that is no longer written. `as_map` asks for a memory map where there is one.
    fn sealed(&self, path: &Path, as_map: bool) -> io::Result<FileBytes>;

    /// Creates a directory and its parents; existing ones are fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Entries of a directory in order of name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Renames a file or directory within one parent, replacing a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Deletes a directory with its content.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and deletions in a directory survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Hard-links or, where that is impossible, copies a sealed file.
    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on a file that is created if missing; `WouldBlock` if somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// Bytes that can still be written.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// Whether a path exists.
    fn exists(&self, path: &Path) -> bool;
}

/// Puts the path and the operation to an I/O error.
pub fn io_error(operation: &'static str, path: &Path, error: &io::Error) -> StorageError {
    StorageError::Io { operation, path: path.display().to_string(), message: error.to_string() }
}

/// Replaces a small file as a whole: a reader sees the old or the new content, also after a power cut.
pub fn replace_file(vfs: &dyn Vfs, path: &Path, content: &[u8]) -> Result<(), StorageError> {
    let temporary = temporary_name(path);
    if vfs.exists(&temporary) {
        vfs.remove_file(&temporary).map_err(|e| io_error("remove", &temporary, &e))?;
    }
    let file = vfs.create(&temporary).map_err(|e| io_error("create", &temporary, &e))?;
    let written = file.append(content).map_err(|e| io_error("write", &temporary, &e));
    let result = written.and_then(|()| file.sync_data().map_err(|e| io_error("sync", &temporary, &e)));
    if let Err(error) = result {
        // The half-written file is in nobody's way; a later start removes it if this fails too.
        let _ = vfs.remove_file(&temporary);
        return Err(error);
    }
    publish(vfs, &temporary, path)
}

/// Renames a complete, synced file to its final name and makes the rename durable.
pub fn publish(vfs: &dyn Vfs, temporary: &Path, path: &Path) -> Result<(), StorageError> {
    vfs.rename(temporary, path).map_err(|e| io_error("rename", path, &e))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))
}

/// The name under which a file is built before it gets its own. Leftovers are removed at start.
#[must_use]
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

/// Ending of files that are not complete yet.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
