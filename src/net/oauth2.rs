//! How is a token had and kept? By a form post to the token endpoint (RFC 6749 §4.4) or with a signed assertion
//! (RFC 7523); it is kept until shortly before it expires, and fetched again when the secret changes.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::error::NetError;
use super::secrets::SecretSource;
use crate::config::http::GRANT_TYPE_JWT_BEARER;
use crate::config::{OAuth2, Secret};

/// How long before its end a token is no longer used.
const EARLY: Duration = Duration::from_secs(10);
/// How long the token endpoint may take.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer of a token endpoint in bytes.
const MAX_ANSWER: u64 = 1 << 20;

struct Token {
    header: Secret,
    until: Option<Instant>,
    /// The secret it was fetched with.
    secret: Secret,
}

/// Fetches and keeps the token of one `oauth2` block.
pub struct TokenSource {
    config: OAuth2,
    secret: SecretSource,
    client: reqwest::Client,
    token: Mutex<Option<Token>>,
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl TokenSource {
    /// A source that asks with `client`, which has the block's TLS and proxy.
    #[must_use]
    pub fn new(config: &OAuth2, client: reqwest::Client) -> Self {
        let secret = if config.grant_type == GRANT_TYPE_JWT_BEARER {
            SecretSource::new(
                "oauth2 client certificate key",
                &config.client_certificate_key,
                &config.client_certificate_key_file,
            )
        } else {
            SecretSource::new("oauth2 client secret", &config.client_secret, &config.client_secret_file)
        };
        Self { config: config.clone(), secret, client, token: Mutex::new(None) }
    }

    /// The value of the `Authorization` header, fetching a token when there is no fresh one.
    pub async fn header(&self) -> Result<Secret, NetError> {
        let secret = self.secret.read()?;
        // Held over the request so that many callers fetch one token.
        let mut token = self.token.lock().await;
        if let Some(token) = &*token
            && token.secret == secret
            && token.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.header.clone());
        }
        let fresh = self
            .fetch(&secret)
            .await
            .map_err(|reason| NetError::OAuth2 { url: self.config.token_url.to_string(), reason })?;
        let header = fresh.header.clone();
        *token = Some(fresh);
        Ok(header)
    }

    /// Forgets the token, as after an answer that refused it.
    pub async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn fetch(&self, secret: &Secret) -> Result<Token, String> {
        let config = &self.config;
        let mut request = self.client.post(config.token_url.expose()).timeout(TOKEN_TIMEOUT);
        // The serializer cannot cross an await, so it lives in a block of its own.
        let body = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            if config.grant_type == GRANT_TYPE_JWT_BEARER {
                form.append_pair("grant_type", GRANT_TYPE_JWT_BEARER);
                form.append_pair("assertion", &self.assertion(secret)?);
            } else {
                form.append_pair("grant_type", "client_credentials");
                // RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
                let encode = |t: &str| url::form_urlencoded::byte_serialize(t.as_bytes()).collect::<String>();
                request = request.basic_auth(encode(&config.client_id), Some(encode(secret.expose())));
            }
            if !config.scopes.is_empty() {
                form.append_pair("scope", &config.scopes.join(" "));
            }
            for (name, value) in &config.endpoint_params {
                form.append_pair(name, value);
            }
            form.finish()
        };
        let response = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .map_err(|e| super::builder::cause(&e))?;
        let status = response.status();
        let mut response = response;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| super::builder::cause(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_ANSWER {
                return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
            }
        }
        if !status.is_success() {
            return Err(format!("the endpoint answered {status}"));
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| "the answer is no token".to_owned())?;
        if answer.access_token.is_empty() {
            return Err("the answer has no access_token".into());
        }
        let kind = match answer.token_type.to_ascii_lowercase().as_str() {
            "" | "bearer" => "Bearer".to_owned(),
            "mac" => "MAC".to_owned(),
            "basic" => "Basic".to_owned(),
            _ => answer.token_type,
        };
        let lifetime = match answer.expires_in {
            Some(serde_json::Value::Number(n)) => n.as_u64(),
            Some(serde_json::Value::String(s)) => s.parse().ok(),
            _ => None,
        };
        let until = lifetime
            .filter(|s| *s > 0)
            .and_then(|s| Instant::now().checked_add(Duration::from_secs(s).saturating_sub(EARLY)));
        Ok(Token {
            header: Secret::new(format!("{kind} {}", answer.access_token)),
            until,
            secret: secret.clone(),
        })
    }

    /// The signed assertion: header, claims and RSA signature in base64url.
    fn assertion(&self, key: &Secret) -> Result<String, String> {
        use crate::model::clock::{Clock as _, SystemClock};
        let config = &self.config;
        let mut header = serde_json::json!({});
        if !config.client_certificate_key_id.is_empty() {
            header["kid"] = config.client_certificate_key_id.as_str().into();
        }
        let now = SystemClock.now_ms() / 1000;
        let issuer = if config.iss.is_empty() { &config.client_id } else { &config.iss };
        let audience =
            if config.audience.is_empty() { config.token_url.expose() } else { config.audience.as_str() };
        let mut nonce = [0u8; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| "no random numbers".to_owned())?;
        let mut claims = serde_json::json!({
            "iss": issuer, "sub": config.client_id, "aud": audience,
            "jti": URL_SAFE_NO_PAD.encode(nonce), "iat": now, "nbf": now, "exp": now + 3600,
        });
        if !config.scopes.is_empty() {
            claims["scope"] = config.scopes.join(" ").into();
        }
        for (name, value) in &config.claims {
            claims[name.as_str()] = value.as_str().into();
        }
        let key = super::jwt::rsa_key(key.expose().as_bytes(), "client certificate key")?;
        super::jwt::sign(&config.signature_algorithm, &key, header, &claims)
    }
}
