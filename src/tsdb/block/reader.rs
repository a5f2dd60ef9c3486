//! How is a block read? Opening checks the footer only; every other part is checked against its checksum when it
//! is touched for the first time. What is damaged is left out and named in a warning; nothing else is affected.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Mutex, RwLock};
use ulid::Ulid;

use crate::model::{Matcher, SampleBuffer};
use crate::tsdb::vfs::{FileBytes, Place};
use crate::tsdb::{Map, StorageError};

use super::bytes::{DecodeError, Input};
use super::chunk::Decoded;
use super::format::{
    BLOCK_FILE, ChunkKind, ChunkRef, Footer, PAGE_ENTRY_LEN, PART_NAMES, PARTS, PageEntry, Part,
};
use super::list::SeriesList;
use super::meta::{BlockMeta, META_FILE};
use super::page::Page;
use super::source::SeriesColumns;
use super::symbols::Symbols;
use super::times;
use super::tombstones::Tombstones;

const UNKNOWN: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;
/// Decoded timestamp columns kept by an open block.
const CACHED_COLUMNS: usize = 512;

thread_local! {
    /// Room for the content of one chunk, used again for the next.
    static DECODED: RefCell<Decoded> = RefCell::default();
    /// Room for the series of one page, used again for the next.
    static PAGE: RefCell<Page> = RefCell::default();
}

/// An open block. Shared by all queriers; dropping the last reference unmaps the file.
#[derive(Debug)]
pub struct Block {
    dir: Place,
    path: Place,
    meta: BlockMeta,
    bytes: FileBytes,
    footer: Footer,
    /// Whether whole parts and pages of samples were checked, and how that ended.
    parts: [AtomicU8; PARTS],
    data_pages: Vec<AtomicU8>,
    columns: Mutex<Map<u32, Arc<Vec<i64>>>>,
    tombstones: RwLock<Arc<Tombstones>>,
}

impl Block {
    /// Opens the block in `dir`.
    pub fn open(dir: impl Into<Place>) -> Result<Arc<Self>, StorageError> {
        let dir = dir.into();
        let meta = BlockMeta::read(&dir)?;
        Self::open_as(dir, |_| meta)
    }

    /// Opens the native block in `dir` whose `meta.json` is damaged; what it said comes from the footer as far as it
    /// can.
    pub fn open_without_meta(dir: impl Into<Place>, ulid: Ulid) -> Result<Arc<Self>, StorageError> {
        Self::open_as(dir.into(), |footer| {
            let mut meta = BlockMeta::new(ulid, i64::MAX, i64::MIN);
            meta.describe(footer);
            meta
        })
    }

    fn open_as(dir: Place, meta: impl FnOnce(&Footer) -> BlockMeta) -> Result<Arc<Self>, StorageError> {
        let path = dir.join(BLOCK_FILE);
        let bytes = path.map()?;
        let footer = Footer::read(&bytes).map_err(|e| StorageError::Corrupt {
            path: path.display().to_string(),
            offset: bytes.len() as u64,
            message: e.to_string(),
        })?;
        let pages = footer.parts[Part::Pages as usize].len as usize / PAGE_ENTRY_LEN;
        let tombstones = Tombstones::read(&dir)?;
        Ok(Arc::new(Self {
            dir,
            path,
            meta: meta(&footer),
            bytes,
            footer,
            parts: Default::default(),
            data_pages: (0..pages).map(|_| AtomicU8::new(UNKNOWN)).collect(),
            columns: Mutex::default(),
            tombstones: RwLock::new(Arc::new(tombstones)),
        }))
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Place {
        &self.dir
    }

    /// Its meta data.
    #[must_use]
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// What the end of the file says.
    #[must_use]
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Bytes of the block file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The deletions as of now.
    #[must_use]
    pub fn tombstones(&self) -> Arc<Tombstones> {
        Arc::clone(&self.tombstones.read())
    }

    /// Hides the samples in `[min_t_ms, max_t_ms]` of the series that satisfy all matchers, at once and durably.
    pub fn delete(&self, min_t_ms: i64, max_t_ms: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        let mut current = self.tombstones.write();
        let mut next = (**current).clone();
        next.add(min_t_ms, max_t_ms, matchers);
        next.write(&self.dir)?;
        *current = Arc::new(next);
        Ok(())
    }

    /// An error of this file at the start of a part.
    pub(super) fn corrupt(&self, part: Part, error: DecodeError) -> StorageError {
        StorageError::Corrupt {
            path: self.path.display().to_string(),
            offset: self.footer.parts[part as usize].offset,
            message: format!("{}: {error}", PART_NAMES[part as usize]),
        }
    }

    /// The bytes of a part, unchecked: for parts whose pieces have their own checksums.
    pub(super) fn raw_part(&self, part: Part) -> &[u8] {
        let extent = self.footer.parts[part as usize];
        let start = extent.offset as usize;
        self.bytes.get(start..start + extent.len as usize).unwrap_or_default()
    }

    /// The bytes of a part after its checksum was compared, which happens once.
    pub(super) fn part(&self, part: Part) -> Result<&[u8], StorageError> {
        let bytes = self.raw_part(part);
        let state = &self.parts[part as usize];
        if state.load(Ordering::Relaxed) == UNKNOWN {
            let good = crc32fast::hash(bytes) == self.footer.parts[part as usize].crc;
            state.store(if good { GOOD } else { BAD }, Ordering::Relaxed);
        }
        if state.load(Ordering::Relaxed) == GOOD {
            Ok(bytes)
        } else {
            Err(self.corrupt(part, DecodeError("checksum does not match")))
        }
    }

    pub(super) fn symbols(&self) -> Result<Symbols<'_>, StorageError> {
        Symbols::open(self.part(Part::Symbols)?).map_err(|e| self.corrupt(Part::Symbols, e))
    }

    /// Number of pages.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.data_pages.len() as u32
    }

    pub(super) fn page(&self, number: u32) -> Result<PageEntry, StorageError> {
        let entry = self.part(Part::Pages)?.get(number as usize * PAGE_ENTRY_LEN..).unwrap_or_default();
        PageEntry::read(&mut Input::new(entry)).map_err(|e| self.corrupt(Part::Pages, e))
    }

    /// The page that holds a series.
    pub(super) fn page_of(&self, series: u32) -> Result<u32, StorageError> {
        let (mut low, mut high) = (0, self.page_count());
        while low < high {
            let middle = u32::midpoint(low, high);
            if self.page(middle)?.first_series <= series { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).ok_or_else(|| self.corrupt(Part::Pages, DecodeError("no page for a series")))
    }

    /// Adds the series of a page to `out`, `wanted` ones only (ascending numbers). On error nothing is added.
    pub(super) fn list_page(
        &self,
        number: u32,
        wanted: Option<&[u32]>,
        out: &mut SeriesList,
    ) -> Result<(), StorageError> {
        let entry = self.page(number)?;
        let bytes = slice_of(self.raw_part(Part::Series), entry.series.offset, entry.series.len)
            .filter(|b| crc32fast::hash(b) == entry.series.crc)
            .ok_or_else(|| self.corrupt(Part::Series, DecodeError("checksum of a page does not match")))?;
        let symbols = self.symbols()?;
        let before = out.len();
        let mut page = PAGE.take();
        let mut list = || -> Result<(), DecodeError> {
            page.decode(bytes)?;
            for i in 0..page.len() {
                let id = entry.first_series + i as u32;
                if wanted.is_none_or(|w| w.binary_search(&id).is_ok()) {
                    out.add(number, page.labels(i), page.chunks(i), &|symbol| symbols.get(symbol))?;
                }
            }
            Ok(())
        };
        let listed = list();
        PAGE.set(page);
        listed.map_err(|e| {
            out.truncate(before);
            self.corrupt(Part::Series, e)
        })
    }

    /// A timestamp column.
    pub(super) fn column(&self, number: u32) -> Result<Arc<Vec<i64>>, StorageError> {
        if let Some(column) = self.columns.lock().get(&number) {
            return Ok(Arc::clone(column));
        }
        let directory = self.part(Part::TimePages)?;
        let column = times::read(self.raw_part(Part::Times), directory, number)
            .map_err(|e| self.corrupt(Part::Times, e))?;
        let column = Arc::new(column);
        let mut cache = self.columns.lock();
        if cache.len() >= CACHED_COLUMNS {
            cache.clear();
        }
        cache.insert(number, Arc::clone(&column));
        Ok(column)
    }

    /// The samples of a page after its checksum was compared, which happens once.
    pub(super) fn data_page(&self, number: u32) -> Result<&[u8], StorageError> {
        let entry = self.page(number)?;
        let bad = || self.corrupt(Part::Data, DecodeError("checksum of a page does not match"));
        let bytes = slice_of(self.raw_part(Part::Data), entry.data.offset, entry.data.len).ok_or_else(bad)?;
        let state = self.data_pages.get(number as usize).ok_or_else(bad)?;
        if state.load(Ordering::Relaxed) == UNKNOWN {
            let good = crc32fast::hash(bytes) == entry.data.crc;
            state.store(if good { GOOD } else { BAD }, Ordering::Relaxed);
        }
        if state.load(Ordering::Relaxed) == GOOD { Ok(bytes) } else { Err(bad()) }
    }

    /// Replaces the content of `out` by the samples of the chunks of series `i` that overlap `[min_t_ms, max_t_ms]`
    /// (whole chunks; deletions are not applied). Chunks that are damaged are left out; what was wrong is
    /// appended to `warnings`.
    pub fn read_columns(
        &self,
        (list, i): (&SeriesList, usize),
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SeriesColumns,
        warnings: &mut Vec<String>,
    ) {
        out.clear();
        let mut decoded = DECODED.take();
        for chunk in list.chunks(i) {
            if let Err(e) = self.read_chunk(list.page(i), chunk, (min_t_ms, max_t_ms), &mut decoded, out) {
                warnings.push(format!("samples of {} were left out: {e}", list.labels(i)));
            }
        }
        DECODED.set(decoded);
    }

    /// Replaces the content of `out` by the samples of series `i` in `[min_t_ms, max_t_ms]`, deletions not applied, if
    /// they are floats without start timestamps and all is well: answers false otherwise. With `presence_alone` all
    /// values but staleness markers are 0.
    pub fn read_floats(
        &self,
        (list, i): (&SeriesList, usize),
        (min_t_ms, max_t_ms): (i64, i64),
        presence_alone: bool,
        out: &mut SampleBuffer,
    ) -> bool {
        out.clear();
        let (page, chunks) = (list.page(i), list.chunks(i));
        if chunks.iter().any(|chunk| chunk.kind != ChunkKind::Float || chunk.has_starts) {
            return false;
        }
        let mut decoded = DECODED.take();
        let mut read = |chunk: &ChunkRef| -> Result<(), StorageError> {
            let column = self.column(chunk.time_column)?;
            let timestamps = self.timestamps_of(&column, chunk)?;
            let from = timestamps.partition_point(|t| *t < min_t_ms);
            let to = timestamps.partition_point(|t| *t <= max_t_ms);
            let Some(wanted) = timestamps.get(from..to).filter(|wanted| !wanted.is_empty()) else {
                return Ok(());
            };
            let payload = self.payload_of(page, chunk)?;
            let n = timestamps.len();
            if presence_alone {
                decoded.read_presence(payload, n)
            } else {
                decoded.read(payload, chunk.kind, false, n)
            }
            .map_err(|e| self.corrupt(Part::Data, e))?;
            if out.timestamps.last().is_some_and(|last| *last >= wanted[0]) {
                return Err(self.corrupt(Part::Data, DecodeError("chunks of a series overlap")));
            }
            out.timestamps.extend_from_slice(wanted);
            out.values.extend_from_slice(&decoded.values[from..to]);
            Ok(())
        };
        let all_well = chunks.iter().try_for_each(&mut read).is_ok();
        DECODED.set(decoded);
        all_well
    }

    /// The timestamps of a chunk, out of its column.
    fn timestamps_of<'c>(&self, column: &'c [i64], chunk: &ChunkRef) -> Result<&'c [i64], StorageError> {
        let Some((from, len)) = chunk.slice else { return Ok(column) };
        slice_of(column, u64::from(from), u64::from(len)).ok_or_else(|| {
            self.corrupt(Part::Data, DecodeError("chunk refers to timestamps that do not exist"))
        })
    }

    /// The bytes of a chunk.
    fn payload_of(&self, page: u32, chunk: &ChunkRef) -> Result<&[u8], StorageError> {
        slice_of(self.data_page(page)?, u64::from(chunk.offset), u64::from(chunk.len))
            .ok_or_else(|| self.corrupt(Part::Data, DecodeError("chunk lies outside its page")))
    }

    fn read_chunk(
        &self,
        page: u32,
        chunk: &ChunkRef,
        range: (i64, i64),
        decoded: &mut Decoded,
        out: &mut SeriesColumns,
    ) -> Result<(), StorageError> {
        let column = self.column(chunk.time_column)?;
        let bad = |text| self.corrupt(Part::Data, DecodeError(text));
        let timestamps = self.timestamps_of(&column, chunk)?;
        let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) else { return Ok(()) };
        if *last < range.0 || *first > range.1 {
            return Ok(());
        }
        let payload = self.payload_of(page, chunk)?;
        decoded
            .read(payload, chunk.kind, chunk.has_starts, timestamps.len())
            .map_err(|e| self.corrupt(Part::Data, e))?;
        let after = match chunk.kind {
            ChunkKind::Float => out.timestamps.last().copied(),
            _ => out.histograms.last().map(|(t, _)| *t),
        };
        if after.is_some_and(|t| t >= *first) {
            return Err(bad("chunks of a series overlap"));
        }
        let start = |i: usize| decoded.starts.get(i).copied().unwrap_or(0);
        if chunk.kind == ChunkKind::Float {
            if decoded.starts.is_empty() && out.float_start_ts.is_empty() {
                out.timestamps.extend_from_slice(timestamps);
                out.values.extend_from_slice(&decoded.values);
            } else {
                for (i, (t, v)) in timestamps.iter().zip(&decoded.values).enumerate() {
                    out.push_float(*t, start(i), *v);
                }
            }
        } else {
            let histograms = std::mem::take(&mut decoded.histograms);
            for (i, (t, h)) in timestamps.iter().zip(histograms).enumerate() {
                out.push_histogram(*t, start(i), h);
            }
        }
        Ok(())
    }

    /// Reads the whole file and compares every checksum; the first difference is an error.
    pub fn verify(&self) -> Result<(), StorageError> {
        let footer = &self.footer;
        for (part, extent) in footer.parts.iter().enumerate() {
            let bytes = slice_of(&self.bytes, extent.offset, extent.len).unwrap_or_default();
            if bytes.len() as u64 != extent.len || crc32fast::hash(bytes) != extent.crc {
                return Err(StorageError::Corrupt {
                    path: self.path.display().to_string(),
                    offset: extent.offset,
                    message: format!("{}: checksum does not match", PART_NAMES[part]),
                });
            }
        }
        Ok(())
    }
}

fn slice_of<T>(all: &[T], offset: u64, len: u64) -> Option<&[T]> {
    let (start, len) = (usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
    all.get(start..start.checked_add(len)?)
}

/// Reads back a block that was just written: its description, footer, every checksum, and that directories, series pages
/// and timestamp columns decode.
pub(super) fn verify_dir(dir: &Place, meta: &BlockMeta) -> Result<(), StorageError> {
    let block = Block::open(dir)?;
    if block.meta() != meta {
        return Err(StorageError::Corrupt {
            path: dir.join(META_FILE).path().display().to_string(),
            offset: 0,
            message: "is not what was written".into(),
        });
    }
    block.verify()?;
    let (mut series, mut count) = (SeriesList::default(), 0u64);
    for number in 0..block.page_count() {
        series.clear();
        block.list_page(number, None, &mut series)?;
        block.data_page(number)?;
        count += series.len() as u64;
    }
    for number in 0..block.footer.time_columns {
        block.column(number)?;
    }
    if count != u64::from(block.footer.series) {
        return Err(block.corrupt(Part::Series, DecodeError("number of series differs from the footer")));
    }
    Ok(())
}
