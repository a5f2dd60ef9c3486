//! What do points that count since the point before add up to? Sums by stream, forgotten when a stream falls silent.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::model::HistogramPoint;
use crate::model::histogram::{FloatHistogram, Histogram};

/// A stream that is silent for so long begins anew, milliseconds of its own time.
const SILENCE_MS: i64 = 5 * 60 * 1000;
/// Most streams.
const MAX_STREAMS: usize = 1 << 20;

#[derive(Debug, Clone)]
enum Sum {
    Number(f64),
    Histogram(Box<HistogramPoint>),
    Native(Arc<FloatHistogram>),
}

#[derive(Debug)]
struct Stream {
    t_ms: i64,
    sum: Sum,
}

/// The sums of all streams.
#[derive(Debug, Default)]
pub struct DeltaStore(Mutex<HashMap<u128, Stream, foldhash::fast::RandomState>>);

impl DeltaStore {
    /// Adds with `add`, or begins with `first`; `None` when the point is not newer than the one before.
    fn change(&self, key: u128, t_ms: i64, first: Sum, add: impl FnOnce(&Sum) -> Option<Sum>) -> Option<Sum> {
        let mut streams = self.0.lock();
        if let Some(stream) = streams.get_mut(&key) {
            if t_ms <= stream.t_ms {
                return None;
            }
            let silent = t_ms - stream.t_ms > SILENCE_MS;
            let sum = if silent { first } else { add(&stream.sum).unwrap_or(first) };
            *stream = Stream { t_ms, sum: sum.clone() };
            return Some(sum);
        }
        if streams.len() >= MAX_STREAMS {
            streams.retain(|_, stream| t_ms - stream.t_ms <= SILENCE_MS);
            if streams.len() >= MAX_STREAMS {
                return None;
            }
        }
        streams.insert(key, Stream { t_ms, sum: first.clone() });
        Some(first)
    }

    /// The sum with this number.
    pub fn add_number(&self, key: &u128, t_ms: i64, value: f64) -> Option<f64> {
        let sum = self.change(*key, t_ms, Sum::Number(value), |sum| match sum {
            Sum::Number(sum) => Some(Sum::Number(sum + value)),
            _ => None,
        })?;
        if let Sum::Number(sum) = sum { Some(sum) } else { None }
    }

    /// Replaces the point by the sum with it; `false` when it is not newer than the one before. Other bounds begin anew.
    pub fn add_histogram(&self, key: &u128, t_ms: i64, point: &mut HistogramPoint) -> bool {
        let first = Sum::Histogram(Box::new(point.clone()));
        let sum = self.change(*key, t_ms, first, |sum| match sum {
            Sum::Histogram(sum) if sum.bounds == point.bounds && sum.counts.len() == point.counts.len() => {
                let mut out = (**sum).clone();
                out.count = out.count.saturating_add(point.count);
                out.sum = out.sum.zip(point.sum).map(|(a, b)| a + b);
                for (a, b) in out.counts.iter_mut().zip(&point.counts) {
                    *a = a.saturating_add(*b);
                }
                Some(Sum::Histogram(Box::new(out)))
            }
            _ => None,
        });
        let Some(Sum::Histogram(sum)) = sum else { return false };
        (point.count, point.sum, point.counts) = (sum.count, sum.sum, sum.counts);
        true
    }

    /// The sum with this histogram.
    pub fn add_native(&self, key: &u128, t_ms: i64, histogram: &Histogram) -> Option<Arc<FloatHistogram>> {
        let value = histogram.to_float();
        let first = Sum::Native(Arc::new(value.clone()));
        let sum = self.change(*key, t_ms, first, |sum| match sum {
            Sum::Native(sum) => {
                let mut out = (**sum).clone();
                out.add(&value).ok()?;
                Some(Sum::Native(Arc::new(out)))
            }
            _ => None,
        })?;
        if let Sum::Native(sum) = sum { Some(sum) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_add_up_until_they_fall_silent() {
        let store = DeltaStore::default();
        assert_eq!(store.add_number(&1, 10, 2.0), Some(2.0));
        assert_eq!(store.add_number(&1, 20, 3.0), Some(5.0));
        assert_eq!(store.add_number(&1, 20, 3.0), None);
        assert_eq!(store.add_number(&2, 20, 1.0), Some(1.0));
        assert_eq!(store.add_number(&1, 21 + SILENCE_MS, 7.0), Some(7.0));
        let mut point = HistogramPoint {
            count: 3,
            sum: Some(1.5),
            counts: vec![1, 2],
            bounds: vec![1.0],
            ..HistogramPoint::default()
        };
        for n in 1..4 {
            let mut sum = point.clone();
            assert!(store.add_histogram(&3, n, &mut sum));
            assert_eq!((sum.count, sum.counts), (3 * n as u64, vec![n as u64, 2 * n as u64]));
        }
        point.bounds = vec![2.0];
        let mut other = point.clone();
        assert!(store.add_histogram(&3, 9, &mut other));
        assert_eq!(other, point, "other bounds begin anew");
    }
}
