//! What holds for every request? Counting, panic catching, security headers, CORS, compression; and the route prefix.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use super::context::Api;
use super::error::ApiError;
use super::security::Security;
use super::{cross_site, paths, routes, ui};
use crate::model::regex::AnchoredRegex;
use crate::telemetry::Histogram;
use crate::telemetry::spans::{Span, SpanContext, SpanKind};

const DURATION_BOUNDS: &[f64] = &[0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0];
const SIZE_BOUNDS: &[f64] = &[1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Which origins may read answers.
#[derive(Debug, Clone)]
pub enum Cors {
    /// All.
    Any,
    /// Those that match.
    Matching(Arc<AnchoredRegex>),
}

impl Cors {
    /// From `--web.cors.origin`.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern == ".*" {
            return Ok(Cors::Any);
        }
        AnchoredRegex::new(pattern).map(|r| Cors::Matching(Arc::new(r))).map_err(|e| e.to_string())
    }

    /// Whether the setting was made for this origin: the default, which is any, names none.
    #[must_use]
    pub fn names(&self, origin: &str) -> bool {
        matches!(self, Cors::Matching(regex) if regex.is_match(origin))
    }

    fn apply(&self, origin: &HeaderValue, out: &mut http::HeaderMap) {
        let matches = |regex: &AnchoredRegex| origin.to_str().is_ok_and(|o| regex.is_match(o));
        if matches!(self, Cors::Matching(regex) if !matches(regex)) {
            return;
        }
        out.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Accept, Authorization, Content-Type, Origin"),
        );
        out.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        out.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
        out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

#[derive(Clone)]
struct Shared {
    api: Arc<Api>,
    cors: Cors,
}

/// The whole application: table, user interface, prefix, layers.
pub fn application(api: Arc<Api>, cors: Cors, security: Arc<Security>) -> Router {
    let shared = Shared { api: Arc::clone(&api), cors };
    let inner = routes::router(Arc::clone(&api))
        .fallback_service(axum::routing::any(ui::fallback).with_state(Arc::clone(&api)))
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(shared, around));
    let prefix = api.options.route_prefix.clone();
    let outer = if prefix.is_empty() {
        inner
    } else {
        Router::new().fallback(move |request: Request| below(prefix, inner, request))
    };
    outer
        .layer(CatchPanicLayer::custom(|_panic: Box<dyn std::any::Any + Send>| {
            ApiError::internal("the request failed inside the server; see its log").into_response()
        }))
        .layer(from_fn_with_state(security, guard))
}

/// Serves what lies below the route prefix. The prefix alone leads to its slash: addresses in the document are relative.
async fn below(prefix: String, inner: Router, mut request: Request) -> Response {
    let uri = request.uri();
    let path = uri.path();
    if path == "/" || path == prefix {
        let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        return axum::response::Redirect::to(&format!("{prefix}/{query}")).into_response();
    }
    let rest = path.strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with('/'));
    let Some(rest) = rest else {
        return super::reply::text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let rest = uri.query().map_or_else(|| rest.to_owned(), |query| format!("{rest}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = rest.parse().ok();
    if let Ok(stripped) = http::Uri::from_parts(parts) {
        *request.uri_mut() = stripped;
    }
    match inner.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The outermost layer: nobody passes without the right name and password, whatever the path.
async fn guard(State(security): State<Arc<Security>>, request: Request, next: Next) -> Response {
    let refusal = security.admit(request.headers()).await;
    let mut response = match refusal {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    for (name, value) in security.headers() {
        response.headers_mut().insert(name, value);
    }
    response
}

async fn around(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut span = request_span(&request);
    request.extensions_mut().insert(span.context());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let handler = request.extensions().get::<MatchedPath>().map_or("/", |p| p.as_str()).to_owned();
    let options = &shared.api.options;
    let shares = is_shared(request.uri().path(), request.method());
    let early = cross_site::refuse_host(options, &request);
    let refusal = early.or_else(|| paths::before_routing(&shared.api, &request)).or_else(|| {
        if routes::changes_something(&handler, request.method()) {
            cross_site::refuse_origin(options, &shared.cors, &request)
        } else {
            None
        }
    });
    let private = !request.uri().path().contains("/assets/");
    let mut response = match refusal {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let methods = routes::methods_of(&handler).unwrap_or(&["GET"]);
        response = paths::only(methods, &Method::GET);
        if let "/-/reload" | "/-/quit" = handler.as_str() {
            *response.body_mut() = Body::from("Only POST or PUT requests allowed");
        }
    }
    let handler = handler.replace("{name}", ":name");
    let unrouted = matches!(response.status().as_u16(), 301 | 307 | 404 | 405);
    let headers = response.headers_mut();
    if let Some(origin) = origin.filter(|_| shares && !unrouted) {
        shared.cors.apply(&origin, headers);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if private {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    let html = headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"text/html"));
    if html {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    }
    let code = response.status();
    span.set("http.response.status_code", usize::from(code.as_u16()));
    if code.is_server_error() {
        span.fail(&code);
    }
    let registry = &shared.api.registry;
    registry
        .counter(
            "prometheus_http_requests_total",
            "Counter of HTTP requests.",
            &[("code", code.as_str()), ("handler", &handler)],
        )
        .inc();
    registry
        .histogram(
            "prometheus_http_request_duration_seconds",
            "Histogram of latencies for HTTP requests.",
            DURATION_BOUNDS,
            &[("handler", &handler)],
        )
        .observe(started.elapsed().as_secs_f64());
    let sizes = registry.histogram(
        "prometheus_http_response_size_bytes",
        "Histogram of response size for HTTP requests.",
        SIZE_BOUNDS,
        &[("handler", &handler)],
    );
    let mut sent = Sent { bytes: 0, sizes, _span: span };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            sent.add(frame.data_ref().map_or(0, bytes::Bytes::len));
            frame
        }))
    })
}

/// Whether pages of other origins may read answers for a path: those of the API, not those that senders of data use.
fn is_shared(path: &str, method: &Method) -> bool {
    let own = ["/api/v1/write", "/api/v1/read", "/api/v1/otlp/v1/metrics"];
    path.starts_with("/api/v1/") && (method == Method::OPTIONS || !own.contains(&path))
}

/// The span of a request, part of the trace that its sender tells.
fn request_span(request: &Request) -> Span {
    let told = request.headers().get("traceparent").and_then(|v| v.to_str().ok());
    let trace = SpanContext::of_header(told);
    if let SpanContext::Outside | SpanContext::Recorded(_) = trace {
        let (method, uri) = (request.method(), request.uri());
        let mut span = trace.start(&format!("{method} {}", uri.path()), SpanKind::Server);
        if span.is_recorded() {
            let header = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
            span.set("http.request.method", method.as_str());
            span.set("url.path", uri.path());
            span.set("server.address", header(header::HOST).unwrap_or_default());
            span.set("user_agent.original", header(header::USER_AGENT).unwrap_or_default());
            if let Some(peer) = super::write::peer_of(request.extensions()) {
                span.set("client.address", peer.ip().to_string());
            }
        }
        return span;
    }
    Span::Unrecorded
}

/// Counts the bytes of one answer, and tells them when the last is out.
struct Sent {
    /// Over when the last byte is out.
    _span: Span,
    bytes: usize,
    sizes: Histogram,
}

impl Sent {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.sizes.observe(self.bytes as f64);
    }
}
