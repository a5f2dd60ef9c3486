//! How histograms print: Prometheus's one-line form, and the bucket list of the API.

use std::fmt;

use super::FloatHistogram;
use crate::model::number::format_g;

/// One bucket of an API answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ApiBucket {
    /// 0: only the upper bound belongs to it; 1: only the lower; 2: neither; 3: both.
    pub boundary_rule: u8,
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations.
    pub count: f64,
}

impl FloatHistogram {
    /// The populated buckets from the lowest to the highest, as the API lists them.
    #[must_use]
    pub fn api_buckets(&self) -> Vec<ApiBucket> {
        self.all_buckets()
            .iter()
            .map(|b| ApiBucket {
                boundary_rule: match (b.lower_inclusive, b.upper_inclusive) {
                    (false, true) => 0,
                    (true, false) => 1,
                    (false, false) => 2,
                    (true, true) => 3,
                },
                lower: b.lower,
                upper: b.upper,
                count: b.count,
            })
            .collect()
    }
}

/// `{count:5, sum:2.5, [-1,-0.5):1, [-0.001,0.001]:1, (0.5,1]:3}`
impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        let negative: Vec<_> = self.negative_iter().collect();
        let zero = (self.zero_count != 0.0).then(|| self.zero_bucket());
        for b in negative.into_iter().rev().chain(zero).chain(self.positive_iter()).filter(|b| b.count != 0.0)
        {
            let open = if b.lower_inclusive { '[' } else { '(' };
            let close = if b.upper_inclusive { ']' } else { ')' };
            let (lower, upper, count) = (format_g(b.lower), format_g(b.upper), format_g(b.count));
            write!(f, ", {open}{lower},{upper}{close}:{count}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    #[test]
    fn prints_buckets_in_order_with_their_bounds() {
        let mut h = FloatHistogram {
            count: 10.0,
            sum: -1.5,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 0.0, 2.0],
            negative_spans: vec![Span { offset: 1, length: 2 }],
            negative_buckets: vec![3.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            h.to_string(),
            "{count:10, sum:-1.5, [-4,-2):2, [-2,-1):3, [-0.001,0.001]:2, (0.5,1]:1, (2,4]:2}"
        );
        let rules: Vec<u8> = h.api_buckets().iter().map(|b| b.boundary_rule).collect();
        assert_eq!(rules, [1, 1, 3, 0, 0]);
        h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: [2.5].into(),
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(h.to_string(), "{count:0, sum:0, [-Inf,2.5]:1, (2.5,+Inf]:2}");
    }
}
