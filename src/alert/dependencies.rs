//! Which rules of a group may be evaluated at the same time? Those of which none reads or writes what another
//! writes. Rules are put into stages; the stages run one after the other, and within a stage order cannot change a
//! result. Prometheus asks the same question but stops at the first rule it cannot judge; here such a rule only
//! waits for the ones before it and holds up the ones behind it.

use std::collections::HashMap;

use super::alerting::{ALERTS_FOR_STATE_METRIC, ALERTS_METRIC};
use super::group::RuleKind;
use crate::model::{METRIC_NAME, MatchOp, Matcher};
use crate::query::parse::ast::Expr;
use crate::query::parse::{ParseOptions, parse_expr};

/// What a rule reads.
enum Reads {
    /// Series that satisfy one of these.
    Selectors(Vec<Vec<Matcher>>),
    /// It cannot be told: a selector without a metric name, or queries made by a template.
    Anything,
}

/// The stage of each rule's last use, by what it used.
#[derive(Default)]
struct Ledger {
    /// Recorded metrics.
    recorded: HashMap<String, usize>,
    /// Alerts by `alertname`.
    alerts: HashMap<String, usize>,
    /// Selectors that name one metric.
    read_by_name: HashMap<String, Vec<(Vec<Matcher>, usize)>>,
    /// Selectors that name several metrics.
    read_by_pattern: Vec<(Vec<Matcher>, usize)>,
    /// Last rule that writes anything, and last one that reads anything.
    last_write: Option<usize>,
    last_read_of_anything: Option<usize>,
}

/// Positions of rules by stage. Each rule is in exactly one stage; within a stage positions ascend.
#[must_use]
pub fn stages(rules: &[&RuleKind]) -> Vec<Vec<usize>> {
    let mut ledger = Ledger::default();
    let mut stages: Vec<Vec<usize>> = Vec::new();
    for (position, rule) in rules.iter().enumerate() {
        let reads = reads_of(rule);
        let stage = ledger.earliest(rule, &reads);
        ledger.note(rule, reads, stage);
        if stages.len() <= stage {
            stages.resize_with(stage + 1, Vec::new);
        }
        stages[stage].push(position);
    }
    stages
}

impl Ledger {
    /// The first stage behind all rules that `rule` must not overtake.
    fn earliest(&self, rule: &RuleKind, reads: &Reads) -> usize {
        let mut last = self.last_read_of_anything;
        match reads {
            Reads::Anything => last = last.max(self.last_write),
            Reads::Selectors(sets) => {
                for set in sets {
                    last = last.max(self.last_writer(set));
                }
            }
        }
        match rule {
            RuleKind::Recording(spec) => {
                last = last.max(self.recorded.get(&spec.name).copied());
                last = last.max(self.last_reader(&spec.name, None));
            }
            RuleKind::Alerting(alerting) => {
                let name = &alerting.spec.name;
                last = last.max(self.alerts.get(name).copied());
                for metric in [ALERTS_METRIC, ALERTS_FOR_STATE_METRIC] {
                    last = last.max(self.recorded.get(metric).copied());
                    last = last.max(self.last_reader(metric, Some(name)));
                }
            }
        }
        last.map_or(0, |stage| stage + 1)
    }

    fn note(&mut self, rule: &RuleKind, reads: Reads, stage: usize) {
        self.last_write = self.last_write.max(Some(stage));
        match reads {
            Reads::Anything => self.last_read_of_anything = self.last_read_of_anything.max(Some(stage)),
            Reads::Selectors(sets) => {
                for set in sets {
                    match exact_name(&set) {
                        Some(name) => {
                            self.read_by_name.entry(name.to_owned()).or_default().push((set, stage))
                        }
                        None => self.read_by_pattern.push((set, stage)),
                    }
                }
            }
        }
        let (table, name) = match rule {
            RuleKind::Recording(spec) => (&mut self.recorded, &spec.name),
            RuleKind::Alerting(alerting) => (&mut self.alerts, &alerting.spec.name),
        };
        let last = table.entry(name.clone()).or_insert(stage);
        *last = stage.max(*last);
    }

    /// The last stage that writes something that satisfies `set`.
    fn last_writer(&self, set: &[Matcher]) -> Option<usize> {
        let recorded = match exact_name(set) {
            Some(name) => self.recorded.get(name).copied(),
            None => {
                let written = self.recorded.iter().filter(|(metric, _)| may_select(set, metric, None));
                written.map(|(_, stage)| *stage).max()
            }
        };
        let alerts = if [ALERTS_METRIC, ALERTS_FOR_STATE_METRIC].iter().any(|m| may_select(set, m, None)) {
            let told = self.alerts.iter().filter(|(alert, _)| {
                may_select(set, ALERTS_METRIC, Some(alert))
                    || may_select(set, ALERTS_FOR_STATE_METRIC, Some(alert))
            });
            told.map(|(_, stage)| *stage).max()
        } else {
            None
        };
        recorded.max(alerts)
    }

    /// The last stage that reads `metric`, if it has this `alertname`.
    fn last_reader(&self, metric: &str, alert: Option<&str>) -> Option<usize> {
        let named = self.read_by_name.get(metric).into_iter().flatten();
        let reading = named.chain(&self.read_by_pattern).filter(|(set, _)| may_select(set, metric, alert));
        reading.map(|(_, stage)| *stage).max()
    }
}

fn exact_name(set: &[Matcher]) -> Option<&str> {
    set.iter().find(|m| *m.name == *METRIC_NAME && m.op == MatchOp::Equal).map(|m| &*m.value)
}

/// Whether `set` can select series of this name, and of this alert if one is given. Other labels come from data.
fn may_select(set: &[Matcher], metric: &str, alert: Option<&str>) -> bool {
    set.iter().all(|m| match (&*m.name, alert) {
        (METRIC_NAME, _) => m.matches(metric),
        ("alertname", Some(alert)) => m.matches(alert),
        _ => true,
    })
}

fn reads_of(rule: &RuleKind) -> Reads {
    let expr = match rule {
        RuleKind::Recording(spec) => &spec.expr,
        RuleKind::Alerting(alerting) => {
            let mut texts = alerting.spec.labels.values().chain(alerting.spec.annotations.values());
            if texts.any(|text| text.contains("{{") && text.contains("query")) {
                return Reads::Anything;
            }
            &alerting.spec.expr
        }
    };
    // Every language feature is allowed here: whether the engine takes the expression is its own business.
    let allowed =
        ParseOptions { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true };
    let Ok(root) = parse_expr(expr, &allowed) else { return Reads::Anything };
    let mut sets = Vec::new();
    let mut pending = vec![&root];
    while let Some(expr) = pending.pop() {
        let selector = match expr {
            Expr::Vector(selector) => selector,
            Expr::Matrix(matrix) => &matrix.selector,
            other => {
                pending.extend(children(other));
                continue;
            }
        };
        if !selector.matchers.iter().any(|m| *m.name == *METRIC_NAME) {
            return Reads::Anything;
        }
        sets.push(selector.matchers.clone());
    }
    Reads::Selectors(sets)
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => Vec::new(),
        Expr::Paren(e) => vec![&e.expr],
        Expr::Unary(e) => vec![&e.expr],
        Expr::Binary(e) => vec![&e.lhs, &e.rhs],
        Expr::Aggregate(e) => e.param.as_deref().into_iter().chain([&*e.expr]).collect(),
        Expr::Call(e) => e.args.iter().collect(),
        Expr::Subquery(e) => vec![&e.expr],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::alerting::{AlertingRule, AlertingSpec};
    use super::super::recording::RecordingSpec;
    use super::*;

    fn record(name: &str, expr: &str) -> RuleKind {
        RuleKind::Recording(Arc::new(RecordingSpec {
            name: name.into(),
            expr: expr.into(),
            labels: BTreeMap::new(),
        }))
    }

    fn alert(name: &str, expr: &str, annotation: &str) -> RuleKind {
        let spec = AlertingSpec {
            name: name.into(),
            expr: expr.into(),
            hold_ms: 0,
            keep_firing_ms: 0,
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([("a".to_owned(), annotation.to_owned())]),
        };
        RuleKind::Alerting(AlertingRule::new(spec, true))
    }

    #[test]
    fn rules_wait_for_what_they_depend_on_and_for_nothing_else() {
        for (rules, want) in [
            (vec![record("a", "x"), record("b", "y"), record("c", "x + y")], vec![vec![0, 1, 2]]),
            (
                vec![record("a", "x"), record("b", "a"), record("c", "b"), record("d", "x")],
                vec![vec![0, 3], vec![1], vec![2]],
            ),
            // A rule reads what a later one writes: it must see the value of the iteration before.
            (vec![record("b", "rate(a[5m])"), record("a", "x")], vec![vec![0], vec![1]]),
            (vec![record("a", "x"), record("a", "y")], vec![vec![0], vec![1]]),
            (
                vec![
                    record("a", "x"),
                    record("b", "{__name__=~\"a.*\"}"),
                    record("c", "{__name__=~\"z.*\"}"),
                ],
                vec![vec![0, 2], vec![1]],
            ),
            (
                vec![record("a", "x"), record("b", "{job=\"j\"}"), record("c", "x")],
                vec![vec![0], vec![1], vec![2]],
            ),
            (vec![record("a", "x"), record("b", "sum_over_time(max(a)[5m:1m])")], vec![vec![0], vec![1]]),
            (vec![record("b", "{\"a\", job=\"j\"}"), record("a", "x")], vec![vec![0], vec![1]]),
            (
                vec![
                    alert("One", "x", ""),
                    alert("Two", "ALERTS{alertname=\"One\"}", ""),
                    alert("Three", "ALERTS{alertname=\"Other\"}", ""),
                ],
                vec![vec![0, 2], vec![1]],
            ),
            (
                vec![alert("One", "x", ""), record("n", "count(ALERTS)"), alert("Two", "x", "")],
                vec![vec![0], vec![1], vec![2]],
            ),
            (
                vec![alert("One", "x", ""), alert("Two", "x", ""), alert("One", "y", "")],
                vec![vec![0, 1], vec![2]],
            ),
            (
                vec![record("a", "x"), alert("One", "x", "{{ query \"a\" }}"), record("b", "x")],
                vec![vec![0], vec![1], vec![2]],
            ),
            (
                vec![record("a", "x"), alert("One", "x", "no query here"), record("b", "x")],
                vec![vec![0, 1, 2]],
            ),
        ] {
            let kinds: Vec<&RuleKind> = rules.iter().collect();
            assert_eq!(stages(&kinds), want, "{rules:?}");
        }
    }
}
