//! The scraper as a whole: a configuration in, samples in a storage out, with targets that mean no good among them.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meerkat::config::{Config, LoadOptions};
use meerkat::model::clock::SystemClock;
use meerkat::model::{MatchOp, Matcher, SampleBuffer};
use meerkat::scrape::{Health, ScrapeManager, ScrapeOptions, TargetStatus};
use meerkat::telemetry::Registry;
use meerkat::tsdb::door::{Queryable as _, SelectHints};
use meerkat::tsdb::memory::MemoryStorage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn gzip_bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..64 {
        encoder.write_all(&[b'a'; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap()
}

/// Answers by path; most answers are meant to hurt.
async fn misbehave(mut stream: TcpStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let text = "Content-Type: text/plain\r\nConnection: close\r\n";
    let _ = match path {
        "/good" => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{text}\r\ngood_metric 42\n").as_bytes()).await
        }
        "/endless" => {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{text}\r\n").as_bytes()).await;
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            return;
        }
        "/slow" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            let mut nothing = [0; 1];
            let _ = stream.read(&mut nothing).await;
            return;
        }
        "/bomb" => {
            let head = format!("HTTP/1.1 200 OK\r\n{text}Content-Encoding: gzip\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            stream.write_all(&gzip_bomb()).await
        }
        "/circle" => {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /circle\r\nConnection: close\r\n\r\n").await
        }
        "/rubbish" => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{text}\r\n\u{0}\u{1}{{{{\n").as_bytes()).await
        }
        _ => stream.write_all(b"\x16\x03\x01 not HTTP at all").await,
    };
    let _ = stream.shutdown().await;
}

async fn targets() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream));
        }
    });
    address
}

fn config(address: &str) -> Config {
    let mut text =
        "global: {scrape_interval: 1s, scrape_timeout: 1s, body_size_limit: 1MB}\nscrape_configs:\n"
            .to_owned();
    for path in ["good", "endless", "slow", "bomb", "circle", "rubbish", "nothing"] {
        text += &format!(
            "- {{job_name: {path}, metrics_path: /{path}, static_configs: [{{targets: ['{address}']}}]}}\n"
        );
    }
    Config::parse(&text, Path::new("/x/prometheus.yml"), &LoadOptions::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_targets_hurt_only_themselves() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address = targets().await;
    let storage = MemoryStorage::new();
    let manager = ScrapeManager::new(
        Arc::clone(&storage) as _,
        Arc::new(SystemClock),
        Registry::new(),
        ScrapeOptions { discovery_interval_ms: 10, ..ScrapeOptions::default() },
        tokio::runtime::Handle::current(),
    );
    manager.apply(&config(&address)).await.unwrap();
    let all = |manager: &ScrapeManager| -> Vec<(String, TargetStatus)> {
        manager
            .targets()
            .into_iter()
            .flat_map(|p| p.active.into_iter().map(move |t| (p.job.clone(), t)))
            .collect()
    };
    let done = async {
        loop {
            let now = all(&manager);
            if now.len() == 7 && now.iter().all(|(_, t)| t.last.health != Health::Unknown) {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let targets = tokio::time::timeout(Duration::from_secs(60), done).await.expect("all were scraped");
    for (job, target) in &targets {
        let (health, error) = match job.as_str() {
            "good" => (Health::Up, ""),
            "endless" | "bomb" => (Health::Down, "body size limit exceeded"),
            "slow" => (Health::Down, "deadline exceeded"),
            "circle" => (Health::Down, "stopped after 10 redirects"),
            "rubbish" => (Health::Down, "expected a valid start token"),
            _ => (Health::Down, "Get "),
        };
        assert_eq!(target.last.health, health, "{job}: {}", target.last.error);
        assert!(target.last.error.contains(error), "{job}: {}", target.last.error);
    }
    manager.stop().await;
    let querier = storage.querier(i64::MIN, i64::MAX).unwrap();
    let matcher = Matcher::new("__name__", MatchOp::Equal, "good_metric").unwrap();
    let series = querier.select(&SelectHints::default(), &[matcher]).unwrap();
    assert_eq!(series.len(), 1);
    assert_eq!(
        series.labels(0).to_string(),
        format!(r#"{{__name__="good_metric", instance="{address}", job="good"}}"#)
    );
    let mut samples = SampleBuffer::default();
    series.samples(0, i64::MIN, i64::MAX, &mut samples).unwrap();
    assert!(!samples.values.is_empty() && samples.values.iter().all(|v| *v == 42.0), "{:?}", samples.values);
}

/// Answers one scrape over a new connection and leaves it open.
async fn answer(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\na 1\n";
    stream.write_all(answer).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_connections_are_let_go_before_the_next_scrape() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Registry::new();
    let manager = ScrapeManager::new(
        MemoryStorage::new() as _,
        Arc::new(SystemClock),
        Arc::clone(&registry),
        ScrapeOptions { discovery_interval_ms: 10, ..ScrapeOptions::default() },
        tokio::runtime::Handle::current(),
    );
    let config = |jobs: &str| {
        let text = format!("global: {{scrape_interval: 4s, scrape_timeout: 4s}}\nscrape_configs: [{jobs}]\n");
        Config::parse(&text, Path::new("/x/prometheus.yml"), &LoadOptions::default()).unwrap()
    };
    let job = format!("{{job_name: a, static_configs: [{{targets: ['{address}']}}]}}");
    manager.apply(&config(&job)).await.unwrap();
    let ended = async |mut stream: TcpStream| {
        let end = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut [0; 1])).await;
        assert_eq!(end.expect("sooner than the next scrape").unwrap(), 0);
    };
    // The target closes it, well after the answer was looked at.
    let mut stream = answer(&listener).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.shutdown().await.unwrap();
    ended(stream).await;
    // The target is no longer scraped.
    let stream = answer(&listener).await;
    manager.apply(&config("")).await.unwrap();
    ended(stream).await;
    let text = registry.render_text();
    assert!(text.contains("net_conntrack_dialer_conn_closed_total{dialer_name=\"a\"} 2"), "{text}");
    manager.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_changes_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let manager = ScrapeManager::new(
        MemoryStorage::new(),
        Arc::new(SystemClock),
        Registry::new(),
        ScrapeOptions::default(),
        tokio::runtime::Handle::current(),
    );
    let parse =
        |text: &str| Config::parse(text, Path::new("/x/prometheus.yml"), &LoadOptions::default()).unwrap();
    manager.apply(&parse("scrape_configs: [{job_name: a}]\n")).await.unwrap();
    let bad =
        parse("scrape_configs: [{job_name: b}, {job_name: c, tls_config: {ca_file: /does/not/exist}}]\n");
    let error = manager.apply(&bad).await.unwrap_err();
    assert_eq!(error.job, "c");
    assert_eq!(manager.pools(), ["a"]);
    manager.stop().await;
}
