//! A data directory moves between Prometheus and Meerkat, as the real programs see it: what one wrote the other answers.

use std::path::Path;
use std::process::{Command, Stdio};

use super::remote_messages::{
    BucketSpan, Exemplar, Histogram, Label, TimeSeries, WriteRequest, packed, series,
};
use super::server::{Server, binary};
use super::tsdb_tools::query_path;
use super::world::{Guarded, PATIENCE, prometheus, remote_write, request, start_listening, until};

const STEP_MS: i64 = 15_000;
const STEPS: i64 = 200;

/// Starts Prometheus on a data directory.
fn start(folder: &Path, data: &str) -> Option<(Guarded, String)> {
    let Some(program) = prometheus() else {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/prometheus");
        return None;
    };
    let own = "global:\n  scrape_interval: 1s\nstorage:\n  tsdb:\n    out_of_order_time_window: 2h\n";
    std::fs::write(folder.join("peer.yml"), own).expect("the configuration is written");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .args([
            "--config.file=peer.yml",
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-remote-write-receiver",
        ])
        .args([
            "--enable-feature=native-histograms,exemplar-storage,metadata-wal-records",
            "--web.enable-admin-api",
        ])
        .args([&format!("--storage.tsdb.path={data}"), "--storage.tsdb.retention.time=100y"]);
    let (child, address) = start_listening(&mut command).expect("Prometheus starts");
    until("Prometheus is ready", PATIENCE, || match request(&address, "GET", "/-/ready", &[], b"") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Some((child, address))
}

fn stop(mut child: Guarded, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.0.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
    child.0.wait().expect("it ends");
}

fn send(address: &str, timeseries: Vec<TimeSeries>) {
    let message = packed(&WriteRequest { timeseries, metadata: Vec::new() });
    let answer = remote_write(address, &message).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// Counters, a gauge that ends with a marker, an exemplar, native histograms, from `begin` on.
fn history(begin: i64) -> Vec<TimeSeries> {
    let at = |step: i64| begin + step * STEP_MS;
    let mut all: Vec<TimeSeries> = (0..20)
        .map(|i| {
            let samples: Vec<(i64, f64)> = (0..STEPS).map(|s| (at(s), (s * (i + 1)) as f64 / 3.0)).collect();
            series(&[("__name__", "moved_total"), ("i", &i.to_string())], &samples)
        })
        .collect();
    if let Some(first) = all.first_mut() {
        first.exemplars = vec![Exemplar {
            labels: vec![Label { name: "trace_id".into(), value: "t1".into() }],
            value: 0.5,
            timestamp: at(3),
        }];
    }
    let mut gauge: Vec<(i64, f64)> = (0..100).map(|s| (at(s), (s % 7) as f64 - 3.0)).collect();
    gauge.push((at(100), f64::from_bits(0x7ff0_0000_0000_0002)));
    all.push(series(&[("__name__", "moved_gauge"), ("t", "a \"b\"\n")], &gauge));
    let histograms = (0..STEPS).map(|s| Histogram {
        count_int: u64::try_from(s * 3).unwrap_or(0),
        sum: s as f64 * 1.5,
        schema: 0,
        zero_threshold: 0.001,
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![s, s],
        timestamp: at(s),
        ..Histogram::default()
    });
    all.push(TimeSeries { histograms: histograms.collect(), ..series(&[("__name__", "moved_native")], &[]) });
    all
}

fn questions(begin: i64) -> Vec<String> {
    let mid = begin + STEPS / 2 * STEP_MS + 7000;
    let end = begin + (STEPS - 1) * STEP_MS + 1000;
    let mut all = Vec::new();
    for t in [begin + 5000, mid, end] {
        for query in [
            "{__name__=~\"moved_.*\"}",
            "moved_total[10m]",
            "moved_native[5m]",
            "histogram_quantile(0.9, rate(moved_native[5m]))",
            "sum(increase(moved_total[30m]))",
            "count_over_time(moved_gauge[1h])",
            "sum(count_over_time({__name__=~\"moved_.*\"}[2h]))",
        ] {
            all.push(query_path(query, t));
        }
    }
    all.push(format!("/api/v1/query_exemplars?query=moved_total&start={}&end={}", begin / 1000, end / 1000));
    all
}

/// The answers; series in one order, since programs may list them in another.
fn answers(address: &str, begin: i64) -> Vec<String> {
    let sorted = |path: &String| {
        let answer = request(address, "GET", path, &[], b"").expect("an answer");
        let mut json = answer.json();
        let list = if json["data"].is_array() {
            json["data"].as_array_mut()
        } else {
            json["data"]["result"].as_array_mut()
        };
        list.expect("a list").sort_by_key(|one| one.to_string());
        format!("{path}\n{json}")
    };
    questions(begin).iter().map(sorted).collect()
}

/// The end of a block range in the past, so that some samples are in blocks and some in the log.
fn begin_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond() / STEP_MS * STEP_MS - STEPS * STEP_MS
}

#[test]
fn a_directory_of_prometheus_is_served_with_log_and_blocks() {
    for signal in ["TERM", "KILL"] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some((child, address)) = start(folder.path(), "data") else { return };
        let begin = begin_ms();
        let all = history(begin);
        // A part late, so that there is a log of out-of-order samples too.
        let (late, rest): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(i, s)| *i < 3 && s.samples.len() > 50);
        send(&address, rest.into_iter().map(|(_, s)| s).collect());
        for (_, whole) in late {
            let (mut newer, mut older) = (whole.clone(), whole);
            newer.samples.drain(..30);
            older.samples.truncate(30);
            older.exemplars.clear();
            send(&address, vec![newer]);
            send(&address, vec![older]);
        }
        // And a block, made elsewhere and moved in.
        let lines: String = (0..100)
            .map(|i| format!("moved_old{{n=\"{}\"}} {i} {}\n", i % 4, 1_600_000_000 + i * 60))
            .collect();
        std::fs::write(folder.path().join("old.txt"), format!("{lines}# EOF\n")).expect("written");
        let made = binary()
            .current_dir(folder.path())
            .args(["tsdb", "create-blocks-from", "openmetrics", "-q", "old.txt", "data"])
            .stdin(Stdio::null())
            .status();
        assert!(made.expect("it runs").success());
        stop(child, signal);
        let (child, address) = start(folder.path(), "data").expect("it starts again");
        let old = query_path("sum(moved_old)", 1_600_005_000_000);
        let mut want = answers(&address, begin);
        want.push(request(&address, "GET", &old, &[], b"").expect("an answer").text());
        stop(child, signal);

        let flags = ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
        std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("written");
        let server = Server::start_in(folder, &flags);
        let mut got = answers(&server.address, begin);
        got.push(server.get(&old).text());
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(got, want, "after {signal}");
        }
        let data = server.folder.path().join("data");
        assert!(data.join("prometheus-imported/wal").exists() && !data.join("wal").exists());
        assert!(!data.join("prometheus-import.json").exists());
        // Taking samples goes on.
        let now = jiff::Timestamp::now().as_millisecond();
        send(&server.address, vec![series(&[("__name__", "moved_total"), ("i", "1")], &[(now, 1e6)])]);
    }
}

#[test]
fn prometheus_answers_from_what_is_exported() {
    if prometheus().is_none() {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/prometheus");
        return;
    }
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    let begin = begin_ms();
    let mut all = history(begin);
    // Blocks have no exemplars.
    all.iter_mut().for_each(|s| s.exemplars.clear());
    send(&server.address, all);
    let folder = server.folder.path();
    let status = binary()
        .current_dir(folder)
        .args(["tsdb", "export", "--format=prometheus", "--output", "exported", "data"])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("it runs").success());
    let (child, address) = start(folder, "exported").expect("Prometheus starts");
    let want = answers(&server.address, begin);
    for (want, got) in want.iter().zip(answers(&address, begin)) {
        assert_eq!(&got, want);
    }
    stop(child, "TERM");
    let promtool = prometheus().map(|p| p.with_file_name("promtool")).filter(|p| p.exists());
    let Some(promtool) = promtool else {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/promtool");
        return;
    };
    for command in ["list", "analyze"] {
        let status = Command::new(&promtool).current_dir(folder).args(["tsdb", command, "exported"]).status();
        assert!(status.expect("promtool runs").success(), "{command}");
    }
}
