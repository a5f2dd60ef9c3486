//! Remote write to others, judged from outside: whatever Meerkat has, its peer has in the end, each sample once, over
//! outages of the peer and `kill -9` of the sender. The strict peer refuses a whole request for one sample that it has
//! already, as Prometheus does.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;

use super::remote_messages::{RequestV2, WriteRequest};
use super::server::Server;
use super::world::{Exporter, PATIENCE, request, start_prometheus, until, with_parameters};

/// Series of the exporter: no divisor of the size of requests, so that scrapes are cut apart.
const SERIES: u64 = 37;

/// Samples by series (as its labels) and time.
type Samples = BTreeMap<String, BTreeMap<i64, String>>;

/// What a peer was told and what it answers.
#[derive(Default)]
struct Ledger {
    samples: Samples,
    newest: BTreeMap<String, i64>,
    /// Answered to everything, with these header lines.
    status: Option<(u16, &'static str)>,
    requests: u64,
    refused: u64,
    repeated: u64,
    encodings: BTreeMap<String, u64>,
    families: BTreeMap<String, (u32, String)>,
}

/// A remote-write server with Prometheus's rules for samples.
struct Peer {
    address: String,
    ledger: Arc<Mutex<Ledger>>,
}

impl Peer {
    /// `extra` is a header line of every answer.
    fn start(extra: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let ledger = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &ledger, extra));
            }
        });
        Self { address, ledger }
    }

    fn set_status(&self, status: Option<(u16, &'static str)>) {
        self.ledger.lock().status = status;
    }

    fn samples(&self) -> Samples {
        self.ledger.lock().samples.clone()
    }
}

/// Serves one connection until the client leaves.
fn serve(stream: TcpStream, ledger: &Mutex<Ledger>, extra: &str) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.trim_end().split_once(": ") {
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
        let length: usize = headers.get("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, more) = take(&mut ledger.lock(), &headers, &body);
        let answer = format!("HTTP/1.1 {status} X\r\n{more}{extra}Content-Length: 0\r\n\r\n");
        out.write_all(answer.as_bytes()).ok()?;
    }
}

fn take(ledger: &mut Ledger, headers: &BTreeMap<String, String>, body: &[u8]) -> (u16, String) {
    ledger.requests += 1;
    ledger.repeated += u64::from(headers.contains_key("retry-attempt"));
    if let Some((status, headers)) = ledger.status {
        return (status, headers.to_owned());
    }
    let encoding = headers["content-encoding"].clone();
    let message = match encoding.as_str() {
        "snappy" => snap::raw::Decoder::new().decompress_vec(body).expect("snappy"),
        _ => zstd::bulk::decompress(body, 32 << 20).expect("zstd"),
    };
    *ledger.encodings.entry(encoding).or_default() += 1;
    let mut fresh: Vec<(String, i64, f64)> = Vec::new();
    let second = headers["x-prometheus-remote-write-version"] == "2.0.0";
    if second {
        let request = RequestV2::decode(&*message).expect("version 2.0");
        for series in request.timeseries {
            let text = |i: u32| request.symbols[i as usize].clone();
            let pairs = series.labels_refs.chunks(2).map(|p| format!("{}={}", text(p[0]), text(p[1])));
            let name = pairs.collect::<Vec<_>>().join(",");
            fresh.extend(series.samples.iter().map(|s| (name.clone(), s.timestamp, s.value)));
        }
    } else {
        let request = WriteRequest::decode(&*message).expect("version 1.0");
        for family in request.metadata {
            ledger.families.insert(family.metric_family_name, (family.kind, family.help));
        }
        for series in request.timeseries {
            let pairs = series.labels.iter().map(|l| format!("{}={}", l.name, l.value));
            let name = pairs.collect::<Vec<_>>().join(",");
            fresh.extend(series.samples.iter().map(|s| (name.clone(), s.timestamp, s.value)));
        }
    }
    let mut newest = ledger.newest.clone();
    for (series, t_ms, value) in &fresh {
        let last = newest.get(series).copied().unwrap_or(i64::MIN);
        let known = ledger.samples.get(series).and_then(|s| s.get(t_ms));
        let same = known.is_none_or(|v| *v == value.to_string());
        if *t_ms < last || !same {
            ledger.refused += 1;
            let counts = "X-Prometheus-Remote-Write-Samples-Written: 0\r\n";
            return (400, counts.to_owned());
        }
        newest.insert(series.clone(), *t_ms);
    }
    ledger.newest = newest;
    let count = fresh.len();
    for (series, t_ms, value) in fresh {
        ledger.samples.entry(series).or_default().insert(t_ms, value.to_string());
    }
    (204, format!("X-Prometheus-Remote-Write-Samples-Written: {count}\r\n"))
}

/// What a server has of the exporter's metric.
fn stored(address: &str) -> Result<Samples, String> {
    let path = with_parameters("/api/v1/query", &[("query", "sent_total[1h]")]);
    let answer = request(address, "GET", &path, &[], b"").map_err(|e| e.to_string())?;
    let json = answer.json();
    let mut out = Samples::new();
    for row in json["data"]["result"].as_array().ok_or_else(|| answer.text())? {
        let metric = row["metric"].as_object().ok_or("no labels")?;
        let pairs = metric.iter().map(|(n, v)| format!("{n}={}", v.as_str().unwrap_or("")));
        let mut pairs: Vec<String> = pairs.collect();
        pairs.sort();
        let samples = row["values"].as_array().ok_or("no values")?.iter().map(|v| {
            let t_ms = (v[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (t_ms, v[1].as_str().unwrap_or("").to_owned())
        });
        out.insert(pairs.join(","), samples.collect());
    }
    Ok(out)
}

fn only_sent(samples: Samples) -> Samples {
    samples.into_iter().filter(|(series, _)| series.contains("__name__=sent_total")).collect()
}

/// Counts scrapes and serves a counter of which each sample is different.
fn exporter() -> (Exporter, Arc<AtomicU64>) {
    let served = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&served);
    let exporter = Exporter::text(move || {
        let scrape = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let lines = (0..SERIES).map(|n| format!("sent_total{{n=\"{n}\"}} {}\n", scrape * 64 + n));
        std::iter::once("# HELP sent_total Sent.\n# TYPE sent_total counter\n".to_owned())
            .chain(lines)
            .collect()
    });
    (exporter, served)
}

fn config(exporter: &Exporter, peer: &str, more: &str) -> String {
    format!(
        "global: {{scrape_interval: 100ms}}\nscrape_configs:\n  - job_name: sent\n    static_configs: \
         [{{targets: ['{}']}}]\nremote_write:\n  - url: http://{peer}/api/v1/write\n    name: peer\n    {more}\n",
        exporter.address
    )
}

const QUEUE: &str = "queue_config: {max_samples_per_send: 50, min_shards: 3, batch_send_deadline: 20ms, \
                     max_backoff: 100ms}";

/// Scraping goes on meanwhile; the peer has to come up to what was there when it was asked.
fn wait_for_all(server: &Server, theirs: impl Fn() -> Samples, context: &str) {
    let mine = stored(&server.address).expect("the server answers");
    assert_eq!(mine.len() as u64, SERIES, "{context}");
    until(context, PATIENCE, || {
        let theirs = theirs();
        for (series, samples) in &mine {
            for (t_ms, value) in samples {
                let got = theirs.get(series).and_then(|s| s.get(t_ms));
                if got != Some(value) {
                    return Err(format!("{series} at {t_ms}: {got:?} instead of {value}"));
                }
            }
        }
        Ok(())
    });
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|l| l.starts_with(name) && l.contains("remote_name=\"peer\""));
    let line = line.unwrap_or_else(|| panic!("no {name}"));
    line.rsplit_once(' ').and_then(|(_, v)| v.parse().ok()).expect("a number")
}

#[test]
fn nothing_is_missing_after_kills_of_the_sender() {
    let version = "prometheus.WriteRequest";
    let peer = Peer::start("");
    let (exporter, served) = exporter();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let text = config(&exporter, &peer.address, &format!("protobuf_message: {version}\n    {QUEUE}"));
    let mut folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), text).expect("the configuration is written");
    let flags = ["--storage.tsdb.wal-segment-size=64KB"];
    for cycle in 0..5 {
        let mut server = Server::start_in(folder, &flags);
        let first = served.load(Ordering::SeqCst);
        until("scrapes", PATIENCE, || {
            let scrapes = served.load(Ordering::SeqCst) - first;
            if scrapes >= 3 { Ok(()) } else { Err(format!("{scrapes}")) }
        });
        // Every other time the peer is away when the process ends.
        if cycle % 2 == 1 {
            peer.set_status(Some((503, "")));
        }
        std::thread::sleep(Duration::from_millis(random.u64(..300)));
        server.signal("KILL");
        server.wait();
        peer.set_status(None);
        folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    }
    let server = Server::start_in(folder, &flags);
    wait_for_all(&server, || peer.samples(), &format!("seed {seed}"));
    let (mine, theirs) = (stored(&server.address).expect("an answer"), only_sent(peer.samples()));
    for (series, samples) in &theirs {
        for t_ms in samples.keys() {
            // What came after the answer was given does not count.
            let newest = mine[series].keys().next_back().copied().unwrap_or(0);
            assert!(
                *t_ms > newest || mine[series].contains_key(t_ms),
                "seed {seed}: {series} at {t_ms} was never stored"
            );
        }
    }
    let (requests, refused) = {
        let ledger = peer.ledger.lock();
        (ledger.requests, ledger.refused)
    };
    let samples: usize = theirs.values().map(BTreeMap::len).sum();
    eprintln!("{samples} samples, {requests} requests, {refused} refused as known");
}

#[test]
fn a_peer_that_was_away_gets_everything_and_a_refusal_costs_its_request_only() {
    let peer = Peer::start("");
    let (exporter, _) = exporter();
    let more = format!("metadata_config: {{send_interval: 100ms}}\n    {QUEUE}");
    let server = Server::start(&config(&exporter, &peer.address, &more), &[]);
    until("first samples", PATIENCE, || {
        if only_sent(peer.samples()).is_empty() { Err("none".into()) } else { Ok(()) }
    });
    peer.set_status(Some((500, "Retry-After: 0\r\n")));
    until("retries", PATIENCE, || if peer.ledger.lock().repeated > 3 { Ok(()) } else { Err("none".into()) });
    // The process may end and come back while the peer is away; it does not wait for it.
    let begun = std::time::Instant::now();
    let folder = server.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "the stop waited for a peer that is away");
    let server = Server::start_in(folder, &[]);
    peer.set_status(None);
    wait_for_all(&server, || peer.samples(), "after the outage");
    assert_eq!(metric(&server, "prometheus_remote_storage_samples_dropped_total"), 0.0);
    until("metadata", PATIENCE, || match peer.ledger.lock().families.get("sent_total") {
        Some((1, help)) if help == "Sent." => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A refusal is final.
    let before = metric(&server, "prometheus_remote_storage_samples_failed_total");
    peer.set_status(Some((429, "")));
    until("failures", PATIENCE, || {
        let failed = metric(&server, "prometheus_remote_storage_samples_failed_total");
        if failed > before { Ok(()) } else { Err(format!("{failed}")) }
    });
    peer.set_status(None);
    let sent = metric(&server, "prometheus_remote_storage_samples_total");
    until("sending goes on", PATIENCE, || {
        let now = metric(&server, "prometheus_remote_storage_samples_total");
        if now > sent { Ok(()) } else { Err(format!("{now}")) }
    });
}

#[test]
fn zstd_is_used_where_the_peer_offers_it() {
    let peer = Peer::start("Accept-Encoding: snappy, zstd\r\n");
    let (exporter, _) = exporter();
    let more = format!("protobuf_message: io.prometheus.write.v2.Request\n    {QUEUE}");
    let server = Server::start(&config(&exporter, &peer.address, &more), &[]);
    until("zstd", PATIENCE, || {
        let encodings = peer.ledger.lock().encodings.clone();
        if encodings.get("zstd") > Some(&3) { Ok(()) } else { Err(format!("{encodings:?}")) }
    });
    wait_for_all(&server, || peer.samples(), "over zstd");
}

#[test]
fn a_reload_changes_what_is_sent_and_loses_nothing() {
    let peer = Peer::start("");
    let (exporter, _) = exporter();
    let server = Server::start(&config(&exporter, &peer.address, QUEUE), &["--web.enable-lifecycle"]);
    until("first samples", PATIENCE, || {
        if only_sent(peer.samples()).is_empty() { Err("none".into()) } else { Ok(()) }
    });
    let rules = "write_relabel_configs: [{target_label: copy, replacement: 'yes'}]";
    let text = config(&exporter, &peer.address, &format!("{rules}\n    {QUEUE}"));
    std::fs::write(server.path().join("prometheus.yml"), text).expect("written");
    assert_eq!(server.send("POST", "/-/reload", &[], b"").status, 200);
    until("relabelled samples", PATIENCE, || {
        if peer.samples().keys().any(|k| k.contains("copy=yes")) { Ok(()) } else { Err("none".into()) }
    });
    let both = || {
        let mut out = Samples::new();
        for (series, samples) in peer.samples() {
            out.entry(series.replace(",copy=yes", "")).or_default().extend(samples);
        }
        out
    };
    wait_for_all(&server, both, "over the reload");
}

#[test]
fn prometheus_takes_everything_over_kills_and_outages() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((peer, address)) = start_prometheus(folder.path(), "global: {scrape_interval: 1h}\n") else {
        return;
    };
    let (exporter, served) = exporter();
    for version in ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] {
        let more = format!(
            "protobuf_message: {version}\n    write_relabel_configs: [{{target_label: v, replacement: {}}}]\n    {QUEUE}",
            version.len()
        );
        let mut own = tempfile::tempdir().expect("a folder");
        let text = config(&exporter, &address, &more);
        std::fs::write(own.path().join("prometheus.yml"), text).expect("the configuration is written");
        for _ in 0..3 {
            let mut server = Server::start_in(own, &[]);
            let first = served.load(Ordering::SeqCst);
            until("scrapes", PATIENCE, || {
                let scrapes = served.load(Ordering::SeqCst) - first;
                if scrapes >= 4 { Ok(()) } else { Err(format!("{scrapes}")) }
            });
            server.signal("KILL");
            server.wait();
            own = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
        }
        let server = Server::start_in(own, &[]);
        let theirs = || {
            let suffix = format!(",v={}", version.len());
            let all = stored(&address).unwrap_or_default();
            all.into_iter().filter_map(|(k, v)| Some((k.strip_suffix(&suffix)?.to_owned(), v))).collect()
        };
        wait_for_all(&server, theirs, version);
    }
    drop(peer);
}
