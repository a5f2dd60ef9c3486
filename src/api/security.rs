//! Who may talk to this server, and how? TLS, passwords and headers of the web configuration file, which is looked at
//! again for each connection and request, so that a change needs no restart. A file that turns bad keeps the old
//! settings.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::response::Response;
use base64::Engine as _;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::rate_limit::RateLimit;
use super::reply;
use super::tls::server_config;
use crate::config::WebConfig;

/// Passwords that are compared at the same time; each costs tens of milliseconds of a core.
const MAX_COMPARISONS: usize = 4;
/// Remembered good pairs of name and password.
const MAX_REMEMBERED: usize = 1024;
/// Cost of the comparison for names that do not exist, as usual for real ones.
const DUMMY_COST: u32 = 10;

/// What one state of the files means.
struct Settings {
    tls: Option<Arc<ServerConfig>>,
    /// Names with bcrypt hashes.
    users: BTreeMap<String, String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    files: Vec<PathBuf>,
    rate_limit: Option<RateLimit>,
}

/// Identity of the content of a file: when it was changed and its length.
type Stamp = Option<(SystemTime, u64)>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

struct Cached {
    settings: Arc<Settings>,
    stamps: Vec<Stamp>,
}

/// The settings of the web configuration file.
pub struct Security {
    path: Option<PathBuf>,
    cached: Mutex<Cached>,
    comparisons: Semaphore,
    /// Keyed hashes of pairs that were right.
    remembered: Mutex<HashSet<[u8; 32]>>,
    key: [u8; 32],
    dummy: String,
}

impl Security {
    /// Reads the file; an empty path means neither TLS nor passwords. The error is a text for people.
    pub fn load(path: &str) -> Result<Arc<Self>, String> {
        let path = (!path.is_empty()).then(|| PathBuf::from(path));
        let settings = match &path {
            Some(path) => read(path)?,
            None => Settings {
                tls: None,
                users: BTreeMap::new(),
                headers: Vec::new(),
                files: Vec::new(),
                rate_limit: None,
            },
        };
        let dummy = if path.is_some() {
            bcrypt::hash("", DUMMY_COST).map_err(|e| format!("preparing password checks: {e}"))?
        } else {
            String::new()
        };
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system has no random numbers".to_owned())?;
        let stamps = stamps(&settings.files);
        Ok(Arc::new(Self {
            path,
            cached: Mutex::new(Cached { settings: Arc::new(settings), stamps }),
            comparisons: Semaphore::new(MAX_COMPARISONS),
            remembered: Mutex::default(),
            key,
            dummy,
        }))
    }

    fn current(&self) -> Arc<Settings> {
        let mut cached = self.cached.lock();
        let Some(path) = &self.path else { return Arc::clone(&cached.settings) };
        let now = stamps(&cached.settings.files);
        if now != cached.stamps {
            cached.stamps = now;
            match read(path) {
                Ok(settings) => {
                    cached.stamps = stamps(&settings.files);
                    cached.settings = Arc::new(settings);
                    tracing::info!(file = %path.display(), "the web configuration was read again");
                }
                Err(e) => tracing::error!(err = %e, "the web configuration is bad; the one before stays"),
            }
        }
        Arc::clone(&cached.settings)
    }

    /// How a new connection is encrypted, if it is.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.current().tls.clone()
    }

    /// Headers that every answer carries.
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.current().headers.clone()
    }

    /// Whether a request may pass; the answer to it if not.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let settings = self.current();
        if settings.rate_limit.as_ref().is_some_and(|limit| !limit.allow(Instant::now())) {
            let mut response = reply::text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Err(Box::new(response));
        }
        if settings.users.is_empty() {
            return Ok(());
        }
        let Some((user, password)) = credentials(headers) else { return Err(unauthorized()) };
        let known = settings.users.get(&user);
        let hash = known.unwrap_or(&self.dummy).clone();
        let digest = self.digest(&user, &password, &hash);
        if known.is_some() && self.remembered.lock().contains(&digest) {
            return Ok(());
        }
        let Ok(permit) = self.comparisons.acquire().await else { return Err(unauthorized()) };
        // A name that does not exist costs as much as one that does.
        let right =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        drop(permit);
        if known.is_none() || !right.unwrap_or(false) {
            return Err(unauthorized());
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest);
        Ok(())
    }

    fn digest(&self, user: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        for part in [user, password, hash] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().into()
    }
}

fn unauthorized() -> Box<Response> {
    let mut response = reply::text(StatusCode::UNAUTHORIZED, "Unauthorized\n");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
    Box::new(response)
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn read(path: &Path) -> Result<Settings, String> {
    let config = WebConfig::load(path).map_err(|e| e.to_string())?;
    let http2 = config.http_server_config.http2;
    let tls = config.tls_server_config.as_ref().map(|tls| server_config(tls, http2)).transpose()?;
    let rate_limit = config.rate_limit.as_ref().filter(|limit| limit.interval.0 > 0).map(|limit| {
        let interval = Duration::from_millis(limit.interval.0.unsigned_abs());
        RateLimit::new(interval, u32::try_from(limit.burst).unwrap_or(0), Instant::now())
    });
    let mut headers = Vec::new();
    for (name, value) in config.http_server_config.headers.iter().filter(|(_, v)| !v.is_empty()) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("header {name:?}: {e}"))?;
        let value = HeaderValue::from_str(value).map_err(|e| format!("value of header {name}: {e}"))?;
        headers.push((name, value));
    }
    let mut files = vec![path.to_owned()];
    if let Some(tls) = &config.tls_server_config {
        let named = [&tls.cert_file, &tls.key_file, &tls.client_ca_file];
        files.extend(named.iter().filter(|f| !f.is_empty()).map(|f| f.as_path().to_owned()));
    }
    let users =
        config.basic_auth_users.iter().map(|(user, hash)| (user.clone(), hash.expose().to_owned())).collect();
    Ok(Settings { tls, users, headers, files, rate_limit })
}
