//! Who wants to know of each query? A query log is told after each evaluation what was asked, by whom, at which cost
//! and with which error. The engine only tells; files are somebody else's business.

use super::engine::{QueryError, QueryStats};

/// Where a query comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum QueryOrigin {
    /// Not said.
    #[default]
    Unknown,
    /// An HTTP request.
    Http {
        /// Address of the client, without port.
        client_ip: String,
        /// Method.
        method: String,
        /// Path, prefix included.
        path: String,
    },
    /// A rule.
    Rule {
        /// Rule file.
        file: String,
        /// Group.
        group: String,
    },
}

/// One evaluated query.
#[derive(Debug, Clone, Copy)]
pub struct LoggedQuery<'a> {
    /// Text.
    pub query: &'a str,
    /// First evaluation, milliseconds.
    pub start_ms: i64,
    /// Last evaluation, milliseconds.
    pub end_ms: i64,
    /// 0 in instant queries, milliseconds.
    pub step_ms: i64,
    /// Why there is no result.
    pub error: Option<&'a QueryError>,
    /// Cost.
    pub stats: &'a QueryStats,
    /// Who asked.
    pub origin: &'a QueryOrigin,
}

/// Takes note of queries. Called on the query's thread, so it must be quick.
pub trait QueryLog: std::fmt::Debug + Send + Sync {
    /// Notes one.
    fn log(&self, query: &LoggedQuery<'_>);
}
