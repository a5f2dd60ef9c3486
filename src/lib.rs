//! Meerkat: a time-series monitoring database with a pull-based scraper, in one binary.
//!
//! Each module is a room of the house that `ARCHITECTURE.md` draws. A room may use the rooms listed above it
//! here and never those below; `tests/it/tidy.rs` checks the arrows.

/// Rule groups, alert state, templates, notifications.
pub mod alert;
/// The HTTP API and the embedded user interface.
pub mod api;
/// Commands, flags, wiring, signals.
pub mod cli;
/// `prometheus.yml`, rule files and web configuration as validated types.
pub mod config;
/// Labels, matchers, samples, native histograms, time: the vocabulary of every other room.
pub mod model;
/// Outgoing HTTP: TLS, authentication, proxies; one client for each configuration section.
pub mod net;
/// PromQL: parse, plan, execute.
pub mod query;
/// Remote write, remote read, OTLP, federation.
pub mod remote;
/// Discovery, targets, scrape loops, exposition parsers.
pub mod scrape;
/// Meerkat's own metrics: counters, gauges, histograms, and their text form.
pub mod telemetry;
/// The storage engine.
pub mod tsdb;
