//! Targets from the servers of a STACKIT project. Requests carry a token that is exchanged for an assertion signed with
//! the key of a service account.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port, sanitize};
use crate::config::sd::cloud::StackitSdConfig;
use crate::model::clock::{Clock as _, SystemClock};
use crate::model::target_group::TargetGroup;
use crate::net::cloud::signed_assertion;

const TOKEN_URL: &str = "https://service-account.api.stackit.cloud/token";
/// How long before its end a token is no longer used.
const EARLY: Duration = Duration::from_secs(60);

pub(super) struct StackitDiscovery {
    config: StackitSdConfig,
    rest: Rest,
    token_url: String,
    until: Option<Instant>,
}

impl StackitDiscovery {
    pub(super) fn new(config: &StackitSdConfig) -> Result<Self, String> {
        Self::at(config, TOKEN_URL)
    }

    pub(super) fn at(config: &StackitSdConfig, token_url: &str) -> Result<Self, String> {
        let usual = format!("https://iaas.api.{}.stackit.cloud", config.region);
        let base = if config.endpoint.is_empty() { &usual } else { &config.endpoint };
        let rest = Rest::new(&config.http, base)?;
        Ok(Self { rest, config: config.clone(), token_url: token_url.to_owned(), until: None })
    }

    /// The key of the service account, and its private key, which may stand in a place of its own.
    fn key(&self) -> Result<Option<(Value, String)>, String> {
        let config = &self.config;
        let read = |path: &str, what: &str| {
            std::fs::read_to_string(path).map_err(|e| format!("unable to read {what} {path}: {e}"))
        };
        let credentials: Value = match config.credentials_file_path.as_str() {
            "" => Value::Null,
            path => serde_json::from_str(&read(path, "credentials file")?)
                .map_err(|e| format!("credentials file {path}: {e}"))?,
        };
        let given = |inline: &str, path: &str, name: &str, what: &str| {
            let named = credentials[format!("{name}_PATH")].as_str().unwrap_or_default();
            match (inline, path, credentials[name].as_str(), named) {
                ("", "", None, "") => Ok(String::new()),
                ("", "", Some(text), _) => Ok(text.to_owned()),
                ("", "", None, path) | ("", path, ..) => read(path, what),
                (inline, ..) => Ok(inline.to_owned()),
            }
        };
        let account = given(
            config.service_account_key.expose(),
            &config.service_account_key_path,
            "STACKIT_SERVICE_ACCOUNT_KEY",
            "service account key",
        )?;
        if account.is_empty() {
            return Ok(None);
        }
        let account: Value =
            serde_json::from_str(&account).map_err(|e| format!("the service account key is no JSON: {e}"))?;
        let mut private = given(
            config.private_key.expose(),
            &config.private_key_path,
            "STACKIT_PRIVATE_KEY",
            "private key",
        )?;
        if private.is_empty() {
            private = Fields(&account).text("/credentials/privateKey");
        }
        Ok(Some((account, private)))
    }

    async fn log_in(&mut self) -> Result<(), String> {
        if self.until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let Some((account, private)) = self.key()? else { return Ok(()) };
        let account = Fields(&account);
        let now = SystemClock.now_ms() / 1000;
        let claims = json!({
            "iss": account.text("/credentials/iss"), "sub": account.text("/credentials/sub"),
            "aud": account.text("/credentials/aud"), "jti": format!("{:032x}", fastrand::u128(..)),
            "iat": now, "exp": now + 600,
        });
        let header = json!({ "kid": account.text("/credentials/kid") });
        let assertion = signed_assertion("RS512", private.as_bytes(), header, &claims)?;
        let form = super::rest::query([
            ("grant_type", crate::config::http::GRANT_TYPE_JWT_BEARER),
            ("assertion", assertion.as_str()),
        ]);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let url = self.token_url.clone();
        let (status, answer, _) =
            self.rest.send(http::Method::POST, &url, &headers, form.into_bytes()).await?;
        if !status.is_success() {
            return Err(format!("the token endpoint answered with status {status}"));
        }
        let answer: Value =
            serde_json::from_slice(answer).map_err(|e| format!("cannot decode the token: {e}"))?;
        let answer = Fields(&answer);
        let life = Duration::from_secs(answer.number("/expires_in").clamp(0, 86_400).unsigned_abs());
        self.until = Some(Instant::now() + life.saturating_sub(EARLY));
        self.rest.header("authorization", &format!("Bearer {}", answer.text("/access_token")));
        Ok(())
    }
}

fn target(server: Fields<'_>, project: &str, port: u16) -> Option<LabelMap> {
    let mut meta = Meta::new("__meta_stackit_");
    meta.set("project", project);
    meta.copy(
        server,
        &[
            ("id", "/id"),
            ("name", "/name"),
            ("availability_zone", "/availabilityZone"),
            ("status", "/status"),
            ("power_status", "/powerStatus"),
            ("type", "/machineType"),
        ],
    );
    let (mut public, mut first) = (None, None);
    for card in server.items("/nics") {
        let given = |pointer: &str| card.some(pointer).filter(|ip| !ip.is_empty());
        public = public.or_else(|| given("/publicIp"));
        if let Some(ip) = given("/ipv4") {
            meta.set(&format!("private_ipv4_{}", sanitize(&card.text("/networkName"))), ip.as_str());
            first.get_or_insert(ip);
        }
    }
    let address = public.clone().or(first)?;
    meta.set_some("public_ipv4", public);
    for (name, value) in server.members("/labels").filter(|(_, value)| value.0.is_string()) {
        meta.set(&format!("labelpresent_{}", sanitize(name)), "true");
        meta.set(&format!("label_{}", sanitize(name)), value.text(""));
    }
    Some(meta.at(join_host_port(&address, port)))
}

impl Refresher for StackitDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        self.log_in().await?;
        let project = self.config.project.clone();
        let list: Value = self.rest.get(&format!("/v1/projects/{project}/servers?details=true")).await?;
        let targets = Fields(&list).items("/items").filter_map(|s| target(s, &project, self.config.port));
        let targets = targets.collect();
        Ok(vec![TargetGroup { source: "stackit".into(), targets, labels: LabelMap::new() }])
    }
}
