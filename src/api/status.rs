//! The status endpoints: flags, configuration, build, process, storage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};

use super::context::Api;
use super::error::ApiError;
use super::json::{self, Object};
use super::reply::{stream_json, success};
use super::routes::Call;
use super::time_text::{rfc3339, rfc3339_or_zero};
use crate::query::CancelToken;

/// Most entries of each list of storage statistics.
const MAX_STATS: usize = 10_000;

/// `/api/v1/status/flags`
pub async fn flags(call: Call) -> Response {
    success(|out| json::pairs(out, call.api.flags.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
}

/// `/api/v1/status/config`
pub async fn config(call: Call) -> Response {
    success(|out| json::pairs(out, [("yaml", call.services.config.yaml().as_str())]))
}

/// `/api/v1/status/config/disk`: the file read anew and printed like the running configuration, to see what a reload
/// would change; or why it would fail.
pub async fn config_on_disk(call: Call) -> Response {
    stream_json(CancelToken::default(), move |out| {
        let (name, text) = match call.services.config.yaml_on_disk(call.api.clock.now_ms()) {
            Ok(yaml) => ("yaml", yaml),
            Err(error) => ("error", error),
        };
        out.success(&[], &[], |out| json::pairs(&mut out.buf, [(name, text.as_str())]));
        Ok(())
    })
    .await
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

/// `/api/v1/status/tsdb`
pub async fn tsdb(call: Call) -> Response {
    let limit = match call.params.first("limit") {
        "" => 10,
        text => match text.parse::<i64>() {
            Ok(n) if n > 0 => usize::try_from(n).unwrap_or(MAX_STATS).min(MAX_STATS),
            _ => return ApiError::bad_data("limit must be a positive number").into_response(),
        },
    };
    stream_json(CancelToken::default(), move |out| {
        let stats = call.services.storage.head_stats(limit)?;
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        out.success(&[], &[], |out| {
            let mut object = Object::open(&mut out.buf);
            let mut head = Object::open(object.key("headStats"));
            head.integer("numSeries", whole(stats.series))
                .integer("numLabelPairs", whole(stats.label_pairs))
                .integer("chunkCount", whole(stats.chunks))
                .integer("minTime", stats.min_time_ms)
                .integer("maxTime", stats.max_time_ms);
            head.close();
            for (name, list) in [
                ("seriesCountByMetricName", &stats.series_by_metric),
                ("labelValueCountByLabelName", &stats.values_by_label),
                ("memoryInBytesByLabelName", &stats.bytes_by_label),
                ("seriesCountByLabelValuePair", &stats.series_by_pair),
            ] {
                json::list(object.key(name), list, |out, entry| {
                    let mut object = Object::open(out);
                    object.text("name", &entry.name).integer("value", whole(entry.value));
                    object.close();
                });
            }
            object.close();
        });
        Ok(())
    })
    .await
}

/// `/api/v1/status/tsdb/blocks`
pub async fn blocks(call: Call) -> Response {
    stream_json(CancelToken::default(), move |out| {
        let blocks = call.services.storage.blocks();
        out.success(&[], &[], |out| {
            out.raw("{\"blocks\":");
            json::list(&mut out.buf, &blocks, |out, meta| out.extend_from_slice(meta.as_bytes()));
            out.raw("}");
        });
        Ok(())
    })
    .await
}

/// `/api/v1/status/walreplay`
pub async fn wal_replay(api: Arc<Api>, _request: Request) -> Response {
    let number = |n: &AtomicU64| i64::try_from(n.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    let state = if api.services.load().is_some() { "done" } else { "in progress" };
    success(|out| {
        let mut object = Object::open(out);
        object
            .integer("min", number(&api.replay.min))
            .integer("max", number(&api.replay.max))
            .integer("current", number(&api.replay.current))
            .text("state", state);
        object.close();
    })
}
