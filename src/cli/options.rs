//! What do flags mean to each room? One function per room.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::flags::Flags;
use crate::alert::{EvalPermits, NotifierOptions};
use crate::api::WebOptions;
use crate::api::security::Security;
use crate::api::server::{ServerMetrics, ServerOptions};
use crate::config::Config;
use crate::model::Labels;
use crate::query::EngineOptions;
use crate::query::parse::ParseOptions;
use crate::remote::otlp::translate::{DeltaMode, Settings as OtlpSettings};
use crate::remote::read::server::ReadLimits;
use crate::scrape::ScrapeOptions;
use crate::telemetry::Registry;
use crate::telemetry::memory::{MemoryBudget, default_limit};
use crate::tsdb::head::JobLimits;
use crate::tsdb::{AgentOptions, DbOptions, ReplayWatch};

/// How long requests in flight may go on after a stop.
const DRAIN: Duration = Duration::from_secs(5);

fn duration(flags: &Flags, name: &str) -> Duration {
    Duration::from_millis(flags.duration_ms(name).unsigned_abs())
}

/// The HTTP server's.
#[must_use]
pub fn server(flags: &Flags, security: Arc<Security>, registry: &Registry) -> ServerOptions {
    ServerOptions {
        max_connections: flags.number("web.max-connections"),
        read_timeout: duration(flags, "web.read-timeout"),
        security,
        drain: DRAIN,
        metrics: ServerMetrics::new(registry),
    }
}

/// The query engine's.
#[must_use]
pub fn engine(flags: &Flags, config: &Config) -> EngineOptions {
    let bytes = |name: &str| usize::try_from(flags.bytes(name)).unwrap_or(usize::MAX);
    EngineOptions {
        timeout: duration(flags, "query.timeout"),
        max_samples: flags.number("query.max-samples"),
        max_concurrency: flags.number("query.max-concurrency").max(1),
        lookback_delta_ms: flags.duration_ms("query.lookback-delta"),
        default_subquery_step_ms: config.global.evaluation_interval.0,
        max_query_bytes: bytes("query.max-bytes"),
        max_total_bytes: bytes("query.max-total-bytes"),
        result_cache_bytes: bytes("query.result-cache-bytes"),
        experimental_functions: flags.feature("promql-experimental-functions"),
        extended_range_selectors: flags.feature("promql-extended-range-selectors"),
        fill_modifiers: flags.feature("promql-binop-fill-modifiers"),
        delayed_name_removal: flags.feature("promql-delayed-name-removal"),
        use_start_timestamps: flags.feature("use-start-timestamps"),
        type_and_unit_labels: flags.feature("type-and-unit-labels"),
        per_step_stats: flags.feature("promql-per-step-stats"),
    }
}

/// The parser's.
#[must_use]
pub fn parse(flags: &Flags) -> ParseOptions {
    ParseOptions {
        experimental_functions: flags.feature("promql-experimental-functions"),
        extended_range_selectors: flags.feature("promql-extended-range-selectors"),
        fill_modifiers: flags.feature("promql-binop-fill-modifiers"),
    }
}

/// The memory limit of the process.
#[must_use]
pub fn memory(flags: &Flags) -> Arc<MemoryBudget> {
    let given = flags.is_given("storage.memory-limit");
    MemoryBudget::new(if given { flags.bytes("storage.memory-limit") } else { default_limit() })
}

/// Storage's. The error is a text for people.
pub fn storage(
    flags: &Flags,
    (retention_ms, retention_bytes): (i64, u64),
    memory: Arc<MemoryBudget>,
    replay: Arc<ReplayWatch>,
) -> Result<DbOptions, String> {
    let jobs = flags.list("storage.tsdb.max-series-per-job").iter().map(String::as_str);
    let mut options = DbOptions {
        path: PathBuf::from(flags.text("storage.tsdb.path")),
        retention_ms,
        retention_bytes,
        block_range_ms: flags.duration_ms("storage.tsdb.min-block-duration").max(1000),
        no_lockfile: flags.bool("storage.tsdb.no-lockfile"),
        replay,
        max_held_log_bytes: flags.bytes("storage.remote.log-hold-size"),
        max_series: flags.number("storage.tsdb.max-series") as u64,
        max_series_per_job: JobLimits::parse(jobs)
            .map_err(|e| format!("--storage.tsdb.max-series-per-job: {e}"))?,
        memory,
        ..DbOptions::default()
    };
    if flags.bool("agent") {
        options.path = PathBuf::from(flags.text("storage.agent.path"));
        options.no_lockfile = flags.bool("storage.agent.no-lockfile");
        options.agent = Some(AgentOptions {
            truncate_every: duration(flags, "storage.agent.wal-truncate-frequency"),
            min_age_ms: flags.duration_ms("storage.agent.retention.min-time"),
            max_age: duration(flags, "storage.agent.retention.max-time"),
        });
    }
    if flags.is_given("storage.agent.wal-segment-size") {
        options.wal_segment_bytes = flags.bytes("storage.agent.wal-segment-size");
    }
    if flags.is_given("storage.tsdb.max-block-duration") {
        options.max_block_ms = flags.duration_ms("storage.tsdb.max-block-duration");
    }
    if flags.is_given("storage.tsdb.wal-segment-size") {
        options.wal_segment_bytes = flags.bytes("storage.tsdb.wal-segment-size");
    }
    Ok(options)
}

/// How long remote write may flush when it stops.
#[must_use]
pub fn flush_deadline(flags: &Flags) -> Duration {
    duration(flags, "storage.remote.flush-deadline")
}

/// The limits of remote read.
#[must_use]
pub fn read_limits(flags: &Flags) -> ReadLimits {
    ReadLimits {
        samples: flags.number("storage.remote.read-sample-limit"),
        concurrent: flags.number("storage.remote.read-concurrent-limit"),
        frame_bytes: flags.number("storage.remote.read-max-bytes-in-frame"),
    }
}

/// How OTLP is received. The error is a text for people.
pub fn otlp(flags: &Flags, config: &Config) -> Result<OtlpSettings, String> {
    let delta = match (flags.feature("otlp-deltatocumulative"), flags.feature("otlp-native-delta-ingestion"))
    {
        (true, true) => {
            return Err(
                "cannot enable otlp-native-delta-ingestion and otlp-deltatocumulative features at the same time".into()
            );
        }
        (true, false) => DeltaMode::AddUp,
        (false, true) => DeltaMode::Keep,
        (false, false) => DeltaMode::Refuse,
    };
    Ok(OtlpSettings {
        config: config.otlp.clone(),
        info_every_ms: flags.duration_ms("query.lookback-delta") / 2,
        delta,
        start_timestamps: flags.feature("st-storage"),
    })
}

/// Scraping's.
#[must_use]
pub fn scrape(flags: &Flags, config: &Config) -> ScrapeOptions {
    let external = Labels::from_pairs(&config.global.external_labels.0);
    let host = crate::api::process::host_name();
    ScrapeOptions {
        align_timestamps: flags.bool("scrape.adjust-timestamps"),
        timestamp_tolerance_ms: flags.duration_ms("scrape.timestamp-tolerance"),
        discovery_interval_ms: flags.duration_ms("scrape.discovery-reload-interval").unsigned_abs(),
        type_and_unit_labels: flags.feature("type-and-unit-labels"),
        zero_ingestion: flags.feature("created-timestamp-zero-ingestion"),
        store_start_timestamps: flags.feature("st-storage"),
        append_metadata: flags.feature("metadata-wal-records"),
        offset_seed: super::wiring::offset_seed(&host, &external),
        ..ScrapeOptions::default()
    }
}

/// Permits to evaluate independent rules of a group at once, if the feature is on.
#[must_use]
pub fn concurrent_rules(flags: &Flags) -> Option<Arc<EvalPermits>> {
    let permits = || Arc::new(EvalPermits::new(flags.number("rules.max-concurrent-evals")));
    flags.feature("concurrent-rule-eval").then(permits)
}

/// The notifier's.
#[must_use]
pub fn notifier(flags: &Flags) -> NotifierOptions {
    NotifierOptions {
        queue_capacity: flags.number("alertmanager.notification-queue-capacity"),
        batch_size: flags.number("alertmanager.notification-batch-size").max(1),
        drain_on_stop: flags.bool("alertmanager.drain-notification-queue-on-shutdown"),
    }
}

/// The web side's; `port` is that of the first listener. The error is a text for people.
pub fn web(flags: &Flags, port: u16) -> Result<WebOptions, String> {
    let external_url = external_url(flags.text("web.external-url"), port)?;
    let prefix = match flags.text("web.route-prefix") {
        "" => external_url.path().to_owned(),
        given => given.to_owned(),
    };
    let prefix = prefix.trim_matches('/');
    let mut accepted = (false, false);
    for message in flags.list("web.remote-write-receiver.accepted-protobuf-messages") {
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
        otlp_receiver: flags.bool("web.enable-otlp-receiver"),
        auto_reload: flags.bool("config.auto-reload") || flags.feature("auto-reload-config"),
        allowed_hosts: match flags.list("web.allowed-host") {
            [] => None,
            [any] if any == "*" => None,
            names => Some(names.to_vec()),
        },
        user_assets: PathBuf::from(flags.text("web.user-assets")),
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
    if given.starts_with(['"', '\'']) || given.ends_with(['"', '\'']) {
        return Err(format!("parse external URL {given:?}: URL must not begin or end with quotes"));
    }
    let text = match given {
        "" => format!("http://{}:{port}/", crate::api::process::host_name()),
        given => given.to_owned(),
    };
    url::Url::parse(&text).map_err(|e| format!("parse external URL {given:?}: {e}"))
}
