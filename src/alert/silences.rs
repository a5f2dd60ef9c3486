//! How are silences read and written where alerts are sent? With three requests to an Alertmanager that the
//! configuration names, and no others: this is no way to make the server talk to other hosts or paths.

use std::time::Duration;

use http::{HeaderValue, Method, header};

use crate::net::{BodyBuffer, HttpClient, Request};

/// Largest answer that is read, in bytes: some 10,000 silences.
const MAX_ANSWER: u64 = 8 << 20;
/// Characters of an Alertmanager's complaint that are passed on.
const MAX_REASON: usize = 300;
const ALERTS: &str = "/alerts";

/// What can be asked of an Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SilenceCall {
    /// All silences as a JSON list.
    List,
    /// Creates a silence, or replaces the one whose `id` it has; the body is JSON.
    Put(Vec<u8>),
    /// Ends the silence with this identifier.
    Expire(String),
}

/// An Alertmanager of the configuration with the client of its section.
#[derive(Debug, Clone)]
pub struct SilenceDoor {
    /// Where alerts are posted; silences stand beside them.
    pub alerts_url: String,
    /// Client of the section.
    pub client: HttpClient,
    /// Time for a request.
    pub timeout: Duration,
}

impl SilenceDoor {
    /// Makes the request and gives back the body of the answer; the error is a text for people.
    pub async fn call(&self, call: SilenceCall) -> Result<Vec<u8>, String> {
        let (method, url, body) = request_of(&self.alerts_url, call)?;
        let mut request = Request::get(&url, self.timeout);
        request.method = method;
        if !body.is_empty() {
            request.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.body = body.into();
        request.max_body = MAX_ANSWER;
        let mut answer = BodyBuffer::new();
        let fetched = self.client.fetch(request, &mut answer).await.map_err(|e| e.to_string())?;
        if fetched.status.is_success() {
            return Ok(answer.bytes().to_vec());
        }
        let reason: String = String::from_utf8_lossy(answer.bytes()).chars().take(MAX_REASON).collect();
        Err(format!("the Alertmanager answered with status {}: {}", fetched.status, reason.trim()))
    }
}

/// Method, URL and body of a call.
fn request_of(alerts_url: &str, call: SilenceCall) -> Result<(Method, String, Vec<u8>), String> {
    let base = alerts_url
        .strip_suffix(ALERTS)
        .ok_or_else(|| format!("{alerts_url} does not end in {ALERTS}: its silences cannot be found"))?;
    match call {
        SilenceCall::List => Ok((Method::GET, format!("{base}/silences"), Vec::new())),
        SilenceCall::Put(body) => Ok((Method::POST, format!("{base}/silences"), body)),
        SilenceCall::Expire(id) => {
            let plain = !id.is_empty()
                && id.len() <= 64
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if !plain {
                return Err("the identifier of a silence has letters, digits and hyphens only".into());
            }
            Ok((Method::DELETE, format!("{base}/silence/{id}"), Vec::new()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stay_beside_the_alerts() {
        let url = "http://am:9093/prefix/api/v2/alerts";
        let of = |call| request_of(url, call).map(|(method, url, _)| format!("{method} {url}"));
        assert_eq!(of(SilenceCall::List).as_deref(), Ok("GET http://am:9093/prefix/api/v2/silences"));
        assert_eq!(
            of(SilenceCall::Put(b"{}".to_vec())).as_deref(),
            Ok("POST http://am:9093/prefix/api/v2/silences")
        );
        assert_eq!(
            of(SilenceCall::Expire("0b-1f".into())).as_deref(),
            Ok("DELETE http://am:9093/prefix/api/v2/silence/0b-1f")
        );
        for id in ["", "../alerts", "a/b", "a?b", "a%2fb", &"a".repeat(65)] {
            assert!(of(SilenceCall::Expire(id.to_owned())).is_err(), "{id}");
        }
        assert!(request_of("http://am/elsewhere", SilenceCall::List).is_err());
    }
}
