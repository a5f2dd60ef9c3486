//! Names that dashboards rely on: each exists from the start, has the type and labels that Prometheus gives it, and
//! moves when what it counts happens.

use std::collections::{BTreeMap, BTreeSet};

use super::server::Server;
use super::world::{Exporter, PATIENCE, request, start_prometheus, until};

/// Families of a page: type and the label names of all their samples.
fn families(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut out: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            current = name.to_owned();
            out.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            let mut rest = labels;
            while let Some((name, after)) = rest.split_once("=\"") {
                let name = name.trim_start_matches(',').to_owned();
                out.get_mut(&current).expect("a family").1.insert(name);
                // Label values of these families hold no quotation marks.
                rest = after.split_once('"').map_or("", |(_, rest)| rest);
                if rest.starts_with('}') {
                    break;
                }
            }
        }
    }
    out
}

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|l| l.strip_prefix(series).and_then(|rest| rest.strip_prefix(' ')));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().expect("a number")
}

const RULES: &str = "groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: r\n    expr: up\n  - alert: A\n    expr: vector(1)\n";

fn config(exporter: &Exporter) -> String {
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:1']}}]}}]}}\n\
         scrape_configs:\n- job_name: e\n  static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    )
}

/// Starts Meerkat on an exporter and a rule, and waits until both ran twice.
fn started(exporter: &Exporter) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yml"), RULES).expect("written");
    std::fs::write(folder.path().join("prometheus.yml"), config(exporter)).expect("written");
    Server::start_in(folder, &[])
}

fn page_of(address: &str) -> Result<String, String> {
    request(address, "GET", "/metrics", &[], b"").map(|a| a.text()).map_err(|e| e.to_string())
}

/// The page once targets were scraped at an interval, rules ran, and alerts failed to be sent.
fn busy_page(address: &str) -> String {
    until("scrapes, rules and alerts were counted", PATIENCE, || {
        let page = page_of(address)?;
        // Alerts are sent again only after a minute: that their counter is there has to do.
        let there = |text: &str| text.contains("notifications");
        let has =
            |text: &str| page.lines().any(|l| l.starts_with(text) && (there(text) || !l.ends_with(" 0")));
        let wanted = [
            "prometheus_target_interval_length_seconds_count{",
            "prometheus_rule_evaluations_total{",
            "prometheus_notifications_errors_total{",
            "prometheus_target_sync_length_seconds_count{",
        ];
        match wanted.iter().find(|text| !has(text)) {
            None => Ok(page),
            Some(missing) => Err(format!("{missing} has not moved")),
        }
    })
}

struct Promise<'a> {
    name: &'a str,
    kind: &'a str,
    labels: BTreeSet<String>,
    new: bool,
}

fn promises(text: &str) -> Vec<Promise<'_>> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let new = words.contains(&"new");
            let labels = words.get(2).filter(|w| **w != "new").copied().unwrap_or("");
            let labels = labels.split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
            Promise { name: words[0], kind: words[1], labels, new }
        })
        .collect()
}

#[test]
fn names_types_and_labels_are_those_of_prometheus() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/peers/self_metrics.txt");
    let text = std::fs::read_to_string(path).expect("the names are there");
    let promises = promises(&text);
    assert!(promises.len() >= 56, "{} names", promises.len());
    let exporter = Exporter::text(|| "m 1\n".into());
    let server = started(&exporter);
    let ours = families(&busy_page(&server.address));
    let mut failures = Vec::new();
    for promise in &promises {
        match ours.get(promise.name) {
            None => failures.push(format!("{} is missing", promise.name)),
            Some((kind, labels)) if kind != promise.kind || *labels != promise.labels => {
                failures.push(format!("{}: {kind} with {labels:?}", promise.name));
            }
            Some(_) => {}
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yml"), RULES).expect("written");
    if let Some((_guard, peer)) = start_prometheus(folder.path(), &config(&exporter)) {
        let theirs = families(&busy_page(&peer));
        for promise in promises.iter().filter(|p| !p.new) {
            let Some((kind, labels)) = theirs.get(promise.name) else {
                failures.push(format!("Prometheus has no {}", promise.name));
                continue;
            };
            if kind != promise.kind || *labels != promise.labels {
                failures.push(format!("{} of Prometheus: {kind} with {labels:?}", promise.name));
            }
        }
        // Whatever both have, listed or not, is of one type.
        for (name, (kind, _)) in &ours {
            if let Some((other, _)) = theirs.get(name).filter(|(other, _)| other != kind) {
                failures.push(format!("{name} is a {kind} here and a {other} there"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn they_move() {
    let exporter = Exporter::text(|| "m 1\n".into());
    let server = started(&exporter);
    let first = busy_page(&server.address);
    assert_eq!(server.get("/api/v1/query?query=sum(up)").status, 200);
    assert_eq!(server.get("/federate?match[]=up").status, 200);
    let growing = [
        "prometheus_tsdb_head_samples_appended_total{type=\"float\"}",
        "prometheus_rule_evaluations_total{rule_group=\"rules.yml;g\"}",
        "prometheus_rule_group_iterations_total{rule_group=\"rules.yml;g\"}",
        "prometheus_engine_query_samples_total",
        "prometheus_engine_query_duration_seconds_count{slice=\"inner_eval\"}",
        "prometheus_http_requests_total{code=\"200\",handler=\"/metrics\"}",
        "prometheus_http_response_size_bytes_sum{handler=\"/metrics\"}",
        "prometheus_tsdb_wal_fsync_duration_seconds_count",
        "prometheus_tsdb_head_max_time_seconds",
        "net_conntrack_listener_conn_accepted_total{listener_name=\"http\"}",
    ];
    until("all have grown", PATIENCE, || {
        let now = page_of(&server.address)?;
        match growing.iter().find(|series| value(&now, series) <= value(&first, series)) {
            None => Ok(()),
            Some(series) => Err(format!("{series} stays at {}", value(&now, series))),
        }
    });
    let page = page_of(&server.address).expect("a page");
    for (series, want) in [
        ("prometheus_ready", 1.0),
        ("prometheus_config_last_reload_successful", 1.0),
        ("prometheus_notifications_alertmanagers_discovered", 1.0),
        ("prometheus_engine_queries_concurrent_max", 20.0),
        ("prometheus_rule_group_rules{rule_group=\"rules.yml;g\"}", 2.0),
        ("prometheus_rule_group_interval_seconds{rule_group=\"rules.yml;g\"}", 1.0),
    ] {
        assert_eq!(value(&page, series), want, "{series}");
    }
    // One series of the exporter and five reports at least.
    assert!(value(&page, "prometheus_tsdb_head_series") >= 6.0);
}
