//! Which series can a join not need? A condition on one side holds for the other side too when both must agree on
//! the label, so it is added to the selector there and fewer series are read.
//!
//! This must change neither values nor errors nor remarks. A condition therefore only goes to the side whose series
//! without a partner have no effect: never to the "one" side of a join, where duplicates are an error even if nothing
//! matches them, and to the other side only if that error cannot happen (it is not looked for when a side is empty).
//! And it only goes through expressions that remark on nothing.

use std::sync::Arc;

use super::{Binary, Kind, Plan, Selector, Source};
use crate::model::{METRIC_NAME, MatchOp, Matcher};
use crate::query::functions::Func;
use crate::query::parse::ast::{AggregateOp, BinaryOp, MatchCardinality, VectorMatching};

/// Labels that have one known value in all series of an expression.
type Facts = Vec<(Arc<str>, Arc<str>)>;

/// Adds conditions to the selectors of a plan wherever a join allows it.
pub fn narrow(plan: &mut Plan) {
    visit(plan);
}

fn visit(plan: &mut Plan) -> Facts {
    match &mut plan.kind {
        Kind::Number(_) | Kind::String(_) => Facts::new(),
        Kind::Negate(e) | Kind::Invariant(e) => visit(e),
        Kind::Selector(s) => facts_of(s),
        Kind::Window(w) => match &mut w.source {
            Source::Selector(s) => facts_of(s),
            Source::Subquery { expr, .. } => visit(expr),
        },
        Kind::Aggregate(a) => {
            if let Some(param) = &mut a.param {
                visit(param);
            }
            let facts = visit(&mut a.expr);
            if matches!(a.op, AggregateOp::CountValues) {
                return Facts::new();
            }
            let keeps_all = matches!(
                a.op,
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio
            );
            let kept = |name: &Arc<str>| keeps_all || a.grouping.contains(name) != a.without;
            facts.into_iter().filter(|(name, _)| kept(name)).collect()
        }
        Kind::Call(c) => {
            let mut facts: Vec<Facts> = c.args.iter_mut().map(visit).collect();
            // The first vector is the one whose labels come through, if any do.
            if keeps_labels(c.func) {
                facts.drain(..).find(|f| !f.is_empty()).unwrap_or_default()
            } else {
                Facts::new()
            }
        }
        Kind::Binary(b) => binary(b),
    }
}

fn binary(b: &mut Binary) -> Facts {
    let (left, right) = (visit(&mut b.lhs), visit(&mut b.rhs));
    let Some(matching) = &b.matching else {
        // With a scalar: the labels are those of the vector.
        return if left.is_empty() { right } else { left };
    };
    let shared = |facts: &Facts| -> Facts {
        facts.iter().filter(|(name, _)| is_shared(matching, name)).cloned().collect()
    };
    match b.op {
        BinaryOp::And => {
            restrict(&mut b.lhs, &shared(&right));
            restrict(&mut b.rhs, &shared(&left));
            left
        }
        BinaryOp::Unless => {
            restrict(&mut b.rhs, &shared(&left));
            left
        }
        BinaryOp::Or => Facts::new(),
        _ if matching.fill_left.is_some() || matching.fill_right.is_some() => Facts::new(),
        _ => {
            match matching.cardinality {
                MatchCardinality::OneToOne | MatchCardinality::ManyToOne if is_unique(&b.rhs, matching) => {
                    restrict(&mut b.lhs, &shared(&right));
                }
                MatchCardinality::OneToMany if is_unique(&b.lhs, matching) => {
                    restrict(&mut b.rhs, &shared(&left));
                }
                _ => {}
            }
            // What both sides agree on survives every kind of matching; the rest depends on it.
            let agreed = if left.is_empty() { shared(&right) } else { shared(&left) };
            agreed.into_iter().filter(|(name, _)| !matching.include.contains(name)).collect()
        }
    }
}

/// Whether no two series of `plan` can be in one match group: an aggregation by nothing but matched labels.
fn is_unique(plan: &Plan, matching: &VectorMatching) -> bool {
    match &plan.bare().kind {
        Kind::Aggregate(a) => {
            let folds = !matches!(
                a.op,
                AggregateOp::Topk
                    | AggregateOp::Bottomk
                    | AggregateOp::Limitk
                    | AggregateOp::LimitRatio
                    | AggregateOp::CountValues
            );
            folds && !a.without && a.grouping.iter().all(|name| is_shared(matching, name))
        }
        _ => false,
    }
}

fn is_shared(matching: &VectorMatching, name: &Arc<str>) -> bool {
    &**name != METRIC_NAME && matching.labels.contains(name) == matching.on
}

fn facts_of(selector: &Selector) -> Facts {
    let fixed = |m: &&Matcher| m.op == MatchOp::Equal && !m.value.is_empty() && &*m.name != METRIC_NAME;
    selector.matchers.iter().filter(fixed).map(|m| (Arc::clone(&m.name), Arc::clone(&m.value))).collect()
}

/// Functions that leave the labels of their series alone but for the name.
fn keeps_labels(func: Func) -> bool {
    use Func::{
        Abs, AvgOverTime, Ceil, Changes, Clamp, ClampMax, ClampMin, CountOverTime, Delta, Deriv, Exp, Floor,
        Idelta, Increase, Irate, LastOverTime, Ln, Log2, Log10, MaxOverTime, MinOverTime, PredictLinear,
        PresentOverTime, QuantileOverTime, Rate, Resets, Round, Sgn, Sqrt, StddevOverTime, StdvarOverTime,
        SumOverTime, Timestamp,
    };
    matches!(
        func,
        Abs | AvgOverTime
            | Ceil
            | Changes
            | Clamp
            | ClampMax
            | ClampMin
            | CountOverTime
            | Delta
            | Deriv
            | Exp
            | Floor
            | Idelta
            | Increase
            | Irate
            | LastOverTime
            | Ln
            | Log2
            | Log10
            | MaxOverTime
            | MinOverTime
            | PredictLinear
            | PresentOverTime
            | QuantileOverTime
            | Rate
            | Resets
            | Round
            | Sgn
            | Sqrt
            | StddevOverTime
            | StdvarOverTime
            | SumOverTime
            | Timestamp
    )
}

/// Adds conditions to the selector that all series of `plan` come from, if nothing on the way would notice.
fn restrict(plan: &mut Plan, facts: &Facts) {
    if facts.is_empty() {
        return;
    }
    match &mut plan.kind {
        Kind::Invariant(e) => restrict(e, facts),
        Kind::Selector(s) => add(s, facts),
        Kind::Call(c)
            if matches!(
                c.func,
                Func::LastOverTime | Func::CountOverTime | Func::PresentOverTime | Func::Changes
            ) =>
        {
            if let Some(Kind::Window(w)) = c.args.first_mut().map(|arg| &mut arg.kind)
                && let Source::Selector(s) = &mut w.source
            {
                add(s, facts);
            }
        }
        Kind::Aggregate(a) if matches!(a.op, AggregateOp::Count | AggregateOp::Group) => {
            let kept = |name: &Arc<str>| a.grouping.contains(name) != a.without;
            let facts: Facts = facts.iter().filter(|(name, _)| kept(name)).cloned().collect();
            restrict(&mut a.expr, &facts);
        }
        Kind::Binary(b) if matches!(b.op, BinaryOp::And | BinaryOp::Unless) => restrict(&mut b.lhs, facts),
        _ => {}
    }
}

fn add(selector: &mut Selector, facts: &Facts) {
    for (name, value) in facts {
        let known = |m: &Matcher| m.name == *name && m.op == MatchOp::Equal && m.value == *value;
        if !selector.matchers.iter().any(known) {
            selector.matchers.push(Matcher::equal(name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlanOptions, plan};
    use super::*;
    use crate::query::parse::{ParseOptions, parse_expr};

    fn selectors(plan: &Plan, out: &mut Vec<String>) {
        let mut add = |s: &Selector| {
            let mut texts: Vec<String> =
                s.matchers.iter().filter(|m| &*m.name != METRIC_NAME).map(ToString::to_string).collect();
            texts.sort();
            out.push(format!("{}{{{}}}", s.fixed_name().map_or("", |n| n), texts.join(",")));
        };
        match &plan.kind {
            Kind::Number(_) | Kind::String(_) => {}
            Kind::Negate(e) | Kind::Invariant(e) => selectors(e, out),
            Kind::Selector(s) => add(s),
            Kind::Window(w) => match &w.source {
                Source::Selector(s) => add(s),
                Source::Subquery { expr, .. } => selectors(expr, out),
            },
            Kind::Aggregate(a) => selectors(&a.expr, out),
            Kind::Call(c) => c.args.iter().for_each(|a| selectors(a, out)),
            Kind::Binary(b) => {
                selectors(&b.lhs, out);
                selectors(&b.rhs, out);
            }
        }
    }

    #[test]
    fn conditions_go_where_nothing_would_notice() {
        for (query, want) in [
            // The many side, or the left of one-to-one.
            ("a * on (l) sum by (l) (b{l=\"x\"})", "a{l=\"x\"} b{l=\"x\"}"),
            ("a * on (l) group_left sum by (l) (b{l=\"x\"})", "a{l=\"x\"} b{l=\"x\"}"),
            ("max by (l) (a{l=\"x\"}) * on (l) group_right b", "a{l=\"x\"} b{l=\"x\"}"),
            ("a * sum by (l) (b{l=\"x\"})", "a{l=\"x\"} b{l=\"x\"}"),
            ("a * ignoring (l) sum by (m) (b{l=\"x\",m=\"y\"})", "a{m=\"y\"} b{l=\"x\",m=\"y\"}"),
            // The one side reports duplicates even where nothing matches, as long as the other is not empty.
            ("a{l=\"x\"} * on (l) b", "a{l=\"x\"} b{}"),
            ("a{l=\"x\"} * on (l) group_left b", "a{l=\"x\"} b{}"),
            ("a * on (l) b{l=\"x\"}", "a{} b{l=\"x\"}"),
            ("a * on (l) sum by (l, m) (b{l=\"x\"})", "a{} b{l=\"x\"}"),
            ("a * on (l) topk by (l) (1, b{l=\"x\"})", "a{} b{l=\"x\"}"),
            // Labels that do not have to agree, conditions that fix nothing.
            ("a and on (m) b{l=\"x\"}", "a{} b{l=\"x\"}"),
            ("a and on (l) b{l=~\"x\",m=\"\"}", "a{} b{l=~\"x\",m=\"\"}"),
            // Set operations know no duplicates.
            ("a and on (l) b{l=\"x\"}", "a{l=\"x\"} b{l=\"x\"}"),
            ("a{l=\"x\"} and b", "a{l=\"x\"} b{l=\"x\"}"),
            ("a{l=\"x\"} unless b", "a{l=\"x\"} b{l=\"x\"}"),
            ("a unless b{l=\"x\"}", "a{} b{l=\"x\"}"),
            ("a or b{l=\"x\"}", "a{} b{l=\"x\"}"),
            // rate remarks on names that are no counters'; last_over_time remarks on nothing.
            ("rate(a[1m]) and b{l=\"x\"}", "a{} b{l=\"x\"}"),
            ("last_over_time(a[1m]) and b{l=\"x\"}", "a{l=\"x\"} b{l=\"x\"}"),
            ("a and rate(b{l=\"x\"}[1m])", "a{l=\"x\"} b{l=\"x\"}"),
            ("count by (l) (a) and on (l) b{l=\"x\"}", "a{l=\"x\"} b{l=\"x\"}"),
            ("count by (m) (a) and b{l=\"x\"}", "a{} b{l=\"x\"}"),
            ("a and sum by (l) (b{l=\"x\"})", "a{l=\"x\"} b{l=\"x\"}"),
            ("a and sum by (m) (b{l=\"x\"})", "a{} b{l=\"x\"}"),
            ("a and label_replace(b{l=\"x\"}, \"l\", \"y\", \"\", \"\")", "a{} b{l=\"x\"}"),
            // Through a join to the next.
            ("a and (b * sum by (l) (c{l=\"x\"}))", "a{l=\"x\"} b{l=\"x\"} c{l=\"x\"}"),
        ] {
            let tree = parse_expr(query, &ParseOptions::default()).unwrap();
            let mut found = Vec::new();
            selectors(&plan(&tree, &PlanOptions::default()).unwrap(), &mut found);
            assert_eq!(found.join(" "), want, "{query}");
        }
    }
}
