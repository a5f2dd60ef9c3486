//! Targets from Consul: the services of its catalog, and the healthy and unhealthy instances of each. Blocking queries
//! answer as soon as something changes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::rest::{Rest, query};
use super::{LabelMap, Updates, join_host_port, sanitize, surrounded};
use crate::config::sd::cluster::ConsulSdConfig;
use crate::model::target_group::TargetGroup;
use crate::telemetry::Counter;

/// How long Consul may hold a query, milliseconds.
const WAIT_MS: u64 = 120_000;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    node: String,
    address: String,
    datacenter: String,
    #[serde(deserialize_with = "super::null_as_default")]
    tagged_addresses: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_as_default")]
    meta: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(deserialize_with = "super::null_as_default")]
    tags: Vec<String>,
    address: String,
    port: u32,
    namespace: String,
    partition: String,
    #[serde(deserialize_with = "super::null_as_default")]
    meta: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    status: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    node: Node,
    service: Service,
    #[serde(deserialize_with = "super::null_as_default")]
    checks: Vec<Check>,
}

/// The worst state of the checks; maintenance beats everything.
fn aggregated(checks: &[Check]) -> &'static str {
    let maintenance = |c: &Check| c.id == "_node_maintenance" || c.id.starts_with("_service_maintenance:");
    let any = |status: &str| checks.iter().any(|c| c.status == status);
    if checks.iter().any(maintenance) {
        "maintenance"
    } else if any("critical") {
        "critical"
    } else if any("warning") {
        "warning"
    } else {
        "passing"
    }
}

fn target(entry: &Entry, separator: &str) -> LabelMap {
    let Entry { node, service, checks } = entry;
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let mut labels = LabelMap::new();
    let mut set = |name: &str, value: &str| {
        labels.insert(name.to_owned(), value.to_owned());
    };
    set("__address__", &join_host_port(host, service.port));
    set("__meta_consul_address", &node.address);
    set("__meta_consul_node", &node.node);
    set("__meta_consul_namespace", &service.namespace);
    set("__meta_consul_partition", &service.partition);
    set("__meta_consul_tags", &surrounded(service.tags.iter().map(String::as_str), separator));
    set("__meta_consul_service_address", &service.address);
    set("__meta_consul_service_port", &service.port.to_string());
    set("__meta_consul_service_id", &service.id);
    set("__meta_consul_health", aggregated(checks));
    for (prefix, map) in [
        ("__meta_consul_metadata_", &node.meta),
        ("__meta_consul_service_metadata_", &service.meta),
        ("__meta_consul_tagged_address_", &node.tagged_addresses),
    ] {
        for (name, value) in map {
            set(&format!("{prefix}{}", sanitize(name)), value);
        }
    }
    labels
}

/// The index to wait for next; 0 when Consul's went backwards, as its documentation demands.
fn next_index(headers: &HeaderMap, before: u64) -> u64 {
    let index = headers.get("x-consul-index").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    index.filter(|index: &u64| *index >= before).unwrap_or(0)
}

/// What every query needs.
#[derive(Clone)]
pub(super) struct ConsulDiscovery {
    config: ConsulSdConfig,
    failures: Counter,
}

impl ConsulDiscovery {
    pub(super) fn new(config: &ConsulSdConfig, registry: &crate::telemetry::Registry) -> Self {
        let failures = registry.counter(
            "prometheus_sd_consul_rpc_failures_total",
            "The number of Consul RPC call failures.",
            &[],
        );
        Self { config: config.clone(), failures }
    }

    fn rest(&self) -> Result<Rest, String> {
        let config = &self.config;
        let base = format!("{}://{}{}", config.scheme, config.server, config.path_prefix);
        let mut rest = Rest::new(&config.http, &base)?;
        rest.timeout = Duration::from_millis(WAIT_MS) + Duration::from_secs(15);
        if !config.token.is_empty() {
            rest.header("x-consul-token", config.token.expose());
        }
        Ok(rest)
    }

    fn parameters(&self, index: u64, datacenter: &str) -> Vec<(String, String)> {
        let mut out = Vec::new();
        let mut add = |name: &str, value: &str| out.push((name.to_owned(), value.to_owned()));
        if index > 0 {
            add("index", &index.to_string());
            add("wait", &format!("{WAIT_MS}ms"));
        }
        if self.config.allow_stale {
            add("stale", "");
        }
        for (name, value) in
            [("dc", datacenter), ("ns", &self.config.namespace), ("partition", &self.config.partition)]
        {
            if !value.is_empty() {
                add(name, value);
            }
        }
        for (name, value) in &self.config.node_meta {
            add("node-meta", &format!("{name}:{value}"));
        }
        out
    }

    async fn datacenter(&self, rest: &mut Rest) -> Result<String, String> {
        if !self.config.datacenter.is_empty() {
            return Ok(self.config.datacenter.clone());
        }
        let agent: serde_json::Value = rest.get("/v1/agent/self").await?;
        let name = agent.pointer("/Config/Datacenter").and_then(|v| v.as_str());
        name.map(str::to_owned).ok_or_else(|| "the agent does not name its datacenter".into())
    }

    fn wants(&self, service: &str, tags: &[String]) -> bool {
        let named = self.config.services.is_empty() || self.config.services.iter().any(|s| s == service);
        named && self.config.tags.iter().all(|tag| tags.contains(tag))
    }

    /// Watches the catalog and, for each service of interest, its instances.
    pub(super) async fn run(self, updates: Updates, cancel: CancellationToken) {
        let pause = self.config.refresh_interval.as_std();
        let mut watched: HashMap<String, CancellationToken> = HashMap::new();
        let mut index = 0;
        let mut rest = match self.rest() {
            Ok(rest) => rest,
            Err(error) => return tracing::error!(discovery = "consul", error, "no client"),
        };
        loop {
            let round = async {
                let datacenter = self.datacenter(&mut rest).await?;
                let mut parameters = self.parameters(index, &datacenter);
                if !self.config.filter.is_empty() {
                    parameters.push(("filter".into(), self.config.filter.clone()));
                }
                let encoded = query(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                let path = format!("/v1/catalog/services?{encoded}");
                let (services, headers) =
                    rest.get_with_headers::<BTreeMap<String, Option<Vec<String>>>>(&path).await?;
                Ok::<_, String>((datacenter, services, next_index(&headers, index)))
            };
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = round => result,
            };
            let wait = match result {
                Ok((datacenter, services, next)) => {
                    index = next;
                    let wanted: BTreeMap<&String, ()> = services
                        .iter()
                        .filter(|(name, tags)| self.wants(name, tags.as_deref().unwrap_or_default()))
                        .map(|(name, _)| (name, ()))
                        .collect();
                    watched.retain(|name, stop| {
                        let keep = wanted.contains_key(name);
                        if !keep {
                            stop.cancel();
                            updates
                                .patch(vec![TargetGroup { source: name.clone(), ..TargetGroup::default() }]);
                        }
                        keep
                    });
                    for name in wanted.into_keys() {
                        if !watched.contains_key(name) {
                            let stop = cancel.child_token();
                            watched.insert(name.clone(), stop.clone());
                            let watch =
                                self.clone().watch(name.clone(), datacenter.clone(), updates.clone(), stop);
                            tokio::spawn(watch);
                        }
                    }
                    if services.is_empty() {
                        updates.replace(Vec::new());
                    }
                    pause
                }
                Err(error) => {
                    self.failures.inc();
                    tracing::error!(discovery = "consul", error, "error refreshing the services");
                    index = 0;
                    RETRY
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Watches the instances of one service.
    async fn watch(self, service: String, datacenter: String, updates: Updates, cancel: CancellationToken) {
        let Ok(mut rest) = self.rest() else { return };
        let mut index = 0;
        loop {
            let mut parameters = self.parameters(index, &datacenter);
            parameters.extend(self.config.tags.iter().map(|tag| ("tag".to_owned(), tag.clone())));
            if !self.config.health_filter.is_empty() {
                parameters.push(("filter".into(), self.config.health_filter.clone()));
            }
            let encoded = query(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let escaped: String = url::form_urlencoded::byte_serialize(service.as_bytes()).collect();
            let path = format!("/v1/health/service/{}?{encoded}", escaped.replace('+', "%20"));
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = rest.get_with_headers::<Vec<Entry>>(&path) => result,
            };
            let wait = match result {
                Ok((entries, headers)) => {
                    index = next_index(&headers, index);
                    updates.patch(vec![self.group(&service, &datacenter, &entries)]);
                    self.config.refresh_interval.as_std()
                }
                Err(error) => {
                    self.failures.inc();
                    tracing::error!(discovery = "consul", service, error, "error refreshing a service");
                    index = 0;
                    RETRY
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn group(&self, service: &str, datacenter: &str, entries: &[Entry]) -> TargetGroup {
        let mut labels = LabelMap::new();
        labels.insert("__meta_consul_service".into(), service.to_owned());
        let own = entries.first().map(|e| e.node.datacenter.clone()).filter(|dc| !dc.is_empty());
        labels.insert("__meta_consul_dc".into(), own.unwrap_or_else(|| datacenter.to_owned()));
        let targets = entries.iter().map(|entry| target(entry, &self.config.tag_separator)).collect();
        TargetGroup { source: service.to_owned(), targets, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_become_targets() {
        let json = r#"[{"Node":{"Node":"n1","Address":"10.0.0.1","Datacenter":"dc1","Meta":{"rack-id":"7"},
            "TaggedAddresses":{"lan":"10.0.0.1"}},
            "Service":{"ID":"web-1","Service":"web","Tags":["a","b"],"Address":"","Port":8080,"Meta":null},
            "Checks":[{"CheckID":"x","Status":"passing"},{"CheckID":"y","Status":"warning"}]}]"#;
        let entries: Vec<Entry> = serde_json::from_str(json).unwrap();
        let config = ConsulSdConfig { tag_separator: ",".into(), ..ConsulSdConfig::default() };
        let discovery = ConsulDiscovery::new(&config, &crate::telemetry::Registry::new());
        let group = discovery.group("web", "ignored", &entries);
        assert_eq!(group.labels["__meta_consul_dc"], "dc1");
        let labels = &group.targets[0];
        for (name, value) in [
            ("__address__", "10.0.0.1:8080"),
            ("__meta_consul_tags", ",a,b,"),
            ("__meta_consul_health", "warning"),
            ("__meta_consul_metadata_rack_id", "7"),
            ("__meta_consul_tagged_address_lan", "10.0.0.1"),
            ("__meta_consul_service_id", "web-1"),
        ] {
            assert_eq!(labels[name], value, "{name}");
        }
    }
}
