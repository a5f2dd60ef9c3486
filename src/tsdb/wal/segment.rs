//! Which files make up the log? Names, listing, and the leftovers that a start removes.

use std::path::{Path, PathBuf};

use super::super::door::StorageError;
use super::super::vfs::{TEMPORARY_SUFFIX, Vfs, io_error};

/// What a file of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Batches.
    Segment,
    /// State of the head.
    Checkpoint,
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// What it is.
    pub kind: FileKind,
    /// Number of the segment, or of the first segment that the checkpoint does not replace.
    pub number: u32,
    /// Salt of its checksums.
    pub salt: u32,
    /// Where it is.
    pub path: PathBuf,
    /// Length in bytes.
    pub len: u64,
}

fn extension(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Segment => "wal",
        FileKind::Checkpoint => "ckp",
    }
}

/// Path of a file.
#[must_use]
pub fn path_of(dir: &Path, kind: FileKind, number: u32, salt: u32) -> PathBuf {
    dir.join(format!("{number:08}-{salt:08x}.{}", extension(kind)))
}

fn parse(dir: &Path, name: &str, len: u64) -> Option<LogFile> {
    let (stem, ending) = name.split_once('.')?;
    let kind = match ending {
        "wal" => FileKind::Segment,
        "ckp" => FileKind::Checkpoint,
        _ => return None,
    };
    let (number, salt) = stem.split_once('-')?;
    let number = number.parse().ok()?;
    let salt = u32::from_str_radix(salt, 16).ok()?;
    Some(LogFile { kind, number, salt, path: dir.join(name), len })
}

/// All files of a log in order of number; files that are none of ours are left alone.
pub fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<LogFile>, StorageError> {
    let entries = vfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
    let mut files: Vec<LogFile> =
        entries.iter().filter(|e| !e.is_dir).filter_map(|e| parse(dir, &e.name, e.len)).collect();
    files.sort_by_key(|f| f.number);
    Ok(files)
}

/// Removes files that were never completed. A file that cannot be removed is in nobody's way.
pub fn remove_leftovers(vfs: &dyn Vfs, dir: &Path) {
    for entry in vfs.list(dir).unwrap_or_default() {
        if entry.name.ends_with(TEMPORARY_SUFFIX) {
            let _ = vfs.remove_file(&dir.join(&entry.name));
        }
    }
}
