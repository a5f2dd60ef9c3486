//! Targets from a Eureka registry: one for each instance of each application.

use roxmltree::{Document, Node};

use super::fields::Meta;
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::sd::cluster::EurekaSdConfig;
use crate::model::target_group::TargetGroup;

pub(super) struct EurekaDiscovery {
    rest: Rest,
}

impl EurekaDiscovery {
    pub(super) fn new(config: &EurekaSdConfig) -> Result<Self, String> {
        Ok(Self { rest: Rest::new(&config.http, config.server.expose())? })
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|c| c.tag_name().name() == name)
}

fn text(node: Node<'_, '_>, name: &str) -> String {
    child(node, name).and_then(|c| c.text()).unwrap_or_default().trim().to_owned()
}

/// Entries of a `metadata` element.
fn entries(node: Node<'_, '_>) -> impl Iterator<Item = (String, String)> {
    let metadata = child(node, "metadata").into_iter();
    metadata
        .flat_map(|m| m.children().filter(Node::is_element).collect::<Vec<_>>())
        .map(|e| (e.tag_name().name().to_owned(), e.text().unwrap_or_default().to_owned()))
}

fn target(app: &str, instance: Node<'_, '_>) -> LabelMap {
    let mut meta = Meta::new("__meta_eureka_");
    meta.set("app_name", app);
    for (name, element) in [
        ("hostname", "hostName"),
        ("homepage_url", "homePageUrl"),
        ("statuspage_url", "statusPageUrl"),
        ("healthcheck_url", "healthCheckUrl"),
        ("ip_addr", "ipAddr"),
        ("vip_address", "vipAddress"),
        ("secure_vip_address", "secureVipAddress"),
        ("status", "status"),
        ("id", "instanceId"),
    ] {
        meta.set(&format!("app_instance_{name}"), text(instance, element));
    }
    let country = text(instance, "countryId");
    meta.set("app_instance_country_id", if country.is_empty() { "0".to_owned() } else { country });
    let mut port = "80".to_owned();
    for (name, element) in [("port", "port"), ("secure_port", "securePort")] {
        if let Some(node) = child(instance, element) {
            let number = text(instance, element);
            meta.set(&format!("app_instance_{name}_enabled"), node.attribute("enabled").unwrap_or("false"));
            meta.set(&format!("app_instance_{name}"), number.clone());
            if name == "port" {
                port = number;
            }
        }
    }
    if let Some(center) = child(instance, "dataCenterInfo") {
        meta.set("app_instance_datacenterinfo_name", text(center, "name"));
        meta.set_tags("app_instance_datacenterinfo_metadata_", entries(center));
    }
    meta.set_tags("app_instance_metadata_", entries(instance));
    meta.set_plain("instance", text(instance, "instanceId"));
    meta.at(join_host_port(&text(instance, "hostName"), port))
}

fn targets(xml: &str) -> Result<Vec<LabelMap>, String> {
    let document =
        Document::parse(xml).map_err(|e| format!("cannot decode the list of applications: {e}"))?;
    let applications = document.root_element().children().filter(|n| n.tag_name().name() == "application");
    Ok(applications
        .flat_map(|app| {
            let name = text(app, "name");
            let instances = app.children().filter(|n| n.tag_name().name() == "instance");
            instances.map(|instance| target(&name, instance)).collect::<Vec<_>>()
        })
        .collect())
}

impl Refresher for EurekaDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let (body, _) = self.rest.get_bytes("/apps").await?;
        let targets = targets(&String::from_utf8_lossy(body))?;
        Ok(vec![TargetGroup { source: "eureka".into(), targets, labels: LabelMap::new() }])
    }
}
