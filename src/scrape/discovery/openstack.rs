//! Targets from OpenStack: instances, hypervisors, or load balancers that speak Prometheus.

use std::collections::{HashMap, HashSet};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::HttpClientConfig;
use crate::config::sd::cloud::OpenstackSdConfig;
use crate::model::target_group::TargetGroup;
use crate::net::cloud::Environment;

/// Pages of a list that are read at most.
const MAX_PAGES: usize = 10_000;

pub(super) struct OpenstackDiscovery {
    config: OpenstackSdConfig,
    rest: Rest,
    /// Addresses of services, from the last answer of the identity service.
    catalog: Value,
}

/// Takes what the configuration leaves out from the variables of OpenStack's own tools, as soon as it leaves out the
/// identity service itself.
fn completed(config: &OpenstackSdConfig, environment: &Environment) -> Result<OpenstackSdConfig, String> {
    let mut config = config.clone();
    if !config.identity_endpoint.is_empty() {
        return Ok(config);
    }
    let first = |names: &[&str]| names.iter().find_map(|n| environment.get(n)).unwrap_or_default();
    config.identity_endpoint = first(&["OS_AUTH_URL"]);
    if config.identity_endpoint.is_empty() {
        return Err("neither identity_endpoint nor OS_AUTH_URL is set".into());
    }
    config.username = first(&["OS_USERNAME"]);
    config.userid = first(&["OS_USERID", "OS_USER_ID"]);
    config.password = crate::config::Secret::new(first(&["OS_PASSWORD"]));
    config.project_id = first(&["OS_PROJECT_ID", "OS_TENANT_ID"]);
    config.project_name = first(&["OS_PROJECT_NAME", "OS_TENANT_NAME"]);
    config.domain_id = first(&["OS_DOMAIN_ID", "OS_USER_DOMAIN_ID", "OS_PROJECT_DOMAIN_ID"]);
    config.domain_name = first(&["OS_DOMAIN_NAME", "OS_USER_DOMAIN_NAME", "OS_PROJECT_DOMAIN_NAME"]);
    config.application_credential_id = first(&["OS_APPLICATION_CREDENTIAL_ID"]);
    config.application_credential_name = first(&["OS_APPLICATION_CREDENTIAL_NAME"]);
    config.application_credential_secret =
        crate::config::Secret::new(first(&["OS_APPLICATION_CREDENTIAL_SECRET"]));
    Ok(config)
}

fn domain(config: &OpenstackSdConfig) -> Value {
    if config.domain_id.is_empty() {
        json!({ "name": config.domain_name })
    } else {
        json!({ "id": config.domain_id })
    }
}

fn user(config: &OpenstackSdConfig) -> Value {
    if config.userid.is_empty() {
        json!({ "name": config.username, "domain": domain(config) })
    } else {
        json!({ "id": config.userid })
    }
}

/// The request for a token (identity API, version 3).
fn identity(config: &OpenstackSdConfig) -> Value {
    let credential = config.application_credential_secret.expose();
    if !credential.is_empty() {
        let mut body = json!({ "secret": credential });
        if config.application_credential_id.is_empty() {
            body["name"] = config.application_credential_name.as_str().into();
            body["user"] = user(config);
        } else {
            body["id"] = config.application_credential_id.as_str().into();
        }
        return json!({ "auth": { "identity": {
            "methods": ["application_credential"], "application_credential": body } } });
    }
    let mut user = user(config);
    user["password"] = config.password.expose().into();
    let mut auth = json!({ "identity": { "methods": ["password"], "password": { "user": user } } });
    if !config.project_id.is_empty() {
        auth["scope"] = json!({ "project": { "id": config.project_id } });
    } else if !config.project_name.is_empty() {
        auth["scope"] = json!({ "project": { "name": config.project_name, "domain": domain(config) } });
    }
    json!({ "auth": auth })
}

impl OpenstackDiscovery {
    pub(super) fn new(config: &OpenstackSdConfig) -> Result<Self, String> {
        let config = completed(config, &Environment::Process)?;
        let http = HttpClientConfig { tls_config: config.tls_config.clone(), ..HttpClientConfig::default() };
        let mut base = config.identity_endpoint.trim_end_matches('/').to_owned();
        if let Some(start) = base.strip_suffix("/v2.0") {
            base = start.to_owned();
        }
        if !base.ends_with("/v3") {
            base.push_str("/v3");
        }
        Ok(Self { rest: Rest::new(&http, &base)?, config, catalog: Value::Null })
    }

    async fn log_in(&mut self) -> Result<(), String> {
        let body = identity(&self.config).to_string().into_bytes();
        let headers = [("content-type", "application/json")];
        let (status, answer, answered) = self.rest.send(Method::POST, "/auth/tokens", &headers, body).await?;
        if !matches!(status, StatusCode::CREATED | StatusCode::OK) {
            return Err(format!("could not authenticate to OpenStack: status {status}"));
        }
        let mut answer: Value = serde_json::from_slice(answer)
            .map_err(|e| format!("cannot decode the answer of the identity service: {e}"))?;
        let token = answered.get("x-subject-token").and_then(|t| t.to_str().ok()).map(str::to_owned);
        let token = token.ok_or("the identity service gave no token")?;
        self.catalog = answer["token"]["catalog"].take();
        self.rest.header("x-auth-token", &token);
        Ok(())
    }

    /// The address of a service in the region, as available as configured.
    fn service(&self, kind: &str) -> Result<String, String> {
        let config = &self.config;
        let endpoint = Fields(&self.catalog)
            .items("")
            .filter(|service| service.text("/type") == kind)
            .flat_map(|service| service.items("/endpoints"))
            .find(|e| {
                let region = e.some("/region_id").or_else(|| e.some("/region"));
                let public = e.text("/interface").trim_end_matches("URL").to_owned();
                public == config.availability && region.as_deref() == Some(config.region.as_str())
            });
        endpoint.map(|e| e.text("/url").trim_end_matches('/').to_owned()).ok_or_else(|| {
            format!(
                "the catalog has no {} endpoint of a {kind} service in region {:?}",
                config.availability, config.region
            )
        })
    }

    /// As [`Self::service`], with the version in the path.
    fn versioned(&self, kind: &str) -> Result<String, String> {
        let url = self.service(kind)?;
        Ok(if url.ends_with("/v2.0") { url } else { format!("{}/v2.0", url.trim_end_matches("/v2")) })
    }

    async fn list(&mut self, url: &str, key: &str) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        let mut next = url.to_owned();
        for _ in 0..MAX_PAGES {
            let list: Value = self.rest.get(&next).await?;
            let fields = Fields(&list);
            let before = out.len();
            out.extend(fields.items(&format!("/{key}")).map(|item| item.0.clone()));
            let link = fields.items(&format!("/{key}_links")).find(|l| l.text("/rel") == "next");
            match link {
                // A page without entries that refers to another would not end.
                Some(link) if out.len() > before => next = link.text("/href"),
                _ => break,
            }
        }
        Ok(out)
    }

    async fn instances(&mut self) -> Result<Vec<LabelMap>, String> {
        let (compute, network) = (self.service("compute")?, self.versioned("network")?);
        let ports = self.list(&format!("{network}/ports"), "ports").await?;
        let floating = self.list(&format!("{network}/floatingips"), "floatingips").await?;
        let all = if self.config.all_tenants { "?all_tenants=true" } else { "" };
        let servers = self.list(&format!("{compute}/servers/detail{all}"), "servers").await?;
        Ok(instances(&servers, &ports, &floating, self.config.port))
    }

    async fn hypervisors(&mut self) -> Result<Vec<LabelMap>, String> {
        let compute = self.service("compute")?;
        let list = self.list(&format!("{compute}/os-hypervisors/detail"), "hypervisors").await?;
        let port = self.config.port;
        let target = |hypervisor: Fields<'_>| {
            let mut meta = Meta::new("__meta_openstack_hypervisor_");
            meta.copy(
                hypervisor,
                &[
                    ("id", "/id"),
                    ("hostname", "/hypervisor_hostname"),
                    ("host_ip", "/host_ip"),
                    ("status", "/status"),
                    ("state", "/state"),
                    ("type", "/hypervisor_type"),
                ],
            );
            meta.at(join_host_port(&hypervisor.text("/host_ip"), port))
        };
        Ok(list.iter().map(Fields).map(target).collect())
    }

    async fn load_balancers(&mut self) -> Result<Vec<LabelMap>, String> {
        let (balancing, network) = (self.versioned("load-balancer")?, self.versioned("network")?);
        let balancers = self.list(&format!("{balancing}/lbaas/loadbalancers"), "loadbalancers").await?;
        let listeners = self.list(&format!("{balancing}/lbaas/listeners"), "listeners").await?;
        let floating = self.list(&format!("{network}/floatingips"), "floatingips").await?;
        Ok(load_balancers(&balancers, &listeners, &floating))
    }
}

fn instances(servers: &[Value], ports: &[Value], floating: &[Value], port: u16) -> Vec<LabelMap> {
    let devices: HashMap<String, String> =
        ports.iter().map(Fields).map(|p| (p.text("/id"), p.text("/device_id"))).collect();
    let mut public: HashMap<(String, String, String), String> = HashMap::new();
    let mut known: HashSet<String> = HashSet::new();
    for ip in floating.iter().map(Fields) {
        let (Some(port), Some(fixed)) = (ip.some("/port_id"), ip.some("/fixed_ip_address")) else { continue };
        if let Some(device) = devices.get(&port) {
            let address = ip.text("/floating_ip_address");
            public.insert((ip.text("/tenant_id"), device.clone(), fixed), address.clone());
            known.insert(address);
        }
    }
    let mut out = Vec::new();
    for server in servers.iter().map(Fields) {
        let (id, tenant) = (server.text("/id"), server.text("/tenant_id"));
        // Newer services name the flavor, older ones only identify it.
        let flavor = server.some("/flavor/original_name").or_else(|| server.some("/flavor/id"));
        let Some(flavor) = flavor else { continue };
        let mut common = Meta::new("__meta_openstack_");
        common.copy(
            server,
            &[
                ("instance_id", "/id"),
                ("instance_status", "/status"),
                ("instance_name", "/name"),
                ("project_id", "/tenant_id"),
                ("user_id", "/user_id"),
            ],
        );
        common.set("instance_flavor", flavor);
        common.set_some("instance_image", server.some("/image/id"));
        common.set_tags("tag_", server.members("/metadata").map(|(n, v)| (n.to_owned(), v.text(""))));
        for (pool, addresses) in server.members("/addresses") {
            for address in addresses.items("").filter_map(|a| a.some("/addr")) {
                if known.contains(&address) {
                    continue;
                }
                let mut meta = common.clone();
                meta.set("address_pool", pool);
                meta.set("private_ip", address.as_str());
                let key = (tenant.clone(), id.clone(), address);
                meta.set_some("public_ip", public.get(&key).cloned());
                out.push(meta.at(join_host_port(&key.2, port)));
            }
        }
    }
    out
}

fn load_balancers(balancers: &[Value], listeners: &[Value], floating: &[Value]) -> Vec<LabelMap> {
    let public: HashMap<String, String> = floating
        .iter()
        .map(Fields)
        .filter_map(|ip| Some((ip.some("/port_id")?, ip.text("/floating_ip_address"))))
        .collect();
    let mut out = Vec::new();
    for balancer in balancers.iter().map(Fields) {
        let id = balancer.text("/id");
        let mut own = listeners.iter().map(Fields).filter(|l| {
            l.text("/protocol") == "PROMETHEUS" && l.items("/loadbalancers").any(|b| b.text("/id") == id)
        });
        let Some(listener) = own.next() else { continue };
        let mut meta = Meta::new("__meta_openstack_");
        meta.copy(
            balancer,
            &[
                ("loadbalancer_id", "/id"),
                ("loadbalancer_name", "/name"),
                ("loadbalancer_operating_status", "/operating_status"),
                ("loadbalancer_provisioning_status", "/provisioning_status"),
                ("loadbalancer_availability_zone", "/availability_zone"),
                ("loadbalancer_vip", "/vip_address"),
                ("loadbalancer_provider", "/provider"),
                ("project_id", "/project_id"),
            ],
        );
        let tags = balancer.texts("/tags");
        if !tags.is_empty() {
            meta.set("loadbalancer_tags", tags.join(","));
        }
        meta.set_some("loadbalancer_floating_ip", public.get(&balancer.text("/vip_port_id")).cloned());
        let address = balancer.text("/vip_address");
        out.push(meta.at(join_host_port(&address, listener.number("/protocol_port"))));
    }
    out
}

impl Refresher for OpenstackDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        self.log_in().await?;
        let targets = match self.config.role.as_str() {
            "hypervisor" => self.hypervisors().await?,
            "loadbalancer" => self.load_balancers().await?,
            _ => self.instances().await?,
        };
        let source = format!("OS_{}", self.config.region);
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
