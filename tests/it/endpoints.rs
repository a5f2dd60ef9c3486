//! Endpoints beyond queries: the shapes of live answers beside Prometheus's, federation in each format byte by byte,
//! search, the query log, user files, the title of pages, requests with raw quotation marks.

use std::collections::BTreeMap;

use super::remote_messages::{BucketSpan, Histogram, WriteRequest, packed, series};
use super::server::Server;
use super::world::{Exporter, PATIENCE, remote_write, request, start_prometheus, until};

/// Paths into a JSON value with the types found there; elements of lists count as one.
fn shape(value: &serde_json::Value, path: &str, out: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "text",
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), out));
            "list"
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| shape(field, &format!("{path}.{name}"), out));
            "object"
        }
    };
    out.insert(path.to_owned(), kind);
}

const RULES: &str = "groups:\n- name: g\n  interval: 1s\n  limit: 9\n  labels: {l: m}\n  rules:\n  - record: job:up:sum\n    \
                     expr: sum by(job)   (up)\n    labels: {a: b}\n  - alert: A\n    expr: vector(1)\n    for: 1h\n    \
                     keep_firing_for: 5m\n    labels: {s: '{{ $value }}'}\n    annotations: {n: 'v {{ $value }}'}\n  \
                     - record: broken\n    expr: vector(1) / on() (vector(1)   or label_replace(vector(1), 'a', 'b', '', ''))\n";

fn config(exporter: &Exporter) -> String {
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{cluster: c}}}}\n\
         rule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:1']}}]}}]}}\n\
         scrape_configs:\n- job_name: e\n  static_configs: [{{targets: ['{0}', 'dropped:1'], labels: {{x: y}}}}]\n  \
         relabel_configs: [{{source_labels: [__address__], regex: 'dropped.*', action: drop}}]\n\
         - job_name: dead\n  static_configs: [{{targets: ['127.0.0.1:1']}}]\n",
        exporter.address
    )
}

/// What Meerkat says besides, as a later Prometheus does or as an addition of its own.
const ADDITIONS: &[&str] = &[
    ".data.config.auto-reload",
    ".data.auto-gomemlimit.refresh-interval",
    ".data.query.max-",
    ".data.query.result-",
    ".data.storage.",
    ".data.web.",
    ".data.scrape.",
    ".data.state",
    "__always_scrape_classic_histograms__",
    "__convert_classic_histograms_to_nhcb__",
    "__scrape_native_histograms__",
];
/// What the Prometheus of the comparison says besides: flags that are gone since, and the packager's.
const GONE: &[&str] = &[".data.web.local-assets"];

const LIVE: &[&str] = &[
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/buildinfo",
    "/api/v1/status/flags",
    "/api/v1/status/config",
    "/api/v1/status/tsdb",
    "/api/v1/status/tsdb?limit=2",
    "/api/v1/status/walreplay",
    "/api/v1/targets",
    "/api/v1/targets?state=active",
    "/api/v1/targets?state=dropped",
    "/api/v1/targets?state=unknown",
    "/api/v1/targets?scrapePool=e",
    "/api/v1/targets?scrapePool=nothing",
    "/api/v1/targets/metadata",
    "/api/v1/targets/metadata?metric=m_total",
    "/api/v1/targets/metadata?match_target={job=\"e\"}&limit=1",
    "/api/v1/scrape_pools",
    "/api/v1/metadata",
    "/api/v1/metadata?metric=m_total&limit_per_metric=1",
    "/api/v1/rules",
    "/api/v1/rules?type=alert",
    "/api/v1/rules?type=record",
    "/api/v1/rules?exclude_alerts=true",
    "/api/v1/rules?rule_name[]=A&rule_name[]=broken",
    "/api/v1/rules?rule_group[]=g",
    "/api/v1/rules?file[]=none",
    "/api/v1/rules?rule_group[]=none",
    "/api/v1/rules?match[]={a=\"b\"}",
    "/api/v1/rules?group_limit=1",
    "/api/v1/alerts",
    "/api/v1/alertmanagers",
    "/api/v1/notifications",
    "/version",
];

/// Answers whose text is the same, errors above all.
const SAME: &[&str] = &[
    "/api/v1/rules?group_limit=x",
    "/api/v1/rules?group_limit=0",
    "/api/v1/rules?group_next_token=x",
    "/api/v1/rules?group_limit=1&group_next_token=x",
    "/api/v1/targets/metadata?match_target={",
    "/api/v1/targets/metadata?metric=m_total",
    "/api/v1/metadata?metric=m_total",
    "/api/v1/metadata?metric=nothing",
    "/api/v1/scrape_pools",
    "/api/v1/alertmanagers",
    "/api/v1/status/tsdb?limit=0",
    "/api/v1/status/tsdb?limit=x",
    "/federate?match[]=",
    "/federate?match[]={",
    "/federate",
    "/api/v1/admin/tsdb/snapshot",
    "/-/reload",
    "/nothing",
    "/api/v1/query?query=up{job=\"e\"}>bool<1",
];

#[test]
fn live_answers_have_prometheus_shapes() {
    let exporter =
        Exporter::text(|| "# HELP m_total M.\n# TYPE m_total counter\nm_total{a=\"b\"} 1\n".into());
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yml"), RULES).expect("written");
    std::fs::write(folder.path().join("prometheus.yml"), config(&exporter)).expect("written");
    let Some((_guard, peer)) = start_prometheus(folder.path(), &config(&exporter)) else { return };
    let server = Server::start_in(folder, &[]);
    let get = |address: &str, path: &str| request(address, "GET", path, &[], b"").expect("an answer");
    for address in [&server.address, &peer] {
        until("everything was scraped and evaluated", PATIENCE, || {
            let targets = get(address, "/api/v1/targets").text();
            let rules = get(address, "/api/v1/rules").text();
            let managers = get(address, "/api/v1/alertmanagers").text();
            let scraped = ["\"up\"", "\"down\"", "dropped:1"].iter().all(|text| targets.contains(text));
            let evaluated = rules.contains("lastError") && rules.contains("pending");
            let done = scraped && evaluated && managers.contains("127.0.0.1:1");
            if done { Ok(()) } else { Err(format!("{targets}\n{rules}")) }
        });
    }
    let mut failures = Vec::new();
    for path in LIVE {
        let (ours, theirs) = (get(&server.address, path), get(&peer, path));
        let (mut got, mut want) = (BTreeMap::new(), BTreeMap::new());
        shape(&ours.json(), "", &mut got);
        shape(&theirs.json(), "", &mut want);
        let content = |answer: &super::server::Answer| answer.header("Content-Type").map(str::to_owned);
        if (ours.status, content(&ours)) != (theirs.status, content(&theirs)) && *path != "/version" {
            failures.push(format!("{path}: {} {:?}", ours.status, content(&ours)));
        }
        for (place, kind) in &want {
            if got.get(place) != Some(kind) && !GONE.contains(&place.as_str()) {
                failures.push(format!("{path}: {place} is {kind} there, {:?} here", got.get(place)));
            }
        }
        for (place, kind) in &got {
            if !want.contains_key(place) && !ADDITIONS.iter().any(|a| place.contains(a)) {
                failures.push(format!("{path}: {place} ({kind}) is here only"));
            }
        }
    }
    for path in SAME {
        let (ours, theirs) = (get(&server.address, path), get(&peer, path));
        let text = |answer: &super::server::Answer| {
            // The moment of evaluation differs, and how texts are escaped.
            let body = serde_json::from_slice::<serde_json::Value>(&answer.body)
                .map_or_else(|_| answer.text(), |json| json.to_string());
            body.split("\"value\":[").map(|p| p.split_once(',').map_or(p, |(_, r)| r)).collect::<String>()
        };
        if (ours.status, text(&ours)) != (theirs.status, text(&theirs)) {
            failures.push(format!(
                "{path}\n  ours   {} {}\n  theirs {} {}",
                ours.status,
                ours.text(),
                theirs.status,
                theirs.text()
            ));
        }
    }
    // The texts of rules are printed alike.
    let queries = |address: &str| -> Vec<String> {
        let rules = get(address, "/api/v1/rules").json();
        let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules
            .iter()
            .map(|r| {
                // Which of two series an error names first is chance in Prometheus.
                let error = r["lastError"].as_str().unwrap_or("").split(": [").next().unwrap_or("");
                format!("{} {} {} {error}", r["name"], r["query"], r["health"])
            })
            .collect()
    };
    assert_eq!(queries(&server.address), queries(&peer));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

const DELIMITED: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

#[test]
fn federation_gives_the_same_bytes() {
    let config = "global: {external_labels: {cluster: c, job: outer}}\n";
    let server = Server::start(config, &["--web.enable-remote-write-receiver"]);
    let Some((_guard, peer)) = start_prometheus(server.path(), config) else { return };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_millis()).expect("fits");
    let histogram = |t: i64, gauge: bool| Histogram {
        count_int: 6,
        sum: 10.5,
        schema: 1,
        zero_threshold: 0.001,
        zero_count_int: 1,
        positive_spans: vec![BucketSpan { offset: 2, length: 2 }, BucketSpan { offset: 1, length: 1 }],
        positive_deltas: vec![2, -1, 1],
        reset_hint: if gauge { 3 } else { 0 },
        timestamp: t,
        ..Histogram::default()
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let timeseries = vec![
        series(
            &[("__name__", "plain"), ("instance", "i"), ("job", "own")],
            &[(now - 2000, 1.0), (now - 1000, 2.5)],
        ),
        series(&[("__name__", "plain"), ("job", "b"), ("q", "a\"b\\c\nd")], &[(now - 1500, f64::INFINITY)]),
        series(&[("__name__", "old"), ("job", "b")], &[(now - 600_000, 1.0)]),
        series(&[("__name__", "gone"), ("job", "b")], &[(now - 1000, stale)]),
        series(&[("__name__", "my.metric_x"), ("dotted.label", "x")], &[(now - 1000, 1e-7)]),
        super::remote_messages::TimeSeries {
            histograms: vec![histogram(now - 3000, false)],
            ..series(&[("__name__", "native"), ("job", "b")], &[])
        },
        super::remote_messages::TimeSeries {
            histograms: vec![histogram(now - 3000, true)],
            ..series(&[("__name__", "native_gauge"), ("job", "b")], &[])
        },
    ];
    let message = packed(&WriteRequest { timeseries, metadata: Vec::new() });
    for address in [&server.address, &peer] {
        let answer = remote_write(address, &message).expect("an answer");
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let mut failures = Vec::new();
    let accepts = [
        String::new(),
        "*/*".into(),
        "text/plain;version=0.0.4;escaping=allow-utf-8".into(),
        "text/plain;version=0.0.4;escaping=dots".into(),
        "text/plain;version=0.0.4;escaping=values".into(),
        DELIMITED.into(),
        format!("{DELIMITED};escaping=allow-utf-8"),
        format!("application/openmetrics-text;version=1.0.0;q=0.9,{DELIMITED};q=0.8,text/plain;q=0.1"),
    ];
    for accept in &accepts {
        for query in ["{__name__!=\"\"}", "plain", "native", "{job=\"b\"}&match[]=plain"] {
            let path = format!("/federate?match[]={query}");
            let headers: &[(&str, &str)] = if accept.is_empty() { &[] } else { &[("Accept", accept)] };
            let ours = request(&server.address, "GET", &path, headers, b"").expect("an answer");
            let theirs = request(&peer, "GET", &path, headers, b"").expect("an answer");
            let kind = |a: &super::server::Answer| a.header("Content-Type").map(str::to_owned);
            if ours.body != theirs.body || kind(&ours) != kind(&theirs) {
                failures.push(format!(
                    "{accept:?} {path}\n  ours   {:?} {:?}\n  theirs {:?} {:?}",
                    kind(&ours),
                    ours.text(),
                    kind(&theirs),
                    theirs.text()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let only = [("Accept", "application/openmetrics-text;version=1.0.0")];
    let open = request(&server.address, "GET", "/federate?match[]=plain{job=\"own\"}", &only, b"")
        .expect("an answer");
    assert!(
        open.text().ends_with("# EOF\n") && open.text().contains("# TYPE plain unknown"),
        "{}",
        open.text()
    );
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn search_finds_names_and_values() {
    let flags =
        ["--web.enable-remote-write-receiver", "--enable-feature=search-api", "--web.search.max-limit=4"];
    let server = Server::start("global: {}\n", &flags);
    let t = 1_700_000_000_000;
    let all = [
        "node_cpu_seconds_total",
        "process_cpu_seconds_total",
        "up",
        "container_pulls",
        "Cpu_upper",
        "scrape_x",
    ];
    let timeseries =
        all.iter().map(|n| series(&[("__name__", n), ("job", &format!("job-{n}"))], &[(t, 1.0)]));
    let message = packed(&WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() });
    assert_eq!(remote_write(&server.address, &message).expect("an answer").status, 204);
    let ask = |path: &str| server.get(&format!("/api/v1/search/{path}&start=1700000000&end=1700000000"));
    let names = |path: &str| -> Vec<String> {
        let answer = ask(path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines = lines(&answer.text());
        let (trailer, batches) = lines.split_last().expect("a trailer");
        assert_eq!(trailer["status"], "success");
        let results = batches.iter().flat_map(|b| b["results"].as_array().cloned().unwrap_or_default());
        results.map(|r| r["name"].as_str().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(names("metric_names?search[]=cpu_s"), ["node_cpu_seconds_total", "process_cpu_seconds_total"]);
    assert_eq!(names("metric_names?search[]=cpu&case_sensitive=false&sort_by=score")[0], "Cpu_upper");
    assert_eq!(names("metric_names?search[]=up&search[]=scrape"), ["Cpu_upper", "scrape_x", "up"]);
    assert_eq!(names("metric_names?limit=9&sort_by=alpha&sort_dir=dsc").len(), 4, "the server's own limit");
    assert_eq!(names("label_names?search[]=jb"), ["job"]);
    assert_eq!(names("label_values?label=job&match[]=up"), ["job-up"]);
    let fuzzy =
        "metric_names?search[]=proces_cpu_secnds&fuzz_alg=jarowinkler&fuzz_threshold=60&sort_by=score";
    assert_eq!(names(fuzzy)[0], "process_cpu_seconds_total");
    let batched = ask("metric_names?batch_size=3&include_score=true").text();
    let batched = lines(&batched);
    assert_eq!(batched.len(), 3, "two batches and a trailer: {batched:?}");
    assert_eq!(batched[2]["has_more"], true);
    assert_eq!(batched[0]["results"][0]["score"], 1.0);
    for (path, error) in [
        ("label_values?x=1", "missing required parameter \"label\""),
        ("metric_names?fuzz_threshold=101", "invalid fuzz_threshold \"101\": must be 0-100"),
        ("metric_names?sort_by=score", "sort_by=score requires search[] to be set"),
        ("metric_names?sort_dir=asc", "sort_dir is only valid when sort_by is set"),
        ("metric_names?limit=-1", "invalid limit \"-1\": must be non-negative integer"),
        ("metric_names?include_metadata=maybe", "invalid include_metadata \"maybe\": must be boolean"),
    ] {
        let answer = ask(path);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(error)), "{path}");
    }
    let off = Server::start("global: {}\n", &[]);
    let answer = off.get("/api/v1/search/metric_names");
    assert_eq!((answer.status, answer.json()["errorType"].as_str()), (500, Some("unavailable")));
}

#[test]
fn queries_are_logged_and_the_log_can_be_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = "groups: [{name: g, interval: 1s, rules: [{record: r, expr: vector(7)}]}]\n";
    std::fs::write(folder.path().join("rules.yml"), rules).expect("written");
    let config = "global: {query_log_file: queries.log}\nrule_files: [rules.yml]\n";
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    let server = Server::start_in(folder, &["--web.enable-lifecycle"]);
    let log = server.path().join("queries.log");
    let entry = |part: &str| {
        until(part, PATIENCE, || {
            let text = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
            let line = text.lines().find(|l| l.contains(part)).ok_or(text.clone())?;
            serde_json::from_str::<serde_json::Value>(line).map_err(|e| e.to_string())
        })
    };
    server.get("/api/v1/query?query=1%2B1&time=10");
    server.post_form("/api/v1/query_range", "query=vector(3)&start=0&end=100&step=10");
    server.get("/api/v1/query?query=vector(1)*on()group_left()(vector(5)or%20label_replace(vector(5),%22a%22,%22b%22,%22%22,%22%22))");
    let one = entry("1+1");
    assert_eq!(one["params"]["start"], "1970-01-01T00:00:10.000Z");
    assert_eq!(
        one["httpRequest"],
        serde_json::json!({"clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query"})
    );
    assert_eq!(entry("vector(3)")["params"]["step"], 10);
    assert!(entry("many-to-many")["error"].is_string());
    let rule = entry("vector(7)");
    assert!(rule["ruleGroup"]["file"].as_str().is_some_and(|f| f.ends_with("rules.yml")), "{rule}");
    assert_eq!(rule["ruleGroup"]["name"], "g");
    // A moved file is let go at the next reload.
    std::fs::rename(&log, server.path().join("old.log")).expect("moved");
    assert_eq!(server.send("POST", "/-/reload", &[], b"").status, 200);
    server.get("/api/v1/query?query=2%2B2");
    entry("2+2");
    assert!(server.get("/metrics").text().contains("\nprometheus_engine_query_log_enabled 1\n"));
    std::fs::write(server.path().join("prometheus.yml"), "global: {query_log_file: missing/x.log}\n")
        .expect("written");
    let failed = server.send("POST", "/-/reload", &[], b"");
    assert_eq!(failed.status, 500);
    assert!(failed.text().contains("missing/x.log"), "{}", failed.text());
}

#[test]
fn small_settings_of_the_web_side_have_effect() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("assets/sub")).expect("a folder");
    std::fs::write(folder.path().join("assets/sub/page.html"), "<p>own</p>").expect("written");
    std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("written");
    let flags = [
        "--web.user-assets=assets",
        "--web.page-title=Ours & <theirs>",
        "--web.external-url=http://mon.example:9090/base",
        "--storage.tsdb.retention.time=100d",
        "--web.enable-lifecycle",
    ];
    let server = Server::start_in(folder, &flags);
    let page = server.get("/base/user/sub/page.html");
    assert_eq!(
        (page.text().as_str(), page.header("Content-Type")),
        ("<p>own</p>", Some("text/html; charset=utf-8"))
    );
    for bad in [
        "/base/user/",
        "/base/user/../prometheus.yml",
        "/base/user/sub/%2e%2e/%2e%2e/prometheus.yml",
        "/base/user//etc/passwd",
    ] {
        let answer = server.get(bad);
        let refused = matches!(answer.status, 404 | 301);
        assert!(refused && !answer.text().contains("global"), "{bad}: {}", answer.status);
    }
    let html = server.get("/base/query").text();
    if html.contains("<title>") && !html.contains("built without its user interface") {
        assert!(html.contains("<title>Ours &amp; &lt;theirs&gt;</title>"), "{html}");
    }
    let flags = server.get("/base/api/v1/status/flags").json();
    assert_eq!(flags["data"]["web.route-prefix"], "/base");
    assert_eq!(flags["data"]["storage.tsdb.max-block-duration"], "10d");
    // What changes something is refused to pages of other origins, and done for programs.
    let foreign = [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(server.send("POST", "/base/-/reload", &foreign, b"").status, 403);
    assert_eq!(server.send("POST", "/base/-/reload", &[], b"").status, 200);
    let own = [("Origin", "http://mon.example:9090"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(server.send("POST", "/base/-/reload", &own, b"").status, 200);
    let query = server.send("POST", "/base/api/v1/query?query=1", &foreign, b"");
    assert_eq!(query.status, 200, "reading is for all origins by default");
    assert_eq!(query.header("Access-Control-Allow-Origin"), Some("http://evil.example"));
    assert_eq!(query.header("Cache-Control"), Some("no-store"));
    for (name, value) in [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ] {
        assert_eq!(query.header(name), Some(value), "{name}");
    }
}
