//! Which flags are there? Prometheus's, under the same names with the same defaults, and a few of our own.

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that may be given several times.
    List,
    /// `--x`, `--no-x`.
    Bool,
    /// Prometheus's duration.
    Duration,
    /// A size such as `512MB`, base 2.
    Bytes,
    /// A whole number.
    Int,
    /// A decimal number.
    Float,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// In which mode a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Always.
    Any,
    /// Not with `--agent`.
    Server,
    /// Only with `--agent`.
    Agent,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// Type of the value.
    pub kind: Kind,
    /// Default as text; of a list, comma separated; empty for none.
    pub default: &'static str,
    /// Mode.
    pub mode: Mode,
    /// Left out of `--help`.
    pub hidden: bool,
    /// Accepted so that command lines keep working, without effect.
    pub no_op: bool,
    /// Heading in `--help`.
    pub group: &'static str,
    /// Explanation.
    pub help: &'static str,
}

const GENERAL: &str = "Process";
const WEB: &str = "Web";
const STORAGE: &str = "Storage";
const AGENT: &str = "Storage of the agent";
const QUERY: &str = "Remote storage and queries";
const RULES: &str = "Rules, alerts, scraping";

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    group: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, mode: Mode::Any, hidden: false, no_op: false, group, help }
}

impl Flag {
    const fn server(self) -> Self {
        Self { mode: Mode::Server, ..self }
    }
    const fn agent(self) -> Self {
        Self { mode: Mode::Agent, ..self }
    }
    const fn hide(self) -> Self {
        Self { hidden: true, ..self }
    }
    const fn no_op(self) -> Self {
        Self { no_op: true, ..self }
    }
}

use Kind::{Bool, Bytes, Duration, Float, Int, List, OneOf, Text};

/// All flags of the server.
pub const FLAGS: &[Flag] = &[
    flag("config.file", Text, "prometheus.yml", GENERAL, "Configuration file. If none is given and ./prometheus.yml does not exist, Meerkat scrapes itself and listens on 127.0.0.1 only."),
    flag("config.auto-reload", Bool, "false", GENERAL, "Load the configuration again when it, a rule file or a scrape configuration file changes."),
    flag("config.auto-reload-interval", Duration, "30s", GENERAL, "How often to look for such changes, at least 1s."),
    flag("enable-feature", List, "", GENERAL, "Comma-separated names of features to switch on; unknown names only warn."),
    flag("agent", Bool, "false", GENERAL, "Run as an agent: scrape and send on, without queries, rules and local blocks."),
    flag("log.level", OneOf(&["debug", "info", "warn", "error"]), "info", GENERAL, "Least severe log lines to print."),
    flag("log.format", OneOf(&["logfmt", "json"]), "logfmt", GENERAL, "Format of log lines."),
    flag("auto-gomaxprocs", Bool, "true", GENERAL, "Accepted for compatibility; the number of cores is always detected.").no_op(),
    flag("auto-gomemlimit", Bool, "true", GENERAL, "Accepted for compatibility; there is no garbage collector to tune.").no_op(),
    flag("auto-gomemlimit.ratio", Float, "0.9", GENERAL, "Accepted for compatibility.").no_op(),
    flag("auto-gomemlimit.refresh-interval", Duration, "0s", GENERAL, "Accepted for compatibility.").no_op(),
    flag("write-documentation", Bool, "false", GENERAL, "Print the documentation of all flags as Markdown.").hide(),
    flag("web.listen-address", List, "0.0.0.0:9090", WEB, "Address to listen on; may be given several times. Port 0 takes a free one and logs it."),
    flag("web.config.file", Text, "", WEB, "File with TLS and authentication settings."),
    flag("web.allowed-host", List, "", WEB, "Name by which clients may call this server, besides localhost, addresses and the name of --web.external-url; others get 421. May be given several times; * is any. Default: any, or without a configuration file none but those."),
    flag("web.read-timeout", Duration, "5m", WEB, "Longest time without progress while reading a request, and before an idle connection is closed."),
    flag("web.max-connections", Int, "512", WEB, "Most simultaneous connections, over all listeners."),
    flag("web.max-notifications-subscribers", Int, "16", WEB, "Most subscribers of live notifications."),
    flag("web.external-url", Text, "", WEB, "URL under which others reach this server; links are built from it. Its path becomes the route prefix."),
    flag("web.route-prefix", Text, "", WEB, "Prefix of all paths; default: the path of --web.external-url."),
    flag("web.user-assets", Text, "", WEB, "Directory served at /user."),
    flag("web.enable-lifecycle", Bool, "false", WEB, "Allow reload and shutdown over HTTP."),
    flag("web.enable-admin-api", Bool, "false", WEB, "Allow deleting series and taking snapshots over HTTP."),
    flag("web.enable-remote-write-receiver", Bool, "false", WEB, "Accept remote write at /api/v1/write."),
    flag("web.remote-write-receiver.accepted-protobuf-messages", List, "prometheus.WriteRequest,io.prometheus.write.v2.Request", WEB, "Remote-write messages to accept."),
    flag("web.enable-otlp-receiver", Bool, "false", WEB, "Accept OTLP metrics at /api/v1/otlp/v1/metrics."),
    flag("web.console.templates", Text, "consoles", WEB, "Accepted for compatibility; there are no console templates.").no_op(),
    flag("web.console.libraries", Text, "console_libraries", WEB, "Accepted for compatibility; there are no console templates.").no_op(),
    flag("web.page-title", Text, "Prometheus Time Series Collection and Processing Server", WEB, "Title of the pages."),
    flag("web.cors.origin", Text, ".*", WEB, "Regular expression, anchored, of origins that may read answers."),
    flag("web.search.max-limit", Int, "10000", WEB, "Most results of one search request, 0 = any.").server(),
    flag("storage.tsdb.path", Text, "data/", STORAGE, "Directory of the data.").server(),
    flag("storage.tsdb.retention.time", Duration, "", STORAGE, "How long to keep samples; 15d if neither this nor the size is set. The configuration file takes precedence.").server(),
    flag("storage.tsdb.retention.size", Bytes, "", STORAGE, "Most bytes to keep, everything counted; 0 = any. The configuration file takes precedence.").server(),
    flag("storage.tsdb.max-series", Int, "0", STORAGE, "Most series in memory, 0 = any. New ones beyond it are refused and counted, those that exist go on.").server(),
    flag("storage.tsdb.max-series-per-job", List, "", STORAGE, "Most series in memory with the same job label: a number for each job, or job=number for one; may be given several times.").server(),
    flag("storage.memory-limit", Bytes, "", STORAGE, "Memory the process may use before it refuses new series (from 90% on) and ends heavy queries; all queries together hold at most half of it. 0 = any. Default: 80% of the memory of the machine or of its control group.").server(),
    flag("storage.tsdb.no-lockfile", Bool, "false", STORAGE, "Do not create a lock file in the data directory.").server(),
    flag("storage.tsdb.head-chunks-write-queue-size", Int, "0", STORAGE, "Accepted for compatibility.").server().no_op(),
    flag("storage.tsdb.delay-compact-file.path", Text, "", STORAGE, "JSON file of uploaded blocks; first-level blocks that are not in it are not compacted.").server(),
    flag("storage.tsdb.min-block-duration", Duration, "2h", STORAGE, "Range of the smallest blocks.").server().hide(),
    flag("storage.tsdb.max-block-duration", Duration, "", STORAGE, "Range of the largest blocks; default: a tenth of the retention, at most 31d.").server().hide(),
    flag("storage.tsdb.max-block-chunk-segment-size", Bytes, "512MB", STORAGE, "Accepted for compatibility.").server().hide().no_op(),
    flag("storage.tsdb.wal-segment-size", Bytes, "128MB", STORAGE, "Size of the segments of the write-ahead log.").server().hide(),
    flag("storage.tsdb.wal-compression", Bool, "true", STORAGE, "Accepted for compatibility.").server().hide().no_op(),
    flag("storage.tsdb.wal-compression-type", OneOf(&["snappy", "zstd"]), "snappy", STORAGE, "Accepted for compatibility.").server().hide().no_op(),
    flag("storage.tsdb.allow-overlapping-compaction", Bool, "true", STORAGE, "Merge overlapping blocks.").server().hide(),
    flag("storage.tsdb.samples-per-chunk", Int, "120", STORAGE, "Accepted for compatibility.").server().hide().no_op(),
    flag("storage.tsdb.delayed-compaction.max-percent", Int, "10", STORAGE, "Accepted for compatibility.").server().hide().no_op(),
    flag("storage.tsdb.block-reload-interval", Duration, "1m", STORAGE, "How often to look for new and removed blocks.").server().hide(),
    flag("storage.agent.path", Text, "data-agent/", AGENT, "Directory of the agent's log.").agent(),
    flag("storage.agent.wal-compression", Bool, "true", AGENT, "Accepted for compatibility.").agent().no_op(),
    flag("storage.agent.wal-compression-type", OneOf(&["snappy", "zstd"]), "snappy", AGENT, "Accepted for compatibility.").agent().hide().no_op(),
    flag("storage.agent.wal-segment-size", Bytes, "128MB", AGENT, "Size of the segments of the log.").agent().hide(),
    flag("storage.agent.wal-truncate-frequency", Duration, "2h", AGENT, "How often the log is cut.").agent().hide(),
    flag("storage.agent.retention.min-time", Duration, "5m", AGENT, "Least age of samples that may be removed.").agent(),
    flag("storage.agent.retention.max-time", Duration, "4h", AGENT, "Age at which samples are removed in any case.").agent(),
    flag("storage.agent.checkpoint-from-in-memory-series", Bool, "false", AGENT, "Accepted for compatibility.").agent().no_op(),
    flag("storage.agent.checkpoint-batch-size", Int, "1000", AGENT, "Accepted for compatibility.").agent().no_op(),
    flag("storage.agent.no-lockfile", Bool, "false", AGENT, "Do not create a lock file in the agent's directory.").agent(),
    flag("storage.remote.flush-deadline", Duration, "1m", QUERY, "How long to wait for sending samples on stop or reload."),
    flag("storage.remote.log-hold-size", Bytes, "4GB", QUERY, "Most log that is kept for remote-write peers that are behind; what is over it is dropped and counted."),
    flag("storage.remote.read-sample-limit", Int, "50000000", QUERY, "Most samples of one remote-read answer that is not streamed.").server(),
    flag("storage.remote.read-concurrent-limit", Int, "10", QUERY, "Most concurrent remote-read requests, 0 = any.").server(),
    flag("storage.remote.read-max-bytes-in-frame", Int, "1048576", QUERY, "Most bytes of one frame of a streamed remote-read answer.").server(),
    flag("query.lookback-delta", Duration, "5m", QUERY, "How far back an instant selector looks for a sample.").server(),
    flag("query.timeout", Duration, "2m", QUERY, "Longest time a query may take.").server(),
    flag("query.max-concurrency", Int, "20", QUERY, "Most queries that run at once.").server(),
    flag("query.max-samples", Int, "50000000", QUERY, "Most samples one query may hold in memory.").server(),
    flag("query.max-bytes", Bytes, "2GB", QUERY, "Most bytes one query may hold in memory.").server(),
    flag("query.max-total-bytes", Bytes, "4GB", QUERY, "Most bytes all queries together may hold in memory.").server(),
    flag("query.result-cache-bytes", Bytes, "32MB", QUERY, "Bytes of range queries' answers that are kept to answer the same query a little later; only steps whose samples did not change are used again. 0 keeps none.").server(),
    flag("rules.alert.for-outage-tolerance", Duration, "1h", RULES, "How long an outage may last for the state of alerts to be restored.").server(),
    flag("rules.alert.for-grace-period", Duration, "10m", RULES, "Least time between a restored alert and firing.").server(),
    flag("rules.alert.resend-delay", Duration, "1m", RULES, "Least time before an alert is sent again.").server(),
    flag("rules.max-concurrent-evals", Int, "4", RULES, "Most rules evaluated at once with the feature concurrent-rule-eval.").server(),
    flag("alertmanager.notification-queue-capacity", Int, "10000", RULES, "Most alerts waiting for one Alertmanager.").server(),
    flag("alertmanager.notification-batch-size", Int, "256", RULES, "Most alerts in one request to an Alertmanager.").server(),
    flag("alertmanager.drain-notification-queue-on-shutdown", Bool, "true", RULES, "Send waiting alerts before stopping.").server(),
    flag("scrape.adjust-timestamps", Bool, "true", RULES, "Move sample times to the scrape schedule when they are close to it.").hide(),
    flag("scrape.timestamp-tolerance", Duration, "2ms", RULES, "How close that is.").hide(),
    flag("scrape.discovery-reload-interval", Duration, "5s", RULES, "Least time between two looks at discovered targets.").hide(),
];

/// Names that `--enable-feature` knows.
pub const FEATURES: &[&str] = &[
    "auto-reload-config",
    "concurrent-rule-eval",
    "created-timestamp-zero-ingestion",
    "delayed-compaction",
    "exemplar-storage",
    "extra-scrape-metrics",
    "fast-startup",
    "histograms-st-encoding",
    "memory-snapshot-on-shutdown",
    "metadata-wal-records",
    "native-histograms",
    "old-ui",
    "ooo-native-histograms",
    "otlp-deltatocumulative",
    "otlp-native-delta-ingestion",
    "promql-binop-fill-modifiers",
    "promql-delayed-name-removal",
    "promql-duration-expr",
    "promql-experimental-functions",
    "promql-extended-range-selectors",
    "promql-per-step-stats",
    "search-api",
    "st-storage",
    "st-synthesis",
    "type-and-unit-labels",
    "use-start-timestamps",
    "use-uncached-io",
    "xor2-encoding",
];
