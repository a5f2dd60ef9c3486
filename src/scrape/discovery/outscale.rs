//! Targets from Outscale's virtual machines.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port};
use crate::config::sd::cloud::OutscaleSdConfig;
use crate::model::target_group::TargetGroup;
use crate::net::cloud::{Authenticator, AwsAccess, AwsSigner, Environment};

/// Pages that are read at most.
const MAX_PAGES: usize = 10_000;

pub(super) struct OutscaleDiscovery {
    config: OutscaleSdConfig,
    rest: Rest,
}

impl OutscaleDiscovery {
    pub(super) fn new(config: &OutscaleSdConfig) -> Result<Self, String> {
        let mut secret_key = config.secret_key.clone();
        if !config.secret_key_file.is_empty() {
            let path = config.secret_key_file.as_path();
            let text = std::fs::read_to_string(path)
                .map_err(|e| format!("unable to read secret key file {}: {e}", path.display()))?;
            secret_key = crate::config::Secret::new(text.trim());
        }
        // Its API is signed as AWS's are.
        let access = AwsAccess {
            region: config.region.clone(),
            access_key: config.access_key.clone(),
            secret_key,
            ..AwsAccess::default()
        };
        let signer = AwsSigner::new(access, "oapi", Environment::Process).map_err(|e| e.to_string())?;
        let signer: Arc<dyn Authenticator> = Arc::new(signer);
        Ok(Self { rest: Rest::with(&config.http, &config.endpoint, Some(signer))?, config: config.clone() })
    }
}

fn target(machine: Fields<'_>, config: &OutscaleSdConfig) -> Option<LabelMap> {
    let given = |pointer: &str| machine.some(pointer).filter(|ip| !ip.is_empty());
    let address = given("/PrivateIp").or_else(|| given("/PublicIp"))?;
    let mut meta = Meta::new("__meta_outscale_vm_");
    meta.set("region", config.region.as_str());
    meta.copy(machine, &[("instance_id", "/VmId"), ("state", "/State")]);
    meta.copy_some(
        machine,
        &[
            ("subregion", "/Placement/SubregionName"),
            ("private_ip", "/PrivateIp"),
            ("public_ip", "/PublicIp"),
        ],
    );
    let tags = machine.items("/Tags").map(|t| (t.text("/Key"), t.text("/Value")));
    meta.set_tags("tag_", tags.filter(|(name, value)| !name.is_empty() && !value.is_empty()));
    Some(meta.at(join_host_port(&address, config.port)))
}

impl Refresher for OutscaleDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let mut targets = Vec::new();
        let mut body = json!({});
        for _ in 0..MAX_PAGES {
            let list: Value = self.rest.post("/ReadVms", &body).await?;
            let list = Fields(&list);
            targets.extend(list.items("/Vms").filter_map(|m| target(m, &self.config)));
            match list.some("/NextPageToken").filter(|token| !token.is_empty()) {
                Some(token) => body["NextPageToken"] = token.into(),
                None => break,
            }
        }
        Ok(vec![TargetGroup { source: self.config.region.clone(), targets, labels: LabelMap::new() }])
    }
}
