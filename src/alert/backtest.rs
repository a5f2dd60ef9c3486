//! Would this alert have fired? An alerting rule is run over stored history: one range query, then the same state
//! machine as live, step by step. Nothing is stored and nobody is told.

use std::collections::BTreeMap;

use super::alerting::{AlertState, AlertingRule, AlertingSpec, ExternalContext};
use super::template::QuerySource;
use super::texts::Surroundings;
use crate::model::Labels;
use crate::query::value::PointValue;
use crate::query::{Engine, QueryError, QueryOptions, QueryValue, VectorSample};
use crate::tsdb::Queryable;

/// Most evaluations of one backtest, as of a range query.
pub const MAX_STEPS: i64 = 11_000;
/// Most alerts of one backtest.
pub const MAX_ALERTS: usize = 10_000;

/// A stretch of time in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Pending or firing.
    pub state: AlertState,
    /// The first evaluation in this state, milliseconds.
    pub start_ms: i64,
    /// The first evaluation that is not in this state any more, or the end of the backtest.
    pub end_ms: i64,
}

/// What became of one label set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestedAlert {
    /// Labels of the alert.
    pub labels: Labels,
    /// In order of time, not overlapping.
    pub intervals: Vec<Interval>,
}

/// Over which time.
#[derive(Debug, Clone, Copy)]
pub struct Period {
    /// First evaluation, milliseconds.
    pub start_ms: i64,
    /// Last evaluation, milliseconds.
    pub end_ms: i64,
    /// Distance of evaluations, milliseconds.
    pub step_ms: i64,
}

/// Templates may not ask back: the answer would be that of today.
struct NoQueries;

impl QuerySource for NoQueries {
    fn query(&self, _query: &str, _t_ms: i64) -> Result<Vec<(Labels, f64)>, String> {
        Err("queries in templates are not run in backtests".into())
    }

    fn external_url(&self) -> &str {
        ""
    }
}

/// Runs `spec` over `period`; alerts sorted by labels.
pub fn run(
    engine: &Engine,
    storage: &dyn Queryable,
    spec: AlertingSpec,
    period: Period,
    options: &QueryOptions,
) -> Result<Vec<TestedAlert>, QueryError> {
    let Period { start_ms, end_ms, step_ms } = period;
    if step_ms <= 0 || end_ms < start_ms || (end_ms - start_ms) / step_ms >= MAX_STEPS {
        return Err(QueryError::Execution(format!(
            "a backtest needs a positive step, an end that is not before its start, and at most {MAX_STEPS} evaluations"
        )));
    }
    let result = engine.range(storage, &spec.expr, start_ms, end_ms, step_ms, options)?;
    let QueryValue::Matrix(series) = result.value else {
        return Err(QueryError::Execution("the expression is neither a number nor an instant vector".into()));
    };
    if series.len() > MAX_ALERTS {
        return Err(QueryError::Execution(format!(
            "the expression returns {} series, more than the {MAX_ALERTS} of a backtest",
            series.len()
        )));
    }
    let mut columns: Vec<_> =
        series.iter().map(|s| (s.floats.iter().peekable(), s.histograms.iter().peekable())).collect();
    let mut rule = AlertingRule::new(spec, true);
    let mut open: BTreeMap<Labels, Interval> = BTreeMap::new();
    let mut closed: BTreeMap<Labels, Vec<Interval>> = BTreeMap::new();
    let steps = (end_ms - start_ms) / step_ms + 1;
    for step in 0..steps {
        if options.cancel.is_cancelled() {
            return Err(QueryError::Canceled("backtest"));
        }
        let t_ms = start_ms + step * step_ms;
        let mut vector = Vec::new();
        for (i, (floats, histograms)) in columns.iter_mut().enumerate() {
            let float = floats.next_if(|(t, _)| *t == t_ms).map(|(_, v)| PointValue::Float(*v));
            let histogram =
                || histograms.next_if(|(t, _)| *t == t_ms).map(|(_, h)| PointValue::Histogram(h.clone()));
            if let Some(value) = float.or_else(histogram) {
                vector.push(VectorSample { labels: series[i].labels.clone(), t_ms, value });
            }
        }
        let context = ExternalContext::default();
        let surroundings = Surroundings { t_ms, context: &context, source: &NoQueries, on_error: &|| {} };
        let found = rule.texts.expand(vector, &surroundings).and_then(|found| rule.update(found, t_ms, 0));
        found.map_err(QueryError::Execution)?;
        let mut before = std::mem::take(&mut open);
        for (labels, alert) in &rule.active {
            if !matches!(alert.state, AlertState::Pending | AlertState::Firing) {
                continue;
            }
            let begun = Interval { state: alert.state, start_ms: t_ms, end_ms };
            let interval = match before.remove(labels) {
                Some(old) if old.state == alert.state => old,
                Some(old) => {
                    closed.entry(labels.clone()).or_default().push(Interval { end_ms: t_ms, ..old });
                    begun
                }
                None => begun,
            };
            open.insert(labels.clone(), interval);
        }
        for (labels, old) in before {
            closed.entry(labels).or_default().push(Interval { end_ms: t_ms, ..old });
        }
    }
    for (labels, interval) in open {
        closed.entry(labels).or_default().push(interval);
    }
    Ok(closed.into_iter().map(|(labels, intervals)| TestedAlert { labels, intervals }).collect())
}
