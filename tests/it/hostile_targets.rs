//! Targets that lie, hang or flood: only they are down, with a reason; the others go on and memory stays bounded.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::server::Server;
use super::world::{
    Exporter, PATIENCE, answer_text, answer_with, resident_bytes, scalar, target_health, until,
};

fn gzipped(byte: u8, megabytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![byte; 1 << 20];
    for _ in 0..megabytes {
        encoder.write_all(&block).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}

/// Writes again and again until the other side has enough.
fn flood(stream: &mut TcpStream, block: &[u8]) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_ok() {
        while stream.write_all(block).is_ok() {}
    }
}

/// The type of a protobuf exposition.
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// One that answers with bytes of a type.
fn typed(content_type: &'static str, body: Vec<u8>) -> Exporter {
    Exporter::start(move |stream, _| {
        let len = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n\r\n");
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
    })
}

/// A field of a protobuf message: bytes, or a message within.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], delimited(content).as_slice()].concat()
}

/// Bytes behind their length.
fn delimited(content: &[u8]) -> Vec<u8> {
    let (mut out, mut len) = (Vec::new(), content.len());
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(content);
    out
}

/// A family of gauges with one metric, which has one label and no value.
fn family(name: &[u8], label: &[u8], value: &[u8]) -> Vec<u8> {
    let pair = [field(1, label), field(2, value)].concat();
    let metric = [field(1, &pair), field(2, &[])].concat();
    delimited(&[field(1, name), vec![3 << 3, 1], field(4, &metric)].concat())
}

/// Protobuf bodies that lie.
fn odd_protobuf() -> Vec<(&'static str, Vec<u8>)> {
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        // What is within is longer than what it is within, but for the first few: nobody should look that deep.
        deep = field(4, &deep);
    }
    let nested_groups = [&[5 << 3 | 3u8; 100_000][..], &[5 << 3 | 4; 100_000]].concat();
    vec![
        ("no_name", family(b"", b"a", b"b")),
        ("no_label_name", family(b"a", b"", b"b")),
        ("name_not_utf8", family(b"a\xff", b"a", b"b")),
        ("value_not_utf8", family(b"a", b"a", b"\xff")),
        ("cut", family(b"a", b"a", b"b")[..8].to_vec()),
        ("long_length", [&[0xff; 9][..], &[1], b"abc"].concat()),
        ("endless_length", vec![0xff; 100]),
        ("groups", delimited(&nested_groups)),
        ("deep", [delimited(&deep), family(b"", b"a", b"b")].concat()),
        // Empty families are no fault; the last one is.
        ("empty_families", [vec![0; 500_000], family(b"", b"a", b"b")].concat()),
        (
            "named_empty_families",
            [delimited(&field(1, b"a")).repeat(200_000), family(b"", b"a", b"b")].concat(),
        ),
    ]
}

struct Hostile {
    name: &'static str,
    /// More lines of its scrape configuration.
    extra: &'static str,
    /// What its error has to contain; any will do if empty.
    reason: &'static str,
    exporter: Exporter,
}

fn hostile() -> Vec<Hostile> {
    let bomb = Arc::new(gzipped(b'a', 512));
    let zeros = Arc::new(gzipped(0, 256));
    let many: String = (0..5000).map(|n| format!("many{{n=\"{n}\"}} 1\n")).collect();
    let wide = format!("wide{{{}}} 1\n", (0..3000).map(|n| format!("l{n}=\"v\",")).collect::<String>());
    let gzip = "Content-Encoding: gzip\r\n";
    let limit = "body_size_limit: 2MB";
    let text = |body: &'static str| Exporter::text(move || body.to_owned());
    let row = |name, extra, reason, exporter| Hostile { name, extra, reason, exporter };
    let odd = odd_protobuf().into_iter().map(|(name, body)| row(name, "", "", typed(PROTOBUF, body)));
    let new_ones = Arc::new(AtomicU64::new(0));
    let million: String = (0..1_000_000).map(|n| format!("million{{n=\"{n}\"}} 1\n")).collect();
    let million = Arc::new(million);
    let (same, again) = (Arc::clone(&million), Arc::clone(&million));
    let rows = vec![
        row(
            "all_new",
            "sample_limit: 1000",
            "sample limit exceeded",
            Exporter::text(move || {
                let begin = new_ones.fetch_add(5000, Ordering::Relaxed);
                (begin..begin + 5000).map(|n| format!("new_{n} 1\n")).collect()
            }),
        ),
        row(
            "million",
            "sample_limit: 1000\n    scrape_interval: 20s\n    scrape_timeout: 20s",
            "sample limit",
            Exporter::start(move |s, _| answer_text(s, &same)),
        ),
        row(
            "million_large",
            "body_size_limit: 10MB\n    scrape_interval: 20s\n    scrape_timeout: 20s",
            "body size limit",
            Exporter::start(move |s, _| answer_text(s, &again)),
        ),
        row("nul", "", "", text("a{b=\"c\"} 1\n\0\0\0 2\n")),
        row("long_name", "label_name_length_limit: 100", "label_name_length_limit", {
            let body = format!("a{{{}=\"b\"}} 1\n", "l".repeat(64 << 10));
            Exporter::text(move || body.clone())
        }),
        row(
            "chunk_garbage",
            "",
            "Invalid chunk size",
            Exporter::start(|s, _| {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
                drop(s.write_all(format!("{head}4\r\na 1\n\r\nzzz\r\n").as_bytes()));
            }),
        ),
        row(
            "two_lengths",
            "",
            "content-length",
            Exporter::start(|s, _| answer_with(s, "Content-Length: 1\r\n", b"a 1\n")),
        ),
        row("garbage", "", "", text("this is {no metric\n")),
        row("no_number", "", "", text("a 1\nb x\n")),
        row("twice", "", "", text("a{b=\"1\",b=\"2\"} 1\n")),
        row("binary", "", "", Exporter::start(|s, _| answer_with(s, "", &[0xfe, 0, 0xff, b'\n', 7, 0x80]))),
        row("not_utf8", "", "", Exporter::start(|s, _| answer_with(s, "", b"a{b=\"\xff\xfe\"} 1\n"))),
        row("endless", limit, "body size limit", Exporter::start(|s, _| flood(s, &[b'#'; 65536]))),
        row(
            "endless_comments",
            "body_size_limit: 32MB",
            "",
            Exporter::start(|s, _| flood(s, "# comment\n".repeat(7000).as_bytes())),
        ),
        row("endless_line", "", "body size limit", Exporter::start(|s, _| flood(s, &[b'a'; 65536]))),
        row("bomb", limit, "body size limit", Exporter::start(move |s, _| answer_with(s, gzip, &bomb))),
        row(
            "bomb_unlimited",
            "",
            "body size limit",
            Exporter::start(move |s, _| answer_with(s, gzip, &zeros)),
        ),
        row("bad_gzip", "", "", Exporter::start(move |s, _| answer_with(s, gzip, b"\x1f\x8b\x08 no gzip"))),
        row("silent", "", "deadline", Exporter::start(|s, _| drop(std::io::Read::read(s, &mut [0])))),
        row(
            "slow",
            "",
            "deadline",
            Exporter::start(|s, _| {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n";
                let mut ok = s.write_all(head.as_bytes()).is_ok();
                while ok {
                    ok = s.write_all(b"a").is_ok();
                    std::thread::sleep(Duration::from_millis(100));
                }
            }),
        ),
        row(
            "short",
            "",
            "",
            Exporter::start(|s, _| {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\na 1\n";
                drop(s.write_all(head.as_bytes()));
            }),
        ),
        row(
            "failing",
            "",
            "server returned HTTP status 500 Internal Server Error",
            Exporter::start(|s, _| {
                drop(s.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"));
            }),
        ),
        row(
            "page",
            "",
            "Content-Type",
            Exporter::start(|s, _| {
                drop(s.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\na 1\n",
                ));
            }),
        ),
        row(
            "in_circles",
            "",
            "redirects",
            Exporter::start(|s, _| {
                let head = "HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                drop(s.write_all(head.as_bytes()));
            }),
        ),
        row(
            "long_head",
            "",
            "",
            Exporter::start(|s, _| {
                let head = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n", "a".repeat(1 << 20));
                drop(s.write_all(head.as_bytes()));
            }),
        ),
        row(
            "no_tls",
            "scheme: https",
            "",
            Exporter::start(|s, _| drop(s.write_all(&[0x16, 3, 1, 0xff, 0xff]))),
        ),
        row("no_http", "", "", Exporter::start(|s, _| drop(s.write_all(b"SSH-2.0-OpenSSH_9.9\r\n")))),
        row("many", "sample_limit: 100", "sample limit exceeded", Exporter::text(move || many.clone())),
        row("wide", "label_limit: 30", "label_limit", Exporter::text(move || wide.clone())),
    ];
    rows.into_iter().chain(odd).collect()
}

/// Well-behaved targets.
const GOOD: usize = 10;

/// Prints how regularly the good ones were asked, which on a busy machine says more about the machine.
fn print_jitter(asked: &[(Exporter, Arc<Mutex<Vec<Instant>>>)]) {
    let mut off: Vec<Duration> = Vec::new();
    for (_, times) in asked {
        let times = times.lock().expect("no panic");
        off.extend(times.windows(2).map(|pair| (pair[1] - pair[0]).abs_diff(Duration::from_secs(1))));
    }
    off.sort_unstable();
    if let (Some(most), Some(p99)) = (off.last(), off.get((off.len() * 99 / 100).min(off.len() - 1))) {
        eprintln!("jitter of {} scrapes of good targets: p99 {p99:?}, most {most:?}", off.len());
    }
}

#[test]
fn hostile_targets_hurt_only_themselves() {
    let good: Vec<(Exporter, Arc<Mutex<Vec<Instant>>>)> = (0..GOOD)
        .map(|_| {
            let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
            let noted = Arc::clone(&times);
            let exporter = Exporter::start(move |stream, _| {
                noted.lock().expect("no panic").push(Instant::now());
                answer_text(stream, "# TYPE fine gauge\nfine 1\n");
            });
            (exporter, times)
        })
        .collect();
    let addresses: Vec<String> = good.iter().map(|(exporter, _)| format!("'{}'", exporter.address)).collect();
    let hostile = hostile();
    let mut config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: good\n    \
         static_configs: [{{targets: [{}]}}]\n  - job_name: refused\n    static_configs: [{{targets: \
         ['127.0.0.1:1']}}]\n",
        addresses.join(",")
    );
    for one in &hostile {
        let extra = if one.extra.is_empty() { String::new() } else { format!("    {}\n", one.extra) };
        config.push_str(&format!(
            "  - job_name: {}\n{extra}    static_configs: [{{targets: ['{}']}}]\n",
            one.name, one.exporter.address
        ));
    }
    let server = Server::start(&config, &[]);
    let at = &server.address;
    let mut most = 0.0f64;
    // Several rounds with everybody, so that what is not freed adds up.
    until("the good one is scraped", 2 * PATIENCE, || {
        most = most.max(resident_bytes(at));
        let scrapes = scalar(at, "min(count_over_time(up{job=\"good\"}[5m]))")?;
        if scrapes >= 8.0 { Ok(()) } else { Err(format!("{scrapes} scrapes")) }
    });
    // Those without a limit of their own share 256 MiB, which is taken nearly twice while a buffer grows.
    eprintln!("{} MiB resident at most", most / f64::from(1 << 20));
    assert!(most < 750e6, "{most} bytes resident");
    print_jitter(&good);
    // On a busy machine a scrape may run into its timeout before it meets what is wrong; one of the next ones does.
    let targets = until("each one has its own outcome", 2 * PATIENCE, || {
        let targets = target_health(at)?;
        let wrong: Vec<String> = targets
            .iter()
            .filter(|(job, health, error)| {
                let reason = hostile.iter().find(|h| h.name == job).map_or("", |h| h.reason);
                match job.as_str() {
                    "good" => health != "up" || !error.is_empty(),
                    _ => health != "down" || error.is_empty() || !error.contains(reason),
                }
            })
            .map(|(job, health, error)| format!("{job}: {health} {error:.300}"))
            .collect();
        if wrong.is_empty() { Ok(targets) } else { Err(wrong.join("\n")) }
    });
    assert_eq!(targets.len(), hostile.len() + GOOD + 1);
    for (job, health, error) in &targets {
        eprintln!("{job}: {health} {error:.200}");
    }
    assert_eq!(
        scalar(at, "sum(min_over_time(up{job=\"good\"}[5m]))"),
        Ok(GOOD as f64),
        "the good ones were never down"
    );
    let ever_up = scalar(at, "count(max_over_time(up[5m]) == 1)");
    assert_eq!(ever_up, Ok(GOOD as f64), "nobody else was ever up");
    // Nothing of a failed scrape is stored.
    let stored = "count({job!=\"good\",job=~\".+\",__name__!~\"up|scrape_.*\"}) or vector(0)";
    assert_eq!(scalar(at, stored), Ok(0.0));
}

/// Two that flood without being down: what they have is bounded by the number of series of their job, and those of
/// others go on.
#[test]
fn floods_of_series_stop_at_the_limit_of_their_job() {
    let good: Vec<Exporter> = (0..GOOD).map(|_| Exporter::text(|| "fine 1\n".to_owned())).collect();
    let addresses: Vec<String> = good.iter().map(|exporter| format!("'{}'", exporter.address)).collect();
    let begin = AtomicU64::new(0);
    let churning = Exporter::text(move || {
        let begin = begin.fetch_add(5000, Ordering::Relaxed);
        (begin..begin + 5000).map(|n| format!("new_{n} 1\n")).collect()
    });
    let million: String = (0..1_000_000).map(|n| format!("million{{n=\"{n}\"}} 1\n")).collect();
    let large = Exporter::start(move |stream, _| answer_text(stream, &million));
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: good\n    \
         static_configs: [{{targets: [{}]}}]\n  - job_name: churning\n    static_configs: [{{targets: ['{}']}}]\n  \
         - job_name: large\n    scrape_timeout: 30s\n    scrape_interval: 30s\n    static_configs: [{{targets: \
         ['{}']}}]\n",
        addresses.join(","),
        churning.address,
        large.address
    );
    let server = Server::start(&config, &["--storage.tsdb.max-series-per-job=20000"]);
    let at = &server.address;
    let mut most = 0.0f64;
    until("both met the limit and the good ones went on", 4 * PATIENCE, || {
        most = most.max(resident_bytes(at));
        let targets = target_health(at)?;
        for (job, health, error) in &targets {
            let limited = error.contains("series limit reached");
            if *job != "good" && !(health == "up" && limited) {
                return Err(format!("{job}: {health} {error:.300}"));
            }
        }
        let scrapes = scalar(at, "min(count_over_time(up{job=\"good\"}[5m]))")?;
        if scrapes >= 15.0 { Ok(()) } else { Err(format!("{scrapes} scrapes")) }
    });
    eprintln!("{} MiB resident at most", most / f64::from(1 << 20));
    assert!(most < 500e6, "{most} bytes resident");
    assert_eq!(scalar(at, "sum(min_over_time(up{job=\"good\"}[5m]))"), Ok(GOOD as f64));
    for job in ["churning", "large"] {
        let stored = scalar(at, &format!("count({{job=\"{job}\",__name__!~\"up|scrape_.*\"}}) or vector(0)"));
        assert!(stored.as_ref().is_ok_and(|n| *n <= 20_000.0), "{job}: {stored:?}");
    }
}
