//! Who is this server to Google Cloud? The application default credentials: a file named by the configuration or
//! `GOOGLE_APPLICATION_CREDENTIALS`, the one that `gcloud` leaves in the home directory, or the metadata service.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    Authenticator, Authorized, Environment, Outgoing, TIMEOUT, Token, TokenCache, bearer, call, post_form,
    set_authorization, token_client,
};
use crate::config::Secret;
use crate::config::http::GRANT_TYPE_JWT_BEARER;
use crate::model::clock::{Clock as _, SystemClock};
use crate::net::error::NetError;
use crate::net::{HttpClient, Request};

/// Where files that name no token endpoint mean theirs.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// Fetches and keeps tokens for one scope.
pub struct GoogleToken {
    scope: String,
    file: Option<PathBuf>,
    environment: Environment,
    client: HttpClient,
    cache: TokenCache,
}

impl std::fmt::Debug for GoogleToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoogleToken").field("scope", &self.scope).finish_non_exhaustive()
    }
}

fn fail(reason: impl Into<String>) -> NetError {
    NetError::Credentials { provider: "Google Cloud", reason: reason.into() }
}

impl GoogleToken {
    /// Tokens for `scope`; `file` goes before what the environment offers.
    pub fn new(scope: &str, file: Option<PathBuf>, environment: Environment) -> Result<Self, NetError> {
        let client = token_client()?;
        Ok(Self { scope: scope.to_owned(), file, environment, client, cache: TokenCache::default() })
    }

    /// The value of the `Authorization` header.
    pub async fn header(&self) -> Result<Secret, NetError> {
        self.cache.get(self.fetch()).await
    }

    async fn fetch(&self) -> Result<Token, NetError> {
        let env = &self.environment;
        let named =
            self.file.clone().or_else(|| env.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from));
        let usual = env.home(".config/gcloud/application_default_credentials.json").filter(|p| p.is_file());
        match named.or(usual) {
            Some(path) => {
                let text =
                    std::fs::read(&path).map_err(|e| fail(format!("cannot read {}: {e}", path.display())))?;
                let json: Value = serde_json::from_slice(&text)
                    .map_err(|e| fail(format!("{} is no JSON: {e}", path.display())))?;
                self.exchange(&json).await
            }
            None => self.metadata().await,
        }
    }

    async fn exchange(&self, file: &Value) -> Result<Token, NetError> {
        let get = |name: &str| file[name].as_str().unwrap_or_default();
        let url = match get("token_uri") {
            "" => TOKEN_URL,
            url => url,
        };
        match get("type") {
            "service_account" => {
                let key =
                    crate::net::jwt::rsa_key(get("private_key").as_bytes(), "private_key").map_err(fail)?;
                let now = SystemClock.now_ms() / 1000;
                let claims = json!({
                    "iss": get("client_email"), "scope": self.scope, "aud": url, "iat": now, "exp": now + 3600,
                });
                let header = json!({ "kid": get("private_key_id") });
                let assertion = crate::net::jwt::sign("RS256", &key, header, &claims).map_err(fail)?;
                let pairs = [("grant_type", GRANT_TYPE_JWT_BEARER), ("assertion", assertion.as_str())];
                let (status, body) = post_form(&self.client, url, &pairs).await?;
                bearer("Google Cloud", "the token endpoint", status, &body)
            }
            "authorized_user" => {
                let pairs = [
                    ("grant_type", "refresh_token"),
                    ("client_id", get("client_id")),
                    ("client_secret", get("client_secret")),
                    ("refresh_token", get("refresh_token")),
                ];
                let (status, body) = post_form(&self.client, url, &pairs).await?;
                bearer("Google Cloud", "the token endpoint", status, &body)
            }
            other => Err(fail(format!(
                "credentials of type {other:?} are not supported; use those of a service account or a user"
            ))),
        }
    }

    async fn metadata(&self) -> Result<Token, NetError> {
        let host =
            self.environment.get("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".into());
        let scopes = url::form_urlencoded::byte_serialize(self.scope.as_bytes()).collect::<String>();
        let url = format!(
            "http://{host}/computeMetadata/v1/instance/service-accounts/default/token?scopes={scopes}"
        );
        let mut request = Request::get(&url, TIMEOUT);
        request.headers.insert("metadata-flavor", http::HeaderValue::from_static("Google"));
        let (status, body) = call(&self.client, request).await.map_err(|e| {
            fail(format!(
                "GOOGLE_APPLICATION_CREDENTIALS is not set and the metadata service is not reached ({e})"
            ))
        })?;
        bearer("Google Cloud", "the metadata service", status, &body)
    }
}

impl Authenticator for GoogleToken {
    fn authorize<'a>(&'a self, outgoing: Outgoing<'a>) -> Authorized<'a> {
        Box::pin(async move { set_authorization(outgoing.headers, &self.header().await?) })
    }
}
