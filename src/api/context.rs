//! What do handlers share? The parts that exist from the first moment ([`Api`]) and those that appear when storage
//! is open ([`Services`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::notifications::Notifications;
use super::quick::Quick;
use super::sources::{ConfigSource, RulesSource, StorageAdmin, TargetsSource};
use crate::model::clock::Clock;
use crate::query::Engine;
use crate::remote::otlp::OtlpReceiver;
use crate::remote::read::server::ReadLimits;
use crate::remote::receive::RemoteWriteReceiver;
use crate::telemetry::Registry;
use crate::tsdb::{Appendable, ExemplarQuerier, Queryable, ReplayWatch};

/// Settings of the web side.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// `--web.external-url`, normalised, without a trailing slash.
    pub external_url: String,
    /// Begins with `/` and does not end with one; empty for the root.
    pub route_prefix: String,
    /// `--web.page-title`.
    pub page_title: String,
    /// `--web.enable-lifecycle`.
    pub lifecycle: bool,
    /// `--web.enable-admin-api`.
    pub admin_api: bool,
    /// `--web.enable-remote-write-receiver`.
    pub remote_write_receiver: bool,
    /// `--web.enable-otlp-receiver`.
    pub otlp_receiver: bool,
    /// Messages that the receiver accepts: version 1, version 2.
    pub accepted_messages: (bool, bool),
    /// Whether changed files are loaded without being told.
    pub auto_reload: bool,
    /// Names by which clients may call this server besides its addresses; `None` for any.
    pub allowed_hosts: Option<Vec<String>>,
    /// `--web.user-assets`, empty for none.
    pub user_assets: std::path::PathBuf,
    /// Feature `search-api`.
    pub search_api: bool,
    /// `--web.search.max-limit`, 0 = none.
    pub search_max_limit: usize,
    /// Feature `promql-per-step-stats`.
    pub per_step_stats: bool,
    /// `--web.max-notifications-subscribers`.
    pub max_subscribers: usize,
    /// `--web.cors.origin`.
    pub cors_origin: String,
    /// Whether started with `--agent`.
    pub agent: bool,
    /// Names given with `--enable-feature`.
    pub features: Vec<String>,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            external_url: "http://localhost:9090".into(),
            route_prefix: String::new(),
            page_title: "Meerkat".into(),
            lifecycle: false,
            admin_api: false,
            remote_write_receiver: false,
            accepted_messages: (true, true),
            otlp_receiver: false,
            auto_reload: false,
            allowed_hosts: None,
            user_assets: std::path::PathBuf::new(),
            search_api: false,
            search_max_limit: 10_000,
            per_step_stats: false,
            max_subscribers: 16,
            cors_origin: ".*".into(),
            agent: false,
            features: Vec::new(),
        }
    }
}

/// What the program is.
#[derive(Debug, Clone)]
pub struct BuildInfo {
    /// Version of Prometheus whose behaviour is offered; clients choose their requests by it.
    pub version: &'static str,
    /// Own version.
    pub own_version: &'static str,
    /// Commit.
    pub revision: &'static str,
    /// Branch.
    pub branch: &'static str,
    /// Who built it.
    pub user: &'static str,
    /// When it was built.
    pub date: &'static str,
    /// Compiler.
    pub compiler: &'static str,
}

/// What exists once storage is open.
pub struct Services {
    /// PromQL.
    pub engine: Arc<Engine>,
    /// Local storage with remote read, if any.
    pub queryable: Arc<dyn Queryable>,
    /// Takes samples in.
    pub appendable: Arc<dyn Appendable>,
    /// Exemplars, if stored.
    pub exemplars: Option<Arc<dyn ExemplarQuerier>>,
    /// Statistics and administration.
    pub storage: Arc<dyn StorageAdmin>,
    /// Scraping.
    pub targets: Arc<dyn TargetsSource>,
    /// Rules and alerts.
    pub rules: Arc<dyn RulesSource>,
    /// The running configuration.
    pub config: Arc<dyn ConfigSource>,
    /// OTLP receiver.
    pub otlp: Arc<OtlpReceiver>,
    /// Limits of remote read.
    pub read_limits: ReadLimits,
    /// Lets so many remote-read requests in at a time.
    pub read_gate: Arc<tokio::sync::Semaphore>,
    /// Remote-write receiver.
    pub receiver: Arc<RemoteWriteReceiver>,
    /// Places for requests that compute.
    pub admission: Admission,
    /// Questions that are answered at once.
    pub quick: Arc<Quick>,
}

/// A wish of the web side to the process.
#[derive(Debug)]
pub enum Command {
    /// Load the configuration again; the answer is the error text, if any.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Stop.
    Quit,
}

/// Everything handlers share.
pub struct Api {
    /// Settings.
    pub options: WebOptions,
    /// What the program is.
    pub build: BuildInfo,
    /// Flags with their values as text.
    pub flags: BTreeMap<String, String>,
    /// Self-metrics.
    pub registry: Arc<Registry>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Start of the process, milliseconds.
    pub start_ms: i64,
    /// Messages for the user interface.
    pub notifications: Arc<Notifications>,
    /// Pages of metrics on their way.
    pub pages: super::pages::Pages,
    /// To the process.
    pub commands: mpsc::Sender<Command>,
    /// Parts that depend on storage.
    pub services: ArcSwapOption<Services>,
    /// How far replay is.
    pub replay: Arc<ReplayWatch>,
    /// Ends streams that would go on for ever.
    pub stop: CancellationToken,
    stopping: AtomicBool,
    reload_ok: AtomicBool,
    last_reload_s: AtomicU64,
}

impl Api {
    /// The shared parts before storage is open.
    pub fn new(
        options: WebOptions,
        build: BuildInfo,
        flags: BTreeMap<String, String>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        commands: mpsc::Sender<Command>,
    ) -> Arc<Self> {
        let start_ms = clock.now_ms();
        let notifications = Notifications::new(options.max_subscribers, Arc::clone(&clock), &registry);
        Arc::new(Self {
            options,
            build,
            flags,
            registry,
            clock,
            start_ms,
            notifications,
            pages: super::pages::Pages::default(),
            commands,
            services: ArcSwapOption::empty(),
            replay: Arc::default(),
            stop: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            reload_ok: AtomicBool::new(false),
            last_reload_s: AtomicU64::new(0),
        })
    }

    /// Opens the doors: from now on requests that need storage are served.
    pub fn set_ready(&self, services: Services) {
        self.services.store(Some(Arc::new(services)));
    }

    /// Closes the doors before storage does.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.cancel();
    }

    /// Whether the process is going down.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The services, unless the process is starting or stopping.
    #[must_use]
    pub fn ready_services(&self) -> Option<Arc<Services>> {
        if self.is_stopping() { None } else { self.services.load_full() }
    }

    /// Notes the outcome of loading the configuration.
    pub fn note_reload(&self, ok: bool) {
        self.reload_ok.store(ok, Ordering::SeqCst);
        if ok {
            let now_s = u64::try_from(self.clock.now_ms() / 1000).unwrap_or(0);
            self.last_reload_s.store(now_s, Ordering::SeqCst);
        }
    }

    /// Whether the last load went well, and when one last did, Unix seconds.
    #[must_use]
    pub fn last_reload(&self) -> (bool, u64) {
        (self.reload_ok.load(Ordering::SeqCst), self.last_reload_s.load(Ordering::SeqCst))
    }
}
