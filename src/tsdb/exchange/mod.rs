//! How does data leave as blocks for others, and come in from elsewhere? Export reads a directory without its lock
//! and writes native blocks or Prometheus's; import gathers samples, writes blocks aside, and shows them in one step.

/// Samples in any order become blocks.
pub mod gather;
/// Blocks appear in a data directory, all or none.
pub mod publish;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;

use super::block::{BlockMeta, SeriesColumns, SeriesSource, new_ulid, write_block};
use super::compact::AnyBlock;
use super::compact::block_set::BlockWalk;
use super::compact::sources::{FlushSeries, MergedSource};
use super::door::StorageError;
use super::head::flush::{FlushRange, FlushView, RawSamples};
use super::prometheus::write_prometheus_block;
use super::readonly::ReadOnlyDb;
use crate::model::{Labels, Matcher};

/// Which blocks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFormat {
    /// Meerkat's own.
    Native,
    /// Prometheus's.
    Prometheus,
}

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Format of the blocks.
    pub format: BlockFormat,
    /// First timestamp, milliseconds.
    pub min_t_ms: i64,
    /// Last timestamp, milliseconds.
    pub max_t_ms: i64,
    /// Only series that satisfy all of these.
    pub matchers: Vec<Matcher>,
    /// Length of the blocks that the head is cut into, milliseconds.
    pub block_range_ms: i64,
}

/// What an export did.
#[derive(Debug, Clone, Default)]
pub struct ExportReport {
    /// The blocks that were written.
    pub blocks: Vec<BlockMeta>,
    /// What was left out because it is damaged.
    pub warnings: Vec<String>,
}

/// How far an export is: block, of how many, series of it.
pub type Progress<'a> = &'a dyn Fn(usize, usize, u64);

/// Samples in a range of the series that match.
struct Clipped<'a> {
    inner: &'a mut dyn SeriesSource,
    range: (i64, i64),
    matchers: &'a [Matcher],
}

impl SeriesSource for Clipped<'_> {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        while let Some(labels) = self.inner.next_series(out)? {
            if self.matchers.iter().all(|m| m.matches(labels.value(&m.name))) {
                out.retain(|t| (self.range.0..self.range.1).contains(&t));
                return Ok(Some(labels));
            }
        }
        Ok(None)
    }
}

/// Calls a function for each series.
struct Counted<'a> {
    inner: &'a mut dyn SeriesSource,
    series: u64,
    each: &'a dyn Fn(u64),
}

impl SeriesSource for Counted<'_> {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        let found = self.inner.next_series(out)?;
        if found.is_some() {
            self.series += 1;
            (self.each)(self.series);
        }
        Ok(found)
    }
}

/// Writes one block of a source; `None` if it has no samples.
pub(super) fn write_one(
    to: &Path,
    format: BlockFormat,
    meta: BlockMeta,
    source: &mut dyn SeriesSource,
    each: &dyn Fn(u64),
) -> Result<Option<BlockMeta>, StorageError> {
    let mut source = Counted { inner: source, series: 0, each };
    Ok(match format {
        BlockFormat::Native => write_block(to, meta, &mut source, &|| false)?.map(|(_, meta, _)| meta),
        BlockFormat::Prometheus => {
            write_prometheus_block(to, meta, &mut source, &|| false)?.map(|(_, meta)| meta)
        }
    })
}

/// The aligned ranges in which the head has samples.
fn head_ranges(db: &ReadOnlyDb, options: &ExportOptions) -> Result<Vec<(i64, i64)>, StorageError> {
    let Some(mut range) = db.head_range() else { return Ok(Vec::new()) };
    range.min_t_ms = range.min_t_ms.max(options.min_t_ms);
    range.max_t_ms = range.max_t_ms.min(options.max_t_ms);
    let (mut found, mut raw) = (BTreeSet::new(), RawSamples::default());
    let view = db.head_view(range);
    let length = options.block_range_ms.max(1);
    for i in 0..view.len() {
        view.samples(i, &mut raw)?;
        found.extend(raw.timestamps.iter().map(|t| t.div_euclid(length)));
        found.extend(raw.histograms.iter().map(|(t, ..)| t.div_euclid(length)));
    }
    Ok(found.into_iter().map(|n| (n * length, (n + 1) * length)).collect())
}

/// A block to be written: its range, the blocks that go into it, and whether the head does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    range: (i64, i64),
    blocks: Vec<usize>,
    head: bool,
}

/// One piece for each block and each range of the head; those that overlap become one.
fn pieces(blocks: &[AnyBlock], head: &[(i64, i64)], options: &ExportOptions) -> Vec<Piece> {
    let end = options.max_t_ms.saturating_add(1);
    let mut all: Vec<Piece> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let range = (block.meta().min_time, block.meta().max_time);
        if range.0 < end && range.1 > options.min_t_ms {
            all.push(Piece { range, blocks: vec![i], head: false });
        }
    }
    all.extend(head.iter().map(|range| Piece { range: *range, blocks: Vec::new(), head: true }));
    all.sort_by_key(|piece| piece.range);
    let mut merged: Vec<Piece> = Vec::new();
    for piece in all {
        match merged.last_mut() {
            Some(last) if piece.range.0 < last.range.1 => {
                last.range.1 = last.range.1.max(piece.range.1);
                last.blocks.extend(piece.blocks);
                last.head |= piece.head;
            }
            _ => merged.push(piece),
        }
    }
    for piece in &mut merged {
        piece.range = (piece.range.0.max(options.min_t_ms), piece.range.1.min(end));
    }
    merged
}

/// Writes blocks with everything that a directory holds, head included, below `to`, which must exist. Ranges do not
/// overlap; those of the head are aligned to the length of blocks.
pub fn export(
    db: &ReadOnlyDb,
    to: &Path,
    options: &ExportOptions,
    progress: Progress<'_>,
) -> Result<ExportReport, StorageError> {
    let head = head_ranges(db, options)?;
    let pieces = pieces(db.blocks(), &head, options);
    let mut report = ExportReport::default();
    let made = Cell::new(0);
    for (number, piece) in pieces.iter().enumerate() {
        let blocks: Vec<&AnyBlock> = piece.blocks.iter().filter_map(|i| db.blocks().get(*i)).collect();
        let mut walks: Vec<BlockWalk> = blocks.iter().map(|b| b.source()).collect();
        let range = FlushRange { min_t_ms: piece.range.0, max_t_ms: piece.range.1 - 1 };
        let view: Option<Box<dyn FlushView>> = piece.head.then(|| db.head_view(range));
        let mut flush = view.as_deref().map(FlushSeries::new);
        let mut meta = BlockMeta::new(new_ulid(now_ms()), piece.range.0, piece.range.1);
        meta.compaction.level = blocks.iter().map(|b| b.meta().compaction.level).max().unwrap_or(1);
        let mut sources: Vec<&mut dyn SeriesSource> =
            walks.iter_mut().map(|walk| walk as &mut dyn SeriesSource).collect();
        sources.extend(flush.as_mut().map(|flush| flush as &mut dyn SeriesSource));
        let mut merged = MergedSource::new(sources);
        let mut clipped = Clipped { inner: &mut merged, range: piece.range, matchers: &options.matchers };
        let each = |series: u64| {
            made.set(series);
            progress(number, pieces.len(), series);
        };
        let written = write_one(to, options.format, meta, &mut clipped, &each)?;
        report.blocks.extend(written);
        report.warnings.extend(walks.iter().flat_map(|walk| walk.warnings().iter().cloned()));
    }
    Ok(report)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests;
