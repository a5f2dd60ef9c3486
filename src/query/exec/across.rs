//! Functions that look at all series of a step: `absent`, `absent_over_time`, `scalar`, sorting.

use std::cmp::Ordering;
use std::sync::Arc;

use super::build::Scalar;
use super::column::{ABSENT, Axis, Column, Meta, StepSet, is_absent};
use super::context::Context;
use super::merge::materialise;
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use crate::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};
use crate::query::QueryError;
use crate::query::plan::{Kind, Plan, Source};

/// The labels that `absent` gives its result: those that the selector fixes by one equality each.
#[must_use]
pub fn absent_labels(arg: &Plan) -> Labels {
    let matchers: &[Matcher] = match &arg.bare().kind {
        Kind::Selector(s) => &s.matchers,
        Kind::Window(w) => match &w.source {
            Source::Selector(s) => &s.matchers,
            Source::Subquery { .. } => &[],
        },
        _ => &[],
    };
    let mut out = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for m in matchers.iter().filter(|m| &*m.name != METRIC_NAME) {
        if m.op == MatchOp::Equal && !seen.contains(&&*m.name) {
            out.set(&m.name, &m.value);
            seen.push(&m.name);
        } else {
            out.remove(&m.name);
        }
    }
    out.build()
}

/// 1 at the steps at which no series has a value.
pub fn absent(
    ctx: &Arc<Context>,
    input: &dyn Node,
    labels: Labels,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    let mut present = StepSet::empty(axis.n);
    each_column(ctx, input, axis, |_, column| {
        present.add_column(column);
        Ok(())
    })?;
    let values = (0..axis.n).map(|step| if present.contains(step) { ABSENT } else { 1.0 }).collect();
    let column = Column { values, histograms: Vec::new() };
    let (metas, columns) =
        if column.is_empty() { (vec![], vec![]) } else { (vec![Meta::new(labels)], vec![column]) };
    Ok(Box::new(Materialised::new(metas, columns, Held::new(ctx))))
}

/// The value of the only float of each step, NaN where there is none or more than one.
pub fn scalar(ctx: &Arc<Context>, input: &dyn Node, axis: Axis) -> Result<Scalar, QueryError> {
    let mut values = vec![ABSENT; axis.n];
    let mut several = StepSet::empty(axis.n);
    each_column(ctx, input, axis, |_, column| {
        for (step, v) in column.values.iter().enumerate() {
            if !is_absent(*v) {
                if is_absent(values[step]) {
                    values[step] = *v;
                } else {
                    several.insert(step);
                }
            }
        }
        Ok(())
    })?;
    for (step, v) in values.iter_mut().enumerate() {
        if is_absent(*v) || several.contains(step) {
            *v = f64::NAN;
        }
    }
    Ok(Scalar::Steps(values))
}

/// `sort` and `sort_desc` of an instant query: by value, NaN last; histograms go.
pub fn sort(
    ctx: &Arc<Context>,
    input: &dyn Node,
    descending: bool,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    let (metas, columns, held) = materialise(ctx, input, axis)?;
    let mut order: Vec<usize> = (0..metas.len()).filter(|i| !is_absent(columns[*i].values[0])).collect();
    order.sort_by(|a, b| {
        let (a, b) = (columns[*a].values[0], columns[*b].values[0]);
        match (a.is_nan(), b.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
            _ => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        }
    });
    Ok(reordered(metas, columns, held, &order))
}

fn reordered(metas: Vec<Meta>, mut columns: Vec<Column>, held: Held, order: &[usize]) -> BoxNode {
    let sorted_metas = order.iter().map(|i| metas[*i].clone()).collect();
    let sorted_columns = order.iter().map(|i| std::mem::take(&mut columns[*i])).collect();
    Box::new(Materialised::new(sorted_metas, sorted_columns, held).in_order())
}

/// `sort_by_label` and `sort_by_label_desc` of an instant query: natural order of the given labels, then all
/// labels.
pub fn sort_by_label(
    ctx: &Arc<Context>,
    input: &dyn Node,
    names: &[Arc<str>],
    descending: bool,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    let (metas, columns, held) = materialise(ctx, input, axis)?;
    let delayed = ctx.rules.delayed_name_removal;
    let seen: Vec<Labels> = metas.iter().map(|m| m.seen(delayed)).collect();
    let mut order: Vec<usize> = (0..metas.len()).collect();
    order.sort_by(|a, b| {
        let by_names = names.iter().map(|n| natural(seen[*a].value(n), seen[*b].value(n)));
        let found =
            by_names.into_iter().find(|o| *o != Ordering::Equal).unwrap_or_else(|| seen[*a].cmp(&seen[*b]));
        if descending { found.reverse() } else { found }
    });
    Ok(reordered(metas, columns, held, &order))
}

/// Natural order: runs of digits compare as numbers, everything else bytewise.
#[must_use]
pub fn natural(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i].is_ascii_digit() && b[j].is_ascii_digit() {
            let run = |s: &[u8], from: usize| {
                let len = s[from..].iter().take_while(|c| c.is_ascii_digit()).count();
                let zeros = s[from..from + len].iter().take_while(|c| **c == b'0').count();
                (from + zeros, from + len)
            };
            let ((a_from, a_to), (b_from, b_to)) = (run(a, i), run(b, j));
            let by_number =
                (a_to - a_from).cmp(&(b_to - b_from)).then_with(|| a[a_from..a_to].cmp(&b[b_from..b_to]));
            // Equal numbers with different zeros in front: the shorter first.
            let by_run = by_number.then_with(|| (a_to - i).cmp(&(b_to - j)));
            if by_run != Ordering::Equal {
                return by_run;
            }
            (i, j) = (a_to, b_to);
        } else {
            if a[i] != b[j] {
                return a[i].cmp(&b[j]);
            }
            i += 1;
            j += 1;
        }
    }
    (a.len() - i).cmp(&(b.len() - j))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text_compare_as_numbers() {
        let mut names = ["node-10", "node-9", "node", "node-09", "a1b2", "a1b10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a1b2", "a1b10", "node", "node-9", "node-09", "node-10"]);
    }
}
