//! Which series did a rule write last? What vanishes from its result ends with a staleness marker; what stays is
//! appended by reference, so that its labels are not looked up again in storage.

use std::collections::HashMap;
use std::sync::Arc;

use super::alerting::{ALERTS_FOR_STATE_METRIC, ALERTS_METRIC, AlertState, RuleSamples};
use crate::model::sample::HistogramValue;
use crate::model::{Labels, METRIC_NAME, stale_nan};
use crate::query::value::PointValue;
use crate::tsdb::{AppendError, Appendable, Appender, BatchOptions, SeriesRef};

/// A series that a rule writes. Those of an alert share its labels, so that 50,000 alerts do not have theirs three times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Output {
    labels: Labels,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Plain,
    Alerts(AlertState),
    ForState,
}

impl Output {
    /// The series with exactly these labels.
    #[must_use]
    pub fn plain(labels: Labels) -> Self {
        Self { labels, form: Form::Plain }
    }

    /// `ALERTS` of the alert with these labels in this state.
    #[must_use]
    pub fn alerts(labels: Labels, state: AlertState) -> Self {
        Self { labels, form: Form::Alerts(state) }
    }

    /// `ALERTS_FOR_STATE` of the alert with these labels.
    #[must_use]
    pub fn for_state(labels: Labels) -> Self {
        Self { labels, form: Form::ForState }
    }

    /// The labels of the series.
    #[must_use]
    pub fn series(&self) -> Labels {
        match self.form {
            Form::Plain => self.labels.clone(),
            Form::Alerts(state) => {
                self.labels.with(&[(METRIC_NAME, ALERTS_METRIC), ("alertstate", state.as_str())])
            }
            Form::ForState => self.labels.with(&[(METRIC_NAME, ALERTS_FOR_STATE_METRIC)]),
        }
    }
}

/// The series that the last successful evaluation of a rule wrote, in the order of its result: it mostly has the same ones
/// at the same places.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    series: Vec<Entry>,
    round: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    output: Output,
    reference: SeriesRef,
    /// The round that wrote it last.
    round: u32,
}

/// The series that a batch writes, `None` if they are those that were written before.
pub(super) type Fresh = Option<Vec<(Output, SeriesRef)>>;

type Places<'a> = HashMap<&'a Output, usize, foldhash::fast::RandomState>;

/// Results of rules are never older than what is stored.
pub(super) fn batch_options() -> BatchOptions {
    BatchOptions { reject_out_of_order: true, ..BatchOptions::default() }
}

impl Written {
    /// Labels of the series.
    pub fn series(&self) -> impl Iterator<Item = Labels> {
        self.series.iter().map(|entry| entry.output.series())
    }

    /// Where the samples' series stand; `None` for those that are not known.
    fn places(&self, samples: &RuleSamples) -> Option<Vec<Option<usize>>> {
        let same = |(entry, (output, _)): (&Entry, &(Output, PointValue))| entry.output == *output;
        if self.series.len() == samples.len() && self.series.iter().zip(samples).all(same) {
            return None;
        }
        let by_output: Places<'_> =
            self.series.iter().enumerate().map(|(place, entry)| (&entry.output, place)).collect();
        Some(samples.iter().map(|(output, _)| by_output.get(output).copied()).collect())
    }

    /// Adds samples and the staleness markers of series that are gone to `batch`. The table changes for good when
    /// [`Written::accept`] follows; without it the next round starts from what was written before.
    pub fn append(
        &mut self,
        samples: &RuleSamples,
        t_ms: i64,
        batch: &mut dyn Appender,
    ) -> Result<Fresh, AppendError> {
        self.round = self.round.wrapping_add(1);
        let places = self.places(samples);
        let mut moved = places.is_some();
        let mut references: Vec<Option<SeriesRef>> = Vec::with_capacity(samples.len());
        let mut refused: Option<AppendError> = None;
        for (i, (output, value)) in samples.iter().enumerate() {
            let place = places.as_ref().map_or(Some(i), |places| places[i]);
            let known = match place {
                Some(place) => self.series.get_mut(place),
                None => None,
            };
            let reference = known.as_ref().map_or(SeriesRef::NONE, |entry| entry.reference);
            let own = || output.series();
            let appended = match value {
                PointValue::Float(v) => batch.append(reference, &own, 0, t_ms, *v),
                PointValue::Histogram(h) => {
                    batch.append_histogram(reference, &own, 0, t_ms, HistogramValue::Float(Arc::clone(h)))
                }
            };
            match appended {
                Ok(reference) => {
                    references.push(Some(reference));
                    if let Some(entry) = known {
                        (entry.reference, entry.round) = (reference, self.round);
                    }
                }
                // Prometheus drops these samples with a warning and keeps the rest of the rule's result.
                Err(
                    error @ (AppendError::OutOfOrder
                    | AppendError::TooOld
                    | AppendError::DuplicateTimestamp
                    | AppendError::OutOfBounds
                    | AppendError::SeriesLimit(_)),
                ) => {
                    references.push(None);
                    moved = true;
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        for entry in self.series.iter().filter(|entry| entry.round != self.round) {
            // A marker that comes too late says nothing new.
            let _ = batch.append(entry.reference, &|| entry.output.series(), 0, t_ms, stale_nan());
        }
        if let Some(error) = refused {
            tracing::warn!(%error, t_ms, "Rule evaluation result was refused in part");
        }
        let written = || {
            let each = samples.iter().zip(references);
            each.filter_map(|((output, _), reference)| Some((output.clone(), reference?))).collect()
        };
        Ok(moved.then(written))
    }

    /// The batch was stored: vanished series are forgotten, new ones remembered.
    pub fn accept(&mut self, fresh: Fresh) {
        let round = self.round;
        let Some(fresh) = fresh else { return };
        self.series =
            fresh.into_iter().map(|(output, reference)| Entry { output, reference, round }).collect();
    }
}

/// Ends series with a staleness marker at `t_ms`.
pub fn write_stale(series: &[Labels], t_ms: i64, storage: &dyn Appendable) -> Result<(), AppendError> {
    if series.is_empty() {
        return Ok(());
    }
    let mut batch = storage.appender(batch_options());
    for labels in series {
        // A series that already has a later sample needs no marker.
        let _ = batch.append(SeriesRef::NONE, &|| labels.clone(), 0, t_ms, stale_nan());
    }
    batch.commit().map(drop)
}
