//! Targets from Uyuni or SUSE Manager: the exporters of monitored systems, asked by XML-RPC.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use roxmltree::{Document, Node};
use serde_json::{Map, Value, json};

use super::LabelMap;
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::Rest;
use crate::config::sd::cluster::UyuniSdConfig;
use crate::model::target_group::TargetGroup;

/// How long a session is asked for.
const SESSION: Duration = Duration::from_secs(600);
/// Depth of nested values in an answer.
const MAX_DEPTH: usize = 32;

pub(super) struct UyuniDiscovery {
    config: UyuniSdConfig,
    rest: Rest,
    session: Option<(String, Instant)>,
}

impl UyuniDiscovery {
    pub(super) fn new(config: &UyuniSdConfig) -> Result<Self, String> {
        let base = format!("{}/rpc/api", config.server.expose().trim_end_matches('/'));
        Ok(Self { rest: Rest::new(&config.http, &base)?, config: config.clone(), session: None })
    }

    async fn call(&mut self, method: &str, parameters: &[Value]) -> Result<Value, String> {
        let body = request(method, parameters).into_bytes();
        let (status, answer, _) =
            self.rest.send(Method::POST, "", &[("content-type", "text/xml")], body).await?;
        if status != StatusCode::OK {
            return Err(format!("{method} answered with status {status}"));
        }
        response(&String::from_utf8_lossy(answer)).map_err(|e| format!("{method}: {e}"))
    }

    async fn token(&mut self) -> Result<String, String> {
        if let Some((token, until)) = &self.session
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let user = json!(self.config.username);
        let password = json!(self.config.password.expose());
        let answer = self
            .call("auth.login", &[user, password, json!(SESSION.as_secs())])
            .await
            .map_err(|e| format!("unable to log in: {e}"))?;
        let token = Fields(&answer).text("");
        self.session = Some((token.clone(), Instant::now() + SESSION / 2));
        Ok(token)
    }

    async fn targets(&mut self) -> Result<Vec<LabelMap>, String> {
        let token = json!(self.token().await?);
        let entitlement = json!(self.config.entitlement);
        let method = "system.listSystemGroupsForSystemsWithEntitlement";
        let groups = self.call(method, &[token.clone(), entitlement]).await?;
        let groups: BTreeMap<i64, Vec<String>> = Fields(&groups)
            .items("")
            .map(|s| (s.number("/id"), s.items("/system_groups").map(|g| g.text("/name")).collect()))
            .collect();
        let ids = json!(groups.keys().collect::<Vec<_>>());
        let endpoints = self.call("system.monitoring.listEndpoints", &[token.clone(), ids.clone()]).await?;
        let networks = self.call("system.getNetworkForSystems", &[token, ids]).await?;
        let networks: BTreeMap<i64, Fields<'_>> =
            Fields(&networks).items("").map(|n| (n.number("/system_id"), n)).collect();
        let nothing = Value::Null;
        let target = |endpoint: Fields<'_>| {
            let id = endpoint.number("/system_id");
            let network = networks.get(&id).copied().unwrap_or(Fields(&nothing));
            let mut meta = Meta::new("__meta_uyuni_");
            meta.copy(network, &[("minion_hostname", "/hostname"), ("primary_fqdn", "/primary_fqdn")]);
            meta.copy(
                endpoint,
                &[
                    ("endpoint_name", "/endpoint_name"),
                    ("exporter", "/exporter_name"),
                    ("proxy_module", "/module"),
                    ("metrics_path", "/path"),
                ],
            );
            meta.set("system_id", id.to_string());
            let names = groups.get(&id).map(Vec::as_slice).unwrap_or_default();
            meta.set("groups", names.join(&self.config.separator));
            meta.set("scheme", if endpoint.is_true("/tls_enabled") { "https" } else { "http" });
            meta.at(format!("{}:{}", network.text("/hostname"), endpoint.number("/port")))
        };
        Ok(Fields(&endpoints).items("").map(target).collect())
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn value(of: &Value) -> String {
    match of {
        Value::Array(items) => {
            let items: String = items.iter().map(value).collect();
            format!("<value><array><data>{items}</data></array></value>")
        }
        Value::Number(number) => format!("<value><int>{number}</int></value>"),
        Value::Bool(truth) => format!("<value><boolean>{}</boolean></value>", i32::from(*truth)),
        other => format!("<value><string>{}</string></value>", escape(other.as_str().unwrap_or_default())),
    }
}

/// A call as XML-RPC writes it.
fn request(method: &str, parameters: &[Value]) -> String {
    let parameters: String = parameters.iter().map(|p| format!("<param>{}</param>", value(p))).collect();
    format!(
        "<?xml version=\"1.0\"?><methodCall><methodName>{method}</methodName><params>{parameters}</params></methodCall>"
    )
}

fn element<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|c| c.tag_name().name() == name)
}

/// A `value` element as JSON.
fn decode(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("the answer is nested too deeply".into());
    }
    let Some(kind) = node.children().find(Node::is_element) else {
        return Ok(json!(node.text().unwrap_or_default()));
    };
    let text = kind.text().unwrap_or_default();
    Ok(match kind.tag_name().name() {
        "int" | "i4" | "i8" => json!(text.trim().parse::<i64>().unwrap_or_default()),
        "double" => json!(text.trim().parse::<f64>().unwrap_or_default()),
        "boolean" => json!(text.trim() == "1"),
        "array" => {
            let data = element(kind, "data").into_iter().flat_map(|d| d.children().collect::<Vec<_>>());
            let values = data.filter(|v| v.tag_name().name() == "value").map(|v| decode(v, depth + 1));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        "struct" => {
            let mut object = Map::new();
            for member in kind.children().filter(|m| m.tag_name().name() == "member") {
                let name = element(member, "name").and_then(|n| n.text()).unwrap_or_default();
                if let Some(value) = element(member, "value") {
                    object.insert(name.to_owned(), decode(value, depth + 1)?);
                }
            }
            Value::Object(object)
        }
        _ => json!(text),
    })
}

/// The value of an answer, or the text of its fault.
fn response(xml: &str) -> Result<Value, String> {
    let document = Document::parse(xml).map_err(|e| format!("cannot decode the answer: {e}"))?;
    let first = document.root_element().descendants().find(|n| n.tag_name().name() == "value");
    let decoded = decode(first.ok_or("the answer has no value")?, 0)?;
    if document.root_element().children().any(|n| n.tag_name().name() == "fault") {
        return Err(Fields(&decoded).text("/faultString"));
    }
    Ok(decoded)
}

impl Refresher for UyuniDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let targets = self.targets().await.inspect_err(|_| self.session = None)?;
        let source = self.rest.base().to_owned();
        Ok(vec![TargetGroup { source, targets, labels: LabelMap::new() }])
    }
}
