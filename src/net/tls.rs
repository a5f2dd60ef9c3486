//! How is TLS set up? Every `rustls::ClientConfig` of the process is made here, so that CA files, client
//! certificates, server names and versions behave alike for scraping, alerting, discovery and remote storage.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::error::NetError;
use super::secrets::read_bounded;
use crate::config::{FilePath, TlsConfig, TlsVersion};

/// Makes `aws-lc-rs` the crypto provider of the process; later calls do nothing.
pub fn install_crypto_provider() {
    // The error only says that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    install_crypto_provider();
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// The certificates that the machine trusts, loaded once; a machine without any trusts nobody.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a certificate of the system could not be loaded");
            }
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        })
        .clone()
}

fn fault(what: impl Into<String>, reason: impl ToString) -> NetError {
    NetError::Tls { what: what.into(), reason: reason.to_string() }
}

/// Largest file of certificates or keys, bytes; all authorities that browsers know take a quarter of a megabyte.
const MAX_PEM_BYTES: u64 = 16 << 20;

/// The bytes given in the configuration or read from the file it names; `None` when neither is given.
fn material(inline: &str, file: &FilePath, what: &str) -> Result<Option<Vec<u8>>, NetError> {
    if !inline.is_empty() {
        return Ok(Some(inline.as_bytes().to_vec()));
    }
    if file.is_empty() {
        return Ok(None);
    }
    read_bounded(file.as_path(), MAX_PEM_BYTES)
        .map(Some)
        .map_err(|e| fault(format!("unable to use specified {what} {}", file.0), e))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| fault(format!("parsing {what}"), e))?;
    if certs.is_empty() {
        return Err(fault(format!("parsing {what}"), "no certificate found"));
    }
    Ok(certs)
}

/// Builds the client side of a `tls_config` block, reading the files it names.
pub fn client_config(tls: &TlsConfig, enable_http2: bool) -> Result<ClientConfig, NetError> {
    let provider = provider();
    let versions: Vec<&rustls::SupportedProtocolVersion> =
        [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(v, _)| tls.min_version.is_none_or(|min| *v >= min))
            .filter(|(v, _)| tls.max_version.is_none_or(|max| *v <= max))
            .map(|(_, version)| version)
            .collect();
    if versions.is_empty() {
        return Err(fault("choosing versions", "only TLS 1.2 and 1.3 are supported"));
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|e| fault("choosing versions", e))?;

    let roots = match material(&tls.ca, &tls.ca_file, "CA certificate")? {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for cert in certificates(&pem, "CA certificate")? {
                roots.add(cert).map_err(|e| fault("adding CA certificate", e))?;
            }
            Arc::new(roots)
        }
        None => system_roots(),
    };
    let server_name = match tls.server_name.as_str() {
        "" => None,
        name => Some(
            ServerName::try_from(name.to_owned())
                .map_err(|e| fault(format!("using server_name {name:?}"), e))?,
        ),
    };
    let verifier: Arc<dyn ServerCertVerifier> = if tls.insecure_skip_verify {
        Arc::new(AcceptAny(provider.clone()))
    } else if roots.is_empty() {
        Arc::new(TrustNobody(provider.clone()))
    } else {
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| fault("building the verifier", e))?;
        match server_name {
            Some(name) => Arc::new(FixedName { inner, name }),
            None => inner,
        }
    };
    // With all three verifiers above the safety of the choice is the user's: `insecure_skip_verify` is explicit.
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);

    let cert = material(&tls.cert, &tls.cert_file, "client certificate")?;
    let key = material(tls.key.expose(), &tls.key_file, "client key")?;
    let mut config = match (cert, key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(&cert, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| fault("parsing client key", e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| fault("using client certificate", e))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols =
        if enable_http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

/// Accepts every certificate but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

/// Refuses every certificate: nothing is trusted on a machine without certificates.
#[derive(Debug)]
struct TrustNobody(Arc<CryptoProvider>);

/// Verifies against a name from the configuration instead of that of the URL.
#[derive(Debug)]
struct FixedName {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

/// Signatures of handshakes, checked with the algorithms in a field of the verifier.
macro_rules! signatures_by_provider {
    ($($algorithms:tt)+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &self.$($algorithms)+)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &self.$($algorithms)+)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$($algorithms)+.supported_schemes()
        }
    };
}
pub(crate) use signatures_by_provider;

/// Signatures of handshakes, checked by the verifier in the field `inner`.
macro_rules! signatures_by_inner {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.inner.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.inner.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}
pub(crate) use signatures_by_inner;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!(0.signature_verification_algorithms);
}

impl ServerCertVerifier for TrustNobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    signatures_by_provider!(0.signature_verification_algorithms);
}

impl ServerCertVerifier for FixedName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    signatures_by_inner!();
}
