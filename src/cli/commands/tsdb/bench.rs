//! `tsdb bench write`: how fast does storage take samples and answer queries on this machine? Series are made up, read
//! as label sets from a file of JSON lines as promtool does, or replayed from a recording of scrapes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command};

use super::super::output::say;
use super::super::progress::Progress;
use super::super::{code, switch, text};
use crate::model::clock::SystemClock;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, LabelsBuilder};
use crate::query::{Engine, EngineOptions, QueryOptions};
use crate::scrape::exposition::{
    Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};
use crate::telemetry::Registry;
use crate::tsdb::vfs::RealVfs;
use crate::tsdb::{Appendable as _, BatchOptions, Db, DbOptions, SeriesRef};

const INTERVAL_MS: i64 = 15_000;
/// First timestamp: far enough in the past for any length.
const BEGIN_MS: i64 = 1_600_000_000_000;
/// Series of one batch.
const BATCH: usize = 1000;
const MAX_INPUT_BYTES: u64 = 4 << 30;

pub(super) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .default_value(default)
            .value_parser(clap::value_parser!(usize))
            .help(help)
    };
    Command::new("bench")
        .about("Measure storage on this machine")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("write")
                .about("Write samples, compact them, query them, and print how long it took")
                .arg(
                    Arg::new("out")
                        .long("out")
                        .value_name("DIR")
                        .default_value("benchout")
                        .help("Where the data goes: DIR/storage must not exist; it stays afterwards."),
                )
                .arg(number("metrics", "10000", "Number of series."))
                .arg(number("scrapes", "3000", "Number of samples of each series."))
                .arg(switch("no-queries", "Write only."))
                .arg(Arg::new("file").value_name("FILE").help(
                    "Label sets, one JSON object on each line, or a recording of scrapes (.rec.zst: bodies in the \
                     text format, each after its length in four bytes, little-endian); made-up series if missing.",
                )),
        )
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(write(matches))
}

/// Series, and what they show at each scrape.
struct Input {
    series: Vec<Labels>,
    /// Recorded values by series; empty for made-up ones.
    recorded: Vec<Vec<f64>>,
}

impl Input {
    fn value(&self, series: usize, scrape: usize) -> f64 {
        match self.recorded.get(series % self.recorded.len().max(1)) {
            // Copies of a target are not in step.
            Some(row) if !row.is_empty() => {
                let copy = series / self.recorded.len();
                row.get((scrape + copy * 7) % row.len()).copied().unwrap_or(0.0)
            }
            // Counters with different slopes, every fourth one a gauge.
            _ if series.is_multiple_of(4) => ((scrape * 7919 + series * 31) % 1000) as f64 / 8.0,
            _ => (scrape * (series % 97 + 1)) as f64,
        }
    }
}

fn synthetic(metrics: usize) -> Input {
    let series = (0..metrics).map(|i| {
        Labels::from_pairs([
            ("__name__", format!("bench_metric_{:04}", i % 500)),
            ("instance", format!("host-{:05}:9100", i / 500)),
            ("job", format!("job-{}", i / 5000)),
            ("mode", ["idle", "user", "system", "iowait"][i % 4].to_owned()),
        ])
    });
    Input { series: series.collect(), recorded: Vec::new() }
}

fn read_json(bytes: &[u8], metrics: usize) -> Result<Input, String> {
    let mut series = Vec::new();
    for (i, line) in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).enumerate().take(metrics) {
        let map: BTreeMap<String, String> =
            serde_json::from_slice(line).map_err(|e| format!("line {}: {e}", i + 1))?;
        series.push(Labels::from_pairs(map));
    }
    Ok(Input { series, recorded: Vec::new() })
}

/// Values of each series in order.
struct Values<'a> {
    rows: &'a mut BTreeMap<Labels, Vec<f64>>,
    pairs: PairBuffer,
}

impl Sink for Values<'_> {
    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        series.labels(&mut self.pairs).map_err(|_| Stop)?;
        self.rows.entry(self.pairs.to_labels()).or_default().push(sample.value);
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// A recording of one target, repeated under other names until there are enough series.
fn read_recording(bytes: &[u8], metrics: usize) -> Result<Input, String> {
    let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(|e| e.to_string())?;
    decoder.window_log_max(31).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    decoder.take(MAX_INPUT_BYTES).read_to_end(&mut all).map_err(|e| e.to_string())?;
    let mut rows: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    let mut rest = &all[..];
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (body, tail) =
            tail.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or("the recording is cut off")?;
        rest = tail;
        let mut values = Values { rows: &mut rows, pairs: PairBuffer::default() };
        parse(Format::Text, body, &ParseOptions::default(), &mut values).map_err(|e| e.to_string())?;
    }
    let (names, recorded): (Vec<Labels>, Vec<Vec<f64>>) = rows.into_iter().unzip();
    if names.is_empty() {
        return Err("the recording has no series".into());
    }
    let series = (0..metrics).map(|i| {
        let mut labels = LabelsBuilder::new(names.get(i % names.len()).unwrap_or(&Labels::empty()));
        labels.set("instance", &format!("host-{:05}:9100", i / names.len())).set("job", "bench");
        labels.build()
    });
    Ok(Input { series: series.collect(), recorded })
}

fn stage<T>(name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<(T, Duration), String> {
    say!(">> start stage={name}");
    let begun = Instant::now();
    let done = work()?;
    let took = begun.elapsed();
    say!(">> completed stage={name} duration={took:?}");
    Ok((done, took))
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn write(matches: &ArgMatches) -> Result<(), String> {
    let number = |name: &str| matches.get_one::<usize>(name).copied().unwrap_or(1).max(1);
    let (metrics, scrapes) = (number("metrics"), number("scrapes"));
    let dir: PathBuf = Path::new(text(matches, "out")).join("storage");
    if dir.exists() {
        return Err(format!("{} exists already: name another directory with --out", dir.display()));
    }
    let file = text(matches, "file");
    let (input, _) = stage("readData", || {
        if file.is_empty() {
            return Ok(synthetic(metrics));
        }
        let bytes = std::fs::read(file).map_err(|e| format!("cannot read {file}: {e}"))?;
        let read = if file.ends_with(".zst") { read_recording } else { read_json };
        read(&bytes, metrics).map_err(|e| format!("{file}: {e}"))
    })?;
    let options = DbOptions { path: dir.clone(), retention_ms: 0, ..DbOptions::default() };
    let db = Db::open(options, Arc::new(RealVfs), Arc::new(SystemClock), &Registry::new())
        .map_err(|e| e.to_string())?;
    let progress = Progress::new("Writing");
    let (total, took) = stage("ingestScrapes", || ingest(&db, &input, scrapes, &progress))?;
    drop(progress);
    say!(" > total samples: {total}");
    say!(" > samples/sec: {:.0}", total as f64 / took.as_secs_f64());
    say!(" > log bytes per sample: {:.3}", db.wal_bytes_written() as f64 / total as f64);
    let heap = db.head_heap_bytes() as f64;
    say!(" > heap bytes per series: {:.0}", heap / input.series.len().max(1) as f64);
    stage("compact", || db.compact().map_err(|e| e.to_string()))?;
    if !matches.get_flag("no-queries") {
        query(&db, scrapes)?;
    }
    stage("stopStorage", || db.close().map_err(|e| e.to_string()))?;
    let bytes = size(&dir);
    say!(" > bytes on disk per sample: {:.3} ({bytes} bytes)", bytes as f64 / total as f64);
    Ok(())
}

fn ingest(db: &Db, input: &Input, scrapes: usize, progress: &Progress) -> Result<u64, String> {
    let mut references = vec![SeriesRef::NONE; input.series.len()];
    let mut total = 0;
    for scrape in 0..scrapes {
        let t_ms = BEGIN_MS + scrape as i64 * INTERVAL_MS;
        for (group, names) in input.series.chunks(BATCH).enumerate() {
            let options = BatchOptions { source: group as u64 + 1, ..BatchOptions::default() };
            let mut batch = db.appender(options);
            for (i, labels) in names.iter().enumerate() {
                let series = group * BATCH + i;
                let value = input.value(series, scrape);
                let Some(reference) = references.get_mut(series) else { continue };
                *reference = batch
                    .append(*reference, &|| labels.clone(), 0, t_ms, value)
                    .map_err(|e| format!("{labels}: {e}"))?;
            }
            total += batch.commit().map_err(|e| e.to_string())?.samples;
        }
        progress.show(scrape as u64, scrapes as u64, &format!("{total} samples"));
    }
    Ok(total)
}

/// Queries as dashboards ask them, over all the time that was written.
fn query(db: &Db, scrapes: usize) -> Result<(), String> {
    let engine = Engine::new(EngineOptions::default(), &Registry::new());
    let end = BEGIN_MS + scrapes as i64 * INTERVAL_MS;
    let step = ((end - BEGIN_MS) / 250).max(INTERVAL_MS);
    let name = "{__name__=~\".+\"}";
    let queries = [
        ("count of all series, now", format!("count({name})"), true),
        ("values by metric, now", format!("sum by (__name__) ({name})"), true),
        (
            "rate of one instance, range",
            "sum by (job) (rate({instance=~\"host-00000:.*\"}[5m]))".into(),
            false,
        ),
        ("maximum by job, range", format!("max by (job) ({name})"), false),
        ("rate of everything, range", format!("sum(rate({name}[5m]))"), false),
    ];
    for (what, text, instant) in queries {
        let begun = Instant::now();
        let result = if instant {
            engine.instant(db, &text, end, &QueryOptions::default())
        } else {
            engine.range(db, &text, BEGIN_MS, end, step, &QueryOptions::default())
        };
        let took = begun.elapsed();
        match result {
            Ok(_) => say!(" > query {what}: {:.1} ms", took.as_secs_f64() * 1000.0),
            Err(error) => say!(" > query {what}: {error}"),
        }
    }
    Ok(())
}
