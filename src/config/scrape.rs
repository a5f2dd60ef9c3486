//! What is scraped, how often and how? The sections `global` and `scrape_configs`; after loading, every field of
//! a job holds its effective value, inherited from `global` where the job says nothing.

use std::collections::{BTreeMap, HashSet};

use super::http::HttpClientConfig;
use super::relabel::{RelabelConfig, check_rules};
use super::sd::SdConfigs;
use super::values::{ByteSize, FilePath, LabelMap, PromDuration};
use super::yaml::section::{section, words};
use super::yaml::{Context, FromYaml, Node, NodeKind, Section, ToYaml, Value};
use crate::model::relabel::NameScheme;

words! {
    /// An exposition format that scraping may ask for.
    pub enum ScrapeProtocol {
        /// OpenMetrics 0.0.1
        OpenMetricsText0_0_1 = "OpenMetricsText0.0.1",
        /// OpenMetrics 1.0.0
        OpenMetricsText1_0_0 = "OpenMetricsText1.0.0",
        /// Delimited protobuf
        PrometheusProto = "PrometheusProto",
        /// The text format
        PrometheusText0_0_4 = "PrometheusText0.0.4",
        /// The text format with names in quotes
        PrometheusText1_0_0 = "PrometheusText1.0.0",
    } else |text| format!(
        "unknown scrape protocol {text}, supported: [OpenMetricsText0.0.1 OpenMetricsText1.0.0 PrometheusProto \
         PrometheusText0.0.4 PrometheusText1.0.0]"
    )
}

/// What is asked for by default, best first.
pub const DEFAULT_PROTOCOLS: [ScrapeProtocol; 4] = [
    ScrapeProtocol::OpenMetricsText1_0_0,
    ScrapeProtocol::OpenMetricsText0_0_1,
    ScrapeProtocol::PrometheusText1_0_0,
    ScrapeProtocol::PrometheusText0_0_4,
];

/// What is asked for when native histograms are wanted.
pub const PROTO_FIRST_PROTOCOLS: [ScrapeProtocol; 5] = [
    ScrapeProtocol::PrometheusProto,
    ScrapeProtocol::OpenMetricsText1_0_0,
    ScrapeProtocol::OpenMetricsText0_0_1,
    ScrapeProtocol::PrometheusText1_0_0,
    ScrapeProtocol::PrometheusText0_0_4,
];

words! {
    /// How names that the server does not want are escaped.
    pub enum EscapingScheme {
        /// Not at all.
        AllowUtf8 = "allow-utf-8",
        /// Every other character becomes an underscore.
        Underscores = "underscores",
        /// Dots become `_dot_`.
        Dots = "dots",
        /// Reversible: `U__` and code points.
        Values = "values",
    } else |text| format!(
        "unknown global name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or \
         'values', got {text:?}"
    )
}

impl FromYaml for NameScheme {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        match String::from_yaml(node, cx)?.as_str() {
            "utf8" | "" => Some(Self::Utf8),
            "legacy" => Some(Self::Legacy),
            other => {
                cx.error(node.at, format!("unrecognized ValidationScheme: {other:?}"));
                None
            }
        }
    }
}

impl ToYaml for NameScheme {
    fn to_value(&self) -> Value {
        Value::Text(if *self == Self::Utf8 { "utf8" } else { "legacy" }.into())
    }
    fn is_empty(&self) -> bool {
        false
    }
}

section! {
    /// `global`.
    pub struct GlobalConfig("global") check check_global {
        /// How often jobs scrape unless they say otherwise.
        scrape_interval: PromDuration = PromDuration::seconds(60),
        /// How long a scrape may take unless its job says otherwise.
        scrape_timeout: PromDuration,
        /// What jobs ask for; empty means that each job chooses.
        scrape_protocols: Vec<ScrapeProtocol>,
        /// How often rule groups evaluate; also the step of subqueries without one.
        evaluation_interval: PromDuration = PromDuration::seconds(60),
        /// How far back rule groups look.
        rule_query_offset: PromDuration,
        /// Where queries are logged, one JSON object a line.
        query_log_file: FilePath,
        /// Where failed scrapes are logged unless the job says otherwise.
        scrape_failure_log_file: FilePath,
        /// Labels of everything that leaves this server, environment variables already expanded.
        external_labels: LabelMap,
        /// Largest body of a scrape; 0 is no limit.
        body_size_limit: ByteSize,
        /// Most samples of a scrape after relabelling; 0 is no limit.
        sample_limit: u64,
        /// Most targets of a job; 0 is no limit.
        target_limit: u64,
        /// Most labels of a sample; 0 is no limit.
        label_limit: u64,
        /// Longest label name; 0 is no limit.
        label_name_length_limit: u64,
        /// Longest label value; 0 is no limit.
        label_value_length_limit: u64,
        /// Most dropped targets that are kept for display; 0 is no limit.
        keep_dropped_targets: u64,
        /// Which names are valid.
        metric_name_validation_scheme: NameScheme,
        /// How names are escaped.
        metric_name_escaping_scheme: Option<EscapingScheme>,
        /// Whether native histograms are ingested.
        scrape_native_histograms: bool; always,
        /// Whether classic histograms become histograms with custom buckets.
        convert_classic_histograms_to_nhcb: bool,
        /// Whether classic histograms are kept beside native ones.
        always_scrape_classic_histograms: bool,
        /// Whether three more series report on each scrape.
        extra_scrape_metrics: bool; always,
    }
}

const DEFAULT_TIMEOUT: PromDuration = PromDuration::seconds(10);
const DEFAULT_INTERVAL: PromDuration = PromDuration::seconds(60);

fn check_global(global: &mut GlobalConfig, node: &Node, cx: &mut Context) {
    if global.scrape_interval.is_zero() {
        global.scrape_interval = DEFAULT_INTERVAL;
    }
    if global.evaluation_interval.is_zero() {
        global.evaluation_interval = DEFAULT_INTERVAL;
    }
    if global.scrape_timeout.is_zero() {
        global.scrape_timeout = global.scrape_interval.min(DEFAULT_TIMEOUT);
    } else if global.scrape_timeout > global.scrape_interval {
        cx.error(node.place_of("scrape_timeout"), "global scrape timeout greater than scrape interval");
    }
    check_protocols(&global.scrape_protocols, node, "in global config", cx);
    check_escaping(global.metric_name_escaping_scheme, global.metric_name_validation_scheme, node, cx);
    if global.metric_name_escaping_scheme.is_none() {
        global.metric_name_escaping_scheme = Some(default_escaping(global.metric_name_validation_scheme));
    }
    let legacy = global.metric_name_validation_scheme == NameScheme::Legacy;
    for name in global.external_labels.0.keys() {
        if legacy && !crate::model::labels::is_legacy_label_name(name) {
            cx.error(node.place_of("external_labels"), format!("{name:?} is not a valid label name"));
        }
    }
}

fn default_escaping(scheme: NameScheme) -> EscapingScheme {
    match scheme {
        NameScheme::Utf8 => EscapingScheme::AllowUtf8,
        NameScheme::Legacy => EscapingScheme::Underscores,
    }
}

fn check_escaping(escaping: Option<EscapingScheme>, scheme: NameScheme, node: &Node, cx: &mut Context) {
    if escaping == Some(EscapingScheme::AllowUtf8) && scheme == NameScheme::Legacy {
        let message = "utf8 metric names requested but validation scheme is not set to UTF8";
        cx.error(node.place_of("metric_name_escaping_scheme"), message);
    }
}

/// Repeated protocols and an empty list are refused; unknown ones have been by decoding.
fn check_protocols(protocols: &[ScrapeProtocol], node: &Node, suffix: &str, cx: &mut Context) {
    if let Some(list) = node.get("scrape_protocols")
        && matches!(&list.kind, NodeKind::Sequence(items) if items.is_empty())
    {
        cx.error(list.at, format!("scrape_protocols cannot be empty {suffix}"));
    }
    let mut seen = HashSet::new();
    if !protocols.iter().all(|p| seen.insert(*p)) {
        let all: Vec<&str> = protocols.iter().map(|p| p.as_str()).collect();
        let message = format!("duplicated protocol in scrape_protocols, got [{}] {suffix}", all.join(" "));
        cx.error(node.place_of("scrape_protocols"), message);
    }
}

section! {
    /// One of `scrape_configs`, with all values effective.
    pub struct ScrapeConfig("scrape_config") {
        /// Name of the job, unique.
        job_name: String; always,
        /// Whether labels of the exposition win over those of the target.
        honor_labels: bool,
        /// Whether timestamps of the exposition are taken.
        honor_timestamps: bool = true; always,
        /// Whether series with their own timestamps become stale when they vanish.
        track_timestamps_staleness: bool; always,
        /// Parameters of the URL.
        params: BTreeMap<String, Vec<String>>,
        /// How often to scrape.
        scrape_interval: PromDuration,
        /// How long a scrape may take.
        scrape_timeout: PromDuration,
        /// What to ask for, best first; never empty after loading.
        scrape_protocols: Vec<ScrapeProtocol>; inner,
        /// How to read a body whose content type says nothing; `None` fails the scrape.
        fallback_scrape_protocol: Option<ScrapeProtocol>; inner,
        /// Whether native histograms are ingested.
        scrape_native_histograms: bool; always,
        /// Whether classic histograms are kept beside native ones.
        always_scrape_classic_histograms: bool; always,
        /// Whether classic histograms become histograms with custom buckets.
        convert_classic_histograms_to_nhcb: bool; always,
        /// Whether three more series report on each scrape.
        extra_scrape_metrics: bool; always,
        /// Where failed scrapes are logged, one JSON object a line.
        scrape_failure_log_file: FilePath,
        /// Path of the URL.
        metrics_path: String = "/metrics".into(),
        /// Scheme of the URL.
        scheme: String = "http".into(),
        /// Whether compressed bodies are asked for.
        enable_compression: bool = true; always,
        /// Largest body after decompression; 0 is no limit.
        body_size_limit: ByteSize,
        /// Most samples of a scrape after relabelling; 0 is no limit.
        sample_limit: u64,
        /// Most targets; 0 is no limit.
        target_limit: u64,
        /// Most labels of a sample; 0 is no limit.
        label_limit: u64,
        /// Longest label name; 0 is no limit.
        label_name_length_limit: u64,
        /// Longest label value; 0 is no limit.
        label_value_length_limit: u64,
        /// Most buckets of a native histogram; 0 is no limit.
        native_histogram_bucket_limit: u64,
        /// Smallest growth between buckets of a native histogram; 0 is none.
        native_histogram_min_bucket_factor: f64,
        /// Most dropped targets that are kept for display; 0 is no limit.
        keep_dropped_targets: u64,
        /// Which names are valid.
        metric_name_validation_scheme: NameScheme,
        /// How names are escaped; never `None` after loading.
        metric_name_escaping_scheme: Option<EscapingScheme>,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Rules over targets.
        relabel_configs: Vec<RelabelConfig>,
        /// Rules over samples.
        metric_relabel_configs: Vec<RelabelConfig>,
        /// Where targets come from.
        sd: SdConfigs; inline,
    }
}

impl ScrapeConfig {
    /// How names are escaped.
    #[must_use]
    pub fn escaping(&self) -> EscapingScheme {
        self.metric_name_escaping_scheme
            .unwrap_or_else(|| default_escaping(self.metric_name_validation_scheme))
    }

    /// Reads a job over the values it inherits, and checks it. `None` when the node is no mapping.
    pub(super) fn resolve(
        node: &Node,
        global: &GlobalConfig,
        protobuf_first: bool,
        cx: &mut Context,
    ) -> Option<Self> {
        let mut job = Self {
            scrape_native_histograms: global.scrape_native_histograms,
            always_scrape_classic_histograms: global.always_scrape_classic_histograms,
            convert_classic_histograms_to_nhcb: global.convert_classic_histograms_to_nhcb,
            extra_scrape_metrics: global.extra_scrape_metrics,
            metric_name_validation_scheme: global.metric_name_validation_scheme,
            ..Self::default()
        };
        // The fields whose messages name the job are read here instead of by `read`.
        let name = node.get("job_name").and_then(Node::text).unwrap_or_default().to_owned();
        if !job.read(node, cx) {
            return None;
        }
        if name.is_empty() {
            cx.error(node.place_of("job_name"), "job_name is empty");
        }
        job.read_protocols(node, &name, cx);
        let first = |own: &mut u64, inherited: u64| {
            if *own == 0 {
                *own = inherited;
            }
        };
        first(&mut job.sample_limit, global.sample_limit);
        first(&mut job.target_limit, global.target_limit);
        first(&mut job.label_limit, global.label_limit);
        first(&mut job.label_name_length_limit, global.label_name_length_limit);
        first(&mut job.label_value_length_limit, global.label_value_length_limit);
        first(&mut job.keep_dropped_targets, global.keep_dropped_targets);
        if job.body_size_limit.0 == 0 {
            job.body_size_limit = global.body_size_limit;
        }
        if job.scrape_failure_log_file.is_empty() {
            job.scrape_failure_log_file = global.scrape_failure_log_file.clone();
        }
        if job.scrape_interval.is_zero() {
            job.scrape_interval = global.scrape_interval;
        }
        if job.scrape_timeout > job.scrape_interval {
            let message = format!(
                "scrape timeout greater than scrape interval for scrape config with job name {name:?}"
            );
            cx.error(node.place_of("scrape_timeout"), message);
        }
        if job.scrape_timeout.is_zero() {
            job.scrape_timeout = global.scrape_timeout.min(job.scrape_interval);
        }
        check_protocols(
            &job.scrape_protocols,
            node,
            &format!("for scrape config with job name {name:?}"),
            cx,
        );
        if job.scrape_protocols.is_empty() {
            job.scrape_protocols = if !global.scrape_protocols.is_empty() {
                global.scrape_protocols.clone()
            } else if job.scrape_native_histograms || protobuf_first {
                PROTO_FIRST_PROTOCOLS.to_vec()
            } else {
                DEFAULT_PROTOCOLS.to_vec()
            };
        }
        job.resolve_names(node, global, cx);
        Some(job)
    }

    fn read_protocols(&mut self, node: &Node, name: &str, cx: &mut Context) {
        if let Some(list) = node.get("scrape_protocols") {
            let mut texts: Vec<String> = Vec::new();
            cx.decode_into(&mut texts, list);
            for (text, item) in texts.iter().zip(list.items()) {
                match ScrapeProtocol::parse(text) {
                    Ok(protocol) => self.scrape_protocols.push(protocol),
                    Err(m) => cx.error(
                        item.at,
                        format!("scrape_protocols: {m} for scrape config with job name {name:?}"),
                    ),
                }
            }
        }
        if let Some(value) = node.get("fallback_scrape_protocol") {
            let mut text = String::new();
            cx.decode_into(&mut text, value);
            if text.is_empty() {
                return;
            }
            match ScrapeProtocol::parse(&text) {
                Ok(protocol) => self.fallback_scrape_protocol = Some(protocol),
                Err(m) => cx.error(
                    value.at,
                    format!("invalid fallback_scrape_protocol for scrape config with job name {name:?}: {m}"),
                ),
            }
        }
    }

    fn resolve_names(&mut self, node: &Node, global: &GlobalConfig, cx: &mut Context) {
        let scheme = self.metric_name_validation_scheme;
        if self.metric_name_escaping_scheme.is_none() {
            // The global scheme may be one that this job's narrower names forbid.
            let inherited = global.metric_name_escaping_scheme.unwrap_or_else(|| default_escaping(scheme));
            let usable = scheme == NameScheme::Utf8 || inherited != EscapingScheme::AllowUtf8;
            self.metric_name_escaping_scheme =
                Some(if usable { inherited } else { EscapingScheme::Underscores });
        } else {
            check_escaping(self.metric_name_escaping_scheme, scheme, node, cx);
        }
        let what = "target relabeling rule in scrape config";
        check_rules(&mut self.relabel_configs, scheme, node, "relabel_configs", what, cx);
        let what = "metric relabeling rule in scrape config";
        check_rules(&mut self.metric_relabel_configs, scheme, node, "metric_relabel_configs", what, cx);
        if self.relabel_configs.is_empty() {
            self.sd.check_static_targets(node, cx);
        }
    }
}
