//! How do the lines of a body become samples of series? [`Ingest`] is the sink behind the parsers: it looks series
//! up in the target's cache, merges labels and relabels those it does not know, enforces limits, and appends
//! everything to one batch.

use crate::config::ScrapeConfig;
use crate::model::metadata::{Exemplar, MetricType};
use crate::model::relabel;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, LabelsBuilder, METRIC_NAME};
use crate::tsdb::door::{AppendError, Appender, SeriesRef};

use super::cache::{Found, Hash96, Pass};
use super::exposition::{Family, PairBuffer, SampleView, SeriesView, Sink, Stop};
use super::metadata::{FamilyMetadata, MetadataCache};
use super::native_limits;
use super::settings::{JobSettings, Shared};
use super::target::Target;

/// Samples this far ahead of the clock are out of bounds.
pub(super) const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// Why a scrape fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum IngestError {
    #[error("{0}")]
    Labels(String),
    #[error("{0}")]
    LabelLimit(String),
    #[error("sample limit exceeded: the job allows {0}")]
    SampleLimit(u64),
    #[error("histogram bucket limit exceeded: the job allows {0}")]
    BucketLimit(u64),
    #[error("{0}")]
    Append(AppendError),
}

/// Samples that were refused one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) out_of_order: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_bounds: u64,
    pub(super) exemplars: u64,
    pub(super) limited: u64,
}

/// Reusable buffers.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) pairs: PairBuffer,
}

/// The sink for one scrape.
pub(super) struct Ingest<'a, 'b> {
    pub(super) shared: &'a Shared,
    pub(super) settings: &'a JobSettings,
    pub(super) target: &'a Target,
    pub(super) appender: &'a mut (dyn Appender + 'b),
    pub(super) pass: Pass<'a>,
    pub(super) metadata: &'a mut MetadataCache,
    pub(super) scratch: &'a mut Scratch,
    /// Time of the samples without one of their own.
    pub(super) t_ms: i64,
    /// Newest time that is taken.
    pub(super) max_t_ms: i64,
    pub(super) total: u64,
    pub(super) added: u64,
    pub(super) series_added: u64,
    /// Samples handed to storage, for the sample limit.
    pub(super) appended: u64,
    pub(super) refused: Refused,
    pub(super) error: Option<IngestError>,
    /// Storage took no more series; those it has go on.
    pub(super) series_limit: Option<AppendError>,
    /// A limit was hit; the rest is only counted.
    pub(super) limit_error: Option<IngestError>,
}

/// What one line brings.
enum Payload<'p> {
    Float(f64),
    Histogram(&'p HistogramValue),
}

enum Outcome {
    /// Stored, under this reference.
    Stored(SeriesRef),
    /// Refused alone.
    Refused,
}

impl Ingest<'_, '_> {
    fn stop(&mut self, error: IngestError) -> Stop {
        self.error = Some(error);
        Stop
    }

    /// The labels of a series as it is stored; `None` if relabelling drops it.
    fn labels(&mut self, series: &SeriesView<'_>) -> Result<Option<Labels>, Stop> {
        let config = &self.settings.config;
        if let Err(error) = series.labels(&mut self.scratch.pairs) {
            return Err(self.stop(IngestError::Labels(error.to_string())));
        }
        match final_labels(config, self.target, &self.scratch.pairs) {
            Ok(labels) => Ok(labels),
            Err(error) => Err(self.stop(error)),
        }
    }

    fn sample(
        &mut self,
        series: &SeriesView<'_>,
        payload: &Payload<'_>,
        sample: &SampleView<'_>,
        known: bool,
    ) -> Result<(), Stop> {
        self.total += 1;
        let own_time = sample.timestamp_ms.filter(|_| self.settings.config.honor_timestamps);
        let t_ms = own_time.unwrap_or(self.t_ms);
        let tracked = own_time.is_none() || self.settings.config.track_timestamps_staleness;
        let found = if known {
            (Found::Known(self.pass.accept()), None)
        } else {
            let (found, hash) = self.pass.find(series.text(), series.context());
            (found, Some(hash))
        };
        match found {
            (Found::Known(at), _) => {
                if self.pass.is_dropped(at) {
                    return Ok(());
                }
                self.added += 1;
                let reference = self.pass.reference(at);
                let outcome = self.append(series, reference, None, t_ms, payload, sample)?;
                let reference = if let Outcome::Stored(new) = outcome { new } else { reference };
                self.pass.update(at, reference, tracked);
                Ok(())
            }
            (Found::Again(at), _) => {
                if self.pass.is_dropped(at) {
                    return Ok(());
                }
                self.added += 1;
                if own_time.is_none() {
                    self.refused.duplicates += 1;
                    return Ok(());
                }
                let reference = self.pass.reference(at);
                self.append(series, reference, None, t_ms, payload, sample).map(|_| ())
            }
            (Found::New, hash) => {
                let hash = hash.unwrap_or_else(|| self.shared.hash_key.hash(series.text(), series.context()));
                self.new_series(series, hash, t_ms, tracked, payload, sample)
            }
        }
    }

    fn new_series(
        &mut self,
        series: &SeriesView<'_>,
        hash: Hash96,
        t_ms: i64,
        tracked: bool,
        payload: &Payload<'_>,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop> {
        let Some(labels) = self.labels(series)? else {
            self.pass.add(series.text(), hash, SeriesRef::NONE, false, true);
            return Ok(());
        };
        self.added += 1;
        match self.append(series, SeriesRef::NONE, Some(&labels), t_ms, payload, sample)? {
            Outcome::Stored(reference) => {
                self.pass.add(series.text(), hash, reference, tracked, false);
                self.series_added += 1;
            }
            Outcome::Refused => {}
        }
        Ok(())
    }

    /// Appends one sample with its zero sample and exemplars.
    fn append(
        &mut self,
        series: &SeriesView<'_>,
        reference: SeriesRef,
        labels: Option<&Labels>,
        t_ms: i64,
        payload: &Payload<'_>,
        sample: &SampleView<'_>,
    ) -> Result<Outcome, Stop> {
        if self.limit_error.is_some() {
            return Ok(Outcome::Refused);
        }
        let limit = self.settings.config.sample_limit;
        if limit > 0 && self.appended >= limit {
            self.limit_error = Some(IngestError::SampleLimit(limit));
            return Ok(Outcome::Refused);
        }
        self.appended += 1;
        if t_ms > self.max_t_ms {
            self.refused.out_of_bounds += 1;
            return Ok(Outcome::Refused);
        }
        let options = &self.shared.options;
        let (config, target) = (&self.settings.config, self.target);
        // Storage calls this only for a reference that it does not know (any more).
        let make = || match labels {
            Some(labels) => labels.clone(),
            None => {
                let mut pairs = PairBuffer::default();
                let usable = series.labels(&mut pairs).is_ok();
                let made = usable.then(|| final_labels(config, target, &pairs).ok().flatten()).flatten();
                made.unwrap_or_default()
            }
        };
        let start_ms = if options.store_start_timestamps { sample.start_ms } else { 0 };
        let mut reference = reference;
        if options.zero_ingestion && sample.start_ms != 0 && sample.start_ms < t_ms {
            // A zero sample that is there already, or too old, is no fault.
            let zero = match payload {
                Payload::Float(_) => self.appender.append(reference, &make, 0, sample.start_ms, 0.0),
                Payload::Histogram(h) => {
                    let zero = native_limits::zero_of(h);
                    self.appender.append_histogram(reference, &make, 0, sample.start_ms, zero)
                }
            };
            reference = zero.unwrap_or(reference);
        }
        let result = match payload {
            Payload::Float(value) => self.appender.append(reference, &make, start_ms, t_ms, *value),
            Payload::Histogram(h) => match native_limits::fit(
                h,
                config.native_histogram_bucket_limit,
                config.native_histogram_min_bucket_factor,
            ) {
                Some(fitting) => self.appender.append_histogram(reference, &make, start_ms, t_ms, fitting),
                None => {
                    self.limit_error = Some(IngestError::BucketLimit(config.native_histogram_bucket_limit));
                    return Ok(Outcome::Refused);
                }
            },
        };
        match result {
            Ok(reference) => {
                self.exemplars(reference, t_ms, sample.exemplars);
                Ok(Outcome::Stored(reference))
            }
            Err(AppendError::OutOfOrder | AppendError::TooOld) => {
                self.refused.out_of_order += 1;
                Ok(Outcome::Refused)
            }
            Err(AppendError::DuplicateTimestamp) => {
                self.refused.duplicates += 1;
                Ok(Outcome::Refused)
            }
            Err(AppendError::OutOfBounds) => {
                self.refused.out_of_bounds += 1;
                Ok(Outcome::Refused)
            }
            Err(error @ AppendError::SeriesLimit(_)) => {
                self.refused.limited += 1;
                self.series_limit = Some(error);
                Ok(Outcome::Refused)
            }
            Err(error) => Err(self.stop(IngestError::Append(error))),
        }
    }

    fn exemplars(&mut self, reference: SeriesRef, t_ms: i64, exemplars: &[Exemplar]) {
        for exemplar in exemplars {
            match self.appender.append_exemplar(reference, t_ms, exemplar) {
                Ok(()) | Err(AppendError::ExemplarDuplicate) => {}
                Err(_) => self.refused.exemplars += 1,
            }
        }
    }

    fn note_metadata(&mut self, changed: Option<std::sync::Arc<FamilyMetadata>>) {
        if let Some(family) = changed
            && self.shared.options.append_metadata
            && let Err(error) = self.appender.update_metadata(&family.name, &family.metadata)
        {
            tracing::debug!(%error, family = family.name, "metadata was not stored");
        }
    }
}

/// Merges scraped labels with those of the target, relabels and checks them; `None` if a rule drops the series.
pub(super) fn final_labels(
    config: &ScrapeConfig,
    target: &Target,
    pairs: &PairBuffer,
) -> Result<Option<Labels>, IngestError> {
    let mut builder = LabelsBuilder::default();
    for label in pairs.iter() {
        if label.name.is_empty() {
            return Err(IngestError::Labels("invalid metric name or label names: an empty name".into()));
        }
        builder.set(label.name, label.value);
    }
    merge_target_labels(&mut builder, target, config.honor_labels);
    if !config.metric_relabel_configs.is_empty()
        && !relabel::process(&mut builder, &config.metric_relabel_configs)
    {
        return Ok(None);
    }
    let labels = builder.build();
    if labels.is_empty() {
        return Ok(None);
    }
    let name = labels.metric_name();
    if name.is_empty() {
        return Err(IngestError::Labels("missing metric name (__name__ label)".into()));
    }
    let scheme = config.metric_name_validation_scheme;
    let names_ok = labels.iter().all(|l| l.name == METRIC_NAME || scheme.is_valid_label_name(l.name));
    if !scheme.is_valid_metric_name(name) || !names_ok {
        let shown: String = labels.to_string().chars().take(200).collect();
        return Err(IngestError::Labels(format!("invalid metric name or label names: {shown}")));
    }
    check_label_limits(config, &labels)?;
    Ok(Some(labels))
}

/// Sets the target's labels; scraped ones of the same name win if `honor`, else become `exported_…`.
pub(super) fn merge_target_labels(builder: &mut LabelsBuilder, target: &Target, honor: bool) {
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for label in target.labels.iter() {
        let scraped = builder.value(label.name);
        if scraped.is_empty() {
            builder.set(label.name, label.value);
        } else if !honor {
            conflicts.push((label.name.to_owned(), scraped.to_owned()));
            builder.set(label.name, label.value);
        }
    }
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, value) in conflicts {
        let mut renamed = format!("exported_{name}");
        while !builder.value(&renamed).is_empty() {
            renamed.insert_str(0, "exported_");
        }
        builder.set(&renamed, &value);
    }
}

fn check_label_limits(config: &ScrapeConfig, labels: &Labels) -> Result<(), IngestError> {
    let (count, name_len, value_len) =
        (config.label_limit, config.label_name_length_limit, config.label_value_length_limit);
    if count == 0 && name_len == 0 && value_len == 0 {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(50).collect::<String>();
    let metric = || short(labels.metric_name());
    let fail = |text: String| Err(IngestError::LabelLimit(text));
    let total = labels.len() as u64;
    if count > 0 && total > count {
        return fail(format!(
            "label_limit exceeded (metric: {}, number of labels: {total}, limit: {count})",
            metric()
        ));
    }
    for label in labels.iter() {
        let len = label.name.len() as u64;
        if name_len > 0 && len > name_len {
            return fail(format!(
                "label_name_length_limit exceeded (metric: {}, label name: {}, length: {len}, limit: {name_len})",
                metric(),
                short(label.name)
            ));
        }
        let len = label.value.len() as u64;
        if value_len > 0 && len > value_len {
            return fail(format!(
                "label_value_length_limit exceeded (metric: {}, label name: {}, value: {:?}, length: {len}, limit: \
                 {value_len})",
                metric(),
                short(label.name),
                short(label.value)
            ));
        }
    }
    Ok(())
}

impl Sink for Ingest<'_, '_> {
    #[inline]
    fn expected(&mut self, rest: &[u8], context: u64) -> Option<usize> {
        self.pass.expected(rest, context)
    }

    fn expected_metadata(&mut self, rest: &[u8]) -> Option<(usize, MetricType)> {
        self.metadata.expected(rest)
    }

    fn metadata_block(&mut self, text: &[u8], family: &Family) {
        self.metadata.remember(text, family.metric_type);
    }

    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        let changed = self.metadata.help(&self.shared.interner, family, text);
        self.note_metadata(changed);
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        let changed = self.metadata.metric_type(&self.shared.interner, family, metric_type);
        self.note_metadata(changed);
        Ok(())
    }

    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        let changed = self.metadata.unit(&self.shared.interner, family, unit);
        self.note_metadata(changed);
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, known: bool) -> Result<(), Stop> {
        self.sample(series, &Payload::Float(sample.value), sample, known)
    }

    fn histogram(
        &mut self,
        series: &SeriesView<'_>,
        histogram: HistogramValue,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop> {
        self.sample(series, &Payload::Histogram(&histogram), sample, false)
    }
}
