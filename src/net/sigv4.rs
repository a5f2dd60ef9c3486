//! How is a request signed for AWS? Signature Version 4 as AWS documents it: a canonical form of the request is
//! hashed, and the hash is signed with a key derived from secret, day, region and service.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::{HeaderMap, Method};
use url::Url;

use super::error::NetError;
use crate::config::Secret;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Headers that proxies and clients change on the way and that are therefore not signed.
const UNSIGNED: [&str; 6] =
    ["authorization", "user-agent", "x-amzn-trace-id", "expect", "transfer-encoding", "uber-trace-id"];

/// What AWS hands out for signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: Secret,
    /// Token of a session; empty for keys without an end.
    pub session_token: Secret,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes())
}

/// Percent-encodes everything but unreserved characters (RFC 3986), and `/` where it separates.
fn encode(text: &[u8], keep_slash: bool, out: &mut String) {
    for byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte))
            }
            b'/' if keep_slash => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

fn canonical_query(url: &Url) -> String {
    let mut pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let (mut n, mut v) = (String::new(), String::new());
            encode(name.as_bytes(), false, &mut n);
            encode(value.as_bytes(), false, &mut v);
            (n, v)
        })
        .collect();
    pairs.sort();
    pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")
}

/// Blanks at the ends go, runs of blanks become one.
fn trimmed(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// `20150830T123600Z` for a Unix time in milliseconds.
fn timestamp(now_ms: i64) -> Result<String, NetError> {
    jiff::Timestamp::from_millisecond(now_ms)
        .map(|t| t.strftime("%Y%m%dT%H%M%SZ").to_string())
        .map_err(|e| NetError::Build { reason: format!("signing: {e}") })
}

/// Signs a request: adds `x-amz-date`, `authorization` and, for sessions, `x-amz-security-token` to `headers`.
/// `now_ms` is the Unix time in milliseconds; AWS refuses signatures that are minutes off.
pub fn sign(
    method: &Method,
    url: &Url,
    headers: &mut HeaderMap,
    body: &[u8],
    credentials: &Credentials,
    (region, service): (&str, &str),
    now_ms: i64,
) -> Result<(), NetError> {
    let time = timestamp(now_ms)?;
    let day = time.get(..8).unwrap_or_default();
    let mut insert = |name: &'static str, value: &str| {
        let value = http::HeaderValue::from_str(value).map_err(|_| NetError::Header { name: name.into() })?;
        headers.insert(name, value);
        Ok::<(), NetError>(())
    };
    insert("x-amz-date", &time)?;
    if !credentials.session_token.is_empty() {
        insert("x-amz-security-token", credentials.session_token.expose())?;
    }

    let mut signed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers.iter() {
        if !UNSIGNED.contains(&name.as_str()) {
            let text = value.to_str().map_err(|_| NetError::Header { name: name.to_string() })?;
            signed.entry(name.as_str()).or_default().push(trimmed(text));
        }
    }
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => return Err(NetError::InvalidUrl { url: url.to_string(), reason: "no host".into() }),
    };
    signed.entry("host").or_insert_with(|| vec![host]);
    let names = signed.keys().copied().collect::<Vec<_>>().join(";");

    let mut canonical = format!("{method}\n");
    // The path of a URL is encoded once already; every service but S3 signs it encoded twice.
    encode(if url.path().is_empty() { b"/" } else { url.path().as_bytes() }, true, &mut canonical);
    let _ = write!(canonical, "\n{}\n", canonical_query(url));
    for (name, values) in &signed {
        let _ = writeln!(canonical, "{name}:{}", values.join(","));
    }
    let _ = write!(canonical, "\n{names}\n{}", hex(digest(&SHA256, body).as_ref()));

    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign =
        format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let start = format!("AWS4{}", credentials.secret_key.expose());
    let key = [day, region, service, "aws4_request"]
        .iter()
        .fold(start.into_bytes(), |key, part| mac(&key, part).as_ref().to_vec());
    let signature = hex(mac(&key, &to_sign).as_ref());
    let value = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    );
    let mut value =
        http::HeaderValue::from_str(&value).map_err(|_| NetError::Header { name: "authorization".into() })?;
    value.set_sensitive(true);
    headers.insert("authorization", value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of AWS's published test suite for Signature Version 4.
    #[test]
    fn signs_as_the_published_vectors() {
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: Secret::default(),
        };
        let root = "https://example.amazonaws.com/";
        for (method, url, header, body, want) in [
            (
                Method::GET,
                root.to_owned(),
                None,
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                Method::POST,
                root.to_owned(),
                None,
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                Method::GET,
                format!("{root}?Param2=value2&Param1=value1"),
                None,
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                Method::POST,
                root.to_owned(),
                Some(("content-type", "application/x-www-form-urlencoded")),
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, http::HeaderValue::from_static(value));
            }
            headers.insert("user-agent", http::HeaderValue::from_static("not signed"));
            let parsed = Url::parse(&url).expect("a URL");
            let scope = ("us-east-1", "service");
            // 2015-08-30T12:36:00Z
            sign(&method, &parsed, &mut headers, body.as_bytes(), &credentials, scope, 1_440_938_160_000)
                .expect("signed");
            let value = headers["authorization"].to_str().expect("text");
            assert!(value.ends_with(&format!("Signature={want}")), "{method} {url}: {value}");
            assert!(
                value.contains(
                    "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
                )
            );
            assert!(value.contains("host;x-amz-date,"), "{value}");
        }
    }

    #[test]
    fn sessions_are_signed_and_debug_shows_nothing() {
        let credentials = Credentials {
            access_key: "A".into(),
            secret_key: Secret::new("hidden-key"),
            session_token: Secret::new("hidden-token"),
        };
        assert!(!format!("{credentials:?}").contains("hidden"));
        let url = Url::parse("http://localhost:9090/workspaces/w s/api").expect("a URL");
        let mut headers = HeaderMap::new();
        sign(&Method::POST, &url, &mut headers, b"x", &credentials, ("r", "aps"), 0).expect("signed");
        assert_eq!(headers["x-amz-security-token"], "hidden-token");
        assert_eq!(headers["x-amz-date"], "19700101T000000Z");
        let value = headers["authorization"].to_str().expect("text");
        assert!(value.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"), "{value}");
    }
}
