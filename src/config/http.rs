//! How does an outgoing HTTP client authenticate, encrypt and route? The block that scraping, discovery, alerting
//! and remote storage share.

use std::collections::BTreeMap;

use super::values::{ConfigUrl, FilePath, Secret};
use super::yaml::section::{section, words};
use super::yaml::{Context, FromYaml, Node, ToYaml, Value};

section! {
    /// `basic_auth`.
    pub struct BasicAuth("basic_auth") {
        /// User name.
        username: String; always,
        /// File that holds the user name, read for each request.
        username_file: FilePath,
        /// Password.
        password: Secret,
        /// File that holds the password, read for each request.
        password_file: FilePath,
    }
}

section! {
    /// `authorization`: the `Authorization` header as type and credentials.
    pub struct Authorization("authorization") {
        /// First word of the header; `Bearer` when not given.
        kind as "type": String,
        /// The rest of it.
        credentials: Secret,
        /// File that holds the rest of it, read for each request.
        credentials_file: FilePath,
    }
}

words! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// 1.0
        Tls10 = "TLS10",
        /// 1.1
        Tls11 = "TLS11",
        /// 1.2
        Tls12 = "TLS12",
        /// 1.3
        Tls13 = "TLS13",
    } else |text| format!("unknown TLS version: {text}")
}

section! {
    /// `tls_config` of a client.
    pub struct TlsConfig("tls_config") check check_tls {
        /// Certificates to trust, PEM.
        ca: String,
        /// The client's certificate, PEM.
        cert: String,
        /// The client's key, PEM.
        key: Secret,
        /// File with the certificates to trust.
        ca_file: FilePath,
        /// File with the client's certificate.
        cert_file: FilePath,
        /// File with the client's key.
        key_file: FilePath,
        /// Name the server's certificate must have; that of the URL when empty.
        server_name: String,
        /// Accept any certificate.
        insecure_skip_verify: bool; always,
        /// Oldest version; TLS 1.2 when not given.
        min_version: Option<TlsVersion>,
        /// Newest version.
        max_version: Option<TlsVersion>,
    }
}

fn check_tls(tls: &mut TlsConfig, node: &Node, cx: &mut Context) {
    for (inline, file, name) in [
        (!tls.ca.is_empty(), !tls.ca_file.is_empty(), "ca"),
        (!tls.cert.is_empty(), !tls.cert_file.is_empty(), "cert"),
        (!tls.key.is_empty(), !tls.key_file.is_empty(), "key"),
    ] {
        if inline && file {
            cx.error(
                node.place_of(name),
                format!("at most one of {name} and {name}_file must be configured"),
            );
        }
    }
    let cert = !tls.cert.is_empty() || !tls.cert_file.is_empty();
    let key = !tls.key.is_empty() || !tls.key_file.is_empty();
    if cert && !key {
        let message =
            "exactly one of key or key_file must be configured when a client certificate is configured";
        cx.error(node.at, message);
    }
    if key && !cert {
        cx.error(
            node.at,
            "exactly one of cert or cert_file must be configured when a client key is configured",
        );
    }
    if let (Some(min), Some(max)) = (tls.min_version, tls.max_version)
        && min > max
    {
        let message = format!(
            "tls_config.max_version must be greater than or equal to tls_config.min_version if both are specified \
             ({max} < {min})"
        );
        cx.error(node.place_of("max_version"), message);
    }
}

section! {
    /// The proxy fields.
    pub struct ProxyConfig("proxy settings") check check_proxy {
        /// Proxy for all requests.
        proxy_url: ConfigUrl,
        /// Hosts that are reached directly, separated by commas.
        no_proxy: String,
        /// Take the proxy from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
        proxy_from_environment: bool,
        /// Headers for the `CONNECT` request.
        proxy_connect_header: BTreeMap<String, Vec<Secret>>,
    }
}

fn check_proxy(proxy: &mut ProxyConfig, node: &Node, cx: &mut Context) {
    let (url, env) = (!proxy.proxy_url.is_empty(), proxy.proxy_from_environment);
    if !proxy.proxy_connect_header.is_empty() && !env && !url {
        let message = "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured";
        cx.error(node.place_of("proxy_connect_header"), message);
    }
    if env && url {
        let message = "if proxy_from_environment is configured, proxy_url must not be configured";
        cx.error(node.place_of("proxy_url"), message);
    }
    if env && !proxy.no_proxy.is_empty() {
        let message = "if proxy_from_environment is configured, no_proxy must not be configured";
        cx.error(node.place_of("no_proxy"), message);
    }
    if !env && !url && !proxy.no_proxy.is_empty() {
        cx.error(node.place_of("no_proxy"), "if no_proxy is configured, proxy_url must also be configured");
    }
}

section! {
    /// `oauth2`: a token fetched with client credentials or a signed assertion.
    pub struct OAuth2("oauth2") check check_oauth2 {
        /// Identity of the client.
        client_id: String; always,
        /// Its secret.
        client_secret: Secret,
        /// File that holds the secret.
        client_secret_file: FilePath,
        /// Identity of the key that signs assertions.
        client_certificate_key_id: String,
        /// Key that signs assertions, PEM.
        client_certificate_key: Secret,
        /// File that holds that key.
        client_certificate_key_file: FilePath,
        /// `client_credentials` (when empty) or `urn:ietf:params:oauth:grant-type:jwt-bearer`.
        grant_type: String,
        /// `RS256` (when empty), `RS384` or `RS512`.
        signature_algorithm: String,
        /// Issuer of assertions.
        iss: String,
        /// Audience of assertions.
        audience: String,
        /// Further claims of assertions.
        claims: BTreeMap<String, String>,
        /// Scopes to ask for.
        scopes: Vec<String>,
        /// Where to get the token.
        token_url: ConfigUrl; always,
        /// Further parameters of the request.
        endpoint_params: BTreeMap<String, String>,
        /// TLS of the connection to the token endpoint.
        tls_config: TlsConfig,
        /// Proxy to the token endpoint.
        proxy: ProxyConfig; inline,
    }
}

/// The grant type of a signed assertion (RFC 7523).
pub const GRANT_TYPE_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn check_oauth2(oauth: &mut OAuth2, node: &Node, cx: &mut Context) {
    if oauth.client_id.is_empty() {
        cx.error(node.at, "oauth2 client_id must be configured");
    }
    if oauth.token_url.is_empty() {
        cx.error(node.at, "oauth2 token_url must be configured");
    }
    if !oauth.client_secret.is_empty() && !oauth.client_secret_file.is_empty() {
        let message =
            "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be configured";
        cx.error(node.place_of("client_secret"), message);
    }
    if oauth.grant_type == GRANT_TYPE_JWT_BEARER {
        let (inline, file) =
            (!oauth.client_certificate_key.is_empty(), !oauth.client_certificate_key_file.is_empty());
        if inline == file {
            let message = "exactly one of oauth2 client_certificate_key & client_certificate_key_file must be configured \
                           with grant_type jwt-bearer";
            cx.error(node.at, message);
        }
        if !matches!(oauth.signature_algorithm.as_str(), "" | "RS256" | "RS384" | "RS512") {
            cx.error(
                node.place_of("signature_algorithm"),
                "valid signature algorithms are RS256, RS384 and RS512",
            );
        }
    } else if !matches!(oauth.grant_type.as_str(), "" | "client_credentials") {
        let message = format!("unknown oauth2 grant_type {:?}", oauth.grant_type);
        cx.error(node.place_of("grant_type"), message);
    }
}

section! {
    /// The values of one header.
    pub struct HeaderValues("http_headers") {
        /// Values that may be shown.
        values: Vec<String>,
        /// Values that are secret.
        secrets: Vec<Secret>,
        /// Files that hold values, read for each request.
        files: Vec<FilePath>,
    }
}

/// Headers that the client sets itself and that no configuration may change.
const RESERVED_HEADERS: [&str; 15] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
];

section! {
    /// The HTTP client block.
    pub struct HttpClientConfig("http client") check check_http {
        /// User name and password.
        basic_auth: Option<BasicAuth>,
        /// The `Authorization` header.
        authorization: Option<Authorization>,
        /// A token fetched as needed.
        oauth2: Option<Box<OAuth2>>,
        /// Old spelling of `authorization` with type `Bearer`; moved there.
        bearer_token: Secret,
        /// Old spelling of `authorization` with a file; moved there.
        bearer_token_file: FilePath,
        /// TLS.
        tls_config: TlsConfig,
        /// Whether redirects are followed.
        follow_redirects: bool = true; always,
        /// Whether HTTP/2 may be used.
        enable_http2: bool = true; always,
        /// Proxy.
        proxy: ProxyConfig; inline,
        /// Further headers of each request.
        http_headers: BTreeMap<String, HeaderValues>,
    }
}

impl HttpClientConfig {
    /// Reads a file that holds nothing but this block; relative paths resolve against its folder.
    pub fn load(path: &std::path::Path) -> Result<Self, super::ConfigErrors> {
        use super::yaml::FromYaml as _;
        let text = super::load::read_file(path)?;
        let dir = path.parent().unwrap_or(std::path::Path::new(""));
        let mut cx = Context::new(&path.display().to_string(), dir, &text);
        let root = cx.document().root;
        let http = Self::from_yaml(&root, &mut cx).unwrap_or_default();
        cx.finish().map(|_| http)
    }

    /// The kind of authentication that is configured, if any: the name of its field.
    #[must_use]
    pub fn auth_kind(&self) -> Option<&'static str> {
        if self.basic_auth.is_some() {
            Some("basic_auth")
        } else if self.authorization.is_some() {
            Some("authorization")
        } else if self.oauth2.is_some() {
            Some("oauth2")
        } else {
            None
        }
    }
}

fn check_http(http: &mut HttpClientConfig, node: &Node, cx: &mut Context) {
    let (token, token_file) = (!http.bearer_token.is_empty(), !http.bearer_token_file.is_empty());
    let bearer = token || token_file;
    let bearer_place = node.place_of(if token { "bearer_token" } else { "bearer_token_file" });
    if token && token_file {
        cx.error(bearer_place, "at most one of bearer_token & bearer_token_file must be configured");
    }
    if bearer && (http.basic_auth.is_some() || http.oauth2.is_some()) {
        let message =
            "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured";
        cx.error(bearer_place, message);
    }
    if let Some(basic) = &http.basic_auth {
        let place = node.place_of("basic_auth");
        if !basic.username.is_empty() && !basic.username_file.is_empty() {
            let message =
                "at most one of basic_auth username, username_file & username_ref must be configured";
            cx.error(place, message);
        }
        if !basic.password.is_empty() && !basic.password_file.is_empty() {
            let message =
                "at most one of basic_auth password, password_file & password_ref must be configured";
            cx.error(place, message);
        }
    }
    let others = http.basic_auth.is_some() || http.oauth2.is_some();
    if let Some(authorization) = &mut http.authorization {
        let place = node.place_of("authorization");
        if bearer {
            cx.error(bearer_place, "authorization is not compatible with bearer_token & bearer_token_file");
        }
        if !authorization.credentials.is_empty() && !authorization.credentials_file.is_empty() {
            cx.error(place, "at most one of authorization credentials & credentials_file must be configured");
        }
        authorization.kind = authorization.kind.trim().to_owned();
        if authorization.kind.is_empty() {
            authorization.kind = "Bearer".into();
        }
        if authorization.kind.eq_ignore_ascii_case("basic") {
            cx.error(place, "authorization type cannot be set to \"basic\", use \"basic_auth\" instead");
        }
        if others {
            cx.error(place, "at most one of basic_auth, oauth2 & authorization must be configured");
        }
    } else if bearer {
        http.authorization = Some(Authorization {
            kind: "Bearer".into(),
            credentials: std::mem::take(&mut http.bearer_token),
            credentials_file: std::mem::take(&mut http.bearer_token_file),
        });
    }
    if http.basic_auth.is_some() && http.oauth2.is_some() {
        cx.error(
            node.place_of("oauth2"),
            "at most one of basic_auth, oauth2 & authorization must be configured",
        );
    }
    for name in http.http_headers.keys() {
        if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            cx.error(node.place_of("http_headers"), format!("setting header {name:?} is not allowed"));
        }
    }
}

/// A list that may be written as a single text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OneOrMany(pub Vec<String>);

impl FromYaml for OneOrMany {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        if node.text().is_some() {
            return String::from_yaml(node, cx).map(|one| Self(vec![one]));
        }
        Vec::from_yaml(node, cx).map(Self)
    }
}

impl ToYaml for OneOrMany {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
