//! How does a request go out? A [`HttpClient`] is built once for each configuration block and shared by all its
//! targets. It adds credentials, follows redirects itself so that credentials stay with their host, keeps the
//! deadline over everything from connecting to the last byte, and rebuilds its TLS when certificate files change.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use url::Url;

use super::body::{BodyBuffer, DEFAULT_MAX_BODY, Limit};
use super::builder::{build, cause, files_of, header_name, header_value};
use super::cloud::Outgoing;
use super::error::NetError;
use super::kept::{Fault, Kept};
use super::lines::Lines;
use super::oauth2::TokenSource;
use super::request::{ClientOptions, Fetched, Request};
use super::secrets::{Fingerprint, SecretSource};
use crate::config::{ConfigUrl, HttpClientConfig, Secret};
use crate::telemetry::spans::{Span, SpanKind};

/// Redirects that are followed at most, as in Go.
const MAX_REDIRECTS: usize = 10;

/// Bodies up to here are decompressed where they were received, bytes on the wire.
const SMALL_WIRE: usize = 128 << 10;

/// Runs what takes long without holding up other tasks.
pub(crate) fn beside_others<R>(work: impl FnOnce() -> R) -> R {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[derive(Debug)]
enum Auth {
    None,
    Basic { username: SecretSource, password: SecretSource },
    Header { kind: String, credentials: SecretSource },
    OAuth2(Box<TokenSource>),
}

#[derive(Debug)]
struct ExtraHeader {
    name: HeaderName,
    values: Vec<SecretSource>,
}

#[derive(Debug)]
struct Inner {
    config: HttpClientConfig,
    options: ClientOptions,
    auth: Auth,
    extra: Vec<ExtraHeader>,
    /// The client and the certificate files it was built from.
    current: Mutex<(Vec<Option<Fingerprint>>, reqwest::Client)>,
}

/// The future of a request.
pub type Boxed<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, NetError>> + Send + 'a>>;

/// A client for one configuration block; cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient(Arc<Inner>);

/// Whether credentials may follow a redirect: the same host and no step down from HTTPS.
fn same_trust(from: &Url, to: &Url) -> bool {
    from.host_str() == to.host_str() && !(from.scheme() == "https" && to.scheme() == "http")
}

fn go_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "Get",
        Method::POST => "Post",
        Method::PUT => "Put",
        Method::HEAD => "Head",
        Method::DELETE => "Delete",
        _ => "Request",
    }
}

/// Begins the span of a request that is traced, and tells the other side.
fn traced(request: &mut Request<'_>, url: &Url) -> Result<Span, NetError> {
    let Some(context) = &request.trace else { return Ok(Span::Off) };
    let mut span = context.start(&format!("HTTP {}", request.method), SpanKind::Client);
    if let Some(header) = span.header() {
        request.headers.insert(HeaderName::from_static("traceparent"), header_value("traceparent", &header)?);
        span.set("http.request.method", request.method.as_str());
        span.set("url.full", shown(url));
        span.set("server.address", url.host_str().unwrap_or_default());
        span.set("server.port", usize::from(url.port_or_known_default().unwrap_or(0)));
    }
    Ok(span)
}

/// A URL for messages: without its password.
fn shown(url: &Url) -> String {
    ConfigUrl::parse(url.as_str()).map(|u| u.to_string()).unwrap_or_default()
}

impl HttpClient {
    /// Builds the client of a block: reads certificate files, prepares credentials; opens no connection.
    pub fn from_config(config: &HttpClientConfig, options: ClientOptions) -> Result<Self, NetError> {
        let files = files_of(&config.tls_config);
        let client = build(&config.tls_config, &config.proxy, config.enable_http2, &options)?;
        let auth = if let Some(basic) = &config.basic_auth {
            Auth::Basic {
                username: SecretSource::new(
                    "basic auth username file",
                    &Secret::new(basic.username.as_str()),
                    &basic.username_file,
                ),
                password: SecretSource::new(
                    "basic auth password file",
                    &basic.password,
                    &basic.password_file,
                ),
            }
        } else if let Some(authorization) = &config.authorization {
            let kind = if authorization.kind.is_empty() { "Bearer" } else { &authorization.kind };
            Auth::Header {
                kind: kind.to_owned(),
                credentials: SecretSource::new(
                    "authorization credentials file",
                    &authorization.credentials,
                    &authorization.credentials_file,
                ),
            }
        } else if let Some(oauth2) = &config.oauth2 {
            let plain = ClientOptions { unix_socket: None, ..options.clone() };
            let client = build(&oauth2.tls_config, &oauth2.proxy, config.enable_http2, &plain)?;
            Auth::OAuth2(Box::new(TokenSource::new(oauth2, client)))
        } else {
            Auth::None
        };
        let mut extra = Vec::new();
        for (name, header) in &config.http_headers {
            let no_file = crate::config::FilePath::default();
            let inline =
                header.values.iter().map(|v| Secret::new(v.as_str())).chain(header.secrets.iter().cloned());
            let values = inline
                .map(|v| SecretSource::new("http header", &v, &no_file))
                .chain(
                    header.files.iter().map(|f| SecretSource::new("http header file", &Secret::default(), f)),
                )
                .collect();
            extra.push(ExtraHeader { name: header_name(name)?, values });
        }
        let current = Mutex::new((files, client));
        Ok(Self(Arc::new(Inner { config: config.clone(), options, auth, extra, current })))
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &HttpClientConfig {
        &self.0.config
    }

    /// The client, built anew when a certificate file has changed. A file that cannot be used leaves the old one.
    fn current(&self) -> reqwest::Client {
        let Inner { config, options, current, .. } = &*self.0;
        let mut current = current.lock();
        let tls_config = &config.tls_config;
        if tls_config.ca_file.is_empty() && tls_config.cert_file.is_empty() && tls_config.key_file.is_empty()
        {
            return current.1.clone();
        }
        let files = files_of(tls_config);
        if files != current.0 {
            match build(tls_config, &config.proxy, config.enable_http2, options) {
                Ok(client) => *current = (files, client),
                // Not remembered: a rotation in progress gets another try with the next request.
                Err(error) => {
                    tracing::warn!(%error, "changed TLS files cannot be used, keeping the old ones")
                }
            }
        }
        current.1.clone()
    }

    /// Says who asks.
    fn introduce(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, header_value("User-Agent", &self.0.options.user_agent)?);
        }
        Ok(())
    }

    /// Adds the headers that each request to the configured host has.
    async fn dress(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        self.introduce(headers)?;
        self.credentials(headers).await
    }

    /// Adds what only the configured host may see.
    async fn credentials(&self, headers: &mut HeaderMap) -> Result<(), NetError> {
        let header = match &self.0.auth {
            Auth::None => None,
            Auth::Basic { username, password } => {
                let (username, password) = (username.read()?, password.read()?);
                let pair = format!("{}:{}", username.expose(), password.expose());
                Some(Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))))
            }
            Auth::Header { kind, credentials } => {
                Some(Secret::new(format!("{kind} {}", credentials.read()?.expose())))
            }
            Auth::OAuth2(source) => Some(source.header().await?),
        };
        if let Some(header) = header
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, header_value("Authorization", header.expose())?);
        }
        for ExtraHeader { name, values } in &self.0.extra {
            headers.remove(name);
            for value in values {
                headers.append(name.clone(), header_value(name.as_str(), value.read()?.expose())?);
            }
        }
        Ok(())
    }

    /// Sends a request and reads the whole answer into `body`, whatever its status.
    ///
    /// The future is boxed: what it is made of is deep, and callers of callers would otherwise prove again and again to the
    /// compiler that it may move between threads.
    pub fn fetch<'a>(&'a self, request: Request<'a>, body: &'a mut BodyBuffer) -> Boxed<'a, Fetched> {
        Box::pin(self.fetch_once(request, body))
    }

    async fn fetch_once(&self, mut request: Request<'_>, body: &mut BodyBuffer) -> Result<Fetched, NetError> {
        let url = Url::parse(request.url).map_err(|e| NetError::InvalidUrl {
            url: ConfigUrl::parse(request.url).map(|u| u.to_string()).unwrap_or_default(),
            reason: e.to_string(),
        })?;
        body.clear();
        let (timeout, method, text) = (request.timeout, go_method(&request.method), request.url);
        let mut span = traced(&mut request, &url)?;
        let limit = Limit::of(request.max_body);
        let way = Way::new(request.method, request.body, url);
        let result =
            match tokio::time::timeout(timeout, self.exchange(&request.headers, way, body, limit)).await {
                Ok(result) => result,
                Err(_) => Err(late(method, text, timeout)),
            };
        note(&mut span, &result);
        result
    }

    /// Like [`HttpClient::fetch`] for a `GET` without a body, over the connection that the caller keeps if that is possible.
    pub fn fetch_kept<'a>(
        &'a self,
        request: Request<'a>,
        kept: &'a mut Kept,
        body: &'a mut BodyBuffer,
    ) -> Boxed<'a, Fetched> {
        if !self.is_direct() || kept.url(request.url).is_none() {
            return self.fetch(request, body);
        }
        Box::pin(self.fetch_directly(request, kept, body))
    }

    /// Whether requests go straight to the server that their URL names, in HTTP/1.
    fn is_direct(&self) -> bool {
        let Inner { config, options, .. } = &*self.0;
        let ClientOptions {
            unix_socket, http2_only, round_robin_dns, authenticator, connect_timeout, ..
        } = options;
        config.proxy.proxy_url.is_empty()
            && !config.proxy.proxy_from_environment
            && unix_socket.is_none()
            && authenticator.is_none()
            && connect_timeout.is_none()
            && !http2_only
            && !round_robin_dns
    }

    async fn fetch_directly(
        &self,
        mut request: Request<'_>,
        kept: &mut Kept,
        body: &mut BodyBuffer,
    ) -> Result<Fetched, NetError> {
        let Some(url) = kept.url(request.url).cloned() else { return self.fetch(request, body).await };
        body.clear();
        let (timeout, text) = (request.timeout, request.url);
        let mut span = traced(&mut request, &url)?;
        let limit = Limit::of(request.max_body);
        let asking = async {
            let mut headers = request.headers.clone();
            self.dress(&mut headers).await?;
            let answered = kept.get(&headers, self.0.options.dialer.as_ref(), body, limit).await;
            let answered = answered.map_err(|fault| match fault {
                Fault::Net(error) => error,
                Fault::Gone(reason) => broken(&url, reason, false),
                Fault::Broken { reason, not_sent } => broken(&url, reason, not_sent),
            })?;
            if let Some(next) = self.next(&Method::GET, &url, answered.status, &answered.headers)? {
                let mut way = Way::new(Method::GET, bytes::Bytes::new(), url);
                way.follow(answered.status, next)?;
                body.clear();
                return self.exchange(&request.headers, way, body, limit).await;
            }
            unpack(body, answered.headers.get(CONTENT_ENCODING), limit)?;
            Ok(Fetched {
                status: answered.status,
                headers: answered.headers,
                url,
                wire_bytes: body.wire.len() as u64,
                body_bytes: body.bytes().len() as u64,
            })
        };
        let result = match tokio::time::timeout(timeout, asking).await {
            Ok(result) => result,
            Err(_) => Err(late("Get", text, timeout)),
        };
        note(&mut span, &result);
        result
    }

    /// Sends a request whose answer is read line by line as it comes. The deadline holds until the head of the answer
    /// is there; `max_body` bounds a line. The body must not be compressed.
    pub fn open<'a>(&'a self, request: Request<'a>) -> Boxed<'a, Lines> {
        Box::pin(self.open_once(request))
    }

    async fn open_once(&self, request: Request<'_>) -> Result<Lines, NetError> {
        let url = Url::parse(request.url).map_err(|e| NetError::InvalidUrl {
            url: ConfigUrl::parse(request.url).map(|u| u.to_string()).unwrap_or_default(),
            reason: e.to_string(),
        })?;
        let max_line = if request.max_body == 0 { DEFAULT_MAX_BODY } else { request.max_body };
        let (timeout, method, text) = (request.timeout, go_method(&request.method), shown(&url));
        let way = Way::new(request.method, request.body, url);
        match tokio::time::timeout(timeout, self.respond(&request.headers, way)).await {
            Ok(answer) => {
                let Answer { response, url, .. } = answer?;
                Ok(Lines::of(response, url, max_line))
            }
            Err(_) => Err(NetError::Timeout { method, url: text, after: timeout }),
        }
    }

    async fn exchange(
        &self,
        headers: &HeaderMap,
        way: Way,
        body: &mut BodyBuffer,
        limit: Limit,
    ) -> Result<Fetched, NetError> {
        let Answer { mut response, method, url } = self.respond(headers, way).await?;
        let status = response.status();
        while let Some(chunk) = response.chunk().await.map_err(|e| request_error(&method, &url, &e))? {
            body.push_wire(&chunk, limit)?;
        }
        let headers = std::mem::take(response.headers_mut());
        unpack(body, headers.get(CONTENT_ENCODING), limit)?;
        Ok(Fetched {
            status,
            headers,
            url,
            wire_bytes: body.wire.len() as u64,
            body_bytes: body.bytes().len() as u64,
        })
    }

    /// Where an answer leads, if it redirects and that is followed.
    fn next(
        &self,
        method: &Method,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<Option<Url>, NetError> {
        if !self.0.config.follow_redirects {
            return Ok(None);
        }
        redirect_target(method, url, status, headers)
    }

    /// Sends a request, follows redirects, and returns the answer with its body unread.
    async fn respond(&self, common: &HeaderMap, mut way: Way) -> Result<Answer, NetError> {
        let client = self.current();
        loop {
            let mut headers = common.clone();
            if way.trusted {
                self.dress(&mut headers).await?;
                if let Some(authenticator) = &self.0.options.authenticator {
                    let outgoing = Outgoing {
                        method: &way.method,
                        url: &way.url,
                        headers: &mut headers,
                        body: &way.payload,
                    };
                    authenticator.authorize(outgoing).await?;
                }
            } else {
                self.introduce(&mut headers)?;
                for name in ["authorization", "www-authenticate", "cookie", "cookie2", "host"] {
                    headers.remove(name);
                }
            }
            if way.payload.is_empty() {
                headers.remove(CONTENT_TYPE);
                headers.remove(CONTENT_LENGTH);
            }
            if way.hops > 0 {
                headers.remove(HOST);
            }
            let mut out = client.request(way.method.clone(), way.url.clone()).headers(headers);
            if !way.payload.is_empty() {
                out = out.body(way.payload.clone());
            }
            let response = out.send().await.map_err(|e| request_error(&way.method, &way.url, &e))?;
            let status = response.status();
            match self.next(&way.method, &way.url, status, response.headers())? {
                Some(next) => way.follow(status, next)?,
                None => return Ok(Answer { response, method: way.method, url: way.url }),
            }
        }
    }
}

/// A request on its way through redirects.
struct Way {
    method: Method,
    payload: bytes::Bytes,
    first: Url,
    url: Url,
    /// Whether credentials may go along.
    trusted: bool,
    hops: usize,
}

impl Way {
    fn new(method: Method, payload: bytes::Bytes, url: Url) -> Self {
        Self { method, payload, first: url.clone(), url, trusted: true, hops: 0 }
    }

    /// Goes where an answer of this status leads.
    fn follow(&mut self, status: StatusCode, next: Url) -> Result<(), NetError> {
        self.hops += 1;
        if self.hops > MAX_REDIRECTS {
            return Err(NetError::Redirect {
                method: go_method(&self.method),
                url: shown(&next),
                reason: format!("stopped after {MAX_REDIRECTS} redirects"),
            });
        }
        // Once trust is lost it does not come back with a redirect to the first host.
        self.trusted &= same_trust(&self.first, &next) && same_trust(&self.url, &next);
        if status == StatusCode::SEE_OTHER
            || (self.method == Method::POST
                && (status == StatusCode::FOUND || status == StatusCode::MOVED_PERMANENTLY))
        {
            if self.method != Method::HEAD {
                self.method = Method::GET;
            }
            self.payload = bytes::Bytes::new();
        }
        self.url = next;
        Ok(())
    }
}

/// The deadline passed.
fn late(method: &'static str, url: &str, after: Duration) -> NetError {
    let url = Url::parse(url).map(|url| shown(&url)).unwrap_or_default();
    NetError::Timeout { method, url, after }
}

fn broken(url: &Url, reason: String, not_sent: bool) -> NetError {
    NetError::Request { method: "Get", url: shown(url), not_sent, reason }
}

/// Notes in a span how its request ended.
fn note(span: &mut Span, result: &Result<Fetched, NetError>) {
    match result {
        Ok(fetched) => {
            span.set("http.response.status_code", usize::from(fetched.status.as_u16()));
            let size = usize::try_from(fetched.wire_bytes).unwrap_or(usize::MAX);
            span.set("http.response.body.size", size);
        }
        Err(error) => span.fail(error),
    }
}

/// Decompresses a body that came whole.
fn unpack(body: &mut BodyBuffer, encoding: Option<&HeaderValue>, limit: Limit) -> Result<(), NetError> {
    let encoding = encoding.and_then(|v| v.to_str().ok()).filter(|_| body.wire_len() > 0).unwrap_or_default();
    if body.wire_len() > SMALL_WIRE {
        beside_others(|| body.decode(encoding, limit))
    } else {
        body.decode(encoding, limit)
    }
}

pub(super) fn request_error(method: &Method, url: &Url, error: &reqwest::Error) -> NetError {
    NetError::Request {
        method: go_method(method),
        url: shown(url),
        not_sent: error.is_connect() || error.is_builder(),
        reason: cause(error),
    }
}

/// An answer after redirects, its body unread.
struct Answer {
    response: reqwest::Response,
    method: Method,
    url: Url,
}

/// Where an answer leads, if it redirects.
fn redirect_target(
    method: &Method,
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Url>, NetError> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let fail = |reason: String| NetError::Redirect { method: go_method(method), url: shown(url), reason };
    let location = location.to_str().map_err(|_| fail("the Location header is not text".into()))?;
    let next =
        url.join(location).map_err(|e| fail(format!("failed to parse Location header {location:?}: {e}")))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(fail(format!("unsupported protocol scheme {:?}", next.scheme())));
    }
    Ok(Some(next))
}
