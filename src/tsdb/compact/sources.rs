//! How do several blocks, or a range of the head, become the input of one new block?

use crate::model::Labels;
use crate::tsdb::StorageError;
use crate::tsdb::block::{SeriesColumns, SeriesSource};
use crate::tsdb::head::flush::{FlushView, RawSamples};

/// Merges sources series by series; of equal timestamps the sample of the later source stays.
pub struct MergedSource<'a> {
    sources: Vec<&'a mut dyn SeriesSource>,
    /// What each source hands out next.
    heads: Vec<Option<(Labels, SeriesColumns)>>,
    primed: bool,
}

impl<'a> MergedSource<'a> {
    /// A merge of `sources`.
    #[must_use]
    pub fn new(sources: Vec<&'a mut dyn SeriesSource>) -> Self {
        Self { heads: sources.iter().map(|_| None).collect(), sources, primed: false }
    }

    fn advance(&mut self, i: usize) -> Result<(), StorageError> {
        let mut columns = self.heads[i].take().map(|(_, c)| c).unwrap_or_default();
        self.heads[i] = self.sources[i].next_series(&mut columns)?.map(|labels| (labels, columns));
        Ok(())
    }
}

impl SeriesSource for MergedSource<'_> {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        out.clear();
        if !self.primed {
            self.primed = true;
            for i in 0..self.sources.len() {
                self.advance(i)?;
            }
        }
        let Some(labels) = self.heads.iter().flatten().map(|(l, _)| l).min().cloned() else {
            return Ok(None);
        };
        for i in 0..self.heads.len() {
            if let Some((_, columns)) = self.heads[i].as_ref().filter(|(l, _)| *l == labels) {
                out.merge(columns);
                self.advance(i)?;
            }
        }
        Ok(Some(labels))
    }
}

/// A view of the head as a source.
pub struct FlushSeries<'a> {
    view: &'a dyn FlushView,
    next: usize,
    raw: RawSamples,
}

impl<'a> FlushSeries<'a> {
    /// A walk over `view`.
    #[must_use]
    pub fn new(view: &'a dyn FlushView) -> Self {
        Self { view, next: 0, raw: RawSamples::default() }
    }
}

impl SeriesSource for FlushSeries<'_> {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        out.clear();
        if self.next == self.view.len() {
            return Ok(None);
        }
        let i = self.next;
        self.next += 1;
        self.view.samples(i, &mut self.raw)?;
        std::mem::swap(&mut out.timestamps, &mut self.raw.timestamps);
        std::mem::swap(&mut out.values, &mut self.raw.values);
        std::mem::swap(&mut out.float_start_ts, &mut self.raw.starts);
        for (t, start, h) in self.raw.histograms.drain(..) {
            out.push_histogram(t, start, h);
        }
        Ok(Some(self.view.labels(i)))
    }
}
