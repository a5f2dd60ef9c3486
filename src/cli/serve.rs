//! The server process: opens things in order, runs until it is told to stop, closes them in reverse.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::flags::{EXIT_USAGE, Flags};
use super::notify::AlertDelivery;
use super::running::{Governed, Origin, RunningConfig};
use super::{logging, options, wiring};
use crate::alert::backfill::{BackfillDoors, Backfills};
use crate::alert::{ManagerOptions, NoNotifier, RuleManager};
use crate::api::layers::{Cors, application};
use crate::api::notifications::{RELOAD_FAILED, SHUTTING_DOWN, STARTING_UP};
use crate::api::security::Security;
use crate::api::server;
use crate::api::{Api, BuildInfo, Command, Services};
use crate::model::clock::{Clock, SystemClock};
use crate::query::Engine;
use crate::remote::otlp::OtlpReceiver;
use crate::remote::read::Fanout;
use crate::remote::receive::RemoteWriteReceiver;
use crate::remote::send::{RemoteWriter, SendParts};
use crate::remote::traces::TraceExporter;
use crate::scrape::ScrapeManager;
use crate::telemetry::Registry;
use crate::telemetry::memory::MemoryBudget;
use crate::tsdb::Db;
use crate::tsdb::vfs::RealVfs;

/// Exit code of a failure while running.
pub const EXIT_FAILURE: u8 = 1;
/// Threads for work that blocks, in each runtime: each connection of the default limit may hold one while its answer is
/// read slowly, and as many are left for everything else.
const MAX_BLOCKING_THREADS: usize = 1024;
/// One thread scrapes several hundred thousand samples a second (`benches/record/scraping.md`).
const MAX_SCRAPE_THREADS: usize = 16;
/// How long each part may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a process without configuration scrapes itself quickly, milliseconds.
const QUICK_START_MS: i64 = 60_000;

/// What this program is.
#[must_use]
pub fn build_info() -> BuildInfo {
    BuildInfo {
        version: super::PROMETHEUS_VERSION,
        own_version: env!("CARGO_PKG_VERSION"),
        revision: env!("MEERKAT_REVISION"),
        branch: env!("MEERKAT_BRANCH"),
        user: env!("MEERKAT_USER"),
        date: env!("MEERKAT_DATE"),
        compiler: env!("MEERKAT_COMPILER"),
    }
}

fn fail(code: u8, message: &str) -> u8 {
    tracing::error!("{message}");
    code
}

/// Runs the server; the exit code.
#[must_use]
pub fn run(mut flags: Flags) -> u8 {
    let format =
        if flags.text("log.format") == "json" { logging::Format::Json } else { logging::Format::Logfmt };
    logging::init(flags.text("log.level"), format);
    for feature in flags.unknown_features() {
        tracing::warn!(option = feature, "Unknown option for --enable-feature");
    }
    for name in flags.given_no_ops() {
        tracing::info!(flag = name, "this flag is accepted for compatibility and has no effect");
    }
    let without_config = !flags.is_given("config.file") && !Path::new(flags.text("config.file")).exists();
    if without_config && !flags.is_given("web.listen-address") {
        flags.set("web.listen-address", "127.0.0.1:9090".into());
        if !flags.is_given("web.allowed-host") {
            // Nobody runs a proxy in front of a server without configuration; a foreign name is an attack.
            flags.set("web.allowed-host", "localhost".into());
        }
    }
    flags.settle();
    crate::net::tls::install_crypto_provider();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let scrape_threads = (cores / 2).clamp(1, MAX_SCRAPE_THREADS);
    let runtimes = threads("work", cores)
        .and_then(|work| Ok((work, threads("web", cores.max(2))?, threads("scrape", scrape_threads)?)));
    let (work, web, scraping) = match runtimes {
        Ok(runtimes) => runtimes,
        Err(e) => return fail(EXIT_FAILURE, &format!("cannot start threads: {e}")),
    };
    let code = work.block_on(serve(flags, without_config, web.handle(), scraping.handle()));
    for runtime in [web, scraping, work] {
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    code
}

/// A runtime. There are three: scrapes and rules do not queue behind the requests of a flood, and scrapes store what they
/// fetched where they are, a fraction of a millisecond each, without anybody else waiting for that. Requests have two
/// threads at least: one of them may be answering at once what it expects to be quick.
fn threads(name: &str, workers: usize) -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name(name)
        .build()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that stops the process.
    async fn stop(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::warn!(signal = name, "Received an OS signal, exiting gracefully...");
    }
}

async fn serve(flags: Flags, without_config: bool, web: &Handle, scraping: &Handle) -> u8 {
    let build = build_info();
    tracing::info!(
        mode = if flags.bool("agent") { "agent" } else { "server" },
        version = build.own_version,
        compatible_with = build.version,
        revision = build.revision,
        "Starting Meerkat"
    );
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return fail(EXIT_FAILURE, &format!("cannot listen for signals: {e}")),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // A bad file ends the process before anything is opened.
    let mut running = None;
    if !without_config {
        let path = PathBuf::from(flags.text("config.file"));
        match RunningConfig::load(Origin::File(path.clone()), &flags, 0) {
            Ok(loaded) => running = Some(loaded),
            Err(e) => {
                let message = format!("Error loading config (--config.file={}): {e}", path.display());
                return fail(EXIT_USAGE, &message);
            }
        }
    }
    let cors = match Cors::parse(flags.text("web.cors.origin")) {
        Ok(cors) => cors,
        Err(e) => return fail(EXIT_USAGE, &format!("--web.cors.origin: {e}")),
    };
    if let Err(e) = options::web(&flags, 9090) {
        return fail(EXIT_USAGE, &e);
    }
    let security = match Security::load(flags.text("web.config.file")) {
        Ok(security) => security,
        Err(e) => return fail(EXIT_USAGE, &format!("--web.config.file: {e}")),
    };
    if let Err(e) = options::storage(&flags, (0, 0), MemoryBudget::unlimited(), Arc::default()) {
        return fail(EXIT_USAGE, &e);
    }
    let mut listeners = Vec::new();
    for address in flags.list("web.listen-address") {
        let address = address.to_owned();
        let bound = web.spawn(async move { server::bind(&address).await }).await;
        match bound.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(listener) => listeners.push(listener),
            Err(e) => return fail(EXIT_FAILURE, &format!("Unable to start web listener: {e}")),
        }
    }
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let Some(first_address) = addresses.first().copied() else {
        return fail(EXIT_USAGE, "--web.listen-address: no address to listen on");
    };
    let web_options = match options::web(&flags, first_address.port()) {
        Ok(options) => options,
        Err(e) => return fail(EXIT_USAGE, &e),
    };
    let running = match running {
        Some(running) => running,
        None => {
            let path = format!("{}/metrics", web_options.route_prefix);
            let origin = Origin::SelfScrape { address: first_address, path };
            match RunningConfig::load(origin, &flags, clock.now_ms() + QUICK_START_MS) {
                Ok(running) => running,
                Err(e) => return fail(EXIT_FAILURE, &e),
            }
        }
    };
    let registry = Registry::new();
    let (commands, mut wishes) = mpsc::channel(8);
    let api = Api::new(web_options, build, flags.as_map(), registry, Arc::clone(&clock), commands);
    super::self_metrics::register(&api);
    api.notifications.add(STARTING_UP);
    for address in &addresses {
        tracing::info!(address = %address, "Listening on");
    }
    let stop_web = CancellationToken::new();
    let app = application(Arc::clone(&api), cors, Arc::clone(&security));
    let server_options = options::server(&flags, security, &api.registry);
    let web = web.spawn(server::serve(listeners, app, server_options, stop_web.clone()));

    let started = tokio::select! {
        started = start(&flags, &api, &running, &clock, scraping) => started,
        () = signals.stop() => {
            // Whatever is being opened looks like a crash to the next start, and that is safe.
            return 0;
        }
    };
    let governed = match started {
        Ok(governed) => governed,
        Err(e) => return fail(EXIT_FAILURE, &e),
    };
    api.notifications.remove(STARTING_UP);
    tracing::info!("Server is ready to receive web requests.");
    if without_config {
        banner(&flags, first_address, &api.options.route_prefix);
    }

    supervise(&flags, &api, &running, &governed, &mut signals, &mut wishes, without_config).await;

    api.set_stopping();
    api.notifications.add(SHUTTING_DOWN);
    stop_web.cancel();
    stop(governed).await;
    // The web task has nothing to report; a panic in it was logged.
    let _ = tokio::time::timeout(STOP_DEADLINE, web).await;
    tracing::info!("See you next time!");
    0
}

/// How spans describe this process: as Prometheus, whose place it takes, and as itself.
fn resource(build: &BuildInfo) -> Vec<(&'static str, String)> {
    vec![
        ("service.name", "prometheus".to_owned()),
        ("service.version", build.version.to_owned()),
        ("telemetry.sdk.name", "meerkat".to_owned()),
        ("telemetry.sdk.version", build.own_version.to_owned()),
        ("telemetry.sdk.language", "rust".to_owned()),
        ("process.pid", std::process::id().to_string()),
        ("host.name", rustix::system::uname().nodename().to_string_lossy().into_owned()),
    ]
}

/// Opens storage and everything above it.
async fn start(
    flags: &Flags,
    api: &Arc<Api>,
    running: &Arc<RunningConfig>,
    clock: &Arc<dyn Clock>,
    scraping: &Handle,
) -> Result<Governed, String> {
    let registry = &api.registry;
    let config = running.current();
    let memory = options::memory(flags);
    memory.register(registry);
    let db_options =
        options::storage(flags, running.retention(&config), Arc::clone(&memory), Arc::clone(&api.replay))?;
    let path = db_options.path.clone();
    let (opening_clock, opening_registry) = (Arc::clone(clock), Arc::clone(registry));
    let begun = std::time::Instant::now();
    let db = tokio::task::spawn_blocking(move || {
        Db::open(db_options, Arc::new(RealVfs), opening_clock, &opening_registry)
    })
    .await
    .map_err(|_| "opening storage failed inside the server".to_owned())?
    .map_err(|e| {
        format!(
            "opening storage failed: {e} (--storage.{}.path={})",
            if flags.bool("agent") { "agent" } else { "tsdb" },
            path.display()
        )
    })?;
    let what = if flags.bool("agent") { "Agent WAL storage started" } else { "TSDB started" };
    tracing::info!(path = %path.display(), duration = ?begun.elapsed(), "{what}");

    let engine = Arc::new(Engine::new(options::engine(flags, &config), registry).within(memory));
    let delivery = AlertDelivery::start(
        options::notifier(flags),
        flags.duration_ms("scrape.discovery-reload-interval").unsigned_abs(),
        registry,
        Arc::clone(clock),
    );
    let scrape = ScrapeManager::new(
        Arc::clone(&db) as _,
        Arc::clone(clock),
        Arc::clone(registry),
        options::scrape(flags, &config),
        scraping.clone(),
    );
    let template_failures = registry.counter(
        "prometheus_template_text_expansion_failures_total",
        "The total number of template text expansion failures.",
        &[],
    );
    let manager_options = ManagerOptions {
        outage_tolerance_ms: flags.duration_ms("rules.alert.for-outage-tolerance"),
        grace_ms: flags.duration_ms("rules.alert.for-grace-period"),
    };
    let concurrency = options::concurrent_rules(flags);
    let context = crate::alert::GroupContext {
        evaluator: Arc::new(crate::alert::EngineEvaluator::new(Arc::clone(&engine), Arc::clone(&db) as _)),
        storage: Arc::clone(&db) as _,
        notifier: Arc::new(NoNotifier),
        external: crate::alert::ExternalContext::default(),
        resend_delay_ms: flags.duration_ms("rules.alert.resend-delay"),
        template_failures: template_failures.clone(),
        concurrency: concurrency.clone(),
    };
    let store = Arc::new(super::alert_files::AlertFiles::new(Arc::new(RealVfs), &path));
    let rules = RuleManager::new(context, manager_options, Arc::clone(clock), store, registry);
    let sender = RemoteWriter::new(SendParts {
        tails: Arc::clone(&db) as _,
        newest: Arc::new(wiring::Storage(Arc::clone(&db))),
        metadata: Arc::new(wiring::Families { scrape: scrape.clone(), db: Arc::clone(&db) }),
        registry: Arc::clone(registry),
        clock: Arc::clone(clock),
        flush_deadline: options::flush_deadline(flags),
    });
    let local_start = wiring::Covered {
        db: Arc::clone(&db),
        margin_ms: 2 * flags.duration_ms("storage.tsdb.min-block-duration"),
    };
    let fanout = Fanout::new(Arc::clone(&db) as _, Arc::new(local_start), registry);
    let otlp = OtlpReceiver::new(Arc::clone(&db) as _, Arc::clone(clock), options::otlp(flags, &config)?);
    let read_limits = options::read_limits(flags);
    let backfills = Backfills::new(BackfillDoors {
        engine: Arc::clone(&engine),
        stored: Arc::clone(&db) as _,
        blocks: Arc::new(wiring::AddedBlocks(Arc::clone(&db))),
    });
    let governed = Governed {
        db: Arc::clone(&db),
        fanout: Arc::clone(&fanout),
        otlp: Arc::clone(&otlp),
        sender,
        scrape: scrape.clone(),
        rules: Arc::clone(&rules),
        delivery: Arc::clone(&delivery),
        traces: TraceExporter::default(),
        resource: resource(&api.build),
        engine: Arc::clone(&engine),
        parse: options::parse(flags),
        external_url: api.options.external_url.clone(),
        resend_delay_ms: flags.duration_ms("rules.alert.resend-delay"),
        template_failures,
        query_log: crate::api::query_log::QueryLogMetrics::new(registry),
        concurrency,
        backfills: Arc::clone(&backfills),
    };
    api.set_ready(Services {
        admission: crate::api::admission::Admission::new(engine.options().max_concurrency),
        quick: Arc::default(),
        engine,
        queryable: fanout,
        appendable: Arc::clone(&db) as _,
        exemplars: Some(Arc::clone(&db) as _),
        storage: Arc::new(wiring::Storage(Arc::clone(&db))),
        targets: Arc::new(wiring::Targets {
            manager: scrape,
            config: Arc::clone(running),
            external_url: api.options.external_url.clone(),
        }),
        rules: Arc::new(wiring::Rules { manager: rules, delivery, backfills }),
        config: Arc::clone(running) as _,
        read_gate: Arc::new(tokio::sync::Semaphore::new(match read_limits.concurrent {
            0 => tokio::sync::Semaphore::MAX_PERMITS,
            n => n,
        })),
        read_limits,
        otlp,
        receiver: RemoteWriteReceiver::new(db, Arc::clone(clock), registry),
    });
    let first = running.read(clock.now_ms())?;
    tracing::info!(filename = %running.origin_text(), "Loading configuration file");
    governed
        .apply(running, first, true)
        .await
        .map_err(|e| format!("error loading config from {:?}: {e}", running.origin_text()))?;
    api.note_reload(true);
    tracing::info!(filename = %running.origin_text(), "Completed loading of configuration file");
    Ok(governed)
}

/// Reads the configuration again and takes it over; the error is the answer to whoever asked.
async fn reload(api: &Api, running: &RunningConfig, governed: &Governed) -> Result<(), String> {
    tracing::info!(filename = %running.origin_text(), "Loading configuration file");
    let outcome = match running.read(api.clock.now_ms()) {
        Ok(config) => governed.apply(running, config, false).await.map_err(|e| {
            format!(
                "one or more errors occurred while applying the new configuration (--config.file={:?}): {e}",
                running.origin_text()
            )
        }),
        Err(e) => {
            Err(format!("couldn't load configuration (--config.file={:?}): {e}", running.origin_text()))
        }
    };
    api.note_reload(outcome.is_ok());
    match &outcome {
        Ok(()) => {
            api.notifications.remove(RELOAD_FAILED);
            tracing::info!(filename = %running.origin_text(), "Completed loading of configuration file");
        }
        Err(e) => {
            api.notifications.add(RELOAD_FAILED);
            tracing::error!(err = %e, "Error reloading config");
        }
    }
    outcome
}

/// Serves signals and wishes until the process shall stop.
async fn supervise(
    flags: &Flags,
    api: &Arc<Api>,
    running: &Arc<RunningConfig>,
    governed: &Governed,
    signals: &mut Signals,
    wishes: &mut mpsc::Receiver<Command>,
    without_config: bool,
) {
    let watching = flags.bool("config.auto-reload") || flags.feature("auto-reload-config");
    let period_ms = flags.duration_ms("config.auto-reload-interval").max(1000).unsigned_abs();
    let mut look = tokio::time::interval(Duration::from_millis(period_ms));
    let mut fingerprint = running.fingerprint();
    let settle = tokio::time::sleep(Duration::from_millis(QUICK_START_MS.unsigned_abs()));
    tokio::pin!(settle);
    let mut settled = !without_config;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => {
                tracing::warn!(signal = "SIGTERM", "Received an OS signal, exiting gracefully...");
                return;
            }
            _ = signals.interrupt.recv() => {
                tracing::warn!(signal = "SIGINT", "Received an OS signal, exiting gracefully...");
                return;
            }
            _ = signals.hangup.recv() => {
                // The outcome was logged; there is nobody else to tell.
                let _ = reload(api, running, governed).await;
                fingerprint = running.fingerprint();
            }
            _ = look.tick(), if watching => {
                let now = running.fingerprint();
                if now != fingerprint {
                    tracing::info!("Configuration file change detected, reloading the configuration.");
                    let _ = reload(api, running, governed).await;
                    fingerprint = running.fingerprint();
                }
            }
            () = &mut settle, if !settled => {
                settled = true;
                let _ = reload(api, running, governed).await;
            }
            wish = wishes.recv() => match wish {
                Some(Command::Reload(done)) => {
                    let outcome = reload(api, running, governed).await;
                    fingerprint = running.fingerprint();
                    // The asker may have left.
                    let _ = done.send(outcome);
                }
                Some(Command::Quit) | None => {
                    tracing::warn!("Received termination request via web service, exiting gracefully...");
                    return;
                }
            },
        }
    }
}

/// Stops in the order in which data flows, storage last.
async fn stop(governed: Governed) {
    let late = |part: &str| tracing::warn!(part, "a part of the server did not stop in time");
    if tokio::time::timeout(STOP_DEADLINE, governed.scrape.stop()).await.is_err() {
        late("scraping");
    }
    if tokio::time::timeout(STOP_DEADLINE, governed.rules.stop()).await.is_err() {
        late("rules");
    }
    governed.backfills.stop();
    governed.delivery.stop(STOP_DEADLINE).await;
    governed.traces.stop().await;
    let sender = Arc::clone(&governed.sender);
    if tokio::task::spawn_blocking(move || sender.stop()).await.is_err() {
        tracing::error!("stopping remote write failed inside the server");
    }
    let db = Arc::clone(&governed.db);
    match tokio::task::spawn_blocking(move || db.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => {
            tracing::error!(err = %e, "closing storage failed; nothing acknowledged is lost, the log will be replayed")
        }
        Err(_) => tracing::error!("closing storage failed inside the server"),
    }
}

fn banner(flags: &Flags, address: SocketAddr, prefix: &str) {
    eprintln!(
        "\n  Meerkat is running without a configuration file: it scrapes itself and listens on {address}.\n\n    \
         Open         http://{address}{prefix}/\n    Data         {}\n    Next         meerkat --config.file=prometheus.yml\n",
        flags.text("storage.tsdb.path")
    );
}
