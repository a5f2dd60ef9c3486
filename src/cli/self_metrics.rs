//! Metrics of the process as a whole: what it is, whether it is ready, what it uses.

use std::sync::Arc;

use crate::api::{Api, process};
use crate::telemetry::Registry;

/// Registers them; the figures are read when `/metrics` is asked for.
pub fn register(api: &Arc<Api>) {
    let registry = &api.registry;
    let build = &api.build;
    registry
        .gauge(
            "prometheus_build_info",
            "A metric with a constant '1' value labeled by version, revision, branch, goversion from which prometheus was built, and the goos and goarch for the build.",
            &[
                ("branch", build.branch),
                ("goarch", std::env::consts::ARCH),
                ("goos", std::env::consts::OS),
                ("goversion", build.compiler),
                ("revision", build.revision),
                ("tags", ""),
                ("version", build.version),
            ],
        )
        .set(1.0);
    registry
        .gauge(
            "meerkat_build_info",
            "What this program is.",
            &[("version", build.own_version), ("revision", build.revision)],
        )
        .set(1.0);
    let gauge = |name: &str, help: &str| registry.gauge(name, help, &[]);
    let ready = gauge(
        "prometheus_ready",
        "Whether Prometheus startup was fully completed and the server is ready for normal operation.",
    );
    let reload_ok = gauge(
        "prometheus_config_last_reload_successful",
        "Whether the last configuration reload attempt was successful.",
    );
    let reload_time = gauge(
        "prometheus_config_last_reload_success_timestamp_seconds",
        "Timestamp of the last successful configuration reload.",
    );
    let cpu = registry.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        &[],
    );
    let resident = gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
    let virtual_memory = gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.");
    let open_fds = gauge("process_open_fds", "Number of open file descriptors.");
    let max_fds = gauge("process_max_fds", "Maximum number of open file descriptors.");
    let start = gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.");
    let threads = gauge("process_threads", "Number of threads of the process.");
    let virtual_max =
        gauge("process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.");
    let network = |name: &str, help: &str| registry.counter(name, help, &[]);
    let received = network(
        "process_network_receive_bytes_total",
        "Number of bytes received by the process over the network.",
    );
    let sent = network(
        "process_network_transmit_bytes_total",
        "Number of bytes sent by the process over the network.",
    );
    register_ahead(registry);
    let weak = Arc::downgrade(api);
    registry.on_collect(move || {
        if let Some(api) = weak.upgrade() {
            ready.set(f64::from(u8::from(api.ready_services().is_some())));
            let (ok, at) = api.last_reload();
            reload_ok.set(f64::from(u8::from(ok)));
            reload_time.set(at as f64);
        }
        let figures = process::read();
        cpu.set_total(figures.cpu_seconds);
        resident.set(figures.resident_bytes as f64);
        virtual_memory.set(figures.virtual_bytes as f64);
        open_fds.set(figures.open_fds as f64);
        max_fds.set(figures.max_fds as f64);
        start.set(figures.start_seconds);
        threads.set(figures.threads as f64);
        virtual_max.set(figures.virtual_max_bytes as f64);
        received.set_total(figures.received_bytes as f64);
        sent.set_total(figures.sent_bytes as f64);
    });
}

/// Counters that their rooms create only when they are used first. Alerts compare them with what they were before, so
/// they stand at zero from the start, as in Prometheus.
fn register_ahead(registry: &Registry) {
    for (name, help) in [
        ("prometheus_sd_dns_lookup_failures_total", "The number of DNS-SD lookup failures."),
        ("prometheus_sd_dns_lookups_total", "The number of DNS-SD lookups."),
        ("prometheus_sd_file_read_errors_total", "The number of File-SD read errors."),
        (
            "prometheus_sd_file_watcher_errors_total",
            "The number of File-SD errors caused by filesystem watch failures.",
        ),
        ("prometheus_sd_http_failures_total", "Number of HTTP service discovery refresh failures."),
        ("prometheus_sd_kubernetes_failures_total", "The number of failed WATCH/LIST requests."),
        (
            "prometheus_web_federation_errors_total",
            "Total number of errors that occurred while sending federation responses.",
        ),
        (
            "prometheus_web_federation_warnings_total",
            "Total number of warnings that occurred while sending federation responses.",
        ),
    ] {
        registry.counter(name, help, &[]);
    }
}
