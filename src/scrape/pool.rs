//! Which targets does a job scrape right now? A pool turns discovered groups into targets and keeps one loop for
//! each; loops of unchanged targets are never touched.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::buffers::BufferPool;
use super::metrics::{PoolMetrics, ScrapeMetrics};
use super::scrape_loop::{LastScrape, ScrapeLoop, TargetMemory};
use super::settings::{JobSettings, Shared};
use super::target::{Populated, Target, populate};
use crate::config::ScrapeConfig;
use crate::model::Labels;
use crate::model::target_group::TargetGroup;
use crate::net::{ClientOptions, HttpClient, NetError};

/// A file that failed scrapes are written to, shared by the jobs that name it.
#[derive(Debug)]
pub struct FailureLog {
    path: PathBuf,
    file: Mutex<File>,
}

impl FailureLog {
    /// Opens the file for appending.
    pub fn open(path: PathBuf) -> std::io::Result<Arc<Self>> {
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Arc::new(Self { path, file: Mutex::new(file) }))
    }

    fn write(&self, job: &str, target: &str, error: &str, t_ms: i64) {
        let time = jiff::Timestamp::from_millisecond(t_ms).map(|t| t.to_string()).unwrap_or_default();
        let line = serde_json::json!({
            "time": time, "level": "ERROR", "msg": error, "job_name": job, "target": target,
        });
        if let Err(error) = writeln!(self.file.lock(), "{line}") {
            tracing::warn!(%error, path = %self.path.display(), "scrape failure log cannot be written");
        }
    }
}

/// What the loops of a pool share.
pub struct PoolShared {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: ArcSwap<JobSettings>,
    pub(super) client: ArcSwap<HttpClient>,
    /// Every scrape fails with this while it is set.
    pub(super) forced_error: ArcSwapOption<String>,
    failure_log: ArcSwapOption<FailureLog>,
    pub(super) buffers: Arc<BufferPool>,
}

/// The client of a job.
pub(super) fn build_client(
    config: &ScrapeConfig,
    socket: Option<PathBuf>,
    metrics: &ScrapeMetrics,
) -> Result<HttpClient, NetError> {
    // Above the interval, so that a connection lives from one scrape to the next.
    let idle = config.scrape_interval.as_std().saturating_mul(2).max(Duration::from_secs(300));
    let options = ClientOptions {
        pool_idle_timeout: idle,
        unix_socket: socket,
        dialer: Some(metrics.dialer(&config.job_name)),
        ..ClientOptions::default()
    };
    HttpClient::from_config(&config.http, options)
}

impl PoolShared {
    pub(super) fn log_failure(&self, target: &str, error: &str, t_ms: i64) {
        if let Some(log) = &*self.failure_log.load() {
            log.write(&self.settings.load().job, target, error, t_ms);
        }
    }

    pub(super) fn socket_client(&self, path: &str) -> Option<HttpClient> {
        match build_client(&self.settings.load().config, Some(PathBuf::from(path)), &self.shared.metrics) {
            Ok(client) => Some(client),
            Err(error) => {
                tracing::error!(%error, path, "no client for the socket of a target");
                None
            }
        }
    }
}

struct Running {
    scrape_loop: Arc<ScrapeLoop>,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Inner {
    loops: HashMap<u64, Running>,
    /// Loops that wait to end their series.
    ending: Vec<Weak<ScrapeLoop>>,
    dropped: Vec<Labels>,
    dropped_count: usize,
    groups: Vec<Arc<TargetGroup>>,
}

/// One target as the API shows it.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// The target.
    pub target: Arc<Target>,
    /// Its last scrape.
    pub last: LastScrape,
}

/// One pool as the API shows it.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    /// Name of the job.
    pub job: String,
    /// Targets being scraped, sorted by URL.
    pub active: Vec<TargetStatus>,
    /// Labels before relabelling of targets that rules dropped, at most `keep_dropped_targets`.
    pub dropped: Vec<Labels>,
    /// How many were dropped.
    pub dropped_count: usize,
}

/// The targets of one job.
pub struct ScrapePool {
    /// Shared with the loops.
    pub(super) shared: Arc<PoolShared>,
    metrics: PoolMetrics,
    inner: Mutex<Inner>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
}

impl ScrapePool {
    /// A pool without targets.
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: JobSettings,
        client: HttpClient,
        failure_log: Option<Arc<FailureLog>>,
        buffers: Arc<BufferPool>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
        runtime: Handle,
    ) -> Arc<Self> {
        let metrics = shared.metrics.pool(&settings.config.job_name);
        metrics.target_limit.set(settings.config.target_limit as f64);
        Arc::new(Self {
            shared: Arc::new(PoolShared {
                shared,
                settings: ArcSwap::from_pointee(settings),
                client: ArcSwap::from_pointee(client),
                forced_error: ArcSwapOption::empty(),
                failure_log: ArcSwapOption::from(failure_log),
                buffers,
            }),
            metrics,
            inner: Mutex::default(),
            shutdown,
            tasks,
            runtime,
        })
    }

    /// The job as configured.
    #[must_use]
    pub fn settings(&self) -> Arc<JobSettings> {
        self.shared.settings.load_full()
    }

    /// Takes over a changed job: running loops see it at their next scrape, targets are worked out anew.
    pub(super) fn reconfigure(
        &self,
        config: ScrapeConfig,
        client: Option<HttpClient>,
        failure_log: Option<Arc<FailureLog>>,
    ) {
        let old = self.settings();
        let epoch = if old.labels_alike(&config) { old.epoch } else { old.epoch + 1 };
        self.metrics.target_limit.set(config.target_limit as f64);
        let user_agent = old.user_agent.clone();
        self.shared.settings.store(Arc::new(JobSettings::new(config, epoch, user_agent)));
        if let Some(client) = client {
            self.shared.client.store(Arc::new(client));
        }
        self.shared.failure_log.store(failure_log);
        let groups = self.inner.lock().groups.clone();
        self.sync(groups);
    }

    /// Makes the loops fit what discovery found.
    pub(super) fn sync(&self, groups: Vec<Arc<TargetGroup>>) {
        let started = std::time::Instant::now();
        let settings = self.settings();
        let config = &settings.config;
        let mut targets: HashMap<u64, Arc<Target>> = HashMap::new();
        let (mut dropped, mut dropped_count) = (Vec::new(), 0);
        let keep = usize::try_from(config.keep_dropped_targets).unwrap_or(usize::MAX);
        for group in &groups {
            for (i, labels) in group.targets.iter().enumerate() {
                match populate(config, labels, &group.labels) {
                    Ok(Populated::Keep(target)) => {
                        targets.insert(target.identity, target);
                    }
                    Ok(Populated::Drop(labels)) => {
                        dropped_count += 1;
                        if keep == 0 || dropped.len() < keep {
                            dropped.push(labels);
                        }
                    }
                    Err(error) => {
                        self.metrics.sync_failed.inc();
                        tracing::error!(
                            scrape_pool = config.job_name,
                            "creating target failed: instance {i} in group {}: {error}",
                            group.source
                        );
                    }
                }
            }
        }
        let limit = config.target_limit;
        let forced = (limit > 0 && targets.len() as u64 > limit).then(|| {
            self.shared.shared.metrics.exceeded_target_limit.inc();
            Arc::new(format!("target_limit exceeded (number of targets: {}, limit: {limit})", targets.len()))
        });
        self.shared.forced_error.store(forced);
        let mut inner = self.inner.lock();
        inner.groups = groups;
        inner.dropped = dropped;
        inner.dropped_count = dropped_count;
        inner.ending.retain(|ending| ending.strong_count() > 0);
        let gone: Vec<u64> = inner.loops.keys().filter(|id| !targets.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(running) = inner.loops.remove(&id) {
                running.cancel.cancel();
                inner.ending.push(Arc::downgrade(&running.scrape_loop));
            }
        }
        self.metrics.targets.set(targets.len() as f64);
        // The last of those that ended with the same series goes first.
        let ending = inner.ending.iter().filter_map(Weak::upgrade);
        let ending: HashMap<u64, Arc<ScrapeLoop>> =
            ending.map(|old| (old.target.series_identity, old)).collect();
        for (id, target) in targets {
            if inner.loops.contains_key(&id) {
                continue;
            }
            let running = self.start(ending.get(&target.series_identity), target);
            inner.loops.insert(id, running);
        }
        drop(inner);
        self.metrics.syncs.inc();
        self.metrics.sync_length.observe(started.elapsed().as_secs_f64());
    }

    /// Starts a loop; one that just ended for the same series hands over what it remembers.
    fn start(&self, before: Option<&Arc<ScrapeLoop>>, target: Arc<Target>) -> Running {
        let (memory, last) = match before {
            Some(before) => {
                before.end_quietly();
                (Arc::clone(&before.memory), before.last())
            }
            None => (Arc::new(Mutex::new(TargetMemory::default())), LastScrape::default()),
        };
        let scrape_loop = ScrapeLoop::new(target, Arc::clone(&self.shared), memory, last);
        let cancel = CancellationToken::new();
        let task = Arc::clone(&scrape_loop).run(cancel.clone(), self.shutdown.clone());
        self.tasks.spawn_on(task, &self.runtime);
        Running { scrape_loop, cancel }
    }

    /// Stops all loops because the job is gone; their series end.
    pub(super) fn remove(&self) {
        let mut inner = self.inner.lock();
        for (_, running) in inner.loops.drain() {
            running.cancel.cancel();
        }
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        let inner = self.inner.lock();
        let mut active: Vec<TargetStatus> = inner
            .loops
            .values()
            .map(|running| TargetStatus {
                target: Arc::clone(&running.scrape_loop.target),
                last: running.scrape_loop.last(),
            })
            .collect();
        active.sort_by(|a, b| (&a.target.url, &a.target.labels).cmp(&(&b.target.url, &b.target.labels)));
        PoolSnapshot {
            job: self.settings().config.job_name.clone(),
            active,
            dropped: inner.dropped.clone(),
            dropped_count: inner.dropped_count,
        }
    }

    /// The loops, for metadata.
    pub(super) fn loops(&self) -> Vec<Arc<ScrapeLoop>> {
        self.inner.lock().loops.values().map(|running| Arc::clone(&running.scrape_loop)).collect()
    }

    /// Refreshes the gauges about metadata caches.
    pub(super) fn collect(&self) {
        let (mut entries, mut bytes) = (0, 0);
        for scrape_loop in self.loops() {
            // A loop that is storing right now is left out rather than waited for.
            if let Some(memory) = scrape_loop.memory.try_lock() {
                let (own_entries, own_bytes) = memory.metadata.size();
                entries += own_entries;
                bytes += own_bytes;
            }
        }
        self.metrics.metadata_entries.set(entries as f64);
        self.metrics.metadata_bytes.set(bytes as f64);
    }

    /// Whether discovery has told anything yet.
    pub(super) fn has_groups(&self) -> bool {
        !self.inner.lock().groups.is_empty()
    }
}
