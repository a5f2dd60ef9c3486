//! What does a rule file hold? Groups of recording and alerting rules with their places in the file. Whether an
//! expression or template is valid is asked of the caller, since this room knows neither language.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::ConfigErrors;
use super::values::PromDuration;
use super::yaml::section::section;
use super::yaml::{Context, Node, NodeKind, Position};
use crate::model::METRIC_NAME;
use crate::model::relabel::NameScheme;

/// How a rule file is read and checked.
#[derive(Clone, Copy)]
pub struct RuleOptions<'a> {
    /// Which names are valid.
    pub scheme: NameScheme,
    /// Accept fields that nobody knows.
    pub ignore_unknown_fields: bool,
    /// Says what is wrong with an expression.
    pub check_expr: &'a dyn Fn(&str) -> Result<(), String>,
    /// Says what is wrong with a template of a label or annotation.
    pub check_template: &'a dyn Fn(&str) -> Result<(), String>,
}

impl Default for RuleOptions<'_> {
    fn default() -> Self {
        Self {
            scheme: NameScheme::Utf8,
            ignore_unknown_fields: false,
            check_expr: &|_| Ok(()),
            check_template: &|_| Ok(()),
        }
    }
}

section! {
    /// A rule: recording if `record` is set, alerting if `alert` is.
    pub struct Rule("rule") {
        /// Name of the series that a recording rule writes.
        record: String,
        /// Name of the alert.
        alert: String,
        /// The PromQL expression.
        expr: String; always,
        /// How long the expression must hold before the alert fires.
        for_duration as "for": PromDuration,
        /// How long the alert keeps firing after the expression has ceased to hold.
        keep_firing_for: PromDuration,
        /// Labels to add; templates for alerts.
        labels: BTreeMap<String, String>,
        /// Annotations of an alert, templates.
        annotations: BTreeMap<String, String>,
        /// Where the rule stands in its file.
        at: Position; aside,
        /// Where its expression stands.
        expr_at: Position; aside,
    }
}

impl Rule {
    /// Name of the series or alert.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.alert.is_empty() { &self.record } else { &self.alert }
    }
}

/// A position in a file that is not printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place(pub Position);

impl super::yaml::ToYaml for Place {
    fn to_value(&self) -> super::yaml::Value {
        super::yaml::Value::Null
    }
    fn is_empty(&self) -> bool {
        true
    }
}

section! {
    /// A group of rules that are evaluated one after the other.
    pub struct RuleGroup("rule group") {
        /// Name, unique in the file.
        name: String; always,
        /// How often; the global interval when not given.
        interval: PromDuration,
        /// How far back the rules look; the global offset when not given.
        query_offset: Option<PromDuration>,
        /// Most series or alerts of a rule; 0 is no limit.
        limit: i64,
        /// Labels of all rules; those of a rule win.
        labels: BTreeMap<String, String>,
        /// The rules in order.
        rules: Vec<Rule>; always,
    }
}

section! {
    /// A rule file.
    pub struct RuleFile("rule file") {
        /// The groups in order.
        groups: Vec<RuleGroup>; always,
        /// Remarks that did not refuse the file.
        warnings: Vec<String>; aside,
    }
}

impl RuleFile {
    /// Reads a file.
    pub fn load(path: &Path, options: &RuleOptions<'_>) -> Result<Self, ConfigErrors> {
        Self::parse(&super::load::read_file(path)?, path, options)
    }

    /// Reads text as if it stood in `origin`.
    pub fn parse(text: &str, origin: &Path, options: &RuleOptions<'_>) -> Result<Self, ConfigErrors> {
        use super::yaml::FromYaml as _;
        let mut cx = Context::new(&origin.display().to_string(), Path::new(""), text);
        cx.ignore_unknown_fields(options.ignore_unknown_fields);
        let document = cx.document();
        if let Some(at) = document.second_document {
            cx.warnings.push(format!(
                "{}:{}: only the first YAML document counts, what follows is ignored",
                origin.display(),
                at.line
            ));
        }
        let root = document.root;
        let mut file = Self::from_yaml(&root, &mut cx).unwrap_or_default();
        check_file(&mut file, &root, options, &mut cx);
        file.warnings = cx.finish()?;
        Ok(file)
    }
}

fn check_file(file: &mut RuleFile, root: &Node, options: &RuleOptions<'_>, cx: &mut Context) {
    let null = Node::null(root.at);
    let groups = root.get("groups").unwrap_or(&null);
    let mut names = HashSet::new();
    // Nodes and values go in step because groups that are null or do not decode are left out of both.
    let nodes = groups.items().iter().filter(|n| matches!(n.kind, NodeKind::Mapping(_)));
    for (group, node) in file.groups.iter_mut().zip(nodes) {
        if group.name.is_empty() {
            cx.error(node.place_of("name"), "Groupname must not be empty");
        }
        if !names.insert(group.name.clone()) {
            let message = format!("groupname: {:?} is repeated in the same file", group.name);
            cx.error(node.place_of("name"), message);
        }
        let prefix = format!("group {:?}", group.name);
        check_labels(&group.labels, node, &prefix, options.scheme, cx);
        let rules = node.get("rules").unwrap_or(&null).items();
        let nodes = rules.iter().filter(|n| matches!(n.kind, NodeKind::Mapping(_)));
        for (number, (rule, node)) in group.rules.iter_mut().zip(nodes).enumerate() {
            rule.at = node.at;
            rule.expr_at = node.place_of("expr");
            let prefix = format!("{prefix}, rule {}, {:?}", number + 1, rule.name());
            check_rule(rule, node, &prefix, options, cx);
        }
    }
}

fn check_rule(rule: &Rule, node: &Node, prefix: &str, options: &RuleOptions<'_>, cx: &mut Context) {
    let mut fault =
        |field: &str, message: &str| cx.error(node.place_of(field), format!("{prefix}: {message}"));
    let is_record = !rule.record.is_empty();
    if is_record && !rule.alert.is_empty() {
        fault("alert", "only one of 'record' and 'alert' must be set");
    }
    if !is_record && rule.alert.is_empty() {
        fault("record", "one of 'record' or 'alert' must be set");
    }
    if rule.expr.is_empty() {
        fault("expr", "field 'expr' must be set in rule");
    } else if let Err(message) = (options.check_expr)(&rule.expr) {
        fault("expr", &format!("could not parse expression: {message}"));
    }
    if is_record {
        if !rule.annotations.is_empty() {
            fault("annotations", "invalid field 'annotations' in recording rule");
        }
        if !rule.for_duration.is_zero() {
            fault("for", "invalid field 'for' in recording rule");
        }
        if !rule.keep_firing_for.is_zero() {
            fault("keep_firing_for", "invalid field 'keep_firing_for' in recording rule");
        }
        if !options.scheme.is_valid_metric_name(&rule.record) {
            fault("record", &format!("invalid recording rule name: {}", rule.record));
        }
        if rule.record.contains(['{', '}']) {
            let message =
                format!("braces present in the recording rule name; should it be in expr?: {}", rule.record);
            fault("record", &message);
        }
    }
    let alerting = !rule.alert.is_empty();
    check_labels(&rule.labels, node, prefix, options.scheme, cx);
    for name in rule.annotations.keys() {
        if !options.scheme.is_valid_label_name(name) {
            let at = node.get("annotations").map_or(node.at, |n| n.at);
            cx.error(at, format!("{prefix}: invalid annotation name: {name}"));
        }
    }
    if alerting {
        for (field, kind, map) in
            [("labels", "label", &rule.labels), ("annotations", "annotation", &rule.annotations)]
        {
            for (name, template) in map {
                if let Err(message) = (options.check_template)(template) {
                    let at = node.get(field).map_or(node.at, |n| n.place_of(name));
                    cx.error(at, format!("{prefix}: {kind} {name:?}: {message}"));
                }
            }
        }
    }
}

fn check_labels(
    labels: &BTreeMap<String, String>,
    node: &Node,
    prefix: &str,
    scheme: NameScheme,
    cx: &mut Context,
) {
    for name in labels.keys() {
        if !scheme.is_valid_label_name(name) || name == METRIC_NAME {
            let at = node.get("labels").map_or(node.at, |n| n.place_of(name));
            cx.error(at, format!("{prefix}: invalid label name: {name}"));
        }
    }
}
