//! Targets from Marathon: the ports of the tasks of each application.

use serde_json::Value;

use super::fields::{Fields, Meta};
use super::join_host_port;
use super::refresh::Refresher;
use super::rest::Rest;
use crate::config::sd::cluster::MarathonSdConfig;
use crate::model::target_group::TargetGroup;

const PREFIX: &str = "__meta_marathon_";

pub(super) struct MarathonDiscovery {
    config: MarathonSdConfig,
    rest: Rest,
}

impl MarathonDiscovery {
    pub(super) fn new(config: &MarathonSdConfig) -> Result<Self, String> {
        let server = config.servers.first().ok_or("no Marathon server")?;
        let discovery = Self { rest: Rest::new(&config.http, server)?, config: config.clone() };
        discovery.token()?;
        Ok(discovery)
    }

    /// The `Authorization` header of DC/OS, whose form is its own.
    fn token(&self) -> Result<Option<String>, String> {
        let config = &self.config;
        if !config.auth_token.is_empty() {
            return Ok(Some(format!("token={}", config.auth_token.expose())));
        }
        if config.auth_token_file.is_empty() {
            return Ok(None);
        }
        let path = config.auth_token_file.as_path();
        let token = std::fs::read_to_string(path)
            .map_err(|e| format!("unable to read auth token file {}: {e}", path.display()))?;
        Ok(Some(format!("token={}", token.trim())))
    }
}

/// Ports of an application with the labels of each; a port of 0 is that of the task at the same place.
fn ports(app: Fields<'_>, in_container: bool) -> (Vec<i64>, Vec<Vec<(String, String)>>, &'static str) {
    let labels = |of: Fields<'_>| {
        of.members("/labels").map(|(name, value)| (name.to_owned(), value.text(""))).collect::<Vec<_>>()
    };
    for pointer in ["/container/portMappings", "/container/docker/portMappings"] {
        let mappings: Vec<Fields<'_>> = app.items(pointer).collect();
        if !mappings.is_empty() {
            let port = if in_container { "/containerPort" } else { "/hostPort" };
            let numbers = mappings.iter().map(|m| m.number(port)).collect();
            return (numbers, mappings.into_iter().map(labels).collect(), "port_mapping_label_");
        }
    }
    let definitions: Vec<Fields<'_>> = app.items("/portDefinitions").collect();
    // Without `requirePorts` the number is that of the load balancer, not the one the task listens on.
    let own = app.is_true("/requirePorts");
    let numbers = definitions.iter().map(|d| if own { d.number("/port") } else { 0 }).collect();
    (numbers, definitions.into_iter().map(labels).collect(), "port_definition_label_")
}

fn group(app: Fields<'_>) -> TargetGroup {
    let in_container = app.text("/networks/0/mode") == "container";
    let (mut numbers, labels, prefix) = ports(app, in_container);
    let mut targets = Vec::new();
    for task in app.items("/tasks") {
        let own: Vec<i64> = task.items("/ports").map(|p| p.number("")).collect();
        if numbers.is_empty() {
            numbers.clone_from(&own);
        }
        let host = match task.some("/ipAddresses/0/ipAddress").filter(|_| in_container) {
            Some(address) => address,
            None => task.text("/host"),
        };
        for (i, number) in numbers.iter().enumerate() {
            let port = if *number == 0 && own.len() == numbers.len() { own[i] } else { *number };
            let mut meta = Meta::new(PREFIX);
            meta.set("task", task.text("/id"));
            meta.set("port_index", i.to_string());
            meta.set_tags(prefix, labels.get(i).cloned().unwrap_or_default());
            targets.push(meta.at(join_host_port(&host, port)));
        }
    }
    let mut meta = Meta::new(PREFIX);
    meta.copy(app, &[("app", "/id"), ("image", "/container/docker/image")]);
    meta.set_tags("app_label_", app.members("/labels").map(|(n, v)| (n.to_owned(), v.text(""))));
    TargetGroup { source: app.text("/id"), targets, labels: meta.labels() }
}

impl Refresher for MarathonDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        if let Some(token) = self.token()? {
            self.rest.header("authorization", &token);
        }
        let servers = &self.config.servers;
        let server = servers[fastrand::usize(..servers.len())].clone();
        self.rest.set_base(&server);
        let list: Value = self.rest.get("/v2/apps/?embed=apps.tasks").await?;
        Ok(Fields(&list).items("/apps").map(group).collect())
    }
}
