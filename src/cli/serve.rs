//! The server process: opens things in order, runs until it is told to stop, closes them in reverse.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::flags::{EXIT_USAGE, Flags};
use super::logging;
use super::wiring::{FixedConfig, NoFiles};
use crate::api::layers::{Cors, application};
use crate::api::notifications::{SHUTTING_DOWN, STARTING_UP};
use crate::api::server::{self, ServerOptions};
use crate::api::sources::{NoRules, NoTargets};
use crate::api::{Api, BuildInfo, Command, Services, WebOptions};
use crate::model::clock::{Clock, SystemClock};
use crate::query::{Engine, EngineOptions};
use crate::remote::receive::RemoteWriteReceiver;
use crate::telemetry::Registry;
use crate::tsdb::memory::MemoryStorage;

/// Exit code of a failure while running.
const EXIT_FAILURE: u8 = 1;
/// How long requests in flight may go on after a stop.
const DRAIN: Duration = Duration::from_secs(5);

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
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(EXIT_FAILURE, &format!("cannot start threads: {e}")),
    };
    let code = runtime.block_on(serve(flags, without_config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    code
}

fn engine_options(flags: &Flags) -> EngineOptions {
    EngineOptions {
        timeout: Duration::from_millis(flags.duration_ms("query.timeout").unsigned_abs()),
        max_samples: flags.number("query.max-samples"),
        max_concurrency: flags.number("query.max-concurrency").max(1),
        lookback_delta_ms: flags.duration_ms("query.lookback-delta"),
        max_query_bytes: usize::try_from(flags.bytes("query.max-bytes")).unwrap_or(usize::MAX),
        max_total_bytes: usize::try_from(flags.bytes("query.max-total-bytes")).unwrap_or(usize::MAX),
        experimental_functions: flags.feature("promql-experimental-functions"),
        extended_range_selectors: flags.feature("promql-extended-range-selectors"),
        fill_modifiers: flags.feature("promql-binop-fill-modifiers"),
        delayed_name_removal: flags.feature("promql-delayed-name-removal"),
        use_start_timestamps: flags.feature("use-start-timestamps"),
        type_and_unit_labels: flags.feature("type-and-unit-labels"),
        per_step_stats: flags.feature("promql-per-step-stats"),
        ..EngineOptions::default()
    }
}

fn web_options(flags: &Flags, first_port: u16) -> Result<WebOptions, String> {
    let external_url = external_url(flags.text("web.external-url"), first_port)?;
    let prefix = match flags.text("web.route-prefix") {
        "" => external_url.path().to_owned(),
        given => given.to_owned(),
    };
    let prefix = prefix.trim_matches('/');
    let messages = flags.list("web.remote-write-receiver.accepted-protobuf-messages");
    let mut accepted = (false, false);
    for message in messages {
        match message.as_str() {
            "prometheus.WriteRequest" => accepted.0 = true,
            "io.prometheus.write.v2.Request" => accepted.1 = true,
            other => return Err(format!("unknown remote write protobuf message {other:?}")),
        }
    }
    Ok(WebOptions {
        external_url: external_url.as_str().trim_end_matches('/').to_owned(),
        route_prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
        page_title: flags.text("web.page-title").to_owned(),
        lifecycle: flags.bool("web.enable-lifecycle"),
        admin_api: flags.bool("web.enable-admin-api"),
        remote_write_receiver: flags.bool("web.enable-remote-write-receiver"),
        accepted_messages: accepted,
        search_api: flags.feature("search-api"),
        search_max_limit: flags.number("web.search.max-limit"),
        per_step_stats: flags.feature("promql-per-step-stats"),
        max_subscribers: flags.number("web.max-notifications-subscribers"),
        cors_origin: flags.text("web.cors.origin").to_owned(),
        agent: flags.bool("agent"),
        features: flags.list("enable-feature").to_vec(),
    })
}

/// The URL under which others reach this server: as given, or from the host name.
fn external_url(given: &str, port: u16) -> Result<url::Url, String> {
    let text = match given {
        "" => format!("http://{}:{port}/", crate::api::process::host_name()),
        given => given.to_owned(),
    };
    if given.starts_with(['"', '\'']) || given.ends_with(['"', '\'']) {
        return Err(format!("parse external URL {given:?}: URL must not begin or end with quotes"));
    }
    url::Url::parse(&text).map_err(|e| format!("parse external URL {given:?}: {e}"))
}

async fn serve(flags: Flags, without_config: bool) -> u8 {
    let build = build_info();
    tracing::info!(
        mode = if flags.bool("agent") { "agent" } else { "server" },
        version = build.own_version,
        compatible_with = build.version,
        revision = build.revision,
        "Starting Meerkat"
    );
    let cors = match Cors::parse(flags.text("web.cors.origin")) {
        Ok(cors) => cors,
        Err(e) => return fail(EXIT_USAGE, &format!("--web.cors.origin: {e}")),
    };
    let mut listeners = Vec::new();
    for address in flags.list("web.listen-address") {
        match server::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(e) => return fail(EXIT_FAILURE, &format!("Unable to start web listener: {e}")),
        }
    }
    let addresses: Vec<std::net::SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let first_port = addresses.first().map_or(9090, std::net::SocketAddr::port);
    let options = match web_options(&flags, first_port) {
        Ok(options) => options,
        Err(e) => return fail(EXIT_USAGE, &e),
    };
    let registry = Registry::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (commands, mut wishes) = mpsc::channel(8);
    let api = Api::new(options, build, flags.as_map(), Arc::clone(&registry), Arc::clone(&clock), commands);
    super::self_metrics::register(&api);
    api.notifications.add(STARTING_UP);

    let stop = CancellationToken::new();
    let server_options = ServerOptions {
        max_connections: flags.number("web.max-connections"),
        read_timeout: Duration::from_millis(flags.duration_ms("web.read-timeout").unsigned_abs()),
        drain: DRAIN,
    };
    for address in &addresses {
        tracing::info!(address = %address, "Listening on");
    }
    let web = tokio::spawn(server::serve(
        listeners,
        application(Arc::clone(&api), cors),
        server_options,
        stop.clone(),
    ));

    let storage = MemoryStorage::new();
    let engine = Arc::new(Engine::new(engine_options(&flags), &registry));
    api.set_ready(Services {
        engine,
        queryable: Arc::clone(&storage) as _,
        appendable: Arc::clone(&storage) as _,
        receiver: RemoteWriteReceiver::new(storage, Arc::clone(&clock), &registry),
        exemplars: None,
        storage: Arc::new(NoFiles),
        targets: Arc::new(NoTargets),
        rules: Arc::new(NoRules),
        config: Arc::new(FixedConfig::default()),
    });
    api.note_reload(true);
    api.notifications.remove(STARTING_UP);
    tracing::info!("Server is ready to receive web requests.");
    if without_config {
        banner(&api.options.external_url, &addresses);
    }

    let code = wait_for_stop(&mut wishes).await;
    api.set_stopping();
    api.notifications.add(SHUTTING_DOWN);
    stop.cancel();
    // The web task has nothing to report; a panic in it was logged.
    let _ = web.await;
    tracing::info!("See you next time!");
    code
}

fn banner(_external: &str, addresses: &[std::net::SocketAddr]) {
    if let Some(address) = addresses.first() {
        eprintln!(
            "\n  Meerkat is running without a configuration file: it scrapes itself and listens on this machine \
             only.\n  Open http://{address}/ in a browser.\n  Give it a Prometheus configuration with \
             --config.file=prometheus.yml.\n"
        );
    }
}

async fn wait_for_stop(wishes: &mut mpsc::Receiver<Command>) -> u8 {
    let signals =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return fail(EXIT_FAILURE, "cannot listen for signals");
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::warn!(signal = "SIGTERM", "Received an OS signal, exiting gracefully...");
                return 0;
            }
            _ = interrupt.recv() => {
                tracing::warn!(signal = "SIGINT", "Received an OS signal, exiting gracefully...");
                return 0;
            }
            _ = hangup.recv() => {}
            wish = wishes.recv() => match wish {
                Some(Command::Reload(done)) => {
                    // The asker may have left.
                    let _ = done.send(Ok(()));
                }
                Some(Command::Quit) | None => {
                    tracing::warn!("Received termination request via web service, exiting gracefully...");
                    return 0;
                }
            },
        }
    }
}
