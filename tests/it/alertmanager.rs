//! Alerting as a whole: a real exporter is scraped, rules are evaluated by the real binary, and real Alertmanagers
//! take the alerts and call a webhook. Skipped where no Alertmanager is installed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use super::server::Server;

/// Longest wait for anything; never decides an outcome on a machine that works.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Serves HTTP on a free port with the same closure for each request; the address.
pub fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0usize);
            while matches!(reader.read_line(&mut line), Ok(1..)) && line.trim_end() != "" {
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let text = answer(&String::from_utf8_lossy(&body));
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
            let reply = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
            // The other side may have left.
            let _ = reader.into_inner().write_all(reply.as_bytes());
        }
    });
    address
}

/// The body of an answer with status 200.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// A metric whose value the test decides.
struct Exporter {
    address: String,
    value: Arc<AtomicI64>,
}

impl Exporter {
    fn start() -> Self {
        let value = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&value);
        let address = serve(move |_| format!("trouble{{disk=\"sda\"}} {}\n", shown.load(Ordering::SeqCst)));
        Self { address, value }
    }

    fn set(&self, value: i64) {
        self.value.store(value, Ordering::SeqCst);
    }
}

/// Receives what Alertmanagers send.
struct Webhook {
    address: String,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    fn start() -> Self {
        let calls: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = Arc::clone(&calls);
        let address = serve(move |body| {
            log.lock().extend(serde_json::from_str::<Value>(body));
            String::new()
        });
        Self { address, calls }
    }

    /// Alerts that were notified with this status, in order.
    fn alerts(&self, status: &str) -> Vec<Value> {
        let calls = self.calls.lock();
        let alerts = calls.iter().filter_map(|call| call["alerts"].as_array()).flatten();
        alerts.filter(|alert| alert["status"] == status).cloned().collect()
    }
}

/// A running Alertmanager.
struct Alertmanager {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

fn alertmanager_binary() -> Option<&'static str> {
    let found = ["prometheus-alertmanager", "alertmanager"].into_iter().find(|name| {
        let version =
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|s| s.success())
    });
    if found.is_none() {
        eprintln!("skipped: no Alertmanager is installed");
    }
    found
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

impl Alertmanager {
    fn start(binary: &str, address: String, webhook: &Webhook) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "route: {{receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers:\n- name: hook\n  webhook_configs: [{{url: 'http://{}/', send_resolved: true}}]\n",
            webhook.address
        );
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, config).expect("written");
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Alertmanager starts");
        let started = Self { child, address, _folder: folder };
        wait_for("Alertmanager to be ready", || get(&started.address, "/-/ready"));
        started
    }

    /// Alerts that are active there.
    fn alerts(&self) -> Vec<Value> {
        let body = get(&self.address, "/api/v2/alerts?active=true").unwrap_or_default();
        serde_json::from_str(&body).unwrap_or_default()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder(exporter: &Exporter, alertmanagers: &[&str], hold: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{cluster: test}}}}\n\
         rule_files: [rules.yml]\n\
         alerting:\n  alertmanagers: [{{static_configs: [{{targets: {alertmanagers:?}}}]}}]\n\
         scrape_configs:\n- job_name: disks\n  static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
    let rules = format!(
        r#"groups:
- name: disks
  rules:
  - record: trouble:sum
    expr: sum(trouble)
  - alert: Trouble
    expr: trouble > 5
    for: {hold}
    labels: {{severity: "page-{{{{ $labels.disk }}}}"}}
    annotations: {{summary: "{{{{ $labels.disk }}}} of {{{{ $externalLabels.cluster }}}} has {{{{ $value }}}}"}}
"#
    );
    std::fs::write(folder.path().join("rules.yml"), rules).expect("written");
    folder
}

/// The one alert of a server, if it is in this state.
fn alert_in(server: &Server, state: &str) -> Option<Value> {
    let answer = server.get("/api/v1/alerts").json();
    let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
    alerts.into_iter().find(|alert| alert["state"] == state)
}

fn value_of(server: &Server, query: &str) -> Option<String> {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = server.get(&format!("/api/v1/query?query={query}")).json();
    answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
}

/// Unix seconds of a time of the API.
fn time(text: &Value) -> f64 {
    let time: jiff::Timestamp =
        text.as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    time.as_millisecond() as f64 / 1000.0
}

/// Ends a server without a chance to clean up; its folder.
fn kill(mut server: Server) -> tempfile::TempDir {
    server.signal("KILL");
    server.wait();
    std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"))
}

#[test]
fn an_alert_lives_from_pending_to_resolved() {
    let Some(binary) = alertmanager_binary() else { return };
    let (exporter, webhook, other_webhook) = (Exporter::start(), Webhook::start(), Webhook::start());
    let first = Alertmanager::start(binary, free_address(), &webhook);
    let second = Alertmanager::start(binary, free_address(), &other_webhook);
    let folder = folder(&exporter, &[&first.address, &second.address], "2s");
    let server = Server::start_in(folder, &["--rules.alert.resend-delay=10s"]);
    // A process without saved state does not store alerts in its first two evaluations.
    let evaluations = || value_of(&server, "count_over_time(trouble:sum[5m])")?.parse::<u32>().ok();
    wait_for("the recording rule", || evaluations().filter(|count| *count >= 3));
    assert_eq!(server.get("/api/v1/alerts").text(), r#"{"status":"success","data":{"alerts":[]}}"#);

    exporter.set(9);
    let alert = wait_for("the alert to fire", || alert_in(&server, "firing"));
    assert_eq!(alert["labels"]["severity"], "page-sda");
    assert_eq!(alert["annotations"]["summary"], "sda of test has 9");
    let first_time = |state: &str| -> f64 {
        let query = format!("/api/v1/query?query=ALERTS%7Balertstate=%22{state}%22%7D%5B10m%5D");
        let answer = server.get(&query).json();
        answer["data"]["result"][0]["values"][0][0]
            .as_f64()
            .unwrap_or_else(|| panic!("never {state}: {answer}"))
    };
    let pending_seconds = first_time("firing") - first_time("pending");
    assert!(pending_seconds >= 2.0, "it was pending for {pending_seconds} s");
    assert_eq!(value_of(&server, "trouble:sum").as_deref(), Some("9"));

    let groups = server.get("/api/v1/rules").json()["data"]["groups"].clone();
    let [recording, alerting] = [&groups[0]["rules"][0], &groups[0]["rules"][1]];
    assert_eq!((&recording["name"], &recording["health"]), (&"trouble:sum".into(), &"ok".into()));
    assert_eq!((&alerting["state"], &alerting["health"]), (&"firing".into(), &"ok".into()));
    assert_eq!((&alerting["type"], &alerting["duration"]), (&"alerting".into(), &2.into()));
    assert_eq!(alerting["alerts"][0]["annotations"]["summary"], "sda of test has 9");
    let template = alerting["annotations"]["summary"].as_str().unwrap_or_default();
    assert!(template.contains("{{ $value }}"), "{template}");

    for manager in [&first, &second] {
        let there = wait_for("the alert in Alertmanager", || manager.alerts().pop());
        let labels = serde_json::json!({
            "alertname": "Trouble", "cluster": "test", "disk": "sda", "instance": exporter.address, "job": "disks",
            "severity": "page-sda",
        });
        assert_eq!(there["labels"], labels);
        assert_eq!(there["annotations"]["summary"], "sda of test has 9");
        assert!(
            there["generatorURL"].as_str().is_some_and(|u| u.contains("/graph?g0.expr=trouble+%3E+5")),
            "{there}"
        );
    }
    let called = wait_for("the webhook", || webhook.alerts("firing").pop());
    assert_eq!(called["labels"]["alertname"], "Trouble");
    let known = server.get("/api/v1/alertmanagers").json();
    assert_eq!(known["data"]["activeAlertmanagers"].as_array().map(Vec::len), Some(2), "{known}");

    // It comes back without any memory, and is told again.
    let address = second.address.clone();
    drop(second);
    let errors =
        format!("prometheus_notifications_errors_total{{alertmanager=\"http://{address}/api/v2/alerts\"}}");
    wait_for("a failed delivery", || {
        let metrics = server.get("/metrics").text();
        let line = metrics.lines().find(|l| l.starts_with(&errors))?;
        (!line.ends_with(" 0")).then_some(())
    });
    let second = Alertmanager::start(binary, address, &other_webhook);
    wait_for("the alert in the Alertmanager that was down", || second.alerts().pop());

    exporter.set(0);
    let resolved = wait_for("the webhook's resolution", || webhook.alerts("resolved").pop());
    assert_eq!(resolved["labels"]["disk"], "sda");
    wait_for("the other webhook's resolution", || other_webhook.alerts("resolved").pop());
    assert_eq!(server.get("/api/v1/alerts").text(), r#"{"status":"success","data":{"alerts":[]}}"#);
    wait_for("Alertmanager to drop it", || first.alerts().is_empty().then_some(()));
}

#[test]
fn a_crash_neither_resolves_nor_restarts_an_alert() {
    let Some(binary) = alertmanager_binary() else { return };
    let (exporter, webhook) = (Exporter::start(), Webhook::start());
    let manager = Alertmanager::start(binary, free_address(), &webhook);
    let server = Server::start_in(folder(&exporter, &[&manager.address], "12s"), &[]);
    exporter.set(9);
    let before = wait_for("the alert to be pending", || alert_in(&server, "pending"));
    // What the API shows has been saved before.
    let evaluated = wait_for("the alert to be pending for a while", || {
        let answer = server.get("/api/v1/rules").json();
        let last = time(&answer["data"]["groups"][0]["lastEvaluation"]);
        (last - time(&before["activeAt"]) >= 4.0).then_some(last)
    });
    assert_eq!(webhook.calls.lock().len(), 0);
    let folder = kill(server);
    let saved = std::fs::read_dir(folder.path().join("data/alerts")).expect("alert state was saved");
    assert!(saved.flatten().any(|f| f.path().extension().is_some_and(|e| e == "json")));

    let server = Server::start_in(folder, &[]);
    let outage = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0 - evaluated;
    let firing = wait_for("the alert to fire", || alert_in(&server, "firing"));
    // The outage does not count as pending, what was before it does.
    let moved = time(&firing["activeAt"]) - time(&before["activeAt"]);
    assert!(
        (0.0..=outage).contains(&moved),
        "{moved} s of pending time were lost in an outage of {outage} s"
    );
    wait_for("the webhook", || webhook.alerts("firing").pop());
    let folder = kill(server);

    let server = Server::start_in(folder, &[]);
    let evaluated = r#"prometheus_rule_group_iterations_total{rule_group=""#;
    wait_for("a few evaluations", || {
        let metrics = server.get("/metrics").text();
        let line = metrics.lines().find(|l| l.starts_with(evaluated))?;
        let count: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
        (count >= 4.0).then_some(())
    });
    let after = alert_in(&server, "firing").expect("it still fires");
    assert_eq!(after["activeAt"], firing["activeAt"]);
    assert_eq!(manager.alerts().len(), 1, "it stays in Alertmanager");
    assert_eq!(webhook.alerts("resolved"), Vec::<Value>::new(), "nothing was resolved");

    exporter.set(0);
    wait_for("the resolution", || webhook.alerts("resolved").pop());
}
