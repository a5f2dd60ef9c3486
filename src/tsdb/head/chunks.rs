//! Where do full chunks go? Into append-only files that are mapped once they are closed; the heap keeps eight bytes
//! for a series: the place of its newest chunk, which names the place of the one before. The layout is in
//! `docs/format/head-chunks.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::super::Map;
use super::super::chunk::Damaged;
use super::super::chunk::bytes::{Cursor, put_ivarint, put_uvarint};
use super::super::door::StorageError;
use super::super::vfs::{FileBytes, Vfs, VfsFile, io_error};
use super::super::wal::frame::{Found, FrameWriter, Frames, HEADER};

/// Kind of the frames.
const CHUNK: u8 = 32;
/// Bytes that wait in memory before they are written.
const FLUSH_BYTES: usize = 256 << 10;
/// A file is closed when it is longer.
const FILE_BYTES: u64 = 64 << 20;

/// Place of a chunk: file number and offset; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct ChunkRef(pub u64);

impl ChunkRef {
    /// No chunk.
    pub const NONE: Self = Self(0);

    fn new(file: u32, offset: u64) -> Self {
        Self(u64::from(file) << 32 | offset)
    }

    /// File number.
    #[must_use]
    pub fn file(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Offset in the file.
    #[must_use]
    pub fn offset(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    /// Whether there is a chunk.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Floats.
    Float,
    /// Histograms.
    Histogram,
}

/// What is known of a chunk without decoding it.
#[derive(Debug, Clone, Copy)]
pub struct ChunkMeta {
    /// Persistent id of its series.
    pub series: u64,
    /// The chunk of the series before it.
    pub previous: ChunkRef,
    /// Time of its first sample.
    pub min_t_ms: i64,
    /// Time of its last sample.
    pub max_t_ms: i64,
    /// What it holds.
    pub encoding: Encoding,
    /// Number of samples.
    pub count: u16,
}

/// A chunk that was read.
#[derive(Debug, Clone)]
pub struct StoredChunk {
    /// What is known of it.
    pub meta: ChunkMeta,
    bytes: FileBytes,
    from: usize,
    to: usize,
}

impl StoredChunk {
    /// The encoded samples.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }
}

fn put_chunk(out: &mut Vec<u8>, meta: &ChunkMeta, data: &[u8]) {
    put_uvarint(out, meta.series);
    put_uvarint(out, meta.previous.0);
    put_ivarint(out, meta.min_t_ms);
    put_uvarint(out, meta.max_t_ms.wrapping_sub(meta.min_t_ms) as u64);
    out.push(if meta.encoding == Encoding::Float { 1 } else { 2 });
    put_uvarint(out, u64::from(meta.count));
    out.extend_from_slice(data);
}

fn take_chunk(payload: &[u8]) -> Result<(ChunkMeta, usize), Damaged> {
    let mut cursor = Cursor::new(payload);
    let series = cursor.uvarint()?;
    let previous = ChunkRef(cursor.uvarint()?);
    let min_t_ms = cursor.ivarint()?;
    let max_t_ms = min_t_ms.wrapping_add(cursor.uvarint()? as i64);
    let encoding = match cursor.byte()? {
        1 => Encoding::Float,
        2 => Encoding::Histogram,
        _ => return Err(Damaged("an unknown chunk encoding")),
    };
    let count = u16::try_from(cursor.uvarint()?).map_err(|_| Damaged("too many samples in a chunk"))?;
    let meta = ChunkMeta { series, previous, min_t_ms, max_t_ms, encoding, count };
    Ok((meta, payload.len() - cursor.rest().len()))
}

struct Writer {
    number: u32,
    salt: u32,
    path: PathBuf,
    /// Missing as long as nothing was written.
    file: Option<Arc<dyn VfsFile>>,
    /// Bytes that are in the file.
    written: u64,
    /// Bytes of the file that are synced.
    synced: u64,
    /// Bytes after them. After a failed write they move to another file.
    buffer: Vec<u8>,
    /// The name of the file is synced, which happens with its first bytes.
    is_named: bool,
    failed: bool,
}

struct Sealed {
    salt: u32,
    path: PathBuf,
    bytes: FileBytes,
}

struct Inner {
    sealed: BTreeMap<u32, Sealed>,
    writer: Writer,
    /// Chunks that a failed write forced to another place.
    moved: Map<ChunkRef, ChunkRef>,
    /// How many chunks were added that end in each [`COUNTED_MS`].
    counts: BTreeMap<i64, u64>,
}

/// Chunks are counted by their end in steps of this many milliseconds, fine enough for any block range.
const COUNTED_MS: i64 = 1000;

/// The files.
pub struct ChunkStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    inner: RwLock<Inner>,
}

fn path_of(dir: &Path, number: u32, salt: u32) -> PathBuf {
    dir.join(format!("{number:08}-{salt:08x}.chunks"))
}

fn new_writer(dir: &Path, number: u32) -> Writer {
    let salt = fastrand::u32(..);
    let path = path_of(dir, number, salt);
    Writer {
        number,
        salt,
        path,
        file: None,
        written: 0,
        synced: 0,
        buffer: Vec::new(),
        is_named: false,
        failed: false,
    }
}

impl ChunkStore {
    /// Opens the files of a directory. A file that cannot be opened is named in the log and left alone.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, StorageError> {
        let mut sealed = BTreeMap::new();
        let entries = vfs.list(dir).map_err(|e| io_error("list", dir, &e))?;
        let mut last = 0;
        for entry in entries {
            let Some((number, salt)) = entry.name.strip_suffix(".chunks").and_then(|n| n.split_once('-'))
            else {
                continue;
            };
            let (Ok(number), Ok(salt)) = (number.parse::<u32>(), u32::from_str_radix(salt, 16)) else {
                continue;
            };
            last = last.max(number);
            let path = dir.join(&entry.name);
            match vfs.sealed(&path, true) {
                Ok(bytes) => {
                    sealed.insert(number, Sealed { salt, path, bytes });
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a file of head chunks cannot be read")
                }
            }
        }
        let writer = new_writer(dir, last + 1);
        Ok(Self {
            vfs,
            dir: dir.to_owned(),
            inner: RwLock::new(Inner { sealed, writer, moved: Map::default(), counts: BTreeMap::new() }),
        })
    }

    /// New files get numbers above `number`: places in files that are gone must never mean a new chunk.
    pub fn reserve(&self, number: u32) {
        let mut inner = self.inner.write();
        let writer = &inner.writer;
        if writer.number <= number && writer.file.is_none() && writer.buffer.is_empty() {
            inner.writer = new_writer(&self.dir, number.saturating_add(1));
        }
    }

    /// Adds a chunk in memory and returns its place; [`ChunkStore::flush`] writes it.
    pub fn push(&self, meta: &ChunkMeta, data: &[u8]) -> Result<ChunkRef, StorageError> {
        let mut inner = self.inner.write();
        let meta = ChunkMeta { previous: inner.resolve(meta.previous), ..*meta };
        let place = inner.writer.push(&meta, data)?;
        *inner.counts.entry(meta.max_t_ms.div_euclid(COUNTED_MS)).or_default() += 1;
        Ok(place)
    }

    /// Chunks added since the start that nobody has given up.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.read().counts.values().sum()
    }

    /// Writes what waits, if it is much or `all` is asked for. After a failure nothing is lost: it stays in memory.
    pub fn flush(&self, all: bool) -> Result<(), StorageError> {
        {
            let inner = self.inner.read();
            let waiting = inner.writer.buffer.len();
            if waiting == 0 || (!all && waiting < FLUSH_BYTES) {
                return Ok(());
            }
        }
        let mut inner = self.inner.write();
        if inner.writer.failed {
            inner.relocate(&*self.vfs, &self.dir)?;
        }
        inner.flush(&*self.vfs)
    }

    /// Closes the open file if it is long. Most of it is synced before anybody has to wait for that.
    pub fn rotate(&self) -> Result<(), StorageError> {
        let is_due = |inner: &Inner| inner.writer.written >= FILE_BYTES && !inner.writer.failed;
        if !is_due(&self.inner.read()) {
            return Ok(());
        }
        self.sync_aside()?;
        let mut inner = self.inner.write();
        if !is_due(&inner) {
            return Ok(());
        }
        inner.flush(&*self.vfs)?;
        inner.sync(&*self.vfs, &self.dir)?;
        inner.seal(&*self.vfs, &self.dir)
    }

    /// Syncs what is written without the lock, since a disk can take long over it and full chunks keep coming. An error
    /// means that the open file must not be used again, or that it is not the same any more.
    fn sync_aside(&self) -> Result<(), StorageError> {
        let gone = || StorageError::NotReady("the open file of head chunks failed".into());
        let (file, number, written, is_named) = {
            let inner = self.inner.read();
            let writer = &inner.writer;
            match &writer.file {
                _ if writer.failed => return Err(gone()),
                Some(file) if writer.synced < writer.written => {
                    (Arc::clone(file), writer.number, writer.written, writer.is_named)
                }
                _ => return Ok(()),
            }
        };
        let result = sync_file(&*file, is_named, &*self.vfs, &self.dir);
        let mut inner = self.inner.write();
        let writer = &mut inner.writer;
        if writer.number != number {
            return Err(gone());
        }
        match result {
            Ok(()) => (writer.synced, writer.is_named) = (writer.synced.max(written), true),
            Err(error) => {
                writer.failed = true;
                return Err(io_error("sync", &writer.path, &error));
            }
        }
        Ok(())
    }

    /// Makes all chunks so far survive a power cut and returns the place behind them.
    pub fn sync(&self) -> Result<ChunkRef, StorageError> {
        self.flush(true)?;
        let synced = self.sync_aside();
        let mut inner = self.inner.write();
        if synced.is_err() {
            // What the file holds since the last sync is in doubt: write it to another one.
            inner.relocate(&*self.vfs, &self.dir)?;
            inner.flush(&*self.vfs)?;
            inner.sync(&*self.vfs, &self.dir)?;
        }
        // More may have been written meanwhile.
        let writer = &inner.writer;
        Ok(ChunkRef::new(writer.number, writer.synced))
    }

    /// Where a chunk is now.
    #[must_use]
    pub fn resolve(&self, place: ChunkRef) -> ChunkRef {
        self.inner.read().resolve(place)
    }

    /// Reads one chunk; `None` if its file is gone, an error if it is damaged.
    pub fn read(&self, place: ChunkRef) -> Result<Option<StoredChunk>, StorageError> {
        let inner = self.inner.read();
        let place = inner.resolve(place);
        if !place.is_some() {
            return Ok(None);
        }
        let (path, bytes, at, salt) = if place.file() == inner.writer.number {
            let writer = &inner.writer;
            (writer.path.clone(), writer.copy(place.offset() as u64)?, 0, writer.salt)
        } else if let Some(sealed) = inner.sealed.get(&place.file()) {
            (sealed.path.clone(), sealed.bytes.clone(), place.offset(), sealed.salt)
        } else {
            return Ok(None);
        };
        drop(inner);
        let damaged = |message: &str| StorageError::Corrupt {
            path: path.display().to_string(),
            offset: place.offset() as u64,
            message: message.into(),
        };
        let payload =
            Frames::new(&bytes, salt, 0).payload_at(at).ok_or_else(|| damaged("no whole chunk here"))?;
        let (meta, skip) = take_chunk(&bytes[payload.clone()]).map_err(|e| damaged(e.0))?;
        // Whoever follows the chain must come to its end.
        if meta.previous >= place {
            return Err(damaged("the chunk before is not before"));
        }
        Ok(Some(StoredChunk { meta, from: payload.start + skip, to: payload.end, bytes }))
    }

    /// Goes through all chunks from a place on, in order of writing; damage is reported and skipped.
    pub fn scan(
        &self,
        from: ChunkRef,
        chunk: impl FnMut(ChunkRef, &ChunkMeta),
        damage: impl FnMut(&Path, usize, usize),
    ) {
        self.scan_files(from.file()..u32::MAX, from.offset(), chunk, damage);
    }

    fn scan_files(
        &self,
        range: std::ops::Range<u32>,
        first_offset: usize,
        mut chunk: impl FnMut(ChunkRef, &ChunkMeta),
        mut damage: impl FnMut(&Path, usize, usize),
    ) {
        let files: Vec<(u32, u32, PathBuf, FileBytes)> = {
            let inner = self.inner.read();
            let sealed = inner.sealed.range(range.clone());
            sealed.map(|(number, s)| (*number, s.salt, s.path.clone(), s.bytes.clone())).collect()
        };
        for (number, salt, path, bytes) in files {
            let begin = if number == range.start { first_offset } else { 0 };
            for found in Frames::new(&bytes, salt, begin) {
                match found {
                    Found::Frame { kind: CHUNK, payload, offset } => {
                        if let Ok((meta, _)) = take_chunk(&payload) {
                            chunk(ChunkRef::new(number, offset as u64), &meta);
                        }
                    }
                    Found::Frame { .. } => {}
                    Found::Damage { offset, len, .. } => damage(&path, offset, len),
                }
            }
        }
    }

    /// The chunk of a series that was written last before a place. Reads all files before it: the way around a damaged
    /// chunk, whose own reference to the one before is lost.
    #[must_use]
    pub fn last_before(&self, series: u64, place: ChunkRef) -> ChunkRef {
        let place = self.resolve(place);
        let mut last = ChunkRef::NONE;
        let each = |at: ChunkRef, meta: &ChunkMeta| {
            if meta.series == series && at < place {
                last = at;
            }
        };
        self.scan_files(0..place.file().saturating_add(1), 0, each, |_, _, _| {});
        last
    }

    /// Deletes closed files, oldest first, up to the first one that holds a sample at or after `t_ms`.
    pub fn truncate_before(&self, t_ms: i64) {
        let numbers: Vec<u32> = {
            let mut inner = self.inner.write();
            inner.counts = inner.counts.split_off(&t_ms.div_euclid(COUNTED_MS));
            inner.sealed.keys().copied().collect()
        };
        for number in numbers {
            let mut newest = i64::MIN;
            let mut next = false;
            self.scan_files(
                number..number + 1,
                0,
                |_, meta| newest = newest.max(meta.max_t_ms),
                |_, _, _| next = true,
            );
            // A damaged file stays: nobody knows what is in it. It goes with the files around it when they are older.
            if newest >= t_ms || (next && newest == i64::MIN) {
                return;
            }
            self.drop_before(number + 1);
        }
    }

    /// Deletes closed files with a number below `number`.
    pub fn drop_before(&self, number: u32) {
        let mut inner = self.inner.write();
        let keep = inner.sealed.split_off(&number);
        let gone = std::mem::replace(&mut inner.sealed, keep);
        inner.moved.retain(|_, to| to.file() >= number);
        drop(inner);
        for sealed in gone.values() {
            if let Err(error) = self.vfs.remove_file(&sealed.path) {
                tracing::warn!(path = %sealed.path.display(), %error, "a file of head chunks cannot be deleted");
            }
        }
    }

    /// Bytes on disk and waiting.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let inner = self.inner.read();
        let sealed: u64 = inner.sealed.values().map(|s| s.bytes.len() as u64).sum();
        sealed + inner.writer.written + inner.writer.buffer.len() as u64
    }
}

impl Writer {
    fn push(&mut self, meta: &ChunkMeta, data: &[u8]) -> Result<ChunkRef, StorageError> {
        let place = ChunkRef::new(self.number, self.written + self.buffer.len() as u64);
        let mut payload = Vec::with_capacity(data.len() + 40);
        put_chunk(&mut payload, meta, data);
        let framed = FrameWriter::new(false).put(&mut self.buffer, self.salt, CHUNK, &payload);
        framed.map_err(|e| StorageError::NotReady(e.to_string()))?;
        Ok(place)
    }

    fn flush(&mut self, vfs: &dyn Vfs) -> Result<(), StorageError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = vfs.create(&self.path).map_err(|e| io_error("create", &self.path, &e))?;
                self.file = Some(Arc::clone(&file));
                file
            }
        };
        file.append(&self.buffer).map_err(|e| io_error("write", &self.path, &e))?;
        self.written += self.buffer.len() as u64;
        self.buffer = Vec::new();
        Ok(())
    }

    fn sync(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
        if let Some(file) = &self.file
            && self.synced < self.written
        {
            sync_file(&**file, self.is_named, vfs, dir).map_err(|e| io_error("sync", &self.path, &e))?;
            (self.synced, self.is_named) = (self.written, true);
        }
        Ok(())
    }

    /// The bytes of one frame, wherever they are.
    fn copy(&self, offset: u64) -> Result<FileBytes, StorageError> {
        if offset >= self.written {
            let at = (offset - self.written) as usize;
            let header = self.buffer.get(at..).unwrap_or_default();
            let len = HEADER + frame_len(header);
            return Ok(FileBytes::new(header.get(..len.min(header.len())).unwrap_or_default().to_vec()));
        }
        let Some(file) = &self.file else { return Ok(FileBytes::new(Vec::new())) };
        let read = |at: u64, len: usize| {
            let mut out = vec![0; len];
            let n = file.read_at(at, &mut out).map_err(|e| io_error("read", &self.path, &e))?;
            out.truncate(n);
            Ok::<_, StorageError>(out)
        };
        let header = read(offset, HEADER)?;
        let len = (HEADER + frame_len(&header)) as u64;
        Ok(FileBytes::new(read(offset, len.min(self.written - offset) as usize)?))
    }
}

/// Syncs a file, and its name unless that was done before.
fn sync_file(file: &dyn VfsFile, is_named: bool, vfs: &dyn Vfs, dir: &Path) -> std::io::Result<()> {
    file.sync_data()?;
    if is_named { Ok(()) } else { vfs.sync_dir(dir) }
}

fn frame_len(header: &[u8]) -> usize {
    header.get(5..9).and_then(|l| l.try_into().ok()).map_or(0, |l| u32::from_le_bytes(l) as usize)
}

impl Inner {
    fn resolve(&self, place: ChunkRef) -> ChunkRef {
        let mut place = place;
        // Each failure can move a chunk once more.
        while let Some(next) = self.moved.get(&place) {
            place = *next;
        }
        place
    }

    /// The open file failed: its bytes that are not synced go to a new one.
    fn relocate(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
        let old = &self.writer;
        let mut bytes = Vec::new();
        if let Some(file) = &old.file {
            bytes.resize((old.written - old.synced) as usize, 0);
            let n = file.read_at(old.synced, &mut bytes).map_err(|e| io_error("read", &old.path, &e))?;
            bytes.truncate(n);
        }
        bytes.extend_from_slice(&old.buffer);
        let mut writer = new_writer(dir, old.number + 1);
        let mut moved = Vec::new();
        for found in Frames::new(&bytes, old.salt, 0) {
            if let Found::Frame { kind: CHUNK, payload, offset } = found
                && let Ok((meta, skip)) = take_chunk(&payload)
            {
                let from = ChunkRef::new(old.number, old.synced + offset as u64);
                let previous =
                    moved.iter().rev().find(|(a, _)| *a == meta.previous).map_or(meta.previous, |(_, b)| *b);
                let to =
                    writer.push(&ChunkMeta { previous, ..meta }, payload.get(skip..).unwrap_or_default())?;
                moved.push((from, to));
            }
        }
        let old = std::mem::replace(&mut self.writer, writer);
        self.moved.extend(moved);
        if old.synced > 0 {
            let bytes = vfs.sealed(&old.path, true).map_err(|e| io_error("map", &old.path, &e))?;
            self.sealed.insert(old.number, Sealed { salt: old.salt, path: old.path, bytes });
        }
        Ok(())
    }

    /// Writes what waits.
    fn flush(&mut self, vfs: &dyn Vfs) -> Result<(), StorageError> {
        self.writer.flush(vfs).inspect_err(|_| self.writer.failed = true)
    }

    fn sync(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
        self.writer.sync(vfs, dir).inspect_err(|_| self.writer.failed = true)
    }

    fn seal(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<(), StorageError> {
        let bytes =
            vfs.sealed(&self.writer.path, true).map_err(|e| io_error("map", &self.writer.path, &e))?;
        let next = new_writer(dir, self.writer.number + 1);
        let old = std::mem::replace(&mut self.writer, next);
        self.sealed.insert(old.number, Sealed { salt: old.salt, path: old.path, bytes });
        Ok(())
    }
}
