//! Silences over the HTTP API: read from every Alertmanager, written to one of those that are configured, only where
//! that is switched on, and never for another site's page.

use std::io::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

use super::server::Server;
use super::world::{Exporter, PATIENCE, until};

const PATH: &str = "/api/v1/alertmanagers/silences";
const SILENCE: &str = r#"{"matchers":[{"name":"a","value":"b","isRegex":false,"isEqual":true}],
    "startsAt":"2026-01-01T00:00:00Z","endsAt":"2026-01-02T00:00:00Z","createdBy":"me","comment":"why"}"#;

/// An Alertmanager that knows one silence, and the first lines of what it was asked.
fn alertmanager() -> (Exporter, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let server = Exporter::start(move |stream, head| {
        heard.lock().push(head.lines().next().unwrap_or_default().to_owned());
        let body = if head.starts_with("GET") {
            r#"[{"id":"1-2","comment":"</script>"}]"#
        } else {
            r#"{"silenceID":"3-4"}"#
        };
        let lines = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        // A client that leaves is no fault.
        let _ = stream.write_all(format!("{lines}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    });
    (server, asked)
}

fn config(targets: &[String]) -> String {
    format!(
        "alerting:\n  alertmanagers:\n    - path_prefix: /am\n      static_configs: [{{targets: {targets:?}}}]\n"
    )
}

#[test]
fn silences_are_read_and_written_at_the_configured_alertmanagers_alone() {
    let (one, asked) = alertmanager();
    let targets = [one.address.to_string(), "127.0.0.1:1".to_owned()];
    let server = Server::start(&config(&targets), &["--web.enable-admin-api"]);
    let all = until("both Alertmanagers", PATIENCE, || {
        let answer = server.get(PATH).json();
        let list = answer["data"]["alertmanagers"].as_array().cloned().unwrap_or_default();
        if list.len() == 2 { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    });
    assert_eq!(all["writable"], true);
    let url = format!("http://{}/am/api/v2/alerts", one.address);
    let of = |wanted: &str| {
        let list = all["alertmanagers"].as_array().expect("a list");
        list.iter().find(|a| a["url"] == wanted).cloned().expect("the Alertmanager")
    };
    assert_eq!(of(&url)["silences"][0]["id"], "1-2");
    let dead = of("http://127.0.0.1:1/am/api/v2/alerts");
    assert!(dead["error"].is_string() && dead["silences"].is_null(), "{dead}");

    let json = [("Content-Type", "application/json")];
    let send = |path: &str, headers: &[(&str, &str)], body: &str| {
        server.send("POST", path, headers, body.as_bytes())
    };
    let wish = format!(r#"{{"alertmanager":"{url}","silence":{SILENCE}}}"#);
    let added = send(PATH, &json, &wish);
    assert_eq!((added.status, added.json()["data"]["silenceID"].as_str()), (200, Some("3-4")), "{added:?}");
    let ended = send(&format!("{PATH}/expire"), &json, &format!(r#"{{"alertmanager":"{url}","id":"3-4"}}"#));
    assert_eq!(ended.status, 200, "{ended:?}");
    let written: Vec<String> = asked.lock().iter().filter(|l| !l.starts_with("GET")).cloned().collect();
    assert_eq!(
        written,
        ["POST /am/api/v2/silences HTTP/1.1", "DELETE /am/api/v2/silence/3-4 HTTP/1.1"],
        "nothing else was asked"
    );

    let before = asked.lock().len();
    let foreign = [("Content-Type", "application/json"), ("Origin", "http://evil.example")];
    let elsewhere = format!(r#"{{"alertmanager":"http://{}/x/alerts","silence":{SILENCE}}}"#, one.address);
    let unknown = format!(r#"{{"alertmanager":"{url}","silence":{SILENCE},"more":1}}"#);
    let empty = format!(
        r#"{{"alertmanager":"{url}","silence":{}}}"#,
        SILENCE.replace(r#"{"name":"a","value":"b","isRegex":false,"isEqual":true}"#, "")
    );
    let path_in_id = format!(r#"{{"alertmanager":"{url}","id":"../alerts"}}"#);
    for (path, headers, body) in [
        (PATH.to_owned(), &foreign[..], &wish),
        (PATH.to_owned(), &[("Content-Type", "text/plain")][..], &wish),
        (PATH.to_owned(), &json[..], &elsewhere),
        (PATH.to_owned(), &json[..], &unknown),
        (PATH.to_owned(), &json[..], &empty),
        (format!("{PATH}/expire"), &json[..], &path_in_id),
    ] {
        let refused = send(&path, headers, body);
        assert!((400..500).contains(&refused.status), "{body}: {refused:?}");
    }
    assert_eq!(asked.lock().len(), before, "refused wishes reach nobody");
}

#[test]
fn silences_are_read_only_unless_switched_on() {
    let (one, asked) = alertmanager();
    let server = Server::start(&config(&[one.address.to_string()]), &[]);
    assert_eq!(server.get(PATH).json()["data"]["writable"], false);
    let wish = format!(r#"{{"silence":{SILENCE}}}"#);
    let answer = server.send("POST", PATH, &[("Content-Type", "application/json")], wish.as_bytes());
    assert_eq!(answer.json()["errorType"], "unavailable", "{answer:?}");
    assert!(asked.lock().iter().all(|l| l.starts_with("GET")));
}

#[test]
fn the_file_on_disk_is_compared_with_what_runs() {
    let server = Server::start("global: {scrape_interval: 7s}\n", &[]);
    let path = server.path().join("prometheus.yml");
    let disk = || server.get("/api/v1/status/config/disk").json()["data"].clone();
    let running = server.get("/api/v1/status/config").json()["data"]["yaml"].clone();
    assert_eq!(disk()["yaml"], running);
    std::fs::write(&path, "global: {scrape_interval: 8s}\n").expect("the file is written");
    assert!(disk()["yaml"].as_str().is_some_and(|y| y.contains("scrape_interval: 8s")));
    std::fs::write(&path, "globul: {}\n").expect("the file is written");
    assert!(disk()["error"].as_str().is_some_and(|e| e.contains("globul")), "{}", disk());
}
