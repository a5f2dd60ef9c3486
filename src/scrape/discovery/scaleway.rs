//! Targets from Scaleway's instances or bare-metal servers.

use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::ScalewaySdConfig;
use crate::model::target_group::TargetGroup;

/// Pages that are read at most; each has 50 entries.
const MAX_PAGES: usize = 1000;
const PAGE: usize = 50;

pub(super) struct ScalewayDiscovery {
    config: ScalewaySdConfig,
    rest: Rest,
}

impl ScalewayDiscovery {
    pub(super) fn new(config: &ScalewaySdConfig) -> Result<Self, String> {
        let discovery = Self { rest: Rest::new(&config.http, &config.api_url)?, config: config.clone() };
        discovery.secret()?;
        Ok(discovery)
    }

    fn secret(&self) -> Result<String, String> {
        let config = &self.config;
        if config.secret_key_file.is_empty() {
            return Ok(config.secret_key.expose().to_owned());
        }
        let path = config.secret_key_file.as_path();
        std::fs::read_to_string(path)
            .map(|secret| secret.trim().to_owned())
            .map_err(|e| format!("unable to read secret key file {}: {e}", path.display()))
    }

    /// All entries of a list that comes in pages.
    async fn all(&mut self, path: &str, key: &str, pairs: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        for page in 1..=MAX_PAGES {
            let page = page.to_string();
            let paging = [("page", page.as_str()), ("per_page", "50"), ("page_size", "50")];
            let pairs = pairs.iter().copied().chain(paging);
            let list: Value = self.rest.get(&format!("{path}?{}", query(pairs))).await?;
            let before = out.len();
            out.extend(Fields(&list).items(&format!("/{key}")).map(|item| item.0.clone()));
            if out.len() - before < PAGE {
                break;
            }
        }
        Ok(out)
    }
}

fn instance(server: Fields<'_>, port: u16) -> Option<LabelMap> {
    let mut meta = Meta::new("__meta_scaleway_instance_");
    meta.copy(
        server,
        &[
            ("boot_type", "/boot_type"),
            ("hostname", "/hostname"),
            ("id", "/id"),
            ("name", "/name"),
            ("organization_id", "/organization"),
            ("project_id", "/project"),
            ("status", "/state"),
            ("type", "/commercial_type"),
            ("zone", "/zone"),
        ],
    );
    for (what, names) in [
        ("image", &["arch", "id", "name"][..]),
        ("location", &["cluster_id", "hypervisor_id", "node_id"]),
        ("security_group", &["id", "name"]),
    ] {
        if server.has(&format!("/{what}")) {
            for name in names {
                meta.set(&format!("{what}_{name}"), server.text(&format!("/{what}/{name}")));
            }
        }
    }
    // A zone is its region and a number: `fr-par-1`.
    if let Some((region, _)) = server.text("/zone").rsplit_once('-') {
        meta.set("region", region);
    }
    meta.set_list("tags", &server.texts("/tags"), ",");
    let mut address = None;
    for (family, name) in [("inet6", "public_ipv6_addresses"), ("inet", "public_ipv4_addresses")] {
        let ips = server.items("/public_ips").filter(|ip| ip.text("/family") == family);
        let ips: Vec<String> = ips.map(|ip| ip.text("/address")).collect();
        meta.set_list(name, &ips, ",");
        address = ips.into_iter().next().or(address);
    }
    for (name, pointer) in [
        ("public_ipv6", "/ipv6/address"),
        ("public_ipv4", "/public_ip/address"),
        ("private_ipv4", "/private_ip"),
    ] {
        if let Some(ip) = server.some(pointer) {
            meta.set(name, ip.clone());
            address = Some(ip);
        }
    }
    address.map(|address| meta.at(join_host_port(&address, port)))
}

fn bare_metal(server: Fields<'_>, offers: &[Value], systems: &[Value], port: u16) -> Vec<LabelMap> {
    let by_id = |list: &[Value], id: &str| list.iter().find(|o| Fields(o).text("/id") == id).cloned();
    let mut meta = Meta::new("__meta_scaleway_baremetal_");
    meta.copy(server, &[("id", "/id"), ("name", "/name"), ("zone", "/zone"), ("status", "/status")]);
    if let Some(offer) = by_id(offers, &server.text("/offer_id")) {
        meta.set("type", Fields(&offer).text("/name"));
    }
    if server.has("/install")
        && let Some(system) = by_id(systems, &server.text("/install/os_id"))
    {
        meta.copy(Fields(&system), &[("os_name", "/name"), ("os_version", "/version")]);
    }
    meta.set_list("tags", &server.texts("/tags"), ",");
    let target = |ip: Fields<'_>| {
        let mut meta = meta.clone();
        meta.set("ip_version", ip.text("/version"));
        meta.set("ip_is_public", "true");
        meta.at(join_host_port(&ip.text("/address"), port))
    };
    server.items("/ips").map(target).collect()
}

impl Refresher for ScalewayDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let secret = self.secret()?;
        self.rest.header("x-auth-token", &secret);
        let config = self.config.clone();
        let tags = config.tags_filter.join(",");
        let mut pairs = vec![];
        if !config.name_filter.is_empty() {
            pairs.push(("name", config.name_filter.as_str()));
        }
        let zone = &config.zone;
        let targets = if config.role == "baremetal" {
            pairs.push(("project_id", config.project_id.as_str()));
            pairs.extend(config.tags_filter.iter().map(|t| ("tags", t.as_str())));
            let base = format!("/baremetal/v1/zones/{zone}");
            let servers = self.all(&format!("{base}/servers"), "servers", &pairs).await?;
            let offers = self.all(&format!("{base}/offers"), "offers", &[]).await?;
            let systems = self.all(&format!("{base}/os"), "os", &[]).await?;
            servers.iter().flat_map(|s| bare_metal(Fields(s), &offers, &systems, config.port)).collect()
        } else {
            pairs.push(("project", config.project_id.as_str()));
            if !tags.is_empty() {
                pairs.push(("tags", tags.as_str()));
            }
            let path = format!("/instance/v1/zones/{zone}/servers");
            let servers = self.all(&path, "servers", &pairs).await?;
            servers.iter().filter_map(|s| instance(Fields(s), config.port)).collect()
        };
        Ok(vec![TargetGroup { source: "scaleway".into(), targets, labels: LabelMap::new() }])
    }
}
