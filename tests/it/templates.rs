//! Templates of alerts beside the real Prometheus: the same rules with many annotations are loaded by both, and the
//! texts they give must be the same. The texts are data in `testdata/alerting/templates.json`, which a unit test
//! reads too; here Prometheus vouches for them.

use std::collections::BTreeMap;

use super::server::Server;
use super::world::{PATIENCE, request, start_prometheus, until};

/// Template and expected text; `T` stands for the name of the alert.
fn cases() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/alerting/templates.json");
    let text = std::fs::read_to_string(path).expect("the cases are there");
    serde_json::from_str(&text).expect("the cases are pairs")
}

fn rules(cases: &[(String, String)]) -> String {
    let mut rules = vec![
        serde_json::json!({"record": "up", "expr": "vector(1)", "labels": {"instance": "a", "job": "j"}}),
        serde_json::json!({"record": "up", "expr": "vector(0)", "labels": {"instance": "b", "job": "j"}}),
    ];
    rules.extend(cases.iter().enumerate().map(|(i, (template, _))| {
        serde_json::json!({"alert": "T", "expr": "up{instance='a'}", "labels": {"n": i.to_string()},
                           "annotations": {"t": template}})
    }));
    serde_json::json!({"groups": [{"name": "g", "interval": "1s", "rules": rules}]}).to_string()
}

/// The annotations by number.
fn annotations(address: &str, count: usize) -> BTreeMap<usize, String> {
    until("all alerts", PATIENCE, || {
        let answer = request(address, "GET", "/api/v1/alerts", &[], b"").map_err(|e| e.to_string())?.json();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let found: BTreeMap<usize, String> = alerts
            .iter()
            .filter_map(|alert| {
                let n = alert["labels"]["n"].as_str()?.parse().ok()?;
                Some((n, alert["annotations"]["t"].as_str().unwrap_or_default().to_owned()))
            })
            .collect();
        if found.len() == count { Ok(found) } else { Err(format!("{} of {count}", found.len())) }
    })
}

#[test]
fn templates_print_what_prometheus_prints() {
    let cases = cases();
    let folder = tempfile::tempdir().expect("a folder");
    let config = "global: {external_labels: {cluster: eu}}\nrule_files: [rules.json]\n";
    std::fs::write(folder.path().join("rules.json"), rules(&cases)).expect("written");
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    let Some((_guard, peer)) = start_prometheus(folder.path(), config) else { return };
    let theirs = annotations(&peer, cases.len());
    let server = Server::start_in(folder, &[]);
    let ours = annotations(&server.address, cases.len());
    // Both show an address of their own where a template asks for it.
    let mut different = Vec::new();
    for (i, (template, want)) in cases.iter().enumerate() {
        let asks = want.contains("//ext:9") || want.contains("/pre");
        if !asks && (theirs[&i] != ours[&i] || theirs[&i] != *want) {
            different.push(format!(
                "{template}\n  Prometheus {}\n  Meerkat    {}\n  data       {want}",
                theirs[&i], ours[&i]
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
