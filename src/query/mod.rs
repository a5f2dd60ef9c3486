//! PromQL: text → tree → plan → columns.
//!
//! [`Engine`] is the door: it takes a query's text, a storage view and a time range, and answers with values,
//! annotations and statistics. It blocks; async callers run it on a blocking pool and cancel through
//! [`CancelToken`].

/// Who may run now, and the engine's own metrics.
mod admission;
/// Warnings and infos that accompany a result.
pub mod annotations;
/// Answers that are known already.
pub mod cache;
/// Threads that help.
pub mod crew;
/// The door: options, limits, errors, instant and range queries.
pub mod engine;
/// Runs plans.
pub mod exec;
/// What the parts of a query cost.
pub mod explain;
/// What the functions compute.
pub mod functions;
/// Who is told of each query.
pub mod log;
/// From text to a typed tree with positions.
pub mod parse;
/// From tree to plan.
pub mod plan;
/// Room for high trees.
pub mod stack;
/// Results: vectors, matrices, scalars, strings.
pub mod value;

pub use annotations::Annotations;
pub use engine::{
    CancelToken, Engine, EngineOptions, PreparedQuery, QueryError, QueryOptions, QueryResult, QueryStats,
};
pub use explain::{Explanation, PlanNode};
pub use value::{MatrixSeries, QueryValue, VectorSample};
