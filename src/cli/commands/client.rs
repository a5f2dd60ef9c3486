//! How do commands talk to a server? One request at a time, with the settings of `--http.config.file`; `check
//! healthy` and `check ready` ask whether it is well.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::output::say;
use super::{code, many, text, value};
use crate::config::HttpClientConfig;
use crate::net::{BodyBuffer, ClientOptions, HttpClient, Request};

/// Longest answer that is read from a server, bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// A client for one command.
pub(super) struct Client {
    client: HttpClient,
    headers: HeaderMap,
    timeout: Duration,
}

/// `--http.config.file`.
pub(super) fn http_config() -> Arg {
    value("http.config.file", "A file with the settings of an HTTP client: TLS, passwords, tokens, proxy.")
}

/// `--header`.
pub(super) fn header() -> Arg {
    Arg::new("header")
        .long("header")
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .help("A header for the request; may be given several times.")
}

/// Splits `name=value`.
pub(super) fn pair(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form name=value"))
}

/// Runs `work` on a small runtime.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    crate::net::tls::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    Ok(runtime.block_on(work))
}

impl Client {
    pub fn new(matches: &ArgMatches, timeout: Duration) -> Result<Self, String> {
        crate::net::tls::install_crypto_provider();
        let config = match text(matches, "http.config.file") {
            "" => HttpClientConfig::default(),
            path => HttpClientConfig::load(Path::new(path)).map_err(|e| e.to_string())?,
        };
        let client = HttpClient::from_config(&config, ClientOptions::default()).map_err(|e| e.to_string())?;
        let mut headers = HeaderMap::new();
        if matches.try_contains_id("header").is_ok() {
            for given in many(matches, "header") {
                let (name, value) = pair(&given)?;
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("--header: {e}"))?;
                let value = HeaderValue::from_str(value).map_err(|e| format!("--header: {e}"))?;
                headers.append(name, value);
            }
        }
        Ok(Self { client, headers, timeout })
    }

    /// Sends a request; status and body. With a body it is a `POST`.
    pub async fn send(
        &self,
        url: &str,
        extra: &[(HeaderName, &'static str)],
        body: Option<Bytes>,
    ) -> Result<(StatusCode, String), String> {
        let (status, bytes) = self.exchange(url, extra, body).await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The body of an answer as it is.
    pub async fn get_bytes(&self, url: &str) -> Result<(StatusCode, Vec<u8>), String> {
        self.exchange(url, &[], None).await
    }

    async fn exchange(
        &self,
        url: &str,
        extra: &[(HeaderName, &'static str)],
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = match body {
            Some(body) => Request::post(url, body, self.timeout),
            None => Request::get(url, self.timeout),
        };
        request.max_body = MAX_ANSWER_BYTES;
        request.headers = self.headers.clone();
        for (name, value) in extra {
            request.headers.insert(name, HeaderValue::from_static(value));
        }
        let mut buffer = BodyBuffer::new();
        let fetched = self.client.fetch(request, &mut buffer).await.map_err(|e| e.to_string())?;
        Ok((fetched.status, buffer.bytes().to_vec()))
    }
}

fn probe_command(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .after_help("Exit codes: 0 yes, 1 no or no answer.")
        .arg(value("url", "The server to ask.").default_value("http://localhost:9090"))
        .arg(http_config())
}

pub(super) fn healthy() -> Command {
    probe_command("healthy", "Ask whether a server lives")
}

pub(super) fn ready() -> Command {
    probe_command("ready", "Ask whether a server takes queries")
}

pub(super) fn probe(matches: &ArgMatches, path: &str) -> u8 {
    code(ask(matches, path).map(|answer| say!("  SUCCESS: {}", answer.trim_end())))
}

fn ask(matches: &ArgMatches, path: &str) -> Result<String, String> {
    let url = format!("{}/{path}", text(matches, "url").trim_end_matches('/'));
    let client = Client::new(matches, Duration::from_secs(10))?;
    let (status, body) =
        block_on(client.send(&url, &[], None))?.map_err(|e| format!("  FAILED: {url}: {e}"))?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!("  FAILED: {url}: status {status}: {}", body.trim_end()))
    }
}
