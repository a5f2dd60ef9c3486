//! Targets that lie, hang or flood: only they are down, with a reason; the others go on and memory stays bounded.

use std::io::Write as _;
use std::net::TcpStream;
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
    vec![
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
    ]
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
