//! How does the head come back after a stop or a crash? The newest complete checkpoint, then the chunk files behind
//! it, then the segments of the log behind it. Other threads read and decode ahead of the one that applies; of a
//! checkpoint, one enters labels into the index while another takes in the series.

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::super::Map;
use super::super::chunk::Damaged;
use super::super::door::StorageError;
use super::super::index::{Index, PairHasher};
use super::super::vfs::{FileBytes, Vfs};
use super::super::wal::batch::{BatchDecoder, ReadBatch};
use super::super::wal::frame::{Found, Frames, RawFrame, kind};
use super::super::wal::segment::{FileKind, LogFile, list};
use super::Head;
use super::checkpoint::{Ending, Saved, SavedGroup, Start, Sum, contents, take};
use super::chunks::{ChunkMeta, ChunkRef};
use super::exemplars::Kept;
use super::series::{LateSample, Open};
use super::state::{PIECE, Slot, State};
use crate::model::Labels;
use crate::model::sample::Value;

/// Decoded batches that may wait to be applied: bounds memory.
const AHEAD: usize = 64;
/// Decoded groups of a checkpoint that may wait for each decoder: bounds memory.
const GROUPS_AHEAD: usize = 4;
/// Bytes of a file that was read after which its memory is given back, because what becomes of them needs it.
const RELEASE: usize = 4 << 20;
const MOST_DECODERS: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What a start found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Damaged places that were skipped.
    pub damaged: u64,
    /// Records that could not be used because one before them was lost.
    pub unusable: u64,
    /// Batches applied.
    pub batches: u64,
    /// Samples in them.
    pub samples: u64,
    /// Number for the next segment.
    pub next_segment: u32,
    /// Whether the log behind the checkpoint was empty: the last stop was clean.
    pub clean: bool,
}

/// How far replay is, for those who watch: numbers of segments.
#[derive(Debug, Default)]
pub struct ReplayWatch {
    /// First segment to read.
    pub min: AtomicU64,
    /// Last segment to read.
    pub max: AtomicU64,
    /// The one being read.
    pub current: AtomicU64,
}

enum Read {
    Segment,
    Batch(Box<ReadBatch>),
    Damage,
}

/// A chunk whose series is not known yet.
type Waiting = Map<u64, Vec<(ChunkRef, ChunkMeta)>>;

/// Rebuilds the head from a directory of the log; the head must be empty.
pub fn replay(head: &Head, vfs: &dyn Vfs, dir: &Path, watch: &ReplayWatch) -> Result<Recovery, StorageError> {
    let files = list(vfs, dir)?;
    let next_segment = files.iter().map(|f| f.number + 1).max().unwrap_or(1);
    let mut recovery = Recovery { next_segment, ..Recovery::default() };
    let mut state = head.state.write();
    let mut adopted = Adopted::default();
    // The newest complete checkpoint; if all are damaged, what is left of the newest that says where it begins.
    let (mut loaded, mut rest): (bool, Option<(&LogFile, FileBytes)>) = (false, None);
    for file in files.iter().rev().filter(|f| f.kind == FileKind::Checkpoint) {
        let Ok(bytes) = vfs.sealed(&file.path, true) else {
            tracing::error!(path = %file.path.display(), "a checkpoint cannot be read");
            recovery.damaged += 1;
            continue;
        };
        let found = contents(&bytes, file.salt, &file.path);
        if let Some((start, frames, end)) = &found
            && end.complete
        {
            adopted = adopt(head, &mut state, start, frames, *end, (file, &bytes), &mut recovery);
            loaded = true;
            break;
        }
        tracing::error!(path = %file.path.display(), "a checkpoint is damaged");
        recovery.damaged += 1;
        let usable = found.is_some();
        drop(found);
        if usable && rest.is_none() {
            rest = Some((file, bytes));
        }
    }
    if !loaded
        && let Some((file, bytes)) = &rest
        && let Some((start, frames, end)) = contents(bytes, file.salt, &file.path)
    {
        adopted = adopt(head, &mut state, &start, &frames, end, (file, bytes), &mut recovery);
    }
    let Adopted { first, chunks, chunk_file } = adopted;
    head.chunks.reserve(chunk_file.max(chunks.file()));
    let mut waiting = attach_chunks(head, &mut state, chunks, &mut recovery);
    let segments: Vec<&LogFile> =
        files.iter().filter(|f| f.kind == FileKind::Segment && f.number >= first).collect();
    recovery.clean = segments.iter().all(|s| s.len == 0);
    let total: u64 = segments.iter().map(|s| s.len).sum();
    if total > 0 {
        tracing::info!(segments = segments.len(), bytes = total, "replaying the write-ahead log");
    }
    let number = |segment: Option<&&LogFile>| segment.map_or(0, |s| u64::from(s.number));
    watch.min.store(number(segments.first()), Ordering::Relaxed);
    watch.max.store(number(segments.last()), Ordering::Relaxed);
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(|| read_segments(vfs, &segments, &sender_once(sender)));
        let mut locals: Vec<u32> = Vec::new();
        let (mut done, mut told) = (0usize, Instant::now());
        for read in receiver {
            match read {
                Read::Segment => {
                    locals.clear();
                    watch.current.store(number(segments.get(done)), Ordering::Relaxed);
                    done += 1;
                    if told.elapsed() > PROGRESS_EVERY {
                        told = Instant::now();
                        tracing::info!(segment = done, of = segments.len(), "replaying the write-ahead log");
                    }
                }
                Read::Damage => recovery.damaged += 1,
                Read::Batch(batch) => {
                    recovery.batches += 1;
                    apply(head, &mut state, &mut locals, &mut waiting, *batch, &mut recovery);
                }
            }
        }
    });
    // Series whose labels are lost leave chunks behind that nobody can name.
    recovery.damaged += waiting.len() as u64;
    state.counts.created = 0;
    Ok(recovery)
}

/// What a checkpoint that was taken in says about the rest.
struct Adopted {
    /// The segment from which to go on.
    first: u32,
    /// The place in the chunk files from which to go on.
    chunks: ChunkRef,
    /// The newest chunk file that a series names.
    chunk_file: u32,
}

impl Default for Adopted {
    fn default() -> Self {
        Self { first: 0, chunks: ChunkRef::NONE, chunk_file: 0 }
    }
}

/// Takes a checkpoint in.
fn adopt(
    head: &Head,
    state: &mut State,
    start: &Start,
    frames: &[RawFrame<'_>],
    end: Ending,
    (file, bytes): (&LogFile, &FileBytes),
    recovery: &mut Recovery,
) -> Adopted {
    state.next_id = start.next_id;
    state.valid_from_ms = start.valid_from_ms;
    recovery.damaged += end.damaged;
    state.reserve(end.series, end.pairs);
    let sum = load(head, state, frames, (file, bytes), recovery);
    state.min_t_ms = state.min_t_ms.min(sum.min_t_ms);
    state.max_t_ms = state.max_t_ms.max(sum.max_t_ms);
    state.counts.chunks_created += sum.open;
    Adopted { first: start.segment, chunks: start.chunks, chunk_file: sum.chunk_file }
}

fn sender_once(sender: SyncSender<Read>) -> impl Fn(Read) {
    // If the receiver is gone there is nobody left to tell.
    move |read| drop(sender.send(read))
}

fn read_segments(vfs: &dyn Vfs, segments: &[&LogFile], send: &impl Fn(Read)) {
    for (i, segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        send(Read::Segment);
        let path = segment.path.display();
        let bytes = match vfs.sealed(&segment.path, true) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%path, %error, "a segment of the log cannot be read");
                send(Read::Damage);
                continue;
            }
        };
        let mut decoder = BatchDecoder::default();
        let mut read = 0;
        for found in Frames::new(&bytes, segment.salt, 0) {
            if let Found::Frame { offset, .. } = &found
                && offset - read >= RELEASE
            {
                bytes.release(read..*offset);
                read = *offset;
            }
            match found {
                Found::Frame { kind: kind::BATCH, payload, offset } => match decoder.take(&payload) {
                    Ok(batch) => send(Read::Batch(Box::new(batch))),
                    Err(error) => {
                        tracing::error!(%path, offset, %error, "a record of the log cannot be used");
                        send(Read::Damage);
                    }
                },
                Found::Frame { kind, offset, .. } => {
                    tracing::error!(%path, offset, kind, "a record of the log is of a kind this version does not know");
                    send(Read::Damage);
                }
                Found::Damage { offset, len, at_end } if at_end && last => {
                    tracing::info!(%path, offset, len, "the last write before the stop was not complete");
                }
                Found::Damage { offset, len, .. } => {
                    tracing::error!(%path, offset, len, "damage in the log, going on behind it");
                    send(Read::Damage);
                }
            }
        }
    }
}

/// Decodes frames of a checkpoint in threads of their own and takes them in, in order.
fn load(
    head: &Head,
    state: &mut State,
    frames: &[RawFrame<'_>],
    (file, bytes): (&LogFile, &FileBytes),
    recovery: &mut Recovery,
) -> Sum {
    let (index, mut adopter) = state.halves();
    let hasher = &index.hasher();
    let mut first = adopter.next();
    let (mut sum, mut others, mut twins) = (Sum::default(), Vec::new(), Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).clamp(1, MOST_DECODERS);
    std::thread::scope(|scope| {
        let mut results = Vec::new();
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(GROUPS_AHEAD);
            results.push(receiver);
            scope.spawn(move || {
                for frame in frames.iter().skip(worker).step_by(workers) {
                    let saved = prepared(frame, hasher);
                    if sender.send(saved).is_err() {
                        // Nobody is left to tell.
                        return;
                    }
                }
            });
        }
        let (pieces, taken) = sync_channel::<(Vec<Slot>, u64)>(GROUPS_AHEAD);
        let adopting = scope.spawn(move || {
            taken.into_iter().flat_map(|(piece, late)| adopter.take(piece, late)).collect::<Vec<_>>()
        });
        let mut read = 0;
        for (i, frame) in frames.iter().enumerate() {
            if frame.offset - read >= RELEASE {
                bytes.release(read..frame.offset);
                read = frame.offset;
            }
            let saved = results[i % workers].recv().unwrap_or(Err(Damaged("its reader gave up")));
            match saved {
                Ok(Saved::Series(group)) => {
                    sum.add(&group.sum);
                    let late = group.sum.late;
                    // It takes all there is; should it have panicked, joining it says so.
                    let _ = pieces.send((enter(index, group, first), late));
                    first += PIECE as u32;
                }
                Ok(saved) => others.push(saved),
                Err(error) => {
                    let path = file.path.display();
                    tracing::error!(%path, %error, "damage in a checkpoint, going on behind it");
                    recovery.damaged += 1;
                }
            }
        }
        drop(pieces);
        twins = adopting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    twins.into_iter().for_each(|twin| state.forget_twin(twin));
    others.into_iter().for_each(|saved| take_in(head, state, saved));
    sum
}

fn prepared(frame: &RawFrame<'_>, hasher: &PairHasher) -> Result<Saved, Damaged> {
    let mut saved = take(frame.kind(), &frame.payload()?)?;
    if let Saved::Series(group) = &mut saved {
        group.prepare(hasher);
    }
    Ok(saved)
}

/// Takes in what is not a series.
fn take_in(head: &Head, state: &mut State, saved: Saved) {
    match saved {
        Saved::Metadata(all) => head.metadata.write().extend(all),
        Saved::Exemplars(all) => {
            let mut ring = head.exemplars.lock();
            for (series, t_ms, value, labels) in all {
                if let Some(slot) = state.find(&series) {
                    ring.push(Kept { series: state.reference(slot), t_ms, value, labels });
                }
            }
        }
        Saved::Deletions(all) => {
            if all.is_empty() {
                return;
            }
            let by_id: Map<u64, u32> = state.used_slots().map(|(slot, s)| (s.id, slot)).collect();
            for (id, min, max) in all {
                if let Some(slot) = by_id.get(&id) {
                    state.deleted.entry(*slot).or_default().push((min, max));
                }
            }
        }
        Saved::Series(_) | Saved::Start(_) | Saved::End => {}
    }
}

/// Tells the index of the series of a group that get the slots from `first` on; answers with them.
fn enter(index: &mut Index, group: SavedGroup, first: u32) -> Vec<Slot> {
    let SavedGroup { names, values, pairs, mut series, begins, members, .. } = group;
    let ids = index.intern_all(&names, &values, &pairs);
    for pair in series.iter_mut().filter_map(Slot::series_mut).flat_map(|series| &mut series.pairs) {
        *pair = ids[*pair as usize];
    }
    let mut slots: Vec<u32> = (first..first + series.len() as u32).collect();
    index.extend_all(&slots);
    for (id, part) in ids.iter().zip(begins.windows(2)) {
        let members = &members[part[0] as usize..part[1] as usize];
        slots.clear();
        slots.extend(members.iter().map(|member| first + u32::from(*member)));
        index.extend(*id, &slots);
    }
    series
}

/// Chunks that were closed after the checkpoint replace the open chunks that it has.
fn attach_chunks(head: &Head, state: &mut State, from: ChunkRef, recovery: &mut Recovery) -> Waiting {
    let mut waiting = Waiting::default();
    let mut found = Vec::new();
    let damage = |path: &Path, offset, len| {
        tracing::error!(path = %path.display(), offset, len, "damage in a file of head chunks");
        recovery.damaged += 1;
    };
    head.chunks.scan(from, |place, meta| found.push((place, *meta)), damage);
    if found.is_empty() {
        return waiting;
    }
    let mut by_id: Map<u64, u32> = found.iter().map(|(_, meta)| (meta.series, u32::MAX)).collect();
    for (slot, series) in state.used_slots() {
        if let Some(known) = by_id.get_mut(&series.id) {
            *known = slot;
        }
    }
    by_id.retain(|_, slot| *slot != u32::MAX);
    for (place, meta) in found {
        match by_id.get(&meta.series) {
            Some(slot) => attach(state, *slot, place, &meta),
            None => waiting.entry(meta.series).or_default().push((place, meta)),
        }
    }
    waiting
}

fn attach(state: &mut State, slot: u32, place: ChunkRef, meta: &ChunkMeta) {
    let Some(series) = state.series_mut(slot) else { return };
    if place <= series.sealed {
        return;
    }
    series.sealed = place;
    series.min_t_ms = series.min_t_ms.min(meta.min_t_ms);
    if meta.max_t_ms >= series.open.last_t_ms() {
        series.open = Open::Empty { last_t_ms: meta.max_t_ms };
        series.open_min_t_ms = i64::MAX;
    }
    state.min_t_ms = state.min_t_ms.min(meta.min_t_ms);
    state.max_t_ms = state.max_t_ms.max(meta.max_t_ms);
}

fn apply(
    head: &Head,
    state: &mut State,
    locals: &mut Vec<u32>,
    waiting: &mut Waiting,
    read: ReadBatch,
    recovery: &mut Recovery,
) {
    if read.lost.is_some() {
        recovery.unusable += 1;
    }
    for series in &read.series.series {
        // Series mostly come in the order in which they were created.
        let likely = locals.last().map_or(0, |before| before.wrapping_add(1));
        let slot = match state.series(likely) {
            Some(known) if known.id == series.id => {
                debug_assert_eq!(state.labels(likely), read.series.labels(series), "an id has one label set");
                likely
            }
            _ => slot_for(state, waiting, (series.id, &read.series.labels(series)), likely),
        };
        let at = series.local as usize;
        // Numbers are dense; a hole is left by a lost record, a huge one by damage that passed its checksum.
        if at >= locals.len() {
            if at > locals.len() + (1 << 24) {
                recovery.unusable += 1;
                continue;
            }
            locals.resize(at + 1, u32::MAX);
        }
        locals[at] = slot;
    }
    let slot_of = |local: u32| locals.get(local as usize).copied().filter(|slot| *slot != u32::MAX);
    let mut unknown = false;
    let mut batch = read.batch;
    for sample in &batch.floats {
        let Some(slot) = slot_of(sample.series) else {
            unknown = true;
            continue;
        };
        recovery.samples += 1;
        in_order(head, state, slot, sample.t_ms, sample.start_ms, &Value::Float(sample.value));
    }
    for sample in &batch.out_of_order {
        let Some(slot) = slot_of(sample.series) else {
            unknown = true;
            continue;
        };
        recovery.samples += 1;
        late(head, state, slot, sample.t_ms, sample.start_ms, Value::Float(sample.value));
    }
    // Sections lose the order between floats and histograms of one series, which a series may have both of in one batch.
    let mixed: std::collections::HashSet<u32> = if batch.histograms.is_empty() {
        std::collections::HashSet::new()
    } else {
        batch.floats.iter().map(|s| s.series).collect()
    };
    for sample in batch.histograms.drain(..) {
        let Some(slot) = slot_of(sample.series) else {
            unknown = true;
            continue;
        };
        recovery.samples += 1;
        let value = Value::Histogram(sample.value);
        let passed = || {
            mixed.contains(&sample.series)
                && state.series(slot).is_some_and(|s| s.open.last_t_ms() > sample.t_ms)
        };
        if sample.out_of_order || passed() {
            late(head, state, slot, sample.t_ms, sample.start_ms, value);
        } else {
            in_order(head, state, slot, sample.t_ms, sample.start_ms, &value);
        }
    }
    for exemplar in batch.exemplars.drain(..) {
        if let Some(slot) = slot_of(exemplar.series) {
            let series = state.reference(slot);
            let kept = Kept { series, t_ms: exemplar.t_ms, value: exemplar.value, labels: exemplar.labels };
            head.exemplars.lock().push(kept);
        }
    }
    for delete in &batch.deletes {
        if let Some(slot) = slot_of(delete.series) {
            state.deleted.entry(slot).or_default().push((delete.min_t_ms, delete.max_t_ms));
        }
    }
    head.note_metadata(&batch);
    recovery.unusable += u64::from(unknown);
}

fn slot_for(state: &mut State, waiting: &mut Waiting, (id, labels): (u64, &Labels), likely: u32) -> u32 {
    let slot = state.find_near(labels, likely).unwrap_or_else(|| state.create(labels, Some(id)));
    for (place, meta) in waiting.remove(&id).unwrap_or_default() {
        attach(state, slot, place, &meta);
    }
    slot
}

/// A sample that was newer than all of its series: if it is not now, it is there already.
fn in_order(head: &Head, state: &mut State, slot: u32, t_ms: i64, start_ms: i64, value: &Value) {
    let known = state.series(slot).map_or(i64::MAX, |s| s.open.last_t_ms());
    if t_ms > known
        && t_ms >= state.valid_from_ms
        && let Err(error) = state.push(slot, t_ms, start_ms, value, &head.chunks)
    {
        tracing::error!(%error, "a full chunk could not be closed");
    }
}

fn late(head: &Head, state: &mut State, slot: u32, t_ms: i64, start_ms: i64, value: Value) {
    if head.sample_at(state, slot, t_ms).is_none() {
        state.push_late(slot, LateSample { t_ms, start_ms, sequence: 0, value });
    }
}
