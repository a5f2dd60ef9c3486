//! The query log: one JSON object a line in the file of `global.query_log_file`, with Prometheus's keys. The file is
//! opened anew at each reload, so that a rotated one is let go.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use parking_lot::Mutex;

use super::encode;
use super::json::Object;
use crate::query::log::{LoggedQuery, QueryLog, QueryOrigin};
use crate::telemetry::{Counter, Gauge, Registry};

/// Longest query text in a line, bytes.
const MAX_QUERY_BYTES: usize = 64 << 10;

/// The instruments of the log, which exist whether or not there is one.
#[derive(Debug, Clone)]
pub struct QueryLogMetrics {
    enabled: Gauge,
    failures: Counter,
}

impl QueryLogMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let enabled = registry.gauge("prometheus_engine_query_log_enabled", "State of the query log.", &[]);
        let help = "The number of query log failures.";
        Self { enabled, failures: registry.counter("prometheus_engine_query_log_failures_total", help, &[]) }
    }

    /// Notes whether there is a log.
    pub fn set_enabled(&self, on: bool) {
        self.enabled.set(f64::from(u8::from(on)));
    }
}

/// A query log in a file.
#[derive(Debug)]
pub struct FileQueryLog {
    file: Mutex<File>,
    failures: Counter,
}

impl FileQueryLog {
    /// Opens the file for appending.
    pub fn open(path: &Path, metrics: &QueryLogMetrics) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file), failures: metrics.failures.clone() })
    }
}

fn iso(t_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(t_ms)
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
        .unwrap_or_else(|_| t_ms.to_string())
}

fn line(query: &LoggedQuery<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut object = Object::open(&mut out);
    object
        .text("time", &jiff::Timestamp::now().to_string())
        .text("level", "INFO")
        .text("msg", "promql query logged");
    let mut params = Object::open(object.key("params"));
    let mut end = query.query.len().min(MAX_QUERY_BYTES);
    while !query.query.is_char_boundary(end) {
        end -= 1;
    }
    params
        .text("end", &iso(query.end_ms))
        .text("query", &query.query[..end])
        .text("start", &iso(query.start_ms))
        .integer("step", query.step_ms / 1000);
    params.close();
    if let Some(error) = query.error {
        object.text("error", &error.to_string());
    }
    encode::query_stats(object.key("stats"), query.stats, false);
    match query.origin {
        QueryOrigin::Unknown => {}
        QueryOrigin::Http { client_ip, method, path } => {
            let mut origin = Object::open(object.key("httpRequest"));
            origin.text("clientIP", client_ip).text("method", method).text("path", path);
            origin.close();
        }
        QueryOrigin::Rule { file, group } => {
            let mut origin = Object::open(object.key("ruleGroup"));
            origin.text("file", file).text("name", group);
            origin.close();
        }
    }
    object.close();
    out.push(b'\n');
    out
}

impl QueryLog for FileQueryLog {
    fn log(&self, query: &LoggedQuery<'_>) {
        let line = line(query);
        // One write a line: lines of queries that end together do not mix.
        if let Err(e) = self.file.lock().write_all(&line) {
            if self.failures.get() == 0.0 {
                tracing::error!(err = %e, "writing the query log failed");
            }
            self.failures.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::QueryStats;

    #[test]
    fn lines_have_the_keys_of_prometheus() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("queries.log");
        let registry = Registry::new();
        let log = FileQueryLog::open(&path, &QueryLogMetrics::new(&registry)).expect("opened");
        let origin = QueryOrigin::Http {
            client_ip: "127.0.0.1".into(),
            method: "GET".into(),
            path: "/api/v1/query".into(),
        };
        log.log(&LoggedQuery {
            query: "up{a=\"\n\"}",
            start_ms: 1_000,
            end_ms: 100_000,
            step_ms: 10_000,
            error: None,
            stats: &QueryStats::default(),
            origin: &origin,
        });
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(text.lines().count(), 1);
        let got: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            got["params"],
            serde_json::json!({"end": "1970-01-01T00:01:40.000Z", "query": "up{a=\"\n\"}",
                "start": "1970-01-01T00:00:01.000Z", "step": 10})
        );
        assert_eq!(got["httpRequest"]["clientIP"], "127.0.0.1");
        assert_eq!(got["stats"]["samples"]["peakSamples"], 0);
        assert_eq!(got["msg"], "promql query logged");
    }
}
