//! How is a block of Prometheus opened and queried?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;

use crate::model::{Labels, MatchOp, Matcher, SampleBuffer};
use crate::tsdb::block::bytes::{DecodeError, Input, Result as Decode, put_varint, put_zigzag};
use crate::tsdb::block::querier::hide;
use crate::tsdb::block::{BlockMeta, SeriesColumns, SeriesSource};
use crate::tsdb::door::{LabelQueryHints, Querier, SelectHints, SeriesSet, StorageError};
use crate::tsdb::vfs::{FileBytes, Place};

use super::decode_chunk;
use super::index::{ChunkMeta, Index};

const CHUNKS_MAGIC: u32 = 0x85BD_40DD;
const TOMBSTONES_MAGIC: u32 = 0x0130_BA30;
const MAX_TOMBSTONES: u64 = 1 << 30;
const MAX_WARNINGS: usize = 20;

/// Deleted ranges by series number.
type Deletions = BTreeMap<u64, Vec<(i64, i64)>>;

/// An open block of Prometheus.
#[derive(Debug)]
pub struct PrometheusBlock {
    dir: Place,
    meta: BlockMeta,
    index_map: FileBytes,
    /// Read when first needed; the error stays.
    index: OnceLock<Result<Index, DecodeError>>,
    segments: Vec<FileBytes>,
    deletions: RwLock<Arc<Deletions>>,
}

impl PrometheusBlock {
    /// Opens the block in `dir`.
    pub fn open(dir: impl Into<Place>) -> Result<Arc<Self>, StorageError> {
        let dir = dir.into();
        let meta = BlockMeta::read(&dir)?;
        let index_map = dir.join("index").map()?;
        let chunks = dir.join("chunks");
        let names = chunks.list()?.into_iter().filter(|e| e.name.parse::<u64>().is_ok());
        let segments = names.map(|e| chunks.join(e.name).map()).collect::<Result<Vec<_>, _>>()?;
        let corrupt = |path: &Path, e: DecodeError| StorageError::Corrupt {
            path: path.display().to_string(),
            offset: 0,
            message: e.to_string(),
        };
        let path = dir.join("tombstones");
        let deletions = match path.read_small(MAX_TOMBSTONES)? {
            Some(bytes) => decode_tombstones(&bytes).map_err(|e| corrupt(&path, e))?,
            None => Deletions::new(),
        };
        let this = Self {
            dir,
            meta,
            index_map,
            index: OnceLock::new(),
            segments,
            deletions: RwLock::new(Arc::new(deletions)),
        };
        // Magic and table of contents now, the tables when they are needed.
        let file = &this.index_map;
        if Input::new(file).u32_be() != Ok(super::index::MAGIC) || file.len() < super::index::TOC_LEN {
            return Err(corrupt(&this.dir.join("index"), DecodeError("file does not begin as an index")));
        }
        Ok(Arc::new(this))
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

    /// Whether something was deleted from it.
    #[must_use]
    pub fn has_deletions(&self) -> bool {
        !self.deletions.read().is_empty()
    }

    fn corrupt(&self, error: DecodeError) -> StorageError {
        let path = self.dir.join("index").display().to_string();
        StorageError::Corrupt { path, offset: 0, message: error.to_string() }
    }

    fn index(&self) -> Result<&Index, StorageError> {
        let index = self.index.get_or_init(|| Index::open(&self.index_map));
        index.as_ref().map_err(|e| self.corrupt(*e))
    }

    fn union(&self, places: &[usize]) -> Result<RoaringBitmap, StorageError> {
        let mut all = RoaringBitmap::new();
        let mut ids = Vec::new();
        for place in places {
            ids.clear();
            Index::postings(&self.index_map, *place, &mut ids).map_err(|e| self.corrupt(e))?;
            all.extend(ids.iter().copied());
        }
        Ok(all)
    }

    /// Numbers of the series that satisfy all matchers, in order of labels.
    fn select_ids(&self, matchers: &[Matcher]) -> Result<Vec<u32>, StorageError> {
        let (index, file) = (self.index()?, &self.index_map[..]);
        let mut ids: Option<RoaringBitmap> = None;
        let mut taken = RoaringBitmap::new();
        for matcher in matchers {
            let needs_value = !matcher.matches_empty();
            let places: Vec<usize> = if needs_value && matcher.op == MatchOp::Equal {
                index.find(file, &matcher.name, &matcher.value).into_iter().collect()
            } else {
                index
                    .values(file, &matcher.name)
                    .filter(|(value, _)| matcher.matches(value) == needs_value)
                    .map(|(_, place)| place)
                    .collect()
            };
            let set = self.union(&places)?;
            match (&mut ids, needs_value) {
                (_, false) => taken |= set,
                (None, true) => ids = Some(set),
                (Some(ids), true) => *ids &= set,
            }
        }
        let ids = match ids {
            Some(ids) => ids,
            None => {
                let all = index.find(file, "", "").ok_or(DecodeError("list of all series is missing"));
                self.union(&[all.map_err(|e| self.corrupt(e))?])?
            }
        };
        Ok((ids - taken).into_iter().collect())
    }

    fn series(&self, id: u32) -> Result<(Labels, Vec<ChunkMeta>), StorageError> {
        let (labels, chunks) = self.index()?.series(&self.index_map, id).map_err(|e| self.corrupt(e))?;
        Ok((Labels::from_pairs(labels), chunks))
    }

    fn read_chunk(&self, reference: u64, out: &mut SeriesColumns) -> Decode<()> {
        let segment = usize::try_from(reference >> 32).ok().and_then(|i| self.segments.get(i));
        let file = segment.ok_or(DecodeError("chunk segment is missing"))?;
        if Input::new(file).u32_be()? != CHUNKS_MAGIC {
            return Err(DecodeError("file does not begin as a chunk segment"));
        }
        let at = (reference & 0xffff_ffff) as usize;
        let mut input = Input::new(file.get(at..).ok_or(DecodeError("chunk lies outside its segment"))?);
        let len = input.count(input.len())?;
        let body = input.bytes(len + 1)?;
        if crc32c::crc32c(body) != input.u32_be()? {
            return Err(DecodeError("checksum of a chunk does not match"));
        }
        let (encoding, data) = body.split_first().ok_or(DecodeError("chunk is empty"))?;
        decode_chunk(*encoding, data, out)
    }

    /// Replaces the content of `out` by the samples of the chunks that overlap the range, without the deleted ones.
    fn read_columns(
        &self,
        entry: &Entry,
        range: (i64, i64),
        deletions: &Deletions,
        out: &mut SeriesColumns,
        warnings: &mut Vec<String>,
    ) {
        out.clear();
        for chunk in entry.chunks.iter().filter(|c| c.min_t_ms <= range.1 && c.max_t_ms >= range.0) {
            if let Err(e) = self.read_chunk(chunk.reference, out) {
                let dir = self.dir.display();
                warnings.push(format!("samples of {} in {dir} were left out: {e}", entry.labels));
            }
        }
        if let Some(ranges) = deletions.get(&u64::from(entry.id)) {
            hide(out, ranges);
        }
    }

    /// Hides samples at once and durably.
    pub fn delete(&self, min_t_ms: i64, max_t_ms: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        let ids = self.select_ids(matchers)?;
        let mut current = self.deletions.write();
        let mut next = (**current).clone();
        for id in ids {
            let ranges = next.entry(u64::from(id)).or_default();
            if !ranges.contains(&(min_t_ms, max_t_ms)) {
                ranges.push((min_t_ms, max_t_ms));
            }
        }
        self.dir.join("tombstones").write_atomically(&encode_tombstones(&next))?;
        *current = Arc::new(next);
        Ok(())
    }
}

fn decode_tombstones(bytes: &[u8]) -> Decode<Deletions> {
    let mut input = Input::new(bytes);
    if input.u32_be()? != TOMBSTONES_MAGIC {
        return Err(DecodeError("file does not begin as tombstones"));
    }
    let len = input.len().checked_sub(4).ok_or(DecodeError("file is too short"))?;
    let body = input.bytes(len)?;
    let mut body = Input::new(body);
    if body.u8()? != 1 {
        return Err(DecodeError("tombstones have a version that this program does not read"));
    }
    // The version byte is not part of the checksum.
    if crc32c::crc32c(body.rest()) != input.u32_be()? {
        return Err(DecodeError("checksum does not match"));
    }
    let mut all = Deletions::new();
    while !body.is_empty() {
        let id = body.varint()?;
        all.entry(id).or_default().push((body.zigzag()?, body.zigzag()?));
    }
    Ok(all)
}

pub(super) fn encode_tombstones(all: &Deletions) -> Vec<u8> {
    let mut body = Vec::new();
    for (id, ranges) in all {
        for (min, max) in ranges {
            put_varint(&mut body, *id);
            put_zigzag(&mut body, *min);
            put_zigzag(&mut body, *max);
        }
    }
    let mut out = TOMBSTONES_MAGIC.to_be_bytes().to_vec();
    out.push(1);
    out.extend_from_slice(&body);
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out
}

#[derive(Debug, Clone)]
struct Entry {
    id: u32,
    labels: Labels,
    chunks: Vec<ChunkMeta>,
}

/// A view of a Prometheus block in a time range.
#[derive(Debug)]
pub struct PrometheusQuerier {
    block: Arc<PrometheusBlock>,
    deletions: Arc<Deletions>,
    min_t_ms: i64,
    max_t_ms: i64,
}

impl PrometheusQuerier {
    /// A view of `[min_t_ms, max_t_ms]`.
    #[must_use]
    pub fn new(block: Arc<PrometheusBlock>, min_t_ms: i64, max_t_ms: i64) -> Self {
        let deletions = Arc::clone(&block.deletions.read());
        Self { block, deletions, min_t_ms, max_t_ms }
    }

    fn entries(&self, matchers: &[Matcher]) -> Result<(Vec<Entry>, Vec<String>), StorageError> {
        let (mut entries, mut warnings) = (Vec::new(), Vec::new());
        for id in self.block.select_ids(matchers)? {
            match self.block.series(id) {
                Ok((labels, chunks)) => {
                    if chunks.iter().any(|c| c.min_t_ms <= self.max_t_ms && c.max_t_ms >= self.min_t_ms) {
                        entries.push(Entry { id, labels, chunks });
                    }
                }
                Err(e) if warnings.len() < MAX_WARNINGS => {
                    warnings.push(format!("a series was left out: {e}"))
                }
                Err(_) => {}
            }
        }
        Ok((entries, warnings))
    }
}

impl Querier for PrometheusQuerier {
    fn select(&self, _: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let (entries, warnings) = self.entries(matchers)?;
        Ok(Box::new(PrometheusSeriesSet {
            block: Arc::clone(&self.block),
            deletions: Arc::clone(&self.deletions),
            entries,
            range: (self.min_t_ms, self.max_t_ms),
            warnings: Mutex::new(warnings),
        }))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let mut names: Vec<String> = if matchers.is_empty() {
            self.block.index()?.names().map(str::to_owned).collect()
        } else {
            let (entries, _) = self.entries(matchers)?;
            let names: BTreeSet<String> =
                entries.iter().flat_map(|e| e.labels.iter().map(|l| l.name.to_owned())).collect();
            names.into_iter().collect()
        };
        if hints.limit > 0 {
            names.truncate(hints.limit);
        }
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        let limit = if hints.limit == 0 { usize::MAX } else { hints.limit };
        let (index, file) = (self.block.index()?, &self.block.index_map[..]);
        if name.is_empty() {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return Ok(index.values(file, name).take(limit).map(|(v, _)| v.to_owned()).collect());
        }
        let ids: RoaringBitmap = self.block.select_ids(matchers)?.into_iter().collect();
        let mut out = Vec::new();
        for (value, place) in index.values(file, name) {
            if out.len() == limit {
                break;
            }
            if !self.block.union(&[place])?.is_disjoint(&ids) {
                out.push(value.to_owned());
            }
        }
        Ok(out)
    }
}

struct PrometheusSeriesSet {
    block: Arc<PrometheusBlock>,
    deletions: Arc<Deletions>,
    entries: Vec<Entry>,
    range: (i64, i64),
    warnings: Mutex<Vec<String>>,
}

impl SeriesSet for PrometheusSeriesSet {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.entries.get(i).map(|e| e.labels.clone()).unwrap_or_default()
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        out.clear();
        let Some(entry) = self.entries.get(i) else { return Ok(()) };
        let range = (min_t_ms.max(self.range.0), max_t_ms.min(self.range.1));
        let (mut columns, mut warnings) = (SeriesColumns::default(), Vec::new());
        self.block.read_columns(entry, range, &self.deletions, &mut columns, &mut warnings);
        if !warnings.is_empty() {
            let mut all = self.warnings.lock();
            warnings.retain(|w| !all.contains(w));
            let room = MAX_WARNINGS.saturating_sub(all.len());
            all.extend(warnings.into_iter().take(room));
        }
        columns.copy_into(range.0, range.1, out);
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

/// All series of a Prometheus block in order, deletions applied.
#[derive(Debug)]
pub struct PrometheusSource {
    block: Arc<PrometheusBlock>,
    deletions: Arc<Deletions>,
    ids: Option<std::vec::IntoIter<u32>>,
    /// What was left out because it is damaged.
    pub warnings: Vec<String>,
}

impl PrometheusSource {
    /// A walk over `block`.
    #[must_use]
    pub fn new(block: Arc<PrometheusBlock>) -> Self {
        let deletions = Arc::clone(&block.deletions.read());
        Self { block, deletions, ids: None, warnings: Vec::new() }
    }
}

impl SeriesSource for PrometheusSource {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        if self.ids.is_none() {
            self.ids = Some(self.block.select_ids(&[])?.into_iter());
        }
        while let Some(id) = self.ids.as_mut().and_then(Iterator::next) {
            match self.block.series(id) {
                Err(e) => self.warnings.push(format!("a series was left out: {e}")),
                Ok((labels, chunks)) => {
                    let entry = Entry { id, labels, chunks };
                    let range = (i64::MIN, i64::MAX);
                    self.block.read_columns(&entry, range, &self.deletions, out, &mut self.warnings);
                    return Ok(Some(entry.labels));
                }
            }
        }
        Ok(None)
    }
}
