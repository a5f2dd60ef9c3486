//! How is a claim signed? JSON web tokens (RFC 7519) with RSA signatures.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

/// Reads the first private RSA key of a PEM text; `what` names it in errors.
pub(super) fn rsa_key(pem: &[u8], what: &str) -> Result<RsaKeyPair, String> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| format!("the {what} is not a PEM key"))?;
    match &der {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err(format!("the {what} is not an RSA key")),
    }
    .map_err(|_| format!("the {what} is not a usable RSA key"))
}

/// Header, claims and signature in base64url. `algorithm` is `RS256`, `RS384` or `RS512`, anything else counts as
/// the first; it is put into the header.
pub(super) fn sign(
    algorithm: &str,
    key: &RsaKeyPair,
    mut header: Value,
    claims: &Value,
) -> Result<String, String> {
    let (name, encoding) = match algorithm {
        "RS384" => ("RS384", &RSA_PKCS1_SHA384),
        "RS512" => ("RS512", &RSA_PKCS1_SHA512),
        _ => ("RS256", &RSA_PKCS1_SHA256),
    };
    header["alg"] = name.into();
    header["typ"] = "JWT".into();
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", encode(&header), encode(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| "signing the assertion failed".to_owned())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
