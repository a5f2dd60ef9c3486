//! Who is this server to AWS? Keys of the configuration, the environment, shared files, web identities, containers and
//! the instance metadata service (version 2) are tried in the order of AWS's own tools; roles are assumed through STS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::{Authenticator, Authorized, Environment, Outgoing, TIMEOUT, call, token_client, until};
use crate::config::Secret;
use crate::config::remote::SigV4Config;
use crate::model::clock::{Clock as _, SystemClock};
use crate::net::error::NetError;
use crate::net::sigv4::{Credentials, sign};
use crate::net::{HttpClient, Request};

/// The metadata service of an instance.
const IMDS: &str = "http://169.254.169.254";
/// Where containers get their credentials.
const CONTAINER: &str = "http://169.254.170.2";
/// Profiles that may refer to one another.
const MAX_PROFILES: usize = 5;

/// What a configuration says about AWS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AwsAccess {
    /// Region; found out when empty.
    pub region: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: Secret,
    /// Profile of the shared files; `default` when empty.
    pub profile: String,
    /// Role to assume with what was found.
    pub role_arn: String,
    /// External identity for assuming it.
    pub external_id: String,
    /// Whether STS is asked at its FIPS endpoint.
    pub fips: bool,
}

impl From<&SigV4Config> for AwsAccess {
    fn from(config: &SigV4Config) -> Self {
        Self {
            region: config.region.clone(),
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
            profile: config.profile.clone(),
            role_arn: config.role_arn.clone(),
            external_id: config.external_id.clone(),
            fips: config.use_fips_sts_endpoint,
        }
    }
}

struct Kept {
    credentials: Arc<Credentials>,
    /// None for keys without an end, which are read again each time.
    until: Option<Instant>,
}

/// Signs requests for one AWS service.
pub struct AwsSigner {
    access: AwsAccess,
    service: &'static str,
    environment: Environment,
    client: HttpClient,
    kept: Mutex<Option<Kept>>,
    region: Mutex<Option<Arc<str>>>,
}

impl std::fmt::Debug for AwsSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsSigner").field("service", &self.service).finish_non_exhaustive()
    }
}

fn fail(reason: impl Into<String>) -> NetError {
    NetError::Credentials { provider: "AWS", reason: reason.into() }
}

fn fixed(access_key: String, secret_key: String, token: String) -> Kept {
    let credentials =
        Credentials { access_key, secret_key: Secret::new(secret_key), session_token: Secret::new(token) };
    Kept { credentials: Arc::new(credentials), until: None }
}

/// When credentials that expire at this RFC 3339 time are renewed.
fn renewal(expiration: &str) -> Instant {
    let now = SystemClock.now_ms();
    let end = expiration.parse::<jiff::Timestamp>().map_or(now + 900_000, |t| t.as_millisecond());
    until(u64::try_from((end - now) / 1000).unwrap_or(0))
}

/// Sections of an INI file: name to key to value. Keys are lower case; `[profile x]` counts as `[x]`.
fn ini(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            let name = name.trim();
            let name = name.strip_prefix("profile ").unwrap_or(name).trim().to_owned();
            sections.entry(name.clone()).or_default();
            current = Some(name);
        } else if let (Some(section), Some((key, value))) = (&current, line.split_once('=')) {
            let value = value.split(" #").next().unwrap_or_default().trim().to_owned();
            sections.entry(section.clone()).or_default().insert(key.trim().to_ascii_lowercase(), value);
        }
    }
    sections
}

type Profile = BTreeMap<String, String>;

impl AwsSigner {
    /// A signer; nothing is asked before the first request.
    pub fn new(access: AwsAccess, service: &'static str, environment: Environment) -> Result<Self, NetError> {
        Ok(Self {
            access,
            service,
            environment,
            client: token_client()?,
            kept: Mutex::default(),
            region: Mutex::default(),
        })
    }

    /// The region: of the configuration, the environment, the profile or the instance.
    pub async fn region(&self) -> Result<Arc<str>, NetError> {
        let mut kept = self.region.lock().await;
        if let Some(region) = &*kept {
            return Ok(Arc::clone(region));
        }
        let env = &self.environment;
        let found = if !self.access.region.is_empty() {
            self.access.region.clone()
        } else if let Some(region) = env.get("AWS_REGION").or_else(|| env.get("AWS_DEFAULT_REGION")) {
            region
        } else if let Some(region) = self.profile(&self.profile_name()).and_then(|p| p.get("region").cloned())
        {
            region
        } else {
            self.imds("/latest/meta-data/placement/region")
                .await
                .map_err(|e| fail(format!("the region is not known; set `region` or AWS_REGION ({e})")))?
        };
        let region: Arc<str> = found.trim().into();
        *kept = Some(Arc::clone(&region));
        Ok(region)
    }

    /// Forgets the credentials, as after an answer that refused them.
    pub async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    /// Credentials to sign with.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, NetError> {
        // Held over the requests so that many callers ask once.
        let mut kept = self.kept.lock().await;
        if let Some(kept) = &*kept
            && kept.until.is_some_and(|until| Instant::now() < until)
        {
            return Ok(Arc::clone(&kept.credentials));
        }
        let mut fresh = self.find().await?;
        if !self.access.role_arn.is_empty() {
            let access = &self.access;
            fresh = self.assume_role(&fresh.credentials, &access.role_arn, &access.external_id).await?;
        }
        let credentials = Arc::clone(&fresh.credentials);
        *kept = Some(fresh);
        Ok(credentials)
    }

    fn profile_name(&self) -> String {
        if self.access.profile.is_empty() {
            self.environment.get("AWS_PROFILE").unwrap_or_else(|| "default".into())
        } else {
            self.access.profile.clone()
        }
    }

    /// A profile as both shared files describe it; the credentials file wins.
    fn profile(&self, name: &str) -> Option<Profile> {
        let env = &self.environment;
        let mut merged = None;
        for (variable, usual) in
            [("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")]
        {
            let Some(path) = env.get(variable).map(PathBuf::from).or_else(|| env.home(usual)) else {
                continue;
            };
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            if let Some(section) = ini(&text).remove(name) {
                merged.get_or_insert_with(Profile::new).extend(section);
            }
        }
        merged
    }

    async fn find(&self) -> Result<Kept, NetError> {
        let (access, env) = (&self.access, &self.environment);
        if !access.access_key.is_empty() && !access.secret_key.is_empty() {
            return Ok(fixed(
                access.access_key.clone(),
                access.secret_key.expose().to_owned(),
                String::new(),
            ));
        }
        if !access.profile.is_empty() {
            let name = &access.profile;
            let profile = self.profile(name).ok_or_else(|| fail(format!("there is no profile {name:?}")))?;
            return self.of_profile(name, profile).await;
        }
        if let (Some(key), Some(secret)) = (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")) {
            return Ok(fixed(key, secret, env.get("AWS_SESSION_TOKEN").unwrap_or_default()));
        }
        if let (Some(file), Some(role)) = (env.get("AWS_WEB_IDENTITY_TOKEN_FILE"), env.get("AWS_ROLE_ARN")) {
            return self.web_identity(&role, &file).await;
        }
        let name = self.profile_name();
        if let Some(profile) = self.profile(&name)
            && ["aws_access_key_id", "role_arn", "credential_source"].iter().any(|k| profile.contains_key(*k))
        {
            return self.of_profile(&name, profile).await;
        }
        if env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
            || env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some()
        {
            return self.container().await;
        }
        self.instance().await.map_err(|e| {
            fail(format!(
                "neither the configuration, the environment, the shared files nor a container offers any, and the \
                 instance metadata service does not either ({e})"
            ))
        })
    }

    /// Follows a profile: its keys, or a role assumed with those of another profile or source.
    async fn of_profile(&self, name: &str, profile: Profile) -> Result<Kept, NetError> {
        let mut roles: Vec<Profile> = Vec::new();
        let (mut name, mut profile) = (name.to_owned(), profile);
        let mut found = loop {
            let get = |key: &str| profile.get(key).cloned().unwrap_or_default();
            if let Some(role) = profile.get("role_arn") {
                if let Some(file) = profile.get("web_identity_token_file") {
                    break self.web_identity(role, file).await?;
                }
                if let Some(source) = profile.get("credential_source") {
                    let found = match source.as_str() {
                        "EcsContainer" => self.container().await?,
                        "Ec2InstanceMetadata" => self.instance().await?,
                        "Environment" => {
                            let env = |n: &str| self.environment.get(n).unwrap_or_default();
                            fixed(
                                env("AWS_ACCESS_KEY_ID"),
                                env("AWS_SECRET_ACCESS_KEY"),
                                env("AWS_SESSION_TOKEN"),
                            )
                        }
                        other => {
                            return Err(fail(format!(
                                "profile {name:?}: unknown credential_source {other:?}"
                            )));
                        }
                    };
                    roles.push(profile);
                    break found;
                }
                let source = get("source_profile");
                // A profile may name itself: its own keys then assume its role.
                if source != name && !source.is_empty() {
                    if roles.len() >= MAX_PROFILES {
                        return Err(fail(format!(
                            "profile {name:?}: too many profiles refer to one another"
                        )));
                    }
                    let next = self.profile(&source).ok_or_else(|| {
                        fail(format!("profile {name:?}: there is no source_profile {source:?}"))
                    })?;
                    roles.push(std::mem::replace(&mut profile, next));
                    name = source;
                    continue;
                }
                roles.push(profile.clone());
            }
            let (key, secret) = (get("aws_access_key_id"), get("aws_secret_access_key"));
            if key.is_empty() || secret.is_empty() {
                return Err(fail(format!(
                    "profile {name:?} has no aws_access_key_id and aws_secret_access_key (single sign-on and \
                     credential_process are not supported)"
                )));
            }
            break fixed(key, secret, get("aws_session_token"));
        };
        for role in roles.iter().rev() {
            let get = |key: &str| role.get(key).map_or("", String::as_str);
            found = self.assume_role(&found.credentials, get("role_arn"), get("external_id")).await?;
        }
        Ok(found)
    }

    async fn sts_url(&self) -> Result<(String, Arc<str>), NetError> {
        let region = self.region().await?;
        let custom =
            ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"].iter().find_map(|n| self.environment.get(n));
        let url = custom.unwrap_or_else(|| {
            let fips = if self.access.fips { "-fips" } else { "" };
            format!("https://sts{fips}.{region}.{}", domain(&region))
        });
        Ok((format!("{}/", url.trim_end_matches('/')), region))
    }

    async fn assume_role(&self, with: &Credentials, role: &str, external: &str) -> Result<Kept, NetError> {
        let (url, region) = self.sts_url().await?;
        let session = format!("meerkat-{}", SystemClock.now_ms());
        let mut pairs = vec![
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session.as_str()),
        ];
        if !external.is_empty() {
            pairs.push(("ExternalId", external));
        }
        self.sts(&url, &pairs, Some((with, &region)), role).await
    }

    async fn web_identity(&self, role: &str, file: &str) -> Result<Kept, NetError> {
        let token = std::fs::read_to_string(file)
            .map_err(|e| fail(format!("cannot read the web identity token {file}: {e}")))?;
        let (url, _) = self.sts_url().await?;
        let session = self.environment.get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "meerkat".to_owned());
        let pairs = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session.as_str()),
            ("WebIdentityToken", token.trim()),
        ];
        self.sts(&url, &pairs, None, role).await
    }

    async fn sts(
        &self,
        url: &str,
        pairs: &[(&str, &str)],
        with: Option<(&Credentials, &str)>,
        role: &str,
    ) -> Result<Kept, NetError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut request = Request::post(url, body.clone().into(), TIMEOUT);
        request.headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        if let Some((credentials, region)) = with {
            let parsed = Url::parse(url).map_err(|e| fail(format!("STS endpoint {url}: {e}")))?;
            let scope = (region, "sts");
            let now = SystemClock.now_ms();
            sign(&Method::POST, &parsed, &mut request.headers, body.as_bytes(), credentials, scope, now)?;
        }
        let (status, answer) = call(&self.client, request).await?;
        let text = String::from_utf8_lossy(&answer);
        let document = roxmltree::Document::parse(&text)
            .map_err(|_| fail(format!("assuming role {role}: STS answered {status} without XML")))?;
        let find = |name: &str| {
            let node = document.descendants().find(|n| n.tag_name().name() == name);
            node.and_then(|n| n.text()).unwrap_or_default().to_owned()
        };
        if status != StatusCode::OK {
            let (code, message) = (find("Code"), find("Message"));
            return Err(fail(format!("assuming role {role}: {status} {code}: {message}")));
        }
        let mut kept = fixed(find("AccessKeyId"), find("SecretAccessKey"), find("SessionToken"));
        if kept.credentials.access_key.is_empty() {
            return Err(fail(format!("assuming role {role}: the answer has no keys")));
        }
        kept.until = Some(renewal(&find("Expiration")));
        Ok(kept)
    }

    /// Reads the keys that containers and instances are handed as JSON.
    fn from_json(answer: &[u8], what: &str) -> Result<Kept, NetError> {
        let json: serde_json::Value =
            serde_json::from_slice(answer).map_err(|_| fail(format!("{what}: the answer is no JSON")))?;
        let get = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let mut kept = fixed(get("AccessKeyId"), get("SecretAccessKey"), get("Token"));
        if kept.credentials.access_key.is_empty() {
            return Err(fail(format!("{what}: the answer has no keys")));
        }
        kept.until = Some(renewal(&get("Expiration")));
        Ok(kept)
    }

    async fn container(&self) -> Result<Kept, NetError> {
        let env = &self.environment;
        let url = match env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            Some(path) => format!("{CONTAINER}{path}"),
            None => env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap_or_default(),
        };
        let mut request = Request::get(&url, TIMEOUT);
        let token = match env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(
                std::fs::read_to_string(&file)
                    .map_err(|e| fail(format!("cannot read the container's token {file}: {e}")))?,
            ),
            None => env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        if let Some(token) = token {
            super::set_authorization(&mut request.headers, &Secret::new(token.trim()))?;
        }
        let (status, answer) = call(&self.client, request).await?;
        if status != StatusCode::OK {
            return Err(fail(format!("the container's credential service answered {status}")));
        }
        Self::from_json(&answer, "the container's credential service")
    }

    /// Reads from the metadata service with a session token.
    async fn imds(&self, path: &str) -> Result<String, NetError> {
        let env = &self.environment;
        if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Err(fail("the metadata service is disabled by AWS_EC2_METADATA_DISABLED"));
        }
        let base = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| IMDS.into());
        let base = base.trim_end_matches('/');
        let short = Duration::from_secs(5);
        let token_url = format!("{base}/latest/api/token");
        let mut request = Request { method: Method::PUT, ..Request::get(&token_url, short) };
        request.headers.insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static("21600"));
        let (status, token) = call(&self.client, request).await?;
        if status != StatusCode::OK {
            return Err(fail(format!("the metadata service answered {status}")));
        }
        let url = format!("{base}{path}");
        let mut request = Request::get(&url, short);
        let token = HeaderValue::from_bytes(&token).map_err(|_| fail("the metadata token is not text"))?;
        request.headers.insert("x-aws-ec2-metadata-token", token);
        let (status, body) = call(&self.client, request).await?;
        if status != StatusCode::OK {
            return Err(fail(format!("the metadata service answered {status} for {path}")));
        }
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    async fn instance(&self) -> Result<Kept, NetError> {
        let path = "/latest/meta-data/iam/security-credentials/";
        let roles = self.imds(path).await?;
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err(fail("the instance has no role"));
        }
        let answer = self.imds(&format!("{path}{role}")).await?;
        Self::from_json(answer.as_bytes(), "the metadata service")
    }

    /// Signs a request for this service.
    pub async fn sign(&self, outgoing: Outgoing<'_>) -> Result<(), NetError> {
        let credentials = self.credentials().await?;
        let region = self.region().await?;
        let Outgoing { method, url, headers, body } = outgoing;
        sign(method, url, headers, body, &credentials, (&region, self.service), SystemClock.now_ms())
    }
}

/// The domain of the endpoints of a region.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// The usual endpoint of a service in a region.
pub(super) fn endpoint_of(service: &str, region: &str) -> String {
    format!("https://{service}.{region}.{}", domain(region))
}

impl AwsSigner {
    /// The usual endpoint of `host` (the service's name in host names) in the region of this signer.
    pub async fn endpoint(&self, host: &str) -> Result<String, NetError> {
        Ok(endpoint_of(host, &self.region().await?))
    }
}

impl Authenticator for AwsSigner {
    fn authorize<'a>(&'a self, outgoing: Outgoing<'a>) -> Authorized<'a> {
        Box::pin(async move {
            let headers: &mut HeaderMap = outgoing.headers;
            headers.remove(http::header::AUTHORIZATION);
            self.sign(Outgoing { method: outgoing.method, url: outgoing.url, headers, body: outgoing.body })
                .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_files_are_read() {
        let text = "# top\n[default]\naws_access_key_id = A # note\n;x\n[profile two]\nREGION=eu\n[broken\nno value\n";
        let sections = ini(text);
        assert_eq!(sections["default"]["aws_access_key_id"], "A");
        assert_eq!(sections["two"]["region"], "eu");
    }

    #[test]
    fn endpoints_follow_the_partition() {
        assert_eq!(endpoint_of("ec2", "eu-west-1"), "https://ec2.eu-west-1.amazonaws.com");
        assert_eq!(endpoint_of("ec2", "cn-north-1"), "https://ec2.cn-north-1.amazonaws.com.cn");
    }
}
