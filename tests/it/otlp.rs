//! Metrics of OpenTelemetry: the same bodies go to Meerkat and to a real Prometheus, and the series are compared.

use std::io::Write as _;
use std::process::Command;

use super::otlp_protobuf::Schema;
use super::server::Server;
use super::world::{Guarded, PATIENCE, peer, prometheus, request, start_listening, until, with_parameters};

fn now_ms() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(elapsed.expect("after 1970").as_millis()).expect("before the end of time")
}

/// A body with its times filled in: now, half a minute ago, a minute ago.
fn body(name: &str, now_ms: i64) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/otlp").join(name);
    let text = std::fs::read_to_string(path).expect("the body is there");
    let nanos = |ms: i64| (ms * 1_000_000).to_string();
    text.replace("@NOW@", &nanos(now_ms))
        .replace("@MIDDLE@", &nanos(now_ms - 30_000))
        .replace("@START@", &nanos(now_ms - 60_000))
        .into_bytes()
}

fn post(address: &str, body: &[u8]) -> (u16, String) {
    let headers = [("Content-Type", "application/json")];
    let answer = request(address, "POST", "/api/v1/otlp/v1/metrics", &headers, body).expect("an answer");
    (answer.status, answer.text())
}

/// All series with their values, sorted: labels as JSON, floats, histograms as JSON.
fn everything(address: &str) -> Vec<String> {
    let path = with_parameters("/api/v1/query", &[("query", "{__name__=~\".+\"}[1h]")]);
    let json = request(address, "GET", &path, &[], b"").expect("an answer").json();
    let rows = json["data"]["result"].as_array().unwrap_or_else(|| panic!("{json}")).clone();
    let none = Vec::new();
    let line = |row: &serde_json::Value| {
        let floats = row["values"].as_array().unwrap_or(&none).iter();
        let floats = floats.map(|v| v[1].as_str().unwrap_or("?").to_owned());
        let histograms = row["histograms"].as_array().unwrap_or(&none).iter();
        let values: Vec<String> = floats.chain(histograms.map(|h| h[1].to_string())).collect();
        format!("{} {}", row["metric"], values.join(" "))
    };
    let mut out: Vec<String> = rows.iter().map(line).collect();
    out.sort();
    out
}

fn start_peer(folder: &std::path::Path, config: &str, features: &str) -> Option<(Guarded, String)> {
    let Some(program) = prometheus() else {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/prometheus");
        return None;
    };
    std::fs::write(folder.join("peer.yml"), config).expect("written");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .args(["--config.file=peer.yml", "--storage.tsdb.path=peer-data", "--web.listen-address=127.0.0.1:0"])
        .args(["--web.enable-otlp-receiver", &format!("--enable-feature=native-histograms,{features}")]);
    let (child, address) = start_listening(&mut command).expect("Prometheus starts");
    until("Prometheus is ready", PATIENCE, || match request(&address, "GET", "/-/ready", &[], b"") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Some((child, address))
}

/// Options, a feature, bodies, the file with what they make, and whether Prometheus 3.5 knows the options.
type Row = (&'static str, &'static str, &'static [&'static str], &'static str, bool);

const ROWS: [Row; 6] = [
    ("", "exemplar-storage", &["kinds.json", "resources.json"], "default", true),
    (
        "translation_strategy: NoUTF8EscapingWithSuffixes, promote_scope_metadata: true",
        "exemplar-storage",
        &["kinds.json"],
        "utf8",
        false,
    ),
    (
        "translation_strategy: UnderscoreEscapingWithoutSuffixes, promote_all_resource_attributes: true, \
         ignore_resource_attributes: [process.args], label_name_underscore_sanitization: false",
        "exemplar-storage",
        &["kinds.json"],
        "plain",
        false,
    ),
    (
        "promote_resource_attributes: [host.name], keep_identifying_resource_attributes: true, \
         convert_histograms_to_nhcb: true",
        "exemplar-storage",
        &["kinds.json"],
        "promoted",
        true,
    ),
    ("", "otlp-deltatocumulative", &["delta-1.json", "delta-2.json"], "added-up", true),
    ("", "otlp-native-delta-ingestion", &["delta-1.json", "delta-2.json"], "kept", true),
];

fn only(a: &[String], b: &[String]) -> String {
    a.iter().filter(|s| !b.contains(s)).cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn options_make_the_series_that_are_written_down() {
    for (option, feature, bodies, file, _) in ROWS {
        let config = format!("global: {{scrape_interval: 1h}}\notlp: {{{option}}}\n");
        let feature = format!("--enable-feature={feature}");
        let server = Server::start(&config, &["--web.enable-otlp-receiver", &feature]);
        let now = now_ms();
        for name in bodies {
            assert_eq!(post(&server.address, &body(name, now)), (200, "{}".into()), "{file} {name}");
        }
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/otlp/{file}.want"));
        let want = std::fs::read_to_string(path).expect("the file is there");
        let mut want: Vec<String> = want.lines().map(str::to_owned).collect();
        want.sort();
        let got = everything(&server.address);
        assert_eq!(got, want, "{file}\nnot wanted:\n{}\nmissing:\n{}", only(&got, &want), only(&want, &got));
    }
}

#[test]
fn series_are_those_of_prometheus() {
    let help = prometheus().map(|program| Command::new(program).arg("--help").output().expect("it runs"));
    let knows = help.is_some_and(|h| String::from_utf8_lossy(&h.stdout).contains("web.enable-otlp-receiver"));
    if !knows {
        eprintln!(
            "skipped: MEERKAT_PEERS names no Prometheus with an OTLP receiver (some distributions leave it out)"
        );
        return;
    }
    for (option, feature, bodies, file, _) in ROWS.into_iter().filter(|row| row.4) {
        let config = format!("global: {{scrape_interval: 1h}}\notlp: {{{option}}}\n");
        let folder = tempfile::tempdir().expect("a folder");
        let Some((_peer, peer)) = start_peer(folder.path(), &config, feature) else { return };
        let feature = format!("--enable-feature={feature}");
        let server = Server::start(&config, &["--web.enable-otlp-receiver", &feature]);
        let now = now_ms();
        for name in bodies {
            let body = body(name, now);
            let (theirs, mine) = (post(&peer, &body), post(&server.address, &body));
            assert_eq!((theirs.0, mine.0), (200, 200), "{file} {name}: {theirs:?} {mine:?}");
        }
        let (theirs, mine) = (everything(&peer), everything(&server.address));
        let (here, there) = (only(&mine, &theirs), only(&theirs, &mine));
        assert_eq!(mine, theirs, "{file}\nonly here:\n{here}\nonly in Prometheus:\n{there}");
    }
}

/// What VictoriaMetrics stored, as [`everything`] tells it.
fn everything_there(address: &str) -> Vec<String> {
    let get = |path: &str| request(address, "GET", path, &[], b"").expect("an answer").text();
    get("/internal/force_flush");
    let path = with_parameters("/prometheus/api/v1/export", &[("match[]", "{__name__!=\"\"}")]);
    let line = |text: &str| {
        let row: serde_json::Value = serde_json::from_str(text).expect("a series");
        let values = row["values"].as_array().expect("values").iter().map(ToString::to_string);
        format!("{} {}", row["metric"], values.collect::<Vec<_>>().join(" "))
    };
    let mut out: Vec<String> = get(&path).lines().map(line).collect();
    out.sort();
    out
}

/// Without what the two store differently: exponential histograms (native ones here, series by range there), `target_info`
/// (VictoriaMetrics has none), points without a value (a marker here, not shown there), attributes whose names become one
/// (joined here, the last one there), `job` and `instance` (made of the resource here only).
fn comparable(lines: Vec<String>) -> Vec<String> {
    let apart = ["target_info", "\"fine", "\"latency_milliseconds", "\"gone\"", "\"http_requests_total\""];
    let mut out = Vec::new();
    for line in lines.into_iter().filter(|l| !apart.iter().any(|a| l.contains(a))) {
        let (labels, values) = line.split_once("} ").expect("labels and values");
        let mut labels: std::collections::BTreeMap<String, String> =
            serde_json::from_str(&format!("{labels}}}")).expect("labels");
        labels.retain(|name, _| name != "job" && name != "instance");
        out.push(format!("{labels:?} {values}"));
    }
    out.sort();
    out
}

#[test]
fn protobuf_makes_the_series_that_json_makes() {
    let schema = Schema::load();
    let start = || Server::start("global: {scrape_interval: 1h}\n", &["--web.enable-otlp-receiver"]);
    let (json, protobuf) = (start(), start());
    let now = now_ms();
    for name in ["kinds.json", "resources.json"] {
        let body = body(name, now);
        assert_eq!(post(&json.address, &body).0, 200);
        let headers = [("Content-Type", "application/x-protobuf")];
        let answer = protobuf.send("POST", "/api/v1/otlp/v1/metrics", &headers, &schema.encode(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(everything(&protobuf.address), everything(&json.address));
}

#[test]
fn series_are_those_of_victoria_metrics() {
    let Some(program) = peer("victoria-metrics") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program);
    command.current_dir(folder.path()).args([
        "-storageDataPath=data",
        "-httpListenAddr=127.0.0.1:0",
        "-opentelemetry.usePrometheusNaming",
        "-opentelemetry.promoteAllResourceAttributes=false",
        "-opentelemetry.promoteScopeMetadata=false",
        "-opentelemetry.promoteResourceAttributes=service.name",
    ]);
    let (_peer, peer) = start_listening(&mut command).expect("VictoriaMetrics starts");
    let config = "global: {scrape_interval: 1h}\notlp: {promote_resource_attributes: [service.name]}\n";
    let server = Server::start(config, &["--web.enable-otlp-receiver"]);
    let (schema, now) = (Schema::load(), now_ms());
    for name in ["kinds.json", "resources.json"] {
        let message = schema.encode(&body(name, now));
        let headers = [("Content-Type", "application/x-protobuf")];
        for (address, path) in
            [(&server.address, "/api/v1/otlp/v1/metrics"), (&peer, "/opentelemetry/v1/metrics")]
        {
            let answer = request(address, "POST", path, &headers, &message).expect("an answer");
            assert_eq!(answer.status, 200, "{address}: {}", answer.text());
        }
    }
    let mine = comparable(everything(&server.address));
    assert!(mine.len() > 15, "{mine:?}");
    until("the same series", PATIENCE, || {
        let theirs = comparable(everything_there(&peer));
        let (here, there) = (only(&mine, &theirs), only(&theirs, &mine));
        if mine == theirs { Ok(()) } else { Err(format!("only here:\n{here}\nonly there:\n{there}")) }
    });
}

#[test]
fn the_endpoint_has_its_limits_and_says_what_it_left_out() {
    let closed = Server::start("global: {scrape_interval: 1h}\n", &[]);
    assert_eq!(post(&closed.address, b"{}").0, 404);
    let server = Server::start("global: {scrape_interval: 1h}\n", &["--web.enable-otlp-receiver"]);
    assert_eq!(post(&server.address, b"{}"), (200, "{}".into()));
    assert_eq!(post(&server.address, b"[").0, 400);
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        let answer = server.send("POST", "/api/v1/otlp/v1/metrics", headers, body);
        (answer.status, answer.text())
    };
    assert_eq!(send(&[("Content-Type", "text/plain")], b"").0, 400);
    let protobuf = ("Content-Type", "application/x-protobuf");
    assert_eq!(send(&[protobuf], b""), (200, String::new()));
    assert_eq!(send(&[protobuf], b"\x0a\x7f").0, 400);
    assert_eq!(send(&[protobuf, ("Content-Encoding", "br")], b"").0, 400);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&vec![0; 40 << 20]).expect("in memory");
    let bomb = packed.finish().expect("in memory");
    let (status, text) = send(&[protobuf, ("Content-Encoding", "gzip")], &bomb);
    assert!(status == 400 && text.contains("limit"), "{status} {text}");
    // Points without meaning here are told apart from the rest, which is stored.
    let (status, text) = post(&server.address, &body("delta-1.json", now_ms()));
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, json["partialSuccess"]["rejectedDataPoints"].as_str()), (200, Some("3")), "{text}");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&body("kinds.json", now_ms())).expect("in memory");
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    assert_eq!(send(&headers, &packed.finish().expect("in memory")), (200, "{}".into()));
    assert!(everything(&server.address).len() > 20);
    let exemplars = with_parameters(
        "/api/v1/query_exemplars",
        &[("query", "{__name__=~\"http_requests_total|request_duration_seconds_bucket\"}")],
    );
    let json = server.get(&exemplars).json();
    let found = json["data"].as_array().expect("a list");
    assert_eq!(found.len(), 2, "{json}");
    // An old sample after a newer one is refused as such.
    let (status, text) = post(&server.address, &body("kinds.json", now_ms() - 600_000));
    assert!(status == 400 && text.contains("out of order"), "{status} {text}");
}
