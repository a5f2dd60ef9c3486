//! How is the server's own HTTP side secured? The file of `--web.config.file`: TLS, users, headers, rate limit.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigErrors;
use super::http::TlsVersion;
use super::values::{FilePath, PromDuration, Secret};
use super::yaml::section::{section, words};
use super::yaml::{Context, FromYaml, Node};

words! {
    /// Whether clients show a certificate.
    pub enum ClientAuthType {
        /// They are not asked.
        NoClientCert = "NoClientCert",
        /// They are asked and may show any or none.
        RequestClientCert = "RequestClientCert",
        /// They must show one, whoever signed it.
        RequireAnyClientCert = "RequireAnyClientCert",
        /// The old spelling of the same.
        RequireClientCert = "RequireClientCert",
        /// What they show must be valid.
        VerifyClientCertIfGiven = "VerifyClientCertIfGiven",
        /// They must show a valid one.
        RequireAndVerifyClientCert = "RequireAndVerifyClientCert",
    } else |text| format!("invalid ClientAuth: {text}")
}

section! {
    /// `tls_server_config`.
    pub struct TlsServerConfig("tls_server_config") check check_tls_server {
        /// The server's certificate, PEM.
        cert: String,
        /// Its key, PEM.
        key: Secret,
        /// Certificates that sign those of clients, PEM.
        client_ca: String,
        /// File with the server's certificate.
        cert_file: FilePath,
        /// File with its key.
        key_file: FilePath,
        /// Whether clients show a certificate.
        client_auth_type: ClientAuthType = ClientAuthType::NoClientCert,
        /// File with certificates that sign those of clients.
        client_ca_file: FilePath,
        /// Names of which the client's certificate must have one.
        client_allowed_sans: Vec<String>,
        /// Oldest version.
        min_version: TlsVersion = TlsVersion::Tls12,
        /// Newest version.
        max_version: TlsVersion = TlsVersion::Tls13,
        /// Cipher suites of TLS 1.2 by their names in Go; empty means the good ones.
        cipher_suites: Vec<String>,
        /// Without effect, as in Go since 1.17.
        prefer_server_cipher_suites: bool = true; always,
        /// Curves in order of preference: `CurveP256`, `CurveP384`, `CurveP521`, `X25519`, `X25519MLKEM768`.
        curve_preferences: Vec<String>,
    }
}

const CURVES: [&str; 5] = ["CurveP256", "CurveP384", "CurveP521", "X25519", "X25519MLKEM768"];

fn check_tls_server(tls: &mut TlsServerConfig, node: &Node, cx: &mut Context) {
    for (inline, file, name) in [
        (!tls.cert.is_empty(), !tls.cert_file.is_empty(), "cert"),
        (!tls.key.is_empty(), !tls.key_file.is_empty(), "key"),
    ] {
        match (inline, file) {
            (true, true) => {
                cx.error(node.place_of(name), format!("only one of {name} and {name}_file can be used"));
            }
            (false, false) => cx.error(node.at, format!("missing one of {name} or {name}_file")),
            _ => {}
        }
    }
    let ca = !tls.client_ca.is_empty() || !tls.client_ca_file.is_empty();
    if !tls.client_ca.is_empty() && !tls.client_ca_file.is_empty() {
        cx.error(node.place_of("client_ca"), "only one of client_ca and client_ca_file can be used");
    }
    if ca && tls.client_auth_type == ClientAuthType::NoClientCert {
        cx.error(node.at, "client CAs have been configured without a Client Auth Policy");
    }
    if !tls.client_allowed_sans.is_empty() && !ca {
        let message = "client_allowed_sans needs client_ca or client_ca_file";
        cx.error(node.place_of("client_allowed_sans"), message);
    }
    if tls.min_version > tls.max_version {
        cx.error(node.place_of("max_version"), "max_version is older than min_version");
    }
    for curve in &tls.curve_preferences {
        if !CURVES.contains(&curve.as_str()) {
            cx.error(node.place_of("curve_preferences"), format!("unknown curve: {curve}"));
        }
    }
}

section! {
    /// `http_server_config`.
    pub struct HttpServerConfig("http_server_config") check check_http_server {
        /// Whether HTTP/2 is offered, which needs TLS.
        http2: bool = true; always,
        /// Headers of every answer.
        headers: BTreeMap<String, String>,
    }
}

/// Headers that may be configured.
const ALLOWED_HEADERS: [&str; 5] = [
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
];

fn check_http_server(http: &mut HttpServerConfig, node: &Node, cx: &mut Context) {
    for (name, value) in &http.headers {
        let at = node.get("headers").map_or(node.at, |n| n.place_of(name));
        if !ALLOWED_HEADERS.contains(&name.as_str()) {
            cx.error(at, format!("HTTP header {name:?} can not be configured"));
        }
        let exact: &[&str] = match name.as_str() {
            "X-Content-Type-Options" => &["nosniff"],
            "X-Frame-Options" => &["deny", "sameorigin"],
            _ => &[],
        };
        if !exact.is_empty() && !value.is_empty() && !exact.iter().any(|e| value.eq_ignore_ascii_case(e)) {
            cx.error(at, format!("invalid value for {name}. Expected one of: {exact:?}, but got: {value:?}"));
        }
    }
}

section! {
    /// `rate_limit`: a token bucket over all requests.
    pub struct RateLimitConfig("rate_limit") {
        /// Time for one more request; 0 is no limit.
        interval: PromDuration,
        /// Requests that may come at once.
        burst: i64,
    }
}

section! {
    /// The web configuration file.
    pub struct WebConfig("web config") check check_web {
        /// TLS; plain HTTP when not given.
        tls_server_config: Option<TlsServerConfig>,
        /// HTTP.
        http_server_config: HttpServerConfig,
        /// User names with the bcrypt hash of their password.
        basic_auth_users: BTreeMap<String, Secret>,
        /// Rate limit.
        rate_limit: Option<RateLimitConfig>,
    }
}

fn check_web(web: &mut WebConfig, node: &Node, cx: &mut Context) {
    for (user, hash) in &web.basic_auth_users {
        let valid = ["$2a$", "$2b$", "$2y$", "$2x$"].iter().any(|p| hash.expose().starts_with(p))
            && hash.expose().len() == 60;
        if !valid {
            let at = node.get("basic_auth_users").map_or(node.at, |n| n.place_of(user));
            cx.error(at, format!("the password of user {user:?} is not a bcrypt hash"));
        }
    }
}

impl WebConfig {
    /// Reads a file; relative paths resolve against its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&super::load::read_file(path)?, path)
    }

    /// Reads text as if it stood in `origin`.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, ConfigErrors> {
        let dir = origin.parent().unwrap_or(Path::new(""));
        let mut cx = Context::new(&origin.display().to_string(), dir, text);
        let root = cx.document().root;
        let web = Self::from_yaml(&root, &mut cx).unwrap_or_default();
        cx.finish().map(|_| web)
    }
}
