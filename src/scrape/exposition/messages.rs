//! Which fields do the messages of the protobuf exposition have? Those of `io.prometheus.client`, numbered from 1 in
//! the order of the lists.

use std::fmt;

/// How a field is coded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Coding {
    Varint,
    Double,
    Text,
    Message(&'static Message),
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
            Coding::Text | Coding::Message(_) => "length-delimited",
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

use Coding::{Double, Doubles, Text, Varint, Varints};

pub(super) static METRIC_FAMILY: Message = Message {
    name: "MetricFamily",
    fields: &[
        ("name", Text),
        ("help", Text),
        ("type", Varint),
        ("metric", Coding::Message(&METRIC)),
        ("unit", Text),
    ],
};

pub(super) static METRIC: Message = Message {
    name: "Metric",
    fields: &[
        ("label", Coding::Message(&LABEL_PAIR)),
        ("gauge", Coding::Message(&GAUGE)),
        ("counter", Coding::Message(&COUNTER)),
        ("summary", Coding::Message(&SUMMARY)),
        ("untyped", Coding::Message(&UNTYPED)),
        ("timestamp_ms", Varint),
        ("histogram", Coding::Message(&HISTOGRAM)),
    ],
};

pub(super) static LABEL_PAIR: Message =
    Message { name: "LabelPair", fields: &[("name", Text), ("value", Text)] };

pub(super) static GAUGE: Message = Message { name: "Gauge", fields: &[("value", Double)] };

pub(super) static UNTYPED: Message = Message { name: "Untyped", fields: &[("value", Double)] };

pub(super) static COUNTER: Message = Message {
    name: "Counter",
    fields: &[
        ("value", Double),
        ("exemplar", Coding::Message(&EXEMPLAR)),
        ("created_timestamp", Coding::Message(&TIMESTAMP)),
    ],
};

pub(super) static SUMMARY: Message = Message {
    name: "Summary",
    fields: &[
        ("sample_count", Varint),
        ("sample_sum", Double),
        ("quantile", Coding::Message(&QUANTILE)),
        ("created_timestamp", Coding::Message(&TIMESTAMP)),
    ],
};

pub(super) static QUANTILE: Message =
    Message { name: "Quantile", fields: &[("quantile", Double), ("value", Double)] };

pub(super) static HISTOGRAM: Message = Message {
    name: "Histogram",
    fields: &[
        ("sample_count", Varint),
        ("sample_sum", Double),
        ("bucket", Coding::Message(&BUCKET)),
        ("sample_count_float", Double),
        ("schema", Varint),
        ("zero_threshold", Double),
        ("zero_count", Varint),
        ("zero_count_float", Double),
        ("negative_span", Coding::Message(&BUCKET_SPAN)),
        ("negative_delta", Varints),
        ("negative_count", Doubles),
        ("positive_span", Coding::Message(&BUCKET_SPAN)),
        ("positive_delta", Varints),
        ("positive_count", Doubles),
        ("created_timestamp", Coding::Message(&TIMESTAMP)),
        ("exemplars", Coding::Message(&EXEMPLAR)),
    ],
};

pub(super) static BUCKET: Message = Message {
    name: "Bucket",
    fields: &[
        ("cumulative_count", Varint),
        ("upper_bound", Double),
        ("exemplar", Coding::Message(&EXEMPLAR)),
        ("cumulative_count_float", Double),
    ],
};

pub(super) static BUCKET_SPAN: Message =
    Message { name: "BucketSpan", fields: &[("offset", Varint), ("length", Varint)] };

pub(super) static EXEMPLAR: Message = Message {
    name: "Exemplar",
    fields: &[
        ("label", Coding::Message(&LABEL_PAIR)),
        ("value", Double),
        ("timestamp", Coding::Message(&TIMESTAMP)),
    ],
};

pub(super) static TIMESTAMP: Message =
    Message { name: "Timestamp", fields: &[("seconds", Varint), ("nanos", Varint)] };
