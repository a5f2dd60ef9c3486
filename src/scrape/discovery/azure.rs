//! Targets from Azure's virtual machines, those of scale sets included.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::Value;

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::AzureSdConfig;
use crate::model::target_group::TargetGroup;
use crate::net::cloud::{Authenticator, AzureAccess, AzureCloud, AzureToken, Environment};
use crate::telemetry::{Counter, Registry};

/// Pages of a list that are read at most.
const MAX_PAGES: usize = 10_000;
/// Network interfaces that are remembered.
const MAX_CACHED: usize = 5000;
const COMPUTE: &str = "2023-09-01";
const NETWORK: &str = "2023-05-01";
/// The last version that knows interfaces of machines in scale sets.
const SCALE_SET_NETWORK: &str = "2018-10-01";

pub(super) struct AzureDiscovery {
    config: AzureSdConfig,
    rest: Rest,
    /// Network interfaces and until when they are believed; asking for each in every round would exceed Azure's rates.
    interfaces: HashMap<String, (Value, Instant)>,
    failures: Counter,
    hits: Counter,
}

struct Machine {
    document: Value,
    scale_set: Option<String>,
}

impl AzureDiscovery {
    pub(super) fn new(config: &AzureSdConfig, registry: &Registry) -> Result<Self, String> {
        let cloud = AzureCloud::named(&config.environment).ok_or_else(|| {
            format!("there is no cloud configuration matching the name {:?}", config.environment)
        })?;
        let access = match config.authentication_method.as_str() {
            "ManagedIdentity" => AzureAccess::ManagedIdentity { client: config.client_id.clone() },
            "WorkloadIdentity" => AzureAccess::WorkloadIdentity {
                tenant: config.tenant_id.clone(),
                client: config.client_id.clone(),
                file: String::new(),
            },
            "SDK" => AzureAccess::Sdk { tenant: config.tenant_id.clone() },
            _ => AzureAccess::Secret {
                tenant: config.tenant_id.clone(),
                client: config.client_id.clone(),
                secret: config.client_secret.clone(),
            },
        };
        let base = cloud.resource_manager();
        let token = AzureToken::new(access, cloud, base, Environment::Process).map_err(|e| e.to_string())?;
        Self::with(config, base, Some(Arc::new(token)), registry)
    }

    pub(super) fn with(
        config: &AzureSdConfig,
        base: &str,
        token: Option<Arc<dyn Authenticator>>,
        registry: &Registry,
    ) -> Result<Self, String> {
        Ok(Self {
            rest: Rest::with(&config.http, base, token)?,
            config: config.clone(),
            interfaces: HashMap::new(),
            failures: registry.counter(
                "prometheus_sd_azure_failures_total",
                "Number of Azure service discovery refresh failures.",
                &[],
            ),
            hits: registry.counter(
                "prometheus_sd_azure_cache_hit_total",
                "Number of cache hit during refresh.",
                &[],
            ),
        })
    }

    async fn list(&mut self, path: &str) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..MAX_PAGES {
            let list: Value = self.rest.get(&next).await?;
            out.extend(Fields(&list).items("/value").map(|item| item.0.clone()));
            match Fields(&list).some("/nextLink").filter(|link| !link.is_empty()) {
                // Credentials go only to the resource manager.
                Some(link) if link.starts_with(self.rest.base()) => next = link,
                Some(_) => return Err("the next page is on another server".into()),
                None => break,
            }
        }
        Ok(out)
    }

    async fn machines(&mut self) -> Result<Vec<Machine>, String> {
        let subscription = format!("/subscriptions/{}", self.config.subscription_id);
        let group = match self.config.resource_group.as_str() {
            "" => String::new(),
            group => format!("/resourceGroups/{group}"),
        };
        let compute = format!("{subscription}{group}/providers/Microsoft.Compute");
        let machines = self.list(&format!("{compute}/virtualMachines?api-version={COMPUTE}")).await?;
        let mut out: Vec<Machine> =
            machines.into_iter().map(|document| Machine { document, scale_set: None }).collect();
        for set in self.list(&format!("{compute}/virtualMachineScaleSets?api-version={COMPUTE}")).await? {
            let (id, name) = (Fields(&set).text("/id"), Fields(&set).text("/name"));
            let own = self.list(&format!("{id}/virtualMachines?api-version={COMPUTE}")).await?;
            let machine = |document| Machine { document, scale_set: Some(name.clone()) };
            out.extend(own.into_iter().map(machine));
        }
        Ok(out)
    }

    /// A network interface; none if it is gone.
    async fn interface(&mut self, id: &str, in_scale_set: bool) -> Result<Option<Value>, String> {
        if let Some((known, until)) = self.interfaces.get(id)
            && Instant::now() < *until
        {
            self.hits.inc();
            return Ok(Some(known.clone()));
        }
        let version = if in_scale_set { SCALE_SET_NETWORK } else { NETWORK };
        let path = format!("{id}?api-version={version}&%24expand=IPConfigurations%2FPublicIPAddress");
        let (status, body, _) = self.rest.send(Method::GET, &path, &[], Vec::new()).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                tracing::warn!(name = id, "network interface does not exist");
                return Ok(None);
            }
            other => return Err(format!("network interface {id}: status {other}")),
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| format!("network interface {id}: cannot decode the answer: {e}"))?;
        if self.interfaces.len() >= MAX_CACHED {
            let now = Instant::now();
            self.interfaces.retain(|_, (_, until)| now < *until);
        }
        if self.interfaces.len() < MAX_CACHED {
            // Spread, so that they do not all end in the same round.
            let interval = self.config.refresh_interval.as_std().max(Duration::from_secs(1));
            let until = Instant::now() + interval * 10 + interval.mul_f64(3.0 * fastrand::f64());
            self.interfaces.insert(id.to_owned(), (value.clone(), until));
        }
        Ok(Some(value))
    }

    async fn target(&mut self, machine: &Machine) -> Result<Option<LabelMap>, String> {
        let fields = Fields(&machine.document);
        let id = fields.text("/id");
        let mut meta = Meta::new("__meta_azure_");
        meta.set("subscription_id", self.config.subscription_id.as_str());
        meta.set("tenant_id", self.config.tenant_id.as_str());
        meta.set("machine_resource_group", resource_group(&id));
        meta.copy(
            fields,
            &[
                ("machine_id", "/id"),
                ("machine_name", "/name"),
                ("machine_computer_name", "/properties/osProfile/computerName"),
                ("machine_os_type", "/properties/storageProfile/osDisk/osType"),
                ("machine_location", "/location"),
                ("machine_size", "/properties/hardwareProfile/vmSize"),
            ],
        );
        meta.set_some("machine_scale_set", machine.scale_set.clone());
        meta.set_tags("machine_tag_", fields.members("/tags").map(|(n, v)| (n.to_owned(), v.text(""))));
        for interface in fields.items("/properties/networkProfile/networkInterfaces") {
            let interface = self.interface(&interface.text("/id"), machine.scale_set.is_some()).await?;
            let Some(interface) = interface else { return Ok(None) };
            let interface = Fields(&interface);
            if !interface.has("/properties") {
                continue;
            }
            // Only interfaces of machines that are running say whether they are the primary one.
            if !interface.has("/properties/primary") {
                return Ok(None);
            }
            if !interface.is_true("/properties/primary") {
                continue;
            }
            if let Some(ip) = interface.items("/properties/ipConfigurations").next() {
                let public = "/properties/publicIPAddress/properties/ipAddress";
                meta.set_some("machine_public_ip", ip.some(public));
                let Some(private) = ip.some("/properties/privateIPAddress") else {
                    return Err(format!("unable to find a private IP for VM {}", fields.text("/name")));
                };
                meta.set("machine_private_ip", private.as_str());
                return Ok(Some(meta.at(join_host_port(&private, self.config.port))));
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Vec<TargetGroup>, String> {
        let mut targets = Vec::new();
        for machine in self.machines().await? {
            targets.extend(self.target(&machine).await?);
        }
        Ok(vec![TargetGroup { source: String::new(), targets, labels: LabelMap::new() }])
    }
}

/// The group in an identity such as `/subscriptions/s/resourceGroups/g/…`.
fn resource_group(id: &str) -> &str {
    let mut parts = id.split('/');
    while let Some(part) = parts.next() {
        if part.eq_ignore_ascii_case("resourceGroups") {
            return parts.next().unwrap_or_default();
        }
    }
    ""
}

impl Refresher for AzureDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        self.read().await.inspect_err(|_| self.failures.inc())
    }
}
