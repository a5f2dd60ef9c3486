//! Targets from Nomad's own service registry.

use serde::Deserialize;

use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port, surrounded};
use crate::config::sd::cluster::NomadSdConfig;
use crate::model::target_group::TargetGroup;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    #[serde(deserialize_with = "super::null_as_default")]
    services: Vec<ServiceName>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceName {
    service_name: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Instance {
    #[serde(rename = "ID")]
    id: String,
    service_name: String,
    namespace: String,
    #[serde(rename = "NodeID")]
    node_id: String,
    datacenter: String,
    #[serde(rename = "AllocID")]
    alloc_id: String,
    #[serde(deserialize_with = "super::null_as_default")]
    tags: Vec<String>,
    address: String,
    port: u32,
}

pub(super) struct NomadDiscovery {
    config: NomadSdConfig,
    rest: Rest,
}

impl NomadDiscovery {
    pub(super) fn new(config: &NomadSdConfig) -> Result<Self, String> {
        Ok(Self { rest: Rest::new(&config.http, &config.server)?, config: config.clone() })
    }

    fn parameters(&self) -> String {
        let mut pairs =
            vec![("namespace", self.config.namespace.as_str()), ("region", self.config.region.as_str())];
        if self.config.allow_stale {
            pairs.push(("stale", ""));
        }
        query(pairs)
    }
}

fn target(instance: &Instance, separator: &str) -> LabelMap {
    let address = join_host_port(&instance.address, instance.port);
    let tags = surrounded(instance.tags.iter().map(String::as_str), separator);
    [
        ("__address__", address.clone()),
        ("__meta_nomad_address", address),
        ("__meta_nomad_dc", instance.datacenter.clone()),
        ("__meta_nomad_namespace", instance.namespace.clone()),
        ("__meta_nomad_node_id", instance.node_id.clone()),
        ("__meta_nomad_service", instance.service_name.clone()),
        ("__meta_nomad_service_address", instance.address.clone()),
        ("__meta_nomad_service_alloc_id", instance.alloc_id.clone()),
        ("__meta_nomad_service_id", instance.id.clone()),
        ("__meta_nomad_service_port", instance.port.to_string()),
        ("__meta_nomad_tags", tags),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

impl Refresher for NomadDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let parameters = self.parameters();
        let listed: Vec<Listed> = self.rest.get(&format!("/v1/services?{parameters}")).await?;
        let mut targets = Vec::new();
        for service in listed.iter().flat_map(|l| &l.services) {
            let name: String =
                url::form_urlencoded::byte_serialize(service.service_name.as_bytes()).collect();
            let path = format!("/v1/service/{}?{parameters}", name.replace('+', "%20"));
            let instances: Vec<Instance> = self.rest.get(&path).await?;
            targets.extend(instances.iter().map(|i| target(i, &self.config.tag_separator)));
        }
        Ok(vec![TargetGroup { source: "Nomad".into(), targets, labels: LabelMap::new() }])
    }
}
