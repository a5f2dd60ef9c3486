//! What does a peer say to a request? One request goes out; the answer tells whether it was taken, whether it is worth
//! repeating, and when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::config::RemoteWriteConfig;
use crate::net::cloud::authenticator_for;
use crate::net::{BodyBuffer, ClientOptions, Dialer, HttpClient, NetError, Request};
use crate::remote::receive::{MessageVersion, Written};
use crate::telemetry::Registry;
use crate::telemetry::spans::SpanContext;

/// Bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 1 << 20;
/// Level of zstd: faster than snappy is not, but half the bytes.
const ZSTD_LEVEL: i32 = 1;

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Taken; version 2.0 says how much of it.
    Taken(Option<Written>),
    /// Not taken now.
    Retry {
        /// Why.
        reason: String,
        /// How long the peer asks to wait.
        after: Option<Duration>,
    },
    /// Not taken, now or later.
    Refused {
        /// Why.
        reason: String,
        /// What was taken nevertheless (version 2.0).
        written: Option<Written>,
    },
}

/// Sends to one peer.
#[derive(Debug)]
pub struct WriteClient {
    http: HttpClient,
    url: String,
    timeout: Duration,
    headers: HeaderMap,
    version: MessageVersion,
    retry_on_429: bool,
    /// The peer said that it takes zstd.
    zstd: AtomicBool,
}

fn header(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// Seconds or a date, as a wait from now.
fn retry_after(headers: &HeaderMap, now_ms: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(86_400)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
    u64::try_from(date.saturating_sub(now_ms)).ok().map(|ms| Duration::from_millis(ms.min(86_400_000)))
}

fn written(headers: &HeaderMap) -> Option<Written> {
    let count = |name: &'static str| headers.get(header(name))?.to_str().ok()?.trim().parse::<u64>().ok();
    let samples = count("x-prometheus-remote-write-samples-written");
    let histograms = count("x-prometheus-remote-write-histograms-written");
    let exemplars = count("x-prometheus-remote-write-exemplars-written");
    (samples.is_some() || histograms.is_some() || exemplars.is_some()).then(|| Written {
        samples: samples.unwrap_or(0),
        histograms: histograms.unwrap_or(0),
        exemplars: exemplars.unwrap_or(0),
    })
}

impl WriteClient {
    /// The client of one section.
    pub fn new(
        config: &RemoteWriteConfig,
        version: MessageVersion,
        registry: &Registry,
    ) -> Result<Self, NetError> {
        let (sigv4, azure, google) =
            (config.sigv4.as_ref(), config.azuread.as_ref(), config.google_iam.as_ref());
        let authenticator = authenticator_for(sigv4, "aps", azure, google)?;
        let options = ClientOptions {
            authenticator,
            dialer: Some(Dialer::new(registry, "remote_storage_write_client")),
            round_robin_dns: config.round_robin_dns,
            ..ClientOptions::default()
        };
        let http = HttpClient::from_config(&config.http, options)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let bad = || NetError::Header { name: name.clone() };
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.append(parsed, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        let (media, number) = match version {
            MessageVersion::V1 => ("application/x-protobuf", "0.1.0"),
            MessageVersion::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header("x-prometheus-remote-write-version"), HeaderValue::from_static(number));
        Ok(Self {
            http,
            url: config.url.expose().to_owned(),
            timeout: config.remote_timeout.as_std(),
            headers,
            version,
            retry_on_429: config.queue_config.retry_on_http_429,
            zstd: AtomicBool::new(false),
        })
    }

    /// Compresses a message in the way the peer likes best; the second value names it.
    pub fn pack(&self, message: &[u8]) -> Result<(Bytes, &'static str), String> {
        if self.zstd.load(Ordering::Relaxed)
            && let Ok(packed) = zstd::bulk::compress(message, ZSTD_LEVEL)
        {
            return Ok((packed.into(), "zstd"));
        }
        let packed = snap::raw::Encoder::new().compress_vec(message).map_err(|e| e.to_string())?;
        Ok((packed.into(), "snappy"))
    }

    /// Sends a compressed message; `attempt` counts from 0.
    pub async fn send(
        &self,
        body: Bytes,
        encoding: &'static str,
        attempt: u32,
        now_ms: i64,
        trace: SpanContext,
    ) -> Answer {
        let mut request = Request::post(&self.url, body, self.timeout);
        request.headers = self.headers.clone();
        request.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        if attempt > 0 {
            request.headers.insert(header("retry-attempt"), HeaderValue::from(attempt));
        }
        request.max_body = MAX_ANSWER;
        request.trace = Some(trace);
        let mut buffer = BodyBuffer::new();
        let fetched = match self.http.fetch(request, &mut buffer).await {
            Ok(fetched) => fetched,
            Err(e) => return Answer::Retry { reason: e.to_string(), after: None },
        };
        // RFC 7694: a server says in its answers which encodings of requests it takes.
        if let Some(accepted) = fetched.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()) {
            let takes = accepted.split(',').any(|e| e.trim().eq_ignore_ascii_case("zstd"));
            self.zstd.store(takes, Ordering::Relaxed);
        }
        let status = fetched.status;
        let written = written(&fetched.headers).filter(|_| self.version == MessageVersion::V2);
        if status.is_success() {
            return Answer::Taken(written);
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE && encoding == "zstd" {
            self.zstd.store(false, Ordering::Relaxed);
        }
        let text = String::from_utf8_lossy(buffer.bytes()).into_owned();
        let first = text.lines().next().unwrap_or("");
        let reason = format!("server returned HTTP status {status}: {first}");
        let again =
            status.is_server_error() || (status == StatusCode::TOO_MANY_REQUESTS && self.retry_on_429);
        if again {
            Answer::Retry { reason, after: retry_after(&fetched.headers, now_ms) }
        } else {
            Answer::Refused { reason, written }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        let now_ms = 1_445_412_480_000; // Wed, 21 Oct 2015 07:28:00 GMT
        for (text, want) in [
            ("120", Some(120)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", None),
            ("soon", None),
            ("99999999", Some(86_400)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a header"));
            assert_eq!(retry_after(&headers, now_ms), want.map(Duration::from_secs), "{text}");
        }
    }
}
