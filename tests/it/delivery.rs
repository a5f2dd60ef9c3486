//! Alerts on their way from the real binary: to Alertmanagers behind TLS and a password, beside one that hangs and whose
//! queue overflows, and to those that files name while the server runs.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::TcpListener;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::alertmanager::serve;
use super::server::Server;
use super::web_security::Authority;
use super::world::{PATIENCE, until};

/// Alerts that fire from the first evaluation on.
const ALERTS: usize = 5;

fn rules() -> String {
    let rules: String = (0..ALERTS).map(|i| format!("  - {{alert: Fires{i}, expr: vector(1)}}\n")).collect();
    format!("groups:\n- name: g\n  interval: 1s\n  rules:\n{rules}")
}

fn start(alerting: &str, files: &[(&str, &str)], flags: &[&str]) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("rule_files: [rules.yml]\nalerting:\n  alertmanagers:\n{alerting}");
    let rules = rules();
    let own = [("prometheus.yml", config.as_str()), ("rules.yml", rules.as_str())];
    for (name, text) in own.iter().chain(files) {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let flags: Vec<&str> = ["--rules.alert.resend-delay=100ms"].iter().chain(flags).copied().collect();
    Server::start_in(folder, &flags)
}

/// The head and the body of a request.
fn read_request(stream: &mut impl std::io::Read) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

fn answer(stream: &mut impl Write, status: &str) {
    // A client that leaves is no fault.
    let _ = stream
        .write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
    let _ = stream.flush();
}

/// The heads of the requests that came.
type Heads = Arc<Mutex<Vec<String>>>;

/// An Alertmanager behind TLS that wants a password; its port.
fn guarded(authority: &Authority, heads: &Heads) -> u16 {
    let signed = authority.sign("localhost");
    let key = PrivateKeyDer::try_from(signed.key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.chain], key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heads = Arc::clone(heads);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else { continue };
            let mut stream = StreamOwned::new(connection, socket);
            let Some((head, _)) = read_request(&mut stream) else { continue };
            // The password of the configuration: "us:secret".
            let known =
                head.to_ascii_lowercase().contains("authorization: basic ") && head.contains("dXM6c2VjcmV0");
            answer(&mut stream, if known { "200 OK" } else { "401 Unauthorized" });
            heads.lock().push(head);
        }
    });
    port
}

/// An Alertmanager that takes requests and answers only after it was let go.
struct Hanging {
    address: String,
    bodies: Arc<Mutex<Vec<Value>>>,
    released: Arc<(Mutex<bool>, Condvar)>,
}

impl Hanging {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (bodies, released) =
            (Arc::<Mutex<Vec<Value>>>::default(), Arc::<(Mutex<bool>, Condvar)>::default());
        let (log, gate) = (Arc::clone(&bodies), Arc::clone(&released));
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let Some((_, body)) = read_request(&mut socket) else { continue };
                log.lock().push(serde_json::from_str(&body).expect("a list of alerts"));
                let (open, opened) = &*gate;
                let mut open = open.lock();
                while !*open {
                    opened.wait(&mut open);
                }
                answer(&mut socket, "200 OK");
            }
        });
        Self { address, bodies, released }
    }

    fn release(&self) {
        *self.released.0.lock() = true;
        self.released.1.notify_all();
    }
}

/// A counter of the notifier for one Alertmanager.
fn counted(server: &Server, name: &str, url: &str) -> Option<f64> {
    let line = format!("prometheus_notifications_{name}{{alertmanager=\"{url}\"}} ");
    let metrics = server.get("/metrics").text();
    metrics.lines().find_map(|l| l.strip_prefix(&line)?.parse().ok())
}

fn time(alert: &Value) -> jiff::Timestamp {
    alert["endsAt"].as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| panic!("{alert}"))
}

#[test]
fn one_that_hangs_delays_nobody_and_its_queue_drops_the_oldest() {
    let authority = Authority::new();
    let heads = Heads::default();
    let port = guarded(&authority, &heads);
    let hanging = Hanging::start();
    let alerting = format!(
        "  - timeout: 10m\n    static_configs: [{{targets: ['{}']}}]\n\
         \x20 - scheme: https\n    basic_auth: {{username: us, password: secret}}\n    tls_config: {{ca_file: ca.pem}}\n\
         \x20   static_configs: [{{targets: ['localhost:{port}']}}]\n\
         \x20 - scheme: https\n    path_prefix: /nobody\n    tls_config: {{ca_file: ca.pem}}\n\
         \x20   static_configs: [{{targets: ['localhost:{port}']}}]\n\
         \x20 - scheme: https\n    path_prefix: /untrusted\n    static_configs: [{{targets: ['localhost:{port}']}}]\n",
        hanging.address
    );
    let capacity = 2 * ALERTS;
    let flag = format!("--alertmanager.notification-queue-capacity={capacity}");
    let server = start(&alerting, &[("ca.pem", &authority.certificate.pem())], &[&flag]);
    let slow = format!("http://{}/api/v2/alerts", hanging.address);
    let fast = format!("https://localhost:{port}/api/v2/alerts");
    // While the first request hangs, two evaluations fit into the queue; those before the last two are dropped.
    until("the queue to overflow twice", PATIENCE, || match counted(&server, "dropped_total", &slow) {
        Some(dropped) if dropped >= 2.0 * ALERTS as f64 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(counted(&server, "queue_length", &slow), Some(capacity as f64));
    until("deliveries while the other one hangs", PATIENCE, || {
        let delivered = heads.lock().iter().filter(|h| h.starts_with("POST /api/v2/alerts ")).count();
        if delivered >= 4 { Ok(()) } else { Err(delivered.to_string()) }
    });
    assert_eq!(hanging.bodies.lock().len(), 1, "one request at a time");

    hanging.release();
    until("the next delivery", PATIENCE, || match hanging.bodies.lock().len() {
        0 | 1 => Err("none".to_owned()),
        _ => Ok(()),
    });
    let bodies = hanging.bodies.lock().clone();
    assert_eq!(bodies[1].as_array().map(Vec::len), Some(capacity), "all that fit, at once");
    let apart = time(&bodies[1][0]).as_millisecond() - time(&bodies[0][0]).as_millisecond();
    assert!(apart >= 3_000, "the two evaluations after the first are gone: {apart} ms");

    // Nobody else may know the password, and nobody is trusted without a reason.
    let failed = |prefix: &str| {
        let url = format!("https://localhost:{port}/{prefix}/api/v2/alerts");
        until("a failure", PATIENCE, || match counted(&server, "errors_total", &url) {
            Some(errors) if errors > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        heads.lock().iter().filter(|h| h.starts_with(&format!("POST /{prefix}/"))).count()
    };
    assert!(failed("nobody") > 0, "it was asked and refused");
    assert_eq!(failed("untrusted"), 0, "no request goes to a server that cannot be trusted");
    assert_eq!(counted(&server, "errors_total", &fast), Some(0.0));
}

#[test]
fn alertmanagers_come_and_go_with_the_files_that_name_them() {
    let counts: [Arc<Mutex<usize>>; 2] = Default::default();
    let managers = counts.clone().map(|count| {
        serve(move |_| {
            *count.lock() += 1;
            String::new()
        })
    });
    let names = |managers: &[&String]| serde_json::json!([{"targets": managers}]).to_string();
    let alerting = "  - file_sd_configs: [{files: [managers.json], refresh_interval: 1s}]\n";
    let server = start(alerting, &[("managers.json", &names(&[&managers[0]]))], &[]);
    let more = |which: usize, times: usize| {
        let wanted = *counts[which].lock() + times;
        until("deliveries", PATIENCE, || match *counts[which].lock() {
            count if count >= wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        });
    };
    more(0, 2);
    assert_eq!(*counts[1].lock(), 0);
    let name = |managers: &[&String]| {
        let part = server.path().join("part");
        std::fs::write(&part, names(managers)).expect("written");
        std::fs::rename(part, server.path().join("managers.json")).expect("renamed");
    };
    name(&[&managers[0], &managers[1]]);
    more(1, 2);
    more(0, 2);
    name(&[&managers[1]]);
    let url = |i: usize| format!("http://{}/api/v2/alerts", managers[i]);
    until("one Alertmanager", PATIENCE, || {
        let answer = server.get("/api/v1/alertmanagers").json();
        let wanted = serde_json::json!([{"url": url(1)}]);
        if answer["data"]["activeAlertmanagers"] == wanted { Ok(()) } else { Err(answer.to_string()) }
    });
    // What was on its way may still arrive.
    more(1, 2);
    let last = *counts[0].lock();
    more(1, 3);
    assert_eq!(*counts[0].lock(), last, "it is gone");
    assert_eq!(counted(&server, "sent_total", &url(0)), None);
}
