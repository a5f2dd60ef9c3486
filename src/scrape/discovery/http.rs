//! Targets from an HTTP endpoint: a JSON list of groups.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::refresh::Refresher;
use crate::config::HttpSdConfig;
use crate::model::target_group::TargetGroup;
use crate::net::{BodyBuffer, ClientOptions, HttpClient, Request};
use crate::telemetry::{Counter, Registry};

/// Largest list that is read.
const MAX_BODY: u64 = 256 << 20;
const REFRESH_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");

pub(super) struct HttpDiscovery {
    client: HttpClient,
    url: String,
    shown_url: String,
    interval: Duration,
    failures: Counter,
    buffer: BodyBuffer,
}

impl HttpDiscovery {
    pub(super) fn new(config: &HttpSdConfig, registry: &Arc<Registry>) -> Result<Self, String> {
        let client =
            HttpClient::from_config(&config.http, ClientOptions::default()).map_err(|e| e.to_string())?;
        Ok(Self {
            client,
            url: config.url.expose().to_owned(),
            shown_url: config.url.to_string(),
            interval: config.refresh_interval.as_std(),
            failures: registry.counter(
                "prometheus_sd_http_failures_total",
                "Number of HTTP service discovery refresh failures.",
                &[],
            ),
            buffer: BodyBuffer::new(),
        })
    }

    async fn ask(&mut self) -> Result<Vec<TargetGroup>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let seconds = crate::model::number::format_plain(self.interval.as_secs_f64());
        if let Ok(seconds) = HeaderValue::from_str(&seconds) {
            headers.insert(REFRESH_HEADER, seconds);
        }
        let timeout = self.interval.max(Duration::from_secs(1));
        let request = Request { headers, max_body: MAX_BODY, ..Request::get(&self.url, timeout) };
        let fetched = self.client.fetch(request, &mut self.buffer).await.map_err(|e| e.to_string())?;
        if fetched.status != StatusCode::OK {
            return Err(format!("server returned HTTP status {}", fetched.status));
        }
        let content_type = fetched.content_type();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            return Err(format!("unsupported content type {content_type:?}"));
        }
        super::file::parse_json_groups(self.buffer.bytes(), &self.shown_url, &self.url_label())
    }

    fn url_label(&self) -> [(String, String); 1] {
        [("__meta_url".to_owned(), self.shown_url.clone())]
    }
}

impl Refresher for HttpDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let result = self.ask().await;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        if result.is_err() {
            self.failures.inc();
        }
        result
    }
}
