//! How do samples in any order become blocks with bounded memory? They gather in memory, go to small blocks on disk
//! whenever there are many, and in the end the small blocks of each range are merged into one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::Map;
use super::super::block::{BlockMeta, SeriesColumns, SeriesSource, new_ulid};
use super::super::compact::AnyBlock;
use super::super::compact::block_set::BlockWalk;
use super::super::compact::sources::MergedSource;
use super::super::door::StorageError;
use super::super::vfs::{RealVfs, Vfs, io_error};
use super::{BlockFormat, now_ms, write_one};
use crate::model::Labels;
use crate::model::sample::{HistogramValue, Value};

/// Samples in memory before they go to disk: some 24 bytes each.
const IN_MEMORY: usize = 8 << 20;
/// Shortest block, milliseconds.
pub const SHORTEST_MS: i64 = 2 * 3_600_000;
/// Longest block that is chosen without being asked for, milliseconds.
const LONGEST_MS: i64 = 81 * SHORTEST_MS;

/// The length of blocks for a time span: the shortest, three times as long, and so on up to `most_ms`.
#[must_use]
pub fn block_length(most_ms: i64) -> i64 {
    let mut length = SHORTEST_MS;
    while let Some(next) = length.checked_mul(3).filter(|next| *next <= most_ms) {
        length = next;
    }
    length
}

/// The length of blocks that are imported at once: the longest that leaves at least a few of them.
#[must_use]
pub fn block_length_for_span(min_t_ms: i64, max_t_ms: i64) -> i64 {
    block_length((max_t_ms.saturating_sub(min_t_ms) / 4).min(LONGEST_MS))
}

/// Gathers samples.
pub struct Gather {
    /// Where small blocks go.
    temporary: PathBuf,
    length_ms: i64,
    in_memory: usize,
    by_labels: Map<Labels, usize>,
    series: Vec<(Labels, Vec<(i64, i64, Value)>)>,
    samples: usize,
    /// Small blocks by number of range.
    runs: BTreeMap<i64, Vec<PathBuf>>,
    /// Samples taken so far.
    pub total: u64,
}

impl Gather {
    /// A gathering whose small blocks lie in `temporary`, which is created; `length_ms` is the length of its blocks.
    pub fn new(temporary: &Path, length_ms: i64) -> Result<Self, StorageError> {
        Self::with_memory(temporary, length_ms, IN_MEMORY)
    }

    pub(super) fn with_memory(
        temporary: &Path,
        length_ms: i64,
        in_memory: usize,
    ) -> Result<Self, StorageError> {
        RealVfs.create_dir_all(temporary).map_err(|e| io_error("create directory", temporary, &e))?;
        Ok(Self {
            temporary: temporary.to_owned(),
            length_ms: length_ms.max(1),
            in_memory,
            by_labels: Map::default(),
            series: Vec::new(),
            samples: 0,
            runs: BTreeMap::new(),
            total: 0,
        })
    }

    /// Takes a sample. Of two with one timestamp the later one stays.
    pub fn add(
        &mut self,
        labels: &Labels,
        t_ms: i64,
        start_ms: i64,
        value: Value,
    ) -> Result<(), StorageError> {
        let at = match self.by_labels.get(labels) {
            Some(at) => *at,
            None => {
                self.by_labels.insert(labels.clone(), self.series.len());
                self.series.push((labels.clone(), Vec::new()));
                self.series.len() - 1
            }
        };
        if let Some((_, samples)) = self.series.get_mut(at) {
            samples.push((t_ms, start_ms, value));
        }
        self.samples += 1;
        self.total += 1;
        if self.samples >= self.in_memory { self.spill() } else { Ok(()) }
    }

    /// Writes what is in memory into one block for each range.
    fn spill(&mut self) -> Result<(), StorageError> {
        let mut series = std::mem::take(&mut self.series);
        self.by_labels.clear();
        self.samples = 0;
        series.sort_by(|a, b| a.0.cmp(&b.0));
        let mut ranges: Vec<i64> = Vec::new();
        for (_, samples) in &mut series {
            // Stable, so that the later of equal ones comes last.
            samples.sort_by_key(|(t, ..)| *t);
            ranges.extend(samples.iter().map(|(t, ..)| t.div_euclid(self.length_ms)));
            ranges.sort_unstable();
            ranges.dedup();
        }
        for range in ranges {
            let (from, to) = (range * self.length_ms, (range + 1) * self.length_ms);
            let mut source = series.iter().filter_map(|(labels, samples)| {
                let begin = samples.partition_point(|(t, ..)| *t < from);
                let end = samples.partition_point(|(t, ..)| *t < to);
                (begin < end).then(|| (labels.clone(), columns(&samples[begin..end])))
            });
            let meta = BlockMeta::new(new_ulid(now_ms()), from, to);
            if let Some(meta) = write_one(&self.temporary, BlockFormat::Native, meta, &mut source, &|_| {})? {
                self.runs.entry(range).or_default().push(self.temporary.join(meta.ulid.to_string()));
            }
        }
        Ok(())
    }

    /// Writes the blocks below `to`. `progress` is told block and number of blocks.
    pub fn finish(
        mut self,
        to: &Path,
        format: BlockFormat,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Vec<BlockMeta>, StorageError> {
        if self.samples > 0 {
            self.spill()?;
        }
        let mut done = Vec::new();
        let all = self.runs.len();
        for (number, (range, runs)) in self.runs.iter().enumerate() {
            progress(number, all);
            let blocks: Vec<AnyBlock> =
                runs.iter().map(|dir| AnyBlock::open(dir.as_path())).collect::<Result<_, _>>()?;
            if let ([block], BlockFormat::Native) = (&blocks[..], format) {
                let target = to.join(block.meta().ulid.to_string());
                RealVfs.rename(block.dir().path(), &target).map_err(|e| io_error("rename", &target, &e))?;
                done.push(block.meta().clone());
                continue;
            }
            let mut walks: Vec<BlockWalk> = blocks.iter().map(AnyBlock::source).collect();
            let mut source =
                MergedSource::new(walks.iter_mut().map(|w| w as &mut dyn SeriesSource).collect());
            let (from, to_t) = (range * self.length_ms, (range + 1) * self.length_ms);
            let meta = BlockMeta::new(new_ulid(now_ms()), from, to_t);
            done.extend(write_one(to, format, meta, &mut source, &|_| {})?);
            if let Some(warning) = walks.iter().find_map(|walk| walk.warnings().first()) {
                return Err(StorageError::NotReady(format!(
                    "a block did not survive its writing: {warning}"
                )));
            }
        }
        RealVfs.remove_dir_all(&self.temporary).map_err(|e| io_error("remove", &self.temporary, &e))?;
        Ok(done)
    }
}

/// Samples in order of time, as columns; of equal timestamps the last one stays.
fn columns(samples: &[(i64, i64, Value)]) -> SeriesColumns {
    let mut out = SeriesColumns::default();
    for (i, (t, start, value)) in samples.iter().enumerate() {
        if samples.get(i + 1).is_some_and(|next| next.0 == *t) {
            continue;
        }
        match value {
            Value::Float(v) => out.push_float(*t, *start, *v),
            Value::Histogram(h) => out.push_histogram(*t, *start, HistogramValue::clone(h)),
        }
    }
    out
}
