//! How does a data directory of Prometheus become ours? Its blocks are served as they are; what is in its write-ahead
//! log, out-of-order log and head chunks is imported into the head once, and the originals are renamed into a directory
//! of their own.
//!
//! A note on disk says that an import runs and from which file numbers on its results lie. The checkpoint of the head
//! is the moment of decision: an import that ended before it is undone and begins anew at the next start, one that
//! ended after it is finished.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::door::StorageError;
use super::super::head::Head;
use super::super::head::checkpoint::contents;
use super::super::head::import::HeadLoader;
use super::super::prometheus::legacy::{self, Report};
use super::super::vfs::{Vfs, io_error, replace_file};
use super::super::wal::segment::{FileKind, list};

/// The note.
const NOTE_FILE: &str = "prometheus-import.json";
/// Where the originals go; with a number behind it from the second time on.
const ASIDE_DIR: &str = "prometheus-imported";
/// Ending of files of head chunks.
const CHUNKS_ENDING: &str = ".chunks";

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Files of our log from this number on are results.
    segment: u32,
    /// Files of our head chunks from this number on are results.
    chunks: u32,
    /// Name of the directory for the originals.
    aside: String,
}

fn chunk_files(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<(u32, PathBuf)>, StorageError> {
    let entries = vfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
    let number = |name: &str| name.strip_suffix(CHUNKS_ENDING)?.split_once('-')?.0.parse().ok();
    Ok(entries.iter().filter_map(|e| Some((number(&e.name)?, dir.join(&e.name)))).collect())
}

fn aside_name(vfs: &dyn Vfs, dir: &Path) -> String {
    let taken: Vec<String> = vfs.list(dir).unwrap_or_default().into_iter().map(|e| e.name).collect();
    let mut name = ASIDE_DIR.to_owned();
    for n in 2.. {
        if !taken.contains(&name) {
            break;
        }
        name = format!("{ASIDE_DIR}-{n}");
    }
    name
}

/// Finishes or undoes an import that was cut off. Called before anything else is opened.
pub(super) fn recover(
    vfs: &dyn Vfs,
    dir: &Path,
    wal_dir: &Path,
    chunks_dir: &Path,
) -> Result<(), StorageError> {
    let path = dir.join(NOTE_FILE);
    if !vfs.exists(&path) {
        return Ok(());
    }
    let bytes = vfs.sealed(&path, false).map_err(|e| io_error("read", &path, &e))?;
    let Ok(note) = serde_json::from_slice::<Note>(&bytes) else {
        return Err(StorageError::NotReady(format!(
            "{} cannot be read: an import of Prometheus's log was cut off and nobody knows how far it was. Move {} and \
             {} away, delete the file, and start again",
            path.display(),
            wal_dir.display(),
            chunks_dir.display()
        )));
    };
    let results: Vec<_> = list(vfs, wal_dir)?.into_iter().filter(|f| f.number >= note.segment).collect();
    let decided = results.iter().any(|file| {
        file.kind == FileKind::Checkpoint
            && vfs.sealed(&file.path, true).is_ok_and(|bytes| {
                contents(&bytes, file.salt, &file.path).is_some_and(|(.., end)| end.complete)
            })
    });
    if decided {
        return put_aside(vfs, dir, &note);
    }
    tracing::info!("an import of Prometheus's write-ahead log was cut off; it begins again");
    let chunks = chunk_files(vfs, chunks_dir)?.into_iter().filter(|(n, _)| *n >= note.chunks);
    for path in results.into_iter().map(|f| f.path).chain(chunks.map(|(_, path)| path)) {
        vfs.remove_file(&path).map_err(|e| io_error("remove", &path, &e))?;
    }
    for dir in [wal_dir, chunks_dir] {
        vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))?;
    }
    remove_note(vfs, dir)
}

/// Imports what Prometheus left, if there is something; `next_segment` is the number of our next segment.
pub(super) fn run(
    vfs: &dyn Vfs,
    dir: &Path,
    (wal_dir, chunks_dir): (&Path, &Path),
    next_segment: u32,
    head: &Head,
) -> Result<Option<Report>, StorageError> {
    let Some(files) = legacy::find(vfs, dir)? else { return Ok(None) };
    let chunks = chunk_files(vfs, chunks_dir)?.iter().map(|(n, _)| n + 1).max().unwrap_or(0);
    let note = Note { segment: next_segment, chunks, aside: aside_name(vfs, dir) };
    let text = serde_json::to_vec(&note).map_err(|e| StorageError::NotReady(e.to_string()))?;
    replace_file(vfs, &dir.join(NOTE_FILE), &text)?;
    tracing::info!(
        segments = files.log_files().count(),
        "importing the write-ahead log of Prometheus, once; its blocks are served as they are"
    );
    let report = legacy::load(vfs, dir, &files, HeadLoader::new(head, true))?;
    head.checkpoint(vfs, wal_dir)?;
    put_aside(vfs, dir, &note)?;
    tracing::info!(
        samples = report.samples,
        damaged = report.damaged,
        unnamed = report.unnamed,
        originals = %dir.join(&note.aside).display(),
        "the write-ahead log of Prometheus was imported; its files were put aside and can be deleted"
    );
    Ok(Some(report))
}

fn put_aside(vfs: &dyn Vfs, dir: &Path, note: &Note) -> Result<(), StorageError> {
    let aside = dir.join(&note.aside);
    vfs.create_dir_all(&aside).map_err(|e| io_error("create directory", &aside, &e))?;
    for from in legacy::find(vfs, dir)?.map(|files| files.dirs).unwrap_or_default() {
        let to = aside.join(from.file_name().unwrap_or_default());
        vfs.rename(&from, &to).map_err(|e| io_error("rename", &from, &e))?;
    }
    vfs.sync_dir(&aside).map_err(|e| io_error("sync directory", &aside, &e))?;
    vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))?;
    remove_note(vfs, dir)
}

fn remove_note(vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(NOTE_FILE);
    vfs.remove_file(&path).map_err(|e| io_error("remove", &path, &e))?;
    vfs.sync_dir(dir).map_err(|e| io_error("sync directory", dir, &e))
}
