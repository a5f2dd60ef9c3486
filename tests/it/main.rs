//! Tests that see Meerkat from outside: the real binary over HTTP, conformance data, and the tidiness of the
//! repository itself. One test binary, so that linking is paid once.

mod against_prometheus;
mod alertmanager;
mod bad_input;
mod commands;
mod config_conformance;
mod endpoints;
mod exposition_conformance;
mod first_run;
mod flags;
mod grafana;
mod hostile_targets;
mod http_api;
mod kill9;
mod naive_promql;
mod net_client;
mod node_exporter;
mod own_metrics;
mod promqltest;
mod query_limits;
mod relabel_conformance;
mod remote_messages;
mod rules_conformance;
mod scraping;
mod secrets;
mod server;
mod storage;
mod storage_limits;
mod tidy;
mod under_attack;
mod web_security;
mod world;
