//! JSON over HTTP, as most mechanisms speak it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::config::HttpClientConfig;
use crate::net::cloud::Authenticator;
use crate::net::{BodyBuffer, ClientOptions, HttpClient, Lines, Request};

/// Largest answer that is read.
const MAX_BODY: u64 = 256 << 20;

/// A client of one API.
pub(super) struct Rest {
    client: HttpClient,
    /// The address before paths, without a slash at its end.
    base: String,
    headers: HeaderMap,
    pub(super) timeout: Duration,
    buffer: BodyBuffer,
}

impl Rest {
    /// A client for `base`: an `http` or `https` address, or `unix:///path` for a socket.
    pub(super) fn new(http: &HttpClientConfig, base: &str) -> Result<Self, String> {
        Self::with(http, base, None)
    }

    /// As [`Rest::new`], with credentials of a cloud provider.
    pub(super) fn with(
        http: &HttpClientConfig,
        base: &str,
        authenticator: Option<Arc<dyn Authenticator>>,
    ) -> Result<Self, String> {
        let socket = base.strip_prefix("unix://").map(std::path::PathBuf::from);
        let base = if socket.is_some() {
            "http://localhost".to_owned()
        } else {
            base.replacen("tcp://", "http://", 1)
        };
        let options = ClientOptions { unix_socket: socket, authenticator, ..ClientOptions::default() };
        let client = HttpClient::from_config(http, options).map_err(|e| e.to_string())?;
        Ok(Self {
            client,
            base: base.trim_end_matches('/').to_owned(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(30),
            buffer: BodyBuffer::new(),
        })
    }

    /// Sends this header with every request; it never shows in messages.
    pub(super) fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// Sends later requests there.
    pub(super) fn set_base(&mut self, base: &str) {
        self.base = base.trim_end_matches('/').to_owned();
    }

    /// Where requests go.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request and returns the answer whatever its status.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<(StatusCode, &[u8], HeaderMap), String> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut all = self.headers.clone();
        for (name, value) in headers {
            let mut value =
                HeaderValue::from_str(value).map_err(|_| format!("header {name} is not valid"))?;
            value.set_sensitive(true);
            all.insert(HeaderName::from_static(name), value);
        }
        let request = Request {
            method,
            headers: all,
            body: body.into(),
            max_body: MAX_BODY,
            ..Request::get(&url, self.timeout)
        };
        let fetched = self.client.fetch(request, &mut self.buffer).await.map_err(|e| e.to_string())?;
        Ok((fetched.status, self.buffer.bytes(), fetched.headers))
    }

    /// Begins to read an answer that comes line by line.
    pub(super) async fn open(&mut self, path: &str) -> Result<Lines, String> {
        let url = format!("{}{path}", self.base);
        let request =
            Request { headers: self.headers.clone(), max_body: MAX_BODY, ..Request::get(&url, self.timeout) };
        self.client.open(request).await.map_err(|e| e.to_string())
    }

    /// Fetches bytes and the headers of the answer.
    pub(super) async fn get_bytes(&mut self, path: &str) -> Result<(&[u8], HeaderMap), String> {
        let (status, body, headers) = self.send(Method::GET, path, &[], Vec::new()).await?;
        if status != StatusCode::OK {
            let path = path.split('?').next().unwrap_or_default();
            return Err(format!("{path} answered with status {status}"));
        }
        Ok((body, headers))
    }

    /// Posts JSON and fetches a JSON document; any 2xx is fine.
    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, String> {
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let body = body.to_string().into_bytes();
        let (status, answer, _) = self.send(Method::POST, path, &headers, body).await?;
        if !status.is_success() {
            return Err(format!("{path} answered with status {status}"));
        }
        serde_json::from_slice(answer).map_err(|e| format!("cannot decode the answer of {path}: {e}"))
    }

    /// Fetches a JSON document.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, String> {
        self.get_with_headers(path).await.map(|(value, _)| value)
    }

    /// Fetches a JSON document and the headers of the answer.
    pub(super) async fn get_with_headers<T: DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> Result<(T, HeaderMap), String> {
        let (bytes, headers) = self.get_bytes(path).await?;
        let value =
            serde_json::from_slice(bytes).map_err(|e| format!("cannot decode the answer of {path}: {e}"))?;
        self.buffer.shrink_to(1 << 20);
        Ok((value, headers))
    }
}

/// Encodes a query string.
pub(super) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
