//! Metrics of OpenTelemetry over HTTP: what happens to an export request? It is read ([`proto`], [`json`]), translated
//! ([`translate`], [`names`]), points since the point before are added up if wanted ([`delta`]), and everything is
//! appended as one batch.

use std::io::Read as _;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::receive::MAX_REQUEST_BYTES;
use super::wire_out::{bytes, text, unsigned};
use crate::model::clock::Clock;
use crate::model::metadata::Metadata;
use crate::model::sample::Value;
use crate::tsdb::{AppendError, Appendable, Appender, BatchOptions, SeriesRef};

/// Adding up.
pub mod delta;
/// Requests in JSON.
pub mod json;
/// Requests as read.
pub mod model;
/// Names.
pub mod names;
/// Requests in protobuf.
pub mod proto;
mod shapes;
/// From points to samples.
pub mod translate;

use delta::DeltaStore;
use translate::{OutSample, Rejected, Settings, Sink, Translator};

/// How far ahead of now a sample may be, milliseconds.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// The form of a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Stored, except for points that cannot be translated.
    Stored(Rejected),
    /// The sender should not try again, status 400.
    Refused(String),
    /// The sender should try again, status 500.
    Retry(String),
}

/// Takes export requests in.
pub struct OtlpReceiver {
    storage: Arc<dyn Appendable>,
    clock: Arc<dyn Clock>,
    settings: ArcSwap<Settings>,
    deltas: DeltaStore,
}

/// Undoes gzip under the size limit.
pub fn decompress(body: &[u8], encoding: &str) -> Result<Vec<u8>, String> {
    match encoding {
        "" | "identity" => Ok(body.to_vec()),
        "gzip" => {
            let mut out = Vec::new();
            let limit = MAX_REQUEST_BYTES as u64;
            let read = flate2::read::MultiGzDecoder::new(body).take(limit + 1).read_to_end(&mut out);
            read.map_err(|e| format!("gzip: {e}"))?;
            if out.len() as u64 > limit {
                return Err(format!("gzip: decoded size exceeds the limit of {limit} bytes"));
            }
            Ok(out)
        }
        other => Err(format!("unsupported compression: {other}. Only \"gzip\" or no compression supported")),
    }
}

/// The answer to a request that was stored, with what could not be translated.
#[must_use]
pub fn response(form: Form, rejected: &Rejected) -> Vec<u8> {
    let message = rejected.reasons.join("; ");
    match form {
        Form::Protobuf if message.is_empty() => Vec::new(),
        Form::Protobuf => {
            let (mut partial, mut out) = (Vec::new(), Vec::new());
            unsigned(&mut partial, 1, rejected.points);
            text(&mut partial, 2, &message);
            bytes(&mut out, 1, &partial);
            out
        }
        Form::Json if message.is_empty() => b"{}".to_vec(),
        Form::Json => {
            let partial = serde_json::json!({
                "rejectedDataPoints": rejected.points.to_string(), "errorMessage": message
            });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

impl OtlpReceiver {
    /// A receiver that writes to `storage`.
    pub fn new(storage: Arc<dyn Appendable>, clock: Arc<dyn Clock>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            storage,
            clock,
            settings: ArcSwap::from_pointee(settings),
            deltas: DeltaStore::default(),
        })
    }

    /// Takes over the `otlp` section of a configuration.
    pub fn configure(&self, config: &crate::config::OtlpConfig) {
        let mut settings = (**self.settings.load()).clone();
        settings.config = config.clone();
        self.settings.store(Arc::new(settings));
    }

    /// Stores one request. Blocks until the batch is durable.
    pub fn receive(&self, message: &[u8], form: Form, source: u64) -> Outcome {
        let read = match form {
            Form::Protobuf => proto::request(message).map_err(|e| e.to_string()),
            Form::Json => json::request(message),
        };
        let request = match read {
            Ok(request) => request,
            Err(e) => return Outcome::Refused(e),
        };
        let mut batch = Batch {
            appender: self.storage.appender(BatchOptions { source, ..BatchOptions::default() }),
            latest_ms: self.clock.now_ms().saturating_add(MAX_AHEAD_MS),
            refused: Vec::new(),
            refused_count: 0,
            failure: None,
        };
        let settings = self.settings.load_full();
        let rejected = Translator::new(&settings, &self.deltas, &mut batch).run(&request);
        if !rejected.reasons.is_empty() {
            tracing::warn!(points = rejected.points, err = %rejected.reasons.join("; "), "Error translating OTLP metrics");
        }
        let Batch { appender, refused, refused_count, failure, .. } = batch;
        if let Some(failure) = failure {
            appender.rollback();
            return Outcome::Retry(failure.to_string());
        }
        let stored = appender.commit().and_then(|c| c.wait_durable().map_err(AppendError::Storage));
        if let Err(e) = stored {
            return Outcome::Retry(e.to_string());
        }
        if refused_count > 0 {
            let more = refused_count - refused.len();
            let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
            return Outcome::Refused(format!("{}{more}", refused.join("\n")));
        }
        Outcome::Stored(rejected)
    }
}

struct Batch<'a> {
    appender: Box<dyn Appender + 'a>,
    latest_ms: i64,
    refused: Vec<String>,
    refused_count: usize,
    failure: Option<AppendError>,
}

impl Sink for Batch<'_> {
    fn sample(&mut self, sample: OutSample) {
        if self.failure.is_some() {
            return;
        }
        let OutSample { labels, start_ms, t_ms, value, exemplars } = sample;
        let result = if t_ms > self.latest_ms {
            Err(AppendError::OutOfBounds)
        } else {
            let build = || labels.clone();
            match value {
                Value::Float(v) => self.appender.append(SeriesRef::NONE, &build, start_ms, t_ms, v),
                Value::Histogram(h) => {
                    self.appender.append_histogram(SeriesRef::NONE, &build, start_ms, t_ms, h)
                }
            }
        };
        match result {
            Ok(reference) => {
                for exemplar in &exemplars {
                    // Exemplar errors never fail a request.
                    if let Err(e) = self.appender.append_exemplar(reference, t_ms, exemplar) {
                        tracing::debug!(err = %e, "an exemplar over OTLP was refused");
                    }
                }
            }
            Err(e @ (AppendError::Storage(_) | AppendError::SeriesLimit(_))) => self.failure = Some(e),
            Err(e) => {
                self.refused_count += 1;
                if self.refused.len() < 20 {
                    self.refused.push(format!("{e}: {labels} at {t_ms}"));
                }
            }
        }
    }

    fn metadata(&mut self, family: &str, metadata: &Metadata) {
        if let Err(e) = self.appender.update_metadata(family, metadata) {
            tracing::debug!(err = %e, "metadata over OTLP was refused");
        }
    }
}
