//! How is a connection encrypted, and which clients' certificates are good? The TLS section of the web configuration
//! file as a setting of rustls. Names of ciphers and curves are Go's; those that rustls does not have for their
//! weakness are left out with a warning, and none left is an error.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, ProtocolVersion, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::config::{ClientAuthType, FilePath, TlsServerConfig, TlsVersion};
use crate::net::tls::{signatures_by_inner, signatures_by_provider};

/// Names that Go knows for suites of TLS 1.2 and older, with those that are served.
const SUITES: &[(&str, Option<CipherSuite>)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)),
    ("TLS_AES_128_GCM_SHA256", None),
    ("TLS_AES_256_GCM_SHA384", None),
    ("TLS_CHACHA20_POLY1305_SHA256", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", None),
    ("TLS_RSA_WITH_RC4_128_SHA", None),
];

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

/// The algorithms that the section allows.
fn provider(tls: &TlsServerConfig) -> Result<CryptoProvider, String> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !tls.cipher_suites.is_empty() {
        let mut chosen = Vec::new();
        for name in &tls.cipher_suites {
            let known = SUITES.iter().find(|(n, _)| n == name);
            match known.ok_or_else(|| format!("unknown cipher: {name}"))?.1 {
                Some(suite) => chosen.push(suite),
                // Those of TLS 1.3 are always served, as in Go.
                None if name.starts_with("TLS_AES") || name.starts_with("TLS_CHACHA") => {}
                None => tracing::warn!(cipher = name, "this cipher suite is too weak to be served"),
            }
        }
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3 || chosen.contains(&suite.suite())
        });
        let has_12 = provider.cipher_suites.iter().any(|s| s.version().version == ProtocolVersion::TLSv1_2);
        if !has_12 && tls.max_version == TlsVersion::Tls12 {
            return Err("none of the cipher_suites can be served with TLS 1.2".into());
        }
    }
    if !tls.curve_preferences.is_empty() {
        let mut groups: Vec<&'static dyn SupportedKxGroup> = Vec::new();
        for name in &tls.curve_preferences {
            match name.as_str() {
                "CurveP256" => groups.push(rustls::crypto::aws_lc_rs::kx_group::SECP256R1),
                "CurveP384" => groups.push(rustls::crypto::aws_lc_rs::kx_group::SECP384R1),
                "X25519" => groups.push(rustls::crypto::aws_lc_rs::kx_group::X25519),
                "X25519MLKEM768" => groups.push(rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768),
                other => tracing::warn!(curve = other, "this curve is not available and is left out"),
            }
        }
        if groups.is_empty() {
            return Err("none of the curve_preferences is available".into());
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
}

/// How connections are encrypted under this section; the error is a text for people.
pub fn server_config(tls: &TlsServerConfig, http2: bool) -> Result<Arc<ServerConfig>, String> {
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
    let provider = Arc::new(provider(tls)?);
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|e| format!("TLS versions and cipher_suites do not fit: {e}"))?;
    let verified = |optional: bool| -> Result<Arc<dyn ClientCertVerifier>, String> {
        let mut roots = rustls::RootCertStore::empty();
        for ca in certificates(&material(&tls.client_ca, &tls.client_ca_file, "client CA")?, "client CA")? {
            roots.add(ca).map_err(|e| format!("client CA: {e}"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
        let verifier = verifier.build().map_err(|e| format!("client CA: {e}"))?;
        if tls.client_allowed_sans.is_empty() {
            return Ok(verifier);
        }
        Ok(Arc::new(NamedClients { inner: verifier, allowed: tls.client_allowed_sans.clone() }))
    };
    let builder = match tls.client_auth_type {
        ClientAuthType::NoClientCert => builder.with_no_client_auth(),
        ClientAuthType::RequestClientCert => {
            builder.with_client_cert_verifier(Arc::new(AnyClient { mandatory: false, algorithms }))
        }
        ClientAuthType::RequireAnyClientCert | ClientAuthType::RequireClientCert => {
            builder.with_client_cert_verifier(Arc::new(AnyClient { mandatory: true, algorithms }))
        }
        ClientAuthType::VerifyClientCertIfGiven => builder.with_client_cert_verifier(verified(true)?),
        ClientAuthType::RequireAndVerifyClientCert => builder.with_client_cert_verifier(verified(false)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| format!("certificate and key: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the client holds, whoever signed it.
#[derive(Debug)]
struct AnyClient {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_provider!(algorithms);
}

/// Takes valid certificates that carry one of some names.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl ClientCertVerifier for NamedClients {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(cert, intermediates, now)?;
        let names = alternative_names(cert).unwrap_or_default();
        if names.iter().any(|name| self.allowed.contains(name)) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    signatures_by_inner!();
}

/// One element of DER: tag, content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The subject alternative names of a certificate (RFC 5280, 4.2.1.6): DNS names, addresses of mail and network, URIs.
/// A certificate without them has none.
fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    const NAMES: &[u8] = &[0x55, 0x1d, 0x11];
    let (_, certificate, _) = element(certificate)?;
    let (_, mut body, _) = element(certificate)?;
    let mut extensions = None;
    while let Some((tag, content, rest)) = element(body) {
        if tag == 0xa3 {
            extensions = element(content).map(|(_, list, _)| list);
        }
        body = rest;
    }
    let mut extensions = extensions?;
    while let Some((_, extension, rest)) = element(extensions) {
        extensions = rest;
        let (_, id, mut value) = element(extension)?;
        if id != NAMES {
            continue;
        }
        // A flag whether the extension is critical may stand before its value.
        if let Some((0x01, _, after)) = element(value) {
            value = after;
        }
        let (_, list, _) = element(value)?;
        let (_, mut list, _) = element(list)?;
        let mut names = Vec::new();
        while let Some((tag, content, rest)) = element(list) {
            list = rest;
            match tag {
                0x81 | 0x82 | 0x86 => names.push(String::from_utf8_lossy(content).into_owned()),
                0x87 if content.len() == 4 => {
                    let octets: [u8; 4] = content.try_into().ok()?;
                    names.push(std::net::Ipv4Addr::from(octets).to_string());
                }
                0x87 if content.len() == 16 => {
                    let octets: [u8; 16] = content.try_into().ok()?;
                    names.push(std::net::Ipv6Addr::from(octets).to_string());
                }
                _ => {}
            }
        }
        return Some(names);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_alternative_names() {
        let mut params = rcgen::CertificateParams::new(vec!["one.example".into(), "10.0.0.7".into()])
            .expect("names are good");
        let mail = rcgen::string::Ia5String::try_from("ops@example.org").expect("ASCII");
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name(mail));
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let names = alternative_names(certificate.der()).expect("names");
        assert_eq!(names, ["one.example", "10.0.0.7", "ops@example.org"]);
        let whole = certificate.der().to_vec();
        for length in 0..whole.len() {
            // Cut certificates must not panic.
            let _ = alternative_names(&whole[..length]);
        }
        let plain = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        assert_eq!(alternative_names(plain.der()), None);
    }

    #[test]
    fn ciphers_and_curves_are_chosen_by_gos_names() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut tls = TlsServerConfig {
            cipher_suites: names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]),
            curve_preferences: names(&["CurveP384", "CurveP521"]),
            ..TlsServerConfig::default()
        };
        let provider = super::provider(&tls).expect("usable");
        assert_eq!(provider.cipher_suites.len(), 4, "three of TLS 1.3 and the chosen one");
        assert_eq!(provider.kx_groups.len(), 1);
        tls.cipher_suites = names(&["TLS_NONSENSE"]);
        assert_eq!(super::provider(&tls).err(), Some("unknown cipher: TLS_NONSENSE".into()));
        tls.cipher_suites.clear();
        tls.curve_preferences = names(&["CurveP521"]);
        assert!(super::provider(&tls).is_err(), "no curve left");
    }
}
