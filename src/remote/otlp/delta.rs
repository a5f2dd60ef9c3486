//! What do points that count since the point before add up to? Sums by stream, forgotten when a stream falls silent.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::model::{Buckets, ExponentialPoint, HistogramPoint};

/// A stream that is silent for so long begins anew, milliseconds of its own time.
const SILENCE_MS: i64 = 5 * 60 * 1000;
/// Most streams.
const MAX_STREAMS: usize = 1 << 20;
/// Most buckets of one sign in a sum: beyond it the resolution is halved, as OpenTelemetry's own processor does.
const MAX_BUCKETS: usize = 160;

#[derive(Debug, Clone)]
enum Sum {
    Number(f64),
    Histogram(Box<HistogramPoint>),
    Exponential(Box<ExponentialPoint>),
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

    /// Replaces the point by the sum with it; `false` when it is not newer than the one before.
    pub fn add_exponential(&self, key: &u128, t_ms: i64, point: &mut ExponentialPoint) -> bool {
        let first = Sum::Exponential(Box::new(point.clone()));
        let sum = self.change(*key, t_ms, first, |sum| match sum {
            Sum::Exponential(sum) => Some(Sum::Exponential(Box::new(added(sum, point)))),
            _ => None,
        });
        let Some(Sum::Exponential(sum)) = sum else { return false };
        (point.count, point.sum, point.scale, point.zero_count) =
            (sum.count, sum.sum, sum.scale, sum.zero_count);
        (point.positive, point.negative) = (sum.positive, sum.negative);
        true
    }
}

/// Two points in one, at a resolution that both have and that keeps it small.
fn added(a: &ExponentialPoint, b: &ExponentialPoint) -> ExponentialPoint {
    let mut scale = a.scale.min(b.scale);
    loop {
        let down = |point: &ExponentialPoint| point.scale.saturating_sub(scale).unsigned_abs().min(31);
        let sum = |of: fn(&ExponentialPoint) -> &Buckets| merged([(of(a), down(a)), (of(b), down(b))]);
        match (sum(|p| &p.positive), sum(|p| &p.negative)) {
            (Some(positive), Some(negative)) => {
                return ExponentialPoint {
                    point: b.point.clone(),
                    count: a.count.saturating_add(b.count),
                    sum: a.sum.zip(b.sum).map(|(a, b)| a + b),
                    scale,
                    zero_count: a.zero_count.saturating_add(b.zero_count),
                    positive,
                    negative,
                };
            }
            _ => scale -= 1,
        }
    }
}

/// Buckets in one list, their indexes halved as often as said; `None` if there are too many then.
fn merged(parts: [(&Buckets, u32); 2]) -> Option<Buckets> {
    let populated = || {
        parts.iter().flat_map(|(buckets, down)| {
            let counts = buckets.counts.iter().zip(i64::from(buckets.offset)..);
            counts.filter(|(count, _)| **count > 0).map(move |(count, index)| (index >> down, *count))
        })
    };
    let Some(first) = populated().map(|(index, _)| index).min() else { return Some(Buckets::default()) };
    let last = populated().map(|(index, _)| index).max().unwrap_or(first);
    let length = usize::try_from(last - first + 1).ok().filter(|n| *n <= MAX_BUCKETS)?;
    let mut counts = vec![0u64; length];
    for (index, count) in populated() {
        let slot = &mut counts[usize::try_from(index - first).unwrap_or(0)];
        *slot = slot.saturating_add(count);
    }
    Some(Buckets { offset: i32::try_from(first).ok()?, counts })
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
        let exponential = |scale, offset, counts: &[u64]| ExponentialPoint {
            count: counts.iter().sum(),
            sum: Some(1.0),
            scale,
            positive: Buckets { offset, counts: counts.to_vec() },
            ..ExponentialPoint::default()
        };
        assert!(store.add_exponential(&4, 1, &mut exponential(1, -3, &[1, 2, 3])));
        let mut sum = exponential(0, 0, &[5]);
        assert!(store.add_exponential(&4, 2, &mut sum));
        // At the coarser resolution -3 lies in -2, -2 and -1 in -1.
        assert_eq!((sum.scale, sum.count, sum.sum), (0, 11, Some(2.0)));
        assert_eq!(sum.positive, Buckets { offset: -2, counts: vec![1, 5, 5] });
        let mut sum = exponential(0, 100_000, &[7]);
        assert!(store.add_exponential(&4, 3, &mut sum));
        assert_eq!((sum.scale, sum.count), (-10, 18));
        assert_eq!(sum.positive.counts.iter().sum::<u64>(), 18);
        point.bounds = vec![2.0];
        let mut other = point.clone();
        assert!(store.add_histogram(&3, 9, &mut other));
        assert_eq!(other, point, "other bounds begin anew");
    }
}
