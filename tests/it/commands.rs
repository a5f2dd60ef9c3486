//! The commands beside serving, run as the real binary: what they print, and their exit codes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use super::against_prometheus::dataset;
use super::remote_messages::packed;
use super::server::{Server, binary};
use super::world::{remote_write, start_prometheus};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/commands").join(name)
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs in the folder of the data.
fn run(arguments: &[&str]) -> Ran {
    binary().current_dir(data("")).args(arguments).stdin(Stdio::null()).output().expect("it runs").into()
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = binary();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("the input is taken");
    child.wait_with_output().expect("it ends").into()
}

#[track_caller]
fn expect(arguments: &[&str], code: i32, parts: &[&str]) {
    let ran = run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments:?}\n{}\n{}", ran.out, ran.err);
    let all = format!("{}{}", ran.out, ran.err);
    for part in parts {
        assert!(all.contains(part), "{arguments:?} lacks {part:?}:\n{all}");
    }
}

#[test]
fn configurations_are_checked_with_all_they_name() {
    expect(
        &["check", "config", "good.yml"],
        0,
        &["SUCCESS: 1 rule files found", "good.yml is valid", "SUCCESS: 2 rules found"],
    );
    let both = ["bad.yml:2:3", "scrape_intervall", "bad.yml:5:"];
    expect(&["check", "config", "bad.yml"], 1, &both);
    let missing = ["does not point to an existing file", "no-such-password"];
    expect(&["check", "config", "missing.yml"], 1, &missing);
    expect(&["check", "config", "--syntax-only", "missing.yml"], 0, &["SUCCESS"]);
    expect(&["check", "config", "good.yml", "bad.yml"], 1, &["SUCCESS: 2 rules found", "bad.yml"]);
    expect(&["check", "config", "no-such-file.yml"], 1, &["no-such-file.yml"]);
    expect(&["check", "config", "--agent", "good.yml"], 1, &["rule_files is not allowed in agent mode"]);
}

#[test]
fn lints_are_fatal_on_request() {
    let slow = ["scrape interval of job \"slow\" is too long"];
    expect(&["check", "config", "--lint=all", "slow.yml"], 0, &slow);
    expect(&["check", "config", "--lint=all", "--lint-fatal", "slow.yml"], 3, &slow);
    expect(&["check", "config", "--lint-fatal", "slow.yml"], 0, &["SUCCESS"]);
    let wider = ["check", "config", "--lint=all", "--lint-fatal", "--query.lookback-delta=15m", "slow.yml"];
    expect(&wider, 0, &["SUCCESS"]);
    let twice = ["1 duplicate rule(s) found", "Metric: twice", "severity: page"];
    expect(&["check", "rules", "duplicates.yml"], 0, &twice);
    expect(&["check", "rules", "--lint-fatal", "duplicates.yml"], 3, &twice);
    expect(&["check", "rules", "--lint=none", "--lint-fatal", "duplicates.yml"], 0, &["3 rules found"]);
    expect(
        &["check", "rules", "--lint-fatal", "duplicates.yml", "bad-rules.yml"],
        1,
        &["bad-rules.yml:5:15"],
    );
}

#[test]
fn rules_come_from_standard_input_too() {
    let text = std::fs::read(data("rules.yml")).expect("the rules are there");
    let ran = run_with_input(&["check", "rules"], &text);
    assert!(ran.code == Some(0) && ran.out.contains("2 rules found"), "{}{}", ran.out, ran.err);
}

#[test]
fn web_configurations_are_checked() {
    expect(&["check", "web-config", "web.yml"], 0, &["web.yml SUCCESS"]);
    expect(
        &["check", "web-config", "web.yml", "bad-web.yml"],
        1,
        &["bad-web.yml FAILED", "not a bcrypt hash"],
    );
}

#[test]
fn unit_tests_of_rules_run() {
    expect(&["test", "rules", "tests.yml"], 0, &["Unit Testing:  tests.yml", "SUCCESS"]);
    expect(&["test", "rules", "--debug", "tests.yml"], 0, &["DEBUG: test group 1 \"sums\""]);
    expect(&["test", "rules", "tests.yml", "failing.yml"], 1, &["SUCCESS", "FAILED", "failing.yml:4"]);
    expect(&["test", "rules", "--run=^right$", "failing.yml"], 0, &["SUCCESS"]);
    let told = "-     summary: \"a has 1 requests\"\n    +     summary: \"a has 0 requests\"";
    let parts = ["--- expected", "-   value: 2\n    +   value: 1", "      alertname: \"NoRequests\"", told];
    expect(&["test", "rules", "--diff", "failing.yml"], 1, &parts);
    expect(&["promtool", "test", "rules", "tests.yml"], 0, &["SUCCESS"]);
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report.xml");
    let flag = format!("--junit={}", report.display());
    expect(&["test", &flag, "rules", "tests.yml", "failing.yml"], 1, &["FAILED"]);
    let xml = std::fs::read_to_string(&report).expect("the report is written");
    for part in ["<testsuite name=\"tests.yml\" tests=\"1\" failures=\"0\"", "<failure>", "</testsuites>"] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
}

#[test]
fn promtool_is_another_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let promtool = folder.path().join("promtool");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_meerkat"), &promtool).expect("a link");
    let run = |arguments: &[&str]| -> Ran {
        let mut command = std::process::Command::new(&promtool);
        command.current_dir(data("")).args(arguments).output().expect("it runs").into()
    };
    let checked = run(&["check", "config", "good.yml"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    let version = run(&["--version"]);
    assert!(version.code == Some(0) && version.out.starts_with("meerkat, version"), "{}", version.out);
    expect(&["promtool", "--version"], 0, &["meerkat, version"]);
    assert_eq!(run(&["--config.file=good.yml"]).code, Some(2));
}

#[test]
fn expositions_are_linted() {
    let check = |text: &str| run_with_input(&["check", "metrics", "--extended"], text.as_bytes());
    let good = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 3\n";
    let ran = check(good);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.lines().any(|l| l.starts_with("a_total ") && l.contains(" 2 ")), "{}", ran.out);
    let ran = check("# TYPE waitTime_ms counter\nwaitTime_ms 1\n");
    assert_eq!(ran.code, Some(3));
    for part in ["no help text", "\"_total\" suffix", "camelCase", "abbreviated units"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert_eq!(run_with_input(&["check", "metrics", "--lint=none"], b"waitTime_ms 1\n").code, Some(0));
    let ran = check("a_total{ 1\n");
    assert!(ran.code == Some(1) && ran.err.contains("error while linting"), "{}", ran.err);
}

#[test]
fn discovery_shows_labels_before_and_after() {
    let ran = run(&["check", "service-discovery", "good.yml", "app"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let targets: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!(targets.as_array().map(Vec::len), Some(2));
    assert_eq!(targets[0]["discoveredLabels"]["__address__"], "one:80");
    assert_eq!(targets[0]["labels"]["instance"], "one:80");
    assert_eq!(targets[1]["labels"], serde_json::json!({}));
    expect(&["check", "service-discovery", "good.yml", "nobody"], 1, &["the jobs are [\"app\"]"]);
}

#[test]
fn what_is_pushed_can_be_queried() {
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    let url = format!("http://{}", server.address);
    let t = "1700000000";
    let metrics = data("metrics.txt");
    let metrics = metrics.to_str().expect("a path");
    expect(&["push", "metrics", "--label=job=batch", "--label=env=test", &url, metrics], 0, &["SUCCESS"]);
    let query = ["query", "instant", "--time", t, &url];
    let with = |expr: &'static str| [&query[..], &[expr]].concat();
    expect(&with("pushed_total"), 0, &["pushed_total{env=\"test\", job=\"batch\"} => 42 @[1700000000]"]);
    expect(&with("size_seconds_bucket{le=\"1.0\"}"), 0, &[" => 3 @["]);
    expect(&with("scalar(pushed_total)"), 0, &["42 @[1700000000]"]);
    expect(&with("sum("), 1, &["query error: bad_data"]);
    let ran = run(&["query", "instant", "-o", "json", "--time", t, &url, "pushed_total"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!(json[0]["value"][1], "42");
    let range =
        ["query", "range", "--start", t, "--end", "1700000060", "--step", "30s", &url, "pushed_total"];
    expect(&range, 0, &["42 @[1700000000]\n42 @[1700000030]\n42 @[1700000060]"]);
    let bounds = ["--start", t, "--end", t];
    expect(
        &[&["query", "series", "--match", "pushed_total"], &bounds[..], &[&url]].concat(),
        0,
        &["pushed_total{env=\"test\", job=\"batch\"}"],
    );
    expect(&[&["query", "labels"], &bounds[..], &[&url, "env"]].concat(), 0, &["test\n"]);
    expect(&["check", "healthy", "--url", &url], 0, &["SUCCESS"]);
    expect(&["check", "ready", "--url", &url], 0, &["SUCCESS"]);

    let v2 = ["--protobuf_message=io.prometheus.write.v2.Request", "--label=job=second"];
    expect(&[&["push", "metrics"], &v2[..], &[&url, metrics]].concat(), 0, &["SUCCESS"]);
    expect(&with("pushed_total{job=\"second\"}"), 0, &["pushed_total{job=\"second\"} => 42 @[1700000000]"]);
    expect(&["push", "metrics", "--protobuf_message=x", &url, metrics], 2, &["--protobuf_message"]);

    let closed = Server::start("global: {}\n", &[]);
    let url = format!("http://{}", closed.address);
    expect(&["push", "metrics", &url, metrics], 1, &["FAILED", "the server answered 404"]);
    expect(&["push", "metrics", "http://127.0.0.1:1", metrics], 1, &["FAILED"]);
    let plan = ["SERIES", "aggregation sum: sum(pushed_total)", "selector: pushed_total", "samples read"];
    expect(&["query", "explain", "--time", t, &url, "sum(pushed_total)"], 0, &plan);
    let range = ["query", "explain", "--start", t, "--end", "1700000060", "--step", "30s", &url];
    expect(&[&range[..], &["rate(pushed_total[1m])"]].concat(), 0, &["call rate", "range selector"]);
    expect(&["query", "explain", "-o", "json", "--time", t, &url, "1"], 0, &["\"kind\":\"number\""]);
    expect(&["query", "explain", "--time", t, "--step", "30s", &url, "1"], 2, &["--time"]);
    expect(&["query", "instant", "http://127.0.0.1:1", "up"], 1, &["query error"]);
}

#[test]
fn histograms_are_analyzed() {
    let server = Server::start("global: {}\n", &["--web.enable-remote-write-receiver"]);
    let peer = start_prometheus(server.path(), "global: {}\n");
    let message = packed(&dataset());
    for address in std::iter::once(&server.address).chain(peer.as_ref().map(|(_, address)| address)) {
        let sent = remote_write(address, &message).expect("an answer");
        assert_eq!(sent.status, 204, "{}", sent.text());
        let url = format!("http://{address}");
        let analyze = ["query", "analyze", "--server", &url, "--time", "1700003640", "--type"];
        let with = |arguments: &[&'static str]| [&analyze[..], &["histogram"], arguments].concat();
        let found = run(&with(&["--match", "size_bytes", "--match", "latency_bucket{job=\"api\"}"]));
        assert_eq!((found.code, found.err.as_str()), (Some(0), ""), "{address}");
        let want = std::fs::read_to_string(data("analyzed.txt")).expect("what is wanted");
        assert_eq!(found.out, want, "{address}");
        // What is no histogram is passed over; two minutes hold eight samples, ten seconds one.
        expect(&with(&["--match=temperature", "--duration=2m"]), 0, &["over the series above.\n"]);
        let short = run(&with(&["--match=latency_bucket", "--duration=10s"]));
        assert!(short.code == Some(0) && !short.out.contains("in total"), "{}", short.out);
        expect(&with(&["--match=sum("]), 1, &["query error: bad_data"]);
        expect(&with(&["--match=up", "--duration=x"]), 1, &["--duration: not a valid duration"]);
        expect(&with(&[]), 2, &["--match"]);
        expect(&[&analyze[..], &["gauge", "--match=up"]].concat(), 1, &["must be 'histogram'"]);
    }
}

#[test]
fn expressions_are_formatted_and_edited() {
    let format = ["promql", "format", "sum by(job)(rate(up{a='b'}[5m]))"];
    expect(&format, 2, &["requires the --experimental flag"]);
    let want = "sum by (job) (rate(up{a=\"b\"}[5m]))\n";
    expect(&[&format[..], &["--experimental"]].concat(), 0, &[want]);
    let promtool = ["promtool", "--experimental", "--enable-feature=promql-experimental-functions"];
    let sort = ["promql", "format", "sort_by_label(up,'a')"];
    expect(&[&promtool[..], &sort].concat(), 0, &["sort_by_label(up, \"a\")\n"]);
    let matchers = ["promtool", "--experimental", "promql", "label-matchers"];
    let edit = |arguments: &[&str], want: &str| expect(&[&matchers[..], arguments].concat(), 0, &[want]);
    edit(&["set", "-t", "=~", "up{a=\"b\"} / x", "a", "c|d"], "up{a=~\"c|d\"} / x{a=~\"c|d\"}\n");
    edit(&["delete", "up{a=\"b\",c=\"d\"}", "a"], "up{c=\"d\"}\n");
    expect(&[&matchers[..], &["set", "up", "a"]].concat(), 2, &["VALUE"]);
    expect(&[&matchers[..], &["delete", "sum(", "a"]].concat(), 1, &["parse error"]);
}

#[test]
fn what_a_server_says_is_bundled() {
    let server = Server::start("global: {}\n", &[]);
    let url = format!("http://{}", server.address);
    let folder = tempfile::tempdir().expect("a folder");
    let debug = |what: &str| {
        let mut command = super::server::binary();
        command.current_dir(folder.path()).args(["promtool", "debug", what, &url]);
        command.output().expect("it runs").status.code()
    };
    assert_eq!(debug("pprof"), Some(1), "there are no profiles");
    assert_eq!((debug("metrics"), debug("all")), (Some(0), Some(0)));
    let packed = std::fs::read(folder.path().join("debug.tar.gz")).expect("the bundle");
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut archive).expect("gzip");
    let text = String::from_utf8_lossy(&archive);
    assert!(text.starts_with("metrics.txt\0") && text.contains("prometheus_build_info"));
}

#[test]
fn each_command_has_help() {
    for command in [
        &["check"][..],
        &["check", "config"],
        &["check", "web-config"],
        &["check", "rules"],
        &["check", "metrics"],
        &["check", "healthy"],
        &["check", "ready"],
        &["check", "service-discovery"],
        &["test", "rules"],
        &["query", "instant"],
        &["query", "range"],
        &["query", "series"],
        &["query", "labels"],
        &["query", "explain"],
        &["query", "analyze"],
        &["push", "metrics"],
        &["tsdb", "list"],
        &["debug", "all"],
        &["promql", "label-matchers", "set"],
        &["promtool"],
    ] {
        expect(&[command, &["--help"]].concat(), 0, &["Usage: "]);
    }
    expect(&["check", "nonsense"], 2, &["nonsense"]);
}

#[test]
fn rule_files_of_the_conformance_pack_come_out_as_promtool_has_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/rules");
    let Ok(manifest) = std::fs::read_to_string(root.join("manifest.json")) else {
        eprintln!("skipped: ../shared/conformance/rules is missing");
        return;
    };
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("the manifest is JSON");
    let check = |file: &str, extra: &[&str]| -> Ran {
        let mut command = binary();
        command
            .current_dir(&root)
            .args(["check", "rules", file])
            .args(extra)
            .output()
            .expect("it runs")
            .into()
    };
    let mut wrong = Vec::new();
    for case in manifest["duplicate_lint"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a file");
        let ran = check(file, &["--lint-fatal"]);
        let duplicates = case["duplicates"].as_array();
        let default = i64::from(duplicates.is_some_and(|d| !d.is_empty())) * 3;
        let want =
            case["exit_code_when_lint_is_fatal"].as_i64().or(case["exit_code"].as_i64()).unwrap_or(default);
        let named = duplicates.into_iter().flatten().all(|d| {
            ran.err.contains(&format!("Metric: {}\n", d["metric"].as_str().unwrap_or_default()))
                && d["labels"].as_object().into_iter().flatten().all(|(name, value)| {
                    ran.err.contains(&format!("\t{name}: {}\n", value.as_str().unwrap_or_default()))
                })
        });
        if ran.code.map(i64::from) != Some(want) || !named {
            wrong.push(format!("{file}: want {want}, got {:?}\n{}", ran.code, ran.err));
        }
    }
    let mut ran_files = 0;
    for case in manifest["rule_files"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a file");
        // Only a configuration can ask for the old names.
        if case["name_validation_scheme"] == "legacy" {
            continue;
        }
        ran_files += 1;
        let ran = check(file, &["--lint=none"]);
        let loads = case["loads"] == true;
        let count = format!("SUCCESS: {} rules found", case["rules"]);
        if ran.code != Some(i32::from(!loads))
            || (loads && case["rules"].is_u64() && !ran.out.contains(&count))
        {
            wrong.push(format!("{file}: loads {loads}, got {:?}\n{}{}", ran.code, ran.out, ran.err));
        }
        if case["loads_with_ignore_unknown_fields"] == true
            && check(file, &["--ignore-unknown-fields", "--lint=none"]).code != Some(0)
        {
            wrong.push(format!("{file} with --ignore-unknown-fields"));
        }
    }
    assert!(ran_files > 30, "only {ran_files} rule files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
