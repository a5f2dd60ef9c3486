//! Command lines: every flag of Prometheus is taken under its name with its default, and exit codes are the same.

use std::process::Output;

use super::server::{Server, binary};

struct Row {
    name: String,
    kind: String,
    mode: String,
    visible: bool,
    default: String,
}

/// `testdata/cli/flags.txt`: name, kind, mode, visible or hidden, default (`-` for none).
fn table() -> Vec<Row> {
    let path = format!("{}/testdata/cli/flags.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the table is there");
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    let rows: Vec<Row> = rows
        .map(|line| {
            let cells: Vec<&str> = line.splitn(5, ' ').map(str::trim).collect();
            let [name, kind, mode, seen, default] = cells[..] else { panic!("{line:?}: five cells") };
            let default = if default == "-" { String::new() } else { default.to_owned() };
            Row {
                name: name.into(),
                kind: kind.into(),
                mode: mode.into(),
                visible: seen == "visible",
                default,
            }
        })
        .collect();
    assert!(rows.len() > 60, "only {} flags", rows.len());
    rows
}

fn sample(row: &Row) -> &str {
    match row.kind.as_str() {
        "bool" => "true",
        "duration" => "7m",
        "bytes" => "16MB",
        "int" => "7",
        "float" => "0.5",
        "text" => "x",
        choice => choice.split('|').next_back().expect("a choice"),
    }
}

fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().expect("the binary runs")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_flag_of_prometheus_is_accepted() {
    for row in table() {
        let mut forms = vec![format!("--{}={}", row.name, sample(&row))];
        if row.kind == "bool" {
            forms = vec![format!("--{}", row.name), format!("--no-{}", row.name)];
        }
        for form in forms {
            let output = run(&[&form, "--version"]);
            assert_eq!(output.status.code(), Some(0), "{form}: {}", complaint(&output));
        }
    }
}

#[test]
fn help_explains_every_visible_flag() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> =
        help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.')).collect();
    for row in table() {
        let named = words.contains(&format!("--{}", row.name).as_str());
        assert_eq!(named, row.visible, "--{} in --help", row.name);
    }
    assert_eq!(run(&["-h"]).status.code(), Some(0));
}

#[test]
fn version_is_told() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("meerkat, version ") && text.contains("compatible with prometheus 3."),
        "{text}"
    );
}

#[test]
fn wrong_command_lines_end_with_their_code() {
    // Arguments, exit code, what the message has to contain.
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--no-such-flag"], 2, "--no-such-flag"),
        (&["--query.timeout=soon"], 2, "query.timeout"),
        (&["--query.max-samples=many"], 2, "query.max-samples"),
        (&["--storage.tsdb.retention.size=12parsecs"], 2, "retention.size"),
        (&["--log.level=loud"], 2, "log.level"),
        (&["--web.enable-lifecycle=perhaps"], 2, "web.enable-lifecycle"),
        (&["--config.file"], 2, "config.file"),
        (&["surplus"], 2, "surplus"),
        (&["--agent", "--storage.tsdb.path=x"], 3, "storage.tsdb.path"),
        (&["--storage.agent.path=x"], 3, "storage.agent.path"),
        (&["--config.file=/nonexistent/prometheus.yml"], 2, "/nonexistent/prometheus.yml"),
        (&["--web.cors.origin=("], 2, "web.cors.origin"),
        (&["--web.external-url=\"http://x/\""], 2, "quotes"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, code, part) in cases {
        let output = binary()
            .current_dir(folder.path())
            .env("MEERKAT_WEB_LISTEN_ADDRESS", "127.0.0.1:0")
            .args(*arguments)
            .output()
            .expect("the binary runs");
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn defaults_are_those_of_prometheus() {
    let server = Server::start("global: {}\n", &[]);
    let json = server.get("/api/v1/status/flags").json();
    let shown = json["data"].as_object().expect("an object");
    for row in table() {
        if ["config.file", "web.listen-address", "write-documentation"].contains(&row.name.as_str()) {
            continue;
        }
        let value = shown.get(&row.name).and_then(|v| v.as_str());
        // Those that depend on others are shown as they are in effect.
        let default = match row.name.as_str() {
            "web.route-prefix" => "/",
            "storage.tsdb.retention.time" => "15d",
            "storage.tsdb.max-block-duration" => "1d12h",
            _ => row.default.as_str(),
        };
        assert_eq!(value, Some(default), "--{} ({})", row.name, row.mode);
    }
}
