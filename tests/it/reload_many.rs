//! Ten thousand targets and a configuration that is loaded again and again: no scrape of a target that stays is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::server::Server;
use super::world::{PATIENCE, request, scalar, until};

const TARGETS: usize = 10_000;
/// So many of them are scraped often; the others are there to be worked out anew.
const OFTEN: usize = 150;
const INTERVAL: Duration = Duration::from_secs(3);

/// When each path was asked for.
type Asked = Arc<Mutex<BTreeMap<String, Vec<Instant>>>>;

async fn serve(mut stream: TcpStream, asked: Asked) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        asked.lock().expect("no panic").entry(path).or_default().push(Instant::now());
        let body = "# HELP fine All is well.\n# TYPE fine gauge\nfine 1\n";
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        buffer.drain(..end);
    }
}

/// A fleet on one port; ends with the process.
fn fleet() -> (String, Asked) {
    let asked = Asked::default();
    let (send, address) = std::sync::mpsc::channel();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            send.send(listener.local_addr().expect("an address").to_string()).expect("somebody waits");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
    });
    (address.recv().expect("the fleet starts"), asked)
}

fn configuration(address: &str, limit: u32) -> String {
    let mut out = format!(
        "global: {{scrape_interval: 1h, scrape_timeout: 10s}}\nscrape_configs:\n  - job_name: files\n    \
         sample_limit: {limit}\n    file_sd_configs: [{{files: ['targets.json']}}]\n    relabel_configs: \
         [{{source_labels: [number], target_label: __metrics_path__, replacement: '/$1'}}]\n  - job_name: static\n    \
         static_configs:\n"
    );
    for number in TARGETS / 2..TARGETS {
        out.push_str(&format!(
            "      - {{targets: ['{address}'], labels: {{number: 's{number}', __metrics_path__: /s{number}}}}}\n"
        ));
    }
    out
}

/// The targets of the file, those of `range`; the first ones are scraped often.
fn write_targets(folder: &Path, address: &str, range: std::ops::Range<usize>) {
    let interval = INTERVAL.as_secs();
    let groups: Vec<serde_json::Value> = range
        .map(|number| {
            let often = serde_json::json!({
                "number": format!("{number}"),
                "__scrape_interval__": format!("{interval}s"),
                "__scrape_timeout__": format!("{interval}s"),
            });
            let seldom = serde_json::json!({"number": format!("{number}")});
            serde_json::json!({"targets": [address], "labels": if number < OFTEN { often } else { seldom }})
        })
        .collect();
    let part = folder.join("targets.part");
    std::fs::write(&part, serde_json::to_vec(&groups).expect("it is JSON")).expect("it is written");
    std::fs::rename(part, folder.join("targets.json")).expect("it is renamed");
}

/// Targets of the job that reads the file.
fn found(address: &str) -> Result<f64, String> {
    let text = request(address, "GET", "/metrics", &[], b"").map_err(|e| e.to_string())?.text();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("prometheus_target_scrape_pool_targets{scrape_job=\"files\"} "));
    line.and_then(|v| v.parse().ok()).ok_or_else(|| "no such metric".to_owned())
}

fn until_found(address: &str, wanted: usize) -> Duration {
    let begun = Instant::now();
    until("the targets are found", PATIENCE, || match found(address) {
        Ok(n) if n == wanted as f64 => Ok(()),
        other => Err(format!("{other:?}, not {wanted}")),
    });
    begun.elapsed()
}

#[test]
fn reloading_ten_thousand_targets_loses_no_scrape() {
    let (fleet, asked) = fleet();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let half = TARGETS / 2;
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, configuration(&fleet, 1000)).expect("it is written");
    write_targets(folder.path(), &fleet, 0..half);
    let flags = [
        "--web.enable-lifecycle",
        "--config.auto-reload",
        "--config.auto-reload-interval=1s",
        "--scrape.discovery-reload-interval=1s",
    ];
    let server = Server::start_in(folder, &flags);
    let at = &server.address;
    until_found(at, half);
    let rounds = |n: usize| {
        until("the targets are scraped", PATIENCE, || {
            let asked = asked.lock().expect("no panic");
            let count = |number: usize| asked.get(&format!("/{number}")).map_or(0, Vec::len);
            match (0..OFTEN).map(count).min() {
                Some(least) if least >= n => Ok(()),
                other => Err(format!("{other:?} scrapes")),
            }
        });
    };
    rounds(1);
    // Nothing has changed.
    let begun = Instant::now();
    assert_eq!(server.post_form("/-/reload", "").status, 200);
    eprintln!("reload without a change: {:?}", begun.elapsed());
    // A job has changed: its targets are worked out anew.
    std::fs::write(&config, configuration(&fleet, 2000)).expect("it is written");
    let begun = Instant::now();
    assert_eq!(server.post_form("/-/reload", "").status, 200);
    eprintln!("reload with a changed job: {:?}", begun.elapsed());
    rounds(2);
    // The same by signal and by itself; the log says when.
    std::fs::write(&config, configuration(&fleet, 3000)).expect("it is written");
    server.wait_for_line("Configuration file change detected");
    let begun = Instant::now();
    server.wait_for_line("Completed loading of configuration file");
    eprintln!("reload after the file has changed: {:?}", begun.elapsed());
    server.signal("HUP");
    server.wait_for_line("Completed loading of configuration file");
    // Targets come and go.
    write_targets(server.path(), &fleet, 0..half - 40);
    let gone = until_found(at, half - 40);
    write_targets(server.path(), &fleet, 0..half);
    let back = until_found(at, half);
    eprintln!("targets of the file: fewer after {gone:?}, more after {back:?}");
    // A bad configuration changes nothing.
    std::fs::write(&config, "scrape_configs: [{job_name: x, nonsense: 1}]\n").expect("it is written");
    server.wait_for_line("Error reloading config");
    assert_eq!(server.post_form("/-/reload", "").status, 500);
    std::fs::write(&config, configuration(&fleet, 3000)).expect("it is written");
    server.wait_for_line("Completed loading of configuration file");
    let so_far = asked.lock().expect("no panic")["/0"].len();
    rounds(so_far + 1);
    let never_down = scalar(at, "min(min_over_time(up{job=\"files\"}[5m]))");
    assert_eq!(never_down, Ok(1.0));
    let asked = asked.lock().expect("no panic");
    let mut longest = Duration::ZERO;
    for number in 0..OFTEN {
        let times = &asked[&format!("/{number}")];
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            longest = longest.max(gap);
            assert!(gap < INTERVAL * 2 - INTERVAL / 6, "target {number} was not scraped for {gap:?}");
            assert!(gap > INTERVAL / 6, "target {number} was scraped again after {gap:?}");
        }
    }
    eprintln!("longest time between two scrapes, {INTERVAL:?} apart: {longest:?}");
}
