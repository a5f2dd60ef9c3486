//! Tests that see Meerkat from outside: the real binary over HTTP, conformance data, and the tidiness of the
//! repository itself. One test binary, so that linking is paid once.

mod alertmanager;
mod commands;
mod config_conformance;
mod exposition_conformance;
mod http_api;
mod naive_promql;
mod net_client;
mod promqltest;
mod relabel_conformance;
mod remote_messages;
mod rules_conformance;
mod scraping;
mod server;
mod storage;
mod tidy;
