//! `info`: adds the labels of info series (`target_info` unless a selector names others) to the series of the
//! same `instance` and `job`, at each step those that are current then.

use std::sync::Arc;

use hashbrown::HashMap;

use super::column::{Axis, Column, Meta, Point, is_absent};
use super::context::Context;
use super::merge::{materialise, same_labelset};
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use super::selector::{SelectorNode, Take};
use crate::model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};
use crate::query::QueryError;
use crate::query::parse::ast::RangeExtension;
use crate::query::plan::{Kind, Plan, Selector, Shift, Source};

const IDENTIFYING: [&str; 2] = ["instance", "job"];

type Key = [String; 2];

fn key(labels: &Labels) -> Key {
    IDENTIFYING.map(|name| labels.value(name).to_owned())
}

/// The times at which the first selector inside `plan` looks, seen from the steps around.
fn shift_inside(plan: &Plan, around: Shift) -> Option<Shift> {
    let compose = |inner: Shift| match inner.at {
        Some(_) => inner,
        None => Shift { at: around.at, offset: around.offset.saturating_add(inner.offset) },
    };
    match &plan.kind {
        Kind::Number(_) | Kind::String(_) => None,
        Kind::Negate(e) | Kind::Invariant(e) => shift_inside(e, around),
        Kind::Binary(b) => shift_inside(&b.lhs, around).or_else(|| shift_inside(&b.rhs, around)),
        Kind::Aggregate(a) => shift_inside(&a.expr, around),
        Kind::Call(c) => c.args.iter().find_map(|a| shift_inside(a, around)),
        Kind::Selector(s) => Some(compose(s.shift)),
        Kind::Window(w) => match &w.source {
            Source::Selector(s) => Some(compose(s.shift)),
            Source::Subquery { expr, shift, .. } => {
                let around = compose(*shift);
                shift_inside(expr, around).or(Some(around))
            }
        },
    }
}

/// What is asked for: which info metrics, which of their labels.
struct Wanted {
    names: Vec<Matcher>,
    data: Vec<Matcher>,
}

impl Wanted {
    fn new(matchers: Option<&[Matcher]>) -> Result<Self, QueryError> {
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            matchers.unwrap_or_default().iter().cloned().partition(|m| &*m.name == METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if names.iter().all(|m| matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegex)) {
            let any_info = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info")
                .map_err(|e| QueryError::Execution(e.to_string()))?;
            names.push(any_info);
        }
        Ok(Self { names, data })
    }

    /// Whether a series is an info series itself.
    fn is_info(&self, labels: &Labels) -> bool {
        self.names.iter().all(|m| m.matches(labels.metric_name()))
    }

    fn takes(&self, label: &str) -> bool {
        label != METRIC_NAME && (self.data.is_empty() || self.data.iter().any(|m| &*m.name == label))
    }

    /// Whether a series without a matching info series stays.
    fn keeps_unmatched(&self) -> bool {
        self.data.iter().all(Matcher::matches_empty)
    }
}

/// The info series that are current, by identifying labels.
struct InfoSeries {
    labels: Vec<Labels>,
    /// Seconds of the sample that is current at each step.
    times: Vec<Column>,
    /// For each key and metric name the candidates.
    by_key: HashMap<Key, Vec<Vec<usize>>, foldhash::fast::RandomState>,
}

fn alternatives(values: &mut Vec<String>) -> String {
    values.sort_unstable();
    values.dedup();
    values.iter().map(|v| regex_syntax::escape(v)).collect::<Vec<_>>().join("|")
}

impl InfoSeries {
    fn fetch(
        ctx: &Arc<Context>,
        base: &[Meta],
        wanted: &Wanted,
        shift: Shift,
        axis: Axis,
    ) -> Result<Self, QueryError> {
        let mut out = Self { labels: Vec::new(), times: Vec::new(), by_key: HashMap::default() };
        let mut matchers = wanted.names.clone();
        matchers.extend(wanted.data.iter().cloned());
        let enriched: Vec<&Meta> = base.iter().filter(|m| !wanted.is_info(&m.labels)).collect();
        let mut identified = false;
        for name in IDENTIFYING {
            let mut values: Vec<String> = enriched.iter().map(|m| m.labels.value(name).to_owned()).collect();
            identified |= values.iter().any(|v| !v.is_empty());
            let pattern = alternatives(&mut values);
            matchers.push(
                Matcher::new(name, MatchOp::Regex, &pattern)
                    .map_err(|e| QueryError::Execution(e.to_string()))?,
            );
        }
        if !identified {
            return Ok(out);
        }
        let selector = Selector {
            matchers,
            shift,
            extension: RangeExtension::None,
            function: Some("info".into()),
            projection: None,
            skip_buckets: false,
            presence_alone: false,
        };
        let span = crate::query::parse::Span::default();
        let values = SelectorNode::new(ctx, &selector, axis, Take::Value, span)?;
        each_column(ctx, &values, axis, |_, column| {
            if column.histograms.is_empty() {
                Ok(())
            } else {
                Err(QueryError::Execution("info sample should be float".into()))
            }
        })?;
        let times = SelectorNode::new(ctx, &selector, axis, Take::Timestamp, span)?;
        each_column(ctx, &times, axis, |i, column| {
            if !column.is_empty() {
                out.add(times.metas()[i].labels.clone(), std::mem::take(column));
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn add(&mut self, labels: Labels, times: Column) {
        let at = self.labels.len();
        let metrics = self.by_key.entry(key(&labels)).or_default();
        let same_name = metrics.iter_mut().find(|m| self.labels[m[0]].metric_name() == labels.metric_name());
        match same_name {
            Some(candidates) => candidates.push(at),
            None => metrics.push(vec![at]),
        }
        self.labels.push(labels);
        self.times.push(times);
    }

    /// The newest candidate of each metric at a step.
    fn current(&self, metrics: &[Vec<usize>], step: usize, out: &mut Vec<usize>) -> Result<(), QueryError> {
        out.clear();
        for candidates in metrics {
            let mut best: Option<(usize, f64)> = None;
            for i in candidates {
                let t = self.times[*i].values[step];
                if is_absent(t) {
                    continue;
                }
                match best {
                    Some((_, best_t)) if t < best_t => {}
                    Some((other, best_t)) if t == best_t => {
                        return Err(QueryError::Execution(format!(
                            "found duplicate series for info metric: existing {} @ {}, new {} @ {}",
                            self.labels[other],
                            best_t * 1000.0,
                            self.labels[*i],
                            t * 1000.0
                        )));
                    }
                    _ => best = Some((*i, t)),
                }
            }
            out.extend(best.map(|(i, _)| i));
        }
        Ok(())
    }
}

/// Labels of `base` with those of the info series that it lacks.
fn enrich(base: &Labels, infos: &[&Labels], wanted: &Wanted) -> Result<Labels, QueryError> {
    let mut out = LabelsBuilder::new(base);
    for (n, info) in infos.iter().enumerate() {
        for label in info.iter() {
            if !wanted.takes(label.name) || base.get(label.name).is_some() {
                continue;
            }
            if n > 0 && !out.value(label.name).is_empty() && out.value(label.name) != label.value {
                return Err(QueryError::Execution(format!("conflicting label: {}", label.name)));
            }
            out.set(label.name, label.value);
        }
    }
    Ok(out.build())
}

/// Evaluates `info(input, {matchers})`; `arg` is the plan of `input`.
pub fn info(
    ctx: &Arc<Context>,
    input: &dyn Node,
    arg: &Plan,
    matchers: Option<&[Matcher]>,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    let delayed = ctx.rules.delayed_name_removal;
    let wanted = Wanted::new(matchers)?;
    let (base, columns, _held) = materialise(ctx, input, axis)?;
    let base: Vec<Meta> = base.iter().map(|m| m.with_seen(delayed)).collect();
    let shift = shift_inside(arg, Shift::default()).unwrap_or_default();
    let infos = InfoSeries::fetch(ctx, &base, &wanted, shift, axis)?;
    let mut out = Enriched { axis, index: HashMap::default(), metas: Vec::new(), columns: Vec::new() };
    let mut current = Vec::new();
    for (meta, column) in base.iter().zip(&columns) {
        ctx.check()?;
        if wanted.is_info(&meta.labels) {
            let id = out.series(meta.clone());
            for step in 0..axis.n {
                out.put(id, step, column.point(step))?;
            }
            continue;
        }
        let metrics = infos.by_key.get(&key(&meta.labels)).map(Vec::as_slice).unwrap_or_default();
        let mut known: HashMap<Vec<usize>, usize, foldhash::fast::RandomState> = HashMap::default();
        for step in 0..axis.n {
            let point = column.point(step);
            if matches!(point, Point::None) {
                continue;
            }
            infos.current(metrics, step, &mut current)?;
            if current.is_empty() && !wanted.keeps_unmatched() {
                continue;
            }
            let id = match known.get(&current) {
                Some(id) => *id,
                None => {
                    let found: Vec<&Labels> = current.iter().map(|i| &infos.labels[*i]).collect();
                    let labels = enrich(&meta.labels, &found, &wanted)?;
                    let id = out.series(Meta { labels, drop_name: meta.drop_name });
                    known.insert(current.clone(), id);
                    id
                }
            };
            out.put(id, step, point)?;
        }
    }
    let mut held = Held::new(ctx);
    for column in &out.columns {
        held.grow(column.bytes(), column.count())?;
    }
    Ok(Box::new(Materialised::new(out.metas, out.columns, held)))
}

struct Enriched {
    axis: Axis,
    index: HashMap<Labels, usize, foldhash::fast::RandomState>,
    metas: Vec<Meta>,
    columns: Vec<Column>,
}

impl Enriched {
    fn series(&mut self, meta: Meta) -> usize {
        let next = self.metas.len();
        let id = *self.index.entry(meta.labels.clone()).or_insert(next);
        if id == next {
            let mut column = Column::default();
            column.reset(self.axis.n);
            self.metas.push(meta);
            self.columns.push(column);
        }
        id
    }

    fn put(&mut self, id: usize, step: usize, point: Point) -> Result<(), QueryError> {
        if matches!(point, Point::None) {
            return Ok(());
        }
        if self.columns[id].has(step) {
            return Err(same_labelset());
        }
        match point {
            Point::Histogram(h) => {
                let column = &mut self.columns[id];
                let at = column.histograms.partition_point(|(s, _)| (*s as usize) < step);
                column.histograms.insert(at, (step as u32, h));
            }
            point => self.columns[id].push(step, point),
        }
        Ok(())
    }
}
