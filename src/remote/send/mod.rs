//! Remote write to other servers: which peers are there, and how do they come and go with the configuration? Each has
//! a reader of the log with a saved place ([`queue`]), shards that send ([`shard`]), and figures ([`metrics`]).
//!
//! Nothing waits in memory that the log does not have: a peer that is away finds everything when it is back, unless the
//! log had to be cut meanwhile, which is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;

use crate::config::yaml::ToYaml as _;
use crate::config::{Config, RemoteWriteConfig, RemoteWriteMessage};
use crate::model::Labels;
use crate::model::clock::Clock;
use crate::model::metadata::Metadata;
use crate::remote::receive::MessageVersion;
use crate::remote::write_encode::metadata_1;
use crate::telemetry::Registry;
use crate::telemetry::spans::SpanContext;
use crate::tsdb::LogTails;

/// Requests and answers.
pub mod client;
/// Metadata of families.
pub mod families;
/// Self-metrics.
pub mod metrics;
/// What is settled.
pub mod progress;
/// The reader of a queue.
pub mod queue;
/// The number of shards.
pub mod scaling;
/// Series on their way out.
pub mod series;
/// Shards.
pub mod shard;

use client::{Answer, WriteClient};
use families::{Families, MetadataSource};
use metrics::Metrics;
use queue::{Newest, Reader, Wanted};
use series::SeriesMap;
use shard::Common;

/// How often metadata for messages of version 2.0 is looked up.
const FAMILIES_PERIOD: Duration = Duration::from_secs(15);

/// What sending needs of the rest of the process.
pub struct SendParts {
    /// The log.
    pub tails: Arc<dyn LogTails>,
    /// Newest sample of the storage.
    pub newest: Arc<dyn Newest>,
    /// Metadata.
    pub metadata: Arc<dyn MetadataSource>,
    /// Self-metrics.
    pub registry: Arc<Registry>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// `--storage.remote.flush-deadline`
    pub flush_deadline: Duration,
}

struct Running {
    /// Section and external labels that it was started with.
    started_with: (RemoteWriteConfig, Labels),
    names: (String, String),
    ending: Arc<AtomicBool>,
    metadata: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// All peers.
pub struct RemoteWriter {
    parts: SendParts,
    /// By the name of their reader. Never locked across an await.
    running: Mutex<BTreeMap<String, Running>>,
}

/// A short name for a section that has none.
pub(super) fn short_hash(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().take(3).map(|b| format!("{b:02x}")).collect()
}

impl RemoteWriter {
    /// Sends nothing yet.
    #[must_use]
    pub fn new(parts: SendParts) -> Arc<Self> {
        let highest = parts.registry.gauge(
            "prometheus_remote_storage_highest_timestamp_in_seconds",
            "Highest timestamp that has come into the remote storage via the Appender interface, in seconds since epoch. Initialized to 0 when no data has been received yet.",
            &[],
        );
        let newest = Arc::clone(&parts.newest);
        parts.registry.on_collect(move || {
            let newest_ms = newest.newest_ms();
            if newest_ms > 0 {
                highest.set((newest_ms / 1000) as f64);
            }
        });
        Arc::new(Self { parts, running: Mutex::default() })
    }

    /// Takes over a configuration: peers whose section did not change go on undisturbed. Blocks while others flush.
    /// The error names the sections that cannot be used.
    pub fn apply(&self, config: &Config, runtime: &tokio::runtime::Handle) -> Result<(), String> {
        let external = Labels::from_pairs(&config.global.external_labels.0);
        let mut wanted: BTreeMap<String, &RemoteWriteConfig> = BTreeMap::new();
        for section in &config.remote_write {
            let mut key = match section.name.as_str() {
                "" => section.url.expose().to_owned(),
                name => format!("name:{name}"),
            };
            while wanted.contains_key(&key) {
                key.push('+');
            }
            wanted.insert(key, section);
        }
        let names: BTreeSet<String> = wanted.keys().map(|key| tail_name(key)).collect();
        let mut running = self.running.lock();
        let changed: Vec<String> = running
            .iter()
            .filter(|(key, old)| {
                let (section, labels) = &old.started_with;
                wanted.get(*key).is_none_or(|new| *new != section) || *labels != external
            })
            .map(|(key, _)| key.clone())
            .collect();
        let leaving: Vec<Running> = changed.iter().filter_map(|key| running.remove(key)).collect();
        self.end(leaving);
        self.parts.tails.keep_tails(&names);
        let mut errors = Vec::new();
        for (key, section) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            match self.start(&tail_name(&key), section, external.clone(), runtime) {
                Ok(started) => {
                    running.insert(key, started);
                }
                Err(e) => errors.push(format!("remote_write to {}: {e}", section.url)),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    fn start(
        &self,
        tail: &str,
        section: &RemoteWriteConfig,
        external: Labels,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Running, String> {
        let parts = &self.parts;
        let version = match section.protobuf_message {
            RemoteWriteMessage::V1 => MessageVersion::V1,
            RemoteWriteMessage::V2 => MessageVersion::V2,
        };
        let client = WriteClient::new(section, version, &parts.registry).map_err(|e| e.to_string())?;
        let name = match section.name.as_str() {
            "" => short_hash(&section.to_value().print()),
            name => name.to_owned(),
        };
        let url = section.url.to_string();
        let metrics = Metrics::new(&parts.registry, &name, &url);
        let families = Arc::new(Families::default());
        families.refresh(&*parts.metadata);
        let common = Arc::new(Common {
            client,
            names: (name.clone(), url.clone()),
            version,
            queue: section.queue_config.clone(),
            metrics,
            progress: progress::Progress::default(),
            clock: Arc::clone(&parts.clock),
            families: Arc::clone(&families) as _,
            log_failures: section.failed_request_logging,
            sent: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            last_taken_ms: AtomicI64::new(parts.clock.now_ms()),
            newest_sent_ms: AtomicI64::new(0),
            stuck: AtomicBool::new(false),
            splits: AtomicU64::new(0),
            room: (Mutex::new(()), Condvar::new()),
        });
        let ending = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            common: Arc::clone(&common),
            tail: parts.tails.tail(tail).map_err(|e| e.to_string())?,
            series: SeriesMap::new(external.clone(), section.write_relabel_configs.clone(), version),
            wanted: Wanted {
                exemplars: section.send_exemplars,
                histograms: section.send_native_histograms || version == MessageVersion::V2,
            },
            newest: Arc::clone(&parts.newest),
            runtime: runtime.clone(),
            ending: Arc::clone(&ending),
            ending_since: None,
            flush_deadline: parts.flush_deadline,
        };
        let thread = std::thread::Builder::new().name("remote-write".into());
        let thread = thread.spawn(move || reader.run()).map_err(|e| e.to_string())?;
        let metadata = CancellationToken::new();
        let source = Arc::clone(&parts.metadata);
        let sending = match version {
            MessageVersion::V2 => Metadata2 { families, source }.spawn(runtime, metadata.clone()),
            MessageVersion::V1 => {
                let settings = &section.metadata_config;
                settings.send.then(|| {
                    let most = usize::try_from(settings.max_samples_per_send).unwrap_or(1).max(1);
                    let period = settings.send_interval.as_std().max(Duration::from_millis(1));
                    runtime.spawn(send_metadata(common, source, period, most, metadata.clone()))
                })
            }
        };
        // It ends by its token; nobody waits for it.
        drop(sending);
        let started_with = (section.clone(), external);
        Ok(Running { started_with, names: (name, url), ending, metadata, thread: Some(thread) })
    }

    /// Sends what is waiting as far as the peers take it, and stops. Blocks.
    pub fn stop(&self) {
        let all = std::mem::take(&mut *self.running.lock());
        self.end(all.into_values().collect());
    }

    fn end(&self, mut leaving: Vec<Running>) {
        for queue in &leaving {
            queue.ending.store(true, Ordering::SeqCst);
            queue.metadata.cancel();
        }
        for queue in &mut leaving {
            if let Some(thread) = queue.thread.take() {
                // A panic in it was logged.
                let _ = thread.join();
            }
            metrics::forget(&self.parts.registry, &queue.names.0, &queue.names.1);
        }
    }
}

/// Readers are known by a hash: URLs may hold credentials.
fn tail_name(key: &str) -> String {
    match key.strip_prefix("name:") {
        Some(name) => format!("remote-write-{name}"),
        None => format!("remote-write-{:016x}", xxhash_rust::xxh3::xxh3_64(key.as_bytes())),
    }
}

struct Metadata2 {
    families: Arc<Families>,
    source: Arc<dyn MetadataSource>,
}

impl Metadata2 {
    fn spawn(
        self,
        runtime: &tokio::runtime::Handle,
        stop: CancellationToken,
    ) -> Option<tokio::task::JoinHandle<()>> {
        Some(runtime.spawn(async move {
            let mut wait = Duration::from_secs(1);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                self.families.refresh(&*self.source);
                wait = (wait * 2).min(FAMILIES_PERIOD);
            }
        }))
    }
}

/// Sends metadata in messages of version 1.0, again and again.
async fn send_metadata(
    common: Arc<Common>,
    source: Arc<dyn MetadataSource>,
    period: Duration,
    most: usize,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        let families = source.families();
        for part in families.chunks(most) {
            if !send_metadata_part(&common, part, &stop).await {
                return;
            }
        }
    }
}

/// Whether to go on.
async fn send_metadata_part(common: &Common, part: &[(String, Metadata)], stop: &CancellationToken) -> bool {
    let [sent, failed, retried] = &common.metrics.metadata;
    let count = part.len() as f64;
    let mut backoff = common.queue.min_backoff.as_std();
    let mut attempt = 0;
    loop {
        let Ok((body, encoding)) = common.client.pack(&metadata_1(part)) else { return true };
        common.metrics.metadata_bytes.add(body.len() as f64);
        match common.client.send(body, encoding, attempt, common.clock.now_ms(), SpanContext::Outside).await {
            Answer::Taken(_) => {
                sent.add(count);
                return true;
            }
            Answer::Refused { reason, .. } => {
                tracing::error!(count, err = %reason, "non-recoverable error while sending metadata");
                failed.add(count);
                return true;
            }
            Answer::Retry { after, .. } => {
                retried.add(count);
                attempt += 1;
                tokio::select! {
                    () = stop.cancelled() => return false,
                    () = tokio::time::sleep(after.unwrap_or(backoff)) => {}
                }
                backoff = (backoff * 2).min(common.queue.max_backoff.as_std());
            }
        }
    }
}
