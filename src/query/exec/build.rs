//! Plan to nodes. Building a node finds the labels of its result; aggregations and other functions that need all
//! series of a step compute here, everything else waits until somebody asks for columns.

use std::sync::Arc;
use std::time::Instant;

use super::across;
use super::aggregate::{Folding, group_rule};
use super::aggregate_k::{Choosing, count_values};
use super::buckets::{Ask, BucketNode};
use super::column::{Axis, Column, Meta, is_absent};
use super::context::Context;
use super::join::Join;
use super::map::{Broadcast, Map, MapNode};
use super::merge::after_drop;
use super::node::{BoxNode, Held, Materialised};
use super::operators::{changes_meaning, is_set, scalars};
use super::range::{RangeNode, Windows};
use super::relabel::{label_join, label_replace};
use super::selector::{SelectorNode, Take};
use super::sets::set_operation;
use crate::model::Labels;
use crate::model::histogram::FloatHistogram;
use crate::query::QueryError;
use crate::query::annotations::Note;
use crate::query::explain::Counted;
use crate::query::functions::math::elementwise;
use crate::query::functions::{Func, histogram};
use crate::query::parse::ast::{AggregateOp, VectorMatching};
use crate::query::plan::{Aggregate, Binary, Call, Kind, Plan};

/// What the whole query is about.
#[derive(Debug, Clone, Copy)]
pub struct Root {
    /// First step, milliseconds.
    pub start_ms: i64,
    /// Last step, milliseconds.
    pub end_ms: i64,
    /// Distance of steps, milliseconds; 0 in instant queries.
    pub step_ms: i64,
    /// One step, and the order of the result is the caller's to see.
    pub instant: bool,
}

/// A number at each step.
#[derive(Debug, Clone)]
pub enum Scalar {
    /// The same at all steps.
    Const(f64),
    /// One for each step.
    Steps(Vec<f64>),
}

impl Scalar {
    /// The number at a step.
    #[inline]
    #[must_use]
    pub fn at(&self, step: usize) -> f64 {
        match self {
            Scalar::Const(v) => *v,
            Scalar::Steps(values) => values[step],
        }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Scalar {
        match self {
            Scalar::Const(v) => Scalar::Const(f(v)),
            Scalar::Steps(values) => Scalar::Steps(values.into_iter().map(f).collect()),
        }
    }

    fn zip(a: &Scalar, b: &Scalar, n: usize, f: impl Fn(f64, f64) -> f64) -> Scalar {
        match (a, b) {
            (Scalar::Const(a), Scalar::Const(b)) => Scalar::Const(f(*a, *b)),
            _ => Scalar::Steps((0..n).map(|step| f(a.at(step), b.at(step))).collect()),
        }
    }

    /// A vector of one series without labels.
    #[must_use]
    pub fn into_vector(self, ctx: &Arc<Context>, axis: Axis) -> BoxNode {
        let values: Vec<f64> = match self {
            Scalar::Const(v) => vec![v; axis.n],
            Scalar::Steps(values) => values,
        };
        // No arithmetic makes the marker, but a NaN that looks like it must stay a value.
        let values = values.into_iter().map(|v| if is_absent(v) { f64::NAN } else { v }).collect();
        let column = Column { values, histograms: Vec::new() };
        Box::new(Materialised::new(vec![Meta::new(Labels::empty())], vec![column], Held::new(ctx)))
    }
}

/// The value of an expression while it runs.
pub enum Value {
    /// A number at each step.
    Scalar(Scalar),
    /// A vector at each step.
    Vector(BoxNode),
    /// A text.
    String(Arc<str>),
}

fn wrong_type(expected: &str) -> QueryError {
    QueryError::Execution(format!("expected {expected} in expression evaluation"))
}

/// Builds `plan` over `axis`.
pub fn build(ctx: &Arc<Context>, plan: &Plan, axis: Axis, root: &Root) -> Result<Value, QueryError> {
    let builder = Builder { ctx, axis, root };
    builder.value(plan)
}

struct Builder<'a> {
    ctx: &'a Arc<Context>,
    axis: Axis,
    root: &'a Root,
}

impl Builder<'_> {
    fn value(&self, plan: &Plan) -> Result<Value, QueryError> {
        self.ctx.check()?;
        let Some(profile) = &self.ctx.profile else { return self.compute(plan) };
        let cost = profile.cost(plan);
        let began = Instant::now();
        let value = self.compute(plan);
        cost.add_time(began.elapsed());
        Ok(match value? {
            Value::Vector(node) => Value::Vector(Box::new(Counted::new(node, cost))),
            other => other,
        })
    }

    fn compute(&self, plan: &Plan) -> Result<Value, QueryError> {
        Ok(match &plan.kind {
            Kind::Number(v) => Value::Scalar(Scalar::Const(*v)),
            Kind::String(s) => Value::String(Arc::clone(s)),
            Kind::Negate(e) => match self.value(e)? {
                Value::Scalar(s) => Value::Scalar(s.map(|v| -v)),
                Value::Vector(node) => Value::Vector(self.map(node, Map::Negate, true)?),
                Value::String(_) => return Err(wrong_type("a number or vector")),
            },
            Kind::Binary(b) => self.binary(plan, b)?,
            Kind::Aggregate(a) => Value::Vector(self.aggregate(a)?),
            Kind::Call(c) => self.call(plan, c)?,
            Kind::Selector(s) => {
                Value::Vector(Box::new(SelectorNode::new(self.ctx, s, self.axis, Take::Value, plan.span)?))
            }
            Kind::Window(_) => return Err(wrong_type("an instant vector")),
            Kind::Invariant(e) => {
                let once = Axis { start: self.axis.start, step: self.axis.step, n: 1 };
                let n = self.axis.n;
                match build(self.ctx, e, once, self.root)? {
                    Value::Scalar(Scalar::Steps(v)) => {
                        Value::Scalar(Scalar::Const(v.first().copied().unwrap_or(f64::NAN)))
                    }
                    Value::Vector(node) if n != 1 => Value::Vector(Box::new(Broadcast::new(node, n))),
                    other => other,
                }
            }
        })
    }

    fn vector(&self, plan: &Plan) -> Result<BoxNode, QueryError> {
        match self.value(plan)? {
            Value::Vector(node) => Ok(node),
            _ => Err(wrong_type("an instant vector")),
        }
    }

    fn scalar(&self, plan: &Plan) -> Result<Scalar, QueryError> {
        match self.value(plan)? {
            Value::Scalar(scalar) => Ok(scalar),
            _ => Err(wrong_type("a scalar")),
        }
    }

    fn map(&self, node: BoxNode, map: Map, drop_name: bool) -> Result<BoxNode, QueryError> {
        let mapped = Box::new(MapNode::new(self.ctx, node, self.axis, map, drop_name));
        if drop_name { after_drop(self.ctx, mapped, self.axis) } else { Ok(mapped) }
    }

    fn binary(&self, plan: &Plan, b: &Binary) -> Result<Value, QueryError> {
        let (left, right) = (self.value(&b.lhs)?, self.value(&b.rhs)?);
        let drop_name = changes_meaning(b.op) || b.return_bool;
        let with_scalar = |scalar, swap| Map::Scalar {
            op: b.op,
            scalar,
            swap,
            return_bool: b.return_bool,
            span: plan.span,
        };
        Ok(match (left, right) {
            (Value::Scalar(x), Value::Scalar(y)) => {
                Value::Scalar(Scalar::zip(&x, &y, self.axis.n, |x, y| scalars(b.op, x, y)))
            }
            (Value::Vector(node), Value::Scalar(s)) => {
                Value::Vector(self.map(node, with_scalar(s, false), drop_name)?)
            }
            (Value::Scalar(s), Value::Vector(node)) => {
                Value::Vector(self.map(node, with_scalar(s, true), drop_name)?)
            }
            (Value::Vector(x), Value::Vector(y)) => {
                let Some(matching) = &b.matching else {
                    return Err(wrong_type("a matching clause"));
                };
                Value::Vector(self.vectors(plan, b, matching, x, y)?)
            }
            _ => return Err(wrong_type("numbers or vectors")),
        })
    }

    fn vectors(
        &self,
        plan: &Plan,
        b: &Binary,
        matching: &VectorMatching,
        x: BoxNode,
        y: BoxNode,
    ) -> Result<BoxNode, QueryError> {
        if is_set(b.op) {
            return set_operation(self.ctx, b.op, matching, x, y, self.axis);
        }
        let join = Join {
            ctx: self.ctx,
            op: b.op,
            matching,
            return_bool: b.return_bool,
            axis: self.axis,
            span: plan.span,
        };
        join.run(x, y)
    }

    fn aggregate(&self, a: &Aggregate) -> Result<BoxNode, QueryError> {
        let (ctx, axis, op, span) = (self.ctx, self.axis, a.op, a.expr.outer_span);
        if op == AggregateOp::CountValues {
            let param = a.param.as_ref().map(Plan::bare);
            let Some((Kind::String(label), span)) = param.map(|p| (&p.kind, p.span)) else {
                return Err(wrong_type("a label name"));
            };
            let input = self.vector(&a.expr)?;
            return count_values(ctx, &*input, (label, span), &a.grouping, a.without, axis);
        }
        let param = a.param.as_ref().map(|p| self.scalar(p)).transpose()?;
        let param_span = a.param.as_ref().map_or(span, |p| p.outer_span);
        let input = self.vector(&a.expr)?;
        let rule = group_rule(&a.grouping, a.without);
        match (op, param) {
            (
                AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio,
                Some(param),
            ) => Choosing { ctx, op, param, axis, span, param_span }.run(&*input, rule),
            (_, param) => Folding { ctx, op, param, axis, span, param_span }.run(&*input, rule),
        }
    }

    fn call(&self, plan: &Plan, c: &Call) -> Result<Value, QueryError> {
        if let Some(scalar) = self.scalar_call(c)? {
            return Ok(Value::Scalar(scalar));
        }
        if c.args.iter().any(|arg| matches!(arg.bare().kind, Kind::Window(_))) {
            return self.window_call(c).map(Value::Vector);
        }
        self.vector_call(plan, c).map(Value::Vector)
    }

    fn scalar_call(&self, c: &Call) -> Result<Option<Scalar>, QueryError> {
        let seconds = |ms: i64| Scalar::Const(ms as f64 / 1000.0);
        Ok(Some(match c.func {
            Func::Pi => Scalar::Const(std::f64::consts::PI),
            Func::Time => {
                Scalar::Steps((0..self.axis.n).map(|step| self.axis.time(step) as f64 / 1000.0).collect())
            }
            Func::Start => seconds(self.root.start_ms),
            Func::End => seconds(self.root.end_ms),
            Func::Step => seconds(self.root.step_ms),
            Func::Range => seconds(self.root.end_ms.saturating_sub(self.root.start_ms)),
            Func::Scalar => across::scalar(self.ctx, &*self.vector(&c.args[0])?, self.axis)?,
            Func::MinOf | Func::MaxOf => {
                let pick = if c.func == Func::MinOf {
                    crate::query::functions::math::go_min
                } else {
                    crate::query::functions::math::go_max
                };
                let (x, y) = (self.scalar(&c.args[0])?, self.scalar(&c.args[1])?);
                Scalar::zip(&x, &y, self.axis.n, pick)
            }
            _ => return Ok(None),
        }))
    }

    fn window_call(&self, c: &Call) -> Result<BoxNode, QueryError> {
        let mut params = Vec::new();
        let (mut windows, mut span, mut param_span) = (None, None, None);
        for arg in &c.args {
            if let Kind::Window(window) = &arg.bare().kind {
                windows = Some(Windows::of(self.ctx, arg.bare(), window, self.axis, self.root)?);
                span = Some(arg.outer_span);
            } else {
                params.push(self.scalar(arg)?);
                param_span = param_span.or(Some(arg.outer_span));
            }
        }
        let (Some(windows), Some(span)) = (windows, span) else { return Err(wrong_type("a range vector")) };
        let node = RangeNode::new(windows, c.func, params, span, param_span.unwrap_or(span))?;
        if c.func == Func::AbsentOverTime {
            let arg = c.args.first().ok_or_else(|| wrong_type("a range vector"))?;
            return across::absent(self.ctx, &node, across::absent_labels(arg), self.axis);
        }
        if matches!(c.func, Func::LastOverTime | Func::FirstOverTime) {
            return Ok(Box::new(node));
        }
        after_drop(self.ctx, Box::new(node), self.axis)
    }

    fn strings(args: &[Plan]) -> Result<Vec<Arc<str>>, QueryError> {
        args.iter()
            .map(|arg| match &arg.bare().kind {
                Kind::String(s) => Ok(Arc::clone(s)),
                _ => Err(wrong_type("a string")),
            })
            .collect()
    }

    fn vector_call(&self, plan: &Plan, c: &Call) -> Result<BoxNode, QueryError> {
        let (ctx, axis) = (self.ctx, self.axis);
        let first = c.args.first();
        let arg = || first.ok_or_else(|| wrong_type("an argument"));
        if let Some(f) = elementwise(c.func) {
            let input = match first {
                Some(arg) => self.vector(arg)?,
                // Calendar functions default to the time of the step.
                None => Scalar::Steps((0..axis.n).map(|s| axis.time(s) as f64 / 1000.0).collect())
                    .into_vector(ctx, axis),
            };
            return self.map(input, Map::Float(f), true);
        }
        match c.func {
            Func::Vector => Ok(self.scalar(arg()?)?.into_vector(ctx, axis)),
            Func::Absent => {
                let labels = across::absent_labels(arg()?);
                across::absent(ctx, &*self.vector(arg()?)?, labels, axis)
            }
            Func::Timestamp | Func::StartTimestamp => self.timestamp(c.func, arg()?),
            Func::Clamp => {
                let (low, high) = (self.scalar(&c.args[1])?, self.scalar(&c.args[2])?);
                self.map(self.vector(arg()?)?, Map::Clamp(Some(low), Some(high)), true)
            }
            Func::ClampMin => {
                let low = self.scalar(&c.args[1])?;
                self.map(self.vector(arg()?)?, Map::Clamp(Some(low), None), true)
            }
            Func::ClampMax => {
                let high = self.scalar(&c.args[1])?;
                self.map(self.vector(arg()?)?, Map::Clamp(None, Some(high)), true)
            }
            Func::Round => {
                let to = c.args.get(1).map_or(Ok(Scalar::Const(1.0)), |to| self.scalar(to))?;
                self.map(self.vector(arg()?)?, Map::Round(to), true)
            }
            Func::Sort | Func::SortDesc | Func::SortByLabel | Func::SortByLabelDesc => self.sort(plan, c),
            Func::LabelReplace => {
                let input = self.vector(arg()?)?;
                let texts = Self::strings(&c.args[1..])?;
                match &texts[..] {
                    [a, b, c, d] => label_replace(ctx, input, axis, [a, b, c, d]),
                    _ => Err(wrong_type("four strings")),
                }
            }
            Func::LabelJoin => {
                let input = self.vector(arg()?)?;
                let texts = Self::strings(&c.args[1..])?;
                match &texts[..] {
                    [dst, separator, sources @ ..] => label_join(ctx, input, axis, dst, separator, sources),
                    _ => Err(wrong_type("a label name and a separator")),
                }
            }
            Func::HistogramCount
            | Func::HistogramSum
            | Func::HistogramAvg
            | Func::HistogramStddev
            | Func::HistogramStdvar => {
                let f: fn(&FloatHistogram) -> f64 = match c.func {
                    Func::HistogramCount => |h| h.count,
                    Func::HistogramSum => |h| h.sum,
                    Func::HistogramAvg => histogram::histogram_avg,
                    Func::HistogramStddev => histogram::histogram_stddev,
                    _ => histogram::histogram_stdvar,
                };
                self.map(self.vector(arg()?)?, Map::Histogram(f), true)
            }
            Func::HistogramQuantile | Func::HistogramFraction | Func::HistogramQuantiles => {
                self.distributions(c)
            }
            Func::Info => {
                let matchers = match c.args.get(1).map(|a| &a.bare().kind) {
                    Some(Kind::Selector(s)) => Some(&s.matchers[..]),
                    _ => None,
                };
                super::info::info(ctx, &*self.vector(arg()?)?, arg()?, matchers, axis)
            }
            _ => Err(QueryError::Execution(format!("function {} is not evaluated", c.func.name()))),
        }
    }

    fn distributions(&self, c: &Call) -> Result<BoxNode, QueryError> {
        let [first, second, rest @ ..] = &c.args[..] else { return Err(wrong_type("two arguments")) };
        let (vector, ask, spans) = match (c.func, rest) {
            (Func::HistogramQuantile, _) => {
                (second, Ask::Quantile(self.scalar(first)?), vec![first.outer_span])
            }
            (Func::HistogramFraction, [vector, ..]) => {
                (vector, Ask::Fraction(self.scalar(first)?, self.scalar(second)?), Vec::new())
            }
            _ => {
                let label = Self::strings(std::slice::from_ref(second))?.remove(0);
                let phis = rest.iter().map(|phi| self.scalar(phi)).collect::<Result<_, _>>()?;
                let spans = rest.iter().map(|phi| phi.outer_span).collect();
                (first, Ask::Quantiles(label.to_string(), phis), spans)
            }
        };
        let input = self.vector(vector)?;
        let node = BucketNode::new(self.ctx, &*input, self.axis, ask, vector.outer_span, &spans)?;
        after_drop(self.ctx, Box::new(node), self.axis)
    }

    fn timestamp(&self, func: Func, arg: &Plan) -> Result<BoxNode, QueryError> {
        let (ctx, axis) = (self.ctx, self.axis);
        let take = if func == Func::Timestamp { Take::Timestamp } else { Take::StartTimestamp };
        if let Kind::Selector(selector) = &arg.bare().kind {
            let node = Box::new(SelectorNode::new(ctx, selector, axis, take, arg.span)?);
            return after_drop(ctx, node, axis);
        }
        let input = self.vector(arg)?;
        if take == Take::Timestamp {
            return self.map(input, Map::StepTime, true);
        }
        // Only stored samples have a start timestamp.
        Ok(Box::new(Materialised::new(Vec::new(), Vec::new(), Held::new(ctx))))
    }

    fn sort(&self, plan: &Plan, c: &Call) -> Result<BoxNode, QueryError> {
        let (ctx, axis) = (self.ctx, self.axis);
        let Some(arg) = c.args.first() else { return Err(wrong_type("an argument")) };
        let input = self.vector(arg)?;
        let by_label = matches!(c.func, Func::SortByLabel | Func::SortByLabelDesc);
        if !self.root.instant || axis.n != 1 {
            if !self.root.instant {
                ctx.note(&Note::SortIneffective, plan.span);
            }
            return if by_label { Ok(input) } else { self.map(input, Map::FloatsOnly, false) };
        }
        let descending = matches!(c.func, Func::SortDesc | Func::SortByLabelDesc);
        if by_label {
            let names = Self::strings(&c.args[1..])?;
            across::sort_by_label(ctx, &*input, &names, descending, axis)
        } else {
            across::sort(ctx, &*input, descending, axis)
        }
    }
}
