//! Which fields do the messages of the protobuf exposition have? Those of `io.prometheus.client`, numbered from 1 in
//! the order of the lists.

use std::fmt;

/// How a field is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Varint,
    Double,
    /// Texts and messages.
    Bytes,
    /// Repeated varints, packed or one by one.
    Varints,
    /// Repeated doubles, packed or one by one.
    Doubles,
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Coding::Varint => "varint",
            Coding::Double => "64-bit",
            Coding::Bytes => "length-delimited",
            Coding::Varints => "varint or length-delimited",
            Coding::Doubles => "64-bit or length-delimited",
        })
    }
}

/// A message: its name and its fields.
#[derive(Debug)]
pub(super) struct Message {
    pub name: &'static str,
    pub fields: &'static [(&'static str, Coding)],
}

impl Message {
    /// Name and coding of the field with a number.
    #[inline]
    pub fn field(&self, number: u32) -> Option<(&'static str, Coding)> {
        self.fields.get(number.checked_sub(1)? as usize).copied()
    }
}

use Coding::{Bytes, Double, Doubles, Varint, Varints};

pub(super) const METRIC_FAMILY: Message = Message {
    name: "MetricFamily",
    fields: &[("name", Bytes), ("help", Bytes), ("type", Varint), ("metric", Bytes), ("unit", Bytes)],
};

pub(super) const METRIC: Message = Message {
    name: "Metric",
    fields: &[
        ("label", Bytes),
        ("gauge", Bytes),
        ("counter", Bytes),
        ("summary", Bytes),
        ("untyped", Bytes),
        ("timestamp_ms", Varint),
        ("histogram", Bytes),
    ],
};

pub(super) const LABEL_PAIR: Message =
    Message { name: "LabelPair", fields: &[("name", Bytes), ("value", Bytes)] };

pub(super) const GAUGE: Message = Message { name: "Gauge", fields: &[("value", Double)] };

pub(super) const UNTYPED: Message = Message { name: "Untyped", fields: &[("value", Double)] };

pub(super) const COUNTER: Message = Message {
    name: "Counter",
    fields: &[("value", Double), ("exemplar", Bytes), ("created_timestamp", Bytes)],
};

pub(super) const SUMMARY: Message = Message {
    name: "Summary",
    fields: &[
        ("sample_count", Varint),
        ("sample_sum", Double),
        ("quantile", Bytes),
        ("created_timestamp", Bytes),
    ],
};

pub(super) const QUANTILE: Message =
    Message { name: "Quantile", fields: &[("quantile", Double), ("value", Double)] };

pub(super) const HISTOGRAM: Message = Message {
    name: "Histogram",
    fields: &[
        ("sample_count", Varint),
        ("sample_sum", Double),
        ("bucket", Bytes),
        ("sample_count_float", Double),
        ("schema", Varint),
        ("zero_threshold", Double),
        ("zero_count", Varint),
        ("zero_count_float", Double),
        ("negative_span", Bytes),
        ("negative_delta", Varints),
        ("negative_count", Doubles),
        ("positive_span", Bytes),
        ("positive_delta", Varints),
        ("positive_count", Doubles),
        ("created_timestamp", Bytes),
        ("exemplars", Bytes),
    ],
};

pub(super) const BUCKET: Message = Message {
    name: "Bucket",
    fields: &[
        ("cumulative_count", Varint),
        ("upper_bound", Double),
        ("exemplar", Bytes),
        ("cumulative_count_float", Double),
    ],
};

pub(super) const BUCKET_SPAN: Message =
    Message { name: "BucketSpan", fields: &[("offset", Varint), ("length", Varint)] };

pub(super) const EXEMPLAR: Message =
    Message { name: "Exemplar", fields: &[("label", Bytes), ("value", Double), ("timestamp", Bytes)] };

pub(super) const TIMESTAMP: Message =
    Message { name: "Timestamp", fields: &[("seconds", Varint), ("nanos", Varint)] };
