//! How is a target asked for its metrics? With Prometheus's headers; only status 200 is a success.

use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::scrape_loop::ScrapeError;
use super::settings::JobSettings;
use super::target::Target;
use crate::net::{BodyBuffer, HttpClient, Kept, Request};
use crate::telemetry::spans::SpanContext;

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The headers that all requests of a job have.
pub(super) fn headers(accept: &str, compressed: bool, user_agent: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Ok(agent) = HeaderValue::from_str(user_agent)
        && !user_agent.is_empty()
    {
        headers.insert(USER_AGENT, agent);
    }
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(ACCEPT, accept);
    }
    let encoding = if compressed { "gzip" } else { "identity" };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    headers
}

/// Fetches the body into `body` and returns its `Content-Type`.
pub(super) async fn fetch(
    client: &HttpClient,
    settings: &JobSettings,
    target: &Target,
    kept: &mut Kept,
    body: &mut BodyBuffer,
) -> Result<String, ScrapeError> {
    let mut headers = settings.headers.clone();
    let seconds = crate::model::number::format_plain(target.timeout.as_secs_f64());
    if let Ok(seconds) = HeaderValue::from_str(&seconds) {
        headers.insert(TIMEOUT_HEADER, seconds);
    }
    let request = Request {
        headers,
        max_body: settings.config.body_size_limit.as_u64(),
        trace: Some(SpanContext::Outside),
        ..Request::get(&target.url, target.timeout)
    };
    let fetched = client.fetch_kept(request, kept, body).await?;
    if fetched.status != StatusCode::OK {
        return Err(ScrapeError::Status(fetched.status));
    }
    Ok(fetched.content_type().to_owned())
}
