//! The HTTP API and the embedded user interface: how do HTTP clients and browsers ask?
//!
//! [`Api`] holds what handlers share; [`routes`] is the table of paths; [`server`] accepts connections. Handlers turn
//! parameters into calls on the doors of other rooms, run them on the blocking pool and stream the answer as JSON.

/// Administration of storage.
pub mod admin;
/// Query trees as JSON.
pub mod ast_json;
/// Populated buckets of native histograms with their bounds.
pub mod buckets;
/// Shared state of handlers.
pub mod context;
/// Query results as JSON.
pub mod encode;
/// Error envelopes.
pub mod error;
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
/// Health, readiness, reload, quit, metrics, version.
pub mod lifecycle;
/// Messages for the user interface over HTTP.
pub mod live;
/// Messages for the user interface.
pub mod notifications;
/// The OpenAPI document.
pub mod openapi;
/// The OTLP endpoint.
pub mod otlp;
/// Request parameters.
pub mod params;
/// Figures of the process.
pub mod process;
/// Query endpoints.
pub mod query;
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
/// TLS, passwords and headers of the web configuration file.
pub mod security;
/// `match[]` and selectors inside expressions.
pub mod selectors;
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
/// The embedded user interface.
pub mod ui;
/// The remote-write endpoint.
pub mod write;

pub use context::{Api, BuildInfo, Command, Services, WebOptions};
