//! An oracle outside the process: whatever could be queried or was acknowledged before a `kill -9` is there after the
//! next start, bit for bit, and nothing else is.
//!
//! The length of blocks changes from start to start, so that blocks are cut and merged while the process is killed; a
//! third of the starts is killed, too. Each start is judged by what is younger than a minute, every tenth by everything.
//! `MEERKAT_KILL_CYCLES` sets how often (20), `MEERKAT_KILL_SEED` repeats a run.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::remote_messages::{WriteRequest, packed, series};
use super::server::{Server, binary};
use super::world::{Exporter, Guarded, PATIENCE, remote_write, request, until, with_parameters};

/// Series of the exporter, and of each remote-write message.
const SERIES: usize = 40;
/// The value of a scraped sample is this times the number of the scrape, plus the number of the series.
const SPREAD: u64 = 64;
/// A start takes less of a processor, even in a debug build; how long it waits for one is the machine's affair.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Pause between two messages: with many cycles the oracle has to remember them all.
const PAUSE: Duration = Duration::from_millis(5);
/// Starts whose judgement looks at everything.
const WHOLE: u64 = 10;

/// The two metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    Scraped,
    Written,
}

/// Whole numbers by metric, series number and time in milliseconds.
type Samples = BTreeMap<(Metric, usize, i64), u64>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(elapsed.as_millis()).expect("before the end of time")
}

/// Everything that can be queried of the two metrics and is younger than `since`.
fn queryable(address: &str, since: i64) -> Result<Samples, String> {
    let mut out = Samples::new();
    // Messages may be dated later than now, when many come within a millisecond.
    let time = now_ms() + 60_000;
    let range = (time - since).min(86_400_000);
    for (metric, name) in [(Metric::Scraped, "scraped_total"), (Metric::Written, "written_total")] {
        let query = format!("{name}[{range}ms]");
        let time = (time as f64 / 1000.0).to_string();
        let path = with_parameters("/api/v1/query", &[("query", &query), ("time", &time)]);
        let answer = request(address, "GET", &path, &[], b"").map_err(|e| e.to_string())?;
        let json = answer.json();
        if json["warnings"] != serde_json::Value::Null {
            return Err(format!("warnings: {}", json["warnings"]));
        }
        for row in json["data"]["result"].as_array().ok_or_else(|| answer.text())? {
            let number = row["metric"]["n"].as_str().and_then(|n| n.parse().ok()).ok_or("no number")?;
            for sample in row["values"].as_array().ok_or("no values")? {
                let value = sample[1].as_str().ok_or("no value")?;
                let value = value.parse().map_err(|_| format!("{value} is no whole number"))?;
                let seconds = sample[0].as_f64().ok_or("no time")?;
                out.insert((metric, number, (seconds * 1000.0).round() as i64), value);
            }
        }
    }
    Ok(out)
}

/// What was sent and what was acknowledged, by time in milliseconds.
#[derive(Default)]
struct Log {
    sent: BTreeMap<i64, u64>,
    acknowledged: BTreeMap<i64, u64>,
}

/// Sends messages until told to stop or until the server is gone.
fn keep_writing(address: &str, log: &Mutex<Log>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let (time, sequence) = {
            let mut log = log.lock();
            let last = log.sent.last_key_value().map_or((0, 0), |(t, s)| (*t, *s));
            let next = (now_ms().max(last.0 + 1), last.1 + 1);
            log.sent.insert(next.0, next.1);
            next
        };
        let timeseries = (0..SERIES).map(|n| {
            let n = n.to_string();
            series(&[("__name__", "written_total"), ("n", n.as_str())], &[(time, sequence as f64)])
        });
        let message = packed(&WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() });
        match remote_write(address, &message) {
            Ok(answer) if answer.status == 204 => {
                log.lock().acknowledged.insert(time, sequence);
            }
            // Where blocks are as short as a second, a message may come after its range was closed.
            Ok(answer) if answer.status == 400 && answer.text().contains("out of") => {}
            Ok(answer) => assert!(answer.status >= 500, "refused: {} {}", answer.status, answer.text()),
            Err(_) => return,
        }
        std::thread::sleep(PAUSE);
    }
}

/// The judgement after a start, of what is younger than `since`.
fn check(before: &Samples, after: &Samples, log: &Log, since: i64, served: u64, context: &str) {
    for (key, value) in before.iter().filter(|((_, _, time), _)| *time > since) {
        assert_eq!(after.get(key), Some(value), "{context}: {key:?} could be queried and is gone or changed");
    }
    for (time, sequence) in log.acknowledged.range(since + 1..) {
        for n in 0..SERIES {
            let key = (Metric::Written, n, *time);
            assert_eq!(after.get(&key), Some(sequence), "{context}: {key:?} was acknowledged");
        }
    }
    let mut scrapes: BTreeMap<i64, (u64, usize)> = BTreeMap::new();
    let mut messages: BTreeMap<i64, usize> = BTreeMap::new();
    for ((metric, n, time), value) in after {
        if *metric == Metric::Written {
            assert_eq!(log.sent.get(time), Some(value), "{context}: series {n} at {time} was never sent");
            *messages.entry(*time).or_default() += 1;
            continue;
        }
        let (scrape, of) = (value / SPREAD, value % SPREAD);
        assert_eq!(of, *n as u64, "{context}: a value of another series at {time}");
        assert!(scrape >= 1 && scrape <= served, "{context}: scrape {scrape} of {served} at {time}");
        let entry = scrapes.entry(*time).or_insert((scrape, 0));
        assert_eq!(entry.0, scrape, "{context}: two scrapes mixed at {time}");
        entry.1 += 1;
    }
    for (time, (scrape, count)) in scrapes {
        assert_eq!(count, SERIES, "{context}: scrape {scrape} at {time} is not whole");
    }
    for (time, count) in messages {
        assert_eq!(count, SERIES, "{context}: the message of {time} is not whole");
    }
}

/// Number of finished blocks; nothing may have been set aside as damaged.
fn blocks_in(data: &std::path::Path) -> usize {
    let names = std::fs::read_dir(data).expect("the data directory").flatten();
    let names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|n| n.ends_with(".quarantine")), "{names:?}");
    names.iter().filter(|n| n.len() == 26).count()
}

/// Starts and kills at once, so that a start is interrupted.
fn kill_while_starting(folder: &std::path::Path, flags: &[&str], after: Duration) {
    let mut command = binary();
    command
        .current_dir(folder)
        .args(["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = Guarded(command.spawn().expect("the binary starts"));
    std::thread::sleep(after);
    child.0.kill().expect("it can be killed");
    child.0.wait().expect("it ends");
}

#[test]
fn nothing_queryable_or_acknowledged_is_lost() {
    let cycles = number("MEERKAT_KILL_CYCLES", 20);
    let seed = number("MEERKAT_KILL_SEED", now_ms().unsigned_abs());
    eprintln!("MEERKAT_KILL_SEED={seed} MEERKAT_KILL_CYCLES={cycles}");
    let mut random = fastrand::Rng::with_seed(seed);
    let served = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&served);
    let exporter = Exporter::text(move || {
        let scrape = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let lines =
            (0..SERIES as u64).map(|n| format!("scraped_total{{n=\"{n}\"}} {}\n", scrape * SPREAD + n));
        std::iter::once("# TYPE scraped_total counter\n".to_owned()).chain(lines).collect()
    });
    let config = format!(
        "global: {{scrape_interval: 200ms}}\nscrape_configs:\n  - job_name: oracle\n    static_configs: \
         [{{targets: ['{}']}}]\n",
        exporter.address
    );
    let mut folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("the configuration is written");
    let log = Arc::new(Mutex::new(Log::default()));
    let mut before = Samples::new();
    let mut slowest = Duration::ZERO;
    for cycle in 0..=cycles {
        let segment = ["128MB", "64KB", "1MB"][random.usize(..3)];
        let segment = format!("--storage.tsdb.wal-segment-size={segment}");
        let range = ["2h", "1s", "1s", "2s"][random.usize(..4)];
        let block = format!("--storage.tsdb.min-block-duration={range}");
        let flags = ["--web.enable-remote-write-receiver", segment.as_str(), block.as_str()];
        let context = format!("seed {seed}, cycle {cycle}, {segment}, {block}");
        if cycle > 2 && random.u8(..3) == 0 {
            kill_while_starting(folder.path(), &flags, Duration::from_millis(random.u64(..120)));
        }
        let begun = Instant::now();
        let mut server = Server::start_in(folder, &flags);
        slowest = slowest.max(begun.elapsed());
        let took = server.cpu_time().unwrap_or(begun.elapsed());
        assert!(took < START_LIMIT, "{context}: the start took {took:?}");
        if cycle % 20 == 0 {
            eprintln!("cycle {cycle}");
        }
        let is_whole = cycle % WHOLE == 0 || cycle == cycles;
        let since = if is_whole { now_ms() - 86_000_000 } else { now_ms() - 60_000 };
        let after = queryable(&server.address, since).expect("the server answers");
        check(&before, &after, &log.lock(), since, served.load(Ordering::SeqCst), &context);
        if cycle == cycles {
            let blocks = blocks_in(&server.folder.path().join("data"));
            eprintln!("{} samples, {blocks} blocks, slowest start {slowest:?}", after.len());
            assert!(cycles < 20 || blocks > 0, "no block was ever cut");
            assert!(log.lock().acknowledged.len() as u64 >= cycles, "hardly anything was written");
            // A clean stop keeps everything, too.
            let before = queryable(&server.address, since).expect("the server answers");
            let server = Server::start_in(server.stop(), &flags);
            let after = queryable(&server.address, since).expect("the server answers");
            check(&before, &after, &log.lock(), since, served.load(Ordering::SeqCst), "after a clean stop");
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (address, log, stop) = (server.address.clone(), Arc::clone(&log), Arc::clone(&stop));
            std::thread::spawn(move || keep_writing(&address, &log, &stop))
        };
        let first = served.load(Ordering::SeqCst);
        until("the exporter is scraped", PATIENCE, || {
            let scrapes = served.load(Ordering::SeqCst) - first;
            if scrapes >= 2 { Ok(()) } else { Err(format!("{scrapes} scrapes")) }
        });
        std::thread::sleep(Duration::from_millis(random.u64(..400)));
        if random.u8(..4) == 0 {
            // Time for a few blocks.
            std::thread::sleep(Duration::from_millis(random.u64(500..2000)));
        }
        // The next judgement may be of everything.
        let since = if (cycle + 1) % WHOLE == 0 { now_ms() - 86_000_000 } else { now_ms() - 120_000 };
        before = queryable(&server.address, since).expect("the server answers");
        std::thread::sleep(Duration::from_millis(random.u64(..30)));
        server.signal("KILL");
        assert_eq!(server.wait(), None, "{context}: killed");
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer had no complaint");
        let next = tempfile::tempdir().expect("a folder");
        folder = std::mem::replace(&mut server.folder, next);
    }
}
