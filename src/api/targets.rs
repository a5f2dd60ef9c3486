//! The endpoints about scraping: pools, targets, their metadata, relabelling step by step.

use std::collections::{BTreeMap, BTreeSet};

use axum::response::{IntoResponse, Response};

use super::error::{ApiError, ErrorKind};
use super::json::{self, Object};
use super::reply::{stream_json, success};
use super::routes::Call;
use super::sources::{ActiveTarget, DroppedTarget, TargetMetadata};
use super::time_text::rfc3339_or_zero;
use crate::model::metadata::Metadata;
use crate::model::{Labels, Matcher};
use crate::query::CancelToken;
use crate::query::parse::parse_metric_selector;

/// `/api/v1/scrape_pools`
pub async fn scrape_pools(call: Call) -> Response {
    let pools = call.services.targets.scrape_pools();
    success(|out| {
        let mut object = Object::open(out);
        json::strings(object.key("scrapePools"), pools.iter().map(String::as_str));
        object.close();
    })
}

/// `/api/v1/scrape_pools/config`
pub async fn scrape_pool_config(call: Call) -> Response {
    let pool = call.params.first("scrapePool");
    if pool.is_empty() {
        return ApiError::bad_data("no scrapePool parameter provided").into_response();
    }
    match call.services.targets.pool_config(pool) {
        Some(yaml) => success(|out| json::pairs(out, [("yaml", yaml.as_str())])),
        None => ApiError::new(ErrorKind::NotFound, format!("scrape pool {pool:?} not found")).into_response(),
    }
}

fn write_active(out: &mut Vec<u8>, target: &ActiveTarget) {
    let mut object = Object::open(out);
    json::labels(object.key("discoveredLabels"), &target.discovered_labels);
    json::labels(object.key("labels"), &target.labels);
    object
        .text("scrapePool", &target.scrape_pool)
        .text("scrapeUrl", &target.scrape_url)
        .text("globalUrl", &target.global_url)
        .text("lastError", &target.last_error)
        .text("lastScrape", &rfc3339_or_zero(target.last_scrape_ms))
        .float("lastScrapeDuration", target.last_scrape_duration)
        .text("health", target.health)
        .text("scrapeInterval", &target.scrape_interval)
        .text("scrapeTimeout", &target.scrape_timeout);
    object.close();
}

fn write_dropped(out: &mut Vec<u8>, target: &DroppedTarget) {
    let mut object = Object::open(out);
    json::labels(object.key("discoveredLabels"), &target.discovered_labels);
    object.text("scrapePool", &target.scrape_pool);
    object.close();
}

/// `/api/v1/targets`
pub async fn targets(call: Call) -> Response {
    let state = call.params.first("state").to_ascii_lowercase();
    let active = state.is_empty() || state == "any" || state == "active";
    let dropped = state.is_empty() || state == "any" || state == "dropped";
    stream_json(CancelToken::default(), move |out| {
        let pool = Some(call.params.first("scrapePool")).filter(|p| !p.is_empty());
        let source = &call.services.targets;
        out.success(&[], &[], |out| {
            out.raw("{\"activeTargets\":[");
            for (i, target) in (if active { source.active(pool) } else { Vec::new() }).iter().enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                write_active(&mut out.buf, target);
                out.flush_if_full();
            }
            out.raw("],\"droppedTargets\":[");
            for (i, target) in (if dropped { source.dropped(pool) } else { Vec::new() }).iter().enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                write_dropped(&mut out.buf, target);
                out.flush_if_full();
            }
            out.raw("],\"droppedTargetCounts\":");
            // All jobs are counted whichever was asked for, and nothing is when only active ones were.
            if dropped {
                let mut object = Object::open(&mut out.buf);
                for (name, count) in &source.dropped_counts() {
                    object.integer(name, i64::try_from(*count).unwrap_or(i64::MAX));
                }
                object.close();
            } else {
                out.raw("null");
            }
            out.raw("}");
        });
        Ok(())
    })
    .await
}

/// `/api/v1/targets/relabel_steps`
pub async fn relabel_steps(call: Call) -> Response {
    let pool = call.params.first("scrapePool");
    if pool.is_empty() {
        return ApiError::bad_data("no scrapePool parameter provided").into_response();
    }
    let labels: BTreeMap<String, String> = match serde_json::from_str(call.params.first("labels")) {
        Ok(labels) => labels,
        Err(e) => return ApiError::bad_data(format!("error parsing labels: {e}")).into_response(),
    };
    match call.services.targets.relabel_steps(pool, &Labels::from_pairs(&labels)) {
        Ok(steps) => success(|out| {
            let mut object = Object::open(out);
            json::list(object.key("steps"), &steps, |out, step| {
                let mut object = Object::open(out);
                object.key("rule").extend_from_slice(step.rule_json.as_bytes());
                json::labels(object.key("output"), &step.output);
                object.boolean("keep", step.keep);
                object.close();
            });
            object.close();
        }),
        Err(e) => ApiError::bad_data(e).into_response(),
    }
}

fn write_metadata_fields(object: &mut Object<'_>, metadata: &Metadata) {
    object
        .text("type", metadata.metric_type.as_str())
        .text("help", &metadata.help)
        .text("unit", &metadata.unit);
}

/// A limit as these two endpoints understand it: none when absent, an error when not a number.
fn loose_limit(call: &Call, name: &str) -> Result<Option<usize>, ApiError> {
    match call.params.first(name) {
        "" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(n) => Ok(usize::try_from(n).ok()),
            Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
        },
    }
}

/// `/api/v1/metadata`
pub async fn metadata(call: Call) -> Response {
    let limits = loose_limit(&call, "limit").and_then(|l| Ok((l, loose_limit(&call, "limit_per_metric")?)));
    let (limit, per_metric) = match limits {
        Ok(limits) => limits,
        Err(error) => return error.into_response(),
    };
    stream_json(CancelToken::default(), move |out| {
        let metric = Some(call.params.first("metric")).filter(|m| !m.is_empty());
        let mut families: BTreeMap<String, BTreeSet<(String, String, String)>> = BTreeMap::new();
        for TargetMetadata { metric, metadata, .. } in call.services.targets.metadata(metric) {
            let kind = metadata.metric_type.as_str().to_owned();
            families.entry(metric).or_default().insert((kind, metadata.help, metadata.unit));
        }
        out.success(&[], &[], |out| {
            out.raw("{");
            for (i, (name, entries)) in families.iter().take(limit.unwrap_or(usize::MAX)).enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                json::string(&mut out.buf, name);
                out.raw(":");
                let entries = entries.iter().take(per_metric.filter(|n| *n > 0).unwrap_or(usize::MAX));
                json::list(&mut out.buf, entries, |out, (kind, help, unit)| {
                    let mut object = Object::open(out);
                    object.text("type", kind).text("help", help).text("unit", unit);
                    object.close();
                });
                out.flush_if_full();
            }
            out.raw("}");
        });
        Ok(())
    })
    .await
}

/// `/api/v1/targets/metadata`
pub async fn target_metadata(call: Call) -> Response {
    let limit = match loose_limit(&call, "limit") {
        Ok(limit) => limit,
        Err(error) => return error.into_response(),
    };
    let matchers: Vec<Matcher> = match call.params.first("match_target") {
        "" => Vec::new(),
        text => match parse_metric_selector(text) {
            Ok(matchers) => matchers,
            Err(e) => return ApiError::parameter("match_target", e).into_response(),
        },
    };
    stream_json(CancelToken::default(), move |out| {
        let metric = Some(call.params.first("metric")).filter(|m| !m.is_empty());
        let all = call.services.targets.metadata(metric);
        let chosen = all
            .iter()
            .filter(|m| matchers.iter().all(|matcher| matcher.matches(m.target.value(&matcher.name))))
            .take(limit.unwrap_or(usize::MAX));
        out.success(&[], &[], |out| {
            out.raw("[");
            for (i, entry) in chosen.enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                let mut object = Object::open(&mut out.buf);
                json::labels(object.key("target"), &entry.target);
                if metric.is_none() {
                    object.text("metric", &entry.metric);
                }
                write_metadata_fields(&mut object, &entry.metadata);
                object.close();
                out.flush_if_full();
            }
            out.raw("]");
        });
        Ok(())
    })
    .await
}
