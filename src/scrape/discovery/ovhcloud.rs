//! Targets from OVHcloud's virtual private or dedicated servers.

use http::{Method, StatusCode};
use serde_json::Value;

use super::LabelMap;
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use crate::config::HttpClientConfig;
use crate::config::sd::cloud::OvhcloudSdConfig;
use crate::model::clock::{Clock as _, SystemClock};
use crate::model::target_group::TargetGroup;

/// Names for the addresses of the APIs.
const ENDPOINTS: [(&str, &str); 8] = [
    ("ovh-eu", "https://eu.api.ovh.com/1.0"),
    ("ovh-ca", "https://ca.api.ovh.com/1.0"),
    ("ovh-us", "https://api.us.ovhcloud.com/1.0"),
    ("kimsufi-eu", "https://eu.api.kimsufi.com/1.0"),
    ("kimsufi-ca", "https://ca.api.kimsufi.com/1.0"),
    ("soyoustart-eu", "https://eu.api.soyoustart.com/1.0"),
    ("soyoustart-ca", "https://ca.api.soyoustart.com/1.0"),
    ("runabove-ca", "https://api.runabove.com/1.0"),
];

pub(super) struct OvhcloudDiscovery {
    config: OvhcloudSdConfig,
    rest: Rest,
    /// Seconds that the API's clock is ahead of ours; signatures carry its time.
    ahead: Option<i64>,
}

impl OvhcloudDiscovery {
    pub(super) fn new(config: &OvhcloudSdConfig) -> Result<Self, String> {
        let named = ENDPOINTS.iter().find(|(name, _)| *name == config.endpoint);
        let base = named.map_or(config.endpoint.as_str(), |(_, url)| url);
        if !base.starts_with("http") {
            let names: Vec<&str> = ENDPOINTS.iter().map(|(name, _)| *name).collect();
            return Err(format!("unknown endpoint {base:?}; known are {} and URLs", names.join(", ")));
        }
        let mut rest = Rest::new(&HttpClientConfig::default(), base)?;
        rest.header("x-ovh-application", &config.application_key);
        Ok(Self { rest, config: config.clone(), ahead: None })
    }

    async fn get(&mut self, path: &str) -> Result<Value, String> {
        let ahead = match self.ahead {
            Some(ahead) => ahead,
            None => {
                let there: i64 = self.rest.get("/auth/time").await?;
                *self.ahead.insert(there - SystemClock.now_ms() / 1000)
            }
        };
        let time = (SystemClock.now_ms() / 1000 + ahead).to_string();
        let config = &self.config;
        let (secret, consumer) = (config.application_secret.expose(), config.consumer_key.expose());
        let signed = format!("{secret}+{consumer}+GET+{}{path}++{time}", self.rest.base());
        let signature = signature(&signed);
        let headers = [
            ("x-ovh-timestamp", time.as_str()),
            ("x-ovh-consumer", consumer),
            ("x-ovh-signature", signature.as_str()),
        ];
        let (status, body, _) = self.rest.send(Method::GET, path, &headers, Vec::new()).await?;
        if status != StatusCode::OK {
            return Err(format!("{path} answered with status {status}"));
        }
        serde_json::from_slice(body).map_err(|e| format!("cannot decode the answer of {path}: {e}"))
    }
}

/// `$1$` and the SHA-1 of a text in hexadecimal.
fn signature(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    hash.as_ref().iter().fold("$1$".to_owned(), |out, byte| format!("{out}{byte:02x}"))
}

/// The last IPv4 and IPv6 address among addresses and networks.
fn addresses(list: &Value) -> (String, String) {
    let (mut v4, mut v6) = (String::new(), String::new());
    for text in Fields(list).texts("") {
        let ip = text.split('/').next().unwrap_or_default();
        match ip.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(ip)) => v4 = ip.to_string(),
            Ok(std::net::IpAddr::V6(ip)) => v6 = ip.to_string(),
            Err(_) => {}
        }
    }
    (v4, v6)
}

fn private_server(server: Fields<'_>) -> Meta {
    let mut meta = Meta::new("__meta_ovhcloud_vps_");
    meta.copy(
        server,
        &[
            ("offer", "/model/offer"),
            ("version", "/model/version"),
            ("model_name", "/model/name"),
            ("zone", "/zone"),
            ("display_name", "/displayName"),
            ("cluster", "/cluster"),
            ("state", "/state"),
            ("name", "/name"),
            ("netboot_mode", "/netbootMode"),
            ("offer_type", "/offerType"),
        ],
    );
    for (name, pointer) in [
        ("model_vcore", "/model/vcore"),
        ("maximum_additional_ip", "/model/maximumAdditionnalIp"),
        ("disk", "/model/disk"),
        ("memory", "/model/memory"),
        ("memory_limit", "/memoryLimit"),
        ("vcore", "/vcore"),
    ] {
        meta.set(name, server.number(pointer).to_string());
    }
    // A list as Go prints it.
    meta.set("datacenter", format!("[{}]", server.texts("/model/datacenter").join(" ")));
    meta
}

fn dedicated_server(server: Fields<'_>) -> Meta {
    let mut meta = Meta::new("__meta_ovhcloud_dedicated_server_");
    meta.copy(
        server,
        &[
            ("state", "/state"),
            ("commercial_range", "/commercialRange"),
            ("rack", "/rack"),
            ("os", "/os"),
            ("support_level", "/supportLevel"),
            ("reverse", "/reverse"),
            ("datacenter", "/datacenter"),
            ("name", "/name"),
        ],
    );
    meta.set("link_speed", server.number("/linkSpeed").to_string());
    meta.set("no_intervention", server.is_true("/noIntervention").to_string());
    meta.set("server_id", server.number("/serverId").to_string());
    meta
}

impl Refresher for OvhcloudDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let dedicated = self.config.service == "dedicated_server";
        let root = if dedicated { "/dedicated/server" } else { "/vps" };
        let names = self.get(root).await?;
        let mut targets = Vec::new();
        for name in Fields(&names).texts("") {
            let escaped = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
            let path = format!("{root}/{escaped}");
            let found = match self.get(&path).await {
                Ok(server) => self.get(&format!("{path}/ips")).await.map(|ips| (server, ips)),
                Err(error) => Err(error),
            };
            let (server, ips) = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(server = name, error, "could not get the details of a server");
                    continue;
                }
            };
            let server = Fields(&server);
            let mut meta = if dedicated { dedicated_server(server) } else { private_server(server) };
            let (v4, v6) = addresses(&ips);
            meta.set("ipv4", v4.as_str());
            meta.set("ipv6", v6.as_str());
            meta.set_plain("instance", server.text("/name"));
            targets.push(meta.at(if v4.is_empty() { v6 } else { v4 }));
        }
        let source = format!("ovhcloud_{}", self.config.service);
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
