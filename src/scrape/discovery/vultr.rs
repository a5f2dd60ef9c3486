//! Targets from Vultr's instances.

use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::VultrSdConfig;
use crate::model::target_group::TargetGroup;

/// Pages that are read at most; each has 100 instances.
const MAX_PAGES: usize = 1000;

pub(super) struct VultrDiscovery {
    port: u16,
    rest: Rest,
}

impl VultrDiscovery {
    pub(super) fn new(config: &VultrSdConfig, base: &str) -> Result<Self, String> {
        Ok(Self { port: config.port, rest: Rest::new(&config.http, base)? })
    }
}

fn target(instance: Fields<'_>, port: u16) -> LabelMap {
    let mut meta = Meta::new("__meta_vultr_instance_");
    meta.copy(
        instance,
        &[
            ("id", "/id"),
            ("label", "/label"),
            ("os", "/os"),
            ("os_id", "/os_id"),
            ("region", "/region"),
            ("plan", "/plan"),
            ("main_ip", "/main_ip"),
            ("main_ipv6", "/v6_main_ip"),
            ("internal_ip", "/internal_ip"),
            ("hostname", "/hostname"),
            ("server_status", "/server_status"),
            ("vcpu_count", "/vcpu_count"),
            ("ram_mb", "/ram"),
            ("allowed_bandwidth_gb", "/allowed_bandwidth"),
            ("disk_gb", "/disk"),
        ],
    );
    meta.set_list("features", &instance.texts("/features"), ",");
    meta.set_list("tags", &instance.texts("/tags"), ",");
    meta.at(join_host_port(&instance.text("/main_ip"), port))
}

impl Refresher for VultrDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let mut targets = Vec::new();
        let mut cursor = String::new();
        for _ in 0..MAX_PAGES {
            let mut path = "/v2/instances?per_page=100".to_owned();
            if !cursor.is_empty() {
                path = format!("{path}&{}", query([("cursor", cursor.as_str())]));
            }
            let list: Value = self.rest.get(&path).await?;
            let list = Fields(&list);
            targets.extend(list.items("/instances").map(|i| target(i, self.port)));
            cursor = list.text("/meta/links/next");
            if cursor.is_empty() {
                break;
            }
        }
        Ok(vec![TargetGroup { source: "Vultr".into(), targets, labels: LabelMap::new() }])
    }
}
