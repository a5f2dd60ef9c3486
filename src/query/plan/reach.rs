//! Which time does a plan read? The view of the storage is opened once for the whole query.

use super::{Kind, Plan, Source};
use crate::query::functions::Func;
use crate::query::parse::ast::RangeExtension;

/// First and last timestamp that a plan evaluated from `start_ms` to `end_ms` may look at.
#[must_use]
pub fn reach(plan: &Plan, start_ms: i64, end_ms: i64, lookback_ms: i64) -> (i64, i64) {
    let mut found = None;
    visit(plan, start_ms, end_ms, lookback_ms, &mut found);
    found.unwrap_or((end_ms, end_ms))
}

fn add(found: &mut Option<(i64, i64)>, from: i64, to: i64) {
    let (low, high) = found.unwrap_or((from, to));
    *found = Some((low.min(from), high.max(to)));
}

fn visit(plan: &Plan, start: i64, end: i64, lookback: i64, found: &mut Option<(i64, i64)>) {
    match &plan.kind {
        Kind::Number(_) | Kind::String(_) => {}
        Kind::Negate(e) | Kind::Invariant(e) => visit(e, start, end, lookback, found),
        Kind::Binary(b) => {
            visit(&b.lhs, start, end, lookback, found);
            visit(&b.rhs, start, end, lookback, found);
        }
        Kind::Aggregate(a) => {
            visit(&a.expr, start, end, lookback, found);
            if let Some(param) = &a.param {
                visit(param, start, end, lookback, found);
            }
        }
        Kind::Call(c) => {
            let before = *found;
            for arg in &c.args {
                visit(arg, start, end, lookback, found);
            }
            // info() looks its own series up with a lookback at the times that its argument reads.
            if c.func == Func::Info
                && let Some((low, high)) = *found
            {
                *found = before;
                add(found, low.saturating_sub(lookback), high);
            }
        }
        Kind::Selector(s) => {
            let from = s.shift.apply(start).saturating_sub(lookback);
            let to = s.shift.apply(end);
            let ahead = if s.extension == RangeExtension::Smoothed { lookback } else { 0 };
            add(found, from.saturating_add(1), to.saturating_add(ahead));
        }
        Kind::Window(w) => {
            let shift = w.source.shift();
            let from = shift.apply(start).saturating_sub(w.range_ms);
            let to = shift.apply(end);
            match &w.source {
                Source::Subquery { expr, .. } => visit(expr, from, to, lookback, found),
                Source::Selector(s) => {
                    let (before, ahead) = match s.extension {
                        RangeExtension::None => (0, 0),
                        RangeExtension::Anchored => (lookback, 0),
                        RangeExtension::Smoothed => (lookback, lookback),
                    };
                    add(found, from.saturating_sub(before).saturating_add(1), to.saturating_add(ahead));
                }
            }
        }
    }
}
