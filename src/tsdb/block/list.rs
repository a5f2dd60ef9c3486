//! Which series of a block were found, what are they called, and where are their samples? Labels stay the numbers of
//! their symbols until somebody asks for them: so a selection takes a few dozen bytes for each series, however many
//! labels it has, and each label is put into words once.

use crate::model::Labels;
use crate::tsdb::Map;

use super::bytes::{DecodeError, Result};
use super::format::ChunkRef;

/// Series in the order in which they were added.
#[derive(Debug, Default)]
pub struct SeriesList {
    series: Vec<Listed>,
    pairs: Vec<(u32, u32)>,
    chunks: Vec<ChunkRef>,
    /// Packed labels by the symbols of name and value.
    texts: Map<(u32, u32), Box<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    page: u32,
    pairs_end: usize,
    chunks_end: usize,
}

impl SeriesList {
    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    fn start(&self, i: usize) -> (usize, usize) {
        let before = i.checked_sub(1).and_then(|before| self.series.get(before));
        before.map_or((0, 0), |s| (s.pairs_end, s.chunks_end))
    }

    fn pairs(&self, i: usize) -> &[(u32, u32)] {
        let Some(series) = self.series.get(i) else { return &[] };
        &self.pairs[self.start(i).0..series.pairs_end]
    }

    /// Labels of a series.
    #[must_use]
    pub fn labels(&self, i: usize) -> Labels {
        Labels::from_packed(self.pairs(i).iter().filter_map(|pair| self.texts.get(pair)).map(|text| &**text))
    }

    /// Whether these are the labels of a series.
    #[must_use]
    pub fn is(&self, i: usize, labels: &Labels) -> bool {
        let mut rest = labels.as_packed().as_bytes();
        for text in self.pairs(i).iter().filter_map(|pair| self.texts.get(pair)) {
            let Some(after) = rest.strip_prefix(text.as_bytes()) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    /// Number of the page that holds a series.
    #[must_use]
    pub fn page(&self, i: usize) -> u32 {
        self.series.get(i).map_or(0, |s| s.page)
    }

    /// Chunks of a series, floats before histograms, each kind in order of time.
    #[must_use]
    pub fn chunks(&self, i: usize) -> &[ChunkRef] {
        let Some(series) = self.series.get(i) else { return &[] };
        &self.chunks[self.start(i).1..series.chunks_end]
    }

    /// Adds a series; `symbol` finds the text of a number.
    pub fn add(
        &mut self,
        page: u32,
        labels: &[(u32, u32)],
        chunks: &[ChunkRef],
        symbol: &dyn Fn(u32) -> Result<String>,
    ) -> Result<()> {
        let unsorted = DecodeError("labels are not sorted");
        if !labels.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(unsorted);
        }
        // Neighbours have most labels in common, at the same places.
        let last = self.series.len().checked_sub(1).map_or(0..0, |last| self.start(last).0..self.pairs.len());
        for (place, pair) in labels.iter().enumerate() {
            if self.pairs[last.clone()].get(place) == Some(pair) || self.texts.contains_key(pair) {
                continue;
            }
            let (name, value) = (symbol(pair.0)?, symbol(pair.1)?);
            if value.is_empty() {
                return Err(unsorted);
            }
            self.texts.insert(*pair, Labels::pack(&name, &value));
        }
        self.pairs.extend_from_slice(labels);
        self.chunks.extend_from_slice(chunks);
        let (pairs_end, chunks_end) = (self.pairs.len(), self.chunks.len());
        self.series.push(Listed { page, pairs_end, chunks_end });
        Ok(())
    }

    /// Forgets all series but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        let (pairs, chunks) = self.start(len.min(self.len()));
        self.series.truncate(len);
        self.pairs.truncate(pairs);
        self.chunks.truncate(chunks);
    }

    /// Forgets all series, and the texts of labels if there are very many: thousands of pages need not keep them.
    pub fn clear(&mut self) {
        self.truncate(0);
        if self.texts.len() > 1 << 16 {
            self.texts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 6] = ["", "a", "b", "x", "y", "z"];

    fn symbol(number: u32) -> Result<String> {
        TEXTS.get(number as usize).map(|t| (*t).to_owned()).ok_or(DecodeError("unknown symbol"))
    }

    #[test]
    fn labels_come_back_in_words() {
        let mut list = SeriesList::default();
        list.add(0, &[(1, 3), (2, 4)], &[], &symbol).unwrap();
        list.add(0, &[(1, 3), (2, 5)], &[], &symbol).unwrap();
        list.add(1, &[], &[], &symbol).unwrap();
        assert_eq!(list.labels(0), Labels::from_pairs([("a", "x"), ("b", "y")]));
        assert_eq!(list.labels(1), Labels::from_pairs([("a", "x"), ("b", "z")]));
        for (i, other) in [(0, 1), (1, 2), (2, 0)] {
            assert!(list.is(i, &list.labels(i)) && !list.is(i, &list.labels(other)), "{i} {other}");
        }
        assert_eq!((list.labels(2), list.page(2), list.len()), (Labels::empty(), 1, 3));
        list.truncate(1);
        list.add(2, &[(2, 3)], &[], &symbol).unwrap();
        assert_eq!(list.labels(1), Labels::from_pairs([("b", "x")]));
        list.clear();
        assert!(list.is_empty());
    }

    #[test]
    fn labels_that_cannot_be_are_refused() {
        for labels in [&[(2, 3), (1, 3)][..], &[(1, 3), (1, 4)], &[(1, 0)], &[(1, 9)]] {
            let mut list = SeriesList::default();
            assert!(list.add(0, labels, &[], &symbol).is_err(), "{labels:?}");
            assert!(list.is_empty());
        }
    }
}
