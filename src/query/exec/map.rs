//! Functions of one series at a time: each output series is computed from one input series.

use std::sync::Arc;

use super::build::Scalar;
use super::column::{ABSENT, Axis, Column, Meta, Point, is_absent};
use super::context::Context;
use super::node::{BoxNode, Held, Node, Scratch};
use super::operators::{self, Site};
use crate::model::histogram::FloatHistogram;
use crate::query::QueryError;
use crate::query::functions::histops;
use crate::query::functions::math::{Elementwise, go_max, go_min, round_to};
use crate::query::functions::window::Either;
use crate::query::parse::Span;
use crate::query::parse::ast::BinaryOp;

/// What happens to the values.
pub enum Map {
    /// Nothing; only labels change.
    Keep,
    /// Histograms go, floats stay.
    FloatsOnly,
    /// A function of floats; histograms go.
    Float(Elementwise),
    /// A function of histograms; floats go.
    Histogram(fn(&FloatHistogram) -> f64),
    /// `clamp` and its one-sided forms; nothing at steps where the bounds contradict each other.
    Clamp(Option<Scalar>, Option<Scalar>),
    /// `round`.
    Round(Scalar),
    /// Unary minus.
    Negate,
    /// An operation with a scalar.
    Scalar {
        /// Operator.
        op: BinaryOp,
        /// The scalar.
        scalar: Scalar,
        /// The scalar stands on the left.
        swap: bool,
        /// `bool` modifier.
        return_bool: bool,
        /// Place of the operation.
        span: Span,
    },
    /// The time of the step, seconds, wherever there is a value (`timestamp` of an expression).
    StepTime,
}

/// A mapped node.
pub struct MapNode {
    ctx: Arc<Context>,
    input: BoxNode,
    metas: Vec<Meta>,
    axis: Axis,
    map: Map,
    /// Keeps new labels charged.
    _held: Option<Held>,
}

impl MapNode {
    /// Maps all series; `drop_name` marks the names for removal.
    #[must_use]
    pub fn new(ctx: &Arc<Context>, input: BoxNode, axis: Axis, map: Map, drop_name: bool) -> Self {
        let metas = input
            .metas()
            .iter()
            .map(|m| Meta { labels: m.labels.clone(), drop_name: m.drop_name || drop_name })
            .collect();
        Self { ctx: Arc::clone(ctx), input, metas, axis, map, _held: None }
    }

    /// Maps all series to the given labels, which are charged already.
    #[must_use]
    pub fn relabelled(
        ctx: &Arc<Context>,
        input: BoxNode,
        axis: Axis,
        (metas, held): (Vec<Meta>, Held),
    ) -> Self {
        Self { ctx: Arc::clone(ctx), input, metas, axis, map: Map::Keep, _held: Some(held) }
    }

    fn scalar_operation(&self, column: &mut Column) {
        let Map::Scalar { op, scalar, swap, return_bool, span } = &self.map else { return };
        let site = Site { ctx: &self.ctx, span: *span };
        let histograms = std::mem::take(&mut column.histograms);
        let comparison = operators::is_comparison(*op);
        for (step, v) in column.values.iter_mut().enumerate() {
            if is_absent(*v) {
                continue;
            }
            let s = scalar.at(step);
            let (a, b) = if *swap { (s, *v) } else { (*v, s) };
            if comparison {
                let keep = operators::compare(*op, a, b);
                if *return_bool {
                    *v = f64::from(u8::from(keep));
                } else if !keep {
                    *v = ABSENT;
                }
            } else if matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
                let _ = operators::combine(*op, Either::Float(a), Either::Float(b), &site);
                *v = ABSENT;
            } else {
                *v = operators::arithmetic(*op, a, b);
            }
        }
        for (step, h) in histograms {
            let s = Either::Float(scalar.at(step as usize));
            let value = Either::Histogram(&h);
            let (a, b) = if *swap { (s, value) } else { (value, s) };
            column.push(step as usize, operators::filtered(*op, *return_bool, a, b, &site));
        }
    }

    fn apply(&self, column: &mut Column) {
        match &self.map {
            Map::Keep => {}
            Map::FloatsOnly => column.histograms.clear(),
            Map::Float(f) => {
                column.histograms.clear();
                for v in &mut column.values {
                    if !is_absent(*v) {
                        *v = f(*v);
                    }
                }
            }
            Map::Histogram(f) => {
                column.values.fill(ABSENT);
                for (step, h) in std::mem::take(&mut column.histograms) {
                    column.values[step as usize] = f(&h);
                }
            }
            Map::Clamp(min, max) => {
                column.histograms.clear();
                for (step, v) in column.values.iter_mut().enumerate() {
                    if is_absent(*v) {
                        continue;
                    }
                    let (low, high) = (min.as_ref().map(|s| s.at(step)), max.as_ref().map(|s| s.at(step)));
                    if let (Some(low), Some(high)) = (low, high)
                        && high < low
                    {
                        *v = ABSENT;
                        continue;
                    }
                    if let Some(high) = high {
                        *v = go_min(high, *v);
                    }
                    if let Some(low) = low {
                        *v = go_max(low, *v);
                    }
                }
            }
            Map::Round(to) => {
                column.histograms.clear();
                for (step, v) in column.values.iter_mut().enumerate() {
                    if !is_absent(*v) {
                        *v = round_to(*v, 1.0 / to.at(step));
                    }
                }
            }
            Map::Negate => {
                for v in &mut column.values {
                    if !is_absent(*v) {
                        *v = -*v;
                    }
                }
                for (_, h) in &mut column.histograms {
                    let mut negative = (**h).clone();
                    histops::mul(&mut negative, -1.0);
                    *h = Arc::new(negative);
                }
            }
            Map::Scalar { .. } => self.scalar_operation(column),
            Map::StepTime => {
                for (step, _) in std::mem::take(&mut column.histograms) {
                    column.values[step as usize] = 0.0;
                }
                for (step, v) in column.values.iter_mut().enumerate() {
                    if !is_absent(*v) {
                        *v = self.axis.time(step) as f64 / 1000.0;
                    }
                }
            }
        }
    }
}

impl Node for MapNode {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        self.input.fill(i, scratch, out)?;
        self.apply(out);
        Ok(())
    }

    fn cost(&self) -> usize {
        self.input.cost() + self.axis.n
    }

    fn ordered(&self) -> bool {
        self.input.ordered()
    }
}

/// The same value at every step: what was evaluated once.
pub struct Broadcast {
    input: BoxNode,
    n: usize,
}

impl Broadcast {
    /// Repeats the one step of `input`.
    #[must_use]
    pub fn new(input: BoxNode, n: usize) -> Self {
        Self { input, n }
    }
}

impl Node for Broadcast {
    fn metas(&self) -> &[Meta] {
        self.input.metas()
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        self.input.fill(i, scratch, out)?;
        match out.point(0) {
            Point::None => out.reset(self.n),
            Point::Float(v) => {
                out.histograms.clear();
                out.values.clear();
                out.values.resize(self.n, v);
            }
            Point::Histogram(h) => {
                out.reset(self.n);
                out.histograms.extend((0..self.n).map(|step| (step as u32, Arc::clone(&h))));
            }
        }
        Ok(())
    }

    fn cost(&self) -> usize {
        self.input.cost() + self.n
    }

    fn ordered(&self) -> bool {
        self.input.ordered()
    }
}
