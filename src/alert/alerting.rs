//! What is the state of an alerting rule? Each label set that its expression returns is pending, then firing once
//! `for` has passed, held by `keep_firing_for`, and kept a while after it resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::evaluator::Notification;
use super::template::functions::query_escape;
use super::texts::AlertTexts;
use super::written::Output;
use crate::model::Labels;
use crate::query::value::PointValue;

/// How long a resolved alert is remembered and sent again (15 minutes, as Prometheus).
pub const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;
/// The series of an active alert.
pub const ALERTS_METRIC: &str = "ALERTS";
/// The series that remembers since when an alert is active.
pub const ALERTS_FOR_STATE_METRIC: &str = "ALERTS_FOR_STATE";

/// State of one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertState {
    /// The rule was never evaluated.
    Unknown,
    /// Resolved, or never active.
    Inactive,
    /// Active, but not yet for long enough.
    Pending,
    /// Active for long enough.
    Firing,
}

impl AlertState {
    /// The name used by the API and in `alertstate`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Unknown => "unknown",
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// One alert of a rule. Times are milliseconds; `None` = never.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// State.
    pub state: AlertState,
    /// Labels, templates expanded, `alertname` included.
    pub labels: Labels,
    /// Annotations, templates expanded.
    pub annotations: Vec<(String, String)>,
    /// Last value of the expression.
    pub value: PointValue,
    /// Since when the expression returns it.
    pub active_at_ms: i64,
    /// When it began to fire.
    pub fired_at_ms: Option<i64>,
    /// When it stopped being active.
    pub resolved_at_ms: Option<i64>,
    /// When it was last handed to the notifier.
    pub last_sent_at_ms: Option<i64>,
    /// Since when only `keep_firing_for` holds it.
    pub keep_firing_since_ms: Option<i64>,
}

/// What an evaluation did to the alerts of a rule.
#[derive(Debug, Default)]
pub struct Updated {
    /// Series to store.
    pub samples: RuleSamples,
    /// Whether an alert came, went or changed its state: what a restart must not forget.
    pub changed: bool,
}

impl Alert {
    fn needs_sending(&self, t_ms: i64, resend_delay_ms: i64) -> bool {
        if self.state == AlertState::Pending {
            return false;
        }
        match (self.resolved_at_ms, self.last_sent_at_ms) {
            (Some(_), None) | (None, None) => true,
            (Some(resolved), Some(sent)) if resolved > sent => true,
            (_, Some(sent)) => sent + resend_delay_ms < t_ms,
        }
    }
}

/// The definition of an alerting rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertingSpec {
    /// `alert`.
    pub name: String,
    /// `expr`.
    pub expr: String,
    /// `for`, milliseconds.
    pub hold_ms: i64,
    /// `keep_firing_for`, milliseconds.
    pub keep_firing_ms: i64,
    /// Labels of the rule over those of the group, templates unexpanded.
    pub labels: BTreeMap<String, String>,
    /// Annotations, templates unexpanded.
    pub annotations: BTreeMap<String, String>,
}

/// What templates and links need to know of the process.
#[derive(Debug, Clone, Default)]
pub struct ExternalContext {
    /// `global.external_labels`.
    pub labels: Labels,
    /// `--web.external-url` without a final slash.
    pub url: String,
}

/// An alerting rule with its alerts.
#[derive(Debug, Clone)]
pub struct AlertingRule {
    /// Definition.
    pub spec: Arc<AlertingSpec>,
    /// Its labels and annotations, ready to be expanded.
    pub texts: Arc<AlertTexts>,
    /// Alerts by label set.
    pub active: BTreeMap<Labels, Alert>,
    /// Whether stored state was taken over (or there was none to take over); before that no series are written.
    pub restored: bool,
    /// Evaluations for which alerts taken over from a file stay as they are even if the expression does not
    /// return them: after a restart targets must be scraped first.
    pub unconfirmed_evaluations: u32,
}

/// How many evaluations after a restart do not resolve alerts that were taken over.
pub const CONFIRMING_EVALUATIONS: u32 = 2;

/// Samples that an evaluation wants stored.
pub type RuleSamples = Vec<(Output, PointValue)>;

impl AlertingRule {
    /// A rule without alerts.
    #[must_use]
    pub fn new(spec: AlertingSpec, restored: bool) -> Self {
        let texts = Arc::new(AlertTexts::new(&spec));
        Self { spec: Arc::new(spec), texts, active: BTreeMap::new(), restored, unconfirmed_evaluations: 0 }
    }

    /// The strongest state of its alerts.
    #[must_use]
    pub fn state(&self) -> AlertState {
        self.active.values().map(|a| a.state).max().unwrap_or(AlertState::Inactive)
    }

    /// Takes the alerts that the expression asks for at slot `t_ms`, sorted by labels and each once. Exceeding `limit`
    /// forgets all alerts, as in Prometheus.
    pub fn update(&mut self, found: Vec<Alert>, t_ms: i64, limit: usize) -> Result<Updated, String> {
        let mut updated = Updated::default();
        let seen: Vec<Labels> = found.iter().map(|alert| alert.labels.clone()).collect();
        updated.changed |= self.merge(found);
        // Both are sorted by labels, so that one walk tells which alerts were found.
        let mut seen = seen.into_iter().peekable();
        let samples = &mut updated.samples;
        let changed = &mut updated.changed;
        let mut counted = 0;
        let (hold_ms, keep_ms, restored) = (self.spec.hold_ms, self.spec.keep_firing_ms, self.restored);
        let confirming = self.unconfirmed_evaluations > 0;
        self.unconfirmed_evaluations = self.unconfirmed_evaluations.saturating_sub(1);
        self.active.retain(|labels, alert| {
            let is_seen = seen.next_if(|next| next == labels).is_some();
            if is_seen {
                *changed |= alert.keep_firing_since_ms.take().is_some();
            } else if confirming && alert.state != AlertState::Inactive {
                // Neither confirmed nor refuted yet.
            } else {
                let mut keeps_firing = false;
                if alert.state == AlertState::Firing && keep_ms > 0 {
                    *changed |= alert.keep_firing_since_ms.is_none();
                    let since = *alert.keep_firing_since_ms.get_or_insert(t_ms);
                    keeps_firing = t_ms - since < keep_ms;
                }
                if !keeps_firing {
                    let forgotten =
                        alert.resolved_at_ms.is_some_and(|resolved| t_ms - resolved > RESOLVED_RETENTION_MS);
                    if alert.state == AlertState::Pending
                        || (alert.state == AlertState::Inactive && forgotten)
                    {
                        *changed = true;
                        return false;
                    }
                    if alert.state != AlertState::Inactive {
                        *changed = true;
                        alert.state = AlertState::Inactive;
                        alert.resolved_at_ms = Some(t_ms);
                    }
                    return true;
                }
            }
            counted += 1;
            let old_enough = t_ms - alert.active_at_ms >= hold_ms;
            if alert.state == AlertState::Pending && old_enough && is_seen {
                *changed = true;
                alert.state = AlertState::Firing;
                alert.fired_at_ms = Some(t_ms);
            }
            if restored {
                let since = alert.active_at_ms.div_euclid(1000) as f64;
                samples.push((Output::alerts(alert.labels.clone(), alert.state), PointValue::Float(1.0)));
                samples.push((Output::for_state(alert.labels.clone()), PointValue::Float(since)));
            }
            true
        });
        if limit > 0 && counted > limit {
            self.active.clear();
            return Err(format!("exceeded limit of {limit} with {counted} alerts"));
        }
        Ok(updated)
    }

    /// Takes values and annotations of alerts that are known, and those that are not; answers whether there are such. A walk
    /// over both, because looking each one up would compare its labels a dozen times.
    fn merge(&mut self, found: Vec<Alert>) -> bool {
        let mut found = found.into_iter().peekable();
        let mut fresh = Vec::new();
        let mut changed = false;
        for (labels, known) in &mut self.active {
            while let Some(alert) = found.next_if(|alert| alert.labels < *labels) {
                fresh.push(alert);
            }
            let Some(alert) = found.next_if(|alert| alert.labels == *labels) else { continue };
            if known.state == AlertState::Inactive {
                changed = true;
                *known = alert;
                continue;
            }
            known.value = alert.value;
            if known.annotations != alert.annotations {
                known.annotations = alert.annotations;
            }
        }
        fresh.extend(found);
        changed |= !fresh.is_empty();
        self.active.extend(fresh.into_iter().map(|alert| (alert.labels.clone(), alert)));
        changed
    }

    /// The notifications due at `t_ms`; marks them as sent.
    pub fn take_notifications(
        &mut self,
        t_ms: i64,
        interval_ms: i64,
        resend_delay_ms: i64,
        external_url: &str,
    ) -> Vec<Notification> {
        let mut out = Vec::new();
        let url = format!("{external_url}/graph?g0.expr={}&g0.tab=1", query_escape(&self.spec.expr));
        for alert in self.active.values_mut() {
            if !alert.needs_sending(t_ms, resend_delay_ms) {
                continue;
            }
            alert.last_sent_at_ms = Some(t_ms);
            // Room for two evaluations or sends that fail.
            let valid_until_ms = t_ms + 4 * interval_ms.max(resend_delay_ms);
            out.push(Notification {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at_ms: alert.fired_at_ms.unwrap_or(alert.active_at_ms),
                ends_at_ms: alert.resolved_at_ms.unwrap_or(valid_until_ms),
                generator_url: url.clone(),
            });
        }
        out
    }

    /// Takes over the state that another process stored: for each active alert the last `ALERTS_FOR_STATE` sample
    /// (labels without the metric name, time, value), seen from `t_ms`.
    pub fn restore(&mut self, stored: &[(Labels, i64, f64)], t_ms: i64, grace_ms: i64) {
        let by_labels: BTreeMap<Labels, (i64, f64)> =
            stored.iter().map(|(labels, t, v)| (labels.without_name(), (*t, *v))).collect();
        let hold_ms = self.spec.hold_ms;
        for (labels, alert) in &mut self.active {
            let Some((down_at_ms, v)) = by_labels.get(labels) else { continue };
            if v.is_nan() {
                continue;
            }
            let mut active_at_ms = (*v * 1000.0) as i64;
            let remaining_ms = hold_ms - (down_at_ms - active_at_ms);
            if remaining_ms > 0 && remaining_ms < grace_ms {
                active_at_ms = t_ms + grace_ms - hold_ms;
            } else if remaining_ms > 0 {
                active_at_ms += t_ms - down_at_ms;
            }
            alert.active_at_ms = active_at_ms;
        }
        self.restored = true;
    }
}
