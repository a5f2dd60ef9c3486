//! `topk`, `bottomk`, `limitk`, `limit_ratio`, `count_values`: aggregations whose result is made of series, not of
//! one number for each group.

use std::sync::Arc;

use hashbrown::HashMap;

use super::aggregate::{group_rule, groups_of};
use super::build::Scalar;
use super::column::{Axis, Column, Meta, Point, is_absent};
use super::context::{Context, Pace};
use super::grouping::KeyRule;
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use crate::model::number::format_plain;
use crate::model::{Labels, LabelsBuilder};
use crate::query::QueryError;
use crate::query::annotations::Note;
use crate::query::functions::histops;
use crate::query::parse::Span;
use crate::query::parse::ast::AggregateOp;
use crate::query::plan::aggregate_name;

/// One aggregation with a parameter.
pub struct Choosing<'a> {
    /// The query.
    pub ctx: &'a Arc<Context>,
    /// Operator.
    pub op: AggregateOp,
    /// `k` or ratio.
    pub param: Scalar,
    /// Steps.
    pub axis: Axis,
    /// Place of the aggregated expression.
    pub span: Span,
    /// Place of the parameter.
    pub param_span: Span,
}

/// The best `k` values of one group at one step, worst first: a binary heap that behaves like the one upstream
/// uses, so that ties are resolved alike.
#[derive(Debug, Clone, Default)]
struct Best(Vec<(f64, u32)>);

impl Best {
    fn worse(a: f64, b: f64, top: bool) -> bool {
        a.is_nan() || (if top { a < b } else { a > b })
    }

    fn offer(&mut self, v: f64, series: u32, k: usize, top: bool) {
        if self.0.len() < k {
            self.0.push((v, series));
            self.up(self.0.len() - 1, top);
        } else if let Some(worst) = self.0.first_mut() {
            let better = if top { worst.0 < v } else { worst.0 > v };
            if better || (worst.0.is_nan() && !v.is_nan()) {
                *worst = (v, series);
                self.down(top);
            }
        }
    }

    fn up(&mut self, mut child: usize, top: bool) {
        while child > 0 {
            let parent = (child - 1) / 2;
            if !Self::worse(self.0[child].0, self.0[parent].0, top) {
                break;
            }
            self.0.swap(child, parent);
            child = parent;
        }
    }

    fn down(&mut self, top: bool) {
        let mut parent = 0;
        loop {
            let left = 2 * parent + 1;
            if left >= self.0.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.0.len() && Self::worse(self.0[right].0, self.0[left].0, top) {
                right
            } else {
                left
            };
            if !Self::worse(self.0[child].0, self.0[parent].0, top) {
                break;
            }
            self.0.swap(parent, child);
            parent = child;
        }
    }
}

impl Choosing<'_> {
    /// Evaluates the aggregation of `input`.
    pub fn run(&self, input: &dyn Node, rule: KeyRule) -> Result<BoxNode, QueryError> {
        match self.op {
            AggregateOp::LimitRatio => self.limit_ratio(input),
            AggregateOp::Limitk => self.limitk(input, rule),
            _ => self.topk(input, rule),
        }
    }

    /// The parameter at each step as a count, at most `most`.
    fn counts(&self, most: usize) -> Result<Vec<usize>, QueryError> {
        let count = |step| {
            let k = self.param.at(step);
            if k.is_nan() {
                return Err(QueryError::Execution("Parameter value is NaN".into()));
            }
            if k >= i64::MAX as f64 {
                return Err(QueryError::Execution(format!(
                    "Scalar value {} overflows int64",
                    crate::model::number::format_g(k)
                )));
            }
            if k <= i64::MIN as f64 {
                return Err(QueryError::Execution(format!(
                    "Scalar value {} underflows int64",
                    crate::model::number::format_g(k)
                )));
            }
            Ok((k.max(0.0) as usize).min(most))
        };
        (0..self.axis.n).map(count).collect()
    }

    fn topk(&self, input: &dyn Node, rule: KeyRule) -> Result<BoxNode, QueryError> {
        let counts = self.counts(input.metas().len())?;
        if counts.iter().all(|k| *k == 0) {
            return Ok(Box::new(Materialised::new(Vec::new(), Vec::new(), Held::new(self.ctx))));
        }
        let top = self.op == AggregateOp::Topk;
        let (ids, groups) = groups_of(self.ctx, input, rule)?;
        let n = self.axis.n;
        let mut held = Held::new(self.ctx);
        held.grow(groups.len() * n * 24, 0)?;
        let mut best = vec![Best::default(); groups.len() * n];
        each_column(self.ctx, input, self.axis, |i, column| {
            if !column.histograms.is_empty() {
                self.ctx.note(&Note::HistogramIgnoredInAggregation(aggregate_name(self.op)), self.span);
            }
            let base = ids[i] as usize * n;
            let mut grown = 0;
            for (step, v) in column.values.iter().enumerate() {
                if counts[step] > 0 && !is_absent(*v) {
                    let heap = &mut best[base + step];
                    let before = heap.0.capacity();
                    heap.offer(*v, i as u32, counts[step], top);
                    grown += heap.0.capacity() - before;
                }
            }
            held.grow(grown * 16, 0)
        })?;
        let mut outputs = Outputs::new(self.axis.n);
        let mut pace = Pace::default();
        for (slot, mut heap) in best.into_iter().enumerate() {
            pace.step(self.ctx, 64 * heap.0.len() + 1)?;
            if n == 1 {
                heap.0.sort_by(|a, b| order(a.0, b.0, top));
            }
            for (v, series) in heap.0 {
                outputs.put(series as usize, slot % n, Point::Float(v));
            }
        }
        outputs.finish(input, held, n == 1)
    }

    fn limitk(&self, input: &dyn Node, rule: KeyRule) -> Result<BoxNode, QueryError> {
        let counts = self.counts(input.metas().len())?;
        let (ids, groups) = groups_of(self.ctx, input, rule)?;
        let n = self.axis.n;
        let mut held = Held::new(self.ctx);
        held.grow(groups.len() * n * 4, 0)?;
        let mut taken = vec![0u32; groups.len() * n];
        let mut outputs = Outputs::new(n);
        each_column(self.ctx, input, self.axis, |i, column| {
            let base = ids[i] as usize * n;
            for (step, count) in counts.iter().enumerate() {
                let taken = &mut taken[base + step];
                if (*taken as usize) < *count && column.has(step) {
                    *taken += 1;
                    outputs.put(i, step, column.point(step));
                }
            }
            Ok(())
        })?;
        outputs.finish(input, held, false)
    }

    fn limit_ratio(&self, input: &dyn Node) -> Result<BoxNode, QueryError> {
        let mut ratios = Vec::with_capacity(self.axis.n);
        for step in 0..self.axis.n {
            let ratio = self.param.at(step);
            if ratio.is_nan() {
                return Err(QueryError::Execution("Ratio value is NaN".into()));
            }
            let capped = ratio.clamp(-1.0, 1.0);
            if capped != ratio {
                self.ctx.note(&Note::InvalidRatio(ratio, capped), self.param_span);
            }
            ratios.push(capped);
        }
        let delayed = self.ctx.rules.delayed_name_removal;
        let mut outputs = Outputs::new(self.axis.n);
        each_column(self.ctx, input, self.axis, |i, column| {
            let offset = hash(&input.metas()[i].seen(delayed)) as f64 / u64::MAX as f64;
            for (step, ratio) in ratios.iter().enumerate() {
                let chosen = if *ratio >= 0.0 { offset < *ratio } else { offset >= 1.0 + ratio };
                if *ratio != 0.0 && chosen && column.has(step) {
                    outputs.put(i, step, column.point(step));
                }
            }
            Ok(())
        })?;
        outputs.finish(input, Held::new(self.ctx), false)
    }
}

/// Upstream's hash of a label set: XXH64 over `name FF value FF …`.
#[must_use]
pub fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for label in labels.iter() {
        bytes.extend_from_slice(label.name.as_bytes());
        bytes.push(0xff);
        bytes.extend_from_slice(label.value.as_bytes());
        bytes.push(0xff);
    }
    xxhash_rust::xxh64::xxh64(&bytes, 0)
}

/// Best first, NaN last.
fn order(a: f64, b: f64, top: bool) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Greater,
        (false, true) => std::cmp::Ordering::Less,
        _ if top => b.total_cmp(&a),
        _ => a.total_cmp(&b),
    }
}

/// Chosen points by series.
struct Outputs {
    n: usize,
    index: HashMap<usize, usize, foldhash::fast::RandomState>,
    series: Vec<usize>,
    columns: Vec<Vec<(u32, Point)>>,
}

impl Outputs {
    fn new(n: usize) -> Self {
        Self { n, index: HashMap::default(), series: Vec::new(), columns: Vec::new() }
    }

    fn put(&mut self, series: usize, step: usize, point: Point) {
        let next = self.series.len();
        let at = *self.index.entry(series).or_insert(next);
        if at == next {
            self.series.push(series);
            self.columns.push(Vec::new());
        }
        self.columns[at].push((step as u32, point));
    }

    fn finish(self, input: &dyn Node, mut held: Held, ordered: bool) -> Result<BoxNode, QueryError> {
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        if !ordered {
            order.sort_unstable_by_key(|at| self.series[*at]);
        }
        let (mut metas, mut columns) = (Vec::new(), Vec::new());
        let mut points = self.columns;
        for at in order {
            let mut chosen = std::mem::take(&mut points[at]);
            chosen.sort_by_key(|(step, _)| *step);
            let mut column = Column::default();
            column.reset(self.n);
            for (step, point) in chosen {
                column.push(step as usize, point);
            }
            held.grow(column.bytes(), column.count())?;
            metas.push(input.metas()[self.series[at]].clone());
            columns.push(column);
        }
        let out = Materialised::new(metas, columns, held);
        Ok(Box::new(if ordered { out.in_order() } else { out }))
    }
}

/// `count_values`: how many series of a group have each value; the value becomes a label.
pub fn count_values(
    ctx: &Arc<Context>,
    input: &dyn Node,
    (label, span): (&str, Span),
    grouping: &[Arc<str>],
    without: bool,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    if label.is_empty() || label.contains(char::REPLACEMENT_CHARACTER) {
        // Bytes that are not UTF-8 are only left in the text of the query.
        let written = ctx.query.get(span.start as usize..span.end as usize).unwrap_or_default();
        return Err(QueryError::Execution(format!("invalid label name {written}")));
    }
    let rule = group_rule(grouping, without);
    let (ids, groups) = groups_of(ctx, input, rule)?;
    let (_, columns, mut held) = materialise_all(ctx, input, axis)?;
    let mut index: HashMap<(Labels, bool), usize, foldhash::fast::RandomState> = HashMap::default();
    let (mut metas, mut counts) = (Vec::<Meta>::new(), Vec::<Column>::new());
    let mut pace = Pace::default();
    for (id, column) in ids.iter().zip(&columns) {
        pace.step(ctx, axis.n * 64)?;
        let group = &groups[*id as usize];
        for step in 0..axis.n {
            let text = match column.point(step) {
                Point::None => continue,
                Point::Float(v) => format_plain(v),
                Point::Histogram(h) => histops::text(&h),
            };
            let mut labels = LabelsBuilder::new(&group.labels);
            labels.set(label, &text);
            let labels = labels.build();
            let next = metas.len();
            let at = *index.entry((labels.clone(), group.drop_name)).or_insert(next);
            if at == next {
                metas.push(Meta { labels, drop_name: group.drop_name });
                let mut column = Column::default();
                column.reset(axis.n);
                held.grow(column.bytes(), 0)?;
                counts.push(column);
            }
            let count = &mut counts[at].values[step];
            *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
        }
    }
    Ok(Box::new(Materialised::new(metas, counts, held)))
}

fn materialise_all(
    ctx: &Arc<Context>,
    input: &dyn Node,
    axis: Axis,
) -> Result<(Vec<Meta>, Vec<Column>, Held), QueryError> {
    let mut held = Held::new(ctx);
    let mut columns = Vec::with_capacity(input.metas().len());
    each_column(ctx, input, axis, |_, column| {
        held.grow(column.bytes(), column.count())?;
        columns.push(std::mem::take(column));
        Ok(())
    })?;
    Ok((input.metas().to_vec(), columns, held))
}
