//! Aggregations that fold: every series is added to the accumulators of its group as it arrives, so memory is
//! groups × steps.

use std::sync::Arc;

use super::build::Scalar;
use super::column::{ABSENT, Axis, Column, Meta, is_absent};
use super::context::{Context, Pace};
use super::grouping::{Groups, KeyRule};
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use crate::model::histogram::FloatHistogram;
use crate::query::QueryError;
use crate::query::annotations::{HistogramOperation, Note};
use crate::query::functions::histogram_sum::HistogramSum;
use crate::query::functions::{kahan, quantile};
use crate::query::parse::Span;
use crate::query::parse::ast::AggregateOp;
use crate::query::plan::aggregate_name;

/// The grouping rule of an aggregation.
#[must_use]
pub fn group_rule(grouping: &[Arc<str>], without: bool) -> KeyRule {
    KeyRule { names: grouping.to_vec(), exclude: without, without_reserved: true }
}

/// Groups of the series of a node: the group of each, and the labels of each group.
pub fn groups_of(ctx: &Context, node: &dyn Node, rule: KeyRule) -> Result<(Vec<u32>, Vec<Meta>), QueryError> {
    let mut pace = Pace::default();
    let delayed = ctx.rules.delayed_name_removal;
    let mut groups = Groups::new(rule, delayed);
    let mut metas: Vec<Meta> = Vec::new();
    let mut ids = Vec::with_capacity(node.metas().len());
    for meta in node.metas() {
        pace.step(ctx, 256)?;
        let (id, new) = groups.id(meta);
        if new {
            metas.push(Meta::new(groups.rule().labels(meta, delayed)));
        }
        // One series that loses its name makes the whole group lose it.
        metas[id as usize].drop_name |= meta.drop_name && delayed;
        ids.push(id);
    }
    Ok((ids, metas))
}

/// Sum or mean of histograms at one step; without a value once they turned out not to go together.
type Slot = Option<Box<Option<HistogramSum>>>;

/// The accumulators of one group, one for each step.
enum Fold {
    Sum {
        sum: Vec<f64>,
        c: Vec<f64>,
    },
    Avg(Vec<Option<kahan::Mean>>),
    Extreme(Vec<f64>),
    Count(Vec<f64>),
    Group(Vec<f64>),
    Variance {
        count: Vec<f64>,
        mean: Vec<f64>,
        aux: Vec<f64>,
    },
    /// Whole columns: a list for each step would be thousands of small ones.
    Quantile(Vec<Vec<f64>>),
}

struct Group {
    fold: Fold,
    /// By step; empty until the first histogram.
    histograms: Vec<Slot>,
}

/// One aggregation.
pub struct Folding<'a> {
    /// The query.
    pub ctx: &'a Arc<Context>,
    /// Operator.
    pub op: AggregateOp,
    /// Parameter of `quantile`.
    pub param: Option<Scalar>,
    /// Steps.
    pub axis: Axis,
    /// Place of the aggregated expression.
    pub span: Span,
    /// Place of the parameter.
    pub param_span: Span,
}

impl Folding<'_> {
    fn new_fold(&self) -> Fold {
        let n = self.axis.n;
        match self.op {
            AggregateOp::Avg => Fold::Avg(vec![None; n]),
            AggregateOp::Min | AggregateOp::Max => Fold::Extreme(vec![ABSENT; n]),
            AggregateOp::Count => Fold::Count(vec![0.0; n]),
            AggregateOp::Group => Fold::Group(vec![ABSENT; n]),
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                Fold::Variance { count: vec![0.0; n], mean: vec![0.0; n], aux: vec![0.0; n] }
            }
            AggregateOp::Quantile => Fold::Quantile(Vec::new()),
            _ => Fold::Sum { sum: vec![ABSENT; n], c: vec![0.0; n] },
        }
    }

    /// Evaluates the aggregation of `input`.
    pub fn run(&self, input: &dyn Node, rule: KeyRule) -> Result<BoxNode, QueryError> {
        let (ids, metas) = groups_of(self.ctx, input, rule)?;
        if let Some(param) = &self.param
            && !ids.is_empty()
        {
            for phi in (0..self.axis.n).map(|step| param.at(step)) {
                if !(0.0..=1.0).contains(&phi) {
                    self.ctx.note(&Note::InvalidQuantile(phi), self.param_span);
                }
            }
        }
        let mut held = Held::new(self.ctx);
        let width = match self.op {
            AggregateOp::Avg => 40,
            AggregateOp::Stddev | AggregateOp::Stdvar | AggregateOp::Quantile => 24,
            AggregateOp::Sum => 16,
            _ => 8,
        };
        held.grow(metas.len() * self.axis.n * width, metas.len() * self.axis.n)?;
        let mut groups: Vec<Group> =
            metas.iter().map(|_| Group { fold: self.new_fold(), histograms: Vec::new() }).collect();
        each_column(self.ctx, input, self.axis, |i, column| {
            let group = &mut groups[ids[i] as usize];
            if self.op == AggregateOp::Quantile {
                held.grow(column.values.len() * 8, column.values.len())?;
            }
            self.fold_floats(&mut group.fold, &column.values);
            if !column.histograms.is_empty() {
                let name = input.metas()[i].labels.metric_name();
                self.fold_histograms(group, column, name);
            }
            Ok(())
        })?;
        let (mut out_metas, mut columns) = (Vec::new(), Vec::new());
        for (group, meta) in groups.into_iter().zip(metas) {
            let column = self.finish(group);
            if !column.is_empty() {
                out_metas.push(meta);
                columns.push(column);
            }
        }
        Ok(Box::new(Materialised::new(out_metas, columns, held)))
    }

    fn fold_floats(&self, fold: &mut Fold, values: &[f64]) {
        match fold {
            Fold::Sum { sum, c } => {
                for ((v, sum), c) in values.iter().zip(sum).zip(c) {
                    if is_absent(*v) {
                        continue;
                    }
                    if is_absent(*sum) {
                        *sum = *v;
                    } else {
                        (*sum, *c) = kahan::add(*v, *sum, *c);
                    }
                }
            }
            Fold::Avg(means) => {
                for (v, mean) in values.iter().zip(means) {
                    if is_absent(*v) {
                        continue;
                    }
                    match mean {
                        Some(mean) => mean.add(*v),
                        None => *mean = Some(kahan::Mean::first(*v)),
                    }
                }
            }
            Fold::Extreme(found) => {
                let max = self.op == AggregateOp::Max;
                for (v, found) in values.iter().zip(found) {
                    if is_absent(*v) {
                        continue;
                    }
                    if found.is_nan() || (if max { *found < *v } else { *found > *v }) {
                        *found = *v;
                    }
                }
            }
            Fold::Count(counts) => {
                for (v, count) in values.iter().zip(counts) {
                    *count += f64::from(u8::from(!is_absent(*v)));
                }
            }
            Fold::Group(found) => {
                for (v, found) in values.iter().zip(found) {
                    if !is_absent(*v) {
                        *found = 1.0;
                    }
                }
            }
            Fold::Variance { count, mean, aux } => {
                for (((v, count), mean), aux) in values.iter().zip(count).zip(mean).zip(aux) {
                    if is_absent(*v) {
                        continue;
                    }
                    *count += 1.0;
                    if *count == 1.0 {
                        *mean = *v;
                        *aux = if v.is_finite() { 0.0 } else { f64::NAN };
                        continue;
                    }
                    let delta = v - *mean;
                    *mean += delta / *count;
                    *aux += delta * (v - *mean);
                }
            }
            Fold::Quantile(columns) => columns.push(values.to_vec()),
        }
    }

    fn fold_histograms(&self, group: &mut Group, column: &Column, name: &str) {
        match &mut group.fold {
            Fold::Count(counts) => {
                for (step, _) in &column.histograms {
                    counts[*step as usize] += 1.0;
                }
            }
            Fold::Group(found) => {
                for (step, _) in &column.histograms {
                    found[*step as usize] = 1.0;
                }
            }
            Fold::Sum { .. } | Fold::Avg(_) => {
                group.histograms.resize_with(self.axis.n, || None);
                for (step, h) in &column.histograms {
                    self.add_histogram(&mut group.histograms[*step as usize], h, name);
                }
            }
            _ => self.ctx.note(&Note::HistogramIgnoredInAggregation(aggregate_name(self.op)), self.span),
        }
    }

    fn add_histogram(&self, slot: &mut Slot, h: &FloatHistogram, name: &str) {
        let Some(acc) = slot else {
            *slot = Some(Box::new(Some(HistogramSum::first(h, self.op == AggregateOp::Avg))));
            return;
        };
        if let Some(sum) = &mut **acc
            && sum.add(h).is_err()
        {
            **acc = None;
            self.ctx.note(&Note::MixedExponentialCustom(name), self.span);
        }
    }

    fn finish(&self, group: Group) -> Column {
        let values: Vec<f64> = match group.fold {
            Fold::Sum { mut sum, c } => {
                for (sum, c) in sum.iter_mut().zip(c) {
                    if !is_absent(*sum) {
                        *sum += c;
                    }
                }
                sum
            }
            Fold::Avg(means) => means.iter().map(|m| m.map_or(ABSENT, |m| m.get())).collect(),
            Fold::Extreme(found) | Fold::Group(found) => found,
            Fold::Count(counts) => counts.into_iter().map(|c| if c == 0.0 { ABSENT } else { c }).collect(),
            Fold::Variance { count, aux, .. } => {
                let root = self.op == AggregateOp::Stddev;
                let variance = |(n, aux): (f64, f64)| match (n, root) {
                    (0.0, _) => ABSENT,
                    (_, true) => (aux / n).sqrt(),
                    (_, false) => aux / n,
                };
                count.into_iter().zip(aux).map(variance).collect()
            }
            Fold::Quantile(columns) => {
                let phi = |step| self.param.as_ref().map_or(f64::NAN, |p| p.at(step));
                let mut values = Vec::with_capacity(columns.len());
                let answer = |step: usize| {
                    values.clear();
                    values.extend(columns.iter().map(|column| column[step]).filter(|v| !is_absent(*v)));
                    if values.is_empty() { ABSENT } else { quantile::quantile(phi(step), &mut values) }
                };
                (0..self.axis.n).map(answer).collect()
            }
        };
        let mut column = Column { values, histograms: Vec::new() };
        for (step, acc) in group.histograms.into_iter().enumerate() {
            if let Some(acc) = acc {
                self.finish_histogram(step, *acc, &mut column);
            }
        }
        column
    }

    fn finish_histogram(&self, step: usize, acc: Option<HistogramSum>, column: &mut Column) {
        if let Some(sum) = &acc {
            if sum.collides() {
                self.ctx.note(&Note::CounterResetCollision(HistogramOperation::Aggregation), self.span);
            }
            if sum.reconciled() {
                self.ctx.note(&Note::MismatchedCustomBuckets(HistogramOperation::Aggregation), self.span);
            }
        }
        if !is_absent(column.values[step]) {
            self.ctx.note(&Note::MixedFloatsHistogramsAggregation, self.span);
            column.values[step] = ABSENT;
        } else if let Some(sum) = acc {
            column.histograms.push((step as u32, Arc::new(sum.finish())));
        }
    }
}
