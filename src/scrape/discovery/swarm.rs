//! Targets from a Docker Swarm: its services, tasks or nodes.

use std::collections::HashMap;

use serde_json::Value;

use super::docker::{NetworkInfo, filters, network_labels};
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port, sanitize};
use crate::config::sd::cluster::DockerSwarmSdConfig;
use crate::model::target_group::TargetGroup;

const PREFIX: &str = "__meta_dockerswarm_";

pub(super) struct SwarmDiscovery {
    config: DockerSwarmSdConfig,
    rest: Rest,
}

impl SwarmDiscovery {
    pub(super) fn new(config: &DockerSwarmSdConfig) -> Result<Self, String> {
        Ok(Self { rest: Rest::new(&config.http, &config.host)?, config: config.clone() })
    }

    async fn list(&mut self, path: &str, filtered: bool) -> Result<Value, String> {
        if !filtered {
            return self.rest.get(path).await;
        }
        let filters = filters(&self.config.filters);
        self.rest.get(&format!("{path}?{}", query([("filters", filters.as_str())]))).await
    }

    async fn networks(&mut self) -> Result<HashMap<String, LabelMap>, String> {
        let networks: Vec<NetworkInfo> = self.rest.get("/networks").await?;
        Ok(network_labels(networks, PREFIX))
    }

    /// Labels that only the container itself knows, by its identity. A container that is gone has none.
    async fn containers(&mut self, tasks: &Value) -> HashMap<String, LabelMap> {
        let mut out = HashMap::new();
        for task in Fields(tasks).items("") {
            let id = task.text("/Status/ContainerStatus/ContainerID");
            if id.is_empty() || out.contains_key(&id) {
                continue;
            }
            let Ok(container) = self.rest.get::<Value>(&format!("/containers/{id}/json")).await else {
                continue;
            };
            let mut labels = Meta::new(PREFIX);
            labels.set_tags("container_label_", texts(Fields(&container), "/Config/Labels"));
            out.insert(id, labels.labels());
        }
        out
    }
}

/// Members of an object as texts.
fn texts<'a>(of: Fields<'a>, pointer: &str) -> impl Iterator<Item = (String, String)> + use<'a> {
    of.members(pointer).map(|(name, value)| (name.to_owned(), value.text("")))
}

fn node_labels(node: Fields<'_>) -> Meta {
    let mut meta = Meta::new(PREFIX);
    meta.copy(
        node,
        &[
            ("node_id", "/ID"),
            ("node_role", "/Spec/Role"),
            ("node_address", "/Status/Addr"),
            ("node_availability", "/Spec/Availability"),
            ("node_hostname", "/Description/Hostname"),
            ("node_platform_architecture", "/Description/Platform/Architecture"),
            ("node_platform_os", "/Description/Platform/OS"),
            ("node_status", "/Status/State"),
        ],
    );
    meta.set_tags("node_label_", texts(node, "/Spec/Labels"));
    meta
}

fn nodes(list: &Value, port: u16) -> Vec<LabelMap> {
    let target = |node: Fields<'_>| {
        let mut meta = node_labels(node);
        meta.set("node_engine_version", node.text("/Description/Engine/EngineVersion"));
        if node.has("/ManagerStatus") {
            meta.set("node_manager_leader", node.is_true("/ManagerStatus/Leader").to_string());
            meta.set("node_manager_reachability", node.text("/ManagerStatus/Reachability"));
            meta.set("node_manager_address", node.text("/ManagerStatus/Addr"));
        }
        meta.at(join_host_port(&node.text("/Status/Addr"), port))
    };
    Fields(list).items("").map(target).collect()
}

fn service_labels(service: Fields<'_>) -> Meta {
    let mut meta = Meta::new(PREFIX);
    meta.copy(service, &[("service_id", "/ID"), ("service_name", "/Spec/Name")]);
    let mode = [("Global", "global"), ("Replicated", "replicated")]
        .into_iter()
        .find(|(key, _)| service.has(&format!("/Spec/Mode/{key}")))
        .map_or("", |(_, name)| name);
    meta.set("service_mode", mode);
    meta.set_tags("service_label_", texts(service, "/Spec/Labels"));
    meta
}

/// The address of a CIDR such as `10.0.0.2/24`.
fn address(cidr: &str) -> Result<&str, String> {
    let ip = cidr.split('/').next().unwrap_or_default();
    ip.parse::<std::net::IpAddr>().map_err(|_| format!("error while parsing address {cidr}"))?;
    Ok(ip)
}

fn services(list: &Value, networks: &HashMap<String, LabelMap>, port: u16) -> Result<Vec<LabelMap>, String> {
    let mut out = Vec::new();
    for service in Fields(list).items("") {
        let mut common = service_labels(service);
        common.set(
            "service_task_container_hostname",
            service.text("/Spec/TaskTemplate/ContainerSpec/Hostname"),
        );
        common.set("service_task_container_image", service.text("/Spec/TaskTemplate/ContainerSpec/Image"));
        common.set_some("service_updating_status", service.some("/UpdateStatus/State"));
        for virtual_ip in service.items("/Endpoint/VirtualIPs") {
            let cidr = virtual_ip.text("/Addr");
            let ip = address(&cidr)?;
            let network = networks.get(&virtual_ip.text("/NetworkID"));
            let before = out.len();
            for endpoint in service.items("/Endpoint/Ports").filter(|p| p.text("/Protocol") == "tcp") {
                let mut meta = common.clone();
                meta.set("service_endpoint_port_name", endpoint.text("/Name"));
                meta.set("service_endpoint_port_publish_mode", endpoint.text("/PublishMode"));
                let mut labels = meta.at(join_host_port(ip, endpoint.number("/PublishedPort")));
                labels.extend(network.cloned().unwrap_or_default());
                out.push(labels);
            }
            if out.len() == before {
                let mut labels = common.clone().at(join_host_port(ip, port));
                labels.extend(network.cloned().unwrap_or_default());
                out.push(labels);
            }
        }
    }
    Ok(out)
}

/// What the targets of tasks are made of.
struct Parts<'a> {
    services: &'a Value,
    nodes: &'a Value,
    networks: &'a HashMap<String, LabelMap>,
    containers: &'a HashMap<String, LabelMap>,
}

fn tasks(list: &Value, parts: &Parts<'_>, port: u16) -> Result<Vec<LabelMap>, String> {
    let by_id = |list| Fields(list).items("").map(|item| (item.text("/ID"), item)).collect::<HashMap<_, _>>();
    let (services, nodes) = (by_id(parts.services), by_id(parts.nodes));
    let mut out = Vec::new();
    for task in Fields(list).items("") {
        let mut meta = Meta::new(PREFIX);
        meta.copy(
            task,
            &[("task_id", "/ID"), ("task_desired_state", "/DesiredState"), ("task_state", "/Status/State")],
        );
        meta.set("task_slot", task.number("/Slot").to_string());
        let container = task.some("/Status/ContainerStatus/ContainerID");
        let mut common = LabelMap::new();
        if let Some(id) = container {
            common.extend(parts.containers.get(&id).cloned().unwrap_or_default());
            meta.set("task_container_id", id);
        }
        for (name, value) in texts(task, "/Spec/ContainerSpec/Labels") {
            meta.set(&format!("container_label_{}", sanitize(&name)), value);
        }
        common.extend(meta.labels());
        let service = services.get(&task.text("/ServiceID"));
        if let Some(service) = service {
            common.extend(service_labels(*service).labels());
        }
        let mut host = String::new();
        if let Some(node) = nodes.get(&task.text("/NodeID")) {
            common.extend(node_labels(*node).labels());
            host = node.text("/Status/Addr");
        }
        let target = |address: String, mode: Option<String>, network: Option<&LabelMap>| {
            let mut labels = common.clone();
            if let Some(mode) = mode {
                labels.insert(format!("{PREFIX}task_port_publish_mode"), mode);
            }
            labels.extend(network.cloned().unwrap_or_default());
            labels.insert("__address__".into(), address);
            labels
        };
        let tcp = |port: &Fields<'_>| port.text("/Protocol") == "tcp";
        for published in task.items("/Status/PortStatus/Ports").filter(tcp) {
            let address = join_host_port(&host, published.number("/PublishedPort"));
            out.push(target(address, Some(published.text("/PublishMode")), None));
        }
        for attachment in task.items("/NetworksAttachments") {
            let network = parts.networks.get(&attachment.text("/Network/ID"));
            for cidr in attachment.texts("/Addresses") {
                let ip = address(&cidr)?;
                let before = out.len();
                if let Some(service) = service {
                    for endpoint in service.items("/Endpoint/Ports").filter(tcp) {
                        let address = join_host_port(ip, endpoint.number("/PublishedPort"));
                        out.push(target(address, Some(endpoint.text("/PublishMode")), network));
                    }
                }
                if out.len() == before {
                    out.push(target(join_host_port(ip, port), None, network));
                }
            }
        }
    }
    Ok(out)
}

impl Refresher for SwarmDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let port = self.config.port;
        let targets = match self.config.role.as_str() {
            "nodes" => nodes(&self.list("/nodes", true).await?, port),
            "services" => {
                let list = self.list("/services", true).await?;
                services(&list, &self.networks().await?, port)?
            }
            _ => {
                let list = self.list("/tasks", true).await?;
                let services = self.list("/services", false).await?;
                let nodes = self.list("/nodes", false).await?;
                let networks = self.networks().await?;
                let containers = self.containers(&list).await;
                let parts = Parts {
                    services: &services,
                    nodes: &nodes,
                    networks: &networks,
                    containers: &containers,
                };
                tasks(&list, &parts, port)?
            }
        };
        Ok(vec![TargetGroup { source: "DockerSwarm".into(), targets, labels: LabelMap::new() }])
    }
}
