//! What does the head cost? Log bytes per sample on recorded scrapes, memory per series, time to start again.
//!
//! `cargo run --release --example head_figures`. `SERIES` (default 100000, several with commas) sets the size of the
//! memory and restart part, `CHURN` (default 50000, 0 = none) the number of series that live at once where a tenth is
//! replaced every five minutes, `CORPUS` the folder of recordings (default `../shared/corpus`, or the short one of `testdata/recorded`),
//! `SCRAPES` how many bodies are read of each.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meerkat::model::Labels;
use meerkat::model::clock::{ManualClock, SystemClock};
use meerkat::model::{Matcher, SampleBuffer};
use meerkat::telemetry::Registry;
use meerkat::tsdb::chunk::float::FloatEncoder;
use meerkat::tsdb::vfs::RealVfs;
use meerkat::tsdb::{Appendable, BatchOptions, Db, DbOptions, Queryable, SelectHints, SeriesRef};

fn main() {
    let scrapes = env("SCRAPES", 240);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = std::env::var("CORPUS").map_or_else(|_| root.join("../shared/corpus"), PathBuf::from);
    let corpus = if corpus.is_dir() { corpus } else { root.join("testdata/recorded") };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&corpus).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    files.sort();
    if files.is_empty() {
        eprintln!("skipped: {} is missing", corpus.display());
    }
    for file in files.iter().filter(|f| f.to_string_lossy().ends_with(".rec.zst")) {
        log_of(file, scrapes);
    }
    for series in std::env::var("SERIES").unwrap_or_else(|_| "100000".into()).split(',') {
        memory_and_restart(series.parse().expect("SERIES is a list of numbers"));
    }
    churn(env("CHURN", 50_000));
}

fn env(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn bodies(file: &Path, most: usize) -> Vec<String> {
    let bytes = std::fs::read(file).expect("the recording can be read");
    let mut decoder = zstd::stream::read::Decoder::new(&bytes[..]).expect("zstd");
    decoder.window_log_max(31).expect("zstd accepts long windows");
    let mut bodies = Vec::new();
    let mut length = [0; 4];
    while bodies.len() < most && decoder.read_exact(&mut length).is_ok() {
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        decoder.read_exact(&mut body).expect("a whole body");
        bodies.push(String::from_utf8_lossy(&body).into_owned());
    }
    bodies
}

/// Series text and value of each line; enough for well-formed recordings.
fn samples(body: &str) -> Vec<(&str, f64)> {
    let lines = body.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let end = line.rfind('}').map_or_else(|| line.find(' '), |at| Some(at + 1))?;
            let value = line[end..].split_whitespace().next()?;
            Some((&line[..end], value.replace("Inf", "inf").parse().ok()?))
        })
        .collect()
}

fn labels_of(text: &str, target: usize) -> Labels {
    let (name, rest) = text.split_once('{').unwrap_or((text, ""));
    let mut pairs = vec![
        ("__name__".to_owned(), name.to_owned()),
        ("instance".to_owned(), format!("host-{target}.example.org:9100")),
        ("job".to_owned(), "node".to_owned()),
    ];
    for pair in rest.trim_end_matches('}').split("\",") {
        if let Some((name, value)) = pair.split_once("=\"") {
            pairs.push((name.trim_start_matches(',').to_owned(), value.trim_end_matches('"').to_owned()));
        }
    }
    Labels::from_pairs(pairs)
}

fn options(path: &Path) -> DbOptions {
    DbOptions { path: path.to_owned(), ..DbOptions::default() }
}

fn open(path: &Path) -> Arc<Db> {
    Db::open(options(path), Arc::new(RealVfs), Arc::new(SystemClock), &Registry::new())
        .expect("the storage opens")
}

fn log_of(file: &Path, scrapes: usize) {
    let bodies = bodies(file, scrapes);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path());
    let (mut count, mut first) = (0usize, 0);
    let mut references: std::collections::HashMap<&str, SeriesRef> = std::collections::HashMap::new();
    let mut chunks: std::collections::HashMap<&str, FloatEncoder> = std::collections::HashMap::new();
    let begun = Instant::now();
    let mut appending = Duration::ZERO;
    for (i, body) in bodies.iter().enumerate() {
        let t = 1_700_000_000_000 + i as i64 * 15_000;
        let parsed = samples(body);
        let began = Instant::now();
        let mut appender = db.appender(BatchOptions { source: 1, ..BatchOptions::default() });
        for (text, value) in &parsed {
            let reference = references.entry(text).or_default();
            *reference =
                appender.append(*reference, &|| labels_of(text, 0), 0, t, *value).unwrap_or(*reference);
            count += 1;
        }
        appender.commit().expect("the batch is stored");
        appending += began.elapsed();
        for (text, value) in parsed {
            chunks.entry(text).or_default().push(t, 0, value);
        }
        if i == 0 {
            first = db.wal_bytes_written();
        }
    }
    let bytes = db.wal_bytes_written();
    let chunk_bytes: usize = chunks.values().map(|c| c.bytes().len()).sum();
    println!(
        "{}: {count} samples in {} scrapes: log {:.3} bytes/sample ({:.3} without the first), open chunks {:.3}, append {:.0} ns/sample, all {:.1?}",
        file.file_name().unwrap_or_default().to_string_lossy(),
        bodies.len(),
        bytes as f64 / count as f64,
        (bytes - first) as f64 / count as f64,
        chunk_bytes as f64 / count as f64,
        appending.as_nanos() as f64 / count as f64,
        begun.elapsed(),
    );
    db.close().expect("the storage closes");
}

fn rss() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn memory_and_restart(series: usize) {
    const PER_TARGET: usize = 500;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path());
    let targets = series.div_ceil(PER_TARGET);
    let before = rss();
    let mut references = vec![[SeriesRef::NONE; PER_TARGET]; targets];
    let mut random = fastrand::Rng::with_seed(1);
    let name = |i: usize, target: usize| {
        let (cpu, mode) = (format!("{}", i % 16), format!("mode-{}", i % 7));
        Labels::from_pairs([
            ("__name__", format!("node_some_metric_{}_total", i / 16).as_str()),
            ("instance", format!("host-{target}.example.org:9100").as_str()),
            ("job", "node"),
            ("cluster", "eu-west-1"),
            ("cpu", &cpu),
            ("mode", &mode),
            ("namespace", "default"),
            ("pod", format!("node-exporter-{target:05}").as_str()),
            ("container", "exporter"),
            ("endpoint", "metrics"),
        ])
    };
    let scrapes = env("ROUNDS", 120);
    let begun = Instant::now();
    for k in 0..scrapes {
        for (target, own) in references.iter_mut().enumerate() {
            let t = 1_700_000_000_000 + k as i64 * 10_000 + target as i64;
            let mut appender =
                db.appender(BatchOptions { source: target as u64 + 1, ..BatchOptions::default() });
            for (i, reference) in own.iter_mut().enumerate() {
                let value = if i % 3 == 0 { (k * i) as f64 + (random.u32(..4) as f64) } else { i as f64 };
                *reference = appender.append(*reference, &|| name(i, target), 0, t, value).expect("stored");
            }
            appender.commit().expect("the batch is stored");
        }
    }
    let took = begun.elapsed();
    let total = (series * scrapes) as f64;
    println!(
        "{series} series with 10 labels, {scrapes} scrapes: {:.0} ns/sample; resident {:.0} bytes/series, heap by own estimate {:.0}; log {:.2} bytes/sample",
        took.as_nanos() as f64 / total,
        (rss() - before) as f64 / series as f64,
        db.head_heap_bytes() as f64 / series as f64,
        db.wal_bytes_written() as f64 / total,
    );
    let begun = Instant::now();
    let querier = db.querier(i64::MIN, i64::MAX).expect("a view");
    let set = querier.select(&SelectHints::default(), &[Matcher::equal("cpu", "3")]).expect("a selection");
    let (mut out, mut read) = (SampleBuffer::default(), 0);
    for i in 0..set.len() {
        set.samples(i, i64::MIN, i64::MAX, &mut out).expect("samples");
        read += out.len();
    }
    println!("select and read {} series, {read} samples: {:.1?}", set.len(), begun.elapsed());
    drop((set, querier));
    // What kill -9 leaves: everything was written, nothing was said.
    let copy = tempfile::tempdir().expect("a temporary directory");
    copy_dir(dir.path(), copy.path());
    let begun = Instant::now();
    let killed = open(copy.path());
    println!("start after kill: {:.2?}, {:?}", begun.elapsed(), killed.recovery());
    drop(killed);
    let begun = Instant::now();
    db.close().expect("the storage closes");
    println!("clean stop: {:.2?}", begun.elapsed());
    drop(db);
    let begun = Instant::now();
    let again = open(dir.path());
    println!("start after clean stop: {:.2?}, {} series", begun.elapsed(), again.head_stats().num_series);
    again.close().expect("the storage closes");
}

/// A tenth of all series is replaced every five minutes, for four hours of a clock that is moved by hand.
fn churn(series: usize) {
    if series == 0 {
        return;
    }
    for share in [0.0, DbOptions::default().ended_series_share] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let begin_ms = 1_700_000_000_000i64;
        let clock = ManualClock::at(begin_ms);
        let options =
            DbOptions { wal_sync_interval: Duration::ZERO, ended_series_share: share, ..options(dir.path()) };
        let db =
            Db::open(options, Arc::new(RealVfs), Arc::clone(&clock) as _, &Registry::new()).expect("open");
        let before = rss();
        let mut live: Vec<(usize, SeriesRef)> = (0..series).map(|i| (i, SeriesRef::NONE)).collect();
        let (mut next, mut peak) = (series, 0);
        let name = |i: usize| {
            Labels::from_pairs([
                ("__name__", format!("metric_{}", i % 50).as_str()),
                ("instance", "host-1.example.org:9100"),
                ("job", "churn"),
                ("pod", format!("pod-{:08x}", (i as u32).wrapping_mul(0x9e37_79b9)).as_str()),
                ("namespace", "default"),
            ])
        };
        print!(
            "churn, {series} series, ended ones leave {}:",
            if share > 0.0 { "early" } else { "with their range" }
        );
        for minute in 0..240usize {
            let t = begin_ms + minute as i64 * 60_000;
            clock.set(t);
            let mut appender = db.appender(BatchOptions { source: 1, ..BatchOptions::default() });
            for (at, (i, reference)) in live.iter_mut().enumerate() {
                // Every fifth minute another tenth ends, and as many begin.
                if minute > 0 && minute % 5 == 0 && at % 10 == (minute / 5) % 10 {
                    let ended = name(*i);
                    let _ = appender.append(*reference, &|| ended.clone(), 0, t, meerkat::model::stale_nan());
                    (*i, *reference) = (next, SeriesRef::NONE);
                    next += 1;
                }
                let id = *i;
                *reference = appender
                    .append(*reference, &|| name(id), 0, t, (minute * id % 97) as f64)
                    .expect("stored");
            }
            appender.commit().expect("the batch is stored");
            db.compact().expect("compaction");
            peak = peak.max(rss());
            if minute % 30 == 29 {
                print!(" {}k", db.head_stats().num_series / 1000);
            }
        }
        println!(
            " series in memory each half hour; peak resident {} MiB, {} blocks",
            (peak - before) >> 20,
            db.blocks().len()
        );
        db.close().expect("the storage closes");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("a directory");
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
