//! What does a sample cost in a native block, and how fast are its codecs? Recorded scrapes are replayed as six
//! hours of 15-second scrapes of eight targets for each job, written as one block, and taken apart.
//!
//! `cargo bench --bench block [-- JOB…]`. Frame *f* of a recording stands for one scrape; target *k* starts at frame
//! 90 *k* and goes on cyclically, so that each counter resets once or twice in 1440 scrapes and no two targets show
//! the same values at the same time. A series that is missing from a frame gets a stale marker.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Instant;

use meerkat::model::{Labels, LabelsBuilder, stale_nan};
use meerkat::tsdb::StorageError;
use meerkat::tsdb::block::bytes::Input;
use meerkat::tsdb::block::format::{PART_NAMES, Part};
use meerkat::tsdb::block::values::{self, Codec};
use meerkat::tsdb::block::{BlockMeta, SeriesColumns, SeriesSource, WriteReport, new_ulid, write_block};

const SCRAPES: usize = 1440;
const TARGETS: usize = 8;
const INTERVAL_MS: i64 = 15_000;
const START_MS: i64 = 1_760_000_400_000;

/// One recording: a row of values for each series, absent frames as `None`.
struct Recording {
    job: String,
    series: BTreeMap<Labels, Vec<Option<f64>>>,
    frames: usize,
}

fn parse_line(line: &str) -> Option<(Labels, f64)> {
    let mut labels = LabelsBuilder::default();
    let rest = match line.find(['{', ' ']) {
        Some(at) if line.as_bytes()[at] == b'{' => {
            labels.set("__name__", &line[..at]);
            let mut rest = &line[at + 1..];
            while !rest.starts_with('}') {
                let equals = rest.find("=\"")?;
                let name = rest[..equals].trim_start_matches(',').to_owned();
                rest = &rest[equals + 2..];
                let mut end = 0;
                while rest.as_bytes()[end] != b'"' {
                    end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
                }
                labels.set(&name, &rest[..end]);
                rest = rest[end + 1..].trim_start_matches(',');
            }
            &rest[1..]
        }
        Some(at) => {
            labels.set("__name__", &line[..at]);
            &line[at..]
        }
        None => return None,
    };
    let number = rest.split_ascii_whitespace().next()?;
    Some((labels.build(), number.parse().ok()?))
}

fn load(path: &std::path::Path) -> Option<Recording> {
    let job = path.file_name()?.to_str()?.split('.').next()?.to_owned();
    let mut decoder = zstd::stream::Decoder::new(std::fs::File::open(path).ok()?).ok()?;
    decoder.window_log_max(31).ok()?;
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes).ok()?;
    let (mut series, mut frames) = (BTreeMap::<Labels, Vec<Option<f64>>>::new(), 0);
    let mut known: std::collections::HashMap<String, Labels> = std::collections::HashMap::new();
    let mut rest = &bytes[..];
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (body, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        rest = tail;
        for line in std::str::from_utf8(body).ok()?.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let (text, number) = line.rsplit_once(' ')?;
            let labels = match known.get(text) {
                Some(labels) => labels.clone(),
                None => {
                    let (labels, _) = parse_line(line)?;
                    known.insert(text.to_owned(), labels.clone());
                    labels
                }
            };
            let row = series.entry(labels).or_default();
            row.resize(frames, None);
            row.push(number.parse().ok());
        }
        frames += 1;
    }
    series.values_mut().for_each(|row| row.resize(frames, None));
    Some(Recording { job, series, frames })
}

/// The series of all targets in order, made one at a time.
struct Replay<'a> {
    items: std::vec::IntoIter<(Labels, &'a [Option<f64>], usize, i64)>,
    jitter: bool,
}

impl<'a> Replay<'a> {
    fn new(recordings: &'a [Recording], jitter: bool) -> Self {
        let mut items = Vec::new();
        for (r, recording) in recordings.iter().enumerate() {
            for target in 0..TARGETS {
                let offset_ms = ((r * TARGETS + target) as i64 * 7919) % INTERVAL_MS;
                for (labels, row) in &recording.series {
                    let mut labels = LabelsBuilder::new(labels);
                    labels.set("job", &recording.job);
                    labels.set("instance", &format!("{}-{target}.example:9100", recording.job));
                    items.push((labels.build(), &row[..], target * 90 % recording.frames, offset_ms));
                }
            }
        }
        items.sort_by(|a, b| a.0.cmp(&b.0));
        Self { items: items.into_iter(), jitter }
    }
}

impl SeriesSource for Replay<'_> {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        out.clear();
        let Some((labels, row, first, offset_ms)) = self.items.next() else { return Ok(None) };
        let mut present = false;
        for i in 0..SCRAPES {
            let late = if self.jitter { (i as i64 * 7919 + offset_ms) % 11 } else { 0 };
            let t = START_MS + offset_ms + i as i64 * INTERVAL_MS + late;
            let value = row[(first + i) % row.len()];
            match value {
                Some(v) => out.push_float(t, 0, v),
                None if present => out.push_float(t, 0, stale_nan()),
                None => {}
            }
            present = value.is_some();
        }
        Ok(Some(labels))
    }
}

fn write(recordings: &[Recording], jitter: bool) -> (WriteReport, f64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut source = Replay::new(recordings, jitter);
    let began = Instant::now();
    let meta = BlockMeta::new(new_ulid(1), i64::MAX, i64::MIN);
    let written = write_block(dir.path(), meta, &mut source, &|| false).expect("a block");
    let (dir, _, report) = written.expect("samples");
    let files: u64 =
        std::fs::read_dir(dir).expect("the block").map(|f| f.unwrap().metadata().unwrap().len()).sum();
    let seconds = began.elapsed().as_secs_f64();
    (WriteReport { file_len: files, ..report }, seconds)
}

fn codec_speeds(recordings: &[Recording]) {
    #[derive(Default, Clone)]
    struct Sums {
        samples: u64,
        bytes: u64,
        encode_ns: u128,
        decode_ns: u128,
    }
    let mut sums = vec![Sums::default(); Codec::ALL.len()];
    let mut source = Replay::new(recordings, false);
    let mut columns = SeriesColumns::default();
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    while source.next_series(&mut columns).expect("series").is_some() {
        bytes.clear();
        let began = Instant::now();
        let codec = values::encode(&columns.values, &mut bytes);
        let encoded = began.elapsed();
        let began = Instant::now();
        values::decode(&mut Input::new(&bytes), columns.values.len(), &mut back).expect("own bytes");
        let sum = &mut sums[codec as usize];
        sum.decode_ns += began.elapsed().as_nanos();
        sum.encode_ns += encoded.as_nanos();
        sum.samples += columns.values.len() as u64;
        sum.bytes += bytes.len() as u64;
    }
    println!("{:<12} {:>12} {:>9} {:>10} {:>10}", "codec", "samples", "B/sample", "enc ns", "dec ns");
    for (codec, sum) in Codec::ALL.iter().zip(&sums).filter(|(_, s)| s.samples > 0) {
        let each = |x: f64| x / sum.samples as f64;
        println!(
            "{:<12} {:>12} {:>9.4} {:>10.1} {:>10.2}",
            format!("{codec:?}"),
            sum.samples,
            each(sum.bytes as f64),
            each(sum.encode_ns as f64),
            each(sum.decode_ns as f64)
        );
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(root.join("../shared/corpus"))
        .or_else(|_| std::fs::read_dir(root.join("testdata/recorded")))
        .expect("testdata has a recording");
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    let mut recordings: Vec<Recording> = paths.iter().filter_map(|p| load(p)).collect();
    recordings.retain(|r| wanted.is_empty() || wanted.contains(&r.job));
    println!("{SCRAPES} scrapes, {TARGETS} targets for each job; bytes per sample, everything counted");
    for recording in &recordings {
        let (report, _) = write(std::slice::from_ref(recording), false);
        let samples = report.footer.float_samples as f64;
        let data = report.footer.parts[Part::Data as usize].len as f64;
        println!(
            "{:<14} {:>6} series {:>7.4} total {:>7.4} values",
            recording.job,
            report.footer.series,
            report.file_len as f64 / samples,
            data / samples
        );
    }
    for jitter in [false, true] {
        let (report, seconds) = write(&recordings, jitter);
        let samples = report.footer.float_samples as f64;
        println!(
            "\nall jobs{}: {} series, {} samples, {:.4} bytes per sample, written and verified in {:.0} ns per sample",
            if jitter { ", timestamps jittered by 0-10 ms" } else { "" },
            report.footer.series,
            samples,
            report.file_len as f64 / samples,
            seconds * 1e9 / samples
        );
        for (name, part) in PART_NAMES.iter().zip(&report.footer.parts) {
            println!("  {name:<20} {:>10} B {:>8.4}", part.len, part.len as f64 / samples);
        }
    }
    println!();
    codec_speeds(&recordings);
}
