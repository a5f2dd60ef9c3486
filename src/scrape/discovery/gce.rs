//! Targets from the instances of a Google Cloud project in a zone.

use std::sync::Arc;

use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port};
use crate::config::HttpClientConfig;
use crate::config::sd::cloud::GceSdConfig;
use crate::model::target_group::TargetGroup;
use crate::net::cloud::{Authenticator, Environment, GoogleToken};

/// Pages that are read at most.
const MAX_PAGES: usize = 10_000;
const SCOPE: &str = "https://www.googleapis.com/auth/compute.readonly";

pub(super) struct GceDiscovery {
    config: GceSdConfig,
    rest: Rest,
}

impl GceDiscovery {
    pub(super) fn new(config: &GceSdConfig) -> Result<Self, String> {
        let token = GoogleToken::new(SCOPE, None, Environment::Process).map_err(|e| e.to_string())?;
        Self::with(config, "https://compute.googleapis.com", Some(Arc::new(token)))
    }

    pub(super) fn with(
        config: &GceSdConfig,
        base: &str,
        token: Option<Arc<dyn Authenticator>>,
    ) -> Result<Self, String> {
        let rest = Rest::with(&HttpClientConfig::default(), base, token)?;
        Ok(Self { rest, config: config.clone() })
    }
}

fn target(instance: Fields<'_>, config: &GceSdConfig) -> Option<LabelMap> {
    let first = instance.items("/networkInterfaces").next()?;
    let mut meta = Meta::new("__meta_gce_");
    meta.set("project", config.project.as_str());
    meta.copy(
        instance,
        &[
            ("zone", "/zone"),
            ("instance_id", "/id"),
            ("instance_name", "/name"),
            ("instance_status", "/status"),
            ("machine_type", "/machineType"),
        ],
    );
    meta.copy(first, &[("network", "/network"), ("subnetwork", "/subnetwork"), ("private_ip", "/networkIP")]);
    for interface in instance.items("/networkInterfaces") {
        let name = format!("interface_ipv4_{}", super::sanitize(&interface.text("/name")));
        meta.set(&name, interface.text("/networkIP"));
    }
    meta.set_list("tags", &instance.texts("/tags/items"), &config.tag_separator);
    let metadata = instance.items("/metadata/items").filter(|i| i.has("/value"));
    meta.set_tags("metadata_", metadata.map(|i| (i.text("/key"), i.text("/value"))));
    meta.set_tags("label_", instance.members("/labels").map(|(n, v)| (n.to_owned(), v.text(""))));
    if first.text("/accessConfigs/0/type") == "ONE_TO_ONE_NAT" {
        meta.set("public_ip", first.text("/accessConfigs/0/natIP"));
    }
    if first.text("/ipv6AccessConfigs/0/type") == "DIRECT_IPV6" {
        meta.set("public_ipv6", first.text("/ipv6AccessConfigs/0/externalIpv6"));
    }
    meta.set_some("internal_ipv6", first.some("/ipv6Address").filter(|a| !a.is_empty()));
    Some(meta.at(join_host_port(&first.text("/networkIP"), config.port)))
}

impl Refresher for GceDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let config = &self.config;
        let path = format!("/compute/v1/projects/{}/zones/{}/instances", config.project, config.zone);
        let mut targets = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let pairs = [("filter", config.filter.as_str()), ("pageToken", token.as_str())];
            let given = pairs.into_iter().filter(|(_, value)| !value.is_empty());
            let list: Value = self.rest.get(&format!("{path}?{}", query(given))).await?;
            let list = Fields(&list);
            targets.extend(list.items("/items").filter_map(|i| target(i, config)));
            token = list.text("/nextPageToken");
            if token.is_empty() {
                break;
            }
        }
        let source = format!("GCE_{}_{}", config.project, config.zone);
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
