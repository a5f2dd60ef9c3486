//! Rules over stored history with the real binary: recording rules are backfilled on a running server and as a
//! command, and an alert is tried on the past.

use serde_json::Value;

use super::remote_messages::{WriteRequest, packed, series};
use super::server::{Server, binary};
use super::world::{PATIENCE, remote_write, until, with_parameters};

/// Unix seconds of the first sample.
const BEGIN: i64 = 1_700_000_040;
const STEP: i64 = 15;
/// Three hours: more than one block.
const STEPS: i64 = 720;

const RULES: &str = r#"groups:
- name: history
  interval: 1m
  rules:
  - record: job:requests:rate5m
    expr: rate(requests_total[5m])
    labels: {kind: backfilled}
  - record: job:requests:max10m
    expr: max_over_time(job:requests:rate5m[10m])
  - alert: NotRecorded
    expr: requests_total > 0
"#;

fn filled(flags: &[&str]) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), "rule_files: [rules.yml]\n").expect("written");
    std::fs::write(folder.path().join("rules.yml"), RULES).expect("written");
    let mut all = vec!["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"];
    all.extend_from_slice(flags);
    let server = Server::start_in(folder, &all);
    let at = |step: i64| (BEGIN + step * STEP) * 1000;
    let requests: Vec<(i64, f64)> = (0..STEPS).map(|s| (at(s), (s * s % 977 + s * 40) as f64)).collect();
    let trouble: Vec<(i64, f64)> =
        (0..STEPS).map(|s| (at(s), f64::from(u8::from((120..240).contains(&s))))).collect();
    let timeseries = vec![
        series(&[("__name__", "requests_total"), ("job", "a")], &requests),
        series(&[("__name__", "trouble"), ("disk", "sda")], &trouble),
    ];
    let message = packed(&WriteRequest { timeseries, metadata: Vec::new() });
    let answer = remote_write(&server.address, &message).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    server
}

fn last() -> i64 {
    BEGIN + (STEPS - 1) * STEP
}

/// `(time, value)` of the only series of a range selector at the end of the history.
fn points(server: &Server, selector: &str) -> Vec<(f64, String)> {
    let parameters = [("query", selector), ("time", &(last() + 60).to_string())];
    let answer = server.get(&with_parameters("/api/v1/query", &parameters)).json();
    let rows = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    assert!(rows.len() <= 1, "{answer}");
    let values = rows.first().and_then(|row| row["values"].as_array().cloned()).unwrap_or_default();
    values.iter().map(|v| (v[0].as_f64().unwrap_or(0.0), v[1].as_str().unwrap_or("").to_owned())).collect()
}

fn run_backfill(server: &Server) -> Value {
    let form = format!("group=history&start={BEGIN}&end={}", last());
    let answer = server.post_form("/api/v1/admin/rules/backfill", &form);
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("the backfill", PATIENCE, || {
        let jobs = server.get("/api/v1/admin/rules/backfill").json();
        let job =
            jobs["data"]["backfills"].as_array().and_then(|jobs| jobs.last().cloned()).unwrap_or_default();
        if job["state"] == "running" { Err(job.to_string()) } else { Ok(job) }
    })
}

#[test]
fn recording_rules_are_backfilled_on_a_running_server() {
    let server = filled(&["--web.enable-admin-api"]);
    let job = run_backfill(&server);
    assert_eq!((&job["state"], &job["evaluations"]), (&"done".into(), &job["evaluationsDone"]), "{job}");
    let rate = points(&server, "job:requests:rate5m{kind='backfilled'}[4h]");
    assert!((175..=180).contains(&rate.len()), "{} points", rate.len());
    // Every sample is what the expression gives at its time, whatever block it came to.
    let range = [
        ("query", "rate(requests_total[5m])".to_owned()),
        ("start", rate[0].0.to_string()),
        ("end", rate[rate.len() - 1].0.to_string()),
        ("step", "60".to_owned()),
    ];
    let range: Vec<(&str, &str)> = range.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let live = server.get(&with_parameters("/api/v1/query_range", &range)).json();
    let live: Vec<(f64, String)> = live["data"]["result"][0]["values"]
        .as_array()
        .expect("points")
        .iter()
        .map(|v| (v[0].as_f64().unwrap_or(0.0), v[1].as_str().unwrap_or("").to_owned()))
        .collect();
    assert_eq!(rate, live);
    // The second rule read what the first one gave, in the same run.
    let max = points(&server, "job:requests:max10m[4h]");
    assert_eq!(max.len(), rate.len());
    let number = |text: &str| text.parse::<f64>().expect("a number");
    for (i, (_, value)) in max.iter().enumerate() {
        let window = &rate[i.saturating_sub(9)..=i];
        let want = window.iter().map(|(_, v)| number(v)).fold(f64::MIN, f64::max);
        assert_eq!(number(value), want, "point {i}");
    }
    assert!(points(&server, "ALERTS[4h]").is_empty());

    let again = run_backfill(&server);
    assert_eq!(again["samplesWritten"], 0, "{again}");
    assert_eq!(again["samplesPresent"], job["samplesWritten"], "{again}");
    let folder = server.stop();
    let server = Server::start_in(folder, &["--storage.tsdb.retention.time=100y"]);
    assert_eq!(points(&server, "job:requests:rate5m[4h]"), rate, "after a restart");
    let refused = server.post_form("/api/v1/admin/rules/backfill", "group=history&start=1");
    assert_eq!((refused.status, refused.json()["error"].clone()), (500, "admin APIs disabled".into()));
}

#[test]
fn wrong_backfills_are_refused_with_a_reason() {
    let server = filled(&["--web.enable-admin-api"]);
    for (form, part) in [
        ("start=1", "the name of the rule group is missing"),
        ("group=nope&start=1", "there is no rule group \\\"nope\\\""),
        ("group=history", "start"),
        ("group=history&start=1&end=99999999999", "the future cannot be backfilled"),
        ("group=history&start=20&end=10", "the end is before the start"),
        ("group=history&start=1&end=2&rule[]=NotRecorded", "no recording rule is asked for"),
    ] {
        let answer = server.post_form("/api/v1/admin/rules/backfill", form);
        assert!(
            answer.status == 400 && answer.text().contains(part),
            "{form}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(server.post_form("/api/v1/admin/rules/backfill/cancel", "id=7").status, 404);
}

#[test]
fn recording_rules_become_blocks_by_command() {
    let server = filled(&[]);
    let out = server.path().join("blocks");
    let output = binary()
        .args(["tsdb", "create-blocks-from", "rules"])
        .args([
            format!("--url=http://{}", server.address),
            format!("--start={BEGIN}"),
            format!("--end={}", last()),
        ])
        .arg(format!("--output-dir={}", out.display()))
        .arg(server.path().join("rules.yml"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("NotRecorded is an alerting rule") && text.contains("samples of 1 series"),
        "{text}"
    );
    let expected = server.get(&with_parameters(
        "/api/v1/query",
        &[("query", "rate(requests_total[5m])"), ("time", &last().to_string())],
    ));
    assert_eq!(expected.status, 200);
    // The blocks are served where they are put.
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("written");
    std::fs::rename(&out, folder.path().join("data")).expect("moved");
    let reader = Server::start_in(folder, &["--storage.tsdb.retention.time=100y"]);
    let rate = points(&reader, "job:requests:rate5m{kind='backfilled'}[4h]");
    assert!((175..=180).contains(&rate.len()), "{} points", rate.len());
}

#[test]
fn an_alert_is_tried_on_the_past() {
    let server = filled(&[]);
    let parameters = [
        ("expr", "trouble == 1".to_owned()),
        ("for", "5m".to_owned()),
        ("keep_firing_for", "2m".to_owned()),
        ("start", BEGIN.to_string()),
        ("end", last().to_string()),
        ("step", "1m".to_owned()),
    ];
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = server.get(&with_parameters("/api/v1/rules/backtest", &parameters)).json();
    let alerts = &answer["data"]["alerts"];
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(alerts[0]["labels"], serde_json::json!({"alertname": "backtest", "disk": "sda"}));
    let minute = |n: i64| BEGIN + n * 60;
    // True from minute 30 up to minute 60, held for two more.
    assert_eq!(
        alerts[0]["intervals"],
        serde_json::json!([
            {"state": "pending", "start": minute(30), "end": minute(35)},
            {"state": "firing", "start": minute(35), "end": minute(62)},
        ])
    );
    for (bad, part) in [
        ("expr=&start=1", "the expression of the alert is missing"),
        ("expr=up", "start"),
        ("expr=up(&start=1&end=2", "parse error"),
        ("expr=up&start=1&end=999999999", "more than 11000 evaluations"),
        ("expr=up&start=10&end=1", "end timestamp must not be before start time"),
        ("expr=up&start=1&end=2&step=-1", "step"),
    ] {
        let answer = server.get(&format!("/api/v1/rules/backtest?{bad}"));
        assert!(answer.status == 400 && answer.text().contains(part), "{bad}: {}", answer.text());
    }
}
