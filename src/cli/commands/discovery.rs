//! `check service-discovery`: what does a job find, and what do its rules make of it?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::client::block_on;
use super::output::say;
use super::rules::duration_ms;
use super::{code, text, value};
use crate::config::{Config, LoadOptions, ScrapeConfig};
use crate::model::Labels;
use crate::model::clock::SystemClock;
use crate::model::target_group::TargetGroup;
use crate::scrape::discovery::{DiscoveryManager, DiscoveryOptions};
use crate::scrape::{Populated, discovered_labels, populate};
use crate::telemetry::Registry;

pub(super) fn command() -> Command {
    Command::new("service-discovery")
        .about("Run the discovery of a job and print targets before and after relabelling")
        .arg(Arg::new("config").required(true).value_name("CONFIG").help("The configuration file."))
        .arg(Arg::new("job").required(true).value_name("JOB").help("Name of the scrape job."))
        .arg(value("timeout", "How long to wait for discovery.").default_value("30s"))
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(discover(matches).map(|targets| say!("{targets:#}")))
}

fn discover(matches: &ArgMatches) -> Result<Value, String> {
    let (path, name) = (text(matches, "config"), text(matches, "job"));
    let config = Config::load(Path::new(path), &LoadOptions::default()).map_err(|e| e.to_string())?;
    let Some(job) = config.scrape_configs.iter().find(|j| j.job_name == name) else {
        let names: Vec<&str> = config.scrape_configs.iter().map(|j| j.job_name.as_str()).collect();
        return Err(format!("there is no job {name:?}; the jobs are {names:?}"));
    };
    let timeout = Duration::from_millis(duration_ms(matches, "timeout")?.unsigned_abs());
    let groups = block_on(groups(job, timeout))?;
    let mut out = Vec::new();
    for group in &groups {
        for target in &group.targets {
            let discovered = shown(&discovered_labels(job, target, &group.labels).build());
            let (labels, error) = match populate(job, target, &group.labels) {
                Ok(Populated::Keep(target)) => (shown(&target.labels), None),
                Ok(Populated::Drop(_)) => (json!({}), None),
                Err(e) => (json!({}), Some(e)),
            };
            let mut entry = json!({ "discoveredLabels": discovered, "labels": labels });
            if let Some(error) = error {
                entry["error"] = json!(error);
            }
            // Many sources name the same target; it is printed once.
            if !out.contains(&entry) {
                out.push(entry);
            }
        }
    }
    Ok(Value::Array(out))
}

fn shown(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|l| (l.name.to_owned(), json!(l.value))).collect())
}

/// What discovery has found when the time is up; a job with nothing but static targets need not wait.
async fn groups(job: &ScrapeConfig, timeout: Duration) -> Vec<Arc<TargetGroup>> {
    let options = DiscoveryOptions { name: "check".into(), interval_ms: 10 };
    let manager = DiscoveryManager::new(options, &Registry::new(), Arc::new(SystemClock));
    let mut updates = manager.subscribe();
    manager.apply(BTreeMap::from([("job".to_owned(), job.sd.clone())]));
    let only_static = job.sd.0.iter().all(|sd| sd.key() == "static_configs");
    let expected: usize = if only_static { job.sd.0.len() } else { usize::MAX };
    let mut found = Vec::new();
    // The end of the time is the normal end.
    let _ = tokio::time::timeout(timeout, async {
        while found.len() < expected && updates.changed().await.is_ok() {
            found = updates.borrow_and_update().get("job").cloned().unwrap_or_default();
        }
    })
    .await;
    manager.stop().await;
    found
}
