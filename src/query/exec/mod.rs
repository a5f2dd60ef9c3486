//! Runs plans: labels of the output first, then a column of step values for each series.

/// `absent`, `absent_over_time`, `scalar` and what else looks at all series of a step.
pub mod across;
/// Aggregations that fold.
pub mod aggregate;
/// `topk`, `bottomk`, `limitk`, `limit_ratio`, `count_values`.
pub mod aggregate_k;
/// Nodes to results.
pub mod answer;
/// Folds over long windows.
mod borders;
/// Quantiles and fractions of distributions.
pub mod buckets;
/// Plan to nodes.
pub mod build;
/// One series over the steps.
pub mod column;
/// What all parts of a query share.
pub mod context;
/// Grouping keys and label arithmetic.
pub mod grouping;
/// `info`.
pub mod info;
/// Binary operations between vectors.
pub mod join;
/// Functions that look at every sample of every window.
mod lanes;
/// Functions of one series at a time.
pub mod map;
/// Series that have to be told apart anew after their labels changed.
pub mod merge;
/// Spreads and lines over long windows.
mod moments;
/// Nodes.
pub mod node;
/// One value against another.
pub mod operators;
/// All columns in order, on all cores.
pub mod parallel;
/// Functions over windows.
pub mod range;
/// `label_replace` and `label_join`.
pub mod relabel;
/// Instant vectors.
pub mod selector;
/// `and`, `or`, `unless`.
pub mod sets;
/// Windows over floats.
mod slide;
/// Sums of twice the precision.
mod twofold;
