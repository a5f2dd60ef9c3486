//! Targets from Triton's container monitor: its containers, or the compute nodes they run on.

use serde_json::Value;

use super::LabelMap;
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use crate::config::HttpClientConfig;
use crate::config::sd::cluster::TritonSdConfig;
use crate::model::target_group::TargetGroup;

pub(super) struct TritonDiscovery {
    config: TritonSdConfig,
    rest: Rest,
}

impl TritonDiscovery {
    /// Asks `https://endpoint:port`.
    pub(super) fn new(config: &TritonSdConfig) -> Result<Self, String> {
        Self::at(config, &format!("https://{}:{}", config.endpoint, config.port))
    }

    pub(super) fn at(config: &TritonSdConfig, base: &str) -> Result<Self, String> {
        let http = HttpClientConfig { tls_config: config.tls_config.clone(), ..HttpClientConfig::default() };
        Ok(Self { rest: Rest::new(&http, base)?, config: config.clone() })
    }

    fn containers(&self, list: Fields<'_>) -> Vec<LabelMap> {
        let config = &self.config;
        let target = |container: Fields<'_>| {
            let mut meta = Meta::new("__meta_triton_");
            meta.copy(
                container,
                &[
                    ("machine_id", "/vm_uuid"),
                    ("machine_alias", "/vm_alias"),
                    ("machine_brand", "/vm_brand"),
                    ("machine_image", "/vm_image_uuid"),
                    ("server_id", "/server_uuid"),
                ],
            );
            meta.set_list("groups", &container.texts("/groups"), ",");
            meta.at(format!("{}.{}:{}", container.text("/vm_uuid"), config.dns_suffix, config.port))
        };
        list.items("/containers").map(target).collect()
    }

    fn nodes(&self, list: Fields<'_>) -> Vec<LabelMap> {
        let config = &self.config;
        let target = |node: Fields<'_>| {
            let mut meta = Meta::new("__meta_triton_");
            meta.copy(node, &[("machine_id", "/server_uuid"), ("machine_alias", "/server_hostname")]);
            meta.at(format!("{}.{}:{}", node.text("/server_uuid"), config.dns_suffix, config.port))
        };
        list.items("/cns").map(target).collect()
    }
}

impl Refresher for TritonDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let of_nodes = self.config.role == "cn";
        let mut path = format!("/v{}/{}discover", self.config.version, if of_nodes { "gz/" } else { "" });
        if !self.config.groups.is_empty() {
            path = format!("{path}?{}", query([("groups", self.config.groups.join(",").as_str())]));
        }
        let list: Value = self.rest.get(&path).await?;
        let targets = if of_nodes { self.nodes(Fields(&list)) } else { self.containers(Fields(&list)) };
        let source = format!("{}{path}", self.rest.base());
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
