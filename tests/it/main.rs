//! Tests that see Meerkat from outside: the real binary over HTTP, conformance data, and the tidiness of the
//! repository itself. One test binary, so that linking is paid once.

mod against_prometheus;
mod alert_restarts;
mod alertmanager;
mod bad_input;
mod commands;
mod config_conformance;
mod exposition_conformance;
mod first_run;
mod flags;
mod hostile_targets;
mod http_api;
mod kill9;
mod naive_promql;
mod net_client;
mod node_exporter;
mod prometheus_directory;
mod promqltest;
mod query_limits;
mod relabel_conformance;
mod remote_messages;
mod remote_read;
mod remote_write;
mod rules_conformance;
mod rules_over_history;
mod scraping;
mod server;
mod storage;
mod storage_faults;
mod storage_limits;
mod templates;
mod tidy;
mod tsdb_tools;
mod world;
