//! From the nodes of a query to its result.

use std::sync::Arc;

use super::build::{Root, Value, build};
use super::column::{Axis, Column, Meta, is_absent};
use super::context::Context;
use super::grouping::drop_reserved;
use super::map::MapNode;
use super::merge::by_labels;
use super::node::{BoxNode, Held, Scratch};
use super::parallel::each_column;
use super::range::Windows;
use crate::model::SampleBuffer;
use crate::query::plan::{Kind, Plan};
use crate::query::value::PointValue;
use crate::query::{MatrixSeries, QueryError, QueryValue, VectorSample};

/// Runs a plan and collects its result. A matrix is not sorted yet.
pub fn answer(ctx: &Arc<Context>, plan: &Plan, axis: Axis, root: &Root) -> Result<QueryValue, QueryError> {
    if let Kind::Window(window) = &plan.bare().kind {
        return window_samples(ctx, &Windows::of(ctx, plan.bare(), window, axis, root)?);
    }
    match build(ctx, plan, axis, root)? {
        Value::String(s) => Ok(QueryValue::String { t_ms: axis.start, value: s.to_string() }),
        Value::Scalar(s) if root.instant => Ok(QueryValue::Scalar { t_ms: axis.start, value: s.at(0) }),
        Value::Scalar(s) => collect(ctx, s.into_vector(ctx, axis), axis, root),
        Value::Vector(node) => collect(ctx, node, axis, root),
    }
}

/// Drops the names that are still to be dropped; series that become equal are one series.
fn finish_names(ctx: &Arc<Context>, node: BoxNode, axis: Axis) -> Result<BoxNode, QueryError> {
    if !node.metas().iter().any(|m| m.drop_name) {
        return Ok(node);
    }
    let mut held = Held::new(ctx);
    let mut metas = Vec::with_capacity(node.metas().len());
    for m in node.metas() {
        let labels = if m.drop_name { drop_reserved(&m.labels) } else { m.labels.clone() };
        held.labels(&labels)?;
        metas.push(Meta::new(labels));
    }
    let node = Box::new(MapNode::relabelled(ctx, node, axis, (metas, held)));
    if ctx.rules.delayed_name_removal { by_labels(ctx, node, axis) } else { Ok(node) }
}

fn collect(ctx: &Arc<Context>, node: BoxNode, axis: Axis, root: &Root) -> Result<QueryValue, QueryError> {
    let node = finish_names(ctx, node, axis)?;
    let mut held = Held::new(ctx);
    if root.instant {
        let mut out = Vec::new();
        each_column(ctx, &*node, axis, |i, column| {
            let value = match column.point(0) {
                super::column::Point::None => return Ok(()),
                super::column::Point::Float(v) => PointValue::Float(v),
                super::column::Point::Histogram(h) => PointValue::Histogram(h),
            };
            held.grow(column.bytes() + 48, 1)?;
            out.push(VectorSample { labels: node.metas()[i].labels.clone(), t_ms: axis.start, value });
            Ok(())
        })?;
        return Ok(QueryValue::Vector(out));
    }
    let mut out = Vec::new();
    each_column(ctx, &*node, axis, |i, column| {
        let count = column.count();
        if count > 0 {
            held.grow(count * 16, count)?;
            out.push(series(node.metas()[i].clone(), column, axis, count));
        }
        Ok(())
    })?;
    Ok(QueryValue::Matrix(out))
}

fn series(meta: Meta, column: &mut Column, axis: Axis, count: usize) -> MatrixSeries {
    let mut floats = Vec::with_capacity(count - column.histograms.len());
    for (step, v) in column.values.iter().enumerate() {
        if !is_absent(*v) {
            floats.push((axis.time(step), *v));
        }
    }
    let histograms = column.histograms.drain(..).map(|(step, h)| (axis.time(step as usize), h)).collect();
    MatrixSeries { labels: meta.labels, floats, histograms }
}

/// The samples of a range vector as they are.
fn window_samples(ctx: &Arc<Context>, windows: &Windows) -> Result<QueryValue, QueryError> {
    let mut scratch = Scratch::default();
    let mut buffer = SampleBuffer::default();
    let mut held = Held::new(ctx);
    let mut out = Vec::new();
    let (start, end, ..) = windows.edges(0);
    for (i, meta) in windows.metas().iter().enumerate() {
        ctx.check()?;
        windows.load(i, &mut scratch, &mut buffer)?;
        let inside = |t: i64| t > start && t <= end;
        let floats: Vec<(i64, f64)> = buffer
            .timestamps
            .iter()
            .copied()
            .zip(buffer.values.iter().copied())
            .filter(|(t, _)| inside(*t))
            .collect();
        let histograms: Vec<_> = buffer.histograms.iter().filter(|(t, _)| inside(*t)).cloned().collect();
        let count = floats.len() + histograms.len();
        if count > 0 {
            held.grow(count * 16, count)?;
            ctx.count_samples(0, count as u64);
            let labels = if meta.drop_name { drop_reserved(&meta.labels) } else { meta.labels.clone() };
            out.push(MatrixSeries { labels, floats, histograms });
        }
    }
    Ok(QueryValue::Matrix(out))
}
