//! Who may talk to this server, and how? TLS, passwords and headers of the web configuration file, which is looked at
//! again for each connection and request, so that a change needs no restart. A file that turns bad keeps the old
//! settings.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use axum::response::Response;
use base64::Engine as _;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::reply;
use crate::config::{ClientAuthType, FilePath, TlsServerConfig, TlsVersion, WebConfig};

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
            None => Settings { tls: None, users: BTreeMap::new(), headers: Vec::new(), files: Vec::new() },
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
    if config.rate_limit.is_some() {
        tracing::warn!("rate_limit of the web configuration has no effect in this version");
    }
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
    Ok(Settings { tls, users, headers, files })
}

/// The bytes given in the file or read from the file it names.
fn material(inline: &str, file: &FilePath, what: &str) -> Result<Vec<u8>, String> {
    if !inline.is_empty() {
        return Ok(inline.as_bytes().to_vec());
    }
    std::fs::read(file.as_path()).map_err(|e| format!("{what} {}: {e}", file.0))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|e| format!("{what}: {e}"))?;
    if all.is_empty() { Err(format!("{what}: no certificate found")) } else { Ok(all) }
}

fn server_config(tls: &TlsServerConfig, http2: bool) -> Result<Arc<ServerConfig>, String> {
    crate::net::install_crypto_provider();
    let chain = certificates(&material(&tls.cert, &tls.cert_file, "certificate")?, "certificate")?;
    let key = material(tls.key.expose(), &tls.key_file, "private key")?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("private key: {e}"))?;
    let mut versions = Vec::new();
    for (version, supported) in
        [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
    {
        if tls.min_version <= version && version <= tls.max_version {
            versions.push(supported);
        }
    }
    if versions.is_empty() {
        return Err("only TLS 1.2 and 1.3 are served; change min_version and max_version".into());
    }
    if !tls.client_allowed_sans.is_empty() {
        return Err("client_allowed_sans is not available in this version".into());
    }
    if !tls.cipher_suites.is_empty() || !tls.curve_preferences.is_empty() {
        tracing::warn!("cipher_suites and curve_preferences have no effect: only strong ones are served");
    }
    let builder = ServerConfig::builder_with_protocol_versions(&versions);
    let verifier = || {
        let mut roots = rustls::RootCertStore::empty();
        for ca in certificates(&material(&tls.client_ca, &tls.client_ca_file, "client CA")?, "client CA")? {
            roots.add(ca).map_err(|e| format!("client CA: {e}"))?;
        }
        Ok::<_, String>(WebPkiClientVerifier::builder(Arc::new(roots)))
    };
    let built = |e: rustls::server::VerifierBuilderError| format!("client CA: {e}");
    let builder = match tls.client_auth_type {
        ClientAuthType::NoClientCert => builder.with_no_client_auth(),
        ClientAuthType::VerifyClientCertIfGiven => {
            builder.with_client_cert_verifier(verifier()?.allow_unauthenticated().build().map_err(built)?)
        }
        ClientAuthType::RequireAndVerifyClientCert => {
            builder.with_client_cert_verifier(verifier()?.build().map_err(built)?)
        }
        other => return Err(format!("client_auth_type {} is not available in this version", other.as_str())),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(Arc::new(config))
}
