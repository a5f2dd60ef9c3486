//! How are the bytes of a block file reached? Through a read-only memory map of a finished, immutable file.
#![expect(
    unsafe_code,
    reason = "memory maps are unsafe by nature; this is the only place that makes them for blocks"
)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::tsdb::StorageError;

use super::files::io_error;

/// A file as a slice.
#[derive(Debug)]
pub struct Mapping(Option<Mmap>);

impl Mapping {
    /// Maps a whole file.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(|e| io_error("open", path, &e))?;
        let len = file.metadata().map_err(|e| io_error("open", path, &e))?.len();
        if len == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private to this value and read-only. Block files are written under a temporary name,
        // synced and never changed after their rename; the data directory is locked against other writers. A
        // file that is unlinked stays readable until the map is dropped.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| io_error("map", path, &e))?;
        Ok(Self(Some(map)))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
