//! Is a histogram from outside well-formed? Sums that overflow, buckets without spans and bounds out of order
//! are refused before they reach storage.

use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, Span};

/// Why a histogram is refused. Texts are Prometheus's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistogramError {
    /// Schema out of range.
    #[error(
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {0}"
    )]
    InvalidSchema(i32),
    /// Spans and buckets disagree.
    #[error(
        "{0} side: spans need {1} buckets, have {2} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpansBucketsMismatch(&'static str, u64, usize),
    /// A span other than the first lies before its predecessor.
    #[error("{0} side: span number {1} with offset {2}: histogram has a span whose offset is negative")]
    SpanNegativeOffset(&'static str, usize, i32),
    /// A bucket counts less than nothing.
    #[error(
        "{0} side: bucket number {1} has observation count of {2}: histogram has a bucket whose observation count is negative"
    )]
    NegativeBucketCount(&'static str, usize, String),
    /// The zero bucket or the total counts less than nothing.
    #[error("{0} has observation count of {1}: histogram has a negative observation count")]
    NegativeCount(&'static str, String),
    /// The total does not fit the buckets.
    #[error(
        "{buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should {rule} the number of observations found in the buckets"
    )]
    CountMismatch {
        /// Sum of the buckets.
        buckets: String,
        /// Total.
        count: String,
        /// `equal` or, with NaN observations, `be at least`.
        rule: &'static str,
    },
    /// Custom bounds out of order, or not finite.
    #[error("histogram custom bounds must be finite and in ascending order, got {0} after {1}")]
    CustomBounds(f64, f64),
    /// A histogram with custom bounds has parts that only exponential ones have.
    #[error("histogram with custom buckets must not have {0}")]
    CustomHas(&'static str),
    /// An exponential histogram has custom bounds.
    #[error("histogram with exponential schema must not have custom bounds")]
    ExponentialHasBounds,
    /// The zero threshold is negative or not finite.
    #[error("histogram has an invalid zero threshold {0}")]
    ZeroThreshold(f64),
}

type Checked = Result<(), HistogramError>;

fn check_schema(schema: i32) -> Checked {
    if schema == CUSTOM_BUCKETS_SCHEMA || (-4..=8).contains(&schema) {
        return Ok(());
    }
    Err(HistogramError::InvalidSchema(schema))
}

fn check_spans(side: &'static str, spans: &[Span], buckets: usize) -> Checked {
    for (i, span) in spans.iter().enumerate().skip(1) {
        if span.offset < 0 {
            return Err(HistogramError::SpanNegativeOffset(side, i + 1, span.offset));
        }
    }
    let needed: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if needed != buckets as u64 {
        return Err(HistogramError::SpansBucketsMismatch(side, needed, buckets));
    }
    Ok(())
}

/// What custom bounds forbid and demand; `negatives` tells whether there are negative buckets or spans.
fn check_custom(
    schema: i32,
    bounds: &[f64],
    positive: &[Span],
    negatives: bool,
    zero: bool,
    width: f64,
) -> Checked {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        if !bounds.is_empty() {
            return Err(HistogramError::ExponentialHasBounds);
        }
        if width.is_nan() || width < 0.0 || width.is_infinite() {
            return Err(HistogramError::ZeroThreshold(width));
        }
        return Ok(());
    }
    let mut before = f64::NEG_INFINITY;
    for bound in bounds {
        if !bound.is_finite() || *bound <= before {
            return Err(HistogramError::CustomBounds(*bound, before));
        }
        before = *bound;
    }
    if zero {
        return Err(HistogramError::CustomHas("a zero bucket count"));
    }
    if width != 0.0 {
        return Err(HistogramError::CustomHas("a zero threshold"));
    }
    if negatives {
        return Err(HistogramError::CustomHas("negative buckets"));
    }
    let last: i64 = positive.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).sum();
    if positive.first().is_some_and(|s| s.offset < 0) || last > bounds.len() as i64 + 1 {
        return Err(HistogramError::CustomHas("more buckets than its bounds allow"));
    }
    Ok(())
}

impl Histogram {
    /// Checks the structure and that the counts fit together.
    pub fn validate(&self) -> Result<(), HistogramError> {
        check_schema(self.schema)?;
        check_spans("positive", &self.positive_spans, self.positive_buckets.len())?;
        check_spans("negative", &self.negative_spans, self.negative_buckets.len())?;
        let negatives = !self.negative_spans.is_empty() || !self.negative_buckets.is_empty();
        let zero = self.zero_count != 0;
        check_custom(
            self.schema,
            &self.custom_values,
            &self.positive_spans,
            negatives,
            zero,
            self.zero_threshold,
        )?;
        let mut total = u128::from(self.zero_count);
        for (side, deltas) in [("negative", &self.negative_buckets), ("positive", &self.positive_buckets)] {
            let mut count = 0i64;
            for (i, delta) in deltas.iter().enumerate() {
                count = count.saturating_add(*delta);
                if count < 0 {
                    return Err(HistogramError::NegativeBucketCount(side, i + 1, count.to_string()));
                }
                total += count.unsigned_abs() as u128;
            }
        }
        // NaN observations are in no bucket.
        let (fits, rule) = if self.sum.is_nan() {
            (total <= u128::from(self.count), "be at least")
        } else {
            (total == u128::from(self.count), "equal")
        };
        if !fits {
            let (buckets, count) = (total.to_string(), self.count.to_string());
            return Err(HistogramError::CountMismatch { buckets, count, rule });
        }
        Ok(())
    }
}

impl FloatHistogram {
    /// Checks the structure. The total is not compared with the buckets: floats add up inexactly.
    pub fn validate(&self) -> Result<(), HistogramError> {
        check_schema(self.schema)?;
        check_spans("positive", &self.positive_spans, self.positive_buckets.len())?;
        check_spans("negative", &self.negative_spans, self.negative_buckets.len())?;
        let negatives = !self.negative_spans.is_empty() || !self.negative_buckets.is_empty();
        let zero = self.zero_count != 0.0;
        check_custom(
            self.schema,
            &self.custom_values,
            &self.positive_spans,
            negatives,
            zero,
            self.zero_threshold,
        )?;
        for (side, counts) in [("negative", &self.negative_buckets), ("positive", &self.positive_buckets)] {
            if let Some((i, count)) = counts.iter().enumerate().find(|(_, c)| **c < 0.0) {
                return Err(HistogramError::NegativeBucketCount(side, i + 1, count.to_string()));
            }
        }
        for (what, count) in [("zero bucket", self.zero_count), ("count field", self.count)] {
            if count < 0.0 {
                return Err(HistogramError::NegativeCount(what, count.to_string()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_histograms_are_refused() {
        let good = Histogram {
            count: 6,
            zero_count: 1,
            positive_spans: vec![Span { offset: -2, length: 2 }],
            positive_buckets: vec![2, 1],
            ..Histogram::default()
        };
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.to_float().validate(), Ok(()));
        let bad = |change: fn(&mut Histogram)| {
            let mut h = good.clone();
            change(&mut h);
            assert!(h.validate().is_err(), "{h:?}");
        };
        bad(|h| h.schema = 9);
        bad(|h| h.schema = -5);
        bad(|h| h.count = 5);
        bad(|h| h.positive_buckets = vec![2, -3]);
        bad(|h| h.positive_buckets = vec![2]);
        bad(|h| h.positive_spans = vec![Span { offset: 0, length: 1 }, Span { offset: -1, length: 1 }]);
        bad(|h| h.custom_values = [1.0].into());
        bad(|h| h.schema = CUSTOM_BUCKETS_SCHEMA);
        bad(|h| h.zero_threshold = f64::NAN);
        let nan = Histogram { count: 9, sum: f64::NAN, ..good.clone() };
        assert_eq!(nan.validate(), Ok(()));
    }
}
