//! Federation: the newest sample of each chosen series, as a page that another server scrapes.

use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::reply::stream;
use super::routes::Call;
use super::selectors;
use crate::model::labels::{is_legacy_label_name, is_legacy_metric_name};
use crate::model::number::format_g;
use crate::model::{Labels, METRIC_NAME, SampleBuffer, is_stale_nan};
use crate::query::CancelToken;
use crate::tsdb::SelectHints;

const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

struct Newest {
    labels: Labels,
    t_ms: i64,
    value: f64,
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_sample(newest: &Newest, external: &Labels, out: &mut String) {
    let name = newest.labels.metric_name();
    let legacy = is_legacy_metric_name(name);
    if legacy {
        out.push_str(name);
    }
    let mut first = true;
    let mut begin = |out: &mut String| {
        out.push(if first { '{' } else { ',' });
        first = false;
    };
    if !legacy {
        begin(out);
        quoted(name, out);
    }
    let mut pair = |name: &str, value: &str, out: &mut String| {
        begin(out);
        if is_legacy_label_name(name) {
            out.push_str(name);
        } else {
            quoted(name, out);
        }
        out.push('=');
        quoted(value, out);
    };
    let has = |name: &str| newest.labels.get(name).is_some();
    for label in newest.labels.iter().filter(|l| l.name != METRIC_NAME) {
        pair(label.name, label.value, out);
    }
    for label in external.iter().filter(|l| !has(l.name)) {
        pair(label.name, label.value, out);
    }
    // Without it the scraping server would put its own target's instance there.
    if !has("instance") && external.get("instance").is_none() {
        pair("instance", "", out);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "}} {} {}", format_g(newest.value), newest.t_ms);
}

/// `/federate`
pub async fn federate(call: Call) -> Response {
    let sets = match selectors::of_params(&call.params) {
        Ok(sets) => sets,
        Err(error) => {
            return super::reply::text(http::StatusCode::BAD_REQUEST, format!("{}\n", error.message))
                .into_response();
        }
    };
    let now_ms = call.api.clock.now_ms();
    stream(CONTENT, CancelToken::default(), move |out| {
        let min_ms = now_ms - call.services.engine.options().lookback_delta_ms;
        let external = call.services.config.external_labels();
        let querier = call.services.queryable.querier(min_ms, now_ms)?;
        let hints = SelectHints { start_ms: min_ms, end_ms: now_ms, ..SelectHints::default() };
        let mut all: Vec<Newest> = Vec::new();
        let mut buffer = SampleBuffer::default();
        for matchers in &sets {
            let set = querier.select(&hints, matchers).map_err(ApiError::from)?;
            for i in 0..set.len() {
                set.samples(i, min_ms, now_ms, &mut buffer)?;
                let histogram_t = buffer.histograms.last().map_or(i64::MIN, |(t, _)| *t);
                let (Some(&t_ms), Some(&value)) = (buffer.timestamps.last(), buffer.values.last()) else {
                    continue;
                };
                let labels = set.labels(i);
                // Histograms travel in other formats only.
                if t_ms > min_ms
                    && t_ms > histogram_t
                    && !is_stale_nan(value)
                    && labels.get(METRIC_NAME).is_some()
                {
                    all.push(Newest { labels, t_ms, value });
                }
            }
        }
        all.sort_unstable_by(|a, b| {
            (a.labels.metric_name(), &a.labels).cmp(&(b.labels.metric_name(), &b.labels))
        });
        all.dedup_by(|a, b| a.labels == b.labels);
        let mut last_name = String::new();
        for newest in &all {
            let mut line = String::new();
            let name = newest.labels.metric_name();
            if name != last_name {
                line.push_str("# TYPE ");
                if is_legacy_metric_name(name) {
                    line.push_str(name);
                } else {
                    quoted(name, &mut line);
                }
                line.push_str(" untyped\n");
                name.clone_into(&mut last_name);
            }
            write_sample(newest, &external, &mut line);
            out.raw(&line);
            out.flush_if_full();
        }
        Ok(())
    })
    .await
}
