//! Targets from DigitalOcean's droplets or managed databases.

use serde::Deserialize;
use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port, surrounded};
use crate::config::sd::cloud::DigitalOceanSdConfig;
use crate::model::target_group::TargetGroup;

/// Pages that are read at most; each has 200 droplets.
const MAX_PAGES: usize = 1000;

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Page {
    droplets: Vec<Droplet>,
    links: Links,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Links {
    #[serde(deserialize_with = "super::null_as_default")]
    pages: Pages,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Pages {
    next: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Slug {
    slug: Option<String>,
    name: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Address {
    ip_address: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Networks {
    #[serde(deserialize_with = "super::null_as_default")]
    v4: Vec<Address>,
    #[serde(deserialize_with = "super::null_as_default")]
    v6: Vec<Address>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Droplet {
    id: u64,
    name: String,
    status: String,
    image: Slug,
    region: Slug,
    size_slug: String,
    #[serde(deserialize_with = "super::null_as_default")]
    features: Vec<String>,
    #[serde(deserialize_with = "super::null_as_default")]
    tags: Vec<String>,
    vpc_uuid: String,
    networks: Networks,
}

pub(super) struct DigitalOceanDiscovery {
    port: u16,
    databases: bool,
    rest: Rest,
}

impl DigitalOceanDiscovery {
    pub(super) fn new(config: &DigitalOceanSdConfig, base: &str) -> Result<Self, String> {
        let databases = config.role == "databases";
        Ok(Self { port: config.port, databases, rest: Rest::new(&config.http, base)? })
    }

    async fn read_databases(&mut self) -> Result<Vec<LabelMap>, String> {
        let mut targets = Vec::new();
        for page in 1..=MAX_PAGES {
            let list: Value = self.rest.get(&format!("/v2/databases?per_page=200&page={page}")).await?;
            targets.extend(Fields(&list).items("/databases").filter_map(|d| database(d, self.port)));
            if !Fields(&list).has("/links/pages/next") {
                break;
            }
        }
        Ok(targets)
    }
}

/// A cluster at its private host, where it has one.
fn database(database: Fields<'_>, port: u16) -> Option<LabelMap> {
    let host = |pointer: &str| database.some(pointer).filter(|host| !host.is_empty());
    let (public, private) = (host("/connection/host"), host("/private_connection/host"));
    let address = private.clone().or_else(|| public.clone())?;
    let mut meta = Meta::new("__meta_digitalocean_db_");
    meta.copy(
        database,
        &[
            ("id", "/id"),
            ("name", "/name"),
            ("engine", "/engine"),
            ("version", "/version"),
            ("status", "/status"),
            ("region", "/region"),
            ("size", "/size"),
            ("num_nodes", "/num_nodes"),
        ],
    );
    meta.set_some("host", public);
    meta.set_some("private_host", private);
    meta.set_tags("tag_", database.texts("/tags").into_iter().map(|tag| (tag, "true".to_owned())));
    Some(meta.at(join_host_port(&address, port)))
}

fn target(droplet: &Droplet, port: u16) -> Option<LabelMap> {
    let of_kind = |list: &[Address], kind: &str| {
        list.iter().find(|a| a.kind == kind).map(|a| a.ip_address.clone()).unwrap_or_default()
    };
    let public = of_kind(&droplet.networks.v4, "public");
    // A droplet without a network cannot be reached.
    if droplet.networks.v4.is_empty() {
        return None;
    }
    let joined = |list: &[String]| match list {
        [] => String::new(),
        list => surrounded(list.iter().map(String::as_str), ","),
    };
    let mut labels: LabelMap = [
        ("__address__", join_host_port(&public, port)),
        ("__meta_digitalocean_droplet_id", droplet.id.to_string()),
        ("__meta_digitalocean_droplet_name", droplet.name.clone()),
        ("__meta_digitalocean_image", droplet.image.slug.clone().unwrap_or_default()),
        ("__meta_digitalocean_image_name", droplet.image.name.clone()),
        ("__meta_digitalocean_private_ipv4", of_kind(&droplet.networks.v4, "private")),
        ("__meta_digitalocean_public_ipv4", public),
        ("__meta_digitalocean_public_ipv6", of_kind(&droplet.networks.v6, "public")),
        ("__meta_digitalocean_region", droplet.region.slug.clone().unwrap_or_default()),
        ("__meta_digitalocean_size", droplet.size_slug.clone()),
        ("__meta_digitalocean_status", droplet.status.clone()),
        ("__meta_digitalocean_vpc", droplet.vpc_uuid.clone()),
        ("__meta_digitalocean_features", joined(&droplet.features)),
        ("__meta_digitalocean_tags", joined(&droplet.tags)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for optional in ["features", "tags"] {
        let name = format!("__meta_digitalocean_{optional}");
        if labels.get(&name).is_some_and(String::is_empty) {
            labels.remove(&name);
        }
    }
    Some(labels)
}

impl Refresher for DigitalOceanDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        if self.databases {
            let targets = self.read_databases().await?;
            let source = "DigitalOcean".into();
            return Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }]);
        }
        let mut targets = Vec::new();
        for page in 1..=MAX_PAGES {
            let list: Page = self.rest.get(&format!("/v2/droplets?per_page=200&page={page}")).await?;
            targets.extend(list.droplets.iter().filter_map(|d| target(d, self.port)));
            if list.links.pages.next.is_none() {
                break;
            }
        }
        Ok(vec![TargetGroup { source: "DigitalOcean".into(), targets, labels: LabelMap::new() }])
    }
}
