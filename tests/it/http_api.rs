//! The HTTP API as clients see it: envelopes, errors, parameters as data in `testdata/api/`, remote write in both
//! versions, restarts, signals, exit codes.

use super::remote_messages::{
    BucketSpan, Histogram, RequestV2, Sample, TimeSeries, TimeSeriesV2, WriteRequest, packed, series,
};
use super::server::{Answer, Server, binary};

/// Unix seconds around which the stored samples lie.
const T: i64 = 1_700_000_000;
const V2_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn write_v1(server: &Server, request: &WriteRequest) -> Answer {
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    server.send("POST", "/api/v1/write", &headers, &packed(request))
}

fn write_v2(server: &Server, request: &RequestV2) -> Answer {
    let headers = [("Content-Type", V2_TYPE), ("Content-Encoding", "snappy")];
    server.send("POST", "/api/v1/write", &headers, &packed(request))
}

fn dataset() -> WriteRequest {
    let at = |offset: i64| (T + offset) * 1000;
    let histogram = TimeSeries {
        histograms: vec![Histogram {
            count_int: 6,
            sum: 10.5,
            schema: 0,
            zero_threshold: 0.001,
            zero_count_int: 1,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_deltas: vec![2, 1],
            timestamp: at(60),
            ..Histogram::default()
        }],
        ..series(&[("__name__", "latency"), ("job", "a")], &[])
    };
    WriteRequest {
        timeseries: vec![
            series(
                &[("__name__", "up"), ("job", "a"), ("instance", "h1")],
                &[(at(0), 1.0), (at(30), 0.0), (at(60), 1.0)],
            ),
            series(
                &[("__name__", "up"), ("instance", "h2"), ("job", "b")],
                &[(at(0), 1.0), (at(60), f64::NAN)],
            ),
            series(&[("__name__", "big"), ("quote", "a\"\\\n<&é")], &[(at(60), 1e21)]),
            series(&[("__name__", "my.metric"), ("dotted.label", "x")], &[(at(60), -1e-7)]),
            histogram,
        ],
        metadata: Vec::new(),
    }
}

fn filled() -> Server {
    let server =
        Server::start("global: {}\n", &["--web.enable-remote-write-receiver", "--web.enable-lifecycle"]);
    let answer = write_v1(&server, &dataset());
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    server
}

/// Cases are blocks `> METHOD path [| form]`, `< status [content type]`, and the body; `…` ends a body early.
fn run_cases(server: &Server, name: &str) {
    let path = format!("{}/testdata/api/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the cases are there");
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in text.split("\n> ").skip(1) {
        let (request, rest) = case.split_once('\n').expect("a case has an answer");
        let (status, body) = rest.split_once('\n').unwrap_or((rest, ""));
        let body = body.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n");
        let body = body.trim_end();
        let (request, form) = request.split_once(" | ").map_or((request, None), |(r, f)| (r, Some(f)));
        let (method, path) = request.split_once(' ').expect("a request has a method");
        let answer = match form {
            Some(form) => server.post_form(path, form),
            None => server.send(method, path, &[], b""),
        };
        let want_status: u16 = status.trim_start_matches("< ").trim().parse().expect("a status");
        let got = answer.text();
        let got = got.trim_end();
        let same = match body.strip_suffix('…') {
            Some(start) => got.starts_with(start),
            None => got == body,
        };
        if answer.status != want_status || !same {
            failures.push(format!("{request}\n  want {want_status} {body}\n  got  {} {got}", answer.status));
        }
        ran += 1;
    }
    assert!(ran > 10, "only {ran} cases in {name}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn answers_are_prometheus_answers() {
    let server = filled();
    run_cases(&server, "query.txt");
    run_cases(&server, "metadata.txt");
    run_cases(&server, "other.txt");
}

#[test]
fn stored_samples_survive_a_restart() {
    let server = filled();
    let query = format!("/api/v1/query?query=sum(up)%20or%20count(big)&time={}", T + 30);
    let before = server.get(&query).text();
    assert!(before.contains("\"1\""), "{before}");
    let folder = server.stop();
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.get(&query).text(), before);
}

#[test]
fn remote_write_tells_senders_what_to_do() {
    let server = filled();
    let old = WriteRequest {
        timeseries: vec![
            series(&[("__name__", "fresh")], &[((T + 60) * 1000, 1.0)]),
            series(&[("__name__", "up"), ("instance", "h1"), ("job", "a")], &[(T * 1000, 5.0)]),
        ],
        metadata: Vec::new(),
    };
    let answer = write_v1(&server, &old);
    assert_eq!(answer.status, 400, "{}", answer.text());
    let time = T + 60;
    let fresh = server.get(&format!("/api/v1/query?query=fresh&time={time}"));
    assert_eq!(fresh.json()["data"]["result"], serde_json::json!([]), "1.0 is all or nothing");

    let far = i64::MAX / 2;
    let ahead =
        WriteRequest { timeseries: vec![series(&[("__name__", "x")], &[(far, 1.0)])], metadata: vec![] };
    let answer = write_v1(&server, &ahead);
    assert_eq!((answer.status, answer.text().trim()), (400, "out of bounds"));

    // Series with bad labels are skipped, the rest of the request is stored.
    let mixed = WriteRequest {
        timeseries: vec![
            series(&[("no", "name")], &[(time * 1000, 1.0)]),
            series(&[("__name__", "kept"), ("a", "1")], &[(time * 1000, 1.0)]),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(time * 1000, 1.0)]),
        ],
        metadata: vec![],
    };
    assert_eq!(write_v1(&server, &mixed).status, 204);
    let kept = server.get(&format!("/api/v1/query?query=count(kept)%20or%20count(twice)&time={time}"));
    assert_eq!(kept.json()["data"]["result"][0]["value"][1], "1");

    // Version 2.0 keeps what is good and counts it.
    let symbols = ["", "__name__", "v2", "up", "job", "a", "instance", "h1"].map(str::to_owned).to_vec();
    let sample = |t: i64| vec![Sample { value: 2.0, timestamp: t * 1000 }];
    let request = RequestV2 {
        symbols,
        timeseries: vec![
            TimeSeriesV2 { labels_refs: vec![1, 2], samples: sample(time), ..TimeSeriesV2::default() },
            TimeSeriesV2 {
                labels_refs: vec![1, 3, 6, 7, 4, 5],
                samples: sample(T),
                ..TimeSeriesV2::default()
            },
            TimeSeriesV2 { labels_refs: vec![1, 99], samples: sample(time), ..TimeSeriesV2::default() },
        ],
    };
    let answer = write_v2(&server, &request);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.header("X-Prometheus-Remote-Write-Samples-Written"), Some("1"));
    assert_eq!(answer.header("X-Prometheus-Remote-Write-Histograms-Written"), Some("0"));
    let stored = server.get(&format!("/api/v1/query?query=v2&time={time}"));
    assert_eq!(stored.json()["data"]["result"][0]["value"][1], "2");

    // What is not remote write at all.
    let plain = WriteRequest {
        timeseries: vec![series(&[("__name__", "plain")], &[(time * 1000, 1.0)])],
        metadata: vec![],
    };
    let body = packed(&plain);
    for (headers, status) in [
        (vec![("Content-Type", "application/json")], 415),
        (vec![("Content-Type", "application/x-protobuf;proto=other")], 415),
        (vec![("Content-Encoding", "gzip")], 415),
        (vec![], 204),
    ] {
        let answer = server.send("POST", "/api/v1/write", &headers, &body);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    // A tiny body that claims four gigabytes.
    let bomb = server.send("POST", "/api/v1/write", &[], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
    assert_eq!(bomb.status, 400, "{}", bomb.text());
    assert_eq!(server.send("GET", "/api/v1/write", &[], b"").status, 405);
}

#[test]
fn what_is_not_switched_on_is_off() {
    let server = Server::start("global: {}\n", &[]);
    assert_eq!(server.send("POST", "/api/v1/write", &[], b"").status, 404);
    assert_eq!(server.send("POST", "/-/reload", &[], b"").status, 403);
    assert_eq!(server.send("POST", "/-/quit", &[], b"").status, 403);
    assert_eq!(server.get("/-/reload").status, 405);
    let snapshot = server.send("POST", "/api/v1/admin/tsdb/snapshot", &[], b"");
    assert_eq!(
        snapshot.text(),
        r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#
    );
    assert_eq!(snapshot.status, 500);
}

#[test]
fn a_bad_reload_keeps_the_old_configuration() {
    let server = Server::start("global: {scrape_interval: 11s}\n", &["--web.enable-lifecycle"]);
    let config = server.path().join("prometheus.yml");
    std::fs::write(&config, "global: {scrape_interval: 12s}\n").expect("written");
    assert_eq!(server.send("POST", "/-/reload", &[], b"").status, 200);
    assert!(server.get("/api/v1/status/config").text().contains("scrape_interval: 12s"));

    std::fs::write(&config, "global: {nonsense: 1}\n").expect("written");
    let answer = server.send("POST", "/-/reload", &[], b"");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("nonsense"), "{}", answer.text());
    assert!(server.get("/api/v1/status/config").text().contains("scrape_interval: 12s"));
    let runtime = server.get("/api/v1/status/runtimeinfo").json();
    assert_eq!(runtime["data"]["reloadConfigSuccess"], false);
    let notes = server.get("/api/v1/notifications").json();
    assert_eq!(notes["data"][0]["text"], "Configuration reload has failed.");
    assert!(server.get("/metrics").text().contains("prometheus_config_last_reload_successful 0"));

    std::fs::write(&config, "global: {scrape_interval: 13s}\n").expect("written");
    // The line of the first reload is still unread.
    server.wait_for_line("Completed loading of configuration file");
    server.signal("HUP");
    server.wait_for_line("Completed loading of configuration file");
    assert!(server.get("/api/v1/status/config").text().contains("scrape_interval: 13s"));
    assert_eq!(server.get("/api/v1/notifications").json()["data"], serde_json::json!([]));
}

#[test]
fn pages_live_below_the_route_prefix() {
    let server = Server::start("global: {}\n", &["--web.external-url=http://example.org/mon/"]);
    assert_eq!(server.get("/mon/-/ready").status, 200);
    assert_eq!(server.get("/-/ready").status, 404);
    let root = server.get("/mon/graph?g0.expr=up");
    assert_eq!((root.status, root.header("location")), (302, Some("/mon/query?g0.expr=up")));
    for short in ["/", "/mon"] {
        let root = server.get(short);
        assert_eq!((root.status, root.header("location")), (303, Some("/mon/")), "{short}");
    }
    assert_eq!(server.get("/monitor").status, 404);
    assert!(server.get("/mon/").text().contains("<!doctype html>"));
    let metrics = server.get("/mon/metrics").text();
    assert!(metrics.contains("handler=\"/-/ready\""), "handlers are named without the prefix");
    let page = server.get("/mon/query");
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").is_some_and(|p| p.contains("default-src 'none'")));
}

#[test]
fn signals_and_requests_end_the_process() {
    let mut server = Server::start("global: {}\n", &["--web.enable-lifecycle"]);
    assert_eq!(server.send("PUT", "/-/quit", &[], b"").text(), "Requesting termination... Goodbye!");
    assert_eq!(server.wait(), Some(0));
    let mut server = Server::start("global: {}\n", &[]);
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn failures_to_start_have_prometheus_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let code = |arguments: &[&str]| {
        let output = binary().current_dir(folder.path()).args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let listen = "--web.listen-address=127.0.0.1:0";
    let (missing, text) = code(&["--config.file=missing.yml", listen]);
    assert!(missing == Some(2) && text.contains("missing.yml"), "{missing:?} {text}");
    std::fs::write(folder.path().join("bad.yml"), "global:\n  nonsense: 1\n").expect("written");
    let (bad, text) = code(&["--config.file=bad.yml", listen]);
    assert!(bad == Some(2) && text.contains("bad.yml:2:"), "{bad:?} {text}");
    assert_eq!(code(&["--no-such-flag"]).0, Some(2));
    assert_eq!(code(&["--storage.agent.path=x"]).0, Some(3));
    std::fs::write(folder.path().join("good.yml"), "global: {}\n").expect("written");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("--web.listen-address={}", taken.local_addr().expect("an address"));
    let (busy, text) = code(&["--config.file=good.yml", &address]);
    assert!(busy == Some(1) && text.contains("choose another port"), "{busy:?} {text}");

    let server = Server::start("global: {}\n", &[]);
    let data = format!("--storage.tsdb.path={}", server.path().join("data").display());
    let (locked, text) = code(&["--config.file=good.yml", listen, &data]);
    assert!(locked == Some(1) && text.contains("locked"), "{locked:?} {text}");

    let (ok, _) = code(&["check", "config", "good.yml"]);
    let (bad, text) = code(&["check", "config", "good.yml", "bad.yml"]);
    assert!(ok == Some(0) && bad == Some(1) && text.contains("nonsense"), "{ok:?} {bad:?} {text}");
    let url = format!("--url=http://{}", server.address);
    assert_eq!(code(&["check", "healthy", &url]).0, Some(0));
    assert_eq!(code(&["check", "ready", &url]).0, Some(0));
    assert_eq!(code(&["check", "ready", "--url=http://127.0.0.1:1"]).0, Some(1));
    assert_eq!(code(&["--version"]).0, Some(0));
    assert_eq!(code(&["--help"]).0, Some(0));
}

#[test]
fn targets_and_rules_are_shown() {
    let rules = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: one\n    expr: vector(1)\n  - alert: Always\n    expr: vector(1) > 0\n    labels: {severity: page}\n    annotations: {summary: 'value {{ $value }}'}\n";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yml"), rules).expect("written");
    let config = "rule_files: [rules.yml]\nscrape_configs:\n- job_name: none\n  scrape_interval: 1h\n  static_configs: [{targets: ['127.0.0.1:1']}]\n";
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    let server = Server::start_in(folder, &[]);
    let pools = server.get("/api/v1/scrape_pools").text();
    assert_eq!(pools, r#"{"status":"success","data":{"scrapePools":["none"]}}"#);
    let groups = server.get("/api/v1/rules").json()["data"]["groups"].clone();
    assert_eq!(groups[0]["name"], "g");
    assert_eq!(groups[0]["rules"][0]["type"], "recording");
    assert_eq!(groups[0]["rules"][1]["annotations"]["summary"], "value {{ $value }}");
    let only = server.get("/api/v1/rules?type=record&exclude_alerts=true").json();
    assert_eq!(only["data"]["groups"][0]["rules"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.get("/api/v1/rules?type=other").status, 400);
    assert_eq!(server.get("/api/v1/rules?group_limit=1&group_next_token=stale").status, 400);
}

#[test]
fn passwords_guard_every_path() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("written");
    let hash = bcrypt::hash("secret", 4).expect("bcrypt works");
    let web = |hash: &str| {
        format!(
            "basic_auth_users: {{alice: '{hash}'}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n"
        )
    };
    std::fs::write(folder.path().join("web.yml"), web(&hash)).expect("written");
    let server = Server::start_in(folder, &["--web.config.file=web.yml"]);
    for path in ["/-/healthy", "/metrics", "/api/v1/query?query=1", "/", "/nothing"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (401, "Unauthorized\n"), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic"));
    }
    let as_user = |pair: &str| {
        use base64::Engine as _;
        let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        server.send("GET", "/api/v1/query?query=1", &[("Authorization", &value)], b"")
    };
    for wrong in ["alice:wrong", "bob:secret", "alice", ":", "alice:secret2"] {
        assert_eq!(as_user(wrong).status, 401, "{wrong}");
    }
    // Twice: compared, then remembered.
    for _ in 0..2 {
        let answer = as_user("alice:secret");
        assert_eq!((answer.status, answer.header("x-frame-options")), (200, Some("deny")));
    }
    // A changed file counts at once.
    let other = bcrypt::hash("another", 5).expect("bcrypt works");
    std::fs::write(server.path().join("web.yml"), format!("{}# changed\n", web(&other))).expect("written");
    assert_eq!(as_user("alice:secret").status, 401);
    assert_eq!(as_user("alice:another").status, 200);
}
