//! Reading the log while it is written: how does a reader tell a frame that is not complete yet from one that never
//! will be? A segment that is still open may grow; in one that is closed, whatever is not whole is damage and is
//! skipped as the replay skips it.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::door::StorageError;
use super::super::tail::{LogPosition, LogTail, TailBatch, TailMarks};
use super::super::vfs::{Vfs, VfsFile, io_error};
use super::Wal;
use super::batch::BatchDecoder;
use super::frame::{At, Frames, HEADER, frame_at, kind};
use super::segment::{FileKind, LogFile, list};

/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;

struct Open {
    log: LogFile,
    file: Arc<dyn VfsFile>,
    decoder: BatchDecoder,
    /// Offset of the next frame.
    at: u64,
    /// Bytes of the file from `at` on.
    buffer: Vec<u8>,
    /// How many of the first bytes of `buffer` are used up.
    used: usize,
}

/// One reader of the log.
pub struct WalTail {
    wal: Arc<Wal>,
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    name: String,
    marks: TailMarks,
    /// Batches before this place are not handed out again.
    from: LogPosition,
    open: Option<Open>,
    /// The segment that was read last.
    finished: Option<u32>,
    /// Sequence number of the last batch: what a failed write had to repeat in a new segment is passed over.
    sequence: u64,
    damaged: u64,
}

enum Step {
    Batch(Box<TailBatch>),
    Skipped,
    Wait,
    Finished,
}

impl WalTail {
    /// The reader of a name, where its marks say; at the end of the log if it has none.
    pub fn open(wal: Arc<Wal>, vfs: Arc<dyn Vfs>, dir: PathBuf, name: &str) -> Result<Self, StorageError> {
        let marks = match wal.holds().marks(name) {
            Some(marks) => marks,
            None => {
                let (segment, offset) = wal.end();
                let end = LogPosition { segment, offset };
                let marks = TailMarks { done: end, begun: end };
                wal.holds().save(name, marks, true)?;
                marks
            }
        };
        Ok(Self {
            wal,
            vfs,
            dir,
            name: name.to_owned(),
            marks,
            from: marks.done,
            open: None,
            finished: None,
            sequence: 0,
            damaged: 0,
        })
    }

    /// Opens the segment to go on with, if there is one.
    fn open_next(&mut self) -> Result<bool, StorageError> {
        let first = self.finished.map_or(self.from.segment, |number| number + 1);
        let files = list(&*self.vfs, &self.dir)?;
        let next = files.into_iter().find(|f| f.kind == FileKind::Segment && f.number >= first);
        let Some(log) = next else { return Ok(false) };
        let file = self.vfs.open(&log.path).map_err(|e| io_error("open", &log.path, &e))?;
        self.open =
            Some(Open { log, file, decoder: BatchDecoder::default(), at: 0, buffer: Vec::new(), used: 0 });
        Ok(true)
    }

    fn step(&mut self) -> Result<Step, StorageError> {
        let Some(open) = &mut self.open else { return Ok(Step::Wait) };
        // Asked before reading: what comes later is in the file by then.
        let closed = self.wal.current() > open.log.number;
        let found = open.frame()?;
        let (found_kind, payload, len) = match found {
            At::Whole { kind, payload, len } => (kind, payload, len),
            At::Incomplete if closed => {
                if open.used < open.buffer.len() {
                    tracing::info!(path = %open.log.path.display(), offset = open.at, "the last write to this segment was not complete");
                }
                return Ok(Step::Finished);
            }
            At::Damaged if closed => {
                self.damaged += 1;
                open.skip_damage(&*self.vfs)?;
                return Ok(Step::Skipped);
            }
            At::Incomplete | At::Damaged => return Ok(Step::Wait),
        };
        let start = LogPosition { segment: open.log.number, offset: open.at };
        open.at += len as u64;
        open.used += len;
        let end = LogPosition { segment: open.log.number, offset: open.at };
        if found_kind != kind::BATCH {
            return Ok(Step::Skipped);
        }
        let read = match open.decoder.take(&payload) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(path = %open.log.path.display(), offset = start.offset, %error, "a record of the log cannot be used");
                self.damaged += 1;
                return Ok(Step::Skipped);
            }
        };
        self.damaged += u64::from(read.lost.is_some());
        let repeated = read.sequence != 1 && read.sequence <= self.sequence;
        self.sequence = read.sequence;
        let (series, mut batch) = (read.series, read.batch);
        batch.floats.append(&mut batch.out_of_order);
        let mut out = TailBatch {
            start,
            end,
            series: series.series.iter().map(|one| (one.local, series.labels(one))).collect(),
            floats: batch.floats,
            histograms: batch.histograms,
            exemplars: batch.exemplars,
            metadata: batch.metadata,
            passed: repeated || start < self.from,
        };
        if out.passed {
            out.floats.clear();
            out.histograms.clear();
            out.exemplars.clear();
        }
        Ok(Step::Batch(Box::new(out)))
    }
}

impl Open {
    fn frame(&mut self) -> Result<At, StorageError> {
        loop {
            let bytes = self.buffer.get(self.used..).unwrap_or_default();
            let found = frame_at(bytes, self.log.salt);
            if !matches!(found, At::Incomplete) {
                return Ok(found);
            }
            let have = bytes.len();
            self.buffer.drain(..self.used);
            self.used = 0;
            self.buffer.resize(have + READ_BYTES.max(HEADER), 0);
            let from = self.at + have as u64;
            let read = self.file.read_at(from, &mut self.buffer[have..]);
            let read = read.map_err(|e| io_error("read", &self.log.path, &e))?;
            self.buffer.truncate(have + read);
            if read == 0 {
                return Ok(At::Incomplete);
            }
        }
    }

    /// Goes on at the next whole frame, or at the end.
    fn skip_damage(&mut self, vfs: &dyn Vfs) -> Result<(), StorageError> {
        let path = &self.log.path;
        let bytes = vfs.sealed(path, true).map_err(|e| io_error("read", path, &e))?;
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let to = match Frames::new(&bytes, self.log.salt, at).next() {
            Some(super::frame::Found::Damage { offset, len, .. }) => offset + len,
            Some(super::frame::Found::Frame { offset, .. }) => offset,
            None => bytes.len(),
        };
        tracing::error!(path = %path.display(), offset = at, len = to.saturating_sub(at), "damage in the log, going on behind it");
        self.at = to as u64;
        self.buffer.clear();
        self.used = 0;
        Ok(())
    }
}

impl LogTail for WalTail {
    fn next_batch(&mut self) -> Result<Option<TailBatch>, StorageError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            match self.step()? {
                Step::Batch(batch) => return Ok(Some(*batch)),
                Step::Skipped => {}
                Step::Wait => return Ok(None),
                Step::Finished => self.finished = self.open.take().map(|open| open.log.number),
            }
        }
    }

    fn marks(&self) -> TailMarks {
        self.marks
    }

    fn save(&mut self, marks: TailMarks, durable: bool) -> Result<(), StorageError> {
        self.wal.holds().save(&self.name, marks, durable)?;
        self.marks = marks;
        Ok(())
    }

    fn take_lost(&mut self) -> u64 {
        self.wal.holds().take_lost(&self.name)
    }

    fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }
}
