//! A fleet of exporters in one process: N targets on one port, each replaying recorded scrapes from a place of its
//! own, for measuring what scrapes them.
//!
//! `cargo run --release --example fleet -- --listen 127.0.0.1:9200 --targets 2000 --corpus node.rec.zst`
//!
//! Target i answers at `/targets/<i>/metrics`, compressed when asked. A recording is zstd over frames of a
//! little-endian u32 length and a body; without `--corpus` bodies are made up. All bodies are compressed at start,
//! so that serving costs next to nothing. `/targets.json` lists the fleet for HTTP service discovery.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head that is read.
const MAX_HEAD: usize = 16 << 10;

struct Options {
    listen: String,
    targets: usize,
    corpus: Option<String>,
}

struct Answer {
    plain: Vec<u8>,
    gzip: Vec<u8>,
}

struct Fleet {
    listen: String,
    answers: Vec<Answer>,
    /// How often each target was asked.
    asked: Vec<AtomicUsize>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { listen: "127.0.0.1:9200".into(), targets: 100, corpus: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--listen" => options.listen = value()?,
            "--targets" => options.targets = value()?.parse().map_err(|e| format!("--targets: {e}"))?,
            "--corpus" => options.corpus = Some(value()?),
            other => return Err(format!("unknown argument {other}; known: --listen, --targets, --corpus")),
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
        let answer = &self.answers[(index * 37 + turn) % self.answers.len()];
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
    let answers: Vec<Answer> = bodies.iter().map(|body| answer(body)).collect();
    let asked = (0..options.targets).map(|_| AtomicUsize::new(0)).collect();
    let fleet = Arc::new(Fleet { listen: options.listen.clone(), answers, asked });
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
