//! What can this server do? A map of capabilities by category, so that clients need not guess from versions. Names and
//! categories are Prometheus's; what Meerkat adds stands beside them.

use std::collections::BTreeMap;

use axum::response::Response;

use super::json::Object;
use super::reply::success;
use super::routes::Call;
use crate::alert::template::function_names;
use crate::config::sd::mechanisms;
use crate::query::parse::functions::FUNCTIONS;

const OPERATORS: &[&str] = &[
    "!=",
    "!~",
    "%",
    "*",
    "+",
    "-",
    "/",
    "<",
    "</",
    "<=",
    "==",
    "=~",
    ">",
    ">/",
    ">=",
    "@",
    "^",
    "and",
    "atan2",
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "max",
    "min",
    "or",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
    "unless",
];

const LANGUAGE: &[&str] = &[
    "at_modifier",
    "bool",
    "by",
    "duration_expr",
    "group_left",
    "group_right",
    "ignoring",
    "negative_offset",
    "offset",
    "on",
    "per_query_lookback_delta",
    "subqueries",
    "without",
];

/// Functions that Go's templates have built in; Prometheus does not list them.
const GO_TEMPLATE_FUNCTIONS: &[&str] = &[
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print",
    "printf", "println", "slice", "urlquery",
];

type Categories = BTreeMap<&'static str, BTreeMap<String, bool>>;

fn gather(call: &Call) -> Categories {
    let engine = call.services.engine.options();
    let web = &call.api.options;
    let feature = |name: &str| web.features.iter().any(|f| f == name);
    let mut all = Categories::new();
    let mut set = |category: &'static str, name: &str, on: bool| {
        all.entry(category).or_default().insert(name.to_owned(), on);
    };
    for (name, on) in [
        ("admin", web.admin_api),
        ("exclude_alerts", true),
        ("explain", true),
        ("label_values_match", true),
        ("lifecycle", web.lifecycle),
        ("openapi_3.1", true),
        ("openapi_3.2", true),
        ("otlp_write_receiver", web.otlp_receiver),
        ("query_stats", true),
        ("query_warnings", true),
        ("remote_write_receiver", web.remote_write_receiver),
        ("search", web.search_api),
        ("time_range_labels", true),
        ("time_range_series", true),
    ] {
        set("api", name, on);
    }
    for (category, name, on) in [
        ("otlp_receiver", "delta_conversion", feature("otlp-deltatocumulative")),
        ("otlp_receiver", "native_delta_ingestion", feature("otlp-native-delta-ingestion")),
        ("prometheus", "agent_mode", web.agent),
        ("prometheus", "auto_reload_config", web.auto_reload),
        ("prometheus", "server_mode", !web.agent),
        // How Prometheus keeps labels in memory; not so here.
        ("prometheus", "stringlabels", false),
        ("rules", "concurrent_rule_eval", feature("concurrent-rule-eval")),
        ("rules", "keep_firing_for", true),
        ("rules", "query_offset", true),
        ("scrape", "extra_scrape_metrics", true),
        ("scrape", "start_timestamp_zero_ingestion", feature("created-timestamp-zero-ingestion")),
        ("scrape", "type_and_unit_labels", engine.type_and_unit_labels),
        ("tsdb", "delayed_compaction", false),
        ("tsdb", "exemplar_storage", true),
        ("tsdb", "isolation", true),
        ("tsdb", "native_histograms", true),
        ("tsdb", "use_uncached_io", false),
        ("ui", "ui_v2", false),
        ("ui", "ui_v3", true),
        ("promql", "anchored", engine.extended_range_selectors),
        ("promql", "smoothed", engine.extended_range_selectors),
        ("promql", "delayed_name_removal", engine.delayed_name_removal),
        ("promql", "fill", engine.fill_modifiers),
        ("promql", "fill_left", engine.fill_modifiers),
        ("promql", "fill_right", engine.fill_modifiers),
        ("promql", "per_step_stats", web.per_step_stats),
        ("promql", "type_and_unit_labels", engine.type_and_unit_labels),
        ("promql", "use_start_timestamps", engine.use_start_timestamps),
        ("promql_operators", "limit_ratio", engine.experimental_functions),
        ("promql_operators", "limitk", engine.experimental_functions),
    ] {
        set(category, name, on);
    }
    for name in LANGUAGE {
        set("promql", name, true);
    }
    for function in FUNCTIONS {
        set("promql_functions", function.name, !function.experimental || engine.experimental_functions);
    }
    for operator in OPERATORS {
        set("promql_operators", operator, true);
    }
    for name in mechanisms() {
        set("service_discovery_providers", name, true);
    }
    set("service_discovery_providers", "static", true);
    for name in function_names().into_iter().filter(|name| !GO_TEMPLATE_FUNCTIONS.contains(name)) {
        set("templating_functions", name, true);
    }
    all
}

/// `/api/v1/features`
pub async fn features(call: Call) -> Response {
    let all = gather(&call);
    success(|out| {
        let mut object = Object::open(out);
        for (category, features) in &all {
            let mut inner = Object::open(object.key(category));
            for (name, on) in features {
                inner.boolean(name, *on);
            }
            inner.close();
        }
        object.close();
    })
}
