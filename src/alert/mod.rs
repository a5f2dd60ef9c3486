//! Rules and alerts: groups of rules evaluated on schedule, the state of alerts, templates in labels and
//! annotations, and notifications to Alertmanagers.

/// Alerting rules and the life of an alert.
pub mod alerting;
/// From discovered targets to Alertmanagers.
pub mod alertmanager;
/// Recording rules over stored history.
pub mod backfill;
/// Alerting rules over stored history.
pub mod backtest;
/// Which rules of a group may be evaluated at the same time.
pub mod dependencies;
/// What rules return at a moment.
mod evaluation;
/// Doors: where values come from and where results and notifications go.
pub mod evaluator;
/// Groups: order, timestamps, staleness, restoration.
pub mod group;
/// What is valid but hardly meant.
pub mod lint;
/// From rule files to groups.
pub mod load;
/// Schedules, reloads, restarts.
pub mod manager;
/// Delivery to Alertmanagers.
pub mod notifier;
/// Recording rules.
pub mod recording;
/// Silences of Alertmanagers.
pub mod silences;
/// Alert state over restarts.
pub mod state;
/// Go's `text/template` as alerts use it.
pub mod template;
/// Labels and annotations of alerts.
pub mod texts;
/// Rule unit tests.
pub mod unit_test;
/// What rules wrote last.
mod written;

/// Stages against plain order.
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;

pub use alerting::{Alert, AlertState, AlertingRule, AlertingSpec, ExternalContext};
pub use evaluation::EvalPermits;
pub use evaluator::{EngineEvaluator, Evaluator, NoNotifier, Notification, Notifier};
pub use group::{Group, GroupContext, GroupSpec, Rule, RuleHealth, RuleKind};
pub use manager::{GroupDefinition, GroupSnapshot, ManagerOptions, RuleManager};
pub use notifier::{AlertmanagerNotifier, AlertmanagerSet, NotifierOptions, Poster};
pub use recording::RecordingSpec;
pub use state::{AlertStore, NoAlertStore};
