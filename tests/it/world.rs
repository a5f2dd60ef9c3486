//! The world around a server under test: exporters that behave as told, other programs, patient waiting.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::server::Answer;

/// Longest wait for anything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is good; the last complaint is the failure.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        let complaint = match ask() {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}; last: {complaint}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One request that may fail, as a server may die meanwhile.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    // In one piece: a server that answers before it has read the body may close without looking at the rest.
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut raw = Vec::new();
    let ended = stream.read_to_end(&mut raw);
    let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else {
        ended?;
        return Err(bad("no head"));
    };
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let body = raw[end + 4..].to_vec();
    let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    if length.is_some_and(|(_, v)| v.parse() != Ok(body.len()) && method != "HEAD") {
        return Err(bad("the body was cut"));
    }
    // Prometheus resets connections whose bodies it left unread; what has a length is whole.
    if length.is_none() {
        ended?;
    }
    Ok(Answer { status: status.ok_or_else(|| bad("no status"))?, headers, body })
}

/// Sends a remote-write 1.0 message.
pub fn remote_write(address: &str, message: &[u8]) -> std::io::Result<Answer> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    request(address, "POST", "/api/v1/write", &headers, message)
}

/// A path with parameters.
pub fn with_parameters(path: &str, parameters: &[(&str, &str)]) -> String {
    let text: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    if text.is_empty() { path.to_owned() } else { format!("{path}?{text}") }
}

/// The result of an instant query.
pub fn instant(address: &str, query: &str) -> Result<Vec<serde_json::Value>, String> {
    let path = with_parameters("/api/v1/query", &[("query", query)]);
    let answer = request(address, "GET", &path, &[], b"").map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    json["data"]["result"].as_array().cloned().ok_or_else(|| answer.text())
}

/// The value of an instant query that has one result.
pub fn scalar(address: &str, query: &str) -> Result<f64, String> {
    let result = instant(address, query)?;
    match result.as_slice() {
        [one] => {
            let text = one["value"][1].as_str().ok_or("no value")?;
            text.parse().map_err(|_| format!("{text:?} is no number"))
        }
        other => Err(format!("{query}: {} results: {other:?}", other.len())),
    }
}

/// The active targets by their `instance`: health and last error.
pub fn target_health(address: &str) -> Result<Vec<(String, String, String)>, String> {
    let answer =
        request(address, "GET", "/api/v1/targets?state=active", &[], b"").map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let targets = json["data"]["activeTargets"].as_array().ok_or_else(|| answer.text())?;
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    let row = |t: &serde_json::Value| (text(&t["labels"]["job"]), text(&t["health"]), text(&t["lastError"]));
    Ok(targets.iter().map(row).collect())
}

/// A process that ends when the test does.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts another program that logs where it listens; `None` if it is not there.
pub fn start_listening(command: &mut Command) -> Option<(Guarded, String)> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = Guarded(spawned.ok()?);
    let stderr = child.0.stderr.take().expect("standard error is piped");
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Keep reading when nobody listens, or the process would block on a full pipe.
            let _ = send.send(line);
        }
    });
    let mut seen = String::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                // Prometheus's words and VictoriaMetrics's.
                let listening = line.contains("msg=\"Listening on\"").then(|| line.split_once("address="));
                let address = listening.flatten().or_else(|| line.split_once("started server at http://"));
                if let Some((_, address)) = address {
                    return Some((child, address.trim().trim_end_matches('/').to_owned()));
                }
                seen = format!("{seen}{line}\n");
            }
            Err(e) => panic!("no address in the log ({e}):\n{seen}"),
        }
    }
}

/// Prometheus of the folder that `MEERKAT_PEERS` names; says so when it is missing.
pub fn prometheus() -> Option<PathBuf> {
    find_peer("prometheus")
}

fn find_peer(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("MEERKAT_PEERS")?).join("usr/bin").join(name);
    path.exists().then_some(path)
}

/// Another program to compare with; says so where it is missing.
pub fn peer(name: &str) -> Option<PathBuf> {
    let found = find_peer(name);
    if found.is_none() {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/{name}");
    }
    found
}

/// Starts that Prometheus on a configuration, with its data below `folder`.
pub fn start_prometheus(folder: &std::path::Path, config: &str) -> Option<(Guarded, String)> {
    let Some(program) = prometheus() else {
        eprintln!("skipped: MEERKAT_PEERS names no folder with usr/bin/prometheus");
        return None;
    };
    let file = folder.join("peer.yml");
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("peer-data").display()))
        .args(["--web.listen-address=127.0.0.1:0", "--web.enable-remote-write-receiver"])
        .arg("--enable-feature=native-histograms");
    let (child, address) = start_listening(&mut command).expect("Prometheus starts");
    until("Prometheus is ready", PATIENCE, || match request(&address, "GET", "/-/ready", &[], b"") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Some((child, address))
}

/// Resident memory of a server as it tells it, bytes.
pub fn resident_bytes(address: &str) -> f64 {
    let text = request(address, "GET", "/metrics", &[], b"").map(|a| a.text()).unwrap_or_default();
    let value = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes "));
    value.and_then(|v| v.trim().parse().ok()).expect("the server tells its memory")
}

/// An exporter whose every connection is answered by a function; stops when dropped.
pub struct Exporter {
    /// Where it listens.
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Exporter {
    /// Starts one. The function gets the connection after the request's head was read, and the request's first line.
    pub fn start(serve: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stopping), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || {
                    let mut stream = stream;
                    // One request per connection; a client that leaves is no fault.
                    if let Some(head) = read_head(&mut stream) {
                        serve(&mut stream, &head);
                    }
                });
            }
        });
        Self { address, stopping }
    }

    /// One that answers every request with a text.
    pub fn text(body: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self::start(move |stream, _| answer_text(stream, &body()))
    }
}

/// Answers with a text exposition.
pub fn answer_text(stream: &mut TcpStream, body: &str) {
    answer_with(stream, "", body.as_bytes());
}

/// Answers 200 with a text exposition and more header lines (each ending in CRLF).
pub fn answer_with(stream: &mut TcpStream, headers: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A client that leaves is no fault.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the listener; if that fails, the thread ends with the process.
        let _ = TcpStream::connect(self.address);
    }
}
