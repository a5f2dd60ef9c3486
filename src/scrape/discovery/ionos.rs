//! Targets from the servers of an IONOS datacenter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::IonosSdConfig;
use crate::model::target_group::TargetGroup;

pub(super) struct IonosDiscovery {
    config: IonosSdConfig,
    rest: Rest,
}

impl IonosDiscovery {
    pub(super) fn new(config: &IonosSdConfig) -> Result<Self, String> {
        let base = match config.ionos_endpoint.as_str() {
            "" => "https://api.ionos.com",
            endpoint => endpoint,
        };
        Ok(Self { rest: Rest::new(&config.http, base)?, config: config.clone() })
    }
}

fn target(server: Fields<'_>, parent: &str, port: u16) -> Option<LabelMap> {
    let mut all: Vec<String> = Vec::new();
    let mut by_card: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for card in server.items("/entities/nics/items") {
        let name = card.some("/properties/name").unwrap_or_else(|| "unnamed".into());
        let ips = card.texts("/properties/ips");
        // Later cards come first, as there.
        all.splice(0..0, ips.iter().cloned());
        by_card.entry(name).or_default().splice(0..0, ips);
    }
    let address = join_host_port(all.first()?, port);
    let mut meta = Meta::new("__meta_ionos_server_");
    meta.set("servers_id", parent);
    meta.copy(
        server,
        &[
            ("availability_zone", "/properties/availabilityZone"),
            ("cpu_family", "/properties/cpuFamily"),
            ("id", "/id"),
            ("lifecycle", "/metadata/state"),
            ("name", "/properties/name"),
            ("state", "/properties/vmState"),
            ("type", "/properties/type"),
        ],
    );
    meta.copy_some(
        server,
        &[
            ("boot_cdrom_id", "/properties/bootCdrom/id"),
            ("boot_volume_id", "/properties/bootVolume/id"),
            ("boot_image_id", "/entities/volumes/items/0/properties/image"),
        ],
    );
    meta.set_list("ip", &all, ",");
    for (name, ips) in by_card {
        meta.set_list(&format!("nic_ip_{}", super::sanitize(&name)), &ips, ",");
    }
    Some(meta.at(address))
}

impl Refresher for IonosDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let path = format!("/cloudapi/v6/datacenters/{}/servers?depth=3", self.config.datacenter_id);
        let list: Value = self.rest.get(&path).await?;
        let list = Fields(&list);
        let parent = list.text("/id");
        let targets = list.items("/items").filter_map(|s| target(s, &parent, self.config.port)).collect();
        Ok(vec![TargetGroup { source: "ionos".into(), targets, labels: LabelMap::new() }])
    }
}
