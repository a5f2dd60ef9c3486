//! What a query answers.

use std::sync::Arc;

use crate::model::Labels;
use crate::model::histogram::FloatHistogram;

/// A float or a histogram at one point.
#[derive(Debug, Clone, PartialEq)]
pub enum PointValue {
    /// Float.
    Float(f64),
    /// Native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSample {
    /// Labels, metric name included if kept.
    pub labels: Labels,
    /// Time of the point, milliseconds.
    pub t_ms: i64,
    /// Value.
    pub value: PointValue,
}

/// One series of a matrix. Both columns are sorted by time; no time is in both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MatrixSeries {
    /// Labels, metric name included if kept.
    pub labels: Labels,
    /// Float points.
    pub floats: Vec<(i64, f64)>,
    /// Histogram points.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

/// The value of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    /// One number.
    Scalar {
        /// Time, milliseconds.
        t_ms: i64,
        /// Value.
        value: f64,
    },
    /// One text.
    String {
        /// Time, milliseconds.
        t_ms: i64,
        /// Value.
        value: String,
    },
    /// An instant vector; sorted only where the query asks for it.
    Vector(Vec<VectorSample>),
    /// A matrix; of a range query sorted by labels.
    Matrix(Vec<MatrixSeries>),
}
