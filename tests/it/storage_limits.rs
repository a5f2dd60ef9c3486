//! Limits on series and memory, seen from outside: what is new is refused with a reason, what exists goes on.

use meerkat::model::clock::{Clock as _, SystemClock};
use prost::Message as _;

use super::remote_messages::{Label, Sample, TimeSeries, WriteRequest};
use super::server::{Answer, Server};
use super::world::{
    Exporter, PATIENCE, instant, remote_write, request, scalar, target_health, until, with_parameters,
};

fn now_ms() -> i64 {
    SystemClock.now_ms()
}

/// Writes one sample of each of these series of a job.
fn write(server: &Server, job: &str, series: std::ops::Range<u32>) -> Answer {
    let label = |name: &str, value: String| Label { name: name.into(), value };
    let timeseries = series.map(|n| TimeSeries {
        labels: vec![label("__name__", "pushed".into()), label("job", job.into()), label("n", n.to_string())],
        samples: vec![Sample { value: f64::from(n), timestamp: now_ms() }],
        ..TimeSeries::default()
    });
    let message = WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() };
    let body = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).expect("snappy packs");
    remote_write(&server.address, &body).expect("an answer")
}

fn refused(server: &Server, reason: &str) -> f64 {
    let text = request(&server.address, "GET", "/metrics", &[], b"").expect("metrics").text();
    let name = format!("meerkat_tsdb_head_series_refused_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter is there");
    value.parse().expect("a number")
}

#[test]
fn series_beyond_the_caps_are_refused_and_the_others_go_on() {
    let body = |n: u32| (0..n).map(|i| format!("m{{i=\"{i}\"}} {i}\n")).collect::<String>();
    let (small, large) = (Exporter::text(move || body(4)), Exporter::text(move || body(60)));
    let config = format!(
        "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\nscrape_configs:\n\
         - {{job_name: small, static_configs: [{{targets: ['{}']}}]}}\n\
         - {{job_name: large, static_configs: [{{targets: ['{}']}}]}}\n",
        small.address, large.address
    );
    let flags = [
        "--web.enable-remote-write-receiver",
        "--storage.tsdb.max-series=100",
        "--storage.tsdb.max-series-per-job=30",
        "--storage.tsdb.max-series-per-job=pushed=1000",
    ];
    let server = Server::start(&config, &flags);
    until("the scrape tells its limit", PATIENCE, || {
        let health = target_health(&server.address)?;
        let of = |job: &str| health.iter().find(|(name, ..)| name == job).cloned().unwrap_or_default();
        let (large, small) = (of("large"), of("small"));
        if large.1 == "up" && large.2.contains("--storage.tsdb.max-series-per-job") && small.2.is_empty() {
            return Ok(());
        }
        Err(format!("{health:?}"))
    });
    until("the other job is whole", PATIENCE, || match scalar(&server.address, "count(m{job=\"small\"})") {
        Ok(4.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(refused(&server, "max-series-per-job") > 0.0);
    assert!(scalar(&server.address, "count({job=\"large\"})").expect("some are stored") <= 30.0);

    // The other limit, over remote write: what fits is stored, the answer says what does not.
    let answer = write(&server, "pushed", 0..200);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("--storage.tsdb.max-series)"), "{}", answer.text());
    let stored = scalar(&server.address, "count(pushed)").expect("some are stored") as u32;
    assert!((1..100).contains(&stored), "{stored}");
    assert!(refused(&server, "max-series") > 0.0);
    let again = write(&server, "pushed", 0..stored);
    assert_eq!(again.status / 100, 2, "those that exist go on: {}", again.text());
    server.wait_for_line("new series are refused");
}

#[test]
fn without_memory_new_series_and_heavy_queries_give_way() {
    let flags = ["--web.enable-remote-write-receiver", "--storage.memory-limit=1MB"];
    let server = Server::start("", &flags);
    let answer = write(&server, "pushed", 0..3);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("--storage.memory-limit"), "{}", answer.text());
    assert_eq!(refused(&server, "memory-limit"), 3.0);
    assert!(instant(&server.address, "pushed").expect("a light query").is_empty());
    let range = [("query", "vector(1)"), ("start", "0"), ("end", "10000"), ("step", "1")];
    let path = with_parameters("/api/v1/query_range", &range);
    let heavy = request(&server.address, "GET", &path, &[], b"").expect("an answer");
    assert_eq!(heavy.status, 422, "{}", heavy.text());
    assert!(heavy.text().contains("--storage.memory-limit"), "{}", heavy.text());
}

#[test]
fn a_flood_of_series_and_of_heavy_queries_leaves_the_server_up() {
    const PER_REQUEST: u32 = 2000;
    let server = Server::start("", &["--web.enable-remote-write-receiver", "--storage.memory-limit=24MB"]);
    let requests = (0..100).map(|n| n * PER_REQUEST..(n + 1) * PER_REQUEST);
    let full = requests.clone().position(|series| {
        let answer = write(&server, "pushed", series);
        assert!([204, 400].contains(&answer.status), "{}", answer.text());
        answer.status == 400 && answer.text().contains("--storage.memory-limit")
    });
    let full = full.expect("200,000 series fit into 24 MB") as u32;
    assert!(full > 0, "nothing fits into 24 MB");
    assert!(refused(&server, "memory-limit") > 0.0);
    let again = write(&server, "pushed", 0..PER_REQUEST);
    assert_eq!(again.status, 204, "series that exist go on: {}", again.text());
    let get = |query: &str| {
        let path = with_parameters("/api/v1/query", &[("query", query)]);
        request(&server.address, "GET", &path, &[], b"").expect("an answer")
    };
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let heavy = |i: u32| {
            move || get(&format!("sort_desc(label_replace(pushed, \"x{i}\", \"$1\", \"n\", \"(.*)\"))"))
        };
        let all: Vec<_> = (0..4).map(|i| scope.spawn(heavy(i))).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    for answer in &answers {
        let told = answer.status == 422 && answer.text().contains("--storage.memory-limit");
        assert!(answer.status == 200 || told, "{} {:.300}", answer.status, answer.text());
    }
    assert!(answers.iter().any(|answer| answer.status == 422), "all four fitted");
    let light = get("count(pushed{n=~\"1.?\"})");
    assert_eq!(light.status, 200, "{}", light.text());
    assert_eq!(write(&server, "pushed", 0..PER_REQUEST).status, 204);
}

#[test]
fn a_limit_of_jobs_that_cannot_be_read_ends_the_start() {
    let mut command = super::server::binary();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), "").expect("a configuration");
    command.current_dir(folder.path()).args([
        "--storage.tsdb.max-series-per-job=node=many",
        "--config.file=prometheus.yml",
        "--web.listen-address=127.0.0.1:0",
    ]);
    let output = command.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--storage.tsdb.max-series-per-job"), "{text}");
}
