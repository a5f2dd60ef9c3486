//! How does the user interface reach a browser? Files that `web/` built are compiled in, compressed already; every
//! page path answers with the same document.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::context::Api;
use super::{paths, reply};

/// One compiled-in file.
#[derive(Debug)]
pub struct Asset {
    /// Path below `web/dist`.
    pub path: &'static str,
    /// Content as it is.
    pub plain: &'static [u8],
    /// Content compressed with brotli.
    pub br: Option<&'static [u8]>,
    /// Content compressed with gzip.
    pub gz: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/ui_assets.rs"));

/// Paths that answer with the document; the page inside reads the path.
const PAGES: &[&str] = &[
    "/query",
    "/alerts",
    "/rules",
    "/targets",
    "/service-discovery",
    "/alertmanager-discovery",
    "/tsdb-status",
    "/status",
    "/flags",
    "/config",
    "/agent",
    "/explore",
    "/cardinality",
    "/storage",
];

const PLACEHOLDER: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Meerkat</title>\
<h1>Meerkat is running</h1><p>This binary was built without its user interface. The HTTP API is at \
<code>api/v1/</code>, metrics of this process are at <a href=\"metrics\">metrics</a>.</p></html>";

/// The default of `--web.page-title`: Prometheus's, for which the interface shows its own name.
const DEFAULT_TITLE: &str = "Prometheus Time Series Collection and Processing Server";
/// Largest file served from `--web.user-assets`, bytes.
const MAX_USER_ASSET: u64 = 64 << 20;

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.binary_search_by(|asset| asset.path.cmp(path)).ok().map(|at| &ASSETS[at])
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
            named && !parts.any(|p| p.eq_ignore_ascii_case("q=0"))
        })
    })
}

fn answer(asset: &'static Asset, headers: &HeaderMap, forever: bool) -> Response {
    let (body, encoding) = match (asset.br, asset.gz) {
        (Some(br), _) if accepts(headers, "br") => (br, Some("br")),
        (_, Some(gz)) if accepts(headers, "gzip") => (gz, Some("gzip")),
        _ => (asset.plain, None),
    };
    let mut response = Response::new(Body::from(body));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(asset.path)));
    let cache = if forever { "public, max-age=31536000, immutable" } else { "no-cache" };
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn document(headers: &HeaderMap) -> Response {
    match find("index.html") {
        Some(asset) => answer(asset, headers, false),
        None => {
            let mut response = reply::text(StatusCode::OK, PLACEHOLDER);
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            response
        }
    }
}

/// The document with the title that `--web.page-title` gives; the default keeps the built-in one.
fn titled(api: &Api, headers: &HeaderMap) -> Response {
    let title = &api.options.page_title;
    let (Some(asset), false) = (find("index.html"), title == DEFAULT_TITLE) else { return document(headers) };
    let html = String::from_utf8_lossy(asset.plain);
    let (Some(from), Some(to)) = (html.find("<title>"), html.find("</title>")) else {
        return document(headers);
    };
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let body = format!("{}<title>{escaped}{}", &html[..from], &html[to..]);
    let mut response = reply::text(StatusCode::OK, body);
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A file below `--web.user-assets`. Parts of the path are plain names: no `..`, nothing hidden, no escapes.
async fn user_asset(api: &Api, path: &str) -> Option<Response> {
    let root = &api.options.user_assets;
    if root.as_os_str().is_empty() {
        return None;
    }
    let path = path.strip_prefix("/user/")?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| !c.is_control() && !matches!(c, '%' | '\\'))
    };
    if !path.split('/').all(plain) {
        return None;
    }
    let file = root.join(path);
    tokio::fs::metadata(&file).await.ok().filter(|m| m.is_file() && m.len() <= MAX_USER_ASSET)?;
    let content = tokio::fs::read(&file).await.ok()?;
    let mut response = Response::new(Body::from(content));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(path)));
    Some(response)
}

/// Serves what no other route does: pages, files of the user interface, redirects, and 404.
pub async fn fallback(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (path, query) = (request.uri().path(), request.uri().query());
    if path.starts_with("/api/v1/") && request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    if let Some(elsewhere) = paths::without_slash(&api, &request) {
        return elsewhere;
    }
    let found = match path {
        "/" if api.options.agent => Some(paths::found(&api, "/agent", None)),
        // Links with a query are Prometheus's; without one people want an overview.
        "/" if query.is_some() => Some(paths::found(&api, "/query", query)),
        "/" => Some(titled(&api, request.headers())),
        "/graph" => Some(paths::found(&api, "/query", Some(query.unwrap_or_default()))),
        "/classic" | "/classic/graph" => Some(paths::found(&api, "/query", None)),
        path if PAGES.contains(&path) => Some(titled(&api, request.headers())),
        path => match path.strip_prefix('/').and_then(find) {
            Some(asset) => Some(answer(asset, request.headers(), asset.path.starts_with("assets/"))),
            None => user_asset(&api, path).await,
        },
    };
    match (found, request.method()) {
        (Some(response), &Method::GET | &Method::HEAD) => response,
        (Some(_), method) => paths::only(&["GET"], method),
        (None, _) => reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
