//! What is valid in a rule file but most likely not meant? Labels that a template asks for and the expression cannot
//! return, and waits that are shorter than one evaluation interval.

use std::collections::BTreeSet;

use crate::config::RuleFile;
use crate::query::parse::ast::{AggregateOp, Expr};
use crate::query::parse::{ParseOptions, parse_expr};

/// Functions whose result has the labels of their first vector.
const KEEPING: [&str; 34] = [
    "abs",
    "ceil",
    "floor",
    "round",
    "clamp",
    "clamp_min",
    "clamp_max",
    "exp",
    "ln",
    "log2",
    "log10",
    "sqrt",
    "sgn",
    "sort",
    "sort_desc",
    "rate",
    "irate",
    "increase",
    "delta",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "present_over_time",
    "predict_linear",
    "timestamp",
];

/// Templates that use a label which the expression's aggregation removes: rule by rule, in words.
#[must_use]
pub fn missing_labels(file: &RuleFile, parse: &ParseOptions) -> Vec<String> {
    let mut out = Vec::new();
    for group in &file.groups {
        for rule in group.rules.iter().filter(|rule| !rule.alert.is_empty()) {
            let Ok(expr) = parse_expr(&rule.expr, parse) else { continue };
            let Some(labels) = output_labels(&expr) else { continue };
            let texts = rule.labels.values().chain(rule.annotations.values());
            let used: BTreeSet<&str> = texts.flat_map(|text| used_labels(text)).collect();
            for name in used.into_iter().filter(|name| !labels.contains(*name)) {
                out.push(format!(
                    "group {:?}, alert {:?}: a template uses the label {name:?}, which the expression does not return",
                    group.name, rule.alert
                ));
            }
        }
    }
    out
}

/// Alerts whose `for` or `keep_firing_for` is shorter than the distance of evaluations: it changes nothing.
#[must_use]
pub fn unused_for(file: &RuleFile) -> Vec<String> {
    let mut out = Vec::new();
    for group in file.groups.iter().filter(|group| group.interval.0 > 0) {
        for rule in &group.rules {
            for (field, wait) in [("for", rule.for_duration), ("keep_firing_for", rule.keep_firing_for)] {
                if wait.0 > 0 && wait.0 < group.interval.0 {
                    out.push(format!(
                        "group {:?}, alert {:?}: {field} {wait} is shorter than the interval {} and has the effect of one",
                        group.name, rule.alert, group.interval
                    ));
                }
            }
        }
    }
    out
}

/// The labels that a result can have at most; `None` if that depends on the series.
fn output_labels(expr: &Expr) -> Option<BTreeSet<String>> {
    match expr {
        Expr::Paren(e) => output_labels(&e.expr),
        Expr::Unary(e) => output_labels(&e.expr),
        Expr::Subquery(e) => output_labels(&e.expr),
        Expr::Aggregate(e) => match e.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                output_labels(&e.expr)
            }
            AggregateOp::CountValues => None,
            _ if e.without => output_labels(&e.expr)
                .map(|all| all.into_iter().filter(|l| !e.grouping.iter().any(|g| **g == **l)).collect()),
            _ => Some(e.grouping.iter().map(|l| (**l).to_owned()).collect()),
        },
        Expr::Call(e) if KEEPING.contains(&e.func) => e.args.first().and_then(output_labels),
        Expr::Binary(e) => match &e.matching {
            // With a number, the vector's labels stay.
            None => output_labels(&e.lhs).or_else(|| output_labels(&e.rhs)),
            Some(_) => None,
        },
        _ => None,
    }
}

/// Names behind `$labels.` in the actions of a template.
fn used_labels(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("$labels.").filter_map(|(at, found)| {
        let rest = &text[at + found.len()..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::alert::load::{RuleFileOptions, check_rule_text};

    #[test]
    fn suspicious_rules_are_named() {
        for (expr, wait, missing, unused) in [
            ("sum by (job) (up) == 0", "5m", 1, 0),
            ("sum by (job, instance) (up) == 0", "1m", 0, 0),
            ("up == 0", "30s", 0, 1),
            ("abs(max without (instance) (sum by (job, instance) (up)))", "5m", 1, 0),
            ("sum(up) / on() sum(up)", "5m", 0, 0),
            ("3 < topk(2, count by (job) (up))", "5m", 1, 0),
            ("label_replace(sum by (job) (up), \"instance\", \"x\", \"\", \"\")", "5m", 0, 0),
        ] {
            let text = format!(
                "groups: [{{name: g, interval: 1m, rules: [{{alert: A, expr: '{expr}', for: {wait}, \
                 annotations: {{a: '{{{{ $labels.instance }}}} {{{{ $labels.job }}}}'}}}}]}}]"
            );
            let file =
                check_rule_text(&text, Path::new("f"), &RuleFileOptions::default()).expect("valid rules");
            let found = (missing_labels(&file, &ParseOptions::default()).len(), unused_for(&file).len());
            assert_eq!(found, (missing, unused), "{expr}");
        }
    }
}
