//! The common part of mechanisms that ask at intervals: the first time at once, keeping the old targets when an
//! attempt fails.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Updates;
use crate::model::target_group::TargetGroup;
use crate::telemetry::{Counter, Registry, Summary};

/// Asks once.
pub(super) trait Refresher: Send + 'static {
    /// All groups as they are now, or why they cannot be had.
    fn refresh(&mut self) -> impl Future<Output = Result<Vec<TargetGroup>, String>> + Send;
}

/// Counts attempts.
pub(super) struct RefreshMetrics {
    failures: Counter,
    duration: Summary,
}

impl RefreshMetrics {
    pub(super) fn new(registry: &Registry, mechanism: &str, config: &str) -> Self {
        let labels = [("mechanism", mechanism), ("config", config)];
        Self {
            failures: registry.counter(
                "prometheus_sd_refresh_failures_total",
                "Number of refresh failures for the given SD mechanism.",
                &labels,
            ),
            duration: registry.summary(
                "prometheus_sd_refresh_duration_seconds",
                "The duration of a refresh in seconds for the given SD mechanism.",
                &[0.5, 0.9, 0.99],
                &labels,
            ),
        }
    }
}

/// Asks at intervals until cancelled.
pub(super) async fn run(
    mut refresher: impl Refresher,
    mechanism: &'static str,
    interval: Duration,
    metrics: RefreshMetrics,
    updates: Updates,
    cancel: CancellationToken,
) {
    let mut ticker = tokio::time::interval(interval.max(Duration::from_millis(10)));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticker.tick() => {}
        }
        let started = std::time::Instant::now();
        let result = tokio::select! {
            () = cancel.cancelled() => return,
            result = refresher.refresh() => result,
        };
        metrics.duration.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(groups) => updates.replace(groups),
            Err(error) => {
                metrics.failures.inc();
                tracing::error!(discovery = mechanism, %error, "unable to refresh target groups");
            }
        }
    }
}
