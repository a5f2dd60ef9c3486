//! What can this server do? A map of capabilities by category, so that clients need not guess from versions.

use std::collections::BTreeMap;

use axum::response::Response;

use super::json::Object;
use super::reply::success;
use super::routes::{Call, api_paths};
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
    "<=",
    "=",
    "==",
    "=~",
    ">",
    ">=",
    "@",
    "^",
    "and",
    "atan2",
    "avg",
    "bottomk",
    "bool",
    "by",
    "count",
    "count_values",
    "group",
    "group_left",
    "group_right",
    "ignoring",
    "max",
    "min",
    "offset",
    "on",
    "or",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
    "unless",
    "without",
];

/// `/api/v1/features`
pub async fn features(call: Call) -> Response {
    let options = call.services.engine.options().clone();
    let web = &call.api.options;
    let mut all: BTreeMap<&str, BTreeMap<String, bool>> = BTreeMap::new();
    let mut set = |category: &'static str, name: &str, on: bool| {
        all.entry(category).or_default().insert(name.to_owned(), on);
    };
    for path in api_paths() {
        let name = path.trim_start_matches("/api/v1/").replace(['/', '.'], "_").replace("{name}", "name");
        set("api", &name, true);
    }
    set("api", "admin", web.admin_api);
    set("api", "lifecycle", web.lifecycle);
    set("api", "remote_write_receiver", web.remote_write_receiver);
    set("api", "search", web.search_api);
    set("api", "exclude_alerts", true);
    set("prometheus", "agent_mode", web.agent);
    set("promql", "duration_expr", true);
    set("promql", "experimental_functions", options.experimental_functions);
    set("promql", "extended_range_selectors", options.extended_range_selectors);
    set("promql", "binop_fill_modifiers", options.fill_modifiers);
    set("promql", "delayed_name_removal", options.delayed_name_removal);
    set("promql", "per_step_stats", web.per_step_stats);
    set("promql", "at_modifier", true);
    set("promql", "negative_offset", true);
    for function in FUNCTIONS {
        set("promql_functions", function.name, !function.experimental || options.experimental_functions);
    }
    for operator in OPERATORS {
        set("promql_operators", operator, true);
    }
    for operator in ["limitk", "limit_ratio"] {
        set("promql_operators", operator, options.experimental_functions);
    }
    set("tsdb", "native_histograms", true);
    set("tsdb", "exemplars", true);
    set("tsdb", "out_of_order", true);
    set("ui", "ui_v3", true);
    set("ui", "ui_v2", false);
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
