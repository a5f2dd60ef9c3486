//! A fleet of exporters in one process: N targets on one port, each replaying recorded scrapes from a place of its
//! own, for measuring what scrapes them.
//!
//! `cargo run --release --example fleet -- --listen 127.0.0.1:9200 --targets 2000 --corpus node.rec.zst`
//!
//! Target i answers at `/targets/<i>/metrics`, compressed when asked. A recording is zstd over frames of a
//! little-endian u32 length and a body; without `--corpus` bodies are made up. Bodies are compressed ahead of time,
//! so that serving costs next to nothing. `/targets.json` lists the fleet for HTTP service discovery.
//!
//! With `--churn 10` a tenth of the series of each target is replaced by others every `--churn-seconds` (300): they
//! carry a label that counts up. Targets do so one after the other, so that every stretch of time sees as much of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head that is read.
const MAX_HEAD: usize = 16 << 10;

struct Options {
    listen: String,
    targets: usize,
    corpus: Option<String>,
    churn: Churn,
}

/// How series come and go.
#[derive(Clone, Copy)]
struct Churn {
    /// Of a hundred series, so many are replaced.
    percent: u64,
    period: Duration,
}

struct Answer {
    plain: Vec<u8>,
    gzip: Vec<u8>,
}

struct Fleet {
    listen: String,
    bodies: Vec<Vec<u8>>,
    churn: Churn,
    begun: Instant,
    /// What is ready to be sent, by generation of the series that are replaced.
    answers: Mutex<BTreeMap<u64, Arc<Vec<Answer>>>>,
    /// How often each target was asked.
    asked: Vec<AtomicUsize>,
}

fn options() -> Result<Options, String> {
    let churn = Churn { percent: 0, period: Duration::from_secs(300) };
    let mut options = Options { listen: "127.0.0.1:9200".into(), targets: 100, corpus: None, churn };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--listen" => options.listen = value()?,
            "--targets" => options.targets = value()?.parse().map_err(|e| format!("--targets: {e}"))?,
            "--corpus" => options.corpus = Some(value()?),
            "--churn" => {
                options.churn.percent = value()?.parse().map_err(|e| format!("--churn: {e}"))?;
            }
            "--churn-seconds" => {
                let seconds: u64 = value()?.parse().map_err(|e| format!("--churn-seconds: {e}"))?;
                options.churn.period = Duration::from_secs(seconds.max(1));
            }
            other => {
                let known = "--listen, --targets, --corpus, --churn, --churn-seconds";
                return Err(format!("unknown argument {other}; known: {known}"));
            }
        }
    }
    Ok(options)
}

/// The bodies of a recording.
fn recorded(path: &str) -> Result<Vec<Vec<u8>>, String> {
    let file = std::fs::File::open(path).map_err(|e| format!("cannot open {path}: {e}"))?;
    let bytes = zstd::decode_all(file).map_err(|e| format!("cannot decompress {path}: {e}"))?;
    let mut rest = bytes.as_slice();
    let mut bodies = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        let (body, after) = after.split_at_checked(len).ok_or_else(|| format!("{path} is cut short"))?;
        bodies.push(body.to_vec());
        rest = after;
    }
    if bodies.is_empty() { Err(format!("{path} holds no bodies")) } else { Ok(bodies) }
}

/// Bodies with the shape of a machine's metrics: mostly counters, some of which stand still.
fn made_up() -> Vec<Vec<u8>> {
    let mut state = vec![0u64; 500];
    let mut rng = fastrand::Rng::with_seed(1);
    (0..60)
        .map(|_| {
            let mut body = String::new();
            for (i, value) in state.iter_mut().enumerate() {
                if i % 10 == 0 {
                    let _ = writeln!(body, "# HELP machine_events_{}_total Events of this kind.", i / 10);
                    let _ = writeln!(body, "# TYPE machine_events_{}_total counter", i / 10);
                }
                if i % 3 != 0 {
                    *value += rng.u64(0..1000);
                }
                let _ = writeln!(
                    body,
                    "machine_events_{}_total{{cpu=\"{}\",mode=\"user\"}} {value}",
                    i / 10,
                    i % 10
                );
            }
            body.into_bytes()
        })
        .collect()
}

fn head(content_type: &str, encoding: &str, len: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{encoding}Content-Length: {len}\r\n\r\n")
        .into_bytes()
}

/// The body with a label on those series that are replaced from generation to generation.
fn in_generation(body: &[u8], percent: u64, generation: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    for line in body.split_inclusive(|b| *b == b'\n') {
        let series = match memchr::memrchr(b' ', line) {
            Some(end) if line[0] != b'#' => &line[..end],
            _ => {
                out.extend_from_slice(line);
                continue;
            }
        };
        if xxhash_rust::xxh3::xxh3_64(series) % 100 >= percent {
            out.extend_from_slice(line);
            continue;
        }
        let (name, rest) = match memchr::memchr(b'{', series) {
            Some(brace) => (&series[..brace], &line[brace + 1..]),
            None => (series, &line[series.len()..]),
        };
        out.extend_from_slice(name);
        out.extend_from_slice(format!("{{generation=\"{generation}\"").as_bytes());
        out.push(if name.len() == series.len() { b'}' } else { b',' });
        out.extend_from_slice(rest);
    }
    out
}

fn answer(body: &[u8]) -> Answer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing into a vector cannot fail.
    let _ = encoder.write_all(body);
    let packed = encoder.finish().unwrap_or_default();
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    let mut plain = head(content_type, "", body.len());
    plain.extend_from_slice(body);
    let mut gzip = head(content_type, "Content-Encoding: gzip\r\n", packed.len());
    gzip.extend_from_slice(&packed);
    Answer { plain, gzip }
}

impl Fleet {
    /// The generation of a target's series; targets move on one after the other.
    fn generation(&self, target: usize) -> u64 {
        if self.churn.percent == 0 {
            return 0;
        }
        let period = self.churn.period.as_millis() as u64;
        let phase = period * target as u64 / self.asked.len() as u64;
        (self.begun.elapsed().as_millis() as u64 + phase) / period
    }

    fn answers(&self, generation: u64) -> Arc<Vec<Answer>> {
        if let Some(ready) = self.answers.lock().ok().and_then(|a| a.get(&generation).cloned()) {
            return ready;
        }
        let percent = self.churn.percent;
        let made = match percent {
            0 => self.bodies.iter().map(|body| answer(body)).collect(),
            _ => self.bodies.iter().map(|b| answer(&in_generation(b, percent, generation))).collect(),
        };
        let made = Arc::new(made);
        if let Ok(mut answers) = self.answers.lock() {
            answers.insert(generation, Arc::clone(&made));
            // Two generations are being asked for at any time, and one is being made.
            while answers.len() > 3 {
                answers.pop_first();
            }
        }
        made
    }

    /// Makes what will be asked for: one generation ahead.
    fn prepare(&self) {
        for generation in 0.. {
            let period = self.churn.period.as_secs_f64();
            let needed = period * (generation as f64 - 2.0);
            std::thread::sleep(Duration::from_secs_f64(
                (needed - self.begun.elapsed().as_secs_f64()).max(0.0),
            ));
            self.answers(generation);
        }
    }

    fn list(&self) -> Vec<u8> {
        let listen = &self.listen;
        let items: Vec<String> = (0..self.asked.len())
            .map(|i| {
                format!(
                    "{{\"targets\":[\"{listen}\"],\"labels\":{{\"__metrics_path__\":\"/targets/{i}/metrics\",\
                     \"instance\":\"host-{i}:9100\"}}}}"
                )
            })
            .collect();
        let body = format!("[{}]", items.join(","));
        let mut out = head("application/json", "", body.len());
        out.extend_from_slice(body.as_bytes());
        out
    }

    /// Answers one request; `None` closes the connection.
    async fn respond(&self, request: &str, stream: &mut TcpStream) -> Option<()> {
        let path = request.strip_prefix("GET ")?.split([' ', '?']).next()?;
        if path == "/targets.json" {
            return stream.write_all(&self.list()).await.ok();
        }
        let index = path.strip_prefix("/targets/").and_then(|p| p.strip_suffix("/metrics"));
        let Some(index) = index.and_then(|i| i.parse::<usize>().ok()).filter(|i| *i < self.asked.len())
        else {
            let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(missing).await.ok();
        };
        let turn = self.asked[index].fetch_add(1, Ordering::Relaxed);
        let answers = self.answers(self.generation(index));
        let answer = &answers[(index * 37 + turn) % answers.len()];
        let wants_gzip = request.lines().any(|l| {
            l.len() > 16 && l[..16].eq_ignore_ascii_case("accept-encoding:") && l[16..].contains("gzip")
        });
        stream.write_all(if wants_gzip { &answer.gzip } else { &answer.plain }).await.ok()
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::with_capacity(1024);
        loop {
            let end = loop {
                if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                    break end + 4;
                }
                if buffer.len() > MAX_HEAD || !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                    return;
                }
            };
            let Ok(request) = std::str::from_utf8(&buffer[..end]).map(str::to_owned) else { return };
            if self.respond(&request, &mut stream).await.is_none() {
                return;
            }
            buffer.drain(..end);
        }
    }
}

fn main() -> Result<(), String> {
    let options = options()?;
    let bodies = match &options.corpus {
        Some(path) => recorded(path)?,
        None => made_up(),
    };
    let asked = (0..options.targets).map(|_| AtomicUsize::new(0)).collect();
    let mut fleet = Fleet {
        listen: options.listen.clone(),
        bodies,
        churn: options.churn,
        begun: Instant::now(),
        answers: Mutex::default(),
        asked,
    };
    fleet.answers(0);
    if fleet.churn.percent > 0 {
        fleet.answers(1);
    }
    fleet.begun = Instant::now();
    let fleet = Arc::new(fleet);
    if fleet.churn.percent > 0 {
        let preparing = Arc::clone(&fleet);
        std::thread::spawn(move || preparing.prepare());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(&options.listen)
            .await
            .map_err(|e| format!("cannot listen on {}: {e}", options.listen))?;
        eprintln!("{} targets at http://{}/targets/<i>/metrics", options.targets, options.listen);
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(Arc::clone(&fleet).serve(stream));
        }
    })
}
