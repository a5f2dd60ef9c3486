//! Which segments must stay although a checkpoint replaced them? Readers of the log have marks in small files; what
//! lies behind the lowest of them is kept up to a limit. The layout is in `docs/format/tail-marks.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::door::StorageError;
use super::super::tail::{LogPosition, TailMarks};
use super::super::vfs::{Vfs, io_error, replace_file, temporary_name};
use super::batch::BatchDecoder;
use super::frame::{Found, Frames, kind};
use super::segment::{FileKind, LogFile, list};

const VERSION: u64 = 1;
const ENDING: &str = ".tail";

#[derive(Debug, Default)]
struct Held {
    marks: TailMarks,
    /// Samples deleted before they were read.
    lost: u64,
}

/// The marks of all readers.
pub struct Holds {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    max_bytes: AtomicU64,
    /// Segments before this one are too old to be kept for anybody.
    expired: AtomicU32,
    readers: Mutex<BTreeMap<String, Held>>,
}

fn position_json(position: LogPosition) -> serde_json::Value {
    serde_json::json!({"segment": position.segment, "offset": position.offset})
}

fn position_of(value: &serde_json::Value) -> Option<LogPosition> {
    let segment = u32::try_from(value.get("segment")?.as_u64()?).ok()?;
    Some(LogPosition { segment, offset: value.get("offset")?.as_u64()? })
}

fn read_marks(bytes: &[u8]) -> Option<TailMarks> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if value.get("version")?.as_u64()? != VERSION {
        return None;
    }
    Some(TailMarks { done: position_of(value.get("done")?)?, begun: position_of(value.get("begun")?)? })
}

/// Readers may have any name; files only harmless ones.
fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + ENDING.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("_{byte:02x}"));
        }
    }
    out + ENDING
}

fn name_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(ENDING)?.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = stem.get(at) {
        if *byte == b'_' {
            let hex = std::str::from_utf8(stem.get(at + 1..at + 3)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
}

impl Holds {
    /// Reads the marks in `dir`, which need not exist. A file that cannot be used is reported and left alone.
    pub fn open(vfs: Arc<dyn Vfs>, dir: PathBuf, max_bytes: u64) -> Self {
        let mut readers = BTreeMap::new();
        if vfs.exists(&dir) {
            for entry in vfs.list(&dir).unwrap_or_default() {
                let Some(name) = name_of(&entry.name) else { continue };
                let path = dir.join(&entry.name);
                match vfs.sealed(&path, false).ok().and_then(|bytes| read_marks(&bytes)) {
                    Some(marks) => {
                        readers.insert(name, Held { marks, lost: 0 });
                    }
                    None => {
                        tracing::error!(path = %path.display(), "marks of a reader of the log are damaged; it starts at the end of the log");
                    }
                }
            }
        }
        Self {
            vfs,
            dir,
            max_bytes: AtomicU64::new(max_bytes),
            expired: AtomicU32::new(0),
            readers: Mutex::new(readers),
        }
    }

    /// The saved marks of a reader.
    pub fn marks(&self, name: &str) -> Option<TailMarks> {
        self.readers.lock().get(name).map(|held| held.marks)
    }

    /// Notes a reader or moves its marks.
    pub fn save(&self, name: &str, marks: TailMarks, durable: bool) -> Result<(), StorageError> {
        let path = self.dir.join(file_name(name));
        let text = serde_json::json!({
            "version": VERSION, "done": position_json(marks.done), "begun": position_json(marks.begun)
        });
        let mut readers = self.readers.lock();
        if !readers.contains_key(name) {
            self.vfs.create_dir_all(&self.dir).map_err(|e| io_error("create directory", &self.dir, &e))?;
        }
        if durable {
            replace_file(&*self.vfs, &path, text.to_string().as_bytes())?;
        } else {
            self.replace_quickly(&path, text.to_string().as_bytes())?;
        }
        readers.entry(name.to_owned()).or_default().marks = marks;
        Ok(())
    }

    /// Without a sync: a power cut may bring back older marks, which costs no more than passing samples on twice.
    fn replace_quickly(&self, path: &Path, content: &[u8]) -> Result<(), StorageError> {
        let temporary = temporary_name(path);
        if self.vfs.exists(&temporary) {
            self.vfs.remove_file(&temporary).map_err(|e| io_error("remove", &temporary, &e))?;
        }
        let file = self.vfs.create(&temporary).map_err(|e| io_error("create", &temporary, &e))?;
        file.append(content).map_err(|e| io_error("write", &temporary, &e))?;
        self.vfs.rename(&temporary, path).map_err(|e| io_error("rename", path, &e))
    }

    /// Forgets all readers but these.
    pub fn keep(&self, names: &BTreeSet<String>) {
        self.readers.lock().retain(|name, _| {
            let stays = names.contains(name);
            let path = self.dir.join(file_name(name));
            if !stays && self.vfs.exists(&path) && let Err(error) = self.vfs.remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "marks of a former reader of the log cannot be deleted");
            }
            stays
        });
    }

    /// Segments before this one are too old to be kept for anybody.
    pub fn expire(&self, segment: u32) {
        self.expired.fetch_max(segment, Ordering::Relaxed);
    }

    /// Takes the number of samples that a reader lost.
    pub fn take_lost(&self, name: &str) -> u64 {
        self.readers.lock().get_mut(name).map_or(0, |held| std::mem::take(&mut held.lost))
    }

    /// Deletes the segments before `replaced` that no reader waits for, oldest first, and those that are too many.
    pub fn sweep(&self, dir: &Path, replaced: u32) -> Result<(), StorageError> {
        let mut files = list(&*self.vfs, dir)?;
        files.retain(|f| f.kind == FileKind::Segment && f.number < replaced);
        if files.is_empty() {
            return Ok(());
        }
        let floor = self.readers.lock().values().map(|held| held.marks.done.segment).min();
        let limit = self.max_bytes.load(Ordering::Relaxed);
        let mut waiting: u64 = files.iter().filter(|f| Some(f.number) >= floor).map(|f| f.len).sum();
        for file in &files {
            let needed = floor.is_some_and(|floor| file.number >= floor);
            if needed && waiting <= limit && file.number >= self.expired.load(Ordering::Relaxed) {
                break;
            }
            if needed {
                self.count_loss(file);
                waiting -= file.len;
            }
            if let Err(error) = self.vfs.remove_file(&file.path) {
                tracing::warn!(path = %file.path.display(), %error, "a replaced file of the log cannot be deleted");
            }
        }
        Ok(())
    }

    fn count_loss(&self, file: &LogFile) {
        let Ok(bytes) = self.vfs.sealed(&file.path, true) else { return };
        let mut decoder = BatchDecoder::default();
        let mut ends = Vec::new();
        for found in Frames::new(&bytes, file.salt, 0) {
            if let Found::Frame { kind: kind::BATCH, payload, offset } = found
                && let Ok(read) = decoder.take(&payload)
            {
                let batch = read.batch;
                let samples = batch.floats.len() + batch.out_of_order.len() + batch.histograms.len();
                ends.push((offset as u64, samples as u64));
            }
        }
        for (name, held) in self.readers.lock().iter_mut() {
            let done = held.marks.done;
            if done.segment > file.number {
                continue;
            }
            let from = if done.segment == file.number { done.offset } else { 0 };
            let lost: u64 = ends.iter().filter(|(offset, _)| *offset >= from).map(|(_, n)| n).sum();
            held.lost += lost;
            tracing::error!(
                reader = name,
                segment = file.number,
                samples = lost,
                "log that a slow remote peer had not taken yet was deleted: it was over --storage.remote.log-hold-size, or too old for an agent"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::vfs::CrashVfs;

    #[test]
    fn names_of_files_are_harmless_and_come_back() {
        for name in ["a", "http://x/y?z=1", "../..", "ü_ _20", ""] {
            let file = file_name(name);
            assert!(file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{file}");
            assert_eq!(name_of(&file).as_deref(), Some(name));
        }
        assert_eq!(name_of("x.json"), None);
    }

    #[test]
    fn marks_come_back_and_former_readers_go() {
        let vfs: Arc<dyn Vfs> = CrashVfs::new();
        let dir = PathBuf::from("/data/tails");
        let marks = |segment| TailMarks {
            done: LogPosition { segment, offset: 7 },
            begun: LogPosition { segment, offset: 9 },
        };
        let holds = Holds::open(Arc::clone(&vfs), dir.clone(), 0);
        holds.save("a", marks(3), true).expect("saved");
        holds.save("b", marks(4), false).expect("saved");
        holds.save("b", marks(5), false).expect("saved");
        let again = Holds::open(Arc::clone(&vfs), dir.clone(), 0);
        assert_eq!((again.marks("a"), again.marks("b")), (Some(marks(3)), Some(marks(5))));
        again.keep(&BTreeSet::from(["b".to_owned()]));
        let last = Holds::open(vfs, dir, 0);
        assert_eq!((last.marks("a"), last.marks("b")), (None, Some(marks(5))));
    }
}
