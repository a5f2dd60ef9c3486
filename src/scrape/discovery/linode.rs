//! Targets from Linode's instances. Between full reads only the account's events are asked for; when there are none
//! the last answer stands.

use std::collections::HashMap;

use http::{Method, StatusCode};
use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::LinodeSdConfig;
use crate::model::clock::{Clock as _, SystemClock};
use crate::model::target_group::TargetGroup;

/// Rounds without events after which everything is read anyway: not all changes cause one.
const QUIET_ROUNDS: u32 = 10;
/// Pages that are read at most.
const MAX_PAGES: i64 = 1000;

pub(super) struct LinodeDiscovery {
    config: LinodeSdConfig,
    rest: Rest,
    last: Option<Vec<TargetGroup>>,
    last_ms: i64,
    quiet: u32,
    /// Whether the token may read events.
    events: bool,
}

impl LinodeDiscovery {
    pub(super) fn new(config: &LinodeSdConfig, base: &str) -> Result<Self, String> {
        let rest = Rest::new(&config.http, base)?;
        Ok(Self { config: config.clone(), rest, last: None, last_ms: 0, quiet: 0, events: true })
    }

    async fn pages(&mut self, path: &str) -> Result<Vec<Value>, String> {
        // Linode filters by a header.
        let filter = match self.config.region.as_str() {
            region if !region.is_empty() => serde_json::json!({ "region": region }).to_string(),
            _ => String::new(),
        };
        let mut out = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{path}?page={page}&page_size=500");
            let headers = [("x-filter", filter.as_str())];
            let headers = if filter.is_empty() { &[][..] } else { &headers[..] };
            let (status, body, _) = self.rest.send(Method::GET, &path, headers, Vec::new()).await?;
            if status != StatusCode::OK {
                return Err(format!("{path} answered with status {status}"));
            }
            let list: Value = serde_json::from_slice(body)
                .map_err(|e| format!("cannot decode the answer of {path}: {e}"))?;
            let fields = Fields(&list);
            out.extend(fields.items("/data").map(|item| item.0.clone()));
            if page >= fields.number("/pages") {
                break;
            }
        }
        Ok(out)
    }

    /// Whether something happened since the last round.
    async fn changed(&mut self) -> Result<bool, String> {
        let since = jiff::Timestamp::from_millisecond(self.last_ms)
            .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S").to_string())
            .unwrap_or_default();
        let filter = serde_json::json!({ "created": { "+gte": since } }).to_string();
        let path = "/v4/account/events?page=1&page_size=25";
        let (status, body, _) =
            self.rest.send(Method::GET, path, &[("x-filter", filter.as_str())], Vec::new()).await?;
        match status {
            StatusCode::OK => {
                let list: Value = serde_json::from_slice(body)
                    .map_err(|e| format!("cannot decode the answer of {path}: {e}"))?;
                self.quiet += 1;
                Ok(Fields(&list).items("/data").next().is_some() || self.quiet >= QUIET_ROUNDS)
            }
            StatusCode::UNAUTHORIZED => {
                self.events = false;
                Ok(true)
            }
            other => Err(format!("{path} answered with status {other}")),
        }
    }

    async fn read(&mut self) -> Result<Vec<TargetGroup>, String> {
        let instances = self.pages("/v4/linode/instances").await?;
        let addresses = self.pages("/v4/networking/ips").await?;
        let ranges = self.pages("/v4/networking/ipv6/ranges").await.unwrap_or_default();
        let targets = targets(&instances, &addresses, &ranges, &self.config);
        Ok(vec![TargetGroup { source: "Linode".into(), targets, labels: LabelMap::new() }])
    }
}

fn targets(
    instances: &[Value],
    addresses: &[Value],
    ranges: &[Value],
    config: &LinodeSdConfig,
) -> Vec<LabelMap> {
    let details: HashMap<String, Fields<'_>> =
        addresses.iter().map(|a| (Fields(a).text("/address"), Fields(a))).collect();
    let dns = |ip: &Fields<'_>| ip.some("/rdns").filter(|n| n != "null").unwrap_or_default();
    let mut out = Vec::new();
    for instance in instances.iter().map(Fields) {
        let own = instance.texts("/ipv4");
        if own.is_empty() {
            continue;
        }
        let (mut public, mut private) = ((String::new(), String::new()), (String::new(), String::new()));
        let mut extra = Vec::new();
        for ip in own.iter().filter_map(|ip| details.get(ip)) {
            let place = if ip.is_true("/public") { &mut public } else { &mut private };
            if place.0.is_empty() {
                *place = (ip.text("/address"), dns(ip));
            } else {
                extra.push(ip.text("/address"));
            }
        }
        let v6 = instance.text("/ipv6");
        let v6 = v6.split('/').next().unwrap_or_default();
        let v6 = details.get(v6).map(|ip| (ip.text("/address"), dns(ip))).unwrap_or_default();
        let mut meta = Meta::new("__meta_linode_");
        meta.copy(
            instance,
            &[
                ("instance_id", "/id"),
                ("instance_label", "/label"),
                ("image", "/image"),
                ("region", "/region"),
                ("type", "/type"),
                ("status", "/status"),
                ("group", "/group"),
                ("hypervisor", "/hypervisor"),
            ],
        );
        meta.set("gpus", instance.number("/specs/gpus").to_string());
        meta.set("specs_vcpus", instance.number("/specs/vcpus").to_string());
        for part in ["disk", "memory", "transfer"] {
            // Mebibytes there, bytes here.
            let bytes = instance.number(&format!("/specs/{part}")).saturating_mul(1 << 20);
            meta.set(&format!("specs_{part}_bytes"), bytes.to_string());
        }
        let backups = if instance.is_true("/backups/enabled") { "enabled" } else { "disabled" };
        meta.set("backups", backups);
        let kinds = [("private_ipv4", &private), ("public_ipv4", &public), ("public_ipv6", &v6)];
        for (name, (address, dns)) in kinds {
            meta.set(&format!("{name}_rdns"), dns.as_str());
            meta.set(name, address.as_str());
        }
        let separator = config.tag_separator.as_str();
        meta.set_list("tags", &instance.texts("/tags"), separator);
        meta.set_list("extra_ips", &extra, separator);
        let routed: Vec<String> = ranges
            .iter()
            .map(Fields)
            .filter(|r| !v6.0.is_empty() && r.text("/route_target") == v6.0)
            .map(|r| format!("{}/{}", r.text("/range"), r.text("/prefix")))
            .collect();
        meta.set_list("ipv6_ranges", &routed, separator);
        out.push(meta.at(join_host_port(&public.0, config.port)));
    }
    out
}

impl Refresher for LinodeDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let now = SystemClock.now_ms();
        let known = self.last.clone().filter(|_| self.events);
        let groups = match known {
            Some(groups) if !self.changed().await? => groups,
            _ => {
                let groups = self.read().await?;
                self.quiet = 0;
                groups
            }
        };
        self.last = Some(groups.clone());
        self.last_ms = now;
        Ok(groups)
    }
}
