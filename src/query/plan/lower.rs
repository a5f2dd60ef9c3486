//! Tree to plan.

use std::sync::Arc;

use super::duration::{resolve, resolve_positive};
use super::narrow::narrow;
use super::{Aggregate, Binary, Call, Kind, Plan, Selector, Shift, Source, Window};
use crate::query::QueryError;
use crate::query::functions::Func;
use crate::query::parse::ast::{
    AggregateExpr, AggregateOp, AtModifier, BinaryExpr, BinaryOp, Expr, RangeExtension, SubqueryExpr,
    VectorSelector,
};
use crate::tsdb::Projection;

/// What a plan depends on besides the tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// First step of the query, milliseconds.
    pub start_ms: i64,
    /// Last step, milliseconds.
    pub end_ms: i64,
    /// Distance, milliseconds; 0 in instant queries.
    pub step_ms: i64,
    /// Step of subqueries without one, milliseconds.
    pub default_subquery_step_ms: i64,
    /// Type and unit are needed beside the name: no projection.
    pub type_and_unit_labels: bool,
}

/// Hints that grow on the way down.
#[derive(Debug, Clone, Default)]
struct Around {
    function: Option<Arc<str>>,
    projection: Option<Projection>,
    skip_buckets: bool,
    presence_alone: bool,
}

impl Around {
    fn under(function: &str) -> Self {
        Self { function: Some(function.into()), ..Self::default() }
    }
}

/// Lowers a whole query.
pub fn plan(expr: &Expr, options: &PlanOptions) -> Result<Plan, QueryError> {
    let (plan, invariant) = lower(expr, options, &Around::default())?;
    let mut plan = wrap(plan, invariant);
    narrow(&mut plan);
    Ok(plan)
}

/// Marks a part that is the same at every step; constants and windows take care of themselves.
fn wrap(plan: Plan, invariant: bool) -> Plan {
    if !invariant || matches!(plan.kind, Kind::Number(_) | Kind::String(_) | Kind::Window(_)) {
        return plan;
    }
    let (span, outer_span) = (plan.span, plan.outer_span);
    Plan { kind: Kind::Invariant(Box::new(plan)), span, outer_span }
}

fn lower(expr: &Expr, options: &PlanOptions, around: &Around) -> Result<(Plan, bool), QueryError> {
    let span = expr.span();
    let node = |kind| Plan { kind, span, outer_span: span };
    Ok(match expr {
        Expr::Number(n) => (node(Kind::Number(n.value)), true),
        Expr::String(s) => (node(Kind::String(Arc::clone(&s.value))), true),
        Expr::Paren(p) => {
            let (mut inner, invariant) = lower(&p.expr, options, around)?;
            inner.outer_span = span;
            (inner, invariant)
        }
        Expr::Unary(u) => {
            let around = Around { projection: None, ..around.clone() };
            let (inner, invariant) = lower(&u.expr, options, &around)?;
            if !u.negative {
                return Ok((Plan { outer_span: span, ..inner }, invariant));
            }
            let kind = match inner.kind {
                Kind::Number(v) => Kind::Number(-v),
                _ => Kind::Negate(Box::new(inner)),
            };
            (node(kind), invariant)
        }
        Expr::Binary(b) => lower_binary(b, options)?,
        Expr::Aggregate(a) => lower_aggregate(a, options, around)?,
        Expr::Call(c) => {
            let Some(func) = Func::from_name(c.func) else {
                return Err(QueryError::Execution(format!("unknown function with name {:?}", c.func)));
            };
            let inner = Around {
                function: Some(c.func.into()),
                projection: around.projection.clone().filter(|_| is_columnwise(func)),
                skip_buckets: func.skips_buckets() || (around.skip_buckets && !needs_buckets(func)),
                presence_alone: asks_for_presence(func),
            };
            let mut args = Vec::with_capacity(c.args.len());
            for arg in &c.args {
                args.push(lower(arg, options, &inner)?);
            }
            // info() reads series of its own at the times of its argument.
            let invariant = args.iter().all(|(_, invariant)| *invariant) && !func.depends_on_time();
            let args = args.into_iter().map(|(arg, i)| if invariant { arg } else { wrap(arg, i) }).collect();
            (node(Kind::Call(Call { func, args })), invariant)
        }
        Expr::Vector(v) => {
            let selector = lower_selector(v, options, around)?;
            let invariant = selector.shift.at.is_some();
            (node(Kind::Selector(selector)), invariant)
        }
        Expr::Matrix(m) => {
            let selector = lower_selector(&m.selector, options, around)?;
            let invariant = selector.shift.at.is_some();
            let range_ms = resolve_positive(&m.range, options)?;
            let window = Window { source: Source::Selector(selector), range_ms };
            (node(Kind::Window(Box::new(window))), invariant)
        }
        Expr::Subquery(s) => lower_subquery(s, options)?,
    })
}

/// Functions whose result for a series depends on nothing but that series.
fn is_columnwise(func: Func) -> bool {
    use Func::{
        AvgOverTime, Changes, CountOverTime, Delta, Deriv, FirstOverTime, Idelta, Increase, Irate,
        LastOverTime, MaxOverTime, MinOverTime, PresentOverTime, Rate, Resets, StddevOverTime,
        StdvarOverTime, SumOverTime,
    };
    matches!(
        func,
        Rate | Increase
            | Delta
            | Irate
            | Idelta
            | Deriv
            | Changes
            | Resets
            | AvgOverTime
            | MinOverTime
            | MaxOverTime
            | SumOverTime
            | CountOverTime
            | LastOverTime
            | FirstOverTime
            | PresentOverTime
            | StddevOverTime
            | StdvarOverTime
    )
}

/// Functions that look into the buckets of the histograms they are given.
fn needs_buckets(func: Func) -> bool {
    use Func::{
        Changes, HistogramFraction, HistogramQuantile, HistogramQuantiles, HistogramStddev, HistogramStdvar,
        Resets,
    };
    matches!(
        func,
        HistogramFraction
            | HistogramQuantile
            | HistogramQuantiles
            | HistogramStddev
            | HistogramStdvar
            | Changes
            | Resets
    )
}

/// Functions for which samples need to be there, whatever they say.
fn asks_for_presence(func: Func) -> bool {
    use Func::{
        Absent, AbsentOverTime, CountOverTime, PresentOverTime, Timestamp, TsOfFirstOverTime,
        TsOfLastOverTime,
    };
    matches!(
        func,
        Absent
            | AbsentOverTime
            | CountOverTime
            | PresentOverTime
            | Timestamp
            | TsOfFirstOverTime
            | TsOfLastOverTime
    )
}

fn lower_binary(b: &BinaryExpr, options: &PlanOptions) -> Result<(Plan, bool), QueryError> {
    // Between histograms even `histogram_count` needs the buckets: what does not go together is remarked on.
    let around = Around::default();
    let (lhs, left_invariant) = lower(&b.lhs, options, &around)?;
    // `or` hands on what stands on its right, the others only look where there is something.
    let presence_alone = matches!(b.op, BinaryOp::And | BinaryOp::Unless);
    let (rhs, right_invariant) = lower(&b.rhs, options, &Around { presence_alone, ..around })?;
    let invariant = left_invariant && right_invariant;
    let (lhs, rhs) =
        if invariant { (lhs, rhs) } else { (wrap(lhs, left_invariant), wrap(rhs, right_invariant)) };
    let binary = Binary { op: b.op, lhs, rhs, matching: b.matching.clone(), return_bool: b.return_bool };
    let plan = Plan { kind: Kind::Binary(Box::new(binary)), span: b.span, outer_span: b.span };
    Ok((plan, invariant))
}

fn lower_aggregate(
    a: &AggregateExpr,
    options: &PlanOptions,
    around: &Around,
) -> Result<(Plan, bool), QueryError> {
    let mut grouping = a.grouping.clone();
    grouping.sort_unstable();
    grouping.dedup();
    let folds = !matches!(
        a.op,
        AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::CountValues
    );
    let projection = (folds && !options.type_and_unit_labels).then(|| {
        if a.without { Projection::Exclude(grouping.clone()) } else { Projection::Include(grouping.clone()) }
    });
    let around = Around {
        projection,
        skip_buckets: matches!(a.op, AggregateOp::Count | AggregateOp::Group)
            || (around.skip_buckets && a.op != AggregateOp::CountValues),
        presence_alone: matches!(a.op, AggregateOp::Count | AggregateOp::Group),
        ..Around::under(aggregate_name(a.op))
    };
    let (expr, expr_invariant) = lower(&a.expr, options, &around)?;
    let param = a.param.as_ref().map(|p| lower(p, options, &Around::default())).transpose()?;
    let invariant = expr_invariant && param.as_ref().is_none_or(|(_, i)| *i);
    let expr = if invariant { expr } else { wrap(expr, expr_invariant) };
    let param = param.map(|(param, i)| if invariant { param } else { wrap(param, i) });
    let aggregate = Aggregate { op: a.op, expr, param, grouping, without: a.without };
    let plan = Plan { kind: Kind::Aggregate(Box::new(aggregate)), span: a.span, outer_span: a.span };
    Ok((plan, invariant))
}

fn lower_selector(
    v: &VectorSelector,
    options: &PlanOptions,
    around: &Around,
) -> Result<Selector, QueryError> {
    let offset = v.offset.as_ref().map_or(Ok(0), |o| resolve(o, options))?;
    let shift = Shift { at: v.at.map(|at| fixed_time(at, options)), offset };
    let mut selector = Selector {
        matchers: v.matchers.clone(),
        shift,
        extension: v.extension,
        function: around.function.clone(),
        projection: None,
        skip_buckets: around.skip_buckets && v.extension == RangeExtension::None,
        presence_alone: around.presence_alone && v.extension == RangeExtension::None,
    };
    // Without a fixed name, series that only differ in name could no longer be told apart.
    if selector.fixed_name().is_some() {
        selector.projection.clone_from(&around.projection);
    }
    Ok(selector)
}

fn fixed_time(at: AtModifier, options: &PlanOptions) -> i64 {
    match at {
        AtModifier::Timestamp(t_ms) => t_ms,
        AtModifier::Start => options.start_ms,
        AtModifier::End => options.end_ms,
    }
}

fn lower_subquery(s: &SubqueryExpr, options: &PlanOptions) -> Result<(Plan, bool), QueryError> {
    // No hint passes: between the points of a subquery only buckets can tell a reset.
    let (expr, inner_invariant) = lower(&s.expr, options, &Around::default())?;
    let offset = s.offset.as_ref().map_or(Ok(0), |o| resolve(o, options))?;
    let shift = Shift { at: s.at.map(|at| fixed_time(at, options)), offset };
    let step_ms = match &s.step {
        Some(step) => resolve_positive(step, options)?,
        None => options.default_subquery_step_ms.max(1),
    };
    let source = Source::Subquery { expr: wrap(expr, inner_invariant), step_ms, shift };
    let window = Window { source, range_ms: resolve_positive(&s.range, options)? };
    let plan = Plan { kind: Kind::Window(Box::new(window)), span: s.span, outer_span: s.span };
    Ok((plan, shift.at.is_some()))
}

/// The name of an aggregation operator.
#[must_use]
pub fn aggregate_name(op: AggregateOp) -> &'static str {
    match op {
        AggregateOp::Sum => "sum",
        AggregateOp::Avg => "avg",
        AggregateOp::Min => "min",
        AggregateOp::Max => "max",
        AggregateOp::Count => "count",
        AggregateOp::Group => "group",
        AggregateOp::Stddev => "stddev",
        AggregateOp::Stdvar => "stdvar",
        AggregateOp::Topk => "topk",
        AggregateOp::Bottomk => "bottomk",
        AggregateOp::Quantile => "quantile",
        AggregateOp::CountValues => "count_values",
        AggregateOp::Limitk => "limitk",
        AggregateOp::LimitRatio => "limit_ratio",
    }
}
