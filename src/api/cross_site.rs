//! May this request come from there? Browsers carry out what foreign pages tell them to: what changes something is
//! refused when a page of another origin asks for it, and a server that only serves its own machine can insist on
//! the name it is called by, so that no foreign name can be pointed at it.

use axum::extract::Request;
use axum::response::Response;
use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::{StatusCode, Uri};

use super::context::WebOptions;
use super::layers::Cors;
use super::reply;

/// The host that a request is for, without port, in lower case.
fn host_of(request: &Request) -> Option<String> {
    let authority = match request.headers().get(HOST) {
        Some(host) => host.to_str().ok()?.to_owned(),
        None => request.uri().authority()?.to_string(),
    };
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => &authority,
    };
    Some(name.trim_matches(['[', ']']).to_ascii_lowercase())
}

/// The refusal of a request for a name that is not allowed, if it is one. Addresses are always allowed: a foreign name
/// is what the attack needs.
pub fn refuse_host(options: &WebOptions, request: &Request) -> Option<Response> {
    let allowed = options.allowed_hosts.as_ref()?;
    let name = host_of(request)?;
    let external = options.external_url.parse::<Uri>().ok();
    let good = name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok()
        || allowed.iter().any(|a| a.eq_ignore_ascii_case(&name))
        || external.as_ref().and_then(Uri::host).is_some_and(|h| h.eq_ignore_ascii_case(&name));
    if good {
        return None;
    }
    let text = format!(
        "This server does not answer to the name {name:?}. Allow it with --web.allowed-host={name}, or give a \
         configuration file.\n"
    );
    Some(reply::text(StatusCode::MISDIRECTED_REQUEST, text))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|v| v.to_str().unwrap_or("?"))
}

/// The refusal of a changing request that a page of another origin makes. Programs send neither header and pass.
pub fn refuse_origin(options: &WebOptions, cors: &Cors, request: &Request) -> Option<Response> {
    let headers = request.headers();
    let site = text_of(headers, &HeaderName::from_static("sec-fetch-site"));
    let origin = text_of(headers, &ORIGIN);
    let same = match (site, origin) {
        (None, None) => true,
        (Some("same-origin" | "none"), _) => true,
        (_, Some(origin)) => is_own(options, request, origin) || cors.names(origin),
        (Some(_), None) => false,
    };
    if same {
        return None;
    }
    Some(reply::text(
        StatusCode::FORBIDDEN,
        "A page of another origin may not do this. Allow its origin with --web.cors.origin.\n",
    ))
}

/// Whether an origin is this server as the client sees it, or as `--web.external-url` says.
fn is_own(options: &WebOptions, request: &Request, origin: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let Some(authority) = origin.authority() else { return false };
    let host = text_of(request.headers(), &HOST).or_else(|| request.uri().authority().map(|a| a.as_str()));
    let external = options.external_url.parse::<Uri>().ok();
    host.is_some_and(|host| authority.as_str().eq_ignore_ascii_case(host))
        || external.is_some_and(|e| e.scheme() == origin.scheme() && e.authority() == Some(authority))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut builder = http::Request::builder().uri("/-/reload");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Body::empty()).expect("a request")
    }

    #[test]
    fn foreign_names_are_refused_where_names_are_checked() {
        let mut options =
            WebOptions { external_url: "http://mon.example:9090".into(), ..WebOptions::default() };
        let refused =
            |options: &WebOptions, host: &str| refuse_host(options, &request(&[("host", host)])).is_some();
        assert!(!refused(&options, "evil.example:9090"), "not checked by default");
        options.allowed_hosts = Some(vec!["alias".into()]);
        for good in
            ["localhost:9090", "LOCALHOST", "127.0.0.1:9090", "[::1]:9090", "::1", "alias:1", "mon.example"]
        {
            assert!(!refused(&options, good), "{good}");
        }
        for bad in ["evil.example:9090", "localhost.evil.example", ""] {
            assert!(refused(&options, bad), "{bad}");
        }
        assert!(refuse_host(&options, &request(&[])).is_none(), "HTTP/1.0 has no name");
    }

    #[test]
    fn foreign_pages_may_not_change_anything() {
        let options = WebOptions { external_url: "https://mon.example".into(), ..WebOptions::default() };
        let any = Cors::parse(".*").expect("valid");
        let some = Cors::parse("https://friend\\.example").expect("valid");
        for (headers, cors, refused) in [
            (vec![], &any, false),
            (vec![("host", "a:9090"), ("origin", "http://a:9090")], &any, false),
            (vec![("host", "a:9090"), ("origin", "http://b:9090")], &any, true),
            (vec![("host", "a:9090"), ("origin", "https://mon.example")], &any, false),
            (vec![("host", "a:9090"), ("origin", "null")], &any, true),
            (vec![("sec-fetch-site", "same-origin"), ("origin", "http://b")], &any, false),
            (vec![("sec-fetch-site", "cross-site")], &any, true),
            (vec![("sec-fetch-site", "same-site"), ("origin", "http://b")], &any, true),
            (vec![("sec-fetch-site", "cross-site"), ("origin", "https://friend.example")], &some, false),
            (vec![("sec-fetch-site", "cross-site"), ("origin", "https://friend.example")], &any, true),
        ] {
            assert_eq!(refuse_origin(&options, cors, &request(&headers)).is_some(), refused, "{headers:?}");
        }
    }
}
