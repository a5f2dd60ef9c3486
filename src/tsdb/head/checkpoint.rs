//! A snapshot of the head in one file, so that a start reads it and a short piece of the log instead of hours of log.
//! Written while samples come in: it may hold more than the segments before it, because applying a batch twice
//! changes nothing. The layout is in `docs/format/wal.md`.

use std::path::Path;

use super::super::Map;
use super::super::chunk::bytes::{Cursor, put_ivarint, put_text, put_uvarint};
use super::super::chunk::float::FloatEncoder;
use super::super::chunk::histogram::{put_histogram, take_histogram};
use super::super::chunk::{Damaged, histogram};
use super::super::door::StorageError;
use super::super::index::{NewPair, PairHasher, PairId};
use super::super::vfs::{Vfs, VfsFile, io_error, publish, temporary_name};
use super::super::wal::batch::{TextReader, TextWriter, put_metadata, take_metadata};
use super::super::wal::frame::{FrameWriter, Frames, Raw, RawFrame, kind};
use super::super::wal::segment::{FileKind, list, path_of};
use super::Head;
use super::chunks::ChunkRef;
use super::series::{LateSample, Open, Series};
use super::state::{PIECE, Slot, State};
use crate::model::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::Value;

const VERSION: u64 = 2;
/// Most series of a group: small enough that the lock is held for a moment, large enough that most label pairs of a group
/// belong to many of its series; and a group is a piece of the slab when it comes back.
const GROUP: usize = PIECE;
/// Slots that are looked at for one group.
const GROUP_SLOTS: u32 = 16 * PIECE as u32;
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// First record of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// First segment that must be replayed.
    pub segment: u32,
    /// Id of the next series.
    pub next_id: u64,
    /// Chunks before this place are named by the series.
    pub chunks: ChunkRef,
    /// In-order samples before this time are in blocks.
    pub valid_from_ms: i64,
}

/// Some series of a checkpoint, and the label pairs that they have.
#[derive(Default)]
pub struct SavedGroup {
    /// Label names.
    pub names: Vec<Box<str>>,
    /// Label values, one after the other.
    pub values: String,
    /// Label pairs; their hashes are missing until [`SavedGroup::prepare`].
    pub pairs: Vec<NewPair>,
    /// The series; their pairs are numbers in [`SavedGroup::pairs`].
    pub series: Vec<Slot>,
    /// Which series have each pair: where its part of `members` begins, and at last where all end.
    pub begins: Vec<u32>,
    /// Positions in [`SavedGroup::series`].
    pub members: Vec<u16>,
    /// What all series have together.
    pub sum: Sum,
}

/// What the series of a group have together.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// Oldest sample.
    pub min_t_ms: i64,
    /// Newest sample.
    pub max_t_ms: i64,
    /// Newest file of full chunks.
    pub chunk_file: u32,
    /// Open chunks.
    pub open: u64,
    /// Out-of-order samples.
    pub late: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { min_t_ms: i64::MAX, max_t_ms: i64::MIN, chunk_file: 0, open: 0, late: 0 }
    }
}

impl Sum {
    /// Adds what other series have.
    pub fn add(&mut self, other: &Self) {
        self.min_t_ms = self.min_t_ms.min(other.min_t_ms);
        self.max_t_ms = self.max_t_ms.max(other.max_t_ms);
        self.chunk_file = self.chunk_file.max(other.chunk_file);
        self.open += other.open;
        self.late += other.late;
    }
}

impl SavedGroup {
    /// Does beforehand what the index needs to take the group in.
    pub fn prepare(&mut self, hasher: &PairHasher) {
        let names: Vec<u64> = self.names.iter().map(|name| hasher.name(name)).collect();
        for pair in &mut self.pairs {
            pair.hash = hasher.pair(names[pair.name as usize], &self.values[pair.value.clone()]);
        }
        let all = || self.series.iter().filter_map(Slot::series).map(|series| &series.pairs);
        self.begins = vec![0; self.pairs.len() + 1];
        all().flatten().for_each(|pair| self.begins[*pair as usize + 1] += 1);
        let mut sum = 0;
        for begin in &mut self.begins {
            sum += *begin;
            *begin = sum;
        }
        let mut next = self.begins.clone();
        self.members = vec![0; sum as usize];
        for (position, pairs) in all().enumerate() {
            for pair in pairs {
                let place = &mut next[*pair as usize];
                self.members[*place as usize] = position as u16;
                *place += 1;
            }
        }
    }
}

struct Output<'a> {
    file: &'a dyn VfsFile,
    path: &'a Path,
    salt: u32,
    frames: FrameWriter,
    buffer: Vec<u8>,
    written: u64,
    checksum: crc32fast::Hasher,
}

impl Output<'_> {
    fn put(&mut self, kind: u8, payload: &[u8]) -> Result<(), StorageError> {
        let framed = self.frames.put(&mut self.buffer, self.salt, kind, payload);
        framed.map_err(|e| StorageError::NotReady(e.to_string()))?;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.append(&self.buffer).map_err(|e| io_error("write", self.path, &e))?;
        self.checksum.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Head {
    /// Writes a checkpoint, verifies it, and deletes what it replaces. Returns its length in bytes.
    pub fn checkpoint(&self, vfs: &dyn Vfs, dir: &Path) -> Result<u64, StorageError> {
        self.metrics.checkpoints.inc();
        self.try_checkpoint(vfs, dir).inspect_err(|_| self.metrics.checkpoints_failed.inc())
    }

    fn try_checkpoint(&self, vfs: &dyn Vfs, dir: &Path) -> Result<u64, StorageError> {
        let segment = {
            let _order = self.commit.lock();
            self.wal.cut()
        };
        let chunks = self.chunks.sync()?;
        let salt = fastrand::u32(..);
        let path = path_of(dir, FileKind::Checkpoint, segment, salt);
        let temporary = temporary_name(&path);
        let file = vfs.create(&temporary).map_err(|e| io_error("create", &temporary, &e))?;
        let written = self.write_checkpoint(&*file, &temporary, salt, segment, chunks);
        let (length, series) = written.inspect_err(|_| {
            let _ = vfs.remove_file(&temporary);
        })?;
        publish(vfs, &temporary, &path)?;
        tracing::debug!(segment, series, bytes = length, "checkpoint written");
        self.wal.holds().sweep(dir, segment)?;
        for old in list(vfs, dir)? {
            let replaced = old.kind == FileKind::Checkpoint && old.path != path && old.number <= segment;
            if replaced && let Err(error) = vfs.remove_file(&old.path) {
                tracing::warn!(path = %old.path.display(), %error, "a replaced file of the log cannot be deleted");
            }
        }
        let bytes: u64 = list(vfs, dir)?.iter().map(|f| f.len).sum();
        self.wal.metrics().bytes.set(bytes as f64);
        Ok(length)
    }

    fn write_checkpoint(
        &self,
        file: &dyn VfsFile,
        path: &Path,
        salt: u32,
        segment: u32,
        chunks: ChunkRef,
    ) -> Result<(u64, u64), StorageError> {
        let (frames, checksum) = (FrameWriter::new(true), crc32fast::Hasher::new());
        let mut out = Output { file, path, salt, frames, buffer: Vec::new(), written: 0, checksum };
        let mut payload = Vec::new();
        let (next_id, valid_from_ms, slots) = {
            let state = self.state.read();
            (state.next_id, state.valid_from_ms, state.num_slots())
        };
        for number in [VERSION, u64::from(segment), next_id, u64::from(chunks.file()), chunks.offset() as u64]
        {
            put_uvarint(&mut payload, number);
        }
        put_ivarint(&mut payload, valid_from_ms);
        out.put(kind::START, &payload)?;
        let start = payload.clone();
        let mut total = 0;
        let mut deletions: Vec<(u64, i64, i64)> = Vec::new();
        let mut next = 0;
        while next < slots {
            payload.clear();
            let count;
            (next, count) = self.put_group(&mut payload, next, &mut deletions);
            total += count;
            if count > 0 {
                out.put(kind::SERIES, &payload)?;
            }
        }
        payload.clear();
        let metadata = self.metadata.read().clone();
        put_uvarint(&mut payload, metadata.len() as u64);
        metadata.iter().for_each(|(name, metadata)| put_metadata(&mut payload, name, metadata));
        out.put(kind::METADATA, &payload)?;
        payload.clear();
        self.put_exemplars(&mut payload);
        out.put(kind::EXEMPLARS, &payload)?;
        payload.clear();
        put_uvarint(&mut payload, deletions.len() as u64);
        for (id, min, max) in deletions {
            put_uvarint(&mut payload, id);
            put_ivarint(&mut payload, min);
            put_ivarint(&mut payload, max);
        }
        out.put(kind::DELETIONS, &payload)?;
        payload.clear();
        put_uvarint(&mut payload, total);
        put_uvarint(&mut payload, self.state.read().index.num_pairs() as u64);
        // The start once more: nothing of a checkpoint can be used without it.
        out.put(kind::START, &start)?;
        out.put(kind::END, &payload)?;
        out.flush()?;
        // Chunks that were closed meanwhile are named by the series too.
        self.chunks.sync()?;
        file.sync_data().map_err(|e| io_error("sync", path, &e))?;
        if !reads_back(file, path, out.written, out.checksum)? {
            let message = "reads back differently".into();
            return Err(StorageError::Corrupt { path: path.display().to_string(), offset: 0, message });
        }
        Ok((out.written, total))
    }

    /// Appends a group from a slot on; the slot where the next one begins, and the number of series.
    fn put_group(&self, out: &mut Vec<u8>, first: u32, deletions: &mut Vec<(u64, i64, i64)>) -> (u32, u64) {
        let state = self.state.read();
        let end = first.saturating_add(GROUP_SLOTS);
        let used = (first..end).filter(|slot| state.series(*slot).is_some());
        let slots: Vec<u32> = used.take(GROUP).collect();
        let next = slots.last().filter(|_| slots.len() == GROUP).map_or(end, |last| last + 1);
        let mut numbers = put_pairs(out, &state, &slots).into_iter();
        put_uvarint(out, slots.len() as u64);
        for series in slots.iter().filter_map(|slot| state.series(*slot)) {
            put_uvarint(out, series.id);
            out.extend_from_slice(&series.hash.to_le_bytes());
            put_uvarint(out, series.pairs.len() as u64);
            for number in numbers.by_ref().take(series.pairs.len()) {
                put_uvarint(out, u64::from(number));
            }
            put_ivarint(out, series.min_t_ms);
            put_uvarint(out, self.chunks.resolve(series.sealed).0);
            match &series.open {
                Open::Empty { last_t_ms } => {
                    out.push(0);
                    put_ivarint(out, *last_t_ms);
                }
                Open::Float(encoder) => {
                    out.push(1);
                    put_ivarint(out, series.open_min_t_ms);
                    encoder.save(out);
                }
                Open::Histogram(encoder) => {
                    out.push(2);
                    put_ivarint(out, series.open_min_t_ms);
                    put_uvarint(out, u64::from(encoder.count()));
                    put_uvarint(out, encoder.bytes().len() as u64);
                    out.extend_from_slice(encoder.bytes());
                }
            }
            put_uvarint(out, series.late().len() as u64);
            for late in series.late() {
                put_ivarint(out, late.t_ms);
                put_ivarint(out, late.start_ms);
                match &late.value {
                    Value::Float(v) => {
                        out.push(1);
                        out.extend_from_slice(&v.to_bits().to_le_bytes());
                    }
                    Value::Histogram(h) => {
                        out.push(2);
                        put_histogram(out, h);
                    }
                }
            }
        }
        for slot in &slots {
            if let (Some(series), Some(ranges)) = (state.series(*slot), state.deleted.get(slot)) {
                deletions.extend(ranges.iter().map(|(min, max)| (series.id, *min, *max)));
            }
        }
        (next, slots.len() as u64)
    }

    fn put_exemplars(&self, out: &mut Vec<u8>) {
        let kept: Vec<_> = self.exemplars.lock().iter().cloned().collect();
        let state = self.state.read();
        let kept: Vec<_> =
            kept.into_iter().filter_map(|k| state.resolve(k.series).map(|slot| (slot, k))).collect();
        put_uvarint(out, kept.len() as u64);
        let mut texts = TextWriter::default();
        for (slot, kept) in kept {
            texts.put_labels(out, &state.labels(slot));
            put_ivarint(out, kept.t_ms);
            out.extend_from_slice(&kept.value.to_bits().to_le_bytes());
            texts.put_labels(out, &kept.labels);
        }
    }
}

/// Whether a file has this length and checksum.
fn reads_back(
    file: &dyn VfsFile,
    path: &Path,
    length: u64,
    wanted: crc32fast::Hasher,
) -> Result<bool, StorageError> {
    let (mut found, mut at) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; WRITE_BYTES];
    loop {
        let n = file.read_at(at, &mut buffer).map_err(|e| io_error("read", path, &e))?;
        if n == 0 {
            return Ok(at == length && found.finalize() == wanted.finalize());
        }
        found.update(&buffer[..n]);
        at += n as u64;
    }
}

/// Appends the label names and pairs of some series; answers with the numbers of the pairs, one series after the other.
fn put_pairs(out: &mut Vec<u8>, state: &State, slots: &[u32]) -> Vec<u32> {
    let mut known: Map<PairId, u32> = Map::default();
    let mut order: Vec<PairId> = Vec::new();
    let mut numbers: Vec<u32> = Vec::new();
    // Neighbours mostly have the same pairs at the same places, which spares looking them up.
    let mut before: &[PairId] = &[];
    for series in slots.iter().filter_map(|slot| state.series(*slot)) {
        let first = numbers.len() - before.len();
        for (at, pair) in series.pairs.iter().enumerate() {
            numbers.push(if before.get(at) == Some(pair) {
                numbers[first + at]
            } else {
                *known.entry(*pair).or_insert_with(|| {
                    order.push(*pair);
                    order.len() as u32 - 1
                })
            });
        }
        before = &series.pairs;
    }
    let mut names: Map<&str, u64> = Map::default();
    let mut texts = Vec::new();
    for pair in &order {
        let name = state.index.text(*pair).0;
        names.entry(name).or_insert_with(|| {
            texts.push(name);
            texts.len() as u64 - 1
        });
    }
    put_uvarint(out, texts.len() as u64);
    texts.iter().for_each(|name| put_text(out, name));
    put_uvarint(out, order.len() as u64);
    for pair in order {
        let (name, value) = state.index.text(pair);
        put_uvarint(out, names.get(name).copied().unwrap_or(0));
        put_text(out, value);
    }
    numbers
}

/// What the frames of a checkpoint say.
pub enum Saved {
    /// First record.
    Start(Start),
    /// A group of series.
    Series(SavedGroup),
    /// Metadata.
    Metadata(Vec<(String, Metadata)>),
    /// Exemplars: labels of the series, time, value, own labels.
    Exemplars(Vec<(Labels, i64, f64, Labels)>),
    /// Deletions by id.
    Deletions(Vec<(u64, i64, i64)>),
    /// Last record.
    End,
}

/// What is known of a checkpoint when all that is left of it was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// Whether its end is there; without it something is missing.
    pub complete: bool,
    /// Number of series, as far as it can be true; 0 if the end does not tell.
    pub series: usize,
    /// Number of label pairs, likewise.
    pub pairs: usize,
    /// Damaged places.
    pub damaged: u64,
}

/// The parts of a checkpoint that has a start: what the start says, the frames behind it, and what is known at the end.
/// Damaged places are logged with `path`.
#[must_use]
pub fn contents<'a>(bytes: &'a [u8], salt: u32, path: &Path) -> Option<(Start, Vec<RawFrame<'a>>, Ending)> {
    let (mut start, mut end, mut damaged) = (None, None, 0);
    let mut rest = Vec::new();
    let mut frames = Frames::new(bytes, salt, 0);
    while let Some(found) = frames.next_raw() {
        match found {
            Raw::Frame(frame) if frame.kind() == kind::START => {
                if let Ok(Saved::Start(found)) = frame.payload().and_then(|p| take(kind::START, &p)) {
                    start = Some(found);
                }
            }
            Raw::Frame(frame) if frame.kind() == kind::END => {
                let payload = frame.payload().unwrap_or_default();
                let mut cursor = Cursor::new(&payload);
                // Each takes more than a byte.
                let mut number = || cursor.uvarint().unwrap_or(0).min(bytes.len() as u64) as usize;
                end = Some((number(), number()));
            }
            Raw::Frame(frame) => rest.push(frame),
            Raw::Damage { offset, len, .. } => {
                tracing::error!(path = %path.display(), offset, len, "damage in a checkpoint");
                damaged += 1;
            }
        }
    }
    let (complete, (series, pairs)) = (end.is_some(), end.unwrap_or_default());
    Some((start?, rest, Ending { complete, series, pairs, damaged }))
}

/// Reads one frame.
pub fn take(kind: u8, payload: &[u8]) -> Result<Saved, Damaged> {
    let mut cursor = Cursor::new(payload);
    Ok(match kind {
        kind::START => {
            if cursor.uvarint()? != VERSION {
                return Err(Damaged("a checkpoint of another version"));
            }
            let segment = cursor.uvarint32()?;
            let next_id = cursor.uvarint()?;
            let (file, offset) = (cursor.uvarint32()?, cursor.uvarint32()?);
            let chunks = ChunkRef(u64::from(file) << 32 | u64::from(offset));
            Saved::Start(Start { segment, next_id, chunks, valid_from_ms: cursor.ivarint()? })
        }
        kind::SERIES => Saved::Series(take_group(&mut cursor)?),
        kind::METADATA => {
            let n = cursor.count(4)?;
            Saved::Metadata((0..n).map(|_| take_metadata(&mut cursor)).collect::<Result<_, _>>()?)
        }
        kind::EXEMPLARS => {
            let mut texts = TextReader::default();
            let n = cursor.count(11)?;
            let one = |_| {
                let series = texts.take_labels(&mut cursor)?;
                let (t, value) = (cursor.ivarint()?, f64::from_bits(cursor.u64_le()?));
                Ok((series, t, value, texts.take_labels(&mut cursor)?))
            };
            Saved::Exemplars((0..n).map(one).collect::<Result<_, Damaged>>()?)
        }
        kind::DELETIONS => {
            let n = cursor.count(3)?;
            let one = |_| Ok((cursor.uvarint()?, cursor.ivarint()?, cursor.ivarint()?));
            Saved::Deletions((0..n).map(one).collect::<Result<_, Damaged>>()?)
        }
        kind::END => Saved::End,
        _ => return Err(Damaged("an unknown kind of record")),
    })
}

fn take_group(cursor: &mut Cursor<'_>) -> Result<SavedGroup, Damaged> {
    let mut group = SavedGroup::default();
    for _ in 0..cursor.count(1)? {
        group.names.push(cursor.text()?.into());
    }
    let mut by_name: Vec<u32> = (0..group.names.len() as u32).collect();
    by_name.sort_by_key(|name| &group.names[*name as usize]);
    let mut ranks = vec![0u32; group.names.len()];
    by_name.iter().enumerate().for_each(|(rank, name)| ranks[*name as usize] = rank as u32);
    for _ in 0..cursor.count(2)? {
        let name = cursor.uvarint32()?;
        if name as usize >= ranks.len() {
            return Err(Damaged("a label name is not known"));
        }
        let begin = group.values.len();
        group.values.push_str(cursor.text()?);
        group.pairs.push(NewPair { name, value: begin..group.values.len(), hash: 0 });
    }
    let n = cursor.count(12)?;
    if n > GROUP {
        return Err(Damaged("a group has too many series"));
    }
    group.series.reserve_exact(GROUP);
    let mut pairs = Vec::new();
    for _ in 0..n {
        let series = take_series(cursor, &group.pairs, &ranks, &mut pairs)?;
        let sum = &mut group.sum;
        sum.min_t_ms = sum.min_t_ms.min(series.min_t_ms);
        sum.max_t_ms = sum.max_t_ms.max(series.max_t_ms());
        sum.chunk_file = sum.chunk_file.max(series.sealed.file());
        sum.open += u64::from(!matches!(series.open, Open::Empty { .. }));
        sum.late += series.late().len() as u64;
        group.series.push(Slot::new(Some(series)));
    }
    Ok(group)
}

fn take_series(
    cursor: &mut Cursor<'_>,
    known: &[NewPair],
    ranks: &[u32],
    pairs: &mut Vec<PairId>,
) -> Result<Series, Damaged> {
    let id = cursor.uvarint()?;
    let hash = cursor.u32_le()?;
    pairs.clear();
    let mut last = None;
    for _ in 0..cursor.count(1)? {
        let number = cursor.uvarint32()?;
        let pair = known.get(number as usize).ok_or(Damaged("a label pair is not known"))?;
        let rank = ranks.get(pair.name as usize).copied();
        if rank <= last {
            return Err(Damaged("labels are not sorted"));
        }
        last = rank;
        pairs.push(number);
    }
    let mut series = Series::new(id, pairs.as_slice().into(), hash);
    series.min_t_ms = cursor.ivarint()?;
    series.sealed = ChunkRef(cursor.uvarint()?);
    let code = cursor.byte()?;
    if code != 0 {
        series.open_min_t_ms = cursor.ivarint()?;
    }
    series.open = match code {
        0 => Open::Empty { last_t_ms: cursor.ivarint()? },
        1 => Open::Float(FloatEncoder::restore(cursor)?),
        2 => {
            let count =
                u16::try_from(cursor.uvarint()?).map_err(|_| Damaged("too many samples in a chunk"))?;
            let n = cursor.count(1)?;
            Open::Histogram(Box::new(histogram::resume(cursor.take(n)?, count)?))
        }
        _ => return Err(Damaged("an unknown chunk encoding")),
    };
    let n = cursor.count(4)?;
    let late = (0..n).map(|_| {
        let (t_ms, start_ms) = (cursor.ivarint()?, cursor.ivarint()?);
        let value = match cursor.byte()? {
            1 => Value::Float(f64::from_bits(cursor.u64_le()?)),
            _ => Value::Histogram(take_histogram(cursor)?),
        };
        Ok(LateSample { t_ms, start_ms, sequence: 0, value })
    });
    let late: Vec<LateSample> = late.collect::<Result<_, Damaged>>()?;
    series.late = (!late.is_empty()).then(|| Box::new(late));
    Ok(series)
}
