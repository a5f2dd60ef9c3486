//! When are two values equal for the scripts?

use meerkat::model::histogram::FloatHistogram;
use meerkat::model::is_stale_nan;
use meerkat::query::parse::series::SequenceValue;
use meerkat::query::value::PointValue;

/// Equal, both NaN of one kind, or within 1e-6 of each other, relatively; zero equals only zero.
pub fn floats(a: f64, b: f64) -> bool {
    if is_stale_nan(a) || is_stale_nan(b) {
        return is_stale_nan(a) && is_stale_nan(b);
    }
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < 1e-6 * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < 1e-6
}

fn tidy(h: &FloatHistogram) -> FloatHistogram {
    let mut h = h.clone();
    h.compact();
    h
}

fn histograms(want: &FloatHistogram, with_hint: bool, got: &FloatHistogram) -> bool {
    let lists = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| floats(*a, *b));
    let (a, b) = (tidy(want), tidy(got));
    a.schema == b.schema
        && floats(a.count, b.count)
        && floats(a.sum, b.sum)
        && a.zero_threshold == b.zero_threshold
        && floats(a.zero_count, b.zero_count)
        && a.custom_values == b.custom_values
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && lists(&a.positive_buckets, &b.positive_buckets)
        && lists(&a.negative_buckets, &b.negative_buckets)
        && (!with_hint || a.counter_reset_hint == b.counter_reset_hint)
}

/// Compares an expected position with a point.
pub fn point(want: &SequenceValue, got: &PointValue) -> Result<(), String> {
    let equal = match (want, got) {
        (SequenceValue::Float(a), PointValue::Float(b)) => floats(*a, *b),
        (SequenceValue::Histogram(a, hint), PointValue::Histogram(b)) => histograms(a, *hint, b),
        _ => false,
    };
    if equal { Ok(()) } else { Err(format!("want {}, got {}", show(want), show_point(got))) }
}

fn show(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Omitted => "nothing".into(),
        SequenceValue::Float(v) => v.to_string(),
        SequenceValue::Histogram(h, _) => format!("{h} ({:?}, schema {})", h.counter_reset_hint, h.schema),
    }
}

fn show_point(value: &PointValue) -> String {
    match value {
        PointValue::Float(v) => v.to_string(),
        PointValue::Histogram(h) => format!("{h} ({:?}, schema {})", h.counter_reset_hint, h.schema),
    }
}
