//! Which rooms stand behind the API's small traits? Each room is adapted here, so that neither side knows the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notify::AlertDelivery;
use super::running::RunningConfig;
use crate::alert::backfill::{BackfillWish, Backfills, BlockSink, JobStatus};
use crate::alert::silences::SilenceDoor;
use crate::alert::{Alert, AlertState, GroupSnapshot, Rule, RuleKind, RuleManager};
use crate::api::json::{self, Object};
use crate::api::sources::{
    ActiveTarget, AlertView, AlertingView, ConfigSource, DroppedTarget, HeadStats, NamedCount, RelabelStep,
    RuleGroupView, RuleView, RulesSource, StorageAdmin, TargetMetadata, TargetsSource,
};
use crate::config::yaml::ToYaml as _;
use crate::model::duration::format_duration_ms;
use crate::model::metadata::Metadata;
use crate::model::relabel::RelabelRule;
use crate::model::{Labels, Matcher};
use crate::query::value::PointValue;
use crate::remote::read::LocalStart;
use crate::remote::send::families::MetadataSource;
use crate::remote::send::queue::Newest;
use crate::scrape::ScrapeManager;
use crate::tsdb::block::{BlockMeta, SeriesSource};
use crate::tsdb::{Db, MetadataStore as _, StorageError};

/// Scraping as the API sees it.
pub struct Targets {
    /// The scraper.
    pub manager: ScrapeManager,
    /// The running configuration.
    pub config: Arc<RunningConfig>,
    /// `--web.external-url`.
    pub external_url: String,
}

/// A target's URL as seen from elsewhere: names of this machine are replaced by the external host.
fn global_url(url: &str, external: &str) -> String {
    let (Ok(mut url_parsed), Ok(external)) = (url::Url::parse(url), url::Url::parse(external)) else {
        return url.to_owned();
    };
    let local = matches!(url_parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if !local {
        return url.to_owned();
    }
    let same_port = url_parsed.port_or_known_default() == external.port_or_known_default();
    let replaced = if same_port {
        // The target is this server itself.
        url_parsed.set_scheme(external.scheme()).is_ok()
            && url_parsed.set_host(external.host_str()).is_ok()
            && url_parsed.set_port(external.port()).is_ok()
    } else {
        url_parsed.set_host(external.host_str()).is_ok()
    };
    if replaced { url_parsed.to_string() } else { url.to_owned() }
}

fn milliseconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A relabelling rule as the JSON object of its configuration fields.
fn rule_json(rule: &RelabelRule) -> String {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    if !rule.source_labels.is_empty() {
        json::strings(object.key("source_labels"), rule.source_labels.iter().map(String::as_str));
    }
    object.text("separator", &rule.separator).text("regex", rule.regex.pattern());
    if rule.modulus > 0 {
        object.integer("modulus", i64::try_from(rule.modulus).unwrap_or(i64::MAX));
    }
    if !rule.target_label.is_empty() {
        object.text("target_label", &rule.target_label);
    }
    object.text("replacement", &rule.replacement).text("action", rule.action.as_str());
    object.close();
    String::from_utf8_lossy(&out).into_owned()
}

impl TargetsSource for Targets {
    fn scrape_pools(&self) -> Vec<String> {
        self.manager.pools()
    }

    fn active(&self, pool: Option<&str>) -> Vec<ActiveTarget> {
        let pools = self.manager.targets().into_iter().filter(|p| pool.is_none_or(|name| name == p.job));
        pools
            .flat_map(|pool| {
                let job = pool.job;
                pool.active.into_iter().map(move |status| (job.clone(), status))
            })
            .map(|(scrape_pool, status)| ActiveTarget {
                discovered_labels: status.target.discovered.clone(),
                labels: status.target.labels.clone(),
                scrape_pool,
                scrape_url: status.target.url.clone(),
                global_url: global_url(&status.target.url, &self.external_url),
                last_error: status.last.error.clone(),
                last_scrape_ms: Some(status.last.at_ms).filter(|t| *t != 0),
                last_scrape_duration: status.last.duration.as_secs_f64(),
                health: status.last.health.as_str(),
                scrape_interval: format_duration_ms(milliseconds(status.target.interval)),
                scrape_timeout: format_duration_ms(milliseconds(status.target.timeout)),
            })
            .collect()
    }

    fn dropped(&self, pool: Option<&str>) -> Vec<DroppedTarget> {
        let pools = self.manager.targets().into_iter().filter(|p| pool.is_none_or(|name| name == p.job));
        pools
            .flat_map(|pool| {
                let job = pool.job;
                pool.dropped
                    .into_iter()
                    .map(move |labels| DroppedTarget { discovered_labels: labels, scrape_pool: job.clone() })
            })
            .collect()
    }

    fn dropped_counts(&self) -> Vec<(String, usize)> {
        self.manager.targets().into_iter().map(|pool| (pool.job, pool.dropped_count)).collect()
    }

    fn pool_config(&self, pool: &str) -> Option<String> {
        let config = self.config.current();
        config.scrape_configs.iter().find(|c| c.job_name == pool).map(|c| c.to_value().print())
    }

    fn relabel_steps(&self, pool: &str, labels: &Labels) -> Result<Vec<RelabelStep>, String> {
        let config = self.config.current();
        let job = config.scrape_configs.iter().find(|c| c.job_name == pool);
        let steps = self.manager.relabel_steps(pool, labels);
        let (Some(job), Some(steps)) = (job, steps) else {
            return Err(format!("scrape pool {pool:?} not found"));
        };
        let step = |step: crate::model::relabel::RelabelStep| RelabelStep {
            rule_json: job.relabel_configs.get(step.rule).map_or_else(|| "{}".into(), rule_json),
            output: step.output,
            keep: step.keep,
        };
        Ok(steps.into_iter().map(step).collect())
    }

    fn metadata(&self, metric: Option<&str>) -> Vec<TargetMetadata> {
        let mut out = Vec::new();
        self.manager.visit_metadata(&mut |target, family| {
            if metric.is_none_or(|name| name == family.name) {
                out.push(TargetMetadata {
                    target: target.clone(),
                    metric: family.name.clone(),
                    metadata: family.metadata.clone(),
                });
            }
            true
        });
        out
    }
}

/// Rules and alerts as the API sees them.
pub struct Rules {
    /// Groups.
    pub manager: Arc<RuleManager>,
    /// Delivery to Alertmanagers.
    pub delivery: Arc<AlertDelivery>,
    /// Recording rules over the past.
    pub backfills: Arc<Backfills>,
}

/// Storage as the place of backfilled blocks.
pub struct AddedBlocks(pub Arc<Db>);

impl BlockSink for AddedBlocks {
    fn write(&self, min_t_ms: i64, max_t_ms: i64, series: &mut dyn SeriesSource) -> Result<(), StorageError> {
        self.0.add_block(min_t_ms, max_t_ms, series, &|| false).map(drop)
    }
}

/// A value in Go's exponent form: `1e+00`.
fn exponent_form(value: f64) -> String {
    if !value.is_finite() {
        return crate::model::number::format_api(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn alert_view(alert: &Alert) -> AlertView {
    let value = match &alert.value {
        PointValue::Float(v) => exponent_form(*v),
        PointValue::Histogram(h) => exponent_form(h.count),
    };
    AlertView {
        labels: alert.labels.clone(),
        annotations: Labels::from_pairs(alert.annotations.iter().map(|(n, v)| (n, v))),
        state: alert.state.as_str(),
        active_at_ms: alert.active_at_ms,
        keep_firing_since_ms: alert.keep_firing_since_ms,
        value,
    }
}

fn is_active(alert: &Alert) -> bool {
    matches!(alert.state, AlertState::Pending | AlertState::Firing)
}

fn rule_view(rule: &Rule) -> RuleView {
    let alerting = match &rule.kind {
        RuleKind::Recording(_) => None,
        RuleKind::Alerting(alerting) => Some(AlertingView {
            state: rule.alert_state().as_str(),
            duration: alerting.spec.hold_ms as f64 / 1000.0,
            keep_firing_for: alerting.spec.keep_firing_ms as f64 / 1000.0,
            annotations: alerting.spec.annotations.clone(),
            alerts: alerting.active.values().filter(|a| is_active(a)).map(alert_view).collect(),
        }),
    };
    RuleView {
        name: rule.name().to_owned(),
        query: rule.expr().to_owned(),
        labels: rule.labels().clone(),
        health: rule.health.as_str(),
        last_error: rule.last_error.clone().unwrap_or_default(),
        evaluation_time: rule.evaluation_seconds,
        last_evaluation_ms: rule.last_evaluation_ms,
        alerting,
    }
}

fn group_view(snapshot: &GroupSnapshot) -> RuleGroupView {
    RuleGroupView {
        name: snapshot.group.spec.name.clone(),
        file: snapshot.group.spec.file.clone(),
        interval: snapshot.group.spec.interval_ms as f64 / 1000.0,
        limit: snapshot.group.spec.limit,
        evaluation_time: snapshot.evaluation_seconds,
        last_evaluation_ms: snapshot.last_evaluation_ms,
        rules: snapshot.group.rules.iter().map(rule_view).collect(),
    }
}

impl RulesSource for Rules {
    fn groups(&self) -> Vec<RuleGroupView> {
        let mut views = Vec::new();
        self.manager.visit(&mut |snapshot| views.push(group_view(snapshot)));
        views
    }

    fn alerts(&self) -> Vec<AlertView> {
        let mut views = Vec::new();
        self.manager.visit(&mut |snapshot| {
            for rule in &snapshot.group.rules {
                if let RuleKind::Alerting(alerting) = &rule.kind {
                    views.extend(alerting.active.values().filter(|a| is_active(a)).map(alert_view));
                }
            }
        });
        views
    }

    fn alertmanagers(&self) -> (Vec<String>, Vec<String>) {
        self.delivery.urls()
    }

    fn start_backfill(
        &self,
        group: &str,
        file: &str,
        rules: &[String],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<u64, String> {
        let mut found = Vec::new();
        self.manager.visit(&mut |snapshot| {
            let spec = &snapshot.group.spec;
            if spec.name != group || !(file.is_empty() || spec.file == file) {
                return;
            }
            let wanted = snapshot.group.rules.iter().filter_map(|rule| match &rule.kind {
                RuleKind::Recording(recording) => Some(Arc::clone(recording)),
                RuleKind::Alerting(_) => None,
            });
            let wanted = wanted.filter(|rule| rules.is_empty() || rules.contains(&rule.name)).collect();
            found.push(BackfillWish { group: spec.clone(), rules: wanted, start_ms, end_ms });
        });
        match found.len() {
            0 => Err(format!("there is no rule group {group:?}")),
            1 => self.backfills.start(found.remove(0)),
            n => Err(format!("{n} files have a group {group:?}: name the file")),
        }
    }

    fn backfills(&self) -> Vec<JobStatus> {
        self.backfills.list()
    }

    fn cancel_backfill(&self, id: u64) -> bool {
        self.backfills.cancel(id)
    }

    fn silences(&self, alertmanager: &str) -> Option<SilenceDoor> {
        self.delivery.silences(alertmanager)
    }
}

/// Storage as the status and admin endpoints see it.
pub struct Storage(pub Arc<Db>);

fn counts(list: Vec<(String, u64)>) -> Vec<NamedCount> {
    list.into_iter().map(|(name, value)| NamedCount { name, value }).collect()
}

impl StorageAdmin for Storage {
    fn head_stats(&self, limit: usize) -> Result<HeadStats, StorageError> {
        let stats = self.0.head_stats();
        let lists = self.0.cardinality(limit);
        Ok(HeadStats {
            series: stats.num_series,
            label_pairs: stats.num_label_pairs,
            chunks: stats.chunk_count,
            min_time_ms: stats.min_time,
            max_time_ms: stats.max_time,
            series_by_metric: counts(lists.series_count_by_metric_name),
            values_by_label: counts(lists.label_value_count_by_label_name),
            bytes_by_label: counts(lists.memory_in_bytes_by_label_name),
            series_by_pair: counts(lists.series_count_by_label_value_pair),
        })
    }

    fn blocks(&self) -> Vec<String> {
        let with_size = |(meta, bytes): (BlockMeta, u64)| {
            let mut meta = serde_json::to_value(meta).ok()?;
            meta["stats"]["numBytes"] = bytes.into();
            Some(meta.to_string())
        };
        self.0.sized_blocks().into_iter().filter_map(with_size).collect()
    }

    fn corruption_count(&self) -> u64 {
        self.0.recovery().damaged
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.0.snapshot(!skip_head)
    }

    fn delete(&self, start_ms: i64, end_ms: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        self.0.delete_series(matchers, start_ms, end_ms)
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.0.clean_tombstones().map(|_| ())
    }
}

impl Newest for Storage {
    fn newest_ms(&self) -> i64 {
        self.0.head_stats().max_time
    }
}

/// From when on storage has everything, with a margin for what a restart may have missed.
pub struct Covered {
    /// Storage.
    pub db: Arc<Db>,
    /// The margin.
    pub margin_ms: i64,
}

impl LocalStart for Covered {
    fn local_from_ms(&self) -> i64 {
        let head = self.db.head_stats().min_time;
        let oldest = self.db.blocks().iter().map(|b| b.min_time).fold(head, i64::min);
        oldest.saturating_add(self.margin_ms)
    }
}

/// What targets and storage know of metric families.
pub struct Families {
    /// The scraper.
    pub scrape: ScrapeManager,
    /// Storage.
    pub db: Arc<Db>,
}

impl MetadataSource for Families {
    fn families(&self) -> Vec<(String, Metadata)> {
        let mut out: BTreeMap<String, Metadata> = self.db.metadata(None).into_iter().collect();
        self.scrape.visit_metadata(&mut |_, family| {
            out.entry(family.name.clone()).or_insert_with(|| family.metadata.clone());
            true
        });
        out.into_iter().collect()
    }
}

impl ConfigSource for RunningConfig {
    fn yaml(&self) -> String {
        self.current().to_yaml()
    }

    fn yaml_on_disk(&self, now_ms: i64) -> Result<String, String> {
        self.read(now_ms).map(|config| config.to_yaml())
    }

    fn external_labels(&self) -> Labels {
        Labels::from_pairs(&self.current().global.external_labels.0)
    }

    fn retention(&self) -> String {
        self.retention_text()
    }
}

/// Mixed into scrape offsets, so that two servers of a pair do not scrape at the same moment.
#[must_use]
pub fn offset_seed(host: &str, external_labels: &Labels) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{host}{external_labels}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_alerts_have_go_exponents() {
        for (value, want) in [(1.0, "1e+00"), (0.25, "2.5e-01"), (1e100, "1e+100"), (f64::INFINITY, "+Inf")] {
            assert_eq!(exponent_form(value), want);
        }
    }

    #[test]
    fn local_urls_are_shown_as_seen_from_elsewhere() {
        for (url, external, want) in [
            ("http://localhost:9100/metrics", "http://mon.example:80", "http://mon.example:9100/metrics"),
            ("http://127.0.0.1:9090/metrics", "https://mon.example:9090", "https://mon.example:9090/metrics"),
            ("http://other:9100/metrics", "http://mon.example", "http://other:9100/metrics"),
        ] {
            assert_eq!(global_url(url, external), want);
        }
    }
}
