//! The server under attack: sockets that never finish their headers, bodies that trickle, junk, floods of queries,
//! readers that do not read. Health must be told and scraping must go on meanwhile, and memory stays bounded.
//! `MEERKAT_ATTACK=full` runs the large version and prints its figures.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::server::Server;
use super::world::{Exporter, PATIENCE, request, resident_bytes, until};

fn full() -> bool {
    std::env::var("MEERKAT_ATTACK").is_ok_and(|v| v == "full")
}

/// One attack at a time: they would measure each other.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A server that scrapes an exporter each second, and the times between its scrapes.
struct Bench {
    server: Server,
    scrapes: Arc<AtomicUsize>,
    _exporter: Exporter,
}

impl Bench {
    fn start(flags: &[&str]) -> Self {
        let scrapes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&scrapes);
        let exporter = Exporter::text(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            (0..200).map(|i| format!("m{{i=\"{i}\"}} {i}\n")).collect()
        });
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: e, static_configs: [{{targets: ['{}']}}]}}]\n",
            exporter.address
        );
        Self { server: Server::start(&config, flags), scrapes, _exporter: exporter }
    }

    /// Asks for health again and again for a while; latencies in order. Whoever is not answered fails.
    fn health_for(&self, time: Duration) -> Vec<Duration> {
        let begun = Instant::now();
        let mut out = Vec::new();
        while begun.elapsed() < time {
            let asked = Instant::now();
            let answer = request(&self.server.address, "GET", "/-/healthy", &[], b"");
            let answer = answer.unwrap_or_else(|e| panic!("no health after {:?}: {e}", begun.elapsed()));
            assert_eq!(answer.status, 200);
            out.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
        out.sort();
        out
    }

    /// Health and scrapes while something goes on; the attack's name is for the figures.
    fn watch(&self, attack: &str) {
        let time = Duration::from_secs(if full() { 20 } else { 2 });
        let before = self.scrapes.load(Ordering::Relaxed);
        let begun = Instant::now();
        let latencies = self.health_for(time);
        let scrapes = self.scrapes.load(Ordering::Relaxed) - before;
        let at = |part: usize| latencies[(latencies.len() * part / 100).min(latencies.len() - 1)];
        println!(
            "{attack}: health p50 {:?} p99 {:?} max {:?} of {}; {scrapes} scrapes in {:?}; resident {:.0} MiB",
            at(50),
            at(99),
            latencies[latencies.len() - 1],
            latencies.len(),
            begun.elapsed(),
            resident_bytes(&self.server.address) / 1048576.0,
        );
        // The machine may be busy with other things, so times are printed and not judged.
        let before = self.scrapes.load(Ordering::Relaxed);
        until(attack, PATIENCE, || match self.scrapes.load(Ordering::Relaxed) - before {
            0 => Err("no further scrape".into()),
            _ => Ok(()),
        });
    }
}

/// Threads that go on until told to stop.
struct Attackers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attackers {
    fn start(count: usize, attack: impl Fn(&AtomicBool) + Send + Sync + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let attack = Arc::new(attack);
        let threads = (0..count)
            .map(|_| {
                let (stop, attack) = (Arc::clone(&stop), Arc::clone(&attack));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        attack(&stop);
                    }
                })
            })
            .collect();
        Self { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an attacker may not fail");
        }
    }
}

fn connect(address: &str) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(20))).ok()?;
    Some(stream)
}

#[test]
fn slow_headers_and_bodies_keep_nobody_out() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::start(&["--web.max-connections=64"]);
    let address = bench.server.address.clone();
    let sockets = if full() { 5000 } else { 300 };
    for (name, head) in [
        ("slow headers", "GET /-/healthy HTTP/1.1\r\nX-Slow: ".to_owned()),
        ("silence", String::new()),
        (
            "slow bodies",
            "POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nquery=".to_owned(),
        ),
    ] {
        let mut open: Vec<TcpStream> = Vec::new();
        for _ in 0..sockets {
            let Some(mut stream) = connect(&address) else { continue };
            // Those that had to make room are closed by now.
            if stream.write_all(head.as_bytes()).is_ok() {
                open.push(stream);
            }
            if open.len() >= 1000 {
                open.drain(..500);
            }
        }
        bench.watch(name);
    }
}

#[test]
fn junk_is_answered_or_dropped() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = Bench::start(&[]);
    let address = bench.server.address.clone();
    let junk: Vec<Vec<u8>> = vec![
        vec![0; 4096],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        [b"GET /?".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'b'; 200_000], b"\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(5000), b"\r\n".to_vec()].concat(),
        b"POST /api/v1/query HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzzz"
            .to_vec(),
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
            .to_vec(),
        b"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec(),
        b"GET /api/v1/query?query=up HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200),
    ];
    let attackers = Attackers::start(if full() { 16 } else { 4 }, move |_| {
        for bytes in &junk {
            let Some(mut stream) = connect(&address) else { return };
            // The server may hang up at any point; all that counts is that it goes on for others.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    bench.watch("junk");
    attackers.end();
    let panics = bench.server.get("/metrics").text();
    assert!(panics.contains("prometheus_ready 1"));
}

#[test]
fn floods_of_queries_leave_room_for_health() {
    let bench =
        Bench::start(&["--web.max-connections=64", "--query.max-concurrency=4", "--query.timeout=2s"]);
    let address = bench.server.address.clone();
    let before = resident_bytes(&address);
    let heavy = "/api/v1/query_range?query=sum(rate(m%5B1h%3A1s%5D))&start=1&end=100000&step=10";
    let statuses = Arc::new([const { AtomicUsize::new(0) }; 6]);
    let counted = Arc::clone(&statuses);
    let attackers = Attackers::start(if full() { 400 } else { 120 }, move |_| {
        // Connections may be refused; answers must be whole.
        if let Ok(answer) = request(&address, "GET", heavy, &[], b"") {
            counted[usize::from(answer.status / 100)].fetch_add(1, Ordering::Relaxed);
            assert!(matches!(answer.status, 200 | 422 | 429 | 503), "{} {}", answer.status, answer.text());
            if answer.status == 503 {
                assert!(answer.header("Retry-After").is_some(), "{}", answer.text());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    bench.watch("queries");
    // Those who do not read their answers.
    let address = bench.server.address.clone();
    let mut deaf: Vec<TcpStream> = (0..40).filter_map(|_| connect(&address)).collect();
    for stream in &mut deaf {
        let path = "/api/v1/query_range?query=m&start=1&end=11000&step=1";
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    bench.watch("queries and deaf readers");
    drop(deaf);
    attackers.end();
    let after = resident_bytes(&bench.server.address);
    println!("answers by hundred: {statuses:?}");
    assert!(after < before + 1.5e9, "resident memory went from {before} to {after} bytes");
    assert_eq!(bench.server.get("/api/v1/query?query=1").status, 200);
}

/// Sends a head, then its body in two parts with a pause before each; what is answered until the connection ends.
fn answered_while_sending(address: &str, head: &str, body: &[u8], pauses: [u64; 2]) -> String {
    let mut stream = connect(address).expect("a connection");
    stream.write_all(head.as_bytes()).expect("the head is taken");
    let (first, second) = body.split_at(body.len() / 2);
    for (part, pause) in [first, second].into_iter().zip(pauses) {
        std::thread::sleep(Duration::from_millis(pause));
        // The answer counts, whatever becomes of the rest.
        let _ = stream.write_all(part);
    }
    // Meanwhile a reset would throw away what came.
    std::thread::sleep(Duration::from_millis(60));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the connection ends in order");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn who_is_still_sending_gets_the_answer() {
    let server = Server::start("global: {}\n", &[]);
    let post = |path: &str, kind: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let long = 2 << 20;
    let cases = [
        ("no form", "400", post("/api/v1/query", "application/json", 7), 7),
        ("a longer one", "400", post("/api/v1/query", "application/json", 200_000), 200_000),
        ("longer than what is read in vain", "400", post("/api/v1/query", "text/plain", long), long),
        ("no such path", "404", post("/nowhere", "text/plain", 1000), 1000),
        ("a head that is too long", "431", "GET / HTTP/1.1\r\nHost: x\r\nX: ".to_owned(), 300_000),
    ];
    for (name, status, head, length) in cases {
        for pauses in [[0, 0], [0, 60], [60, 60]] {
            let answer = answered_while_sending(&server.address, &head, &vec![b'x'; length], pauses);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name} {pauses:?}: {answer}");
        }
    }
    let mut kept = connect(&server.address).expect("a connection");
    let two = post("/api/v1/query", "application/json", 7).replace("Connection: close\r\n", "");
    kept.write_all(two.as_bytes()).expect("the head is taken");
    std::thread::sleep(Duration::from_millis(60));
    let next = post("/-/healthy", "text/plain", 0).replace("POST", "GET");
    kept.write_all(format!("{{\"a\":1}}{next}").as_bytes()).expect("the connection is kept");
    let mut answers = String::new();
    kept.read_to_string(&mut answers).expect("the connection ends in order");
    assert!(answers.contains(" 400 ") && answers.contains("Server is Healthy"), "{answers}");
}
