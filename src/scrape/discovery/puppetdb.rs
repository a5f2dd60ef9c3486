//! Targets from PuppetDB: the resources that a query in PQL selects.

use serde_json::{Value, json};

use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use super::{LabelMap, join_host_port, sanitize, surrounded};
use crate::config::sd::cluster::PuppetDbSdConfig;
use crate::model::target_group::TargetGroup;

/// Depth of nested parameters that become labels.
const MAX_DEPTH: usize = 16;

pub(super) struct PuppetDbDiscovery {
    config: PuppetDbSdConfig,
    rest: Rest,
}

impl PuppetDbDiscovery {
    pub(super) fn new(config: &PuppetDbSdConfig) -> Result<Self, String> {
        let base = format!("{}/pdb/query/v4", config.url.expose().trim_end_matches('/'));
        Ok(Self { rest: Rest::new(&config.http, &base)?, config: config.clone() })
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        // Any number is a double there, printed as shortly as possible.
        Value::Number(number) => number.as_f64().map(crate::model::number::format_g),
        _ => None,
    }
}

/// Parameters as labels; nested ones are joined to their parent's name, lists by commas, empty ones left out.
fn parameters(value: &Value, prefix: &str, depth: usize, out: &mut Vec<(String, String)>) {
    for (name, value) in Fields(value).members("") {
        let name = format!("{prefix}{}", sanitize(name));
        let text = match value.0 {
            Value::Object(_) if depth < MAX_DEPTH => {
                parameters(value.0, &format!("{name}_"), depth + 1, out);
                continue;
            }
            Value::Array(items) => {
                items.iter().map(|item| scalar(item).unwrap_or_default()).collect::<Vec<_>>().join(",")
            }
            other => scalar(other).unwrap_or_default(),
        };
        if !text.is_empty() {
            out.push((name, text));
        }
    }
}

fn target(resource: Fields<'_>, config: &PuppetDbSdConfig) -> LabelMap {
    let mut meta = Meta::new("__meta_puppetdb_");
    meta.set("query", config.query.as_str());
    meta.copy(
        resource,
        &[
            ("certname", "/certname"),
            ("resource", "/resource"),
            ("type", "/type"),
            ("title", "/title"),
            ("file", "/file"),
            ("environment", "/environment"),
        ],
    );
    meta.set("exported", resource.is_true("/exported").to_string());
    let tags = resource.texts("/tags");
    if !tags.is_empty() {
        meta.set("tags", surrounded(tags.iter().map(String::as_str), ","));
    }
    if config.include_parameters {
        let mut found = Vec::new();
        parameters(resource.at("/parameters").0, "", 0, &mut found);
        meta.set_tags("parameter_", found);
    }
    meta.at(join_host_port(&resource.text("/certname"), config.port))
}

impl Refresher for PuppetDbDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let list: Value = self.rest.post("", &json!({ "query": self.config.query })).await?;
        if !list.is_array() {
            return Err("the answer is not a list of resources".into());
        }
        let targets = Fields(&list).items("").map(|r| target(r, &self.config)).collect();
        let source = format!("{}?query={}", self.rest.base(), self.config.query);
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
