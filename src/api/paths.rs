//! Which requests are sent elsewhere or refused for their path or method alone? As Prometheus's router does it: careless
//! paths lead to tidy ones, a slash too many leads to the path without it, `OPTIONS` lists methods.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::{Method, StatusCode, Version};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::context::Api;
use super::{params, reply, routes};

/// What Go leaves as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Sends a client to another path, in the words of Go's server.
fn elsewhere(api: &Api, status: StatusCode, to: &str, query: Option<&str>, with_body: bool) -> Response {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let target = format!("{}{to}{query}", api.options.route_prefix);
    let Ok(location) = HeaderValue::from_str(&target) else {
        return reply::text(StatusCode::BAD_REQUEST, "the query string cannot be redirected\n");
    };
    let mut response = (status, [(LOCATION, location)]).into_response();
    if with_body {
        let target = target.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let target = target.replace('"', "&#34;").replace('\'', "&#39;");
        let reason = status.canonical_reason().unwrap_or_default();
        *response.body_mut() = Body::from(format!("<a href=\"{target}\">{reason}</a>.\n\n"));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

fn moved(api: &Api, status: StatusCode, to: &str, request: &Request) -> Response {
    let with_body = [Method::GET, Method::HEAD].contains(request.method());
    elsewhere(api, status, to, request.uri().query(), with_body)
}

/// Sends a browser to another page for now.
pub fn found(api: &Api, to: &str, query: Option<&str>) -> Response {
    elsewhere(api, StatusCode::FOUND, to, query, true)
}

/// What is wrong with the `Host` header. One that is missing, there twice or no name would pass by whoever looks at it.
fn host_fault(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => Some(": missing required Host header"),
        (_, Some(_)) => Some(""),
        (Some(host), None) => {
            let good = |b: &u8| b.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[]'_~".contains(b);
            (!host.as_bytes().iter().all(good)).then_some(": malformed Host header")
        }
        _ => None,
    }
}

/// What is answered whatever the path would mean: to a bad host, `CONNECT`, `*`, broken escapes, careless paths.
pub fn before_routing(api: &Api, request: &Request) -> Option<Response> {
    if let Some(fault) = host_fault(request) {
        return Some(reply::text(StatusCode::BAD_REQUEST, format!("400 Bad Request{fault}")));
    }
    if request.method() == Method::CONNECT {
        return Some(reply::text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    let path = request.uri().path();
    if path == "*" {
        let status =
            if request.method() == Method::OPTIONS { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        return Some(status.into_response());
    }
    if params::bad_escape(path.as_bytes()).is_some() {
        return Some(reply::text(StatusCode::BAD_REQUEST, "400 Bad Request"));
    }
    if path == "/api/v1" {
        return Some(moved(api, StatusCode::MOVED_PERMANENTLY, "/api/v1/", request));
    }
    let to = match tidied(path) {
        Some(to) => to,
        // Dots may be escaped. An escaped slash stays: it may be part of a label's name.
        None if path.contains('%') => {
            let decoded = percent_decode_str(path).decode_utf8().ok()?;
            let parts = |text: &str| text.split('/').any(|part| matches!(part, "." | ".."));
            let to = tidied(&decoded).filter(|_| parts(&decoded))?;
            utf8_percent_encode(&to, PATH).to_string()
        }
        None => return None,
    };
    Some(moved(api, StatusCode::MOVED_PERMANENTLY, &to, request))
}

/// Sends clients away who put a slash behind a path that has none, if it has the method they ask with.
pub fn without_slash(api: &Api, request: &Request) -> Option<Response> {
    let to = request.uri().path().strip_suffix('/')?;
    routes::methods_of(to)?.contains(&request.method().as_str()).then_some(())?;
    let get = request.method() == Method::GET;
    let status = if get { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    Some(moved(api, status, to, request))
}

/// The answer to a method that a path does not have, or to `OPTIONS`.
pub fn only(methods: &[&str], asked: &Method) -> Response {
    let mut names = [methods, &["OPTIONS"]].concat();
    names.sort_unstable();
    let mut response = if asked == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
    };
    if let Ok(allow) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The path without empty, `.` and `..` parts, if it has any: Go's server sends clients there, and some join URLs carelessly.
fn tidied(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            ".." => {
                parts.pop();
            }
            "" | "." => {}
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let tidy = format!("/{}{slash}", parts.join("/"));
    (tidy != path).then_some(tidy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_looked_at() {
        for (hosts, want) in [
            (vec!["a.example:80"], None),
            (vec!["[::1]:9090"], None),
            (vec![""], None),
            (vec![], Some(": missing required Host header")),
            (vec!["a", "a"], Some("")),
            (vec!["a b"], Some(": malformed Host header")),
            (vec!["a/b"], Some(": malformed Host header")),
            (vec!["é"], Some(": malformed Host header")),
        ] {
            let mut request = Request::new(Body::empty());
            for host in &hosts {
                let value = HeaderValue::from_bytes(host.as_bytes()).expect("a value");
                request.headers_mut().append(HOST, value);
            }
            assert_eq!(host_fault(&request), want, "{hosts:?}");
        }
    }

    #[test]
    fn careless_paths_are_tidied() {
        for (path, want) in [
            ("//api/v1/query", "/api/v1/query"),
            ("/api/../v1/./query/", "/v1/query/"),
            ("/..", "/"),
            ("//", "/"),
            ("///other.example/x", "/other.example/x"),
        ] {
            assert_eq!(tidied(path).as_deref(), Some(want), "{path}");
        }
        for path in ["/", "/query", "/query/", "/a..b/.c"] {
            assert_eq!(tidied(path), None, "{path}");
        }
    }
}
