//! The HTTP API and the embedded user interface: how do HTTP clients and browsers ask?
//!
//! [`Api`] holds what handlers share; [`routes`] is the table of paths; [`server`] accepts connections. Handlers turn
//! parameters into calls on the doors of other rooms, run them on the blocking pool and stream the answer as JSON.

/// Administration of storage.
pub mod admin;
/// How much may run at once.
pub mod admission;
/// Query trees as JSON.
pub mod ast_json;
/// Places for connections.
pub mod connections;
/// Shared state of handlers.
pub mod context;
/// Requests that foreign pages make.
pub mod cross_site;
/// Query results as JSON.
pub mod encode;
/// Error envelopes.
pub mod error;
/// Exposition formats of answers.
pub mod exposition;
/// Capabilities.
pub mod features;
/// Federation.
pub mod federate;
/// A stream with deadlines.
pub mod guarded;
/// JSON texts.
pub mod json;
/// Series, label names, label values.
pub mod labels;
/// What holds for every request.
pub mod layers;
/// What is left of a request when it is answered.
mod leftover;
/// Request lines with raw quotation marks.
pub mod lenient;
/// Health, readiness, reload, quit, metrics, version.
pub mod lifecycle;
/// Messages for the user interface over HTTP.
pub mod live;
mod multipart;
/// Messages for the user interface.
pub mod notifications;
/// The OpenAPI document.
pub mod openapi;
/// The OTLP endpoint.
pub mod otlp;
/// Pages that are sent to many.
pub mod pages;
/// Request parameters.
pub mod params;
mod paths;
/// Figures of the process.
pub mod process;
/// Query endpoints.
pub mod query;
/// The query log.
pub mod query_log;
/// Answers that are given at once.
pub mod quick;
/// How many requests may come.
pub mod rate_limit;
/// The remote-read endpoint.
pub mod read;
/// Streamed answers.
pub mod reply;
/// The table of paths.
pub mod routes;
/// Rules over the past.
pub mod rule_history;
/// Rules and alerts.
pub mod rules;
/// Searching names and values.
pub mod search;
/// TLS, passwords and headers of the web configuration file.
pub mod security;
/// `match[]` and selectors inside expressions.
pub mod selectors;
/// Metrics of this process as JSON.
pub mod self_metrics;
/// Listening and serving connections.
pub mod server;
/// Silences of the configured Alertmanagers.
pub mod silences;
/// What the API asks of other rooms.
pub mod sources;
/// Status endpoints.
pub mod status;
/// Targets and metadata.
pub mod targets;
/// Times as Go prints them.
pub mod time_text;
/// Encryption of connections.
pub mod tls;
/// The embedded user interface.
pub mod ui;
/// Threads for answers that may take long.
mod workers;
/// The remote-write endpoint.
pub mod write;

pub use context::{Api, BuildInfo, Command, Services, WebOptions};
