//! How does a relabelling rule read from YAML? Into [`RelabelRule`], compiled; [`check_rules`] then applies the
//! checks that depend on the naming scheme.

use super::yaml::{Context, FromYaml, Node, NodeKind, ToYaml, Value};
use crate::model::regex::AnchoredRegex;
use crate::model::relabel::{
    Action, DEFAULT_REGEX, DEFAULT_REPLACEMENT, DEFAULT_SEPARATOR, NameScheme, RelabelRule,
};

/// A rule as it stands in a configuration; the compiled rule holds all of it.
pub type RelabelConfig = RelabelRule;

const FIELDS: [&str; 7] =
    ["source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action"];

impl FromYaml for RelabelRule {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let NodeKind::Mapping(entries) = &node.kind else {
            cx.mismatch(node, "relabel_config");
            return None;
        };
        let mut source_labels: Vec<String> = Vec::new();
        let mut separator = DEFAULT_SEPARATOR.to_owned();
        let mut regex = DEFAULT_REGEX.to_owned();
        let mut modulus = 0u64;
        let mut target_label = String::new();
        let mut replacement = DEFAULT_REPLACEMENT.to_owned();
        let mut action = Action::Replace;
        for (key, value) in entries {
            match key.text().unwrap_or_default() {
                "source_labels" => {
                    cx.decode_into(&mut source_labels, value);
                    if source_labels.iter().any(String::is_empty) {
                        cx.error(value.at, "\"\" is not a valid label name");
                    }
                }
                "separator" => cx.decode_into(&mut separator, value),
                // A null is the empty expression, not the default one.
                "regex" if value.is_null() => regex.clear(),
                "regex" => cx.decode_into(&mut regex, value),
                "modulus" => cx.decode_into(&mut modulus, value),
                "target_label" => cx.decode_into(&mut target_label, value),
                "replacement" => cx.decode_into(&mut replacement, value),
                "action" => {
                    let mut text = action.as_str().to_owned();
                    cx.decode_into(&mut text, value);
                    match Action::parse(&text) {
                        Ok(known) => action = known,
                        Err(message) => cx.error(value.at, message),
                    }
                }
                _ => cx.unknown_field(key, "relabel_config", &FIELDS),
            }
        }
        match AnchoredRegex::new(&regex) {
            Ok(regex) => Some(Self {
                source_labels,
                separator,
                regex,
                modulus,
                target_label,
                replacement,
                action,
                scheme: NameScheme::Utf8,
            }),
            Err(e) => {
                cx.error(node.place_of("regex"), e.to_string());
                None
            }
        }
    }
}

impl ToYaml for RelabelRule {
    fn to_value(&self) -> Value {
        let mut out = Vec::new();
        let mut push = |key: &str, value: Value| out.push((key.to_owned(), value));
        if !self.source_labels.is_empty() {
            push("source_labels", Value::Flow(self.source_labels.clone()));
        }
        push("separator", self.separator.to_value());
        if !self.has_default_regex() {
            push("regex", Value::Text(self.regex.pattern().into()));
        }
        if self.modulus != 0 {
            push("modulus", self.modulus.to_value());
        }
        if !self.target_label.is_empty() {
            push("target_label", self.target_label.to_value());
        }
        push("replacement", self.replacement.to_value());
        push("action", Value::Text(self.action.as_str().into()));
        Value::Map(out)
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Gives the rules under `key` of `parent` their naming scheme and checks them; null items are errors that say
/// "empty or null `what`".
pub fn check_rules(
    rules: &mut [RelabelRule],
    scheme: NameScheme,
    parent: &Node,
    key: &str,
    what: &str,
    cx: &mut Context,
) {
    cx.no_nulls(parent, key, &format!("empty or null {what}"));
    let list = parent.get(key);
    let items: Vec<&Node> = list.map_or(&[][..], Node::items).iter().filter(|i| !i.is_null()).collect();
    // A rule that did not decode is missing; then positions cannot be told apart and the list has to do.
    let exact = items.len() == rules.len();
    for (i, rule) in rules.iter_mut().enumerate() {
        rule.scheme = scheme;
        if let Err(message) = rule.validate() {
            let at = if exact { items[i].at } else { list.map_or(parent.at, |l| l.at) };
            cx.error(at, message);
        }
    }
}

/// Reads a list of rules that stands alone, as in a test case.
pub fn parse_rules(text: &str, scheme: NameScheme) -> Result<Vec<RelabelRule>, super::ConfigErrors> {
    let mut cx = Context::new("", std::path::Path::new(""), text);
    let list = cx.document().root;
    let mut rules = Vec::<RelabelRule>::from_yaml(&list, &mut cx).unwrap_or_default();
    let at = list.at;
    let key = Node { at, kind: NodeKind::Scalar { text: "rules".into(), plain: true, invalid_utf8: false } };
    let parent = Node { at, kind: NodeKind::Mapping(vec![(key, list)]) };
    check_rules(&mut rules, scheme, &parent, "rules", "relabeling rule", &mut cx);
    cx.finish().map(|_| rules)
}
