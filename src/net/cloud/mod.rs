//! Who is this server to a cloud provider? Credentials are looked for where each provider's own tools look: in the
//! configuration, the environment, files in the home directory, and the machine's metadata service. They are kept
//! until shortly before they expire.

mod aws;
mod azure;
mod google;
#[cfg(test)]
mod tests;

pub use aws::{AwsAccess, AwsSigner};
pub use azure::{AzureAccess, AzureCloud, AzureToken};
pub use google::GoogleToken;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::body::BodyBuffer;
use super::client::HttpClient;
use super::error::NetError;
use super::request::{ClientOptions, Request};
use crate::config::{HttpClientConfig, Secret};

/// How long a metadata service or token endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of such a service in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// How long before their end credentials are no longer used.
const EARLY: Duration = Duration::from_secs(300);

/// A request that is about to go out.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Where it goes.
    pub url: &'a Url,
    /// Its headers, to which the authenticator adds.
    pub headers: &'a mut HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// The future of [`Authenticator::authorize`].
pub type Authorized<'a> = Pin<Box<dyn Future<Output = Result<(), NetError>> + Send + 'a>>;

/// Puts credentials on requests.
pub trait Authenticator: Send + Sync + std::fmt::Debug {
    /// Adds what proves who sends it; may fetch fresh credentials.
    fn authorize<'a>(&'a self, outgoing: Outgoing<'a>) -> Authorized<'a>;
}

/// Where variables come from: the process, or a table in tests.
#[derive(Debug, Clone, Default)]
pub enum Environment {
    /// That of the process.
    #[default]
    Process,
    /// These variables and no others.
    Table(BTreeMap<String, String>),
}

impl Environment {
    /// The value of a variable, unless it is empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Table(table) => table.get(name).cloned(),
        }
        .filter(|value| !value.is_empty())
    }

    /// A path in the home directory.
    fn home(&self, rest: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.get("HOME")?).join(rest))
    }
}

/// The client for token endpoints and metadata services.
fn token_client() -> Result<HttpClient, NetError> {
    let config = HttpClientConfig { follow_redirects: false, ..HttpClientConfig::default() };
    let options = ClientOptions { connect_timeout: Some(Duration::from_secs(2)), ..ClientOptions::default() };
    HttpClient::from_config(&config, options)
}

/// Sends a request and returns status and body.
async fn call(client: &HttpClient, request: Request<'_>) -> Result<(StatusCode, Vec<u8>), NetError> {
    let mut buffer = BodyBuffer::new();
    let request = Request { max_body: MAX_ANSWER, ..request };
    let fetched = client.fetch(request, &mut buffer).await?;
    Ok((fetched.status, buffer.bytes().to_vec()))
}

/// Sends a form.
async fn post_form(
    client: &HttpClient,
    url: &str,
    pairs: &[(&str, &str)],
) -> Result<(StatusCode, Vec<u8>), NetError> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let mut request = Request::post(url, body.into(), TIMEOUT);
    request.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    call(client, request).await
}

/// A token and when it is no longer used.
#[derive(Clone)]
struct Token {
    header: Secret,
    until: Instant,
}

/// Keeps a token until shortly before it expires; many callers fetch one.
#[derive(Default)]
struct TokenCache(Mutex<Option<Token>>);

impl TokenCache {
    async fn get(&self, fetch: impl Future<Output = Result<Token, NetError>>) -> Result<Secret, NetError> {
        // Held over the request so that many callers fetch one token.
        let mut kept = self.0.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.header.clone());
        }
        let token = fetch.await?;
        let header = token.header.clone();
        *kept = Some(token);
        Ok(header)
    }
}

/// Reads the usual answer of a token endpoint (RFC 6749 §5.1).
fn bearer(provider: &'static str, from: &str, status: StatusCode, body: &[u8]) -> Result<Token, NetError> {
    let fail = |reason: String| NetError::Credentials { provider, reason: format!("{from}: {reason}") };
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if !status.is_success() {
        // Token endpoints say why; nothing else of their answer is shown.
        let why = json["error_description"].as_str().or_else(|| json["error"].as_str()).unwrap_or_default();
        return Err(fail(format!("answered {status} {why}").trim_end().to_owned()));
    }
    let token = json["access_token"].as_str().filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| fail("the answer has no access_token".into()))?;
    let seconds = match &json["expires_in"] {
        serde_json::Value::Number(n) => n.as_u64(),
        serde_json::Value::String(s) => s.parse().ok(),
        _ => None,
    };
    Ok(Token { header: Secret::new(format!("Bearer {token}")), until: until(seconds.unwrap_or(3600)) })
}

/// When something that lives for `seconds` is fetched anew: some minutes before its end, but not in its first half.
fn until(seconds: u64) -> Instant {
    let life = Duration::from_secs(seconds.min(86_400));
    Instant::now() + life.saturating_sub(EARLY).max(life / 2)
}

/// Puts a bearer token on a request.
fn set_authorization(headers: &mut HeaderMap, value: &Secret) -> Result<(), NetError> {
    let mut value = http::HeaderValue::from_str(value.expose())
        .map_err(|_| NetError::Header { name: "Authorization".into() })?;
    value.set_sensitive(true);
    headers.insert(http::header::AUTHORIZATION, value);
    Ok(())
}

/// A signed assertion (RFC 7523) with the RSA key of a PEM text; `algorithm` is `RS256`, `RS384` or `RS512`.
pub fn signed_assertion(
    algorithm: &str,
    pem: &[u8],
    header: serde_json::Value,
    claims: &serde_json::Value,
) -> Result<String, String> {
    let key = super::jwt::rsa_key(pem, "private key")?;
    super::jwt::sign(algorithm, &key, header, claims)
}

/// The authenticator of a `remote_write`, `remote_read` or `alertmanagers` section, if it names a provider.
pub fn authenticator_for(
    sigv4: Option<&crate::config::remote::SigV4Config>,
    service: &'static str,
    azuread: Option<&crate::config::remote::AzureAdConfig>,
    google_iam: Option<&crate::config::remote::GoogleIamConfig>,
) -> Result<Option<Arc<dyn Authenticator>>, NetError> {
    let environment = Environment::Process;
    if let Some(sigv4) = sigv4 {
        return Ok(Some(Arc::new(AwsSigner::new(AwsAccess::from(sigv4), service, environment)?)));
    }
    if let Some(azure) = azuread {
        return Ok(Some(Arc::new(AzureToken::from_config(azure, environment)?)));
    }
    if let Some(google) = google_iam {
        let scope = "https://www.googleapis.com/auth/monitoring.write";
        let file = google.credentials_file.as_path().to_owned();
        let file = (!file.as_os_str().is_empty()).then_some(file);
        return Ok(Some(Arc::new(GoogleToken::new(scope, file, environment)?)));
    }
    Ok(None)
}
