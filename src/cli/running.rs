//! Which configuration runs, and how does another one take its place? Everything that a configuration governs is
//! applied in one order, at the start and at each reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use super::flags::{Flags, format_bytes};
use super::notify::AlertDelivery;
use crate::alert::load::load_groups;
use crate::alert::{EngineEvaluator, ExternalContext, GroupContext, RuleManager};
use crate::api::query_log::{FileQueryLog, QueryLogMetrics};
use crate::config::{Config, LoadOptions, expand_pattern};
use crate::model::Labels;
use crate::model::duration::format_duration_ms;
use crate::query::Engine;
use crate::query::log::QueryLog;
use crate::query::parse::ParseOptions;
use crate::remote::otlp::OtlpReceiver;
use crate::remote::read::Fanout;
use crate::remote::send::RemoteWriter;
use crate::remote::traces::TraceExporter;
use crate::scrape::ScrapeManager;
use crate::telemetry::Counter;
use crate::tsdb::{Db, DbOptions};

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// None was given: scrape this address.
    SelfScrape {
        /// Where this server listens.
        address: std::net::SocketAddr,
        /// Path of its metrics.
        path: String,
    },
}

/// The configuration of a process that was given none.
fn self_scrape(address: std::net::SocketAddr, path: &str, interval: &str) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv6() => "[::1]".to_owned(),
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!(
        "global:\n  scrape_interval: {interval}\n  evaluation_interval: {interval}\nscrape_configs:\n  - job_name: meerkat\n    \
         metrics_path: {path}\n    static_configs:\n      - targets: ['{host}:{}']\n",
        address.port()
    )
}

/// The running configuration and how it is read again.
pub struct RunningConfig {
    origin: ArcSwap<Origin>,
    options: LoadOptions,
    current: ArcSwap<Config>,
    retention_ms: i64,
    retention_bytes: u64,
    retention_given: bool,
    /// The data directory.
    data: PathBuf,
    /// Until when a process without configuration scrapes itself quickly, milliseconds.
    quick_until_ms: i64,
}

impl RunningConfig {
    /// Reads the first configuration; the error is a text for people.
    pub fn load(origin: Origin, flags: &Flags, quick_until_ms: i64) -> Result<Arc<Self>, String> {
        let options = LoadOptions {
            agent: flags.bool("agent"),
            protobuf_first: flags.feature("created-timestamp-zero-ingestion") || flags.feature("st-storage"),
            ..LoadOptions::default()
        };
        let running = Self {
            origin: ArcSwap::from_pointee(origin),
            options,
            current: ArcSwap::default(),
            retention_ms: flags.duration_ms("storage.tsdb.retention.time"),
            retention_bytes: flags.bytes("storage.tsdb.retention.size"),
            retention_given: flags.is_given("storage.tsdb.retention.time")
                || flags.is_given("storage.tsdb.retention.size"),
            data: PathBuf::from(flags.text("storage.tsdb.path")),
            quick_until_ms,
        };
        let first = running.read(0)?;
        if percentage(&first).is_some() && running.disk_bytes().is_none() {
            return Err(format!(
                "storage.tsdb.retention.percentage: the size of the disk of {} is not known; use size instead",
                running.data.display()
            ));
        }
        running.current.store(Arc::new(first));
        Ok(Arc::new(running))
    }

    /// Reads the configuration anew without taking it over.
    pub fn read(&self, now_ms: i64) -> Result<Config, String> {
        match &**self.origin.load() {
            Origin::File(path) => Config::load(path, &self.options).map_err(|e| e.to_string()),
            Origin::SelfScrape { address, path } => {
                let interval = if now_ms < self.quick_until_ms { "2s" } else { "5s" };
                let text = self_scrape(*address, path, interval);
                Config::parse(&text, Path::new(""), &self.options).map_err(|e| e.to_string())
            }
        }
    }

    /// What is running.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Notes what is running now.
    pub fn set(&self, config: Arc<Config>) {
        self.current.store(config);
    }

    /// Where the configuration comes from, for messages.
    #[must_use]
    pub fn origin_text(&self) -> String {
        match &**self.origin.load() {
            Origin::File(path) => path.display().to_string(),
            Origin::SelfScrape { .. } => "(built in)".into(),
        }
    }

    /// Milliseconds and bytes to keep, 0 = no limit: the configuration's, else the flags', else 15 days.
    #[must_use]
    pub fn retention(&self, config: &Config) -> (i64, u64) {
        let from_config = config.storage.tsdb.as_ref().and_then(|t| t.retention.as_ref());
        if let Some(retention) = from_config {
            let size = retention.size.map_or(0, |s| s.as_u64());
            let size = match percentage(config) {
                Some(percent) => {
                    self.disk_bytes().map_or(size, |disk| (disk as f64 * percent / 100.0) as u64)
                }
                None => size,
            };
            return (retention.time.map_or(0, |t| t.0), size);
        }
        if self.retention_given {
            return (self.retention_ms, self.retention_bytes);
        }
        (15 * 86_400_000, 0)
    }

    /// Size of the disk that holds the data directory, or the folder it will be created in.
    fn disk_bytes(&self) -> Option<u64> {
        let path = std::path::absolute(&self.data).ok()?;
        let stat = path.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
        Some(stat.f_blocks.saturating_mul(stat.f_frsize)).filter(|bytes| *bytes > 0)
    }

    /// The retention as the runtime page shows it.
    #[must_use]
    pub fn retention_text(&self) -> String {
        let (time_ms, bytes) = self.retention(&self.current());
        let time = (time_ms > 0).then(|| format_duration_ms(time_ms));
        let size = (bytes > 0).then(|| format_bytes(bytes));
        time.into_iter().chain(size).collect::<Vec<_>>().join(" or ")
    }

    /// A fingerprint of all files that the configuration consists of; it changes when one of them does.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        let mut add = |path: &Path| {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update([0]);
            match std::fs::read(path) {
                Ok(content) => hash.update(Sha256::digest(&content)),
                Err(e) => hash.update(e.kind().to_string().as_bytes()),
            }
        };
        if let Origin::File(path) = &**self.origin.load() {
            add(path);
        }
        let config = self.current();
        for pattern in config.rule_files.iter().chain(&config.scrape_config_files) {
            for path in expand_pattern(&pattern.0) {
                add(Path::new(&path));
            }
        }
        hash.finalize().to_vec()
    }
}

/// Which share of the disk may be used, percent; wins over a size.
fn percentage(config: &Config) -> Option<f64> {
    let retention = config.storage.tsdb.as_ref()?.retention.as_ref()?;
    retention.percentage.filter(|percent| *percent > 0.0)
}

/// What a configuration governs.
pub struct Governed {
    /// Storage.
    pub db: Arc<Db>,
    /// Remote write to others.
    pub sender: Arc<RemoteWriter>,
    /// Metrics of OpenTelemetry.
    pub otlp: Arc<OtlpReceiver>,
    /// Storage with remote read.
    pub fanout: Arc<Fanout>,
    /// Scraping.
    pub scrape: ScrapeManager,
    /// Rules.
    pub rules: Arc<RuleManager>,
    /// Delivery of alerts.
    pub delivery: Arc<AlertDelivery>,
    /// Sends spans to a collector.
    pub traces: TraceExporter,
    /// What spans say of this process.
    pub resource: Vec<(&'static str, String)>,
    /// PromQL.
    pub engine: Arc<Engine>,
    /// What PromQL allows.
    pub parse: ParseOptions,
    /// `--web.external-url`.
    pub external_url: String,
    /// `--rules.alert.resend-delay`, milliseconds.
    pub resend_delay_ms: i64,
    /// Counts failed template expansions.
    pub template_failures: Counter,
    /// Instruments of the query log.
    pub query_log: QueryLogMetrics,
    /// Permits of the feature `concurrent-rule-eval`, `None` without it.
    pub concurrency: Option<Arc<crate::alert::EvalPermits>>,
    /// Recording rules over the past.
    pub backfills: Arc<crate::alert::backfill::Backfills>,
}

impl Governed {
    /// The context of rule evaluation under a configuration.
    #[must_use]
    pub fn rule_context(&self, config: &Config) -> GroupContext {
        GroupContext {
            evaluator: Arc::new(EngineEvaluator::new(
                Arc::clone(&self.engine),
                Arc::clone(&self.fanout) as _,
            )),
            storage: Arc::clone(&self.db) as _,
            notifier: Arc::clone(&self.delivery.notifier) as _,
            external: ExternalContext {
                labels: Labels::from_pairs(&config.global.external_labels.0),
                url: self.external_url.clone(),
            },
            resend_delay_ms: self.resend_delay_ms,
            template_failures: self.template_failures.clone(),
            concurrency: self.concurrency.clone(),
        }
    }

    /// Opens the query log anew, or closes it.
    fn apply_query_log(&self, config: &Config) -> Result<(), String> {
        let path = &config.global.query_log_file;
        let opened = if path.is_empty() {
            Ok(None)
        } else {
            let opened = FileQueryLog::open(path.as_path(), &self.query_log);
            opened.map(|log| Some(Arc::new(log) as Arc<dyn QueryLog>))
        };
        let log = opened.map_err(|e| format!("opening the query log {}: {e}", path.0))?;
        self.query_log.set_enabled(log.is_some());
        self.engine.set_query_log(log);
        Ok(())
    }

    /// Takes over a configuration. What fails is reported, what does not is applied, as in Prometheus.
    pub async fn apply(&self, running: &RunningConfig, config: Config, first: bool) -> Result<(), String> {
        let config = Arc::new(config);
        let mut errors = Vec::new();
        let (retention_ms, retention_bytes) = running.retention(&config);
        self.db.set_retention(retention_ms, retention_bytes);
        self.db.note_retention_percentage(percentage(&config).unwrap_or(0.0));
        let tsdb = config.storage.tsdb.as_ref();
        self.db.set_out_of_order_window(tsdb.map_or(0, |t| t.out_of_order_time_window.0));
        // Prometheus's 0 keeps ended series for hours; here it stands for the default.
        let share = tsdb.map_or(0.0, |t| t.stale_series_compaction_threshold);
        self.db.set_ended_series_share(if share > 0.0 {
            share
        } else {
            DbOptions::default().ended_series_share
        });
        if let Some(exemplars) = &config.storage.exemplars {
            self.db.set_exemplar_capacity(usize::try_from(exemplars.max_exemplars).unwrap_or(0));
        }
        self.engine.set_default_subquery_step(config.global.evaluation_interval.0);
        running.set(Arc::clone(&config));
        let (sender, sending) = (Arc::clone(&self.sender), Arc::clone(&config));
        self.otlp.configure(&config.otlp);
        let runtime = tokio::runtime::Handle::current();
        if let Err(e) = self.traces.apply(config.tracing.as_ref(), &self.resource, &runtime) {
            errors.push(e);
        }
        if let Err(e) = self.fanout.apply(&config, &runtime) {
            errors.push(e);
        }
        match tokio::task::spawn_blocking(move || sender.apply(&sending, &runtime)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => errors.push(e),
            Err(_) => errors.push("starting remote write failed inside the server".into()),
        }
        if let Err(e) = self.scrape.apply(&config).await {
            errors.push(e.to_string());
        }
        if let Err(e) = self.delivery.apply(&config) {
            errors.push(e);
        }
        if let Err(e) = self.apply_query_log(&config) {
            errors.push(e);
        }
        let (loading, parse) = (Arc::clone(&config), self.parse);
        match tokio::task::spawn_blocking(move || load_groups(&loading, parse)).await {
            Ok(Ok(groups)) => self.rules.apply(groups, self.rule_context(&config), first).await,
            Ok(Err(e)) => errors.push(format!("loading rules: {e}")),
            Err(_) => errors.push("loading rules failed inside the server".into()),
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}
