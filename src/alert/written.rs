//! Which series did a rule write last? What vanishes from its result ends with a staleness marker; what stays is
//! appended by reference, so that its labels are not looked up again in storage.

use std::collections::HashMap;
use std::sync::Arc;

use super::alerting::RuleSamples;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, stale_nan};
use crate::query::value::PointValue;
use crate::tsdb::{AppendError, Appendable, Appender, BatchOptions, SeriesRef};

/// The series that the last successful evaluation of a rule wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    series: HashMap<Labels, Entry, foldhash::fast::RandomState>,
    round: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    reference: SeriesRef,
    /// The round that wrote it last.
    round: u64,
}

/// Series that a batch adds to those that were written before.
pub(super) type Fresh = Vec<(Labels, SeriesRef)>;

/// Results of rules are never older than what is stored.
pub(super) fn batch_options() -> BatchOptions {
    BatchOptions { reject_out_of_order: true, ..BatchOptions::default() }
}

impl Written {
    pub fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.series.keys()
    }

    /// Adds samples and the staleness markers of series that are gone to `batch`. The table changes for good when
    /// [`Written::accept`] follows; without it the next round starts from what was written before.
    pub fn append(
        &mut self,
        samples: &RuleSamples,
        t_ms: i64,
        batch: &mut dyn Appender,
    ) -> Result<Fresh, AppendError> {
        self.round += 1;
        let mut fresh = Fresh::new();
        let mut refused: Option<AppendError> = None;
        for (labels, value) in samples {
            let known = self.series.get_mut(labels);
            let reference = known.as_ref().map_or(SeriesRef::NONE, |entry| entry.reference);
            let own = || labels.clone();
            let appended = match value {
                PointValue::Float(v) => batch.append(reference, &own, 0, t_ms, *v),
                PointValue::Histogram(h) => {
                    batch.append_histogram(reference, &own, 0, t_ms, HistogramValue::Float(Arc::clone(h)))
                }
            };
            match (appended, known) {
                (Ok(reference), Some(entry)) => *entry = Entry { reference, round: self.round },
                (Ok(reference), None) => fresh.push((labels.clone(), reference)),
                // Prometheus drops these samples with a warning and keeps the rest of the rule's result.
                (
                    Err(
                        error @ (AppendError::OutOfOrder
                        | AppendError::TooOld
                        | AppendError::DuplicateTimestamp
                        | AppendError::OutOfBounds
                        | AppendError::SeriesLimit(_)),
                    ),
                    _,
                ) => refused = Some(error),
                (Err(error), _) => return Err(error),
            }
        }
        for (labels, entry) in self.series.iter().filter(|(_, entry)| entry.round != self.round) {
            // A marker that comes too late says nothing new.
            let _ = batch.append(entry.reference, &|| labels.clone(), 0, t_ms, stale_nan());
        }
        if let Some(error) = refused {
            tracing::warn!(%error, t_ms, "Rule evaluation result was refused in part");
        }
        Ok(fresh)
    }

    /// The batch was stored: vanished series are forgotten, new ones remembered.
    pub fn accept(&mut self, fresh: Fresh) {
        let round = self.round;
        self.series.retain(|_, entry| entry.round == round);
        self.series.extend(fresh.into_iter().map(|(labels, reference)| (labels, Entry { reference, round })));
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
