//! What did each part of a query cost? While a query is explained, every node of its plan counts its series, its
//! samples and its time; afterwards [`tree`] reads the counts off the plan.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::annotations::Annotations;
use super::engine::{QueryError, QueryStats};
use super::exec::column::{Column, Meta};
use super::exec::node::{BoxNode, Node, Scratch};
use super::plan::{Kind, Plan, Source, aggregate_name};

/// Levels of a plan that are shown; what is deeper counts in the level above.
pub const MAX_LEVELS: usize = 100;

/// A query's plan with what its parts cost.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The whole query.
    pub plan: PlanNode,
    /// Cost of the whole query.
    pub stats: QueryStats,
    /// Warnings and infos.
    pub annotations: Annotations,
}

/// One operation of a plan.
#[derive(Debug, Clone)]
pub struct PlanNode {
    /// `selector`, `range selector`, `subquery`, `aggregation`, `binary`, `call`, `negation`, `number`, `string`.
    pub kind: &'static str,
    /// Operator or function; empty for selectors.
    pub name: &'static str,
    /// The part of the query's text.
    pub text: String,
    /// The same at every step, so evaluated once.
    pub constant: bool,
    /// Series of its result (candidates: a series without any value counts).
    pub series: u64,
    /// Samples: of range selectors and subqueries those read, else values computed.
    pub samples: u64,
    /// Seconds spent here and below, added over all threads.
    pub seconds: f64,
    /// Seconds without those of the children.
    pub own_seconds: f64,
    /// Inputs.
    pub children: Vec<PlanNode>,
}

/// What one node cost.
#[derive(Debug, Default)]
pub struct Cost {
    series: AtomicU64,
    samples: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Cost {
    /// Adds series.
    pub fn add_series(&self, series: usize) {
        self.series.fetch_add(series as u64, Ordering::Relaxed);
    }

    /// Adds samples.
    pub fn add_samples(&self, samples: usize) {
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// Adds time.
    pub fn add_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// The costs of all nodes of one plan, told apart by their addresses: the plan does not move while it runs.
#[derive(Debug, Default)]
pub struct Profile(Mutex<HashMap<usize, Arc<Cost>>>);

fn address(plan: &Plan) -> usize {
    std::ptr::from_ref(plan).addr()
}

impl Profile {
    /// The cost of `plan`.
    #[must_use]
    pub fn cost(&self, plan: &Plan) -> Arc<Cost> {
        Arc::clone(self.0.lock().entry(address(plan)).or_default())
    }
}

/// A node that counts what passes through.
pub struct Counted {
    inner: BoxNode,
    cost: Arc<Cost>,
}

impl Counted {
    /// Counts the series of `inner` now and its columns as they are computed.
    #[must_use]
    pub fn new(inner: BoxNode, cost: Arc<Cost>) -> Self {
        cost.add_series(inner.metas().len());
        Self { inner, cost }
    }
}

impl Node for Counted {
    fn metas(&self) -> &[Meta] {
        self.inner.metas()
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        let began = Instant::now();
        let result = self.inner.fill(i, scratch, out);
        self.cost.add_time(began.elapsed());
        self.cost.add_samples(out.count());
        result
    }

    fn cost(&self) -> usize {
        self.inner.cost()
    }

    fn ordered(&self) -> bool {
        self.inner.ordered()
    }
}

/// The tree of a plan that has run.
#[must_use]
pub fn tree(plan: &Plan, profile: &Profile, query: &str) -> PlanNode {
    node(plan, profile, query, MAX_LEVELS)
}

fn node(plan: &Plan, profile: &Profile, query: &str, levels: usize) -> PlanNode {
    let bare = plan.bare();
    let children: Vec<PlanNode> = if levels == 0 {
        Vec::new()
    } else {
        inputs(bare).into_iter().map(|input| node(input, profile, query, levels - 1)).collect()
    };
    let cost = profile.cost(bare);
    let seconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64();
    let inclusive = seconds(cost.nanoseconds.load(Ordering::Relaxed));
    let below: f64 = children.iter().map(|c| c.seconds).sum();
    let (kind, name) = title(bare);
    let span = bare.span.start as usize..bare.span.end as usize;
    PlanNode {
        kind,
        name,
        text: query.get(span).unwrap_or_default().to_owned(),
        constant: !std::ptr::eq(plan, bare),
        series: cost.series.load(Ordering::Relaxed),
        samples: cost.samples.load(Ordering::Relaxed),
        seconds: inclusive.max(below),
        own_seconds: (inclusive - below).max(0.0),
        children,
    }
}

fn title(plan: &Plan) -> (&'static str, &'static str) {
    match &plan.kind {
        Kind::Number(_) => ("number", ""),
        Kind::String(_) => ("string", ""),
        Kind::Negate(_) => ("negation", "-"),
        Kind::Binary(b) => ("binary", b.op.as_str()),
        Kind::Aggregate(a) => ("aggregation", aggregate_name(a.op)),
        Kind::Call(c) => ("call", c.func.name()),
        Kind::Selector(_) => ("selector", ""),
        Kind::Window(w) => match w.source {
            Source::Selector(_) => ("range selector", ""),
            Source::Subquery { .. } => ("subquery", ""),
        },
        Kind::Invariant(inner) => title(inner.bare()),
    }
}

fn inputs(plan: &Plan) -> Vec<&Plan> {
    match &plan.kind {
        Kind::Number(_) | Kind::String(_) | Kind::Selector(_) => Vec::new(),
        Kind::Negate(e) | Kind::Invariant(e) => vec![e],
        Kind::Binary(b) => vec![&b.lhs, &b.rhs],
        Kind::Aggregate(a) => a.param.iter().chain([&a.expr]).collect(),
        Kind::Call(c) => c.args.iter().collect(),
        Kind::Window(w) => match &w.source {
            Source::Selector(_) => Vec::new(),
            Source::Subquery { expr, .. } => vec![expr],
        },
    }
}
