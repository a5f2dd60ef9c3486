//! Targets from a Docker daemon: one for each TCP port of a container in each of its networks.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port, sanitize};
use crate::config::sd::cluster::{DockerFilter, DockerSdConfig};
use crate::model::target_group::TargetGroup;

#[derive(Debug, Deserialize, Default, Clone)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    #[serde(rename = "NetworkID")]
    id: String,
    #[serde(rename = "IPAddress")]
    ip: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    #[serde(deserialize_with = "super::null_as_default")]
    networks: BTreeMap<String, Network>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Port {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u32,
    public_port: u32,
    #[serde(rename = "Type")]
    kind: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    #[serde(deserialize_with = "super::null_as_default")]
    names: Vec<String>,
    #[serde(deserialize_with = "super::null_as_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "super::null_as_default")]
    ports: Vec<Port>,
    host_config: HostConfig,
    network_settings: NetworkSettings,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NetworkInfo {
    id: String,
    name: String,
    scope: String,
    internal: bool,
    ingress: bool,
    #[serde(deserialize_with = "super::null_as_default")]
    labels: BTreeMap<String, String>,
}

/// The `filters` parameter of Docker's API.
pub(super) fn filters(filters: &[DockerFilter]) -> String {
    let map: BTreeMap<&str, BTreeMap<&str, bool>> = filters
        .iter()
        .map(|f| (f.name.as_str(), f.values.iter().map(|v| (v.as_str(), true)).collect()))
        .collect();
    serde_json::to_string(&map).unwrap_or_default()
}

/// Labels of each network by its identity.
pub(super) fn network_labels(networks: Vec<NetworkInfo>, prefix: &str) -> HashMap<String, LabelMap> {
    networks
        .into_iter()
        .map(|network| {
            let mut labels = LabelMap::new();
            labels.insert(format!("{prefix}network_id"), network.id.clone());
            labels.insert(format!("{prefix}network_name"), network.name);
            labels.insert(format!("{prefix}network_scope"), network.scope);
            labels.insert(format!("{prefix}network_internal"), network.internal.to_string());
            labels.insert(format!("{prefix}network_ingress"), network.ingress.to_string());
            for (name, value) in network.labels {
                labels.insert(format!("{prefix}network_label_{}", sanitize(&name)), value);
            }
            (network.id, labels)
        })
        .collect()
}

pub(super) struct DockerDiscovery {
    config: DockerSdConfig,
    rest: Rest,
}

impl DockerDiscovery {
    pub(super) fn new(config: &DockerSdConfig) -> Result<Self, String> {
        Ok(Self { rest: Rest::new(&config.http, &config.host)?, config: config.clone() })
    }
}

/// The networks of a container, those of the container whose network it shares if it has none.
fn networks_of<'c>(container: &'c Container, all: &HashMap<&str, &'c Container>) -> Vec<&'c Network> {
    let mut current = container;
    // A chain longer than the number of containers is a circle.
    for _ in 0..=all.len() {
        if !current.network_settings.networks.is_empty() {
            break;
        }
        let shared = current.host_config.network_mode.strip_prefix("container:");
        match shared.and_then(|id| all.get(id)) {
            Some(other) => current = other,
            None => break,
        }
    }
    current.network_settings.networks.values().collect()
}

fn targets(
    config: &DockerSdConfig,
    containers: &[Container],
    network_labels: &HashMap<String, LabelMap>,
) -> Vec<LabelMap> {
    let all: HashMap<&str, &Container> = containers.iter().map(|c| (c.id.as_str(), c)).collect();
    let mut out = Vec::new();
    for container in containers {
        let Some(name) = container.names.first() else { continue };
        let mode = &container.host_config.network_mode;
        let mut common = LabelMap::new();
        common.insert("__meta_docker_container_id".into(), container.id.clone());
        common.insert("__meta_docker_container_name".into(), name.clone());
        common.insert("__meta_docker_container_network_mode".into(), mode.clone());
        for (name, value) in &container.labels {
            common.insert(format!("__meta_docker_container_label_{}", sanitize(name)), value.clone());
        }
        let mut networks = networks_of(container, &all);
        if config.match_first_network {
            networks.truncate(1);
        }
        for network in networks {
            let mut base = common.clone();
            base.insert("__meta_docker_network_ip".into(), network.ip.clone());
            base.extend(network_labels.get(&network.id).cloned().unwrap_or_default());
            let mut added = false;
            for port in container.ports.iter().filter(|p| p.kind == "tcp") {
                let mut labels = base.clone();
                labels.insert("__meta_docker_port_private".into(), port.private_port.to_string());
                if port.public_port > 0 {
                    labels.insert("__meta_docker_port_public".into(), port.public_port.to_string());
                    labels.insert("__meta_docker_port_public_ip".into(), port.ip.clone());
                }
                labels.insert("__address__".into(), join_host_port(&network.ip, port.private_port));
                out.push(labels);
                added = true;
            }
            if !added {
                let address = match mode.as_str() {
                    "host" => config.host_networking_host.clone(),
                    _ => join_host_port(&network.ip, config.port),
                };
                base.insert("__address__".into(), address);
                out.push(base);
            }
        }
    }
    out
}

impl Refresher for DockerDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let filters = filters(&self.config.filters);
        let path = format!("/containers/json?{}", query([("filters", filters.as_str())]));
        let containers: Vec<Container> = self.rest.get(&path).await?;
        let networks: Vec<NetworkInfo> = self.rest.get("/networks").await?;
        let labels = network_labels(networks, "__meta_docker_");
        let targets = targets(&self.config, &containers, &labels);
        Ok(vec![TargetGroup { source: "Docker".into(), targets, labels: LabelMap::new() }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_shared_networks_become_targets() {
        let json = r#"[
            {"Id":"1","Names":["/web"],"Labels":{"com.x":"y"},
             "Ports":[{"PrivatePort":80,"PublicPort":8080,"IP":"0.0.0.0","Type":"tcp"},{"PrivatePort":53,"Type":"udp"}],
             "HostConfig":{"NetworkMode":"net"},
             "NetworkSettings":{"Networks":{"net":{"NetworkID":"n","IPAddress":"172.0.0.2"}}}},
            {"Id":"2","Names":["/side"],"HostConfig":{"NetworkMode":"container:1"},"NetworkSettings":{"Networks":{}}},
            {"Id":"3","Names":["/host"],"HostConfig":{"NetworkMode":"host"},
             "NetworkSettings":{"Networks":{"host":{"NetworkID":"h","IPAddress":""}}}}]"#;
        let containers: Vec<Container> = serde_json::from_str(json).unwrap();
        let config = DockerSdConfig {
            port: 90,
            host_networking_host: "localhost".into(),
            match_first_network: true,
            ..DockerSdConfig::default()
        };
        let networks = vec![NetworkInfo { id: "n".into(), name: "net".into(), ..NetworkInfo::default() }];
        let got = targets(&config, &containers, &network_labels(networks, "__meta_docker_"));
        let addresses: Vec<&str> = got.iter().map(|l| l["__address__"].as_str()).collect();
        assert_eq!(addresses, ["172.0.0.2:80", "172.0.0.2:90", "localhost"]);
        assert_eq!(got[0]["__meta_docker_container_label_com_x"], "y");
        assert_eq!(got[0]["__meta_docker_network_name"], "net");
        assert_eq!(got[0]["__meta_docker_port_public"], "8080");
    }
}
