//! How do queries see one block? As a [`Querier`] over the index and a [`SeriesSet`] that decodes only the
//! chunks it is asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::{Labels, Matcher, SampleBuffer};
use crate::tsdb::door::{LabelQueryHints, Querier, SelectHints, SeriesSet, StorageError};

use super::list::SeriesList;
use super::reader::Block;
use super::source::{SeriesColumns, SeriesSource};
use super::tombstones::Tombstones;

/// Most warnings of one selection; more say nothing new.
const MAX_WARNINGS: usize = 20;

thread_local! {
    /// Room for the samples of one series, used again for the next.
    static COLUMNS: RefCell<SeriesColumns> = RefCell::default();
}

/// A view of one block in a time range.
#[derive(Debug)]
pub struct BlockQuerier {
    block: Arc<Block>,
    tombstones: Arc<Tombstones>,
    min_t_ms: i64,
    max_t_ms: i64,
}

impl BlockQuerier {
    /// A view of `[min_t_ms, max_t_ms]`.
    #[must_use]
    pub fn new(block: Arc<Block>, min_t_ms: i64, max_t_ms: i64) -> Self {
        let tombstones = block.tombstones();
        Self { block, tombstones, min_t_ms, max_t_ms }
    }

    fn out_of_range(&self) -> bool {
        let footer = self.block.footer();
        self.min_t_ms > self.max_t_ms || footer.max_t_ms < self.min_t_ms || footer.min_t_ms > self.max_t_ms
    }

    fn ids(&self, matchers: &[Matcher]) -> Result<Option<Vec<u32>>, StorageError> {
        if matchers.is_empty() { Ok(None) } else { self.block.select_ids(matchers).map(Some) }
    }
}

impl Querier for BlockQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let mut set = BlockSeriesSet {
            block: Arc::clone(&self.block),
            tombstones: Arc::clone(&self.tombstones),
            series: SeriesList::default(),
            min_t_ms: self.min_t_ms,
            max_t_ms: self.max_t_ms,
            presence_alone: hints.presence_alone,
            warnings: Mutex::default(),
        };
        if self.out_of_range() {
            return Ok(Box::new(set));
        }
        let ids = self.block.select_ids(matchers)?;
        let mut rest = &ids[..];
        while let Some(first) = rest.first() {
            let page = self.block.page_of(*first)?;
            let next = if page + 1 < self.block.page_count() {
                self.block.page(page + 1)?.first_series
            } else {
                u32::MAX
            };
            let (wanted, later) = rest.split_at(rest.partition_point(|id| *id < next).max(1));
            rest = later;
            let entry = self.block.page(page)?;
            if entry.max_t_ms < self.min_t_ms || entry.min_t_ms > self.max_t_ms {
                continue;
            }
            if let Err(e) = self.block.list_page(page, Some(wanted), &mut set.series) {
                // A damaged page hides its series, nothing else.
                set.warnings.lock().push(format!("{} series were left out: {e}", wanted.len()));
            }
        }
        Ok(Box::new(set))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        hints: &LabelQueryHints,
    ) -> Result<Vec<String>, StorageError> {
        if self.out_of_range() {
            return Ok(Vec::new());
        }
        let mut names = match self.ids(matchers)? {
            None => self.block.all_label_names()?,
            Some(_) => {
                let set = self.select(&SelectHints::default(), matchers)?;
                let mut names = BTreeSet::new();
                for i in 0..set.len() {
                    for label in set.labels(i).iter() {
                        if !names.contains(label.name) {
                            names.insert(label.name.to_owned());
                        }
                    }
                }
                names.into_iter().collect()
            }
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
        if self.out_of_range() {
            return Ok(Vec::new());
        }
        let ids = self.ids(matchers)?;
        self.block.values_of(name, ids.as_deref(), hints.limit)
    }
}

struct BlockSeriesSet {
    block: Arc<Block>,
    tombstones: Arc<Tombstones>,
    series: SeriesList,
    min_t_ms: i64,
    max_t_ms: i64,
    presence_alone: bool,
    warnings: Mutex<Vec<String>>,
}

impl SeriesSet for BlockSeriesSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series.labels(i)
    }

    fn is(&self, i: usize, labels: &Labels) -> bool {
        self.series.is(i, labels)
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        out.clear();
        let (min, max) = (min_t_ms.max(self.min_t_ms), max_t_ms.min(self.max_t_ms));
        let series = (&self.series, i);
        let deleted = if self.tombstones.is_empty() {
            Vec::new()
        } else {
            self.tombstones.ranges(&self.series.labels(i))
        };
        if deleted.is_empty() && self.block.read_floats(series, (min, max), self.presence_alone, out) {
            return Ok(());
        }
        out.clear();
        let mut columns = COLUMNS.take();
        let mut warnings = Vec::new();
        self.block.read_columns(series, min, max, &mut columns, &mut warnings);
        if !warnings.is_empty() {
            let mut all = self.warnings.lock();
            warnings.retain(|w| !all.contains(w));
            let room = MAX_WARNINGS.saturating_sub(all.len());
            all.extend(warnings.into_iter().take(room));
        }
        hide(&mut columns, &deleted);
        columns.copy_into(min, max, out);
        COLUMNS.set(columns);
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

/// Takes deleted samples out.
pub(crate) fn hide(columns: &mut SeriesColumns, ranges: &[(i64, i64)]) {
    if !ranges.is_empty() {
        columns.retain(|t| !ranges.iter().any(|(min, max)| (*min..=*max).contains(&t)));
    }
}

/// All series of a block in order, for compaction and export: samples as ingested, deletions applied.
#[derive(Debug)]
pub struct BlockSource {
    block: Arc<Block>,
    tombstones: Arc<Tombstones>,
    page: u32,
    /// The series of the page before that one.
    series: SeriesList,
    next: usize,
    /// What was left out because it is damaged.
    pub warnings: Vec<String>,
}

impl BlockSource {
    /// A walk over `block`.
    #[must_use]
    pub fn new(block: Arc<Block>) -> Self {
        let tombstones = block.tombstones();
        Self { block, tombstones, page: 0, series: SeriesList::default(), next: 0, warnings: Vec::new() }
    }
}

impl SeriesSource for BlockSource {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        loop {
            if self.next < self.series.len() {
                let i = self.next;
                self.next += 1;
                self.block.read_columns((&self.series, i), i64::MIN, i64::MAX, out, &mut self.warnings);
                let labels = self.series.labels(i);
                hide(out, &self.tombstones.ranges(&labels));
                return Ok(Some(labels));
            }
            if self.page == self.block.page_count() {
                return Ok(None);
            }
            self.series.clear();
            self.next = 0;
            if let Err(e) = self.block.list_page(self.page, None, &mut self.series) {
                self.warnings.push(format!("a page of series was left out: {e}"));
            }
            self.page += 1;
        }
    }
}
