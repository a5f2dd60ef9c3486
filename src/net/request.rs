//! What is asked, what came back, and what the user of a client decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use super::cloud::Authenticator;
use super::dialer::Dialer;
use crate::telemetry::spans::SpanContext;

/// What the user of a client decides, as opposed to its configuration.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long an unused connection stays open; for scraping it should be above the interval.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept for each host.
    pub max_idle_per_host: usize,
    /// How long connecting may take; the deadline of the request bounds it in any case.
    pub connect_timeout: Option<Duration>,
    /// Connect to this socket whatever the URL says.
    pub unix_socket: Option<PathBuf>,
    /// Speak HTTP/2 from the first byte, without TLS too.
    pub http2_only: bool,
    /// Counts connections.
    pub dialer: Option<Dialer>,
    /// Each connection goes to one of the host's addresses that chance picks.
    pub round_robin_dns: bool,
    /// Signs each request, last of all; for the credentials of cloud providers.
    pub authenticator: Option<Arc<dyn Authenticator>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("Prometheus/3.14.0 (Meerkat/", env!("CARGO_PKG_VERSION"), ")").into(),
            pool_idle_timeout: Duration::from_secs(300),
            max_idle_per_host: 1000,
            connect_timeout: None,
            unix_socket: None,
            http2_only: false,
            dialer: None,
            round_robin_dns: false,
            authenticator: None,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Method; `GET` by default.
    pub method: Method,
    /// Where to.
    pub url: &'a str,
    /// Headers besides those of the configuration; they win over it, except for credentials.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: bytes::Bytes,
    /// Time for everything, redirects and body included.
    pub timeout: Duration,
    /// A body of this many bytes after decompression or more is refused; 0 means 256 MiB.
    pub max_body: u64,
    /// The trace that it belongs to; `None` for requests that are not traced.
    pub trace: Option<SpanContext>,
}

impl<'a> Request<'a> {
    /// A `GET` with the given deadline.
    #[must_use]
    pub fn get(url: &'a str, timeout: Duration) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            timeout,
            max_body: 0,
            trace: None,
        }
    }

    /// A `POST` with the given deadline.
    #[must_use]
    pub fn post(url: &'a str, body: bytes::Bytes, timeout: Duration) -> Self {
        Self { method: Method::POST, body, ..Self::get(url, timeout) }
    }
}

/// The head of an answer; its body is in the buffer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Where it came from after redirects.
    pub url: Url,
    /// Bytes of the body on the wire.
    pub wire_bytes: u64,
    /// Bytes of the body after decompression.
    pub body_bytes: u64,
}

impl Fetched {
    /// The `Content-Type` header, empty if there is none or it is not text.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}
