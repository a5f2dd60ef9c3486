//! How is a group of rules evaluated? In order, at one timestamp, each rule seeing what the ones before it wrote;
//! series that vanish from a rule's result end with a staleness marker; a failing rule stops no other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::alerting::{ALERTS_FOR_STATE_METRIC, AlertState, AlertingRule, ExternalContext, RuleSamples};
use super::evaluator::{Evaluator, Notifier, RuleOrigin};
use super::recording::RecordingSpec;
use super::template::QuerySource;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, METRIC_NAME, MatchOp, Matcher, stale_nan};
use crate::query::value::PointValue;
use crate::tsdb::{AppendError, Appendable, BatchOptions, SeriesRef};

/// A rule of either kind.
#[derive(Debug, Clone)]
pub enum RuleKind {
    /// Stores its result.
    Recording(RecordingSpec),
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
    written: BTreeSet<Labels>,
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
            written: BTreeSet::new(),
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
}

/// What one evaluation of one rule did.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupOutcome {
    /// Rules that failed.
    pub failures: usize,
    /// Samples stored.
    pub samples: usize,
}

/// A group with its rules and their state.
#[derive(Debug, Clone)]
pub struct Group {
    /// Definition.
    pub spec: GroupSpec,
    /// Rules in order.
    pub rules: Vec<Rule>,
    /// Series of rules that a reload removed; they get their staleness marker at the next evaluation.
    orphaned: Vec<Labels>,
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

impl Group {
    /// A group that was never evaluated.
    #[must_use]
    pub fn new(spec: GroupSpec, rules: Vec<Rule>) -> Self {
        Self { spec, rules, orphaned: Vec::new() }
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
        self.orphaned.extend(old_rules.into_iter().flatten().flat_map(|rule| rule.written));
    }

    /// Series that must end when the group goes away.
    #[must_use]
    pub fn written_series(&self) -> Vec<Labels> {
        self.rules
            .iter()
            .flat_map(|r| r.written.iter().cloned())
            .chain(self.orphaned.iter().cloned())
            .collect()
    }

    /// Evaluates all rules for the slot `t_ms`.
    pub fn eval(&mut self, t_ms: i64, context: &GroupContext) -> GroupOutcome {
        let mut outcome = GroupOutcome::default();
        let query_t_ms = t_ms - self.spec.query_offset_ms;
        for rule in &mut self.rules {
            let started = Instant::now();
            let result = eval_rule(rule, &self.spec, t_ms, query_t_ms, context);
            rule.evaluation_seconds = started.elapsed().as_secs_f64();
            rule.last_evaluation_ms = Some(t_ms);
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
        let orphaned = std::mem::take(&mut self.orphaned);
        if let Err(error) = write_stale(&orphaned, query_t_ms, context.storage.as_ref()) {
            tracing::warn!(group = %self.spec.name, %error, "Writing staleness markers failed");
            self.orphaned = orphaned;
        }
        outcome
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
            debug_assert!(matchers.iter().all(|m| m.op == MatchOp::Equal));
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

fn eval_rule(
    rule: &mut Rule,
    group: &GroupSpec,
    t_ms: i64,
    query_t_ms: i64,
    context: &GroupContext,
) -> Result<usize, String> {
    let origin = RuleOrigin { file: &group.file, group: &group.name };
    let result = context.evaluator.eval_rule(&origin, rule.expr(), query_t_ms)?;
    let samples = match &mut rule.kind {
        RuleKind::Recording(spec) => spec.apply(result, group.limit)?,
        RuleKind::Alerting(alerting) => {
            let source =
                TemplateQueries { evaluator: context.evaluator.as_ref(), url: &context.external.url };
            let count_failure = || context.template_failures.inc();
            let updated =
                alerting.update(result, t_ms, group.limit, &context.external, &source, &count_failure);
            let due = alerting.take_notifications(
                t_ms,
                group.interval_ms,
                context.resend_delay_ms,
                &context.external.url,
            );
            if !due.is_empty() {
                context.notifier.send(due);
            }
            updated?
        }
    };
    let count = samples.len();
    rule.written = store(samples, &rule.written, query_t_ms, context.storage.as_ref())?;
    Ok(count)
}

/// Stores samples and the staleness markers of `before` series that are gone; answers with what is alive now.
fn store(
    samples: RuleSamples,
    before: &BTreeSet<Labels>,
    t_ms: i64,
    storage: &dyn Appendable,
) -> Result<BTreeSet<Labels>, String> {
    let options = BatchOptions { reject_out_of_order: true, ..BatchOptions::default() };
    let mut batch = storage.appender(options);
    let mut alive = BTreeSet::new();
    let mut refused: Option<AppendError> = None;
    for (labels, value) in samples {
        let own = || labels.clone();
        let appended = match value {
            PointValue::Float(v) => batch.append(SeriesRef::NONE, &own, 0, t_ms, v),
            PointValue::Histogram(h) => {
                batch.append_histogram(SeriesRef::NONE, &own, 0, t_ms, HistogramValue::Float(h))
            }
        };
        match appended {
            Ok(_) => {
                alive.insert(labels);
            }
            // Prometheus drops these samples with a warning and keeps the rest of the rule's result.
            Err(
                error @ (AppendError::OutOfOrder
                | AppendError::TooOld
                | AppendError::DuplicateTimestamp
                | AppendError::OutOfBounds
                | AppendError::SeriesLimit(_)),
            ) => refused = Some(error),
            Err(error) => return Err(error.to_string()),
        }
    }
    for labels in before.difference(&alive) {
        // A marker that comes too late says nothing new.
        let _ = batch.append(SeriesRef::NONE, &|| labels.clone(), 0, t_ms, stale_nan());
    }
    batch.commit().map_err(|e| e.to_string())?;
    if let Some(error) = refused {
        tracing::warn!(%error, t_ms, "Rule evaluation result was refused in part");
    }
    Ok(alive)
}

/// Ends series with a staleness marker at `t_ms`.
pub fn write_stale(series: &[Labels], t_ms: i64, storage: &dyn Appendable) -> Result<(), AppendError> {
    if series.is_empty() {
        return Ok(());
    }
    let mut batch = storage.appender(BatchOptions { reject_out_of_order: true, ..BatchOptions::default() });
    for labels in series {
        // A series that already has a later sample needs no marker.
        let _ = batch.append(SeriesRef::NONE, &|| labels.clone(), 0, t_ms, stale_nan());
    }
    batch.commit().map(drop)
}
