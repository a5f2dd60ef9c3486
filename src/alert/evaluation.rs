//! What do the rules of one stage return at this moment? Expressions and templates are evaluated here, without
//! touching any state, so that independent rules can be evaluated at the same time and nobody waits for a lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::alerting::{Alert, AlertingSpec, RuleSamples};
use super::evaluator::{Evaluator, RuleOrigin};
use super::group::GroupContext;
use super::recording::RecordingSpec;
use super::template::QuerySource;
use super::texts::{AlertTexts, Surroundings};
use crate::model::Labels;
use crate::query::value::PointValue;
use crate::telemetry::spans::{SpanContext, SpanKind};

/// How many rules of all groups may be evaluated besides those that their groups evaluate anyway
/// (`--rules.max-concurrent-evals`).
#[derive(Debug)]
pub struct EvalPermits(AtomicUsize);

impl EvalPermits {
    /// So many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self(AtomicUsize::new(permits))
    }

    /// Takes at most `wanted` permits, fewer if there are not as many, without waiting.
    fn take(&self, wanted: usize) -> usize {
        let mut taken = 0;
        let less = |free: usize| {
            taken = free.min(wanted);
            Some(free - taken)
        };
        // The closure always has an answer.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        taken
    }

    fn give_back(&self, permits: usize) {
        self.0.fetch_add(permits, Ordering::AcqRel);
    }
}

/// A rule as it is evaluated, apart from its state.
#[derive(Debug, Clone)]
pub(super) enum Task {
    Record(Arc<RecordingSpec>),
    Alert(Arc<AlertingSpec>, Arc<AlertTexts>),
}

/// What a rule returned.
pub(super) enum Found {
    /// To be stored.
    Samples(RuleSamples),
    /// The alerts that the expression asks for, sorted by labels, each label set once.
    Alerts(Vec<Alert>),
}

/// The outcome of one rule.
pub(super) struct Finished {
    pub result: Result<Found, String>,
    /// Seconds it took.
    pub seconds: f64,
}

/// When and within which limit.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// The group.
    pub origin: RuleOrigin,
    /// The slot, milliseconds.
    pub t_ms: i64,
    /// The slot less the query offset.
    pub query_t_ms: i64,
    /// Most series or alerts of one rule, 0 = unlimited.
    pub limit: usize,
}

struct TemplateQueries<'a> {
    evaluator: &'a dyn Evaluator,
    url: &'a str,
}

impl QuerySource for TemplateQueries<'_> {
    fn query(&self, query: &str, t_ms: i64) -> Result<Vec<(Labels, f64)>, String> {
        let floats = self.evaluator.eval(query, t_ms)?.into_iter().filter_map(|s| match s.value {
            PointValue::Float(v) => Some((s.labels, v)),
            PointValue::Histogram(_) => None,
        });
        Ok(floats.collect())
    }

    fn external_url(&self) -> &str {
        self.url
    }
}

/// Evaluates all tasks, several at once where the context has permits; the outcomes in order of the tasks.
pub(super) fn evaluate(tasks: &[Task], moment: &Moment, context: &GroupContext) -> Vec<Finished> {
    let wanted = tasks.len().saturating_sub(1);
    let Some(permits) = context.concurrency.as_ref().filter(|_| wanted > 0) else {
        return tasks.iter().map(|task| finish(task, moment, context)).collect();
    };
    let helpers = permits.take(wanted);
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Finished>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(i) else { return };
            *slots[i].lock() = Some(finish(task, moment, context));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            // A thread that cannot be started leaves its work to the others.
            let _ = std::thread::Builder::new().name("rule-eval".into()).spawn_scoped(scope, work);
        }
        work();
    });
    permits.give_back(helpers);
    let lost = || Finished { result: Err("the evaluation was lost".into()), seconds: 0.0 };
    slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(lost)).collect()
}

fn finish(task: &Task, moment: &Moment, context: &GroupContext) -> Finished {
    let started = Instant::now();
    let mut span = SpanContext::Outside.start("rule", SpanKind::Internal);
    span.set(
        "name",
        match task {
            Task::Record(spec) => spec.name.as_str(),
            Task::Alert(spec, _) => spec.name.as_str(),
        },
    );
    let trace = span.context();
    let result = catch_unwind(AssertUnwindSafe(|| find(task, moment, context, &trace)))
        .unwrap_or_else(|_| Err("the evaluation failed inside the server, see its log".into()));
    if let Err(why) = &result {
        span.fail(why);
    }
    Finished { result, seconds: started.elapsed().as_secs_f64() }
}

fn find(task: &Task, moment: &Moment, context: &GroupContext, trace: &SpanContext) -> Result<Found, String> {
    let evaluator = context.evaluator.as_ref();
    match task {
        Task::Record(spec) => {
            let result = evaluator.eval_rule(&moment.origin, trace, &spec.expr, moment.query_t_ms)?;
            spec.apply(result, moment.limit).map(Found::Samples)
        }
        Task::Alert(spec, texts) => {
            let result = evaluator.eval_rule(&moment.origin, trace, &spec.expr, moment.query_t_ms)?;
            let source = TemplateQueries { evaluator, url: &context.external.url };
            let count_failure = || context.template_failures.inc();
            let surroundings = Surroundings {
                t_ms: moment.t_ms,
                context: &context.external,
                source: &source,
                on_error: &count_failure,
            };
            texts.expand(result, &surroundings).map(Found::Alerts)
        }
    }
}
