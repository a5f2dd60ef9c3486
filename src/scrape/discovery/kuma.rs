//! Targets from Kuma's control plane, asked over its monitoring assignment discovery service (version 1) as JSON: a
//! request waits there until something changes.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::LabelMap;
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::{Rest, query};
use crate::config::sd::cluster::KumaSdConfig;
use crate::model::target_group::TargetGroup;

const TYPE: &str = "type.googleapis.com/kuma.observability.v1.MonitoringAssignment";
/// What an answer may take beyond the wait that was asked for.
const MARGIN: Duration = Duration::from_secs(15);

pub(super) struct KumaDiscovery {
    rest: Rest,
    path: String,
    client_id: String,
    version: String,
    nonce: String,
    last: Vec<TargetGroup>,
}

/// This machine's name, for control planes that tell clients apart.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_str()
        .ok()
        .filter(|n| !n.is_empty())
        .unwrap_or("prometheus")
        .to_owned()
}

impl KumaDiscovery {
    pub(super) fn new(config: &KumaSdConfig) -> Result<Self, String> {
        if !config.server.starts_with("http://") && !config.server.starts_with("https://") {
            return Err(format!("the server {:?} must be an http or https address", config.server));
        }
        let mut rest = Rest::new(&config.http, &config.server)?;
        rest.timeout = config.fetch_timeout.as_std() + MARGIN;
        let wait = config.fetch_timeout.to_string();
        let client_id = if config.client_id.is_empty() { host_name() } else { config.client_id.clone() };
        Ok(Self {
            rest,
            path: format!(
                "/v3/discovery:monitoringassignments?{}",
                query([("fetch-timeout", wait.as_str())])
            ),
            client_id,
            version: String::new(),
            nonce: String::new(),
            last: Vec::new(),
        })
    }
}

fn targets(answer: Fields<'_>) -> Result<Vec<LabelMap>, String> {
    let mut out = Vec::new();
    let user = |of: Fields<'_>| {
        let labels = of.members("/labels").map(|(n, v)| (n.to_owned(), v.text("")));
        labels.collect::<Vec<_>>()
    };
    for assignment in answer.items("/resources") {
        let kind = assignment.text("/@type");
        if kind != TYPE {
            return Err(format!("the answer has a resource of type {kind:?}"));
        }
        for target in assignment.items("/targets") {
            let mut meta = Meta::new("__meta_kuma_");
            meta.set_tags("label_", user(target));
            meta.set_tags("label_", user(assignment));
            meta.copy(assignment, &[("mesh", "/mesh"), ("service", "/service")]);
            meta.set("dataplane", target.text("/name"));
            meta.set_plain("instance", target.text("/name"));
            meta.set_plain("__scheme__", target.text("/scheme"));
            meta.set_plain("__metrics_path__", target.text("/metricsPath"));
            out.push(meta.at(target.text("/address")));
        }
    }
    Ok(out)
}

impl Refresher for KumaDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let body = json!({
            "versionInfo": self.version, "responseNonce": self.nonce, "typeUrl": TYPE, "resourceNames": [],
            "node": { "id": self.client_id },
        });
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let path = self.path.clone();
        let (status, answer, _) =
            self.rest.send(Method::POST, &path, &headers, body.to_string().into_bytes()).await?;
        match status {
            StatusCode::NOT_MODIFIED => return Ok(self.last.clone()),
            StatusCode::OK => {}
            other => return Err(format!("the control plane answered with status {other}")),
        }
        let answer: Value =
            serde_json::from_slice(answer).map_err(|e| format!("cannot decode the answer: {e}"))?;
        let answer = Fields(&answer);
        let targets = targets(answer)?;
        self.version = answer.text("/versionInfo");
        self.nonce = answer.text("/nonce");
        self.last = vec![TargetGroup { source: "kuma".into(), targets, labels: LabelMap::new() }];
        Ok(self.last.clone())
    }
}
