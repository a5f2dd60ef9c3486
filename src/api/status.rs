//! The status endpoints: flags, configuration, build, process, storage.

use axum::response::Response;

use super::json::{self, Object};
use super::reply::success;
use super::routes::Call;
use super::time_text::{rfc3339, rfc3339_or_zero};

/// `/api/v1/status/flags`
pub async fn flags(call: Call) -> Response {
    success(|out| json::pairs(out, call.api.flags.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
}

/// `/api/v1/status/config`
pub async fn config(call: Call) -> Response {
    success(|out| json::pairs(out, [("yaml", call.services.config.yaml().as_str())]))
}

/// `/api/v1/status/buildinfo`
pub async fn build_info(call: Call) -> Response {
    success(|out| super::lifecycle::write_build_info(&call.api.build, out))
}

/// `/api/v1/status/runtimeinfo`
pub async fn runtime_info(call: Call) -> Response {
    let api = &call.api;
    let (reload_ok, last_reload_s) = api.last_reload();
    let cwd = std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default();
    let last_reload_ms = i64::try_from(last_reload_s).ok().filter(|s| *s > 0).map(|s| s * 1000);
    let process = super::process::read();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    success(|out| {
        let mut object = Object::open(out);
        object
            .text("startTime", &rfc3339(api.start_ms))
            .text("CWD", &cwd)
            .text("hostname", &super::process::host_name())
            .text("serverTime", &rfc3339(api.clock.now_ms()))
            .boolean("reloadConfigSuccess", reload_ok)
            .text("lastConfigTime", &rfc3339_or_zero(last_reload_ms))
            .integer(
                "corruptionCount",
                i64::try_from(call.services.storage.corruption_count()).unwrap_or(i64::MAX),
            )
            .integer("goroutineCount", i64::try_from(process.threads).unwrap_or(0))
            .integer("GOMAXPROCS", cores)
            .integer("GOMEMLIMIT", i64::MAX)
            .text("GOGC", "")
            .text("GODEBUG", "")
            .text("storageRetention", &call.services.config.retention());
        object.close();
    })
}
