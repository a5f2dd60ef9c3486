//! The web configuration file against real TLS handshakes: certificates of servers and clients, versions, ciphers,
//! names, reload, passwords, headers, rate limits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};

use super::server::{Answer, Server};
use super::world::{PATIENCE, until};

/// An authority and what it signed.
pub struct Authority {
    pub certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

pub struct Signed {
    pub chain: CertificateDer<'static>,
    pem: String,
    pub key: rcgen::KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    pub fn sign(&self, name: &str) -> Signed {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { chain: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn trust(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("an authority");
        roots
    }
}

/// Writes a certificate and its key; the new files replace the old ones at once.
fn write_pair(folder: &Path, name: &str, signed: &Signed) {
    for (ending, text) in [("crt", signed.pem.clone()), ("key", signed.key.serialize_pem())] {
        let part = folder.join(format!("{name}.{ending}.part"));
        std::fs::write(&part, text).expect("written");
        std::fs::rename(part, folder.join(format!("{name}.{ending}"))).expect("renamed");
    }
}

struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    fn new(
        authority: &Authority,
        own: Option<&Signed>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(authority.trust());
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![own.chain.clone()], key).expect("a pair")
            }
        };
        Self { config: Arc::new(config) }
    }

    /// One request; the error is whatever went wrong on the way.
    fn get(&self, address: &str, path: &str, headers: &str) -> Result<(Answer, ProtocolVersion), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(|e| text(&e))?;
        let socket = TcpStream::connect(address).map_err(|e| text(&e))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(|e| text(&e))?;
        let mut stream = StreamOwned::new(connection, socket);
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).map_err(|e| text(&e))?;
        let mut raw = Vec::new();
        if let Err(e) = stream.read_to_end(&mut raw) {
            // Some ends of connections are not announced; what matters is whether an answer came.
            if raw.is_empty() {
                return Err(text(&e));
            }
        }
        let version = stream.conn.protocol_version().ok_or("no handshake")?;
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no answer")?;
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
        let headers = head.lines().filter_map(|l| l.split_once(": "));
        let headers = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        Ok((Answer { status, headers, body: raw[end + 4..].to_vec() }, version))
    }

    fn status(&self, address: &str) -> Result<u16, String> {
        self.get(address, "/-/healthy", "").map(|(answer, _)| answer.status)
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
const OLD: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// Starts a server whose folder holds `server.crt`, `server.key`, `ca.crt` and this web configuration.
fn start(authority: &Authority, web: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "server", &authority.sign("localhost"));
    std::fs::write(folder.path().join("ca.crt"), authority.certificate.pem()).expect("written");
    std::fs::write(folder.path().join("web.yml"), web).expect("written");
    std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("written");
    Server::start_in(folder, &["--web.config.file=web.yml"])
}

const PAIR: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

#[test]
fn a_new_certificate_is_served_without_restart() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = start(&first, PAIR);
    let (old, new) = (Client::new(&first, None, BOTH), Client::new(&second, None, BOTH));
    assert_eq!(old.status(&server.address), Ok(200));
    assert!(new.status(&server.address).is_err(), "signed by somebody else");
    // A broken file keeps the old certificate.
    std::fs::write(server.path().join("server.crt"), "nonsense").expect("written");
    assert_eq!(old.status(&server.address), Ok(200));
    write_pair(server.path(), "server", &second.sign("localhost"));
    until("the new certificate", PATIENCE, || new.status(&server.address).map(drop));
    assert!(old.status(&server.address).is_err());
}

#[test]
fn clients_show_certificates_as_configured() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let none = Client::new(&authority, None, BOTH);
    let good = Client::new(&authority, Some(&authority.sign("good.example")), BOTH);
    let other = Client::new(&authority, Some(&authority.sign("other.example")), BOTH);
    let foreign = Client::new(&authority, Some(&stranger.sign("good.example")), BOTH);
    for (settings, want) in [
        ("  client_auth_type: RequestClientCert\n", [true, true, true, true]),
        ("  client_auth_type: RequireAnyClientCert\n", [false, true, true, true]),
        (
            "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n",
            [true, true, true, false],
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n",
            [false, true, true, false],
        ),
        (
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [good.example]\n",
            [false, true, false, false],
        ),
    ] {
        let server = start(&authority, &format!("{PAIR}{settings}"));
        let got = [&none, &good, &other, &foreign].map(|client| client.status(&server.address) == Ok(200));
        assert_eq!(got, want, "{settings}: none, good, other, foreign");
    }
}

#[test]
fn versions_and_ciphers_are_limited() {
    let authority = Authority::new();
    let old = Client::new(&authority, None, OLD);
    let both = Client::new(&authority, None, BOTH);
    let version = |client: &Client, server: &Server| {
        client.get(&server.address, "/-/healthy", "").map(|(_, version)| version)
    };
    let server = start(&authority, PAIR);
    assert_eq!(version(&old, &server), Ok(ProtocolVersion::TLSv1_2));
    assert_eq!(version(&both, &server), Ok(ProtocolVersion::TLSv1_3));
    let server = start(&authority, &format!("{PAIR}  min_version: TLS13\n"));
    assert!(version(&old, &server).is_err(), "too old");
    let server = start(&authority, &format!("{PAIR}  max_version: TLS12\n"));
    assert_eq!(version(&both, &server), Ok(ProtocolVersion::TLSv1_2));
    // The server's key is of another kind than the only suite wants.
    let suite = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n";
    let server = start(&authority, &format!("{PAIR}{suite}"));
    assert!(version(&both, &server).is_err(), "no common cipher");
}

#[test]
fn passwords_headers_and_rates() {
    let authority = Authority::new();
    let hash = bcrypt::hash("open sesame", 4).expect("a hash");
    let web = format!(
        "{PAIR}http_server_config:\n  http2: false\n  headers:\n    Strict-Transport-Security: max-age=31536000\n    \
         X-Frame-Options: SAMEORIGIN\nbasic_auth_users:\n  alice: {hash}\n"
    );
    let server = start(&authority, &web);
    let client = Client::new(&authority, None, BOTH);
    let ask = |credentials: &str| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let headers = format!("Authorization: Basic {encoded}\r\n");
        client.get(&server.address, "/metrics", &headers).expect("an answer").0
    };
    let refused = client.get(&server.address, "/-/healthy", "").expect("an answer").0;
    assert_eq!((refused.status, refused.header("WWW-Authenticate")), (401, Some("Basic")));
    assert_eq!(refused.header("Strict-Transport-Security"), Some("max-age=31536000"));
    for wrong in ["alice:wrong", "alice:", "bob:open sesame", &format!("alice:{hash}"), "alice", ""] {
        assert_eq!(ask(wrong).status, 401, "{wrong}");
    }
    let good = ask("alice:open sesame");
    assert_eq!((good.status, good.header("X-Frame-Options")), (200, Some("SAMEORIGIN")));
    // A second time from memory, and still not for anybody else.
    assert_eq!(ask("alice:open sesame").status, 200);
    assert_eq!(ask("alice:open sesame ").status, 401);
    let metrics = ask("alice:open sesame").text();
    assert!(!metrics.contains(&hash) && !metrics.contains("sesame"));
    drop(server);

    let server = start(&authority, &format!("{PAIR}rate_limit:\n  interval: 1h\n  burst: 3\n"));
    let got: Vec<_> = (0..5).map(|_| client.status(&server.address).expect("an answer")).collect();
    assert_eq!(got, [200, 200, 200, 429, 429]);
}

#[test]
fn plain_text_on_an_encrypted_port_is_harmless() {
    let authority = Authority::new();
    let server = start(&authority, PAIR);
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff], &[0; 64]] {
        let mut stream = TcpStream::connect(&server.address).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.write_all(junk).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("half closed");
        // An alert or nothing; the connection ends.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(Client::new(&authority, None, BOTH).status(&server.address), Ok(200));
}
