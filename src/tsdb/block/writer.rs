//! How does a block come to be? Series stream in, in order of labels; pages of samples stream out; symbols,
//! postings and page directories are kept (compressed) until the end. Memory is O(series + label pairs), never
//! O(samples). Each chunk is decoded again right after it was encoded: what does not return bit for bit is never
//! written.

use std::collections::HashMap;

use crate::model::Labels;
use crate::tsdb::StorageError;
use crate::tsdb::vfs::Place;
use crate::tsdb::vfs::place::NewFile;

use super::bytes::{Input, put_varint};
use super::chunk::{self, Decoded};
use super::format::{
    BLOCK_FILE, CHUNK_SAMPLES, ChunkKind, ChunkRef, Extent, FOOT_MAGIC, Footer, HEAD_MAGIC, HEADER_LEN,
    PAGE_BYTES, PAGE_ENTRY_LEN, PAGE_SERIES, PageEntry, Part, TRAILER_LEN, VERSION,
};
use super::meta::BlockMeta;
use super::source::{SeriesColumns, SeriesSource};
use super::times::TimeWriter;
use super::values::Codec;
use super::{histograms, page, postings, symbols};

/// Directories with this end are unfinished blocks; they are removed at start.
pub const TEMP_SUFFIX: &str = ".tmp-for-creation";

/// What a written block consists of, for reports.
#[derive(Debug, Clone, Default)]
pub struct WriteReport {
    /// The footer of the file.
    pub footer: Footer,
    /// Bytes of the file.
    pub file_len: u64,
    /// Samples and bytes of float chunks by codec.
    pub by_codec: [(u64, u64); Codec::ALL.len()],
}

/// A cancellation probe: answers true when the caller wants out.
pub type Cancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// Writes one block below `data_dir`: into a temporary directory that is renamed when everything is synced and
/// was read back. `meta` gives ULID, sources and level; times and counts are filled in. Returns the finished
/// directory, or `None` when the source had no sample (nothing is left behind then).
pub fn write_block(
    data_dir: impl Into<Place>,
    mut meta: BlockMeta,
    source: &mut dyn SeriesSource,
    cancelled: Cancelled<'_>,
) -> Result<Option<(Place, BlockMeta, WriteReport)>, StorageError> {
    let data_dir = data_dir.into();
    let name = meta.ulid.to_string();
    let temp = data_dir.join(format!("{name}{TEMP_SUFFIX}"));
    let guard = temp.temporary_dir()?;
    let path = temp.join(BLOCK_FILE);
    let report = {
        let mut writer = BlockWriter::create(&path)?;
        let mut columns = SeriesColumns::default();
        while let Some(labels) = source.next_series(&mut columns)? {
            if cancelled() {
                return Err(StorageError::Canceled);
            }
            writer.add(&labels, &columns)?;
        }
        if writer.series == 0 {
            return Ok(None);
        }
        writer.finish()?
    };
    meta.describe(&report.footer);
    meta.write(&temp)?;
    temp.sync_dir()?;
    super::reader::verify_dir(&temp, &meta)?;
    let finished = data_dir.join(&name);
    temp.rename(&finished)?;
    guard.keep();
    data_dir.sync_dir()?;
    Ok(Some((finished, meta, report)))
}

/// A posting list that grows: differences as varints.
#[derive(Default)]
struct Growing {
    last: u32,
    count: u32,
    bytes: Vec<u8>,
}

impl Growing {
    fn push(&mut self, id: u32) {
        put_varint(&mut self.bytes, u64::from(id - self.last));
        self.last = id;
        self.count += 1;
    }

    fn ids(&self) -> Vec<u32> {
        let mut input = Input::new(&self.bytes);
        let mut last = 0;
        (0..self.count)
            .map(|_| {
                last += input.varint32().unwrap_or(0);
                last
            })
            .collect()
    }
}

/// Writes the file of a block.
struct BlockWriter {
    path: Place,
    file: NewFile,
    written: u64,
    crc: crc32fast::Hasher,
    footer: Footer,
    series: u32,
    last_labels: Option<Labels>,
    /// Strings by their provisional number, in order of appearance.
    provisional: HashMap<Box<str>, u32>,
    pairs: HashMap<(u32, u32), Growing>,
    times: TimeWriter,
    /// Series of finished pages with provisional symbols; pages are encoded when the symbols are known.
    entries: Vec<u8>,
    pages: Vec<PageEntry>,
    page: PageEntry,
    page_series: usize,
    data: Vec<u8>,
    data_written: u64,
    by_codec: [(u64, u64); Codec::ALL.len()],
    decoded: Decoded,
}

impl BlockWriter {
    fn create(path: &Place) -> Result<Self, StorageError> {
        let mut this = Self {
            path: path.clone(),
            file: path.create()?,
            written: 0,
            crc: crc32fast::Hasher::new(),
            footer: Footer { min_t_ms: i64::MAX, max_t_ms: i64::MIN, ..Footer::default() },
            series: 0,
            last_labels: None,
            provisional: HashMap::new(),
            pairs: HashMap::new(),
            times: TimeWriter::default(),
            entries: Vec::new(),
            pages: Vec::new(),
            page: fresh_page(0),
            page_series: 0,
            data: Vec::new(),
            data_written: 0,
            by_codec: Default::default(),
            decoded: Decoded::default(),
        };
        let mut header = HEAD_MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        this.put(&header)?;
        this.crc = crc32fast::Hasher::new();
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.put(bytes)?;
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn refuse(&self, message: String) -> StorageError {
        StorageError::Corrupt { path: self.path.display().to_string(), offset: self.written, message }
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(id) = self.provisional.get(text) {
            return *id;
        }
        let id = self.provisional.len() as u32;
        self.provisional.insert(text.into(), id);
        id
    }

    fn add(&mut self, labels: &Labels, columns: &SeriesColumns) -> Result<(), StorageError> {
        let Some((first, last)) = columns.range() else { return Ok(()) };
        if self.last_labels.as_ref().is_some_and(|l| l >= labels) {
            return Err(self.refuse(format!("series {labels} does not come after the one before it")));
        }
        if self.series >= 1 << 31 {
            return Err(self.refuse("more than 2147483648 series in one block".into()));
        }
        self.last_labels = Some(labels.clone());
        let mut chunks = Vec::new();
        self.float_chunks(columns, &mut chunks)?;
        self.histogram_chunks(columns, &mut chunks)?;
        self.page.min_t_ms = self.page.min_t_ms.min(first);
        self.page.max_t_ms = self.page.max_t_ms.max(last);
        self.footer.chunks += chunks.len() as u64;
        self.footer.float_samples += columns.timestamps.len() as u64;
        self.footer.histogram_samples += columns.histograms.len() as u64;
        let mut entry = std::mem::take(&mut self.entries);
        put_varint(&mut entry, labels.len() as u64);
        for label in labels.iter() {
            let (name, value) = (self.symbol(label.name), self.symbol(label.value));
            put_varint(&mut entry, u64::from(name));
            put_varint(&mut entry, u64::from(value));
            self.pairs.entry((name, value)).or_default().push(self.series);
        }
        page::put_chunks(&chunks, &mut entry);
        self.entries = entry;
        self.series += 1;
        self.page_series += 1;
        if self.page_series == PAGE_SERIES || self.data.len() >= PAGE_BYTES {
            self.close_page()?;
        }
        Ok(())
    }

    fn float_chunks(
        &mut self,
        columns: &SeriesColumns,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), StorageError> {
        for (i, timestamps) in columns.timestamps.chunks(CHUNK_SAMPLES).enumerate() {
            let range = i * CHUNK_SAMPLES..i * CHUNK_SAMPLES + timestamps.len();
            let starts = columns.float_start_ts.get(range.clone()).filter(|s| s.iter().any(|s| *s != 0));
            let samples = &columns.values[range];
            let at = self.data.len();
            let codec = chunk::encode_floats(samples, starts.unwrap_or_default(), &mut self.data);
            let chunk = self.chunk_ref(timestamps, ChunkKind::Float, starts.is_some(), at)?;
            let same = self.decoded.values.len() == samples.len()
                && self.decoded.values.iter().zip(samples).all(|(a, b)| a.to_bits() == b.to_bits());
            if !same || self.decoded.starts != starts.unwrap_or_default() {
                return Err(self.refuse("a chunk did not survive its encoding".into()));
            }
            let (count, bytes) = &mut self.by_codec[codec as usize];
            *count += samples.len() as u64;
            *bytes += u64::from(chunk.len);
            chunks.push(chunk);
        }
        Ok(())
    }

    fn histogram_chunks(
        &mut self,
        columns: &SeriesColumns,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), StorageError> {
        let mut from = 0;
        while let Some((_, first)) = columns.histograms.get(from) {
            let integers = matches!(first, crate::model::sample::HistogramValue::Integer(_));
            let rest = &columns.histograms[from..];
            let len = rest
                .iter()
                .take(CHUNK_SAMPLES)
                .take_while(|(_, h)| {
                    matches!(h, crate::model::sample::HistogramValue::Integer(_)) == integers
                })
                .count();
            let samples = &rest[..len];
            debug_assert!(histograms::is_uniform(samples, integers));
            let starts =
                columns.histogram_start_ts.get(from..from + len).filter(|s| s.iter().any(|s| *s != 0));
            let at = self.data.len();
            chunk::encode_histograms(samples, starts.unwrap_or_default(), integers, &mut self.data);
            let kind = if integers { ChunkKind::IntegerHistogram } else { ChunkKind::FloatHistogram };
            let timestamps: Vec<i64> = samples.iter().map(|(t, _)| *t).collect();
            let chunk = self.chunk_ref(&timestamps, kind, starts.is_some(), at)?;
            let same = self.decoded.histograms.len() == len
                && self.decoded.histograms.iter().zip(samples).all(|(a, (_, b))| histograms::same_bits(a, b));
            if !same || self.decoded.starts != starts.unwrap_or_default() {
                return Err(self.refuse("a chunk did not survive its encoding".into()));
            }
            chunks.push(chunk);
            from += len;
        }
        Ok(())
    }

    /// Describes the payload that begins at `at` and decodes it for the comparison.
    fn chunk_ref(
        &mut self,
        timestamps: &[i64],
        kind: ChunkKind,
        has_starts: bool,
        at: usize,
    ) -> Result<ChunkRef, StorageError> {
        if timestamps.windows(2).any(|w| w[0] >= w[1]) {
            return Err(self.refuse("timestamps of a series do not ascend".into()));
        }
        let read = self.decoded.read(&self.data[at..], kind, has_starts, timestamps.len());
        read.map_err(|e| self.refuse(format!("a chunk did not survive its encoding: {e}")))?;
        let (time_column, slice) = self.times.number(timestamps);
        let (Ok(offset), Ok(len)) = (u32::try_from(at), u32::try_from(self.data.len() - at)) else {
            return Err(self.refuse("a page of samples is above 4 GiB".into()));
        };
        Ok(ChunkRef { kind, has_starts, time_column, slice, offset, len })
    }

    fn close_page(&mut self) -> Result<(), StorageError> {
        if self.page_series == 0 {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        self.page.data =
            Extent { offset: self.data_written, len: data.len() as u64, crc: crc32fast::hash(&data) };
        self.put(&data)?;
        self.data_written += data.len() as u64;
        self.data = data;
        self.data.clear();
        self.footer.min_t_ms = self.footer.min_t_ms.min(self.page.min_t_ms);
        self.footer.max_t_ms = self.footer.max_t_ms.max(self.page.max_t_ms);
        self.pages.push(std::mem::replace(&mut self.page, fresh_page(self.series)));
        self.page_series = 0;
        Ok(())
    }

    /// Ends a part: its extent reaches from `start` to here.
    fn end_part(&mut self, part: Part, start: u64) {
        let crc = std::mem::take(&mut self.crc).finalize();
        self.footer.parts[part as usize] = Extent { offset: start, len: self.written - start, crc };
    }

    fn put_part(&mut self, part: Part, bytes: &[u8]) -> Result<(), StorageError> {
        let start = self.written;
        self.put(bytes)?;
        self.end_part(part, start);
        Ok(())
    }

    fn finish(mut self) -> Result<WriteReport, StorageError> {
        self.close_page()?;
        self.end_part(Part::Data, HEADER_LEN as u64);
        let (columns, time_pages, time_directory) = std::mem::take(&mut self.times).finish();
        self.footer.time_columns = columns;
        self.footer.series = self.series;
        self.put_part(Part::Times, &time_pages)?;

        let mut sorted: Vec<(&str, u32)> = self.provisional.iter().map(|(s, i)| (&**s, *i)).collect();
        sorted.sort_unstable();
        let mut number = vec![0u32; sorted.len()];
        for (new, (_, old)) in sorted.iter().enumerate() {
            number[*old as usize] = new as u32;
        }
        let symbol_part = symbols::encode(sorted.iter().map(|(s, _)| *s));
        drop(sorted);
        self.provisional = HashMap::new();

        self.series_pages(&number)?;
        let mut directory = Vec::with_capacity(self.pages.len() * PAGE_ENTRY_LEN);
        self.pages.iter().for_each(|p| p.write(&mut directory));
        self.put_part(Part::Pages, &directory)?;
        self.put_part(Part::TimePages, &time_directory)?;
        self.put_part(Part::Symbols, &symbol_part)?;
        self.label_parts(&number)?;

        let mut footer = Vec::new();
        self.footer.write(&mut footer);
        debug_assert!(footer.len() > TRAILER_LEN && footer.ends_with(FOOT_MAGIC));
        self.put(&footer)?;
        self.file.finish()?;
        Ok(WriteReport { footer: self.footer, file_len: self.written, by_codec: self.by_codec })
    }

    fn series_pages(&mut self, number: &[u32]) -> Result<(), StorageError> {
        let start = self.written;
        let entries = std::mem::take(&mut self.entries);
        let mut input = Input::new(&entries);
        let mut pages = std::mem::take(&mut self.pages);
        let broken = |e| StorageError::Corrupt { path: "memory".into(), offset: 0, message: format!("{e}") };
        for i in 0..pages.len() {
            let next = pages.get(i + 1).map_or(self.series, |p| p.first_series);
            let mut encoder = page::PageEncoder::default();
            for _ in pages[i].first_series..next {
                let count = input.count(usize::MAX).map_err(broken)?;
                let mut labels = Vec::with_capacity(count);
                for _ in 0..count {
                    let name = input.varint32().map_err(broken)?;
                    let value = input.varint32().map_err(broken)?;
                    labels.push((number[name as usize], number[value as usize]));
                }
                let mut chunks = Vec::new();
                page::take_chunks(&mut input, &mut chunks).map_err(broken)?;
                encoder.add(&labels, &chunks);
            }
            let bytes = encoder.finish();
            pages[i].series = Extent {
                offset: self.written - start,
                len: bytes.len() as u64,
                crc: crc32fast::hash(&bytes),
            };
            self.put(&bytes)?;
        }
        self.pages = pages;
        self.end_part(Part::Series, start);
        Ok(())
    }

    fn label_parts(&mut self, number: &[u32]) -> Result<(), StorageError> {
        let mut pairs: Vec<(u32, u32, Growing)> = std::mem::take(&mut self.pairs)
            .into_iter()
            .map(|((n, v), list)| (number[n as usize], number[v as usize], list))
            .collect();
        pairs.sort_unstable_by_key(|(n, v, _)| (*n, *v));
        let start = self.written;
        let (mut values, mut names) = (Vec::new(), Vec::new());
        let mut list = Vec::new();
        for group in pairs.chunk_by(|a, b| a.0 == b.0) {
            let values_start = values.len();
            for (_, value, ids) in group {
                let reference = if ids.count == 1 {
                    ids.last | page::INLINE_POSTING
                } else {
                    let at =
                        u32::try_from(self.written - start).ok().filter(|at| at & page::INLINE_POSTING == 0);
                    let Some(at) = at else { return Err(self.refuse("posting lists exceed 2 GiB".into())) };
                    list.clear();
                    postings::encode(&ids.ids(), &mut list);
                    self.put(&list)?;
                    at
                };
                values.extend_from_slice(&value.to_le_bytes());
                values.extend_from_slice(&reference.to_le_bytes());
            }
            names.extend_from_slice(&group[0].0.to_le_bytes());
            names.extend_from_slice(&(group.len() as u32).to_le_bytes());
            names.extend_from_slice(&(values_start as u64).to_le_bytes());
            names.extend_from_slice(&crc32fast::hash(&values[values_start..]).to_le_bytes());
        }
        self.end_part(Part::Postings, start);
        self.put_part(Part::Values, &values)?;
        self.put_part(Part::Names, &names)
    }
}

fn fresh_page(first_series: u32) -> PageEntry {
    PageEntry { first_series, min_t_ms: i64::MAX, max_t_ms: i64::MIN, ..PageEntry::default() }
}
