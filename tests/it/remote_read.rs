//! Remote read in both directions against a real Prometheus, an agent, and senders other than our own.

use std::process::{Command, Stdio};

use super::remote_messages::{WriteRequest, packed, series};
use super::server::Server;
use super::world::{
    Exporter, Guarded, PATIENCE, instant, peer, remote_write, request, start_prometheus, until,
    with_parameters,
};

fn now_ms() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(elapsed.expect("after 1970").as_millis()).expect("before the end of time")
}

/// Writes two series with 300 samples each, up to now.
fn fill(address: &str, name: &str) {
    let now = now_ms();
    let samples: Vec<(i64, f64)> = (0..300).map(|i| (now - (299 - i) * 1000, i as f64 / 3.0)).collect();
    let timeseries = ["a", "b"].map(|s| series(&[("__name__", name), ("job", "j"), ("s", s)], &samples));
    let message = packed(&WriteRequest { timeseries: timeseries.to_vec(), metadata: Vec::new() });
    let answer = remote_write(address, &message).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
}

fn range(address: &str, query: &str) -> serde_json::Value {
    let (start, end) = ((now_ms() / 1000 - 300).to_string(), (now_ms() / 1000).to_string());
    let parameters = [("query", query), ("start", &start), ("end", &end), ("step", "7")];
    let path = with_parameters("/api/v1/query_range", &parameters);
    request(address, "GET", &path, &[], b"").expect("an answer").json()
}

#[test]
fn prometheus_reads_from_here_and_this_reads_from_prometheus() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Server::start(
        "global: {scrape_interval: 1h, external_labels: {dc: x}}\n",
        &["--web.enable-remote-write-receiver"],
    );
    fill(&source.address, "mine");
    let config = format!(
        "global: {{scrape_interval: 1h}}\nremote_read:\n  - {{url: 'http://{}/api/v1/read', read_recent: true}}\n",
        source.address
    );
    let Some((_peer, peer)) = start_prometheus(folder.path(), &config) else { return };
    fill(&peer, "theirs");
    let theirs = instant(&peer, "mine[10m]").expect("an answer");
    assert_eq!(theirs.len(), 2);
    let mine = instant(&source.address, "mine[10m]").expect("an answer");
    for (theirs, mine) in theirs.iter().zip(&mine) {
        assert_eq!(theirs["values"], mine["values"]);
        assert_eq!(theirs["metric"]["dc"], "x", "external labels are added");
    }
    let filtered = instant(&peer, "mine{dc=\"x\",s=~\"a|c\"}").expect("an answer");
    assert_eq!(filtered.len(), 1, "external labels are taken off matchers");

    let config = format!(
        "global: {{scrape_interval: 1h, external_labels: {{dc: y}}}}\nremote_read:\n  - url: http://{peer}/api/v1/read\n    \
         read_recent: true\n    filter_external_labels: false\n  - url: http://{peer}/api/v1/read\n    read_recent: true\n    \
         required_matchers: {{never: there}}\n"
    );
    let reader = Server::start(&config, &["--web.enable-remote-write-receiver"]);
    for query in ["theirs", "sum by (s) (rate(theirs[1m]))", "mine"] {
        let (here, there) = (range(&reader.address, query), range(&peer, query));
        assert_eq!(here["status"], "success", "{query}: {here}");
        assert_eq!(here["warnings"], serde_json::Value::Null, "{query}");
        assert!(!here["data"]["result"].as_array().expect("a list").is_empty(), "{query}: {here}");
        let (a, b) = (&here["data"]["result"], &there["data"]["result"]);
        // The two ranges may be one second apart.
        assert_eq!(a[0]["metric"], b[0]["metric"], "{query}");
        assert_eq!(a.as_array().map(Vec::len), b.as_array().map(Vec::len), "{query}");
    }
    let (here, there) = (instant(&reader.address, "theirs[10m]"), instant(&peer, "theirs[10m]"));
    assert_eq!(here.expect("an answer"), there.expect("an answer"));
    // Own samples and those of the peer are one.
    fill(&reader.address, "own");
    assert_eq!(
        instant(&reader.address, "count({__name__=~\"own|theirs\"})").expect("one")[0]["value"][1],
        "4"
    );
}

#[test]
fn a_failing_source_is_a_warning_and_limits_hold() {
    let server = Server::start(
        "global: {scrape_interval: 1h}\nremote_read:\n  - {url: 'http://127.0.0.1:1/read', read_recent: true}\n",
        &["--web.enable-remote-write-receiver", "--storage.remote.read-sample-limit=100"],
    );
    fill(&server.address, "own");
    let path = with_parameters("/api/v1/query", &[("query", "own")]);
    let json = server.get(&path).json();
    assert_eq!(json["status"], "success");
    assert_eq!(json["data"]["result"].as_array().map(Vec::len), Some(2));
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("remote_read") && warning.contains("127.0.0.1:1"), "{warning}");
    // matcher __name__="own", samples wanted
    let mut query = vec![0x0a, 0, 0x08, 0, 0x10];
    let mut end = now_ms() as u64;
    while end >= 0x80 {
        query.push(end as u8 & 0x7f | 0x80);
        end >>= 7;
    }
    query.push(end as u8);
    query.extend(b"\x1a\x0f\x12\x08__name__\x1a\x03own");
    query[1] = query.len() as u8 - 2;
    let body = snap::raw::Encoder::new().compress_vec(&query).expect("compressed");
    let answer = server.send("POST", "/api/v1/read", &[], &body);
    assert_eq!((answer.status, answer.text().trim()), (400, "exceeded sample limit (100)"));
    assert_eq!(server.send("POST", "/api/v1/read", &[], b"garbage").status, 400);
}

#[test]
fn an_agent_scrapes_and_sends_and_answers_no_queries() {
    let receiver = Server::start("global: {scrape_interval: 1h}\n", &["--web.enable-remote-write-receiver"]);
    let exporter = Exporter::text(|| "agent_metric 7\n".into());
    let config = format!(
        "global: {{scrape_interval: 100ms}}\nscrape_configs:\n  - job_name: a\n    static_configs: [{{targets: ['{}']}}]\n\
         remote_write:\n  - url: http://{}/api/v1/write\n    queue_config: {{batch_send_deadline: 50ms}}\n",
        exporter.address, receiver.address
    );
    let flags = [
        "--agent",
        "--storage.agent.wal-truncate-frequency=1s",
        "--storage.agent.retention.min-time=1s",
        "--web.enable-admin-api",
    ];
    let agent = Server::start(&config, &flags);
    until("samples arrive", PATIENCE, || {
        match instant(&receiver.address, "count_over_time(agent_metric[1m]) > 20") {
            Ok(result) if result.len() == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    for path in ["/api/v1/query?query=up", "/api/v1/rules", "/api/v1/label/job/values", "/api/v1/status/tsdb"]
    {
        let answer = agent.get(path);
        assert_eq!(answer.status, 422, "{path}");
        assert_eq!(answer.json()["error"], "unavailable with Prometheus Agent", "{path}");
        assert_eq!(answer.json()["errorType"], "execution", "{path}");
    }
    assert_eq!(agent.get("/api/v1/targets").json()["data"]["activeTargets"][0]["health"], "up");
    assert!(agent.path().join("data-agent").exists() && !agent.path().join("data").exists());
    // What is sent and old is forgotten; nothing becomes a block.
    until("the log is cut", PATIENCE, || {
        let text = agent.get("/metrics").text();
        let cut = text
            .lines()
            .any(|l| l.strip_prefix("prometheus_tsdb_checkpoint_creations_total ").is_some_and(|n| n != "0"));
        if cut { Ok(()) } else { Err("not yet".into()) }
    });
    let folder = agent.stop();
    // Sections that an agent has no use for are errors.
    for section in [
        "rule_files: [x]\n",
        "remote_read: [{url: 'http://x'}]\n",
        "alerting: {alertmanagers: [{static_configs: [{targets: ['x:1']}]}]}\n",
    ] {
        std::fs::write(folder.path().join("prometheus.yml"), section).expect("written");
        let output = super::server::binary()
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--agent", "--web.listen-address=127.0.0.1:0"])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{section}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not allowed in agent mode"), "{section}");
    }
}

#[test]
fn vmagent_sends_to_this_server() {
    let Some(program) = peer("vmagent") else { return };
    let receiver = Server::start("global: {scrape_interval: 1h}\n", &["--web.enable-remote-write-receiver"]);
    let exporter = Exporter::text(|| "from_vmagent 7\n".into());
    let folder = tempfile::tempdir().expect("a folder");
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: v\n    static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    );
    std::fs::write(folder.path().join("scrape.yml"), scrape).expect("written");
    let mut command = Command::new(program);
    command
        .current_dir(folder.path())
        .args(["-promscrape.config=scrape.yml", "-httpListenAddr=127.0.0.1:0"])
        .args(["-remoteWrite.flushInterval=100ms", "-remoteWrite.tmpDataPath=queue"])
        .arg(format!("-remoteWrite.url=http://{}/api/v1/write", receiver.address))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _agent = Guarded(command.spawn().expect("vmagent starts"));
    until("samples of vmagent", PATIENCE, || match instant(&receiver.address, "from_vmagent") {
        Ok(result) if result.len() == 1 && result[0]["value"][1] == "7" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn prometheus_sends_both_versions_to_this_server() {
    let receiver = Server::start("global: {scrape_interval: 1h}\n", &["--web.enable-remote-write-receiver"]);
    let exporter = Exporter::text(|| "# HELP sent Sent.\n# TYPE sent counter\nsent 7\n".into());
    let mut config = format!(
        "global: {{scrape_interval: 200ms}}\nscrape_configs:\n  - job_name: p\n    static_configs: [{{targets: ['{}']}}]\nremote_write:\n",
        exporter.address
    );
    for (version, message) in [("1", "prometheus.WriteRequest"), ("2", "io.prometheus.write.v2.Request")] {
        config += &format!(
            "  - url: http://{}/api/v1/write\n    name: v{version}\n    protobuf_message: {message}\n    \
             queue_config: {{batch_send_deadline: 100ms}}\n    write_relabel_configs: [{{target_label: v, replacement: '{version}'}}]\n",
            receiver.address
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some((_peer, peer)) = start_prometheus(folder.path(), &config) else { return };
    until("both versions arrive", PATIENCE, || match instant(&receiver.address, "count(sent{v=~\"1|2\"})") {
        Ok(result) if result.len() == 1 && result[0]["value"][1] == "2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let text = request(&peer, "GET", "/metrics", &[], b"").expect("an answer").text();
    for line in text.lines().filter(|l| l.starts_with("prometheus_remote_storage_samples_failed_total")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}
