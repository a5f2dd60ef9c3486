//! Is everything on disk sound? Reads each byte of log, head chunks and blocks, compares every checksum, decodes every
//! sample, and checks what the pieces say about each other. Changes nothing and works beside a running server.

use std::path::{Path, PathBuf};

use super::compact::AnyBlock;
use super::db::{CHUNKS_DIR, FORMAT_FILE, WAL_DIR};
use super::door::StorageError;
use super::head::checkpoint::{contents, take};
use super::head::chunks::{ChunkRef, ChunkStore};
use super::head::series::decode;
use super::prometheus::{legacy, log};
use super::readonly::{list_blocks, pinned};
use super::vfs::{RealVfs, Vfs, io_error};
use super::wal::batch::BatchDecoder;
use super::wal::frame::{Found, Frames, kind};
use super::wal::segment::{FileKind, list};

/// Blocks.
mod blocks;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Samples that were decoded.
    pub samples: u64,
    /// Faults.
    pub damage: Vec<Damage>,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
}

impl Report {
    fn fault(&mut self, path: &Path, offset: Option<u64>, what: impl Into<String>) {
        self.damage.push(Damage { path: path.to_owned(), offset, what: what.into() });
    }

    fn fault_of(&mut self, path: &Path, error: &StorageError) {
        match error {
            StorageError::Corrupt { path, offset, message } => {
                self.fault(Path::new(path), Some(*offset), message.clone());
            }
            other => self.fault(path, None, other.to_string()),
        }
    }

    fn read(&mut self, bytes: usize) {
        self.files += 1;
        self.bytes += bytes as u64;
    }
}

/// Told what is being read, and how many bytes were read before.
pub type Progress<'a> = &'a mut dyn FnMut(&Path, u64);

/// Checks a data directory.
pub fn verify(dir: &Path, progress: Progress<'_>) -> Result<Report, StorageError> {
    let entries = RealVfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
    let mut report = verify_logs(dir, progress)?;
    let (found, unreadable) = list_blocks(dir)?;
    for (path, reason) in unreadable {
        report.fault(&path, None, reason);
    }
    for block in &found {
        blocks::check(block, &mut report, progress);
    }
    for pair in found.windows(2) {
        if let [a, b] = pair
            && a.meta().max_time > b.meta().min_time
        {
            report.notes.push(format!(
                "blocks {} and {} overlap; the next compaction merges them",
                a.meta().ulid,
                b.meta().ulid
            ));
        }
    }
    for entry in
        entries.iter().filter(|e| e.is_dir && e.name.ends_with(super::compact::block_set::QUARANTINE_SUFFIX))
    {
        report.fault(
            &dir.join(&entry.name),
            None,
            "a damaged block that was set aside earlier; it is not served",
        );
    }
    Ok(report)
}

/// Checks what a data directory holds besides blocks: logs and head chunks, Prometheus's included.
pub fn verify_logs(dir: &Path, progress: Progress<'_>) -> Result<Report, StorageError> {
    let mut report = Report::default();
    let (wal_dir, chunks_dir) = (dir.join(WAL_DIR), dir.join(CHUNKS_DIR));
    let vfs = pinned(&[&wal_dir, &chunks_dir])?;
    check_format(dir, &mut report);
    check_log(&*vfs, &wal_dir, &mut report, progress)?;
    check_chunks(vfs, &chunks_dir, &mut report, progress)?;
    check_legacy(dir, &mut report, progress)?;
    Ok(report)
}

/// Checks one block directory.
pub fn verify_block(dir: &Path, progress: Progress<'_>) -> Report {
    let mut report = Report::default();
    match AnyBlock::open(dir) {
        Ok(block) => blocks::check(&block, &mut report, progress),
        Err(error) => report.fault_of(dir, &error),
    }
    report
}

fn check_format(dir: &Path, report: &mut Report) {
    let path = dir.join(FORMAT_FILE);
    let Ok(bytes) = RealVfs.sealed(&path, false) else { return };
    report.read(bytes.len());
    if serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|v| v.get("format")?.as_u64())
        .is_none()
    {
        report.fault(&path, Some(0), "the format file does not say a format");
    }
}

fn check_log(
    vfs: &dyn Vfs,
    dir: &Path,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), StorageError> {
    let files = list(vfs, dir)?;
    let last = files.iter().rposition(|f| f.kind == FileKind::Segment);
    for (i, file) in files.iter().enumerate() {
        progress(&file.path, report.bytes);
        let bytes = match vfs.sealed(&file.path, true) {
            Ok(bytes) => bytes,
            Err(error) => {
                report.fault(&file.path, None, format!("cannot be read: {error}"));
                continue;
            }
        };
        report.read(bytes.len());
        let mut decoder = BatchDecoder::default();
        for found in Frames::new(&bytes, file.salt, 0) {
            match found {
                Found::Frame { kind: number, payload, offset } => {
                    let decoded = match (file.kind, number) {
                        (FileKind::Segment, kind::BATCH) => decoder.take(&payload).map(|read| {
                            let batch = &read.batch;
                            let samples = batch.floats.len() + batch.out_of_order.len() + batch.histograms.len();
                            report.samples += samples as u64;
                        }),
                        (FileKind::Segment, _) => Ok(()),
                        (FileKind::Checkpoint, _) => take(number, &payload).map(drop),
                    };
                    if let Err(error) = decoded {
                        report.fault(&file.path, Some(offset as u64), error.to_string());
                    }
                }
                Found::Damage { offset, len, at_end: true } if Some(i) == last => report.notes.push(format!(
                    "{}: the last write is not complete ({len} bytes at byte {offset}): the server runs, or was killed",
                    file.path.display()
                )),
                Found::Damage { offset, len, .. } => {
                    report.fault(&file.path, Some(offset as u64), format!("{len} bytes belong to no whole record"));
                }
            }
        }
        if file.kind == FileKind::Checkpoint
            && !contents(&bytes, file.salt, &file.path).is_some_and(|(.., end)| end.complete)
        {
            report.fault(&file.path, None, "the checkpoint has no start or no end");
        }
    }
    Ok(())
}

fn check_chunks(
    vfs: std::sync::Arc<dyn Vfs>,
    dir: &Path,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<(), StorageError> {
    let entries = vfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
    for entry in &entries {
        report.read(usize::try_from(entry.len).unwrap_or(0));
    }
    let newest = entries.last().map(|e| dir.join(&e.name));
    let chunks = ChunkStore::open(vfs, dir)?;
    progress(dir, report.bytes);
    let (mut places, mut damage) = (Vec::new(), Vec::new());
    chunks.scan(
        ChunkRef::NONE,
        |place, meta| places.push((place, *meta)),
        |path, offset, len| damage.push((path.to_owned(), offset, len)),
    );
    for (path, offset, len) in damage {
        let whole = entries.iter().find(|e| dir.join(&e.name) == path).map_or(0, |e| e.len);
        if Some(&path) == newest.as_ref() && (offset + len) as u64 == whole {
            report.notes.push(format!(
                "{}: the last write is not complete ({len} bytes at byte {offset}): the server runs, or was killed",
                path.display()
            ));
        } else {
            report.fault(&path, Some(offset as u64), format!("{len} bytes belong to no whole chunk"));
        }
    }
    for (place, meta) in places {
        let name = entries.iter().find(|e| e.name.starts_with(&format!("{:08}-", place.file())));
        let path = dir.join(name.map_or("", |e| &e.name));
        let chunk = match chunks.read(place) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => continue,
            Err(error) => {
                report.fault_of(&path, &error);
                continue;
            }
        };
        let (mut count, mut last, mut ascending) = (0u64, i64::MIN, true);
        let decoded = decode(meta.encoding, meta.count, chunk.data(), |t, _, _| {
            ascending &= t > last && (meta.min_t_ms..=meta.max_t_ms).contains(&t);
            last = t;
            count += 1;
        });
        report.samples += count;
        let offset = Some(place.offset() as u64);
        match decoded {
            Err(error) => report.fault(&path, offset, error.to_string()),
            Ok(()) if count != u64::from(meta.count) => {
                report.fault(&path, offset, format!("chunk has {count} samples and says {}", meta.count));
            }
            Ok(()) if !ascending => {
                report.fault(&path, offset, "timestamps of a chunk do not ascend in its range")
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The log and the head chunks of Prometheus, where they were not imported yet.
fn check_legacy(dir: &Path, report: &mut Report, progress: Progress<'_>) -> Result<(), StorageError> {
    let Some(files) = legacy::find(&RealVfs, dir)? else { return Ok(()) };
    report.notes.push(format!(
        "{} has a write-ahead log of Prometheus that was not imported yet: the next start does it",
        dir.display()
    ));
    for path in files.log_files() {
        progress(path, report.bytes);
        match RealVfs.sealed(path, true) {
            Ok(bytes) => {
                report.read(bytes.len());
                for found in log::Records::new(&bytes) {
                    match found {
                        log::Found::Record { bytes, offset } => match legacy::record::decode(&bytes) {
                            Ok(record) => report.samples += record.samples() as u64,
                            Err(error) => report.fault(path, Some(offset as u64), error.to_string()),
                        },
                        log::Found::Damage { offset, len, at_end: true } if files.is_last(path) => {
                            report.notes.push(format!(
                                "{}: the last write is not complete ({len} bytes at byte {offset}): Prometheus runs, or \
                                 was killed",
                                path.display()
                            ));
                        }
                        log::Found::Damage { offset, len, .. } => {
                            report.fault(
                                path,
                                Some(offset as u64),
                                format!("{len} bytes belong to no whole record"),
                            );
                        }
                    }
                }
            }
            Err(error) => report.fault(path, None, format!("cannot be read: {error}")),
        }
    }
    for path in files.chunk_files() {
        progress(path, report.bytes);
        match RealVfs.sealed(path, true) {
            Ok(bytes) => {
                report.read(bytes.len());
                for found in legacy::head_chunks::Chunks::new(&bytes) {
                    if let Err((offset, error)) =
                        found.and_then(|chunk| chunk.decode().map_err(|e| (chunk.offset, e)))
                    {
                        report.fault(path, Some(offset as u64), error.to_string());
                    }
                }
            }
            Err(error) => report.fault(path, None, format!("cannot be read: {error}")),
        }
    }
    Ok(())
}
