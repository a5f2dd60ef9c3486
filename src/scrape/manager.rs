//! What does the configuration want scraped? The manager owns the pools, feeds them from discovery, and takes over
//! new configurations without disturbing what did not change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::buffers::BufferPool;
use super::cache::HashKey;
use super::discovery::{DiscoveryManager, DiscoveryOptions, TargetSets};
use super::metadata::{FamilyMetadata, Interner};
use super::metrics::ScrapeMetrics;
use super::pool::{FailureLog, PoolSnapshot, ScrapePool, build_client};
use super::settings::{JobSettings, ScrapeOptions, Shared};
use crate::config::{Config, ScrapeConfig};
use crate::model::clock::Clock;
use crate::model::relabel::{RelabelStep, process_steps};
use crate::model::{Labels, LabelsBuilder};
use crate::net::HttpClient;
use crate::telemetry::Registry;
use crate::tsdb::door::Appendable;

/// A configuration that could not be taken over; nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("scrape job {job:?}: {reason}")]
pub struct ApplyError {
    /// The job at fault.
    pub job: String,
    /// What is wrong with it.
    pub reason: String,
}

struct Inner {
    shared: Arc<Shared>,
    discovery: DiscoveryManager,
    pools: Mutex<BTreeMap<String, Arc<ScrapePool>>>,
    buffers: Arc<BufferPool>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    loops: Handle,
}

/// The scraper. Cheap to clone.
#[derive(Clone)]
pub struct ScrapeManager(Arc<Inner>);

/// What a job needs beyond its configuration; made before anything changes.
struct Prepared {
    config: ScrapeConfig,
    client: Option<HttpClient>,
    log: Option<Arc<FailureLog>>,
}

impl ScrapeManager {
    /// A manager without jobs. Must be called inside a tokio runtime, on which discovery will run; targets are scraped on
    /// `loops`.
    #[must_use]
    pub fn new(
        storage: Arc<dyn Appendable>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        options: ScrapeOptions,
        loops: Handle,
    ) -> Self {
        let discovery_options =
            DiscoveryOptions { name: "scrape".into(), interval_ms: options.discovery_interval_ms };
        let discovery = DiscoveryManager::new(discovery_options, &registry, Arc::clone(&clock));
        let metrics = ScrapeMetrics::new(&registry);
        let shared = Arc::new(Shared {
            bursts: super::settings::bursts(),
            storage,
            clock,
            metrics,
            options,
            hash_key: HashKey::random(),
            interner: Interner::default(),
        });
        let inner = Arc::new(Inner {
            shared,
            discovery,
            pools: Mutex::default(),
            buffers: Arc::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            loops,
        });
        let weak = Arc::downgrade(&inner);
        registry.on_collect(move || {
            if let Some(inner) = weak.upgrade() {
                let pools: Vec<_> = inner.pools.lock().values().cloned().collect();
                pools.iter().for_each(|pool| pool.collect());
            }
        });
        let weak = Arc::downgrade(&inner);
        let updates = inner.discovery.subscribe();
        inner.tasks.spawn(follow(weak, updates, inner.shutdown.clone()));
        Self(inner)
    }

    /// Takes over a configuration: all of it, or nothing and an error. Unchanged targets keep their schedule, their
    /// cache and their series.
    ///
    /// # Errors
    ///
    /// A job's HTTP client or failure log cannot be made.
    pub async fn apply(&self, config: &Config) -> Result<(), ApplyError> {
        let inner = &self.0;
        let existing = inner.pools.lock().clone();
        let mut logs: BTreeMap<PathBuf, Arc<FailureLog>> = BTreeMap::new();
        let mut prepared: BTreeMap<String, Prepared> = BTreeMap::new();
        for job in &config.scrape_configs {
            let fail = |reason: String| ApplyError { job: job.job_name.clone(), reason };
            let old = existing.get(&job.job_name).map(|pool| pool.settings());
            let same_client = old.as_ref().is_some_and(|old| old.config.http == job.http);
            if old.is_none() {
                inner.shared.metrics.pools.inc();
            }
            let client = if same_client {
                None
            } else {
                Some(build_client(job, None, &inner.shared.metrics).map_err(|e| {
                    let metrics = &inner.shared.metrics;
                    if old.is_some() { &metrics.pool_reloads_failed } else { &metrics.pools_failed }.inc();
                    fail(format!("error creating HTTP client: {e}"))
                })?)
            };
            let log = match job.scrape_failure_log_file.is_empty() {
                true => None,
                false => {
                    let path = job.scrape_failure_log_file.as_path().to_owned();
                    let log = match logs.get(&path) {
                        Some(log) => Arc::clone(log),
                        None => FailureLog::open(path.clone()).map_err(|e| {
                            fail(format!("cannot open scrape failure log {}: {e}", path.display()))
                        })?,
                    };
                    logs.insert(path, Arc::clone(&log));
                    Some(log)
                }
            };
            prepared.insert(job.job_name.clone(), Prepared { config: job.clone(), client, log });
        }
        let sets = prepared.iter().map(|(job, p)| (job.clone(), p.config.sd.clone())).collect();
        self.swap(prepared);
        inner.discovery.apply(sets);
        Ok(())
    }

    fn swap(&self, prepared: BTreeMap<String, Prepared>) {
        let inner = &self.0;
        let mut pools = inner.pools.lock();
        pools.retain(|job, pool| {
            let keep = prepared.contains_key(job);
            if !keep {
                pool.remove();
            }
            keep
        });
        for (job, Prepared { config, client, log }) in prepared {
            match (pools.get(&job), client) {
                (Some(pool), client) => {
                    if pool.settings().config != config {
                        inner.shared.metrics.pool_reloads.inc();
                        pool.reconfigure(config, client, log);
                    }
                }
                (None, Some(client)) => {
                    let user_agent = inner.shared.options.user_agent.clone();
                    let pool = ScrapePool::new(
                        Arc::clone(&inner.shared),
                        JobSettings::new(config, 0, user_agent),
                        client,
                        log,
                        Arc::clone(&inner.buffers),
                        inner.shutdown.clone(),
                        inner.tasks.clone(),
                        inner.loops.clone(),
                    );
                    pools.insert(job, pool);
                }
                // A job that is new always got a client.
                (None, None) => {}
            }
        }
    }

    /// Names of the pools.
    #[must_use]
    pub fn pools(&self) -> Vec<String> {
        self.0.pools.lock().keys().cloned().collect()
    }

    /// All targets, by pool in order of name.
    #[must_use]
    pub fn targets(&self) -> Vec<PoolSnapshot> {
        let pools: Vec<_> = self.0.pools.lock().values().cloned().collect();
        pools.iter().map(|pool| pool.snapshot()).collect()
    }

    /// Calls `visit` for every family of every target until it answers false.
    pub fn visit_metadata(&self, visit: &mut dyn FnMut(&Labels, &FamilyMetadata) -> bool) {
        let pools: Vec<_> = self.0.pools.lock().values().cloned().collect();
        for pool in pools {
            for scrape_loop in pool.loops() {
                let families: Vec<Arc<FamilyMetadata>> =
                    scrape_loop.memory.lock().metadata.families().cloned().collect();
                for family in families {
                    if !visit(&scrape_loop.target.labels, &family) {
                        return;
                    }
                }
            }
        }
    }

    /// What each relabelling rule of a job makes of discovered labels; `None` if there is no such job.
    #[must_use]
    pub fn relabel_steps(&self, job: &str, labels: &Labels) -> Option<Vec<RelabelStep>> {
        let settings = self.0.pools.lock().get(job)?.settings();
        let map = LabelsBuilder::new(labels)
            .iter()
            .map(|l| (l.name.to_owned(), l.value.to_owned()))
            .collect::<BTreeMap<_, _>>();
        let labels = super::target::discovered_labels(&settings.config, &map, &BTreeMap::new()).build();
        Some(process_steps(&labels, &settings.config.relabel_configs))
    }

    /// Stops discovery and all loops; waits for scrapes that are being stored. Series do not end: the server will be
    /// back.
    pub async fn stop(&self) {
        self.0.shutdown.cancel();
        self.0.discovery.stop().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Feeds the pools with what discovery finds.
async fn follow(
    manager: Weak<Inner>,
    mut updates: tokio::sync::watch::Receiver<Arc<TargetSets>>,
    shutdown: CancellationToken,
) {
    let mut before: Arc<TargetSets> = Arc::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = updates.changed() => if changed.is_err() { return },
        }
        let now = Arc::clone(&updates.borrow_and_update());
        let Some(inner) = manager.upgrade() else { return };
        let pools = inner.pools.lock().clone();
        for (job, groups) in now.iter() {
            let same = before.get(job).is_some_and(|old| {
                old.len() == groups.len() && old.iter().zip(groups).all(|(a, b)| Arc::ptr_eq(a, b))
            });
            if let Some(pool) = pools.get(job)
                && !(same && pool.has_groups())
            {
                pool.sync(groups.clone());
            }
        }
        before = now;
    }
}
