//! Judges the engine by a twin that evaluates step by step, straight from the definitions, over random series
//! with gaps, resets, NaN, infinities and stale markers.

use std::collections::BTreeMap;

use meerkat::model::{Labels, stale_nan};
use meerkat::query::{Engine, EngineOptions, QueryOptions, QueryValue};
use meerkat::telemetry::Registry;
use meerkat::tsdb::memory::MemoryStorage;
use meerkat::tsdb::{Appendable, BatchOptions, SeriesRef};
use proptest::prelude::*;

type Samples = Vec<(i64, f64)>;
/// Group label, own label, samples.
type Data = Vec<(u8, u8, Samples)>;
/// Values by labels and time.
type Answer = BTreeMap<(String, i64), f64>;

const LOOKBACK_MS: i64 = 300_000;

fn data() -> impl Strategy<Value = Data> {
    let value = prop_oneof![
        20 => (0i32..40).prop_map(f64::from),
        4 => (-1000i32..1000).prop_map(|v| f64::from(v) / 7.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        2 => Just(stale_nan()),
    ];
    // Long windows with many samples are folded otherwise than short ones.
    let sparse = prop::collection::vec((1i64..40_000, value.clone()), 0..60);
    let dense = prop::collection::vec((1i64..6_000, value), 0..250);
    let samples = prop_oneof![sparse, dense].prop_map(|gaps| {
        let mut t = -100_000;
        gaps.into_iter()
            .map(|(gap, v)| {
                t += gap;
                (t, v)
            })
            .collect::<Samples>()
    });
    prop::collection::vec((0u8..2, samples), 1..5)
        .prop_map(|series| series.into_iter().enumerate().map(|(i, (a, s))| (a, i as u8, s)).collect())
}

fn is_stale(v: f64) -> bool {
    v.to_bits() == stale_nan().to_bits()
}

fn window(samples: &Samples, t: i64, range: i64) -> Samples {
    samples.iter().copied().filter(|(at, v)| *at > t - range && *at <= t && !is_stale(*v)).collect()
}

fn instant(samples: &Samples, t: i64) -> Option<f64> {
    let (at, v) = samples.iter().copied().rfind(|(at, _)| *at <= t)?;
    (at > t - LOOKBACK_MS && !is_stale(v)).then_some(v)
}

fn rate(w: &Samples, t: i64, range: i64, counter: bool, per_second: bool) -> Option<f64> {
    let ((first_t, first), (last_t, last)) = (*w.first()?, *w.last()?);
    if w.len() < 2 {
        return None;
    }
    let mut result = last - first;
    if counter {
        for pair in w.windows(2) {
            if pair[1].1 < pair[0].1 {
                result += pair[0].1;
            }
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last_t - first_t);
    let mean = sampled / (w.len() - 1) as f64;
    let (mut to_start, mut to_end) = (seconds(first_t - (t - range)), seconds(t - last_t));
    if to_start >= mean * 1.1 {
        to_start = mean / 2.0;
    }
    if counter && result > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / result));
    }
    if to_end >= mean * 1.1 {
        to_end = mean / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= seconds(range);
    }
    Some(result * factor)
}

/// Slope per second and value at `t` of the line through the samples.
fn line(w: &Samples, t: i64) -> Option<(f64, f64)> {
    let n = w.len() as f64;
    let first = w.first()?.1;
    if w.len() < 2 {
        return None;
    }
    if w.iter().all(|(_, v)| *v == first) {
        return Some(if first.is_finite() { (0.0, first) } else { (f64::NAN, f64::NAN) });
    }
    let mean = |of: &dyn Fn(&(i64, f64)) -> f64| w.iter().map(of).sum::<f64>() / n;
    let seconds = |at: i64| (at - t) as f64 / 1000.0;
    if w.iter().any(|(_, v)| !v.is_finite()) {
        // What comes of infinities depends on how the sums are put together: as Prometheus does it.
        let (x, y) = (n * mean(&|(at, _)| seconds(*at)), n * mean(&|(_, v)| *v));
        let covariance = n * mean(&|(at, v)| seconds(*at) * v) - x * y / n;
        let slope = covariance / (n * mean(&|(at, _)| seconds(*at).powi(2)) - x * x / n);
        return Some((slope, y / n - slope * x / n));
    }
    let (x, y) = (mean(&|(at, _)| seconds(*at)), mean(&|(_, v)| *v));
    let covariance = mean(&|(at, v)| (seconds(*at) - x) * (v - y));
    let slope = covariance / mean(&|(at, _)| (seconds(*at) - x).powi(2));
    Some((slope, y - slope * x))
}

/// Without samples that come less than half a second after another: a line through two such, continued for minutes, is
/// mostly rounding, in Prometheus too.
fn thinned(data: Data) -> Data {
    let thin = |samples: Samples| {
        let mut last = i64::MIN;
        samples
            .into_iter()
            .filter(|(t, _)| {
                *t >= last.saturating_add(500) && {
                    last = *t;
                    true
                }
            })
            .collect()
    };
    data.into_iter().map(|(a, b, samples)| (a, b, thin(samples))).collect()
}

fn variance(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n
}

fn over_time(function: &str, w: &Samples, t: i64, range: i64) -> Option<f64> {
    let values: Vec<f64> = w.iter().map(|(_, v)| *v).collect();
    let n = values.len() as f64;
    let pick = |better: fn(f64, f64) -> bool| {
        values.iter().copied().filter(|v| !v.is_nan()).reduce(|a, b| if better(b, a) { b } else { a })
    };
    let pairs =
        |counts: fn(f64, f64) -> bool| values.windows(2).filter(|p| counts(p[0], p[1])).count() as f64;
    match function {
        "rate" => return rate(w, t, range, true, true),
        "increase" => return rate(w, t, range, true, false),
        "delta" => return rate(w, t, range, false, false),
        "deriv" => return line(w, w.first()?.0).map(|(slope, _)| slope),
        "idelta" | "irate" => {
            let [.., (at, a), (bt, b)] = w[..] else { return None };
            let difference = if function == "irate" && b < a { b } else { b - a };
            return Some(if function == "irate" {
                difference / ((bt - at) as f64 / 1000.0)
            } else {
                difference
            });
        }
        _ if values.is_empty() => return None,
        _ => {}
    }
    Some(match function {
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => values.iter().sum::<f64>() / n,
        "min_over_time" => pick(|a, b| a < b).unwrap_or(f64::NAN),
        "max_over_time" => pick(|a, b| a > b).unwrap_or(f64::NAN),
        "count_over_time" => n,
        "last_over_time" => values[values.len() - 1],
        "first_over_time" => values[0],
        "present_over_time" => 1.0,
        "stddev_over_time" => variance(&values).sqrt(),
        "stdvar_over_time" => variance(&values),
        "changes" => pairs(|a, b| a != b && !(a.is_nan() && b.is_nan())),
        "resets" => pairs(|a, b| b < a),
        _ => unreachable!("{function} has no twin"),
    })
}

fn aggregate(operator: &str, values: &[f64]) -> f64 {
    let pick = |better: fn(f64, f64) -> bool| {
        let numbers = values.iter().copied().filter(|v| !v.is_nan());
        numbers.reduce(|a, b| if better(b, a) { b } else { a }).unwrap_or(f64::NAN)
    };
    match operator {
        "sum" => values.iter().sum(),
        "avg" => values.iter().sum::<f64>() / values.len() as f64,
        "min" => pick(|a, b| a < b),
        "max" => pick(|a, b| a > b),
        _ => values.len() as f64,
    }
}

fn store(data: &Data) -> std::sync::Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    let mut batch = storage.appender(BatchOptions::default());
    for (a, b, samples) in data {
        let labels =
            Labels::from_pairs([("__name__", "m_total"), ("a", &a.to_string()), ("b", &b.to_string())]);
        for (t, v) in samples {
            batch.append(SeriesRef::NONE, &|| labels.clone(), 0, *t, *v).expect("times ascend");
        }
    }
    batch.commit().expect("memory takes everything");
    storage
}

const FUNCTIONS: [&str; 20] = [
    "",
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "changes",
    "resets",
    "stddev_over_time",
    "stdvar_over_time",
    "deriv",
    "predict_linear",
];

proptest! {
    #[test]
    fn the_engine_agrees_with_its_twin(
        data in data(),
        function in prop::sample::select(&FUNCTIONS[..]),
        operator in prop::sample::select(&["", "sum", "avg", "min", "max", "count"][..]),
        range_s in prop::sample::select(&[1i64, 45, 120, 700, 3000][..]),
        offset_s in prop::sample::select(&[-30i64, 0, 61][..]),
        step in 1_000i64..90_000,
    ) {
        let (start, end, range) = (-50_000, 700_000, range_s * 1000);
        let data = if function == "predict_linear" { thinned(data) } else { data };
        let selector = match function {
            "" => format!("m_total offset {offset_s}s"),
            "predict_linear" => format!("predict_linear(m_total[{range_s}s] offset {offset_s}s, 100)"),
            f => format!("{f}(m_total[{range_s}s] offset {offset_s}s)"),
        };
        let query = if operator.is_empty() { selector } else { format!("{operator} by (a) ({selector})") };

        let mut want = Answer::new();
        let mut t = start;
        while t <= end {
            let at = t - offset_s * 1000;
            let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for (a, b, samples) in &data {
                let value = match function {
                    "" => instant(samples, at),
                    // Counted from the time of the query, wherever the window is.
                    "predict_linear" => {
                        line(&window(samples, at, range), t).map(|(slope, now)| slope * 100.0 + now)
                    }
                    f => over_time(f, &window(samples, at, range), at, range),
                };
                let key = if operator.is_empty() { format!("{a}/{b}") } else { a.to_string() };
                if let Some(value) = value {
                    groups.entry(key).or_default().push(value);
                }
            }
            for (key, values) in groups {
                let value = if operator.is_empty() { values[0] } else { aggregate(operator, &values) };
                want.insert((key, t), value);
            }
            t += step;
        }

        let engine = Engine::new(EngineOptions::default(), &Registry::new());
        let options = QueryOptions::default();
        let result = engine.range(&*store(&data), &query, start, end, step, &options).expect("the query runs");
        let QueryValue::Matrix(series) = result.value else { panic!("not a matrix") };
        let mut got = Answer::new();
        for s in series {
            let (a, b) = (s.labels.value("a"), s.labels.value("b"));
            let key = if operator.is_empty() { format!("{a}/{b}") } else { a.to_owned() };
            got.extend(s.floats.iter().map(|(t, v)| ((key.clone(), *t), *v)));
        }

        prop_assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{}", query);
        for (place, want) in &want {
            let got = got[place];
            // The twin sums without compensation; lines through few samples carry the rounding of either far.
            let slack = if matches!(function, "deriv" | "predict_linear") { 1e-6 } else { 1e-9 };
            let close = got == *want || (got - want).abs() <= slack * (1.0 + want.abs()) || (got.is_nan() && want.is_nan());
            prop_assert!(close, "{query} at {place:?}: got {got}, want {want}");
        }
    }
}
