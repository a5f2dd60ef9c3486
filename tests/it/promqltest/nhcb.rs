//! `load_with_nhcb`: classic histograms become histograms with custom buckets besides.

use std::collections::BTreeMap;
use std::sync::Arc;

use meerkat::model::histogram::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Span};
use meerkat::model::{Labels, LabelsBuilder, METRIC_NAME, is_stale_nan};
use meerkat::query::parse::series::SequenceValue;

use super::script::LoadSeries;

/// What is known of one histogram at one time.
#[derive(Default)]
struct Parts {
    /// Bits of the bound, ordered as numbers, with the cumulative count.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    stale: bool,
}

/// The histograms with their labels and position.
pub fn convert(series: &[LoadSeries]) -> Result<Vec<(Labels, usize, Arc<FloatHistogram>)>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<usize, Parts>> = BTreeMap::new();
    for loaded in series {
        let labels = &loaded.series.labels;
        let name = labels.metric_name();
        let le = labels.get("le");
        let (base, role) = if let (Some(base), Some(_)) = (name.strip_suffix("_bucket"), le) {
            (base, 'b')
        } else if let Some(base) = name.strip_suffix("_count") {
            (base, 'c')
        } else if let Some(base) = name.strip_suffix("_sum") {
            (base, 's')
        } else {
            continue;
        };
        let bound = match (role, le.map(|le| le.trim_start_matches('+').to_ascii_lowercase())) {
            ('b', Some(le)) => match le.parse::<f64>() {
                Ok(v) if !v.is_nan() => v,
                _ => continue,
            },
            _ => f64::NAN,
        };
        let mut target = LabelsBuilder::new(labels);
        target.set(METRIC_NAME, base).remove("le");
        let times = found.entry(target.build()).or_default();
        for (i, value) in loaded.series.values.iter().enumerate() {
            let SequenceValue::Float(v) = value else { continue };
            let parts = times.entry(i).or_default();
            parts.stale |= is_stale_nan(*v);
            match role {
                'b' => parts.buckets.push((bound, *v)),
                'c' => parts.count = Some(*v),
                _ => parts.sum = *v,
            }
        }
    }
    let mut out = Vec::new();
    for (labels, times) in found {
        // Sums and counts without any bucket are no histogram.
        if times.values().all(|p| p.buckets.is_empty()) {
            continue;
        }
        for (i, parts) in times {
            out.push((labels.clone(), i, Arc::new(histogram(parts)?)));
        }
    }
    Ok(out)
}

fn histogram(mut parts: Parts) -> Result<FloatHistogram, String> {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut h = FloatHistogram { schema: CUSTOM_BUCKETS_SCHEMA, sum: parts.sum, ..FloatHistogram::default() };
    if parts.stale {
        h.sum = meerkat::model::stale_nan();
        return Ok(h);
    }
    let highest = parts.buckets.last().map_or(0.0, |b| b.1);
    h.count = parts.count.unwrap_or(highest);
    let mut before = 0.0;
    let mut bounds = Vec::new();
    for (bound, cumulative) in &parts.buckets {
        if *cumulative < before {
            return Err(format!("bucket counts go down at le={bound}"));
        }
        if bound.is_finite() {
            bounds.push(*bound);
        }
        h.positive_buckets.push(cumulative - before);
        before = *cumulative;
    }
    if parts.buckets.last().is_none_or(|b| b.0.is_finite()) {
        h.positive_buckets.push(h.count - before);
    }
    h.positive_spans = vec![Span { offset: 0, length: h.positive_buckets.len() as u32 }];
    h.custom_values = bounds.into();
    h.compact();
    Ok(h)
}
