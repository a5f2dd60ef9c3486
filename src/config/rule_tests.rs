//! What does a file of rule unit tests hold? The format of `promtool test rules`.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigErrors;
use super::values::PromDuration;
use super::yaml::section::section;
use super::yaml::{Context, FromYaml, Node, NodeKind, Position, ToYaml, Value};

/// A moment in milliseconds since the Unix epoch, written as Unix seconds or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TestTime(pub i64);

impl FromYaml for TestTime {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = String::from_yaml(node, cx)?;
        let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite()).map(|s| (s * 1000.0).round() as i64);
        let rfc3339 = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
        match seconds.or_else(rfc3339) {
            Some(ms) => Some(Self(ms)),
            None => {
                cx.error(node.at, format!("cannot parse {text:?} as Unix seconds or RFC 3339 time"));
                None
            }
        }
    }
}

impl ToYaml for TestTime {
    fn to_value(&self) -> Value {
        Value::Null
    }
    fn is_empty(&self) -> bool {
        true
    }
}

section! {
    /// A series to load.
    pub struct InputSeries("input series") {
        /// Metric, in the notation of series.
        series: String; always,
        /// Values, in the notation of series.
        values: String; always,
    }
}

section! {
    /// An alert that must fire.
    pub struct ExpectedAlert("expected alert") {
        /// Labels besides `alertname`.
        exp_labels: BTreeMap<String, String>,
        /// Annotations.
        exp_annotations: BTreeMap<String, String>,
    }
}

section! {
    /// Which alerts of a name fire at a time.
    pub struct AlertCase("alert rule test") {
        /// When, from the start.
        eval_time: PromDuration,
        /// Name of the alert.
        alertname: String,
        /// All alerts of that name that fire.
        exp_alerts: Vec<ExpectedAlert>,
        /// Where it stands.
        at: Position; aside,
    }
}

section! {
    /// A sample that must come out.
    pub struct ExpectedSample("expected sample") {
        /// Labels, as a metric.
        labels: String,
        /// Its number.
        value: f64,
        /// Its histogram, in the notation of series.
        histogram: String,
    }
}

section! {
    /// What an expression gives at a time.
    pub struct ExprCase("PromQL expression test") {
        /// The expression.
        expr: String,
        /// When, from the start.
        eval_time: PromDuration,
        /// All samples that come out.
        exp_samples: Vec<ExpectedSample>,
        /// Where it stands.
        at: Position; aside,
    }
}

section! {
    /// A group of cases with a storage of its own.
    pub struct TestGroup("test group") {
        /// Name.
        name: String,
        /// Distance of the input samples; the evaluation interval when not given.
        interval: PromDuration,
        /// What is stored.
        input_series: Vec<InputSeries>,
        /// Time of the first sample.
        start_timestamp: TestTime,
        /// `global.external_labels` for templates.
        external_labels: BTreeMap<String, String>,
        /// `--web.external-url` for templates.
        external_url: String,
        /// Alerts.
        alert_rule_test: Vec<AlertCase>,
        /// Expressions.
        promql_expr_test: Vec<ExprCase>,
        /// Where it stands.
        at: Position; aside,
    }
}

section! {
    /// A file of rule unit tests.
    pub struct RuleTestFile("rule test file") {
        /// Rule files, relative to this one, patterns allowed.
        rule_files: Vec<String>,
        /// Distance of evaluations.
        evaluation_interval: PromDuration = PromDuration::seconds(60),
        /// Names of the groups to evaluate first, in this order.
        group_eval_order: Vec<String>,
        /// Values one unit in the last place apart are equal.
        fuzzy_compare: bool,
        /// The groups.
        tests: Vec<TestGroup>,
    }
}

impl RuleTestFile {
    /// Reads a file.
    pub fn load(path: &Path, ignore_unknown_fields: bool) -> Result<Self, ConfigErrors> {
        let text = super::load::read_file(path)?;
        let mut cx = Context::new(&path.display().to_string(), Path::new(""), &text);
        cx.ignore_unknown_fields(ignore_unknown_fields);
        let root = cx.document().root;
        let mut file = Self::from_yaml(&root, &mut cx).unwrap_or_default();
        if file.evaluation_interval.is_zero() {
            file.evaluation_interval = PromDuration::seconds(60);
        }
        let interval = file.evaluation_interval;
        let groups = root.get("tests").map_or(&[][..], Node::items);
        for (group, node) in file.tests.iter_mut().zip(groups.iter().filter(|n| !n.is_null())) {
            group.at = node.at;
            if group.interval.is_zero() {
                group.interval = interval;
            }
            let place = |key: &str, i: usize| match node.get(key).map(|n| &n.kind) {
                Some(NodeKind::Sequence(items)) => items.get(i).map_or(node.at, |item| item.at),
                _ => node.at,
            };
            for (i, case) in group.alert_rule_test.iter_mut().enumerate() {
                case.at = place("alert_rule_test", i);
                if case.alertname.is_empty() {
                    cx.error(case.at, "an item under alert_rule_test misses required attribute alertname");
                }
            }
            for (i, case) in group.promql_expr_test.iter_mut().enumerate() {
                case.at = place("promql_expr_test", i);
            }
        }
        cx.finish()?;
        Ok(file)
    }
}
