//! How is another server asked for its samples? One request for each selection, preferring streamed chunks; the answer
//! is one more source of a query, and a failure is a warning, because the samples at hand are worth showing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::messages::{Answered, ReadQuery, decode_frame, decode_samples, encode_request, fill, take_frame};
use crate::config::RemoteReadConfig;
use crate::model::matcher::MatchOp;
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::net::{BodyBuffer, ClientOptions, Dialer, HttpClient, NetError, Request};
use crate::telemetry::{Gauge, Registry};
use crate::tsdb::{LabelQueryHints, Querier, SelectHints, SeriesSet, StorageError};

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 1 << 30;
/// Bounds of request durations, seconds.
const DURATIONS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

/// One server to read from.
pub struct RemoteReader {
    http: HttpClient,
    url: String,
    timeout: Duration,
    headers: HeaderMap,
    frame_limit: u64,
    required: BTreeMap<String, String>,
    read_recent: bool,
    /// External labels that are filtered; empty if they are not.
    external: Labels,
    registry: Arc<Registry>,
    /// Name and URL in metrics.
    shown: (String, String),
    in_flight: Gauge,
    runtime: tokio::runtime::Handle,
}

impl RemoteReader {
    /// The reader of one section.
    pub fn new(
        config: &RemoteReadConfig,
        external: &Labels,
        name: String,
        registry: &Arc<Registry>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, NetError> {
        let dialer = Some(Dialer::new(registry, "remote_storage_read_client"));
        let options = ClientOptions { dialer, ..ClientOptions::default() };
        let http = HttpClient::from_config(&config.http, options)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let bad = || NetError::Header { name: name.clone() };
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.append(parsed, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(
            HeaderName::from_static("x-prometheus-remote-read-version"),
            HeaderValue::from_static("0.1.0"),
        );
        let url = config.url.to_string();
        let in_flight = registry.gauge(
            "prometheus_remote_storage_remote_read_queries",
            "The number of in-flight remote read queries.",
            &[("remote_name", &name), ("url", &url)],
        );
        Ok(Self {
            http,
            url: config.url.expose().to_owned(),
            timeout: config.remote_timeout.as_std(),
            headers,
            frame_limit: config.chunked_read_limit,
            required: config.required_matchers.0.clone(),
            read_recent: config.read_recent,
            external: if config.filter_external_labels { external.clone() } else { Labels::default() },
            registry: Arc::clone(registry),
            shown: (name, url),
            in_flight,
            runtime,
        })
    }

    /// The range that is asked of this server: `None` when local storage has all of it.
    #[must_use]
    pub fn range(&self, min_t_ms: i64, max_t_ms: i64, local_from_ms: i64) -> Option<(i64, i64)> {
        if self.read_recent {
            return Some((min_t_ms, max_t_ms));
        }
        (min_t_ms < local_from_ms).then(|| (min_t_ms, max_t_ms.min(local_from_ms)))
    }

    fn is_wanted(&self, matchers: &[Matcher]) -> bool {
        self.required.iter().all(|(name, value)| {
            matchers.iter().any(|m| m.op == MatchOp::Equal && *m.name == **name && *m.value == **value)
        })
    }

    /// Runs a query. Blocks.
    fn read(&self, query: &ReadQuery) -> Result<Vec<Answered>, String> {
        let message = encode_request(query);
        let packed = snap::raw::Encoder::new().compress_vec(&message).map_err(|e| e.to_string())?;
        let mut request = Request::post(&self.url, Bytes::from(packed), self.timeout);
        request.headers = self.headers.clone();
        request.max_body = MAX_ANSWER;
        let mut buffer = BodyBuffer::new();
        self.in_flight.add(1.0);
        let begun = Instant::now();
        let fetched = self.runtime.block_on(self.http.fetch(request, &mut buffer));
        self.in_flight.add(-1.0);
        let streamed =
            fetched.as_ref().is_ok_and(|f| f.content_type().starts_with("application/x-streamed-protobuf"));
        let code = fetched.as_ref().map_or("0".to_owned(), |f| f.status.as_u16().to_string());
        self.count(&code, if streamed { "chunked" } else { "sampled" }, begun.elapsed());
        let fetched = fetched.map_err(|e| format!("error sending request: {e}"))?;
        if !fetched.status.is_success() {
            let text = String::from_utf8_lossy(buffer.bytes()).trim().to_owned();
            let url = &self.shown.1;
            return Err(format!("remote server {url} returned http status {}: {text}", fetched.status));
        }
        let mut out = Vec::new();
        if streamed {
            let mut rest = buffer.bytes();
            while let Some(frame) = take_frame(&mut rest, self.frame_limit)? {
                decode_frame(frame, &mut out)?;
            }
        } else {
            let content_type = fetched.content_type();
            if !content_type.starts_with("application/x-protobuf") {
                return Err(format!("unsupported content type: {content_type}"));
            }
            decode_samples(buffer.bytes(), &mut out)?;
        }
        Ok(out)
    }

    fn count(&self, code: &str, form: &str, took: Duration) {
        let (name, url) = &self.shown;
        let labels = [("remote_name", name.as_str()), ("url", url), ("response_type", form)];
        let help = "The total number of remote read queries.";
        let [a, b, c] = labels;
        self.registry
            .counter("prometheus_remote_storage_read_queries_total", help, &[a, b, c, ("code", code)])
            .inc();
        let help = "Histogram of the latency for remote read requests. Note that for streamed responses this is only the duration of the initial call and does not include the processing of the stream.";
        self.registry
            .histogram("prometheus_remote_storage_read_request_duration_seconds", help, &DURATIONS, &labels)
            .observe(took.as_secs_f64());
    }
}

/// Adds the external labels that the matchers do not speak of; the second value names them.
fn add_external(matchers: &[Matcher], external: &Labels) -> (Vec<Matcher>, Vec<String>) {
    let mut out = matchers.to_vec();
    let mut added = Vec::new();
    for label in external.iter() {
        if !matchers.iter().any(|m| *m.name == *label.name) {
            out.push(Matcher::equal(label.name, label.value));
            added.push(label.name.to_owned());
        }
    }
    (out, added)
}

/// A server as one source of a query.
pub struct RemoteQuerier {
    /// The server.
    pub reader: Arc<RemoteReader>,
    /// First timestamp.
    pub min_t_ms: i64,
    /// Last timestamp.
    pub max_t_ms: i64,
}

impl Querier for RemoteQuerier {
    fn select(&self, hints: &SelectHints, matchers: &[Matcher]) -> Result<Box<dyn SeriesSet>, StorageError> {
        let mut set = RemoteSet::default();
        if !self.reader.is_wanted(matchers) {
            return Ok(Box::new(set));
        }
        let (matchers, added) = add_external(matchers, &self.reader.external);
        let query =
            ReadQuery { start_ms: self.min_t_ms, end_ms: self.max_t_ms, matchers, hints: hints.clone() };
        match self.reader.read(&query) {
            Ok(mut series) => {
                for (labels, _) in &mut series {
                    if !added.is_empty() {
                        *labels = labels.filter(|l| !added.iter().any(|name| name == l.name));
                    }
                }
                series.sort_by(|a, b| a.0.cmp(&b.0));
                for (labels, columns) in series {
                    match set.series.last_mut().filter(|(last, _)| *last == labels) {
                        Some((_, known)) => known.merge(&columns),
                        None => set.series.push((labels, columns)),
                    }
                }
            }
            Err(e) => {
                tracing::warn!(remote = self.reader.shown.0, err = %e, "remote read failed");
                set.warnings.push(format!("remote_read: {e}"));
            }
        }
        Ok(Box::new(set))
    }

    fn label_names(&self, _: &[Matcher], _: &LabelQueryHints) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &str, _: &[Matcher], _: &LabelQueryHints) -> Result<Vec<String>, StorageError> {
        Ok(Vec::new())
    }
}

#[derive(Default)]
struct RemoteSet {
    series: Vec<Answered>,
    warnings: Vec<String>,
}

impl SeriesSet for RemoteSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, i: usize) -> Labels {
        self.series.get(i).map(|s| s.0.clone()).unwrap_or_default()
    }

    fn samples(
        &self,
        i: usize,
        min_t_ms: i64,
        max_t_ms: i64,
        out: &mut SampleBuffer,
    ) -> Result<(), StorageError> {
        out.clear();
        if let Some((_, columns)) = self.series.get(i) {
            fill(columns, min_t_ms, max_t_ms, out);
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
