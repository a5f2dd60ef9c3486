//! Values that templates compute with: the few Go types that alert data and functions produce.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Labels;

/// A Go value. Maps print and iterate in order of key, as Go's templates do.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `nil`.
    Nil,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `float64`.
    Float(f64),
    /// `string`.
    String(Arc<str>),
    /// `map[string]string`: a missing key is the empty string.
    StringMap(Labels),
    /// `map[string]interface {}`: a missing key is "no value".
    Map(Arc<BTreeMap<String, Value>>),
    /// A struct: a missing field is an error.
    Struct(Arc<BTreeMap<String, Value>>),
    /// One element of a query's result: a struct with `Labels` and `Value`.
    Sample(Arc<(Labels, f64)>),
    /// A query's result.
    Samples(Arc<Vec<(Labels, f64)>>),
    /// `time.Time`, milliseconds since the Unix epoch, UTC.
    Time(i64),
    /// `time.Duration`, nanoseconds.
    Duration(i64),
    /// `time.Month` or `time.Weekday`: a number that prints as its name.
    Named(i64, &'static str),
}

impl Value {
    /// A string value.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Value::String(text.into())
    }

    /// Labels as a string map.
    #[must_use]
    pub fn from_labels(labels: &Labels) -> Self {
        Value::StringMap(labels.clone())
    }

    /// Go's name of the type, for error texts.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::String(_) => "string",
            Value::StringMap(_) => "map[string]string",
            Value::Map(_) => "map[string]interface {}",
            Value::Struct(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
            }
            Value::Sample(_) => "*template.sample",
            Value::Samples(_) => "template.queryResult",
            Value::Time(_) => "*time.Time",
            Value::Duration(_) => "*time.Duration",
            Value::Named(..) => "int",
        }
    }

    /// Whether `if` takes the branch: zero values and empty collections are false.
    #[must_use]
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::String(s) => !s.is_empty(),
            Value::StringMap(m) => !m.is_empty(),
            Value::Map(m) => !m.is_empty(),
            Value::Samples(s) => !s.is_empty(),
            Value::Named(i, _) => *i != 0,
            Value::Struct(_) | Value::Sample(_) | Value::Time(_) | Value::Duration(_) => true,
        }
    }
}
