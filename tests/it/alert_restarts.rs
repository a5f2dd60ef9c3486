//! Alert state against `kill -9`, judged by a fake Alertmanager and the API: whatever the moment of the kill, a firing
//! alert is neither resolved nor fired anew, and a pending one loses none of the time it has waited.
//!
//! `MEERKAT_ALERT_CYCLES` sets how often (8); `MEERKAT_ALERT_CYCLES=500` takes about twenty minutes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::Value;

use super::alertmanager::serve;
use super::server::Server;
use super::world::{Exporter, PATIENCE, request, until};

/// Fires at once; waits longer than the test lasts; fires only if its time adds up over several lives.
const RULES: &str = r#"groups:
- name: g
  interval: 1s
  rules:
  - alert: Fires
    expr: trouble == 1
  - alert: Waits
    expr: trouble == 1
    for: 100h
  - alert: AddsUp
    expr: trouble == 1
    for: 6s
"#;

fn cycles() -> usize {
    std::env::var("MEERKAT_ALERT_CYCLES").ok().and_then(|v| v.parse().ok()).unwrap_or(8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn time(value: &Value) -> f64 {
    let stamp: jiff::Timestamp =
        value.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{value}"));
    stamp.as_millisecond() as f64 / 1000.0
}

/// What came, with the time it came.
type Told = Arc<Mutex<Vec<(f64, Value)>>>;

/// The three alerts as the API shows them: name, state, `activeAt`; an error until all are there and the group was
/// evaluated after `since`.
fn shown(server: &Server, since: f64) -> Result<Vec<(String, String, f64)>, String> {
    let answer =
        request(&server.address, "GET", "/api/v1/rules", &[], b"").map_err(|e| e.to_string())?.json();
    let group = &answer["data"]["groups"][0];
    if group["lastEvaluation"].as_str().is_none() || time(&group["lastEvaluation"]) < since {
        return Err(format!("not evaluated yet: {group}"));
    }
    let mut out = Vec::new();
    for rule in group["rules"].as_array().into_iter().flatten() {
        let [alert] = rule["alerts"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(format!("not one alert: {rule}"));
        };
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        out.push((text(&rule["name"]), text(&alert["state"]), time(&alert["activeAt"])));
    }
    Ok(out)
}

#[test]
fn killing_loses_no_pending_time_and_resolves_nothing() {
    let told: Told = Arc::default();
    let log = Arc::clone(&told);
    let manager = serve(move |body| {
        // A sender that is killed in the middle leaves less than a list.
        let alerts: Vec<Value> = serde_json::from_str(body).unwrap_or_default();
        let at = now();
        log.lock().extend(alerts.into_iter().map(|alert| (at, alert)));
        String::new()
    });
    let exporter = Exporter::text(|| "trouble 1\n".to_owned());
    let mut folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: [rules.yml]\nalerting:\n  alertmanagers: [{{static_configs: [{{targets: \
         ['{}']}}]}}]\nscrape_configs:\n- job_name: j\n  static_configs: [{{targets: ['{}']}}]\n",
        manager, exporter.address
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    std::fs::write(folder.path().join("rules.yml"), RULES).expect("written");
    let mut seed = 1u64;
    // Of each alert: the longest time it was seen active, and whether it was seen firing.
    let mut known: Vec<(String, f64, bool)> = Vec::new();
    let (mut lives, mut longest_life) = (0, Duration::ZERO);
    for cycle in 0..cycles() {
        let begun = (Instant::now(), now());
        let server = Server::start_in(folder, &["--rules.alert.resend-delay=1s"]);
        let limit = PATIENCE;
        let alerts = until("all alerts after a start", limit, || shown(&server, begun.1));
        for (i, (name, state, active_at)) in alerts.iter().enumerate() {
            let (age, firing) = (now() - active_at, state == "firing");
            match known.get_mut(i) {
                None => known.push((name.clone(), age, firing)),
                Some((_, longest, fired)) => {
                    assert!(
                        !*fired || firing,
                        "cycle {cycle}: {name} fired before the kill and is {state} now"
                    );
                    // One evaluation may not have been saved; the answer takes a moment.
                    assert!(
                        age >= *longest - 2.5,
                        "cycle {cycle}: {name} is active for {age} s, was for {longest} s"
                    );
                }
            }
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(200 + (seed >> 33) % 1_400));
        if let Ok(alerts) = shown(&server, begun.1) {
            for ((_, longest, fired), (_, state, active_at)) in known.iter_mut().zip(&alerts) {
                *longest = longest.max(now() - active_at);
                *fired |= state == "firing";
            }
        }
        let mut server = server;
        server.signal("KILL");
        server.wait();
        lives += 1;
        longest_life = longest_life.max(begun.0.elapsed());
        folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    }
    assert!(known[0].2, "the first alert never fired");
    assert!(!known[1].2, "the second alert fired");
    judge(&told.lock());
    println!(
        "{lives} lives, the longest {longest_life:?}; alerts: {known:?}; {} notifications",
        told.lock().len()
    );
}

fn judge(told: &[(f64, Value)]) {
    let of = |name: &str| {
        told.iter().filter(|(_, alert)| alert["labels"]["alertname"] == name).collect::<Vec<_>>()
    };
    assert!(of("Waits").is_empty(), "a pending alert was told");
    for name in ["Fires", "AddsUp"] {
        let alerts = of(name);
        for (at, alert) in &alerts {
            assert!(time(&alert["endsAt"]) > *at, "{name} was resolved: {alert}");
            assert_eq!(alert["startsAt"], alerts[0].1["startsAt"], "{name} fired anew");
        }
    }
    assert!(!of("Fires").is_empty(), "nothing was told");
}
