//! How is a group of rules evaluated? In order, at one timestamp, each rule seeing what the ones before it wrote;
//! series that vanish from a rule's result end with a staleness marker; a failing rule stops no other.

use std::sync::Arc;

use super::alerting::{ALERTS_FOR_STATE_METRIC, AlertState, AlertingRule, ExternalContext, RuleSamples};
use super::dependencies::stages;
use super::evaluation::{EvalPermits, Finished, Found, Moment, Task, evaluate};
use super::evaluator::{Evaluator, Notification, Notifier, RuleOrigin};
use super::recording::RecordingSpec;
use super::written::{Written, batch_options, write_stale};
use crate::model::{Labels, METRIC_NAME, Matcher};
use crate::tsdb::{AppendError, Appendable, Appender};

/// A rule of either kind.
#[derive(Debug, Clone)]
pub enum RuleKind {
    /// Stores its result.
    Recording(Arc<RecordingSpec>),
    /// Keeps alerts.
    Alerting(AlertingRule),
}

/// Whether a rule works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleHealth {
    /// Not evaluated yet.
    Unknown,
    /// The last evaluation succeeded.
    Good,
    /// The last evaluation failed.
    Bad,
}

impl RuleHealth {
    /// The name used by the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RuleHealth::Unknown => "unknown",
            RuleHealth::Good => "ok",
            RuleHealth::Bad => "err",
        }
    }
}

/// A rule with what is known of its last evaluation.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Definition, and alerts if it is an alerting rule.
    pub kind: RuleKind,
    /// Health.
    pub health: RuleHealth,
    /// Error of the last evaluation.
    pub last_error: Option<String>,
    /// Seconds the last evaluation took.
    pub evaluation_seconds: f64,
    /// Slot of the last evaluation, milliseconds.
    pub last_evaluation_ms: Option<i64>,
    /// Samples of the last evaluation.
    pub last_samples: usize,
    /// Series written by the last successful evaluation.
    written: Written,
}

impl Rule {
    /// A rule that was never evaluated.
    #[must_use]
    pub fn new(kind: RuleKind) -> Self {
        Self {
            kind,
            health: RuleHealth::Unknown,
            last_error: None,
            evaluation_seconds: 0.0,
            last_evaluation_ms: None,
            last_samples: 0,
            written: Written::default(),
        }
    }

    /// Name of the alert or of the recorded series.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Recording(r) => &r.name,
            RuleKind::Alerting(r) => &r.spec.name,
        }
    }

    /// The expression as written.
    #[must_use]
    pub fn expr(&self) -> &str {
        match &self.kind {
            RuleKind::Recording(r) => &r.expr,
            RuleKind::Alerting(r) => &r.spec.expr,
        }
    }

    /// The labels as configured.
    #[must_use]
    pub fn labels(&self) -> &std::collections::BTreeMap<String, String> {
        match &self.kind {
            RuleKind::Recording(r) => &r.labels,
            RuleKind::Alerting(r) => &r.spec.labels,
        }
    }

    /// State of an alerting rule: unknown before its first evaluation.
    #[must_use]
    pub fn alert_state(&self) -> AlertState {
        match &self.kind {
            RuleKind::Alerting(rule) if self.last_evaluation_ms.is_some() => rule.state(),
            _ => AlertState::Unknown,
        }
    }
}

/// The definition of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSpec {
    /// Name, unique within its file.
    pub name: String,
    /// Path of the rule file.
    pub file: String,
    /// Distance of evaluations, milliseconds.
    pub interval_ms: i64,
    /// Most series or alerts of one rule, 0 = unlimited.
    pub limit: usize,
    /// How far behind the slot expressions are evaluated, milliseconds.
    pub query_offset_ms: i64,
}

impl GroupSpec {
    /// Identity of a group over reloads.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{};{}", self.file, self.name)
    }

    /// The slot at or before `now_ns` (nanoseconds since the Unix epoch): groups are spread over their interval by
    /// a hash of file and name, as in Prometheus (`Group.EvalTimestamp`).
    #[must_use]
    pub fn slot_at_or_before_ns(&self, now_ns: i64) -> i64 {
        let interval_ns = self.interval_ms.max(1) * 1_000_000;
        let mut packed = Vec::new();
        for text in ["file", &self.file, "name", &self.name] {
            match u8::try_from(text.len()) {
                Ok(len) if len < 255 => packed.push(len),
                _ => {
                    packed.push(255);
                    packed.extend_from_slice(&text.len().to_le_bytes()[..3]);
                }
            }
            packed.extend_from_slice(text.as_bytes());
        }
        let hash = xxhash_rust::xxh64::xxh64(&packed, 0);
        let offset = i64::try_from(hash % interval_ns.unsigned_abs()).unwrap_or(0);
        let adjusted = now_ns - offset;
        adjusted - adjusted.rem_euclid(interval_ns) + offset
    }
}

/// Everything an evaluation needs from outside.
#[derive(Clone)]
pub struct GroupContext {
    /// Evaluates expressions.
    pub evaluator: Arc<dyn Evaluator>,
    /// Takes results.
    pub storage: Arc<dyn Appendable>,
    /// Takes notifications.
    pub notifier: Arc<dyn Notifier>,
    /// What templates know.
    pub external: ExternalContext,
    /// `--rules.alert.resend-delay`, milliseconds.
    pub resend_delay_ms: i64,
    /// Counts failed template expansions.
    pub template_failures: crate::telemetry::Counter,
    /// Permits of the feature `concurrent-rule-eval`; without them each group evaluates one rule at a time.
    pub concurrency: Option<Arc<EvalPermits>>,
}

/// What an evaluation did.
#[derive(Debug, Default)]
pub struct GroupOutcome {
    /// Rules that failed.
    pub failures: usize,
    /// Samples stored.
    pub samples: usize,
    /// What must be told, once the state of the alerts is safe.
    pub notifications: Vec<Notification>,
}

/// Makes the state of a group's alerts safe. Called after alerts changed, before anything of the change is stored or
/// told.
pub type SaveState<'a> = &'a mut dyn FnMut(&Group);

/// A group with its rules and their state.
#[derive(Debug, Clone)]
pub struct Group {
    /// Definition.
    pub spec: GroupSpec,
    /// Rules in order.
    pub rules: Vec<Rule>,
    /// Positions of the rules that may be evaluated together, in order.
    stages: Arc<Vec<Vec<usize>>>,
    /// Series of rules that a reload removed; they get their staleness marker at the next evaluation.
    orphaned: Vec<Labels>,
}

/// The rules of a stage, on their way from a group to their results.
pub(super) struct Stage {
    positions: Vec<usize>,
    tasks: Vec<Task>,
    moment: Moment,
}

impl Stage {
    /// Evaluates the rules without touching the group.
    pub fn evaluate(&self, context: &GroupContext) -> Vec<Finished> {
        evaluate(&self.tasks, &self.moment, context)
    }
}

impl Group {
    /// A group that was never evaluated.
    #[must_use]
    pub fn new(spec: GroupSpec, rules: Vec<Rule>) -> Self {
        let stages = Arc::new(stages(&rules.iter().map(|rule| &rule.kind).collect::<Vec<_>>()));
        Self { spec, rules, stages, orphaned: Vec::new() }
    }

    /// Puts every rule into a stage of its own: the plain meaning of a group, which tests compare stages with.
    #[cfg(test)]
    pub(super) fn strictly_sequential(mut self) -> Self {
        self.stages = Arc::new((0..self.rules.len()).map(|i| vec![i]).collect());
        self
    }

    /// Takes over alert state and written series from the same group before a reload, rule by rule of equal name and
    /// labels.
    pub fn copy_state(&mut self, old: Group) {
        self.orphaned = old.orphaned;
        let mut old_rules: Vec<Option<Rule>> = old.rules.into_iter().map(Some).collect();
        for rule in &mut self.rules {
            let found = old_rules.iter_mut().find(|slot| {
                slot.as_ref().is_some_and(|o| {
                    o.name() == rule.name()
                        && o.labels() == rule.labels()
                        && std::mem::discriminant(&o.kind) == std::mem::discriminant(&rule.kind)
                })
            });
            let Some(old) = found.and_then(Option::take) else { continue };
            rule.written = old.written;
            if let (RuleKind::Alerting(new), RuleKind::Alerting(old)) = (&mut rule.kind, old.kind) {
                new.restored = old.restored;
                new.unconfirmed_evaluations = old.unconfirmed_evaluations;
                new.active = old.active;
                let hold_ms = new.spec.hold_ms;
                for alert in new.active.values_mut() {
                    // A longer `for` takes firing back only where the alert is too young for it.
                    let age_ms = alert.fired_at_ms.unwrap_or(alert.active_at_ms) - alert.active_at_ms;
                    if alert.state == AlertState::Firing && hold_ms > age_ms {
                        let last = old.spec.hold_ms;
                        if hold_ms > last && age_ms < last {
                            alert.state = AlertState::Pending;
                        }
                    }
                }
            }
        }
        for rule in old_rules.iter().flatten() {
            self.orphaned.extend(rule.written.series());
        }
    }

    /// Series that must end when the group goes away.
    #[must_use]
    pub fn written_series(&self) -> Vec<Labels> {
        self.rules.iter().flat_map(|r| r.written.series()).chain(self.orphaned.iter().cloned()).collect()
    }

    /// Evaluates all rules for the slot `t_ms` and tells the notifier.
    pub fn eval(&mut self, t_ms: i64, context: &GroupContext) -> GroupOutcome {
        let mut outcome = GroupOutcome::default();
        for number in 0..self.stages() {
            let stage = self.stage(number, t_ms);
            let finished = stage.evaluate(context);
            self.take(&stage, finished, context, &mut |_| {}, &mut outcome);
        }
        self.end_orphans(t_ms, context);
        let due = std::mem::take(&mut outcome.notifications);
        if !due.is_empty() {
            context.notifier.send(due);
        }
        outcome
    }

    /// How many stages an evaluation has.
    pub(super) fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The rules of a stage at the slot `t_ms`.
    pub(super) fn stage(&self, number: usize, t_ms: i64) -> Stage {
        let positions = self.stages.get(number).cloned().unwrap_or_default();
        let tasks = positions.iter().map(|i| match &self.rules[*i].kind {
            RuleKind::Recording(spec) => Task::Record(Arc::clone(spec)),
            RuleKind::Alerting(alerting) => {
                Task::Alert(Arc::clone(&alerting.spec), Arc::clone(&alerting.texts))
            }
        });
        let query_t_ms = t_ms - self.spec.query_offset_ms;
        let origin = RuleOrigin { file: self.spec.file.clone(), group: self.spec.name.clone() };
        let moment = Moment { origin, t_ms, query_t_ms, limit: self.spec.limit };
        Stage { tasks: tasks.collect(), positions, moment }
    }

    /// Takes over what the rules of a stage returned: alerts change, their state is saved, samples are stored.
    pub(super) fn take(
        &mut self,
        stage: &Stage,
        finished: Vec<Finished>,
        context: &GroupContext,
        save: SaveState<'_>,
        outcome: &mut GroupOutcome,
    ) {
        let moment = &stage.moment;
        let mut changed = false;
        let mut results: Vec<(usize, Result<RuleSamples, String>)> = Vec::with_capacity(finished.len());
        for (position, finished) in stage.positions.iter().zip(finished) {
            let rule = &mut self.rules[*position];
            rule.evaluation_seconds = finished.seconds;
            rule.last_evaluation_ms = Some(moment.t_ms);
            let result = match (finished.result, &mut rule.kind) {
                (Ok(Found::Alerts(found)), RuleKind::Alerting(alerting)) => {
                    let updated = alerting.update(found, moment.t_ms, moment.limit);
                    changed |= updated.as_ref().map_or(true, |updated| updated.changed);
                    outcome.notifications.append(&mut alerting.take_notifications(
                        moment.t_ms,
                        self.spec.interval_ms,
                        context.resend_delay_ms,
                        &context.external.url,
                    ));
                    updated.map(|updated| updated.samples)
                }
                (Ok(Found::Samples(samples)), _) => Ok(samples),
                (Ok(Found::Alerts(_)), RuleKind::Recording(_)) => Ok(RuleSamples::new()),
                (Err(error), _) => Err(error),
            };
            results.push((*position, result));
        }
        if changed {
            save(self);
        }
        let mut stored = Vec::with_capacity(results.len());
        for (position, result) in results {
            match result {
                Ok(samples) => stored.push((position, samples)),
                Err(error) => self.judge(position, Err(error), outcome),
            }
        }
        for (position, result) in self.store(stored, moment.query_t_ms, context.storage.as_ref()) {
            self.judge(position, result, outcome);
        }
    }

    fn judge(&mut self, position: usize, result: Result<usize, String>, outcome: &mut GroupOutcome) {
        let rule = &mut self.rules[position];
        match result {
            Ok(samples) => {
                rule.health = RuleHealth::Good;
                rule.last_error = None;
                rule.last_samples = samples;
                outcome.samples += samples;
            }
            Err(error) => {
                tracing::warn!(rule = rule.name(), group = %self.spec.name, file = %self.spec.file, %error,
                               "Evaluating rule failed");
                rule.health = RuleHealth::Bad;
                rule.last_error = Some(error);
                rule.last_samples = 0;
                outcome.failures += 1;
            }
        }
    }

    /// Stores results of rules that do not depend on one another in one batch; if one of them cannot be stored, each
    /// in a batch of its own, so that it spoils no other.
    fn store(
        &mut self,
        results: Vec<(usize, RuleSamples)>,
        t_ms: i64,
        storage: &dyn Appendable,
    ) -> Vec<(usize, Result<usize, String>)> {
        if results.len() > 1 {
            let mut batch = storage.appender(batch_options());
            if let Ok(fresh) = self.append_all(&results, t_ms, batch.as_mut()) {
                let committed = batch.commit().map(drop).map_err(|e| e.to_string());
                let each = results.iter().zip(fresh).map(|((position, samples), fresh)| {
                    if committed.is_ok() {
                        self.rules[*position].written.accept(fresh);
                    }
                    (*position, committed.clone().map(|()| samples.len()))
                });
                return each.collect();
            }
            batch.rollback();
        }
        let alone = results.into_iter().map(|(position, samples)| {
            let count = samples.len();
            let written = &mut self.rules[position].written;
            let mut batch = storage.appender(batch_options());
            let stored = written
                .append(&samples, t_ms, batch.as_mut())
                .and_then(|fresh| batch.commit().map(|_| written.accept(fresh)));
            (position, stored.map(|()| count).map_err(|e| e.to_string()))
        });
        alone.collect()
    }

    fn append_all(
        &mut self,
        results: &[(usize, RuleSamples)],
        t_ms: i64,
        batch: &mut dyn Appender,
    ) -> Result<Vec<super::written::Fresh>, AppendError> {
        let appended = results
            .iter()
            .map(|(position, samples)| self.rules[*position].written.append(samples, t_ms, batch));
        appended.collect()
    }

    /// Ends the series of rules that a reload removed.
    pub(super) fn end_orphans(&mut self, t_ms: i64, context: &GroupContext) {
        let orphaned = std::mem::take(&mut self.orphaned);
        let query_t_ms = t_ms - self.spec.query_offset_ms;
        if let Err(error) = write_stale(&orphaned, query_t_ms, context.storage.as_ref()) {
            tracing::warn!(group = %self.spec.name, %error, "Writing staleness markers failed");
            self.orphaned = orphaned;
        }
    }

    /// Takes over alert state stored by an earlier process; call after the second evaluation.
    pub fn restore(&mut self, t_ms: i64, outage_tolerance_ms: i64, grace_ms: i64, evaluator: &dyn Evaluator) {
        for rule in &mut self.rules {
            let RuleKind::Alerting(alerting) = &mut rule.kind else { continue };
            if alerting.restored {
                continue;
            }
            if alerting.spec.hold_ms < grace_ms {
                alerting.restored = true;
                continue;
            }
            let matchers = [
                Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE_METRIC),
                Matcher::equal("alertname", &alerting.spec.name),
            ];
            match evaluator.last_samples(&matchers, t_ms - outage_tolerance_ms, t_ms) {
                Ok(stored) => alerting.restore(&stored, t_ms, grace_ms),
                Err(error) => {
                    tracing::error!(alert = %alerting.spec.name, %error, "Restoring alert state failed");
                    alerting.restored = true;
                }
            }
        }
    }
}
