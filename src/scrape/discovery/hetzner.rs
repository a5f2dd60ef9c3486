//! Targets from Hetzner: servers of its cloud, or dedicated ones of its robot.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::fields::{self, Fields};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port, sanitize};
use crate::config::sd::cloud::HetznerSdConfig;
use crate::model::target_group::TargetGroup;

/// Pages that are read at most; each has 50 entries.
const MAX_PAGES: usize = 1000;

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Pagination {
    next_page: Option<u64>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Meta {
    pagination: Pagination,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Servers {
    servers: Vec<Server>,
    meta: Meta,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Networks {
    networks: Vec<Network>,
    meta: Meta,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Network {
    id: u64,
    name: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Ip {
    ip: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct PublicNet {
    #[serde(deserialize_with = "super::null_as_default")]
    ipv4: Ip,
    #[serde(deserialize_with = "super::null_as_default")]
    ipv6: Ip,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct PrivateNet {
    network: u64,
    ip: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct ServerType {
    name: String,
    cores: u64,
    cpu_type: String,
    memory: f64,
    disk: u64,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Image {
    name: Option<String>,
    description: String,
    os_flavor: String,
    os_version: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Location {
    name: String,
    network_zone: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Datacenter {
    name: String,
    location: Location,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Server {
    id: u64,
    name: String,
    status: String,
    public_net: PublicNet,
    #[serde(deserialize_with = "super::null_as_default")]
    private_net: Vec<PrivateNet>,
    server_type: ServerType,
    image: Option<Image>,
    datacenter: Datacenter,
    #[serde(deserialize_with = "super::null_as_default")]
    labels: BTreeMap<String, String>,
}

pub(super) struct HetznerDiscovery {
    port: u16,
    robot: bool,
    label_selector: String,
    rest: Rest,
}

impl HetznerDiscovery {
    /// Asks the API of the role.
    pub(super) fn new(config: &HetznerSdConfig) -> Result<Self, String> {
        let robot = config.role == "robot";
        let base = if robot { "https://robot-ws.your-server.de" } else { "https://api.hetzner.cloud" };
        Self::at(config, base)
    }

    pub(super) fn at(config: &HetznerSdConfig, base: &str) -> Result<Self, String> {
        Ok(Self {
            port: config.port,
            robot: config.role == "robot",
            label_selector: config.label_selector.clone(),
            rest: Rest::new(&config.http, base)?,
        })
    }
}

fn target(server: &Server, port: u16, networks: &BTreeMap<u64, String>) -> LabelMap {
    let mut labels = LabelMap::new();
    let mut set = |name: &str, value: String| {
        labels.insert(format!("__meta_hetzner_{name}"), value);
    };
    let kind = &server.server_type;
    set("role", "hcloud".into());
    set("server_id", server.id.to_string());
    set("server_name", server.name.clone());
    set("server_status", server.status.clone());
    set("public_ipv4", server.public_net.ipv4.ip.clone());
    set("public_ipv6_network", server.public_net.ipv6.ip.clone());
    set("datacenter", server.datacenter.name.clone());
    set("hcloud_datacenter_location", server.datacenter.location.name.clone());
    set("hcloud_datacenter_location_network_zone", server.datacenter.location.network_zone.clone());
    set("hcloud_server_type", kind.name.clone());
    set("hcloud_cpu_cores", kind.cores.to_string());
    set("hcloud_cpu_type", kind.cpu_type.clone());
    set("hcloud_memory_size_gb", format!("{:.0}", kind.memory));
    set("hcloud_disk_size_gb", kind.disk.to_string());
    if let Some(image) = &server.image {
        set("hcloud_image_name", image.name.clone().unwrap_or_default());
        set("hcloud_image_description", image.description.clone());
        set("hcloud_image_os_flavor", image.os_flavor.clone());
        set("hcloud_image_os_version", image.os_version.clone().unwrap_or_default());
    }
    for own in &server.private_net {
        if let Some(name) = networks.get(&own.network) {
            set(&format!("hcloud_private_ipv4_{}", sanitize(name)), own.ip.clone());
        }
    }
    for (name, value) in &server.labels {
        set(&format!("hcloud_label_{}", sanitize(name)), value.clone());
        set(&format!("hcloud_labelpresent_{}", sanitize(name)), "true".into());
    }
    labels.insert("__address__".into(), join_host_port(&server.public_net.ipv4.ip, port));
    labels
}

fn robot_target(server: Fields<'_>, port: u16) -> LabelMap {
    let mut meta = fields::Meta::new("__meta_hetzner_");
    meta.set("role", "robot");
    meta.copy(
        server,
        &[
            ("server_id", "/server_number"),
            ("server_name", "/server_name"),
            ("server_status", "/status"),
            ("public_ipv4", "/server_ip"),
            ("robot_product", "/product"),
        ],
    );
    meta.set("datacenter", server.text("/dc").to_lowercase());
    meta.set("robot_cancelled", server.is_true("/cancelled").to_string());
    if let Some(v6) = server.items("/subnet").find(|s| s.text("/ip").contains(':')) {
        meta.set("public_ipv6_network", format!("{}/{}", v6.text("/ip"), v6.text("/mask")));
    }
    meta.at(join_host_port(&server.text("/server_ip"), port))
}

impl Refresher for HetznerDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        if self.robot {
            let list: Value = self.rest.get("/server").await?;
            let servers = Fields(&list).items("").map(|entry| robot_target(entry.at("/server"), self.port));
            let (source, targets) = ("hetzner".into(), servers.collect());
            return Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }]);
        }
        let mut networks = BTreeMap::new();
        for page in 1..=MAX_PAGES {
            let list: Networks = self.rest.get(&format!("/v1/networks?per_page=50&page={page}")).await?;
            networks.extend(list.networks.into_iter().map(|n| (n.id, n.name)));
            if list.meta.pagination.next_page.is_none() {
                break;
            }
        }
        let selector = query([("label_selector", self.label_selector.as_str())]);
        let mut targets = Vec::new();
        for page in 1..=MAX_PAGES {
            let list: Servers =
                self.rest.get(&format!("/v1/servers?per_page=50&page={page}&{selector}")).await?;
            targets.extend(list.servers.iter().map(|s| target(s, self.port, &networks)));
            if list.meta.pagination.next_page.is_none() {
                break;
            }
        }
        Ok(vec![TargetGroup { source: "hetzner".into(), targets, labels: LabelMap::new() }])
    }
}
