//! Which family do the lines around speak of? Text parsers go past metadata that the sink knows already; it is read
//! only when a series turns up whose labels may depend on it.

use super::{Family, ParseOptions, SampleView, SeriesView, Sink, Stop};
use crate::model::metadata::MetricType;
use crate::model::sample::HistogramValue;

/// What one line of metadata did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Said {
    /// It speaks of another family than the line before.
    pub(super) entered: bool,
    /// It names the type.
    pub(super) typed: bool,
}

/// Metadata as a text parser goes through it: lines that the sink knows already are read only when somebody has to
/// know what they say.
pub(super) struct Around<'b> {
    pub(super) family: Family,
    pub(super) context: u64,
    /// Known lines that `family` does not speak of yet.
    unread: &'b [u8],
    /// Where the lines of `family` begin that are being read.
    begun: Option<usize>,
    typed: bool,
}

impl<'b> Around<'b> {
    pub(super) fn new() -> Self {
        Self { family: Family::default(), context: 0, unread: &[], begun: None, typed: false }
    }

    /// Goes past lines that the sink knows, if `body[at..]` begins with such; returns their length.
    pub(super) fn skip_known<S: Sink>(
        &mut self,
        body: &'b [u8],
        at: usize,
        options: &ParseOptions,
        sink: &mut S,
        read: fn(&[u8], &mut Family),
    ) -> Option<usize> {
        let (len, metric_type) = sink.expected_metadata(&body[at..])?;
        self.unread = body.get(at..at + len)?;
        self.family.clear();
        self.context = 0;
        self.begun = None;
        // For other types labels are what the series says, whatever the family.
        let matters = options.type_and_unit_labels || options.skip_created;
        if matters || matches!(metric_type, MetricType::Histogram | MetricType::Summary) {
            self.catch_up(read);
            self.context = self.family.context(options);
        }
        Some(len)
    }

    /// Reads what was skipped.
    pub(super) fn catch_up(&mut self, read: fn(&[u8], &mut Family)) {
        let mut rest = std::mem::take(&mut self.unread);
        while let Some(end) = memchr::memchr(b'\n', rest) {
            read(&rest[..end], &mut self.family);
            rest = &rest[end + 1..];
        }
    }

    /// Notes what the line at `at` said.
    pub(super) fn note(&mut self, at: usize, said: Said, options: &ParseOptions) {
        if said.entered {
            self.begun = Some(at);
            self.typed = false;
        }
        self.typed |= said.typed;
        self.context = self.family.context(options);
    }

    /// The lines of metadata end before `at`: the sink may remember them, if they alone make the family what it is.
    pub(super) fn lines_end<S: Sink>(&mut self, body: &[u8], at: usize, sink: &mut S) {
        if let Some(lines) = self.begun.take().and_then(|begun| body.get(begun..at))
            && self.typed
        {
            sink.metadata_block(lines, &self.family);
        }
    }
}

/// Takes nothing; for reading metadata once more.
pub(super) struct Nobody;

impl Sink for Nobody {
    fn series(&mut self, _: &SeriesView<'_>, _: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}
