//! From the tree of a query to a plan: durations resolved, parentheses gone, functions looked up, parts that are
//! the same at every step marked, and hints for the storage attached.

/// Duration expressions.
mod duration;
/// Tree to plan.
mod lower;
/// Conditions that a join carries from one side to the other.
mod narrow;
/// Which time a plan reads.
mod reach;

pub use duration::constant;
pub use lower::{PlanOptions, aggregate_name, plan};
pub use reach::reach;

use std::sync::Arc;

use super::functions::Func;
use super::parse::Span;
use super::parse::ast::{AggregateOp, BinaryOp, RangeExtension, VectorMatching};
use crate::model::Matcher;
use crate::tsdb::Projection;

/// One node of a plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it computes.
    pub kind: Kind,
    /// Place of the expression itself.
    pub span: Span,
    /// Place with the parentheses around it.
    pub outer_span: Span,
}

/// What a plan node computes.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A constant.
    Number(f64),
    /// A text.
    String(Arc<str>),
    /// Unary minus.
    Negate(Box<Plan>),
    /// A binary operation.
    Binary(Box<Binary>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A function call.
    Call(Call),
    /// An instant vector.
    Selector(Selector),
    /// A range vector.
    Window(Box<Window>),
    /// Something that is the same at every step: evaluated once.
    Invariant(Box<Plan>),
}

/// A binary operation.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Plan,
    /// Right side.
    pub rhs: Plan,
    /// How vectors pair up.
    pub matching: Option<VectorMatching>,
    /// 0 and 1 instead of filtering.
    pub return_bool: bool,
}

/// An aggregation.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// Operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Plan,
    /// Parameter.
    pub param: Option<Plan>,
    /// Labels of the clause, sorted.
    pub grouping: Vec<Arc<str>>,
    /// `without` rather than `by`.
    pub without: bool,
}

/// A function call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Function.
    pub func: Func,
    /// Arguments.
    pub args: Vec<Plan>,
}

/// `@` and `offset` with everything resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    /// Fixed time, milliseconds.
    pub at: Option<i64>,
    /// Looks back this far, milliseconds; negative looks ahead.
    pub offset: i64,
}

impl Shift {
    /// The time that is looked at when the step is `t_ms`.
    #[inline]
    #[must_use]
    pub fn apply(&self, t_ms: i64) -> i64 {
        self.at.unwrap_or(t_ms).saturating_sub(self.offset)
    }
}

/// An instant vector selector.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Conditions.
    pub matchers: Vec<Matcher>,
    /// Where in time.
    pub shift: Shift,
    /// `anchored` or `smoothed`.
    pub extension: RangeExtension,
    /// Hint: the function around it.
    pub function: Option<Arc<str>>,
    /// Hint: labels that matter.
    pub projection: Option<Projection>,
    /// Hint: only count and sum of histograms matter.
    pub skip_buckets: bool,
    /// Hint: only where there are samples matters, not their values.
    pub presence_alone: bool,
}

impl Selector {
    /// The one metric name that all series have, if the matchers say so.
    #[must_use]
    pub fn fixed_name(&self) -> Option<&Arc<str>> {
        self.matchers
            .iter()
            .find(|m| &*m.name == crate::model::METRIC_NAME && m.op == crate::model::MatchOp::Equal)
            .map(|m| &m.value)
    }
}

/// A range vector.
#[derive(Debug, Clone)]
pub struct Window {
    /// Where the samples come from.
    pub source: Source,
    /// Length, milliseconds.
    pub range_ms: i64,
}

/// Where the samples of a window come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Storage.
    Selector(Selector),
    /// An expression, evaluated at absolute multiples of `step_ms`.
    Subquery {
        /// The expression.
        expr: Plan,
        /// Distance of its steps, milliseconds.
        step_ms: i64,
        /// Where in time.
        shift: Shift,
    },
}

impl Source {
    /// Where in time.
    #[must_use]
    pub fn shift(&self) -> Shift {
        match self {
            Source::Selector(s) => s.shift,
            Source::Subquery { shift, .. } => *shift,
        }
    }
}

impl Plan {
    /// Whether the value is a scalar.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        match &self.kind {
            Kind::Number(_) => true,
            Kind::Negate(e) | Kind::Invariant(e) => e.is_scalar(),
            Kind::Binary(b) => b.lhs.is_scalar() && b.rhs.is_scalar(),
            Kind::Call(c) => c.func.is_scalar(),
            Kind::String(_) | Kind::Aggregate(_) | Kind::Selector(_) | Kind::Window(_) => false,
        }
    }

    /// The plan without the marks of invariance around it.
    #[must_use]
    pub fn bare(&self) -> &Plan {
        let mut plan = self;
        while let Kind::Invariant(inner) = &plan.kind {
            plan = inner;
        }
        plan
    }

    /// Length of the longest path to a leaf.
    #[must_use]
    pub fn depth(&self) -> usize {
        1 + match &self.kind {
            Kind::Number(_) | Kind::String(_) | Kind::Selector(_) => 0,
            Kind::Negate(e) | Kind::Invariant(e) => e.depth(),
            Kind::Binary(b) => b.lhs.depth().max(b.rhs.depth()),
            Kind::Aggregate(a) => a.expr.depth().max(a.param.as_ref().map_or(0, Plan::depth)),
            Kind::Call(c) => c.args.iter().map(Plan::depth).max().unwrap_or(0),
            Kind::Window(w) => match &w.source {
                Source::Selector(_) => 0,
                Source::Subquery { expr, .. } => expr.depth(),
            },
        }
    }
}
