//! What happens to a remote-write request? It is decompressed under a limit, read in place and appended as one batch;
//! the answer is given when the batch is durable. Outcomes are Prometheus's: version 1.0 is all or nothing for
//! sample errors, version 2.0 stores what it can and counts it. New series beyond a limit are left out in both.

use std::borrow::Cow;
use std::sync::Arc;

use super::series_cache::{LabelHash, SeriesCache};
use super::wire::{Fields, WireError};
use super::write_messages::{self as messages, MAX_LABELS, RawMetadata};
use crate::model::clock::Clock;
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::{Labels, METRIC_NAME};
use crate::telemetry::{Counter, Registry};
use crate::tsdb::{AppendError, Appendable, Appender, BatchOptions, SeriesRef};

/// Most bytes of a request, compressed or not.
pub const MAX_REQUEST_BYTES: usize = 32 << 20;
/// How far ahead of now a sample may be, milliseconds.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;
/// Reasons that one answer lists.
const MAX_REASONS: usize = 20;

/// How a request is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Snappy's block format, as the specification wants it.
    Snappy,
    /// One zstd frame, as Meerkat and vmagent send it to those who take it.
    Zstd,
}

/// Version of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageVersion {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Histogram samples.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was written, even if something else was refused.
    pub written: Written,
    /// Why the answer is not a success.
    pub failure: Option<Failure>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The sender should not try again, status 400.
    Refused(String),
    /// The sender should try again, status 500.
    Retry(String),
}

impl Outcome {
    fn refused(message: impl Into<String>) -> Self {
        Self { written: Written::default(), failure: Some(Failure::Refused(message.into())) }
    }

    fn retry(message: impl Into<String>) -> Self {
        Self { written: Written::default(), failure: Some(Failure::Retry(message.into())) }
    }
}

/// Takes remote-write requests in.
pub struct RemoteWriteReceiver {
    storage: Arc<dyn Appendable>,
    clock: Arc<dyn Clock>,
    known: SeriesCache,
    invalid_labels: Counter,
    without_metadata: Counter,
}

impl RemoteWriteReceiver {
    /// A receiver that writes to `storage`.
    pub fn new(storage: Arc<dyn Appendable>, clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        Arc::new(Self {
            storage,
            clock,
            known: SeriesCache::default(),
            invalid_labels: registry.counter(
                "prometheus_api_remote_write_invalid_labels_samples_total",
                "The total number of received remote write samples and histogram samples which were rejected due to invalid labels.",
                &[],
            ),
            without_metadata: registry.counter(
                "prometheus_api_remote_write_without_metadata_appended_samples_total",
                "The total number of received remote write samples (and histogram samples) which were ingested without corresponding metadata.",
                &[],
            ),
        })
    }

    /// Stores one request. Blocks until the batch is durable. `source` names the connection it came over.
    pub fn receive(&self, body: &[u8], packing: Packing, version: MessageVersion, source: u64) -> Outcome {
        let unpacked = match packing {
            Packing::Snappy => decompress(body),
            Packing::Zstd => decompress_zstd(body),
        };
        let decompressed = match unpacked {
            Ok(decompressed) => decompressed,
            Err(e) => return Outcome::refused(e),
        };
        let options = BatchOptions { source, ..BatchOptions::default() };
        let mut batch = Batch {
            receiver: self,
            appender: self.storage.appender(options),
            now_ms: self.clock.now_ms(),
            written: Written::default(),
            refused: Vec::new(),
            refused_count: 0,
            identity: Vec::new(),
        };
        let result = match version {
            MessageVersion::V1 => batch.version_1(&decompressed),
            MessageVersion::V2 => batch.version_2(&decompressed),
        };
        if let Err(stop) = result {
            batch.appender.rollback();
            return match stop {
                Stop::Wire(e) => Outcome::refused(e.to_string()),
                Stop::Append(e) if is_refusal(&e) => Outcome::refused(e.to_string()),
                Stop::Append(e) => Outcome::retry(e.to_string()),
            };
        }
        let Batch { appender, written, refused, refused_count, .. } = batch;
        if let Err(e) =
            appender.commit().and_then(|commit| commit.wait_durable().map_err(AppendError::Storage))
        {
            return Outcome::retry(e.to_string());
        }
        let failure = (refused_count > 0).then(|| {
            let mut text = refused.join("\n");
            if refused_count > refused.len() {
                text.push_str(&format!("\nand {} more", refused_count - refused.len()));
            }
            Failure::Refused(text)
        });
        Outcome { written, failure }
    }
}

/// Undoes snappy's block format under the size limit.
pub fn decompress(body: &[u8]) -> Result<Vec<u8>, String> {
    let corrupt = |_| "snappy: corrupt input".to_owned();
    let len = snap::raw::decompress_len(body).map_err(corrupt)?;
    if len > MAX_REQUEST_BYTES {
        return Err(format!("snappy: decoded length {len} exceeds limit {MAX_REQUEST_BYTES}"));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(corrupt)
}

/// Undoes zstd under the size limit.
fn decompress_zstd(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut buffer = crate::net::BodyBuffer::new();
    buffer.load(body, "zstd", MAX_REQUEST_BYTES as u64 + 1).map_err(|e| e.to_string())?;
    Ok(buffer.bytes().to_vec())
}

enum Stop {
    Wire(WireError),
    Append(AppendError),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Stop::Wire(error)
    }
}

fn is_refusal(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::OutOfOrder
            | AppendError::OutOfBounds
            | AppendError::TooOld
            | AppendError::DuplicateTimestamp
            | AppendError::InvalidHistogram(_)
            | AppendError::InvalidLabels(_)
            | AppendError::SeriesLimit(_)
    )
}

/// Sorts and checks labels. `None` for a set without a metric name, with a repeated or empty name, or with a text that
/// is not UTF-8.
fn checked_labels<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Labels> {
    let mut texts: Vec<(&str, &str)> = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        if name.is_empty() {
            return None;
        }
        texts.push((name, value));
    }
    if !texts.is_sorted_by(|a, b| a.0 < b.0) {
        texts.sort_unstable_by_key(|pair| pair.0);
        if texts.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
    }
    texts.retain(|(_, value)| !value.is_empty());
    if !texts.iter().any(|(name, _)| *name == METRIC_NAME) {
        return None;
    }
    Some(Labels::from_sorted(texts))
}

fn loose_labels<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Labels {
    Labels::from_pairs(pairs.map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))))
}

/// The series a run of samples belongs to.
struct Target<'l> {
    hash: LabelHash,
    reference: SeriesRef,
    labels: &'l dyn Fn() -> Labels,
}

struct Batch<'r> {
    receiver: &'r RemoteWriteReceiver,
    appender: Box<dyn Appender + 'r>,
    now_ms: i64,
    written: Written,
    refused: Vec<String>,
    refused_count: usize,
    identity: Vec<u8>,
}

impl Batch<'_> {
    fn refuse(&mut self, reason: impl FnOnce() -> String) {
        self.refused_count += 1;
        if self.refused.len() < MAX_REASONS {
            self.refused.push(reason());
        }
    }

    fn remember(&mut self, target: &mut Target<'_>, reference: SeriesRef) {
        if reference != target.reference {
            target.reference = reference;
            self.receiver.known.put(target.hash, reference, self.now_ms);
        }
    }

    fn float(&mut self, target: &mut Target<'_>, message: &[u8]) -> Result<(), Stop> {
        let sample = messages::sample(message)?;
        if sample.t_ms > self.now_ms.saturating_add(MAX_AHEAD_MS) {
            return Err(Stop::Append(AppendError::OutOfBounds));
        }
        let reference = self
            .appender
            .append(target.reference, target.labels, sample.start_ms, sample.t_ms, sample.value)
            .map_err(Stop::Append)?;
        self.remember(target, reference);
        self.written.samples += 1;
        Ok(())
    }

    fn histogram(&mut self, target: &mut Target<'_>, message: &[u8]) -> Result<(), Stop> {
        let sample = messages::histogram(message)?;
        if sample.t_ms > self.now_ms.saturating_add(MAX_AHEAD_MS) {
            return Err(Stop::Append(AppendError::OutOfBounds));
        }
        let reference = self
            .appender
            .append_histogram(target.reference, target.labels, sample.start_ms, sample.t_ms, sample.value)
            .map_err(Stop::Append)?;
        self.remember(target, reference);
        self.written.histograms += 1;
        Ok(())
    }

    /// Exemplar errors never fail a request.
    fn exemplar(&mut self, target: &Target<'_>, t_ms: i64, exemplar: &Exemplar) {
        match self.appender.append_exemplar(target.reference, t_ms, exemplar) {
            Ok(()) => self.written.exemplars += 1,
            Err(e) => tracing::debug!(err = %e, "an exemplar from remote write was refused"),
        }
    }

    fn version_1(&mut self, message: &[u8]) -> Result<(), Stop> {
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => self.series_1(field.bytes()?)?,
                3 => self.metadata_1(&messages::metadata_v1(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn metadata_1(&mut self, raw: &RawMetadata<'_>) {
        let metadata =
            Metadata { metric_type: raw.metric_type, unit: raw.unit.to_owned(), help: raw.help.to_owned() };
        if let Err(e) = self.appender.update_metadata(raw.family, &metadata) {
            tracing::debug!(err = %e, "metadata from remote write was refused");
        }
    }

    fn series_1(&mut self, message: &[u8]) -> Result<(), Stop> {
        let mut raw_labels: Vec<&[u8]> = Vec::with_capacity(16);
        let mut identity = std::mem::take(&mut self.identity);
        identity.clear();
        let mut data = 0u64;
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => {
                    let label = field.bytes()?;
                    if raw_labels.len() >= MAX_LABELS {
                        return Err(WireError::Limit("a series has more than 1024 labels").into());
                    }
                    identity.extend_from_slice(&(label.len() as u32).to_le_bytes());
                    identity.extend_from_slice(label);
                    raw_labels.push(label);
                }
                2 | 4 => data += 1,
                _ => {}
            }
        }
        let hash = self.receiver.known.hash(&identity);
        self.identity = identity;
        let mut parsed: Vec<(&[u8], &[u8])> = Vec::new();
        let reference = self.receiver.known.get(hash);
        let mut checked = None;
        if reference.is_none() {
            for label in &raw_labels {
                parsed.push(messages::label(label)?);
            }
            checked = checked_labels(parsed.iter().copied());
            if checked.is_none() {
                let shown = loose_labels(parsed.iter().copied());
                tracing::warn!(labels = %shown, "Invalid metric names or labels");
                self.receiver.invalid_labels.add(data as f64);
                return Ok(());
            }
        }
        // A known hash was checked when it was noted.
        let build = || match &checked {
            Some(labels) => labels.clone(),
            None => {
                let pairs = raw_labels.iter().filter_map(|label| messages::label(label).ok());
                checked_labels(pairs).unwrap_or_default()
            }
        };
        let mut target = Target { hash, reference: reference.unwrap_or_default(), labels: &build };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            let appended = match field.number {
                2 => self.float(&mut target, field.bytes()?),
                4 => self.histogram(&mut target, field.bytes()?),
                _ => continue,
            };
            match appended {
                // The series that exist go on: the others must not take the whole request with them.
                Err(Stop::Append(e @ AppendError::SeriesLimit(_))) => {
                    self.refuse(|| format!("{e} for series {}", build()));
                    return Ok(());
                }
                other => other?,
            }
        }
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            if field.number == 3 {
                let raw = messages::exemplar(field.bytes()?, false)?;
                let pairs = raw.labels.iter().filter_map(|label| messages::label(label).ok());
                let exemplar =
                    Exemplar { labels: loose_labels(pairs), value: raw.value, timestamp_ms: Some(raw.t_ms) };
                self.exemplar(&target, raw.t_ms, &exemplar);
            }
        }
        self.receiver.without_metadata.add(data as f64);
        Ok(())
    }

    fn version_2(&mut self, message: &[u8]) -> Result<(), Stop> {
        let mut symbols: Vec<&[u8]> = Vec::new();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            if field.number == 4 {
                symbols.push(field.bytes()?);
            }
        }
        let hashes: Vec<LabelHash> = symbols.iter().map(|s| self.receiver.known.hash(s)).collect();
        let mut references = Vec::new();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            if field.number == 5 {
                self.series_2(field.bytes()?, &symbols, &hashes, &mut references)?;
            }
        }
        Ok(())
    }

    fn series_2(
        &mut self,
        message: &[u8],
        symbols: &[&[u8]],
        hashes: &[LabelHash],
        references: &mut Vec<u32>,
    ) -> Result<(), Stop> {
        references.clear();
        let (mut data, mut metadata) = (0u64, None);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => field.each_varint(|v| messages::push_reference(references, v))?,
                2 | 3 => data += 1,
                5 => metadata = Some(messages::metadata_v2(field.bytes()?)?),
                _ => {}
            }
        }
        let known = references.iter().all(|r| (*r as usize) < symbols.len());
        if !known || !references.len().is_multiple_of(2) {
            let message =
                if known { "odd number of label references" } else { "label reference out of range" };
            self.receiver.invalid_labels.add(data as f64);
            self.refuse(|| format!("parsing labels for series: {message}"));
            return Ok(());
        }
        let pair = |refs: &[u32]| (symbols[refs[0] as usize], symbols[refs[1] as usize]);
        let mut identity = std::mem::take(&mut self.identity);
        identity.clear();
        for reference in references.iter() {
            identity.extend_from_slice(&hashes[*reference as usize].to_le_bytes());
        }
        let hash = self.receiver.known.hash(&identity);
        self.identity = identity;
        let reference = self.receiver.known.get(hash);
        let mut checked = None;
        if reference.is_none() {
            checked = checked_labels(references.chunks_exact(2).map(pair));
            if checked.is_none() {
                let shown = loose_labels(references.chunks_exact(2).map(pair));
                self.receiver.invalid_labels.add(data as f64);
                self.refuse(|| format!("invalid metric name or labels, got {shown}"));
                return Ok(());
            }
        }
        let build = || match &checked {
            Some(labels) => labels.clone(),
            None => checked_labels(references.chunks_exact(2).map(pair)).unwrap_or_default(),
        };
        if data == 0 {
            self.refuse(|| {
                format!("TimeSeries must contain at least one sample or histogram for series {}", build())
            });
            return Ok(());
        }
        let mut target = Target { hash, reference: reference.unwrap_or_default(), labels: &build };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            let appended = match field.number {
                2 => self.float(&mut target, field.bytes()?),
                3 => self.histogram(&mut target, field.bytes()?),
                _ => continue,
            };
            match appended {
                Err(Stop::Append(e)) if is_refusal(&e) => {
                    self.refuse(|| format!("{e} for series {}", build()))
                }
                other => other?,
            }
        }
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next_field()? {
            if field.number == 4 {
                let raw = messages::exemplar(field.bytes()?, true)?;
                let pairs = raw.references.chunks_exact(2).filter_map(|refs| {
                    Some((*symbols.get(refs[0] as usize)?, *symbols.get(refs[1] as usize)?))
                });
                let exemplar =
                    Exemplar { labels: loose_labels(pairs), value: raw.value, timestamp_ms: Some(raw.t_ms) };
                self.exemplar(&target, raw.t_ms, &exemplar);
            }
        }
        match metadata {
            Some(raw) => {
                let name = references.chunks_exact(2).map(pair).find(|(n, _)| *n == METRIC_NAME.as_bytes());
                let name = name.and_then(|(_, value)| std::str::from_utf8(value).ok()).unwrap_or("");
                self.metadata_2(&raw, symbols, name);
            }
            None => self.receiver.without_metadata.add(data as f64),
        }
        Ok(())
    }

    fn metadata_2(&mut self, raw: &RawMetadata<'_>, symbols: &[&[u8]], name: &str) {
        let text = |reference: u32| -> Cow<'_, str> {
            symbols.get(reference as usize).map_or(Cow::Borrowed(""), |s| String::from_utf8_lossy(s))
        };
        let (help, unit) = (text(raw.help_ref), text(raw.unit_ref));
        let unknown = raw.metric_type == crate::model::metadata::MetricType::Unknown;
        if unknown && help.is_empty() && unit.is_empty() {
            return;
        }
        let metadata =
            Metadata { metric_type: raw.metric_type, unit: unit.into_owned(), help: help.into_owned() };
        if let Err(e) = self.appender.update_metadata(name, &metadata) {
            tracing::debug!(err = %e, "metadata from remote write was refused");
        }
    }
}
