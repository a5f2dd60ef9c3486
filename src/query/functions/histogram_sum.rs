//! Sums and means of histograms whose rounding errors are carried along, bucket by bucket, as those of floats are.

use super::histops::{self, Incompatible};
use super::kahan;
use super::over_time::HintsSeen;
use crate::model::histogram::{CounterResetHint, FloatHistogram};

/// A sum or mean of histograms in the making.
#[derive(Debug, Clone)]
pub struct HistogramSum {
    /// Sum, or mean once `incremental`.
    value: FloatHistogram,
    /// Compensations, in the layout of `value`; only the numbers count.
    c: FloatHistogram,
    count: f64,
    mean: bool,
    incremental: bool,
    seen: HintsSeen,
    reconciled: bool,
}

fn numbers(h: &mut FloatHistogram) -> impl Iterator<Item = &mut f64> {
    [&mut h.count, &mut h.sum, &mut h.zero_count]
        .into_iter()
        .chain(&mut h.positive_buckets)
        .chain(&mut h.negative_buckets)
}

fn zeroed(h: &FloatHistogram) -> FloatHistogram {
    let mut out = h.clone();
    numbers(&mut out).for_each(|v| *v = 0.0);
    out
}

fn overflows(h: &mut FloatHistogram) -> bool {
    numbers(h).any(|v| v.is_infinite())
}

fn same_layout(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && a.custom_values == b.custom_values
}

/// `h` in the layout of `template`, which can take it in.
fn in_layout(h: &FloatHistogram, template: &FloatHistogram) -> Result<FloatHistogram, Incompatible> {
    let mut out = zeroed(template);
    histops::add(&mut out, h)?;
    Ok(out)
}

/// Compensated `value + h`.
fn add(
    value: &FloatHistogram,
    c: &FloatHistogram,
    h: &FloatHistogram,
) -> Result<(FloatHistogram, FloatHistogram, bool), Incompatible> {
    let mut sum = value.clone();
    let remarks = histops::add(&mut sum, h)?;
    let mut compensation;
    if same_layout(value, h) && same_layout(value, &sum) {
        compensation = c.clone();
        let mut addend = h.clone();
        compensate(&mut sum, &mut compensation, &mut value.clone(), &mut addend);
    } else {
        // The sum has a layout that takes in both; bring everything there.
        let (mut before, mut addend) = (in_layout(value, &sum)?, in_layout(h, &sum)?);
        compensation = in_layout(c, &sum)?;
        if same_layout(&before, &sum) && same_layout(&addend, &sum) && same_layout(&compensation, &sum) {
            compensate(&mut sum, &mut compensation, &mut before, &mut addend);
        }
    }
    Ok((sum, compensation, remarks.reconciled))
}

fn compensate(
    sum: &mut FloatHistogram,
    c: &mut FloatHistogram,
    before: &mut FloatHistogram,
    addend: &mut FloatHistogram,
) {
    for (((sum, c), before), addend) in numbers(sum).zip(numbers(c)).zip(numbers(before)).zip(numbers(addend))
    {
        (*sum, *c) = kahan::add(*addend, *before, *c);
    }
}

impl HistogramSum {
    /// The sum, or `mean`, of one histogram.
    #[must_use]
    pub fn first(h: &FloatHistogram, mean: bool) -> Self {
        let mut seen = HintsSeen::default();
        seen.add(h);
        Self { value: h.clone(), c: zeroed(h), count: 1.0, mean, incremental: false, seen, reconciled: false }
    }

    /// Adds a histogram.
    pub fn add(&mut self, h: &FloatHistogram) -> Result<(), Incompatible> {
        self.count += 1.0;
        self.seen.add(h);
        if !self.incremental {
            let (mut sum, c, reconciled) = add(&self.value, &self.c, h)?;
            if !(self.mean && overflows(&mut sum)) {
                (self.value, self.c) = (sum, c);
                self.reconciled |= reconciled;
                return Ok(());
            }
            self.incremental = true;
            histops::div(&mut self.value, self.count - 1.0);
            histops::div(&mut self.c, self.count - 1.0);
        }
        let q = (self.count - 1.0) / self.count;
        histops::mul(&mut self.value, q);
        histops::mul(&mut self.c, q);
        let mut part = h.clone();
        histops::div(&mut part, self.count);
        let (sum, c, reconciled) = add(&self.value, &self.c, &part)?;
        (self.value, self.c) = (sum, c);
        self.reconciled |= reconciled;
        Ok(())
    }

    /// Whether the reset hints of the addends contradict each other.
    #[must_use]
    pub fn collides(&self) -> bool {
        self.seen.collide()
    }

    /// Whether custom bounds had to be reconciled.
    #[must_use]
    pub fn reconciled(&self) -> bool {
        self.reconciled
    }

    /// The sum or mean.
    #[must_use]
    pub fn finish(mut self) -> FloatHistogram {
        if self.mean && !self.incremental {
            histops::div(&mut self.value, self.count);
            histops::div(&mut self.c, self.count);
        }
        for (v, c) in numbers(&mut self.value).zip(numbers(&mut self.c)) {
            if v.is_finite() {
                *v += *c;
            }
        }
        if self.seen.collide() {
            self.value.counter_reset_hint = CounterResetHint::Unknown;
        }
        histops::compact(&mut self.value);
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: f64, offset: i32, bucket: f64) -> FloatHistogram {
        FloatHistogram {
            count,
            sum: bucket,
            positive_spans: vec![crate::model::histogram::Span { offset, length: 1 }],
            positive_buckets: vec![bucket],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn small_terms_survive_in_every_layout() {
        let mut sum = HistogramSum::first(&of(1.0, 0, 1.0), false);
        for h in [of(1e100, 1, 1e100), of(1.0, 0, 1.0), of(-1e100, 1, -1e100)] {
            sum.add(&h).expect("both are exponential");
        }
        let sum = sum.finish();
        assert_eq!((sum.count, sum.sum), (2.0, 2.0));
        assert_eq!(sum.positive_buckets, [2.0]);
    }

    #[test]
    fn the_mean_of_huge_counts_is_finite() {
        let mut mean = HistogramSum::first(&of(1.5e308, 0, 1.0), true);
        mean.add(&of(1.5e308, 0, 3.0)).expect("both are exponential");
        let mean = mean.finish();
        assert!((mean.count / 1.5e308 - 1.0).abs() < 1e-12);
        assert_eq!(mean.sum, 2.0);
    }
}
