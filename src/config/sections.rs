//! The smaller sections of the main file: `alerting`, `otlp`, `storage`, `tracing`, `runtime`.

use std::collections::BTreeMap;

use super::http::{HttpClientConfig, TlsConfig};
use super::relabel::{RelabelConfig, check_rules};
use super::remote::{SigV4Config, check_headers};
use super::sd::SdConfigs;
use super::values::{ByteSize, PromDuration};
use super::yaml::section::{section, words};
use super::yaml::{Context, Node};
use crate::model::relabel::NameScheme;

words! {
    /// Version of Alertmanager's API.
    pub enum AlertmanagerApi {
        /// The only one.
        V2 = "v2",
    } else |text| format!("expected Alertmanager api version to be one of [v2] but got {text}")
}

section! {
    /// One of `alerting.alertmanagers`.
    pub struct AlertmanagerConfig("alertmanager_config") check check_alertmanager {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Signing for AWS.
        sigv4: Option<SigV4Config>,
        /// Scheme of the URL.
        scheme: String = "http".into(),
        /// Path before `/api/v2/alerts`.
        path_prefix: String,
        /// How long a request may take.
        timeout: PromDuration = PromDuration::seconds(10),
        /// Version of the API.
        api_version: AlertmanagerApi = AlertmanagerApi::V2,
        /// Rules over Alertmanagers.
        relabel_configs: Vec<RelabelConfig>,
        /// Rules over alerts before they are sent to these.
        alert_relabel_configs: Vec<RelabelConfig>,
        /// Where Alertmanagers come from.
        sd: SdConfigs; inline,
    }
}

fn check_alertmanager(am: &mut AlertmanagerConfig, node: &Node, cx: &mut Context) {
    if am.sigv4.is_some() && am.http.auth_kind().is_some() {
        let message = "at most one of basic_auth, authorization, oauth2, & sigv4 must be configured";
        cx.error(node.place_of("sigv4"), message);
    }
    if am.relabel_configs.is_empty() && node.get("relabel_configs").is_none_or(|n| n.items().is_empty()) {
        am.sd.check_static_targets(node, cx);
    }
    let scheme = NameScheme::Utf8;
    let what = "Alertmanager target relabeling rule";
    check_rules(&mut am.relabel_configs, scheme, node, "relabel_configs", what, cx);
    let what = "Alertmanager alert relabeling rule";
    check_rules(&mut am.alert_relabel_configs, scheme, node, "alert_relabel_configs", what, cx);
}

section! {
    /// `alerting`.
    pub struct AlertingConfig("alerting") check check_alerting {
        /// Rules over alerts before they are sent.
        alert_relabel_configs: Vec<RelabelConfig>,
        /// Where alerts are sent.
        alertmanagers: Vec<AlertmanagerConfig>,
    }
}

fn check_alerting(alerting: &mut AlertingConfig, node: &Node, cx: &mut Context) {
    let what = "alert relabeling rule";
    check_rules(
        &mut alerting.alert_relabel_configs,
        NameScheme::Utf8,
        node,
        "alert_relabel_configs",
        what,
        cx,
    );
    cx.no_nulls(node, "alertmanagers", "empty or null Alertmanager config section");
}

words! {
    /// How names of OpenTelemetry become names here.
    pub enum TranslationStrategy {
        /// Underscores for other characters, unit and type as suffix.
        UnderscoreEscapingWithSuffixes = "UnderscoreEscapingWithSuffixes",
        /// Underscores for other characters, no suffixes.
        UnderscoreEscapingWithoutSuffixes = "UnderscoreEscapingWithoutSuffixes",
        /// Names kept, unit and type as suffix.
        NoUtf8EscapingWithSuffixes = "NoUTF8EscapingWithSuffixes",
        /// Names kept.
        NoTranslation = "NoTranslation",
    } else |text| format!("unsupported OTLP translation strategy {text:?}")
}

section! {
    /// `otlp`.
    pub struct OtlpConfig("otlp") check check_otlp {
        /// Whether all resource attributes become labels.
        promote_all_resource_attributes: bool,
        /// Resource attributes that become labels.
        promote_resource_attributes: Vec<String>,
        /// Those that do not when all others do.
        ignore_resource_attributes: Vec<String>,
        /// How names are translated.
        translation_strategy: TranslationStrategy = TranslationStrategy::UnderscoreEscapingWithSuffixes,
        /// Whether identifying attributes stay on `target_info`.
        keep_identifying_resource_attributes: bool,
        /// Whether explicit histograms become native ones with custom buckets.
        convert_histograms_to_nhcb: bool,
        /// Whether scope name, version and attributes become labels.
        promote_scope_metadata: bool,
        /// Whether label names that begin with an underscore get `key` before it.
        label_name_underscore_sanitization: bool = true; always,
        /// Whether repeated underscores stay.
        label_name_preserve_multiple_underscores: bool = true; always,
    }
}

fn check_otlp(otlp: &mut OtlpConfig, node: &Node, cx: &mut Context) {
    if otlp.promote_all_resource_attributes && !otlp.promote_resource_attributes.is_empty() {
        let message = "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured \
                       simultaneously";
        cx.error(node.place_of("promote_resource_attributes"), message);
    }
    if !otlp.promote_all_resource_attributes && !otlp.ignore_resource_attributes.is_empty() {
        let message = "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true";
        cx.error(node.place_of("ignore_resource_attributes"), message);
    }
    for (list, field, adjective) in [
        (&mut otlp.promote_resource_attributes, "promote_resource_attributes", "promoted"),
        (&mut otlp.ignore_resource_attributes, "ignore_resource_attributes", "ignored"),
    ] {
        let mut clean: Vec<String> = Vec::with_capacity(list.len());
        for (i, attribute) in list.iter().enumerate() {
            let attribute = attribute.trim();
            let at = node.get(field).and_then(|n| n.items().get(i)).map_or(node.at, |n| n.at);
            if attribute.is_empty() {
                cx.error(at, format!("invalid '{field}': empty {adjective} OTel resource attribute"));
            } else if clean.iter().any(|c| c == attribute) {
                let message = format!(
                    "invalid '{field}': duplicated {adjective} OTel resource attribute {attribute:?}"
                );
                cx.error(at, message);
            } else {
                clean.push(attribute.to_owned());
            }
        }
        *list = clean;
    }
}

impl OtlpConfig {
    /// Checks the strategy against the names that `global` allows.
    pub(super) fn check_names(&self, scheme: NameScheme, node: &Node, cx: &mut Context) {
        let strategy = self.translation_strategy;
        let utf8 = matches!(
            strategy,
            TranslationStrategy::NoUtf8EscapingWithSuffixes | TranslationStrategy::NoTranslation
        );
        if utf8 && scheme == NameScheme::Legacy {
            let message = format!(
                "OTLP translation strategy {:?} is not allowed when UTF8 is disabled",
                strategy.as_str()
            );
            cx.error(node.place_of("translation_strategy"), message);
        }
    }
}

section! {
    /// `storage.tsdb.retention`.
    pub struct RetentionConfig("retention") check check_retention {
        /// How long samples are kept; 0 means that time does not limit.
        time: Option<PromDuration>,
        /// How many bytes are kept.
        size: Option<ByteSize>,
        /// What share of the disk is used, in percent; wins over `size`.
        percentage: Option<f64>,
    }
}

fn check_retention(retention: &mut RetentionConfig, node: &Node, cx: &mut Context) {
    if retention.size.is_some_and(|size| size.0 < 0) {
        cx.error(node.place_of("size"), "'storage.tsdb.retention.size' must be greater than or equal to 0");
    }
    if retention.percentage.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
        cx.error(
            node.place_of("percentage"),
            "'storage.tsdb.retention.percentage' must be in the range [0, 100]",
        );
    }
}

words! {
    /// Encoding of chunks of floats.
    pub enum FloatEncoding {
        /// The encoding of old.
        Xor = "xor",
        /// With start timestamps.
        Xor2 = "xor2",
    } else |text| format!(
        "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted entirely, got {text:?}"
    )
}

section! {
    /// `storage.tsdb.chunk_encoding`.
    pub struct ChunkEncodingConfig("chunk_encoding") {
        /// For floats; that of the flags when not given.
        floats: Option<FloatEncoding>,
    }
}

section! {
    /// `storage.tsdb`.
    pub struct TsdbConfig("tsdb") check check_tsdb {
        /// How old a sample may be against the newest of all; 0 refuses samples out of order.
        out_of_order_time_window: PromDuration,
        /// Share of stale series in the head that starts a compaction; 0 is never.
        stale_series_compaction_threshold: f64,
        /// Encodings.
        chunk_encoding: Option<ChunkEncodingConfig>,
        /// What is kept; the flags decide when not given.
        retention: Option<RetentionConfig>,
    }
}

fn check_tsdb(tsdb: &mut TsdbConfig, node: &Node, cx: &mut Context) {
    if !(0.0..=1.0).contains(&tsdb.stale_series_compaction_threshold) {
        let message = "'storage.tsdb.stale_series_compaction_threshold' must be in the range [0, 1]";
        cx.error(node.place_of("stale_series_compaction_threshold"), message);
    }
}

section! {
    /// `storage.exemplars`.
    pub struct ExemplarsConfig("exemplars") {
        /// How many exemplars are kept; 0 or less keeps none.
        max_exemplars: i64 = 100_000,
    }
}

section! {
    /// `storage`.
    pub struct StorageConfig("storage") {
        /// The local storage.
        tsdb: Option<TsdbConfig>,
        /// Exemplars.
        exemplars: Option<ExemplarsConfig>,
    }
}

words! {
    /// How spans are sent.
    pub enum TracingClientType {
        /// OTLP over HTTP.
        Http = "http",
        /// OTLP over gRPC.
        Grpc = "grpc",
    } else |text| format!("expected tracing client type to be one of [http grpc] but got {text}")
}

section! {
    /// `tracing`.
    pub struct TracingConfig("tracing") check check_tracing {
        /// How spans are sent.
        client_type: TracingClientType = TracingClientType::Grpc,
        /// Where to.
        endpoint: String,
        /// Share of requests that are traced.
        sampling_fraction: f64,
        /// Whether the connection has no TLS.
        insecure: bool,
        /// TLS of the connection.
        tls_config: TlsConfig,
        /// Further headers.
        headers: BTreeMap<String, String>,
        /// `gzip` or nothing.
        compression: String,
        /// How long sending may take; 0 means 10 s.
        timeout: PromDuration,
    }
}

fn check_tracing(tracing: &mut TracingConfig, node: &Node, cx: &mut Context) {
    if tracing.endpoint.is_empty() {
        cx.error(node.at, "tracing endpoint must be set");
    }
    if !matches!(tracing.compression.as_str(), "" | "gzip") {
        let message =
            format!("invalid compression type {} provided, valid options: gzip", tracing.compression);
        cx.error(node.place_of("compression"), message);
    }
    let message = "authorization header configuration is not yet supported";
    check_headers(tracing.headers.keys(), message, node, cx);
}

section! {
    /// `runtime`: accepted for compatibility, without effect here.
    pub struct RuntimeConfig("runtime") {
        /// Percentage of Go's garbage collector.
        gogc: i64 = 75,
    }
}
