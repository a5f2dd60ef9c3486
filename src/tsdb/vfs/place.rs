//! Where does a block, a snapshot, a small file lie? A path together with the file system that knows it, and the few
//! operations that stored data needs there, with errors that name operation and path.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::tsdb::StorageError;

use super::{Entry, FileBytes, RealVfs, Vfs, VfsFile, io_error, replace_file};

/// A path on a file system. A bare path means the machine's own.
#[derive(Clone)]
pub struct Place {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::new(Arc::new(RealVfs), path)
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

impl Place {
    /// A path on this file system.
    #[must_use]
    pub fn new(vfs: Arc<dyn Vfs>, path: &Path) -> Self {
        Self { vfs, path: path.to_owned() }
    }

    /// Something below.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { vfs: Arc::clone(&self.vfs), path: self.path.join(name) }
    }

    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check<T>(&self, operation: &'static str, result: io::Result<T>) -> Result<T, StorageError> {
        result.map_err(|e| io_error(operation, &self.path, &e))
    }

    /// The finished file here, mapped where the file system can.
    pub fn map(&self) -> Result<FileBytes, StorageError> {
        self.check("open", self.vfs.sealed(&self.path, true))
    }

    /// The file here, of at most `limit` bytes; `None` when there is none.
    pub fn read_small(&self, limit: u64) -> Result<Option<Vec<u8>>, StorageError> {
        let file = match self.vfs.open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return self.check("open", Err(e)),
        };
        let len = self.check("open", file.len())?;
        if len > limit {
            let message = format!("file has {len} bytes, more than the {limit} allowed");
            return Err(StorageError::Corrupt { path: self.path.display().to_string(), offset: 0, message });
        }
        let mut bytes = vec![0; len as usize];
        let read = self.check("read", file.read_at(0, &mut bytes))?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// Puts a file here, durably and as a whole.
    pub fn write_atomically(&self, bytes: &[u8]) -> Result<(), StorageError> {
        replace_file(&*self.vfs, &self.path, bytes)
    }

    /// Whether there is something here.
    #[must_use]
    pub fn exists_here(&self) -> bool {
        self.vfs.exists(&self.path)
    }

    /// Creates a file; there must be none.
    pub fn create(&self) -> Result<NewFile, StorageError> {
        let file = self.check("create", self.vfs.create(&self.path))?;
        Ok(NewFile { file, place: self.clone(), buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Creates the directory and its parents; existing ones are fine.
    pub fn create_dir_all(&self) -> Result<(), StorageError> {
        self.check("create directory", self.vfs.create_dir_all(&self.path))
    }

    /// Entries of the directory in order of name.
    pub fn list(&self) -> Result<Vec<Entry>, StorageError> {
        self.check("list", self.vfs.list(&self.path))
    }

    /// Gives the file or directory another name in the same parent.
    pub fn rename(&self, to: &Self) -> Result<(), StorageError> {
        self.check("rename", self.vfs.rename(&self.path, &to.path))
    }

    /// Deletes the directory with its content.
    pub fn remove_dir_all(&self) -> Result<(), StorageError> {
        self.check("remove", self.vfs.remove_dir_all(&self.path))
    }

    /// Makes creations, renames and deletions in the directory survive a power cut.
    pub fn sync_dir(&self) -> Result<(), StorageError> {
        self.check("sync", self.vfs.sync_dir(&self.path))
    }

    /// Hard-links the finished file here to `to`, or copies it where links are impossible.
    pub fn link_or_copy(&self, to: &Self) -> Result<(), StorageError> {
        self.check("link", self.vfs.link_or_copy(&self.path, &to.path))
    }

    /// Creates the directory, which is removed again unless it is kept.
    pub fn temporary_dir(&self) -> Result<TempDir, StorageError> {
        self.create_dir_all()?;
        Ok(TempDir { place: Some(self.clone()) })
    }
}

/// Bytes gathered before they go to the file.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that is written once, from start to end.
pub struct NewFile {
    file: Arc<dyn VfsFile>,
    place: Place,
    buffer: Vec<u8>,
}

impl NewFile {
    /// Appends bytes, sooner or later.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return self.place.check("write", self.file.append(bytes));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if !self.buffer.is_empty() {
            self.place.check("write", self.file.append(&self.buffer))?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Makes the whole content survive a power cut. The name of the file does when its directory is synced.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.flush()?;
        self.place.check("sync", self.file.sync_data())
    }
}

/// A directory that is removed again unless it is kept.
#[derive(Debug)]
pub struct TempDir {
    place: Option<Place>,
}

impl TempDir {
    /// Leaves the directory where it is.
    pub fn keep(mut self) {
        self.place = None;
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            // Nothing more can be done about a failure here; the next start cleans up.
            let _ = place.remove_dir_all();
        }
    }
}
