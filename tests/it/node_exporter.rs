//! A real exporter scraped with a real configuration, and the same beside Prometheus where there is one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use super::server::Server;
use super::world::{Guarded, PATIENCE, instant, request, scalar, start_listening, start_prometheus, until};

fn node_exporter() -> Option<(Guarded, String)> {
    let mut command = Command::new("prometheus-node-exporter");
    let started = start_listening(command.arg("--web.listen-address=127.0.0.1:0"));
    if started.is_none() {
        eprintln!("skipped: prometheus-node-exporter is not installed");
    }
    started
}

fn config(node: &str) -> String {
    format!(
        r#"
global:
  scrape_interval: 1s
  external_labels:
    site: here
scrape_configs:
  - job_name: node
    params:
      collect[]: [cpu, loadavg, meminfo, netdev, filesystem, uname, time]
    static_configs:
      - targets: ['{node}']
        labels:
          env: test
          drop_me: x
    relabel_configs:
      - source_labels: [__address__]
        regex: '([^:]+):(\d+)'
        target_label: host
        replacement: 'host-${{1}}'
      - source_labels: [env, job]
        separator: '/'
        target_label: tier
      - regex: drop_.*
        action: labeldrop
      - source_labels: [__address__]
        target_label: instance
        regex: '.*'
        replacement: box
    metric_relabel_configs:
      - source_labels: [__name__]
        regex: 'node_(load1|load15|cpu_seconds_total|memory_.*|uname_info|time_seconds|network_.*)'
        action: keep
      - source_labels: [__name__, mode]
        regex: 'node_cpu_seconds_total;(steal|irq)'
        action: drop
      - source_labels: [__name__]
        regex: node_(load.*)
        target_label: __name__
        replacement: system_$1
"#
    )
}

#[test]
fn a_node_exporter_is_scraped_as_configured() {
    let Some((_node, address)) = node_exporter() else { return };
    let server = Server::start(&config(&address), &[]);
    let at = server.address.clone();
    let selector = r#"{job="node",instance="box",env="test",host="host-127.0.0.1",tier="test/node"}"#;
    until("three scrapes", PATIENCE, || {
        let scrapes = scalar(&at, &format!("count_over_time(up{selector}[1m])"))?;
        if scrapes >= 3.0 { Ok(()) } else { Err(format!("{scrapes} scrapes")) }
    });
    let one = |query: &str| scalar(&at, query).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(one(&format!("up{selector}")), 1.0);
    assert_eq!(one("count(up)"), 1.0);
    assert_eq!(one(r#"count({drop_me!=""}) or vector(0)"#), 0.0, "labeldrop");
    assert_eq!(one(r#"count(node_cpu_seconds_total{mode=~"steal|irq"}) or vector(0)"#), 0.0, "drop");
    assert_eq!(one(r#"count({__name__=~"node_filesystem.*"}) or vector(0)"#), 0.0, "keep");
    assert_eq!(one("count({site!=\"\"}) or vector(0)"), 0.0, "external labels are for the outside");
    assert!(one(r#"count({__name__=~"system_load(1|15)"})"#) == 2.0, "renamed");
    let total = one("node_memory_MemTotal_bytes");
    let real = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let real =
        real.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|l| l.trim().strip_suffix("kB"));
    let real: f64 = real.and_then(|l| l.trim().parse().ok()).expect("MemTotal is there");
    assert_eq!(total, real * 1024.0);
    let cores = one(r#"count(count by (cpu) (node_cpu_seconds_total{mode="idle"}))"#);
    assert!(cores >= 1.0);
    until("the clock runs", PATIENCE, || {
        let rate = scalar(&at, "rate(node_time_seconds[20s])")?;
        if (0.8..1.2).contains(&rate) { Ok(()) } else { Err(format!("rate {rate}")) }
    });
    let scraped = one("scrape_samples_scraped");
    let kept = one("scrape_samples_post_metric_relabeling");
    assert!(scraped > kept && kept > 10.0, "{scraped} {kept}");
    assert_eq!(one(r#"count({job="node"}) - 5"#), kept, "five series are the scrape's own");

    let targets = server.get("/api/v1/targets").json();
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!(target["health"], "up", "{target}");
    assert_eq!(target["scrapePool"], "node");
    assert_eq!(target["lastError"], "");
    assert_eq!(target["discoveredLabels"]["drop_me"], "x");
    assert_eq!(target["discoveredLabels"]["__address__"], address.as_str());
    assert_eq!(target["labels"]["host"], "host-127.0.0.1");
    assert_eq!(target["labels"]["drop_me"], serde_json::Value::Null);
    let url = target["scrapeUrl"].as_str().expect("a URL");
    assert!(url.starts_with(&format!("http://{address}/metrics?collect%5B%5D=cpu&")), "{url}");
    assert_eq!((&target["scrapeInterval"], &target["scrapeTimeout"]), (&"1s".into(), &"1s".into()));

    let metadata = server.get("/api/v1/metadata?metric=node_cpu_seconds_total").json();
    let entry = &metadata["data"]["node_cpu_seconds_total"][0];
    assert_eq!(entry["type"], "counter", "{metadata}");
    assert!(entry["help"].as_str().is_some_and(|h| h.contains("Seconds the CPUs spent")), "{metadata}");
    let by_target = server.get("/api/v1/targets/metadata?metric=node_memory_MemTotal_bytes").json();
    assert_eq!(by_target["data"][0]["type"], "gauge", "{by_target}");
    assert_eq!(by_target["data"][0]["target"]["instance"], "box");
}

/// Name and labels of each series of the node, with what each server adds by itself left out.
fn inventory(address: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut out = BTreeMap::new();
    for one in instant(address, r#"last_over_time({job="node"}[30s])"#)? {
        let value = one["value"][1].as_str().and_then(|v| v.parse().ok()).ok_or("no value")?;
        out.insert(one["metric"].to_string(), value);
    }
    Ok(out)
}

#[test]
fn a_node_exporter_looks_as_it_does_in_prometheus() {
    let Some((_node, address)) = node_exporter() else { return };
    let config = config(&address);
    let server = Server::start(&config, &[]);
    let Some((_peer, peer)) = start_prometheus(server.path(), &config) else { return };
    let (ours, theirs) = until("both have scraped", PATIENCE, || {
        for one in [&server.address, &peer] {
            let scrapes = scalar(one, "count_over_time(up[1m])")?;
            if scrapes < 8.0 {
                return Err(format!("{one}: {scrapes} scrapes"));
            }
        }
        Ok((inventory(&server.address)?, inventory(&peer)?))
    });
    let names = |of: &BTreeMap<String, f64>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "the same series");
    for query in ["count by (__name__) ({job=\"node\"})", "count by (mode) (node_cpu_seconds_total)"] {
        let sorted = |at: &str| {
            let result = instant(at, query).expect("an answer");
            let pair = |r: &serde_json::Value| format!("{} {}", r["metric"], r["value"][1]);
            let mut rows: Vec<String> = result.iter().map(pair).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&server.address), sorted(&peer), "{query}");
    }
    let near = |query: &str, tolerance: f64| {
        until(query, Duration::from_secs(20), || {
            let (a, b) = (scalar(&server.address, query)?, scalar(&peer, query)?);
            if (a - b).abs() <= tolerance * b.abs() { Ok(()) } else { Err(format!("{a} and {b}")) }
        });
    };
    near("sum(rate(node_cpu_seconds_total[10s]))", 0.1);
    near("rate(node_time_seconds[10s])", 0.02);
    near("node_memory_MemTotal_bytes", 0.0);
    for path in ["/api/v1/labels?match[]={job=%22node%22}", "/api/v1/label/mode/values"] {
        let get = |at: &str| request(at, "GET", path, &[], b"").expect("an answer").json()["data"].clone();
        assert_eq!(get(&server.address), get(&peer), "{path}");
    }
    let metadata = |at: &str| {
        let answer = request(at, "GET", "/api/v1/targets/metadata", &[], b"").expect("an answer").json();
        let rows = answer["data"].as_array().cloned().unwrap_or_default();
        let row =
            |r: &serde_json::Value| format!("{} {} {} {}", r["metric"], r["type"], r["help"], r["unit"]);
        let mut rows: Vec<String> = rows.iter().map(row).collect();
        rows.sort();
        rows
    };
    assert_eq!(metadata(&server.address), metadata(&peer), "metadata");
}
