//! The interface described for programs: an OpenAPI document, generated from the table of routes.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::context::Api;
use super::routes::{ROUTES, Route};
use super::{params::Params, reply};

const TEXT: &str = "{ type: string }";
const TEXTS: &str = "{ type: array, items: { type: string } }";
const WHOLE: &str = "{ type: integer, minimum: 0 }";
const SWITCH: &str = "{ type: boolean }";

/// What is known of a parameter: schema and description.
fn describe(name: &str) -> (&'static str, &'static str) {
    match name {
        "query" => (TEXT, "PromQL expression."),
        "time" => (TEXT, "Evaluation time: RFC 3339 or Unix seconds; now if absent."),
        "start" => (TEXT, "Start, inclusive: RFC 3339 or Unix seconds."),
        "end" => (TEXT, "End, inclusive: RFC 3339 or Unix seconds."),
        "step" => (TEXT, "Distance of evaluations: a duration or seconds."),
        "timeout" => (TEXT, "Longest time: a duration or seconds; at most that of the server."),
        "limit" => (WHOLE, "Most results; 0 is no limit."),
        "limit_per_metric" => (WHOLE, "Most results for each metric."),
        "lookback_delta" => (TEXT, "How far back an instant selector looks for a sample."),
        "stats" => ("{ type: string, enum: [\"true\", all] }", "Adds statistics of the query."),
        "match[]" => (TEXTS, "Series selectors; a series needs to satisfy one of them."),
        "metric" => (TEXT, "Metric name."),
        "match_target" => (TEXT, "Selector over the labels of targets."),
        "state" => ("{ type: string, enum: [active, dropped, any] }", "Which targets."),
        "scrapePool" => (TEXT, "Name of a scrape job."),
        "labels" => (TEXT, "Labels before relabelling, as a JSON object."),
        "type" => ("{ type: string, enum: [alert, record] }", "Which rules."),
        "rule_name[]" => (TEXTS, "Names of rules."),
        "rule_group[]" => (TEXTS, "Names of groups."),
        "file[]" => (TEXTS, "Paths of rule files."),
        "exclude_alerts" => (SWITCH, "Leaves out the alerts of alerting rules."),
        "group_limit" => (WHOLE, "Most groups on a page."),
        "group_next_token" => (TEXT, "Where the page begins, as the page before said."),
        "metric_name_pattern" => (TEXT, "Regular expression, anchored, over metric names."),
        "openapi_version" => ("{ type: string, enum: [\"3.1\", \"3.2\"] }", "Version of this document."),
        "skip_head" => (SWITCH, "Leaves out what is in memory only."),
        "label" => (TEXT, "Label whose values are searched."),
        "search[]" => (TEXTS, "Search terms; a result needs to match one of them."),
        "fuzz_threshold" => ("{ type: integer, minimum: 0, maximum: 100 }", "Least score in percent."),
        "fuzz_alg" => ("{ type: string, enum: [subsequence, jarowinkler] }", "How alike texts are."),
        "case_sensitive" => (SWITCH, "Whether case matters; it does by default."),
        "sort_by" => ("{ type: string, enum: [alpha, score] }", "Order of results."),
        "sort_dir" => ("{ type: string, enum: [asc, dsc] }", "Direction of alphabetical order."),
        "include_score" => (SWITCH, "Adds the score to each result."),
        "include_metadata" => (SWITCH, "Adds type, help and unit to each metric."),
        "batch_size" => (WHOLE, "Most results on one line."),
        _ => (TEXT, ""),
    }
}

fn parameters(route: &Route, method: &str, out: &mut String) {
    let in_path = route.path.contains("{name}");
    // Forms carry the parameters of POST; URL parameters work there too.
    if !in_path && route.parameters.is_empty() {
        return;
    }
    let in_body = method == "POST" && !route.path.contains("/admin/");
    if in_body {
        out.push_str(
            "      requestBody:\n        content:\n          application/x-www-form-urlencoded:\n            schema:\n              type: object\n              properties:\n",
        );
        for name in route.parameters {
            let name = name.trim_end_matches('!');
            let (schema, _) = describe(name);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "                \"{name}\": {schema}");
        }
        return;
    }
    out.push_str("      parameters:\n");
    if in_path {
        out.push_str(
            "        - name: name\n          in: path\n          required: true\n          description: \"Label name; U__ escaping is understood.\"\n          schema: { type: string }\n",
        );
    }
    for name in route.parameters {
        let required = name.ends_with('!');
        let name = name.trim_end_matches('!');
        let (schema, text) = describe(name);
        let _ = write!(
            out,
            "        - name: \"{name}\"\n          in: query\n          required: {required}\n          description: \"{text}\"\n          schema: {schema}\n"
        );
    }
}

/// The document for one version of OpenAPI.
#[must_use]
pub fn text(version: &str, server_version: &str, prefix: &str) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "openapi: {version}\ninfo:\n  title: Meerkat HTTP API\n  version: \"{server_version}\"\nservers:\n  - url: \"{}\"\npaths:\n",
        if prefix.is_empty() { "/" } else { prefix }
    );
    for route in ROUTES {
        let _ = writeln!(out, "  \"{}\":", route.path);
        for method in route.methods {
            let _ = write!(
                out,
                "    {}:\n      summary: \"{}\"\n      operationId: \"{}\"\n",
                method.to_ascii_lowercase(),
                route.summary,
                operation_id(method, route.path)
            );
            parameters(route, method, &mut out);
            out.push_str("      responses:\n        \"200\":\n          description: Success\n        default:\n          description: Error\n");
        }
    }
    out
}

fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{}{words}", method.to_ascii_lowercase())
}

/// `/api/v1/openapi.yaml`
pub async fn document(api: Arc<Api>, request: Request) -> Response {
    let asked = Params::parse(b"", request.uri().query().unwrap_or(""));
    let asked = asked.map(|p| p.first("openapi_version").to_owned()).unwrap_or_default();
    let version = match asked.as_str() {
        "" | "3.1" | "3.1.0" => "3.1.0",
        "3.2" | "3.2.0" => "3.2.0",
        _ => return reply::text(StatusCode::BAD_REQUEST, "openapi_version must be 3.1 or 3.2\n"),
    };
    let mut response =
        reply::text(StatusCode::OK, text(version, api.build.version, &api.options.route_prefix));
    let kind = HeaderValue::from_static("application/yaml; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_yaml_and_complete() {
        let text = text("3.1.0", "1", "");
        let document: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        for route in ROUTES {
            for method in route.methods {
                let method = method.to_ascii_lowercase();
                let operation = &document["paths"][route.path][&method];
                assert!(operation["summary"].is_string(), "{method} {}", route.path);
                let described =
                    operation["parameters"].as_array().map_or(0, Vec::len)
                        + operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
                            ["properties"]
                            .as_object()
                            .map_or(0, serde_json::Map::len);
                let in_path = usize::from(route.path.contains('{'));
                assert_eq!(described, route.parameters.len() + in_path, "{method} {}", route.path);
            }
            for name in route.parameters {
                assert!(!describe(name.trim_end_matches('!')).1.is_empty(), "{name} is not described");
            }
        }
    }
}
