//! Federation: the newest sample of each chosen series, as a page that another server scrapes.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::exposition::{Family, Format, Measured, Metric};
use super::reply::stream;
use super::routes::Call;
use super::selectors;
use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint};
use crate::model::{Labels, METRIC_NAME, SampleBuffer, is_stale_nan};
use crate::query::CancelToken;
use crate::tsdb::SelectHints;

struct Newest {
    labels: Labels,
    t_ms: i64,
    measured: Measured,
}

/// The newest sample of a series after `min_ms`, if the format can carry it.
fn newest(labels: Labels, buffer: &SampleBuffer, min_ms: i64, format: Format) -> Option<Newest> {
    labels.get(METRIC_NAME)?;
    let float = buffer.timestamps.last().copied().zip(buffer.values.last().copied());
    let histogram = buffer.histograms.last();
    let (t_ms, measured) = match (float, histogram) {
        (Some((t, value)), h) if h.is_none_or(|(at, _)| *at < t) => {
            if is_stale_nan(value) {
                return None;
            }
            (t, Measured::Number(value))
        }
        (_, Some((t, histogram))) => {
            let carried = format.has_native_histograms() || histogram.schema == CUSTOM_BUCKETS_SCHEMA;
            if is_stale_nan(histogram.sum) || !carried {
                return None;
            }
            (*t, Measured::Histogram(Arc::clone(histogram)))
        }
        _ => return None,
    };
    (t_ms > min_ms).then_some(Newest { labels, t_ms, measured })
}

/// What must be equal for samples to share a family.
fn kind(measured: &Measured) -> u8 {
    match measured {
        Measured::Number(_) => 0,
        Measured::Histogram(h) if h.counter_reset_hint == CounterResetHint::Gauge => 1,
        Measured::Histogram(_) => 2,
    }
}

fn metric(newest: &Newest, external: &Labels, format: Format) -> Metric {
    let escaping = format.escaping();
    let has = |name: &str| newest.labels.get(name).is_some();
    let own = newest.labels.iter().filter(|l| l.name != METRIC_NAME).map(|l| (l.name, l.value));
    let mut added: Vec<(&str, &str)> = external.iter().map(|l| (l.name, l.value)).collect();
    if external.get("instance").is_none() {
        // Without it the scraping server would put its own target's instance there.
        added.push(("instance", ""));
        added.sort_unstable();
    }
    added.retain(|(name, _)| !has(name));
    let labels = own.chain(added).map(|(name, value)| (escaping.apply(name), value.to_owned())).collect();
    Metric { labels, measured: newest.measured.clone(), t_ms: newest.t_ms }
}

/// `/federate`
pub async fn federate(call: Call) -> Response {
    let sets = match selectors::of_federation(&call.params) {
        Ok(sets) => sets,
        Err(error) => {
            return super::reply::text(http::StatusCode::BAD_REQUEST, format!("{}\n", error.message))
                .into_response();
        }
    };
    let format = Format::negotiate(&call.headers);
    let now_ms = call.api.clock.now_ms();
    let errors = call.api.registry.counter(
        "prometheus_web_federation_errors_total",
        "Total number of errors that occurred while sending federation responses.",
        &[],
    );
    stream(&format.content_type(), CancelToken::default(), move |out| {
        let min_ms = now_ms - call.services.engine.options().lookback_delta_ms;
        let external = call.services.config.external_labels();
        let mut all: Vec<Newest> = Vec::new();
        let mut gather = || -> Result<(), ApiError> {
            let querier = call.services.queryable.querier(min_ms, now_ms)?;
            let hints = SelectHints { start_ms: min_ms, end_ms: now_ms, ..SelectHints::default() };
            let mut buffer = SampleBuffer::default();
            for matchers in &sets {
                let set = querier.select(&hints, matchers)?;
                for i in 0..set.len() {
                    set.samples(i, min_ms, now_ms, &mut buffer)?;
                    all.extend(newest(set.labels(i), &buffer, min_ms, format));
                }
            }
            Ok(())
        };
        gather().inspect_err(|_| errors.inc())?;
        all.sort_unstable_by(|a, b| {
            (a.labels.metric_name(), &a.labels).cmp(&(b.labels.metric_name(), &b.labels))
        });
        all.dedup_by(|a, b| a.labels == b.labels);
        let same_family = |a: &Newest, b: &Newest| {
            a.labels.metric_name() == b.labels.metric_name() && kind(&a.measured) == kind(&b.measured)
        };
        for group in all.chunk_by(same_family) {
            let name = group.first().map_or("", |n| n.labels.metric_name());
            let family = Family {
                name: format.escaping().apply(name),
                metrics: group.iter().map(|n| metric(n, &external, format)).collect(),
            };
            format.write(&family, &mut out.buf);
            out.flush_if_full();
        }
        format.finish(&mut out.buf);
        Ok(())
    })
    .await
}
