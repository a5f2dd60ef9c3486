//! When are groups evaluated, and what happens to them on reload and stop? One task for each group, on its own
//! slots; a reload replaces what changed and hands alert state over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::group::{Group, GroupContext, GroupOutcome, GroupSpec, Rule, RuleKind};
use super::state::{self, AlertStore};
use super::written::write_stale;
use crate::model::clock::Clock;
use crate::telemetry::{Counter, Gauge, Registry, Summary};

/// A group as its file defines it, without state.
#[derive(Debug, Clone)]
pub struct GroupDefinition {
    /// Name, file, interval, limits.
    pub spec: GroupSpec,
    /// Rules in order, without alerts.
    pub rules: Vec<RuleKind>,
}

/// Settings that hold for all groups.
#[derive(Debug, Clone, Copy)]
pub struct ManagerOptions {
    /// `--rules.alert.for-outage-tolerance`, milliseconds.
    pub outage_tolerance_ms: i64,
    /// `--rules.alert.for-grace-period`, milliseconds.
    pub grace_ms: i64,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self { outage_tolerance_ms: 3_600_000, grace_ms: 600_000 }
    }
}

/// A group with the times of its last evaluation, as the API shows it.
#[derive(Debug, Clone)]
pub struct GroupSnapshot {
    /// Definition and rules with their state.
    pub group: Group,
    /// Seconds the last evaluation took.
    pub evaluation_seconds: f64,
    /// Slot of the last evaluation, milliseconds.
    pub last_evaluation_ms: Option<i64>,
}

struct Running {
    /// Locked for reading by the API, for writing while results are taken over; not while rules are evaluated.
    group: Arc<RwLock<GroupSnapshot>>,
    definition: Vec<RuleKind>,
    spec: GroupSpec,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Runs rule groups.
pub struct RuleManager {
    options: ManagerOptions,
    clock: Arc<dyn Clock>,
    store: Arc<dyn AlertStore>,
    metrics: Metrics,
    /// By group key. Never locked across an await.
    groups: Mutex<BTreeMap<String, Running>>,
    /// What evaluations need; replaced by a reload.
    context: RwLock<GroupContext>,
}

#[derive(Clone)]
struct Metrics {
    registry: Arc<Registry>,
    duration: Summary,
    rule_duration: Summary,
}

/// Instruments of one group.
struct GroupMetrics {
    evaluations: Counter,
    failures: Counter,
    iterations: Counter,
    missed: Counter,
    last_duration: Gauge,
    last_timestamp: Gauge,
    last_samples: Gauge,
    last_rule_sum: Gauge,
}

const GROUP_GAUGES: [&str; 6] = [
    "prometheus_rule_group_last_duration_seconds",
    "prometheus_rule_group_last_evaluation_timestamp_seconds",
    "prometheus_rule_group_last_evaluation_samples",
    "prometheus_rule_group_interval_seconds",
    "prometheus_rule_group_rules",
    "prometheus_rule_group_last_rule_duration_sum_seconds",
];
const GROUP_COUNTERS: [&str; 4] = [
    "prometheus_rule_evaluations_total",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_iterations_total",
    "prometheus_rule_group_iterations_missed_total",
];

impl Metrics {
    fn new(registry: &Arc<Registry>) -> Self {
        let quantiles = [0.01, 0.05, 0.5, 0.9, 0.99];
        Self {
            registry: Arc::clone(registry),
            duration: registry.summary(
                "prometheus_rule_group_duration_seconds",
                "The duration of rule group evaluations.",
                &quantiles,
                &[],
            ),
            rule_duration: registry.summary(
                "prometheus_rule_evaluation_duration_seconds",
                "The duration for a rule to execute.",
                &[0.5, 0.9, 0.99],
                &[],
            ),
        }
    }

    fn group(&self, spec: &GroupSpec, rules: usize) -> GroupMetrics {
        let key = spec.key();
        let labels = [("rule_group", key.as_str())];
        let counter = |name: &str, help: &str| self.registry.counter(name, help, &labels);
        let gauge = |name: &str, help: &str| self.registry.gauge(name, help, &labels);
        gauge(GROUP_GAUGES[3], "The interval of a rule group.").set(spec.interval_ms as f64 / 1000.0);
        gauge(GROUP_GAUGES[4], "The number of rules.").set(rules as f64);
        GroupMetrics {
            evaluations: counter(GROUP_COUNTERS[0], "The total number of rule evaluations."),
            failures: counter(GROUP_COUNTERS[1], "The total number of rule evaluation failures."),
            iterations: counter(
                GROUP_COUNTERS[2],
                "The total number of scheduled rule group evaluations, whether executed or missed.",
            ),
            missed: counter(
                GROUP_COUNTERS[3],
                "The total number of rule group evaluations missed due to slow rule group evaluation.",
            ),
            last_duration: gauge(GROUP_GAUGES[0], "The duration of the last rule group evaluation."),
            last_timestamp: gauge(
                GROUP_GAUGES[1],
                "The timestamp of the last rule group evaluation in seconds.",
            ),
            last_rule_sum: gauge(
                GROUP_GAUGES[5],
                "The sum of time in seconds it took to evaluate each rule in the group regardless of concurrency. This \
                 should be higher than the group duration if rules are evaluated concurrently.",
            ),
            last_samples: gauge(
                GROUP_GAUGES[2],
                "The number of samples returned during the last rule group evaluation.",
            ),
        }
    }

    fn forget(&self, spec: &GroupSpec) {
        let key = spec.key();
        for name in GROUP_GAUGES.iter().chain(&GROUP_COUNTERS) {
            self.registry.remove(name, &[("rule_group", &key)]);
        }
    }
}

impl RuleManager {
    /// A manager without groups.
    #[must_use]
    pub fn new(
        context: GroupContext,
        options: ManagerOptions,
        clock: Arc<dyn Clock>,
        store: Arc<dyn AlertStore>,
        registry: &Arc<Registry>,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            clock,
            store,
            metrics: Metrics::new(registry),
            groups: Mutex::default(),
            context: RwLock::new(context),
        })
    }

    /// Replaces all groups by `definitions`. Unchanged groups keep running, changed ones take over alert state, removed
    /// ones end their series. `first_load` restores stored alert state. Must run inside a tokio runtime.
    pub async fn apply(
        self: &Arc<Self>,
        definitions: Vec<GroupDefinition>,
        context: GroupContext,
        first_load: bool,
    ) {
        *self.context.write() = context;
        let mut old = std::mem::take(&mut *self.groups.lock());
        let mut new = BTreeMap::new();
        for definition in definitions {
            let key = definition.spec.key();
            let before = old.remove(&key);
            if let Some(same) = before.as_ref()
                && same.spec == definition.spec
                && same_rules(&same.definition, &definition.rules)
                && let Some(kept) = before
            {
                new.insert(key, kept);
                continue;
            }
            let mut group = Group::new(
                definition.spec.clone(),
                definition.rules.iter().cloned().map(Rule::new).collect(),
            );
            let mut restore = first_load;
            if let Some(before) = before {
                before.stop.cancel();
                // An evaluation under way finishes first, so that no state is lost.
                let _ = before.task.await;
                group.copy_state(before.group.read().group.clone());
                restore = false;
            }
            if restore {
                restore = !self.restore_from_store(&mut group);
            } else {
                for rule in &mut group.rules {
                    if let RuleKind::Alerting(alerting) = &mut rule.kind {
                        alerting.restored = true;
                    }
                }
            }
            new.insert(key, self.start(group, definition.rules, restore));
        }
        for (_, removed) in old {
            removed.stop.cancel();
            let manager = Arc::clone(self);
            tokio::spawn(async move { manager.end_group(removed).await });
        }
        *self.groups.lock() = new;
    }

    /// Takes over the state that was saved for a group; false if there is none that can be used.
    fn restore_from_store(&self, group: &mut Group) -> bool {
        let key = group.spec.key();
        let Some(content) = self.store.load(&state::store_key(&key)) else { return false };
        let seen = self.store.load(&state::seen_key(&key));
        let (now_ms, tolerance_ms) = (self.clock.now_ms(), self.options.outage_tolerance_ms);
        match state::restore(group, &content, seen.as_deref(), now_ms, tolerance_ms) {
            Ok(alerts) => {
                tracing::info!(group = %key, alerts, "Took over the alert state of the group");
                true
            }
            Err(reason) => {
                tracing::warn!(group = %key, reason, "Saved alert state was not used");
                false
            }
        }
    }

    fn start(self: &Arc<Self>, group: Group, definition: Vec<RuleKind>, restore: bool) -> Running {
        let spec = group.spec.clone();
        let snapshot = GroupSnapshot { group, evaluation_seconds: 0.0, last_evaluation_ms: None };
        let group = Arc::new(RwLock::new(snapshot));
        let stop = CancellationToken::new();
        let task = tokio::spawn(run_group(
            Arc::clone(self),
            Arc::clone(&group),
            spec.clone(),
            definition.len(),
            stop.clone(),
            restore,
        ));
        Running { group, definition, spec, stop, task }
    }

    /// Ends the series of a removed group, two intervals later, so that a group that only moved keeps its series.
    async fn end_group(&self, removed: Running) {
        let _ = removed.task.await;
        self.metrics.forget(&removed.spec);
        let series = removed.group.read().group.written_series();
        if series.is_empty() {
            return;
        }
        let wait_ms = u64::try_from(removed.spec.interval_ms * 2).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let storage = Arc::clone(&self.context.read().storage);
        let t_ms = self.clock.now_ms();
        let written = tokio::task::spawn_blocking(move || write_stale(&series, t_ms, storage.as_ref())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(group = %removed.spec.name, %error, "Ending the series of a removed group failed");
        }
    }

    /// Shows all groups, one after the other, in order of file and name. A group that is being shown does not take
    /// over results meanwhile.
    pub fn visit(&self, visitor: &mut dyn FnMut(&GroupSnapshot)) {
        let handles: Vec<_> = self.groups.lock().values().map(|r| Arc::clone(&r.group)).collect();
        for group in handles {
            visitor(&group.read());
        }
    }

    /// Stops all groups; evaluations under way finish.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.groups.lock());
        for group in running.values() {
            group.stop.cancel();
        }
        for (_, group) in running {
            let _ = group.task.await;
        }
    }
}

fn same_rules(a: &[RuleKind], b: &[RuleKind]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (RuleKind::Recording(a), RuleKind::Recording(b)) => a == b,
            (RuleKind::Alerting(a), RuleKind::Alerting(b)) => a.spec == b.spec,
            _ => false,
        })
}

/// Keeps the saved alert state of one group up to date.
struct Saver {
    manager: Arc<RuleManager>,
    group_key: String,
    /// The slot of the evaluation under way.
    t_ms: i64,
    /// Slot of the last saving that succeeded.
    saved_at_ms: Option<i64>,
    /// The last saving failed.
    failed: bool,
}

impl Saver {
    fn write(&self, key: &str, content: &[u8]) -> bool {
        let written = self.manager.store.save(key, content);
        if let Err(error) = &written {
            tracing::error!(group = %self.group_key, %error, "Saving alert state failed");
        }
        written.is_ok()
    }

    /// Saves all alerts of the group.
    fn save(&mut self, group: &Group) {
        let content = state::encode(group, self.t_ms).unwrap_or_default();
        self.failed = !self.write(&state::store_key(&self.group_key), &content);
        if !self.failed {
            self.saved_at_ms = Some(self.t_ms);
        }
    }

    /// The evaluation is over. While an alert is pending each one leaves a trace, because the time without
    /// evaluations counts as an outage, during which nothing is pending.
    fn finish(&mut self, group: &Group) {
        if self.failed {
            self.save(group);
        } else if self.saved_at_ms != Some(self.t_ms) && state::has_pending(group) {
            self.write(&state::seen_key(&self.group_key), &state::encode_seen(group, self.t_ms));
        }
    }
}

/// Evaluates a group that others look at meanwhile.
fn evaluate(
    group: &RwLock<GroupSnapshot>,
    t_ms: i64,
    context: &GroupContext,
    saver: &mut Saver,
) -> GroupOutcome {
    let mut outcome = GroupOutcome::default();
    saver.t_ms = t_ms;
    let stages = group.read().group.stages();
    for number in 0..stages {
        let stage = group.read().group.stage(number, t_ms);
        let finished = stage.evaluate(context);
        let mut save = |group: &Group| saver.save(group);
        group.write().group.take(&stage, finished, context, &mut save, &mut outcome);
    }
    let mut snapshot = group.write();
    snapshot.group.end_orphans(t_ms, context);
    saver.finish(&snapshot.group);
    drop(snapshot);
    let due = std::mem::take(&mut outcome.notifications);
    if !due.is_empty() {
        context.notifier.send(due);
    }
    outcome
}

async fn run_group(
    manager: Arc<RuleManager>,
    group: Arc<RwLock<GroupSnapshot>>,
    spec: GroupSpec,
    rules: usize,
    stop: CancellationToken,
    mut restore: bool,
) {
    let metrics = manager.metrics.group(&spec, rules);
    let interval_ns = spec.interval_ms.max(1) * 1_000_000;
    let now_ns = || manager.clock.now_ms().saturating_mul(1_000_000);
    // A process that starts on a slot does not wait a whole interval.
    let mut slot_ns = spec.slot_at_or_before_ns(now_ns()) + interval_ns;
    let mut evaluations = 0u64;
    let mut saver = Saver {
        manager: Arc::clone(&manager),
        group_key: spec.key(),
        t_ms: 0,
        saved_at_ms: None,
        failed: false,
    };
    loop {
        let wait_ns = u64::try_from(slot_ns - now_ns()).unwrap_or(0);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_nanos(wait_ns)) => {}
        }
        metrics.iterations.inc();
        let context = manager.context.read().clone();
        let handle = Arc::clone(&group);
        let t_ms = slot_ns / 1_000_000;
        let started = Instant::now();
        let done = tokio::task::spawn_blocking(move || {
            let outcome = evaluate(&handle, t_ms, &context, &mut saver);
            (outcome, handle, context, saver)
        })
        .await;
        let Ok((outcome, handle, context, returned)) = done else {
            tracing::error!(group = %spec.name, file = %spec.file, "Evaluation of a rule group was aborted");
            return;
        };
        saver = returned;
        let seconds = started.elapsed().as_secs_f64();
        {
            let mut snapshot = handle.write();
            snapshot.evaluation_seconds = seconds;
            snapshot.last_evaluation_ms = Some(t_ms);
            metrics.evaluations.add(snapshot.group.rules.len() as f64);
            metrics.last_rule_sum.set(snapshot.group.rules.iter().map(|r| r.evaluation_seconds).sum());
            for rule in &snapshot.group.rules {
                manager.metrics.rule_duration.observe(rule.evaluation_seconds);
            }
        }
        metrics.failures.add(outcome.failures as f64);
        metrics.last_duration.set(seconds);
        metrics.last_timestamp.set(t_ms as f64 / 1000.0);
        metrics.last_samples.set(outcome.samples as f64);
        manager.metrics.duration.observe(seconds);
        evaluations += 1;
        if restore && evaluations == 2 {
            restore = false;
            let (now_ms, options) = (manager.clock.now_ms(), manager.options);
            let restored = tokio::task::spawn_blocking(move || {
                let evaluator = context.evaluator.as_ref();
                handle.write().group.restore(
                    now_ms,
                    options.outage_tolerance_ms,
                    options.grace_ms,
                    evaluator,
                );
            })
            .await;
            if restored.is_err() {
                tracing::error!(group = %spec.name, "Restoring alert state was aborted");
            }
        }
        slot_ns += interval_ns;
        let late = (now_ns() - slot_ns).div_euclid(interval_ns) + 1;
        if now_ns() > slot_ns && late > 0 {
            metrics.missed.add(late as f64);
            metrics.iterations.add(late as f64);
            slot_ns += late * interval_ns;
        }
    }
}
