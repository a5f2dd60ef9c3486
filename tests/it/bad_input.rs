//! Wrong configurations, occupied places and absurd queries: a clear message, and the server goes on.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use super::server::{Server, binary};
use super::world::{Exporter, PATIENCE, instant, request, resident_bytes, scalar, until, with_parameters};

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    binary().current_dir(folder).args(arguments).output().expect("the binary runs")
}

fn expect(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn wrong_configurations_are_explained() {
    // Configuration, what the message has to contain.
    let cases: &[(&str, &[&str])] = &[
        (
            "global:\n  scrape_intervall: 5s\n",
            &["prometheus.yml:2:3", "scrape_intervall", "scrape_interval", "evaluation_interval"],
        ),
        ("global:\n  scrape_interval: soon\n", &["prometheus.yml:2:20", "soon"]),
        (
            "scrape_configs:\n  - job_name: a\n    static_configs: [{targets: [x]}]\n  - job_name: a\n",
            &["prometheus.yml:4", "job_name", "\\\"a\\\""],
        ),
        ("scrape_configs:\n  - job_name: a\n   metrics_path: [\n", &["prometheus.yml:"]),
        (
            "scrape_configs:\n  - job_name: a\n    relabel_configs:\n      - {regex: '(', target_label: x}\n",
            &["prometheus.yml:4", "regex"],
        ),
        ("- a\n- b\n", &["prometheus.yml:1"]),
        (
            "scrape_configs: [{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]\n",
            &["timeout", "interval"],
        ),
        ("rule_files: ['rules.yml']\n", &["rules.yml"]),
    ];
    for (text, parts) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("prometheus.yml"), text).expect("written");
        std::fs::write(
            folder.path().join("rules.yml"),
            "groups: [{name: x, rules: [{record: a, expr: 'sum('}]}]",
        )
        .expect("written");
        let arguments = ["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"];
        let output = run_in(folder.path(), &arguments);
        let rules = text.starts_with("rule_files");
        expect(&output, if rules { 1 } else { 2 }, parts);
    }
}

#[test]
fn files_that_cannot_be_read_end_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = run_in(folder.path(), &["--config.file=missing.yml", "--web.listen-address=127.0.0.1:0"]);
    expect(&missing, 2, &["missing.yml"]);
    let directory = run_in(folder.path(), &["--config.file=.", "--web.listen-address=127.0.0.1:0"]);
    expect(&directory, 2, &["--config.file=."]);
    std::fs::write(folder.path().join("latin.yml"), b"global: {external_labels: {a: \"\xff\"}}")
        .expect("written");
    let latin = run_in(folder.path(), &["--config.file=latin.yml", "--web.listen-address=127.0.0.1:0"]);
    expect(&latin, 2, &["latin.yml"]);
}

#[test]
fn occupied_places_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let output = run_in(folder.path(), &[&format!("--web.listen-address={address}")]);
    expect(&output, 1, &[&address, "in use"]);

    let server = Server::start("global: {}\n", &[]);
    let output = run_in(server.path(), &["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"]);
    expect(&output, 1, &["data/lock", "another process"]);
    assert_eq!(server.get("/-/healthy").status, 200);
    let folder = server.stop();
    std::fs::write(folder.path().join("data/meerkat.json"), "{\"format\":99}\n").expect("written");
    let output = run_in(folder.path(), &["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"]);
    expect(&output, 1, &["meerkat.json", "format 99"]);
    let kept = std::fs::read_to_string(folder.path().join("data/meerkat.json")).expect("readable");
    assert_eq!(kept, "{\"format\":99}\n", "a directory of the future is left alone");
}

#[test]
fn a_signal_stops_cleanly() {
    for name in ["TERM", "INT"] {
        let mut server = Server::start("global: {}\n", &[]);
        server.signal(name);
        assert_eq!(server.wait(), Some(0), "SIG{name}");
    }
}

#[test]
fn a_broken_configuration_does_not_replace_a_good_one() {
    let good = "global:\n  external_labels:\n    site: one\n";
    let server = Server::start(good, &["--web.enable-lifecycle"]);
    let file = server.path().join("prometheus.yml");
    let metric = |name: &str| {
        let text = server.get("/metrics").text();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not there"))
    };
    let success = "prometheus_config_last_reload_successful";
    assert_eq!(metric(success), "1");
    let running = server.get("/api/v1/status/config").text();
    assert!(running.contains("site: one"), "{running}");
    std::fs::write(&file, "global:\n  nonsense: 1\n").expect("written");
    server.signal("HUP");
    until("the failure is told", PATIENCE, || match metric(success).as_str() {
        "0" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(server.get("/api/v1/status/config").text(), running, "the old one runs on");
    let answer = server.send("POST", "/-/reload", &[], b"");
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("prometheus.yml:2:3"), "{}", answer.text());
    assert_eq!(server.get("/-/ready").status, 200);
    std::fs::write(&file, good.replace("one", "two")).expect("written");
    server.signal("HUP");
    until("the new one runs", PATIENCE, || {
        let text = server.get("/api/v1/status/config").text();
        if text.contains("site: two") { Ok(()) } else { Err(text) }
    });
    until("the success is told", PATIENCE, || match metric(success).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_target_that_disappears_becomes_stale() {
    let exporter = Exporter::text(|| "alive 1\n".into());
    let config = "global: {scrape_interval: 500ms}\nscrape_configs:\n  - job_name: filed\n    file_sd_configs: \
                  [{files: ['targets.json'], refresh_interval: 1s}]\n";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    let write = |folder: &Path, targets: &str| {
        std::fs::write(folder.join("targets.new"), targets).expect("written");
        std::fs::rename(folder.join("targets.new"), folder.join("targets.json")).expect("renamed");
    };
    write(
        folder.path(),
        &format!("[{{\"targets\": [\"{}\"], \"labels\": {{\"rack\": \"r1\"}}}}]", exporter.address),
    );
    let server = Server::start_in(folder, &["--scrape.discovery-reload-interval=500ms"]);
    let at = &server.address;
    until("the target is scraped", PATIENCE, || scalar(at, "alive{rack=\"r1\"} and on () (up == 1)"));
    write(server.path(), "[]");
    // Without stale markers both would be there for five minutes more.
    until("the series end", PATIENCE, || match instant(at, "up or alive")?.as_slice() {
        [] => Ok(()),
        rest => Err(format!("{rest:?}")),
    });
    assert!(scalar(at, "count_over_time(alive[5m])").is_ok_and(|n| n >= 1.0), "the past stays");
    write(server.path(), &format!("[{{\"targets\": [\"{}\"]}}]", exporter.address));
    until("the target is back", PATIENCE, || scalar(at, "alive{rack=\"\"}"));
}

#[test]
fn absurd_queries_are_refused_and_the_server_lives() {
    let server = Server::start("global: {}\n", &["--query.max-samples=1000000", "--query.timeout=20s"]);
    let deep = |open: &str, inside: &str, close: &str, n: usize| open.repeat(n) + inside + &close.repeat(n);
    let bad: Vec<(&str, String)> = vec![
        ("parentheses", deep("(", "1", ")", 100_000)),
        ("signs", "-".repeat(500_000) + "1"),
        ("calls", deep("abs(", "up", ")", 100_000)),
        ("aggregations", deep("sum(", "up", ")", 50_000)),
        ("subqueries", "up".to_owned() + &"[5m:1m]".repeat(20_000)),
        ("open only", "(".repeat(200_000)),
        ("powers", "2^".repeat(100_000) + "2"),
        ("too many samples", "sum_over_time(vector(1)[30d:1s])".into()),
        ("years of milliseconds", "count_over_time(vector(1)[100y:1ms])".into()),
        ("nested years", "max_over_time(max_over_time(vector(1)[1y:1m])[1y:1m])".into()),
        ("repetition", format!("up{{a=~\"{}\"}}", deep("(", "a", "){1000}", 6))),
        ("a huge regex", format!("up{{a=~\"{}\"}}", "(a|b)*[^c]{1,900}".repeat(2000))),
        ("nul", "up\0".into()),
        ("open text", format!("\"{}", "x".repeat(1 << 20))),
    ];
    for (name, query) in &bad {
        let form: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let answer = server.post_form("/api/v1/query", &form);
        assert!((400..=503).contains(&answer.status), "{name}: {} {:.300}", answer.status, answer.text());
        let json = answer.json();
        assert_eq!(json["status"], "error", "{name}");
        let text = json["error"].as_str().expect("an error text");
        assert!(!text.is_empty() && text.len() < query.len() + 4096, "{name}: {} bytes of error", text.len());
        assert_eq!(server.get("/-/healthy").status, 200, "after {name}");
    }
    // Long, but reasonable.
    let long = format!("vector(1{})", " + 1".repeat(300));
    assert_eq!(scalar(&server.address, &long), Ok(301.0));
    let points = [("query", "up"), ("start", "0"), ("end", "2000000000"), ("step", "1")];
    assert_eq!(server.get(&with_parameters("/api/v1/query_range", &points)).status, 400);
    let resident = resident_bytes(&server.address);
    assert!(resident < 800e6, "{resident} bytes resident");
}

#[test]
fn malformed_requests_are_answered() {
    use std::io::{Read as _, Write as _};
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    let raw: &[&[u8]] = &[
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v1/query?query=%zz HTTP/1.0\r\n\r\n",
        b"GET /%00%ff HTTP/1.0\r\n\r\n",
        b"POST /api/v1/query HTTP/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /api/v1/write HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        b"BREW /api/v1/query HTTP/1.0\r\n\r\n",
    ];
    for bytes in raw {
        let mut stream = std::net::TcpStream::connect(&server.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        // A reset is an answer, too; silence is not.
        let read = stream.read_to_end(&mut answer);
        let timed_out = read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "{:?}: no answer", String::from_utf8_lossy(bytes));
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.0 500") && !text.starts_with("HTTP/1.1 500"), "{text}");
        assert_eq!(server.get("/-/healthy").status, 200);
    }
    let header = "x".repeat(1 << 20);
    // The server may answer 431 or close while the header still comes.
    if let Ok(answer) = request(&server.address, "GET", "/", &[("X-Long", header.as_str())], b"") {
        assert_eq!(answer.status, 431);
    }
    // A snappy header that promises four gigabytes.
    let write = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    for body in [&b"\xff\xff\xff\xff\x0f\0\0"[..], b"", b"\x05hello", &[0xff; 4096]] {
        let answer = server.send("POST", "/api/v1/write", &write, body);
        assert!((400..500).contains(&answer.status) || body.is_empty(), "{} for {body:?}", answer.status);
    }
    until("it is still quick", Duration::from_secs(20), || scalar(&server.address, "vector(1)"));
    assert!(resident_bytes(&server.address) < 400e6);
}
