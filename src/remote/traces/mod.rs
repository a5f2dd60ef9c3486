//! How do spans leave? As OTLP, over HTTP or gRPC, to the `endpoint` of the section `tracing`, in batches and in the
//! background. What a collector does not take in time is dropped: no request waits for its trace.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::{HttpClientConfig, TracingClientType, TracingConfig};
use crate::net::{BodyBuffer, ClientOptions, Fetched, HttpClient, Request};
use crate::telemetry::spans::{FinishedSpan, Sink, WORTH_SENDING, set_sink};

/// Messages.
mod message;

/// Longest time a span waits for others.
const PERIOD: Duration = Duration::from_secs(5);
/// Pause before a message is sent again.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a message is sent at most.
const ATTEMPTS: u32 = 12;
/// How long sending may take when the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is left may take when the process stops.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 1 << 20;
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";

/// Sends the spans of the process where the configuration says.
#[derive(Debug, Default)]
pub struct TraceExporter(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    config: TracingConfig,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl TraceExporter {
    /// Takes over a section, or its absence. The error says why nothing can be sent.
    pub fn apply(
        &self,
        config: Option<&TracingConfig>,
        resource: &[(&'static str, String)],
        runtime: &tokio::runtime::Handle,
    ) -> Result<(), String> {
        let mut running = self.0.lock();
        if running.as_ref().map(|r| &r.config) == config {
            return Ok(());
        }
        let collector = config.map(Collector::new).transpose()?;
        if let Some(old) = running.take() {
            old.stop.cancel();
        }
        set_sink(None);
        if let (Some(config), Some(collector)) = (config, collector) {
            let (sink, stop) = (Sink::new(config.sampling_fraction), CancellationToken::new());
            set_sink(Some(Arc::clone(&sink)));
            let task = runtime.spawn(send(sink, collector, resource.to_vec(), stop.clone()));
            *running = Some(Running { config: config.clone(), stop, task });
        }
        Ok(())
    }

    /// Sends what there is, for a short time.
    pub async fn stop(&self) {
        let running = self.0.lock().take();
        set_sink(None);
        if let Some(Running { stop, task, .. }) = running {
            stop.cancel();
            // It ends by itself soon; a panic in it was logged.
            let _ = tokio::time::timeout(LAST_TIMEOUT, task).await;
        }
    }
}

async fn send(
    sink: Arc<Sink>,
    collector: Collector,
    resource: Vec<(&'static str, String)>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => {}
            () = sink.enough.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
        loop {
            let spans = sink.take(WORTH_SENDING);
            if spans.is_empty() {
                break;
            }
            collector.deliver(&spans, &resource, &stop).await;
        }
        let dropped = sink.take_dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "spans were dropped: they came faster than the collector takes them");
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// How a message ended.
enum Outcome {
    Taken,
    Later(String),
    Refused(String),
}

struct Collector {
    http: HttpClient,
    url: String,
    grpc: bool,
    gzip: bool,
    headers: HeaderMap,
    timeout: Duration,
}

impl Collector {
    fn new(config: &TracingConfig) -> Result<Self, String> {
        let fail = |e: &dyn std::fmt::Display| format!("tracing: {e}");
        let grpc = config.client_type == TracingClientType::Grpc;
        let client =
            HttpClientConfig { tls_config: config.tls_config.clone(), ..HttpClientConfig::default() };
        let options = ClientOptions { http2_only: grpc, ..ClientOptions::default() };
        let http = HttpClient::from_config(&client, options).map_err(|e| fail(&e))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let bad = |_| fail(&format!("header {name:?} cannot be sent"));
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
            headers.append(parsed, HeaderValue::from_str(value).map_err(|_| bad(()))?);
        }
        let gzip = config.compression == "gzip";
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if gzip {
                headers.insert(HeaderName::from_static("grpc-encoding"), HeaderValue::from_static("gzip"));
            }
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            if gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        let timeout = match config.timeout.as_std() {
            Duration::ZERO => TIMEOUT,
            given => given,
        };
        Ok(Self { http, url: url_of(config, grpc), grpc, gzip, headers, timeout })
    }

    fn pack(&self, message: &[u8]) -> std::io::Result<Bytes> {
        let mut packed = message.to_vec();
        if self.gzip {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(message)?;
            packed = writer.finish()?;
        }
        if self.grpc {
            // One message of a stream: whether it is compressed, and its length.
            let length = u32::try_from(packed.len()).map_err(std::io::Error::other)?;
            let mut framed = vec![u8::from(self.gzip)];
            framed.extend_from_slice(&length.to_be_bytes());
            framed.append(&mut packed);
            packed = framed;
        }
        Ok(packed.into())
    }

    /// Sends spans again and again until they are taken or refused, or it is time to stop.
    async fn deliver(&self, spans: &[FinishedSpan], resource: &[(&str, String)], stop: &CancellationToken) {
        let body = match self.pack(&message::request(spans, resource)) {
            Ok(body) => body,
            Err(error) => return tracing::error!(%error, "spans could not be packed"),
        };
        for attempt in 1.. {
            let reason = match self.post(body.clone()).await {
                Outcome::Taken => return,
                Outcome::Refused(reason) => reason,
                Outcome::Later(_) if attempt < ATTEMPTS && !stop.is_cancelled() => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    continue;
                }
                Outcome::Later(reason) => reason,
            };
            tracing::error!(count = spans.len(), err = %reason, "spans were not taken and are lost");
            return;
        }
    }

    async fn post(&self, body: Bytes) -> Outcome {
        let mut request = Request::post(&self.url, body, self.timeout);
        request.headers = self.headers.clone();
        request.max_body = MAX_ANSWER;
        let mut answer = BodyBuffer::new();
        match self.http.fetch(request, &mut answer).await {
            Ok(fetched) if self.grpc => grpc_outcome(&fetched, answer.bytes()),
            Ok(fetched) => http_outcome(&fetched, answer.bytes()),
            Err(e) => Outcome::Later(e.to_string()),
        }
    }
}

/// `host:port` as Prometheus wants it; a path or a scheme is kept if there is one.
fn url_of(config: &TracingConfig, grpc: bool) -> String {
    let (scheme, rest) = match config.endpoint.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if config.insecure => ("http", config.endpoint.as_str()),
        None => ("https", config.endpoint.as_str()),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match (grpc, path) {
        (true, _) => format!("{scheme}://{host}{GRPC_PATH}"),
        (false, "") => format!("{scheme}://{host}{HTTP_PATH}"),
        (false, path) => format!("{scheme}://{host}/{path}"),
    }
}

fn http_outcome(fetched: &Fetched, body: &[u8]) -> Outcome {
    let status = fetched.status;
    if status.is_success() {
        return Outcome::Taken;
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let reason = format!("server returned HTTP status {status}: {text}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Outcome::Later(reason),
        _ => Outcome::Refused(reason),
    }
}

/// A refusal has its status among the headers or sends nothing before it; whoever took the message answers with one.
fn grpc_outcome(fetched: &Fetched, body: &[u8]) -> Outcome {
    let header = |name: &str| fetched.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if fetched.status != StatusCode::OK {
        return http_outcome(fetched, body);
    }
    match header("grpc-status") {
        "" if body.len() >= 5 => Outcome::Taken,
        "0" => Outcome::Taken,
        "" => Outcome::Refused("the collector ended the call without an answer".into()),
        code => {
            let reason = format!("the collector answered with status {code}: {}", header("grpc-message"));
            match code {
                // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data loss.
                "1" | "4" | "8" | "10" | "11" | "14" | "15" => Outcome::Later(reason),
                _ => Outcome::Refused(reason),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_urls() {
        let mut config = TracingConfig { endpoint: "collector:4318".into(), ..TracingConfig::default() };
        assert_eq!(url_of(&config, false), "https://collector:4318/v1/traces");
        config.insecure = true;
        assert_eq!(url_of(&config, false), "http://collector:4318/v1/traces");
        assert_eq!(url_of(&config, true), format!("http://collector:4318{GRPC_PATH}"));
        config.endpoint = "https://c/other/path".into();
        assert_eq!(url_of(&config, false), "https://c/other/path");
    }
}
