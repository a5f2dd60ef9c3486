//! How are AWS's services asked? By signed requests: the older ones take a form and answer in XML, the newer ones
//! speak JSON. All answers become JSON here.

use std::sync::Arc;

use http::{Method, StatusCode};
use roxmltree::{Document, Node};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::rest::Rest;
use crate::config::HttpClientConfig;
use crate::net::cloud::{AwsAccess, AwsSigner, Environment};

/// Pages of an answer that are read at most.
pub(super) const MAX_PAGES: usize = 10_000;
/// Depth of an XML answer.
const MAX_DEPTH: usize = 64;

/// A client of one service in one region.
pub(super) struct AwsClient {
    signer: Arc<AwsSigner>,
    rest: Rest,
    /// The service's name in host names.
    host: &'static str,
    /// Whether the address is known; without one in the configuration it depends on the region.
    located: bool,
}

/// What all AWS sections have in common.
pub(super) struct AwsSection<'a> {
    /// Region, keys, profile and role.
    pub(super) access: AwsAccess,
    /// Address of the service; that of the region when empty.
    pub(super) endpoint: &'a str,
    /// TLS, proxy.
    pub(super) http: &'a HttpClientConfig,
}

/// Takes the common fields of a section.
macro_rules! aws_section {
    ($config:expr) => {
        $crate::scrape::discovery::aws::AwsSection {
            access: $crate::net::cloud::AwsAccess {
                region: $config.region.clone(),
                access_key: $config.access_key.clone(),
                secret_key: $config.secret_key.clone(),
                profile: $config.profile.clone(),
                role_arn: $config.role_arn.clone(),
                external_id: $config.external_id.clone(),
                fips: false,
            },
            endpoint: &$config.endpoint,
            http: &$config.http,
        }
    };
}
pub(super) use aws_section;

impl AwsClient {
    /// A client for the service that is called `service` in signatures and `host` in host names.
    pub(super) fn new(
        section: &AwsSection<'_>,
        service: &'static str,
        host: &'static str,
    ) -> Result<Self, String> {
        let signer = AwsSigner::new(section.access.clone(), service, Environment::Process);
        let signer = Arc::new(signer.map_err(|e| e.to_string())?);
        let authenticator: Arc<dyn crate::net::cloud::Authenticator> = Arc::clone(&signer) as _;
        let base = if section.endpoint.is_empty() || section.endpoint.contains("://") {
            section.endpoint.to_owned()
        } else {
            format!("https://{}", section.endpoint)
        };
        let rest = Rest::with(section.http, &base, Some(authenticator))?;
        Ok(Self { signer, rest, host, located: !base.is_empty() })
    }

    /// The region of this client.
    pub(super) async fn region(&self) -> Result<Arc<str>, String> {
        self.signer.region().await.map_err(|e| e.to_string())
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
        what: &str,
    ) -> Result<&[u8], String> {
        if !self.located {
            let base = self.signer.endpoint(self.host).await.map_err(|e| e.to_string())?;
            self.rest.set_base(&base);
            self.located = true;
        }
        let signer = Arc::clone(&self.signer);
        let (status, answer, _) = self.rest.send(method, path, headers, body).await?;
        if !status.is_success() {
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                signer.forget().await;
            }
            return Err(format!("{what} answered with status {status}{}", reason(answer)));
        }
        Ok(answer)
    }

    /// A call with a form, answered in XML. `pairs` name the action and its version among others.
    pub(super) async fn form(&mut self, pairs: &[(String, String)]) -> Result<Value, String> {
        let what = pairs.first().map(|(_, action)| action.clone()).unwrap_or_default();
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let answer = self.send(Method::POST, "/", &headers, body.into_bytes(), &what).await?;
        xml(&String::from_utf8_lossy(answer)).map_err(|e| format!("{what}: {e}"))
    }

    /// A call whose name stands in a header, with JSON both ways.
    pub(super) async fn target(&mut self, target: &str, body: &Value) -> Result<Value, String> {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let body = body.to_string().into_bytes();
        let answer = self.send(Method::POST, "/", &headers, body, target).await?;
        serde_json::from_slice(answer).map_err(|e| format!("cannot decode the answer of {target}: {e}"))
    }

    /// A `GET` answered in JSON.
    pub(super) async fn get(&mut self, path: &str) -> Result<Value, String> {
        let what = path.split('?').next().unwrap_or_default().to_owned();
        let answer = self.send(Method::GET, path, &[], Vec::new(), &what).await?;
        serde_json::from_slice(answer).map_err(|e| format!("cannot decode the answer of {what}: {e}"))
    }
}

/// Why AWS refused, from either kind of answer.
fn reason(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let found = match Document::parse(&text) {
        Ok(document) => {
            let of = |name: &str| document.descendants().find(|n| n.tag_name().name() == name);
            let text = |name| of(name).and_then(|n| n.text()).unwrap_or_default().to_owned();
            format!("{} {}", text("Code"), text("Message"))
        }
        Err(_) => {
            let json: Value = serde_json::from_str(&text).unwrap_or_default();
            let fields = Fields(&json);
            let message = fields.some("/message").unwrap_or_else(|| fields.text("/Message"));
            format!("{} {message}", fields.text("/__type"))
        }
    };
    match found.trim() {
        "" => String::new(),
        found => format!(": {}", found.chars().take(300).collect::<String>()),
    }
}

/// An XML answer as JSON: elements with nothing but items in them become lists, others objects, those without children
/// texts.
fn xml(text: &str) -> Result<Value, String> {
    let document = Document::parse(text).map_err(|e| format!("cannot decode the answer: {e}"))?;
    convert(document.root_element(), 0)
}

/// Whether a child is an item of a list: `item` and `member` always are, as `Tag` in `TagList` and `CacheNode` in
/// `CacheNodes`.
fn is_item(parent: &str, child: &str) -> bool {
    matches!(child, "item" | "member")
        || parent.strip_suffix('s') == Some(child)
        || parent.strip_suffix("List") == Some(child)
}

fn convert(node: Node<'_, '_>, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("the answer is nested too deeply".into());
    }
    let children: Vec<Node<'_, '_>> = node.children().filter(Node::is_element).collect();
    if children.is_empty() {
        return Ok(node.text().map_or(Value::Null, Value::from));
    }
    let name = node.tag_name().name();
    if children.iter().all(|child| is_item(name, child.tag_name().name())) {
        return children
            .into_iter()
            .map(|c| convert(c, depth + 1))
            .collect::<Result<_, _>>()
            .map(Value::Array);
    }
    let mut object = Map::new();
    for child in children {
        object.insert(child.tag_name().name().to_owned(), convert(child, depth + 1)?);
    }
    Ok(Value::Object(object))
}

/// Key and value of each entry of a list of tags.
pub(super) fn tags(of: Fields<'_>, list: &str, key: &str, value: &str) -> Vec<(String, String)> {
    let pair = |tag: Fields<'_>| Some((tag.some(key)?, tag.some(value).unwrap_or_default()));
    of.items(list).filter_map(pair).collect()
}

/// `CacheNodeType` as `cache_node_type`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 8);
    for (i, letter) in letters.iter().enumerate() {
        let before_lower = letters.get(i + 1).is_some_and(|c| c.is_lowercase());
        let after_lower = i > 0 && !letters[i - 1].is_uppercase();
        if letter.is_uppercase() && i > 0 && (after_lower || before_lower) {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// All plain members of an object as pairs of label and value: names in small letters with underscores unless `renamed`
/// says otherwise, times without fractions of a second.
pub(super) fn plain_members<'a>(
    of: Fields<'a>,
    renamed: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (String, String)> + use<'a> {
    of.members("").filter_map(move |(name, value)| {
        let value = value.some("").filter(|v| !v.is_empty())?;
        let other = renamed.iter().find(|(from, _)| *from == name);
        let label = other.map_or_else(|| snake_case(name), |(_, to)| (*to).to_owned());
        let whole = value.split_once('.').filter(|(start, end)| start.contains('T') && end.ends_with('Z'));
        Some((label, whole.map_or(value.clone(), |(start, _)| format!("{start}Z"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_xml_become_json() {
        let text = "<R xmlns='x'><reservationSet><item><id>1</id><instancesSet><item><tagSet/></item></instancesSet></item>\
                    </reservationSet><TagList><Tag><Key>k</Key></Tag></TagList><nextToken>n</nextToken></R>";
        let value = xml(text).expect("valid");
        let fields = Fields(&value);
        assert_eq!(fields.items("/reservationSet").count(), 1);
        assert_eq!(fields.text("/reservationSet/0/id"), "1");
        assert_eq!(fields.items("/reservationSet/0/instancesSet").count(), 1);
        assert_eq!(tags(fields, "/TagList", "/Key", "/Value"), [("k".to_owned(), String::new())]);
        assert_eq!(fields.text("/nextToken"), "n");
    }

    #[test]
    fn names_are_split_at_capitals() {
        for (name, want) in [
            ("CacheNodeType", "cache_node_type"),
            ("DBInstanceClass", "db_instance_class"),
            ("PerformanceInsightsKMSKeyId", "performance_insights_kms_key_id"),
            ("ServerlessV2PlatformVersion", "serverless_v2_platform_version"),
            ("MultiAZ", "multi_az"),
            ("ARN", "arn"),
        ] {
            assert_eq!(snake_case(name), want);
        }
    }
}
