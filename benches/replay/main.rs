//! Sends recorded scrapes by remote write, hours of them at once, to one or more servers: what queries are measured
//! on.
//!
//! `cargo run --release --example replay -- --corpus DIR --end 1760000000 --to http://127.0.0.1:9090/api/v1/write`
//!
//! Frame *f* of a recording stands for one scrape; target *k* starts at frame 90 *k* and goes on cyclically, so that
//! counters reset now and then and no two targets show the same values at the same time. Series that are missing
//! from a frame get a stale marker. Every server gets the same requests (remote write 1.0, snappy), oldest first; at
//! the end the number of series and samples is printed as JSON.
//!
//! With `--counters 1000,10000` there are made-up counters instead of recordings: so many series of
//! `requests_1000_total` and so on, sampled every five minutes in the last hour, and with `--long 100` so many of
//! `requests_long_total` over all hours.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Series in one request.
const SERIES: usize = 1000;
/// The bits that say that a series ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

struct Options {
    corpus: PathBuf,
    targets: usize,
    interval_s: i64,
    hours: i64,
    /// Scrapes in one request.
    scrapes: usize,
    /// Time of the last scrape, seconds.
    end_s: i64,
    /// Made-up counters of the last hour, by metric.
    counters: Vec<usize>,
    /// Made-up counters over all hours.
    long: usize,
    to: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        corpus: "testdata/recorded".into(),
        targets: 3,
        interval_s: 60,
        hours: 24,
        scrapes: 10,
        end_s: 1_760_000_400,
        counters: Vec::new(),
        long: 0,
        to: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<i64>().map_err(|e| format!("{name}: {e}"));
        match name.as_str() {
            "--corpus" => options.corpus = value.into(),
            "--targets" => options.targets = number()?.max(1) as usize,
            "--interval" => options.interval_s = number()?.max(1),
            "--scrapes" => options.scrapes = number()?.max(1) as usize,
            "--hours" => options.hours = number()?.max(1),
            "--end" => options.end_s = number()?,
            "--counters" => {
                let numbers = value.split(',').map(str::parse);
                options.counters = numbers.collect::<Result<_, _>>().map_err(|e| format!("{name}: {e}"))?;
            }
            "--long" => options.long = number()?.max(0) as usize,
            "--to" => options.to.push(value),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.to.is_empty() { Err("--to URL says where the samples go".into()) } else { Ok(options) }
}

/// The series of one recording: sorted labels, and a value for each frame.
struct Recording {
    job: String,
    series: BTreeMap<Vec<(String, String)>, Vec<Option<f64>>>,
    frames: usize,
}

/// Labels of a line of the text format, as far as recordings use it.
fn labels_of(text: &str) -> Option<Vec<(String, String)>> {
    let (name, mut rest) = text.split_once('{').unwrap_or((text, "}"));
    let mut labels = vec![("__name__".to_owned(), name.trim().to_owned())];
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.starts_with('}') {
            break;
        }
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (i, '"') => break i + 1,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c => c,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((label.to_owned(), value));
        rest = &after[end..];
    }
    Some(labels)
}

fn load(path: &Path) -> Result<Recording, String> {
    let fail = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    let mut decoder = zstd::stream::Decoder::new(file).map_err(|e| fail(&e))?;
    decoder.window_log_max(31).map_err(|e| fail(&e))?;
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    let job = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or("job");
    let mut recording = Recording { job: job.to_owned(), series: BTreeMap::new(), frames: 0 };
    let mut rows: std::collections::HashMap<String, Vec<Option<f64>>> = Default::default();
    let mut rest = &bytes[..];
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (body, tail) = tail
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .ok_or_else(|| fail(&"it is cut short"))?;
        rest = tail;
        let body = std::str::from_utf8(body).map_err(|e| fail(&e))?;
        for line in body.lines().filter(|l| !l.starts_with('#')) {
            let Some((text, number)) = line.rsplit_once(' ') else { continue };
            if !rows.contains_key(text) {
                rows.insert(text.to_owned(), Vec::new());
            }
            let Some(row) = rows.get_mut(text) else { continue };
            row.resize(recording.frames, None);
            row.push(number.parse().ok());
        }
        recording.frames += 1;
    }
    for (text, mut row) in rows {
        row.resize(recording.frames, None);
        let labels = labels_of(&text).ok_or_else(|| fail(&format!("no series: {text}")))?;
        recording.series.insert(labels, row);
    }
    Ok(recording)
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// One series of one target: its labels as protobuf, its row, and the frame it starts at.
struct Series<'a> {
    labels: Vec<u8>,
    row: &'a [Option<f64>],
    first: usize,
    /// The scrape that has its first sample.
    from: usize,
    /// Scrapes from sample to sample.
    every: usize,
}

fn encoded(labels: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        bytes_field(&mut label, 0x0a, name.as_bytes());
        bytes_field(&mut label, 0x12, value.as_bytes());
        bytes_field(&mut out, 0x0a, &label);
    }
    out
}

/// What made-up counters show, scrape by scrape, in a few variants.
fn made_up_rows(scrapes: usize) -> Vec<Vec<Option<f64>>> {
    let row = |variant: usize| {
        let mut count = 0.0;
        let step = move |i: usize| {
            count += ((i * 7919 + variant * 104_729) % 97) as f64;
            Some(count)
        };
        (0..scrapes).map(step).collect()
    };
    (0..16).map(row).collect()
}

fn made_up_series<'a>(rows: &'a [Vec<Option<f64>>], options: &Options) -> Vec<Series<'a>> {
    let scrapes = rows.first().map_or(0, Vec::len);
    let hour = ((3600 / options.interval_s) as usize).min(scrapes.saturating_sub(1));
    let every = (300 / options.interval_s).max(1) as usize;
    let last_hour =
        options.counters.iter().map(|n| (format!("requests_{n}_total"), *n, scrapes - 1 - hour, every));
    let kinds = [("requests_long_total".to_owned(), options.long, 0, 1)].into_iter().chain(last_hour);
    kinds
        .flat_map(|(name, n, from, every)| {
            (0..n).map(move |i| {
                let labels = [
                    ("__name__".to_owned(), name.clone()),
                    ("code".to_owned(), (200 + i % 10).to_string()),
                    ("instance".to_owned(), format!("host-{:05}.example:9100", i / 10)),
                    ("job".to_owned(), format!("job-{}", i % 7)),
                ];
                Series { labels: encoded(&labels), row: &rows[i % rows.len()], first: 0, from, every }
            })
        })
        .collect()
}

fn all_series<'a>(recordings: &'a [Recording], targets: usize) -> Vec<Series<'a>> {
    let mut out = Vec::new();
    for recording in recordings {
        for target in 0..targets {
            for (labels, row) in &recording.series {
                let mut labels: Vec<(String, String)> =
                    labels.iter().filter(|(n, _)| n != "job" && n != "instance").cloned().collect();
                labels.push(("job".into(), recording.job.clone()));
                labels.push(("instance".into(), format!("{}-{target}.example:9100", recording.job)));
                labels.sort();
                let first = target * 90 % recording.frames;
                out.push(Series { labels: encoded(&labels), row, first, from: 0, every: 1 });
            }
        }
    }
    out
}

/// A request with the scrapes `scrapes` of `series`, and how many samples it holds.
fn request(series: &[Series<'_>], scrapes: std::ops::Range<usize>, options: &Options) -> (Vec<u8>, usize) {
    let last = (options.hours * 3600 / options.interval_s) as usize;
    let (mut out, mut count) = (Vec::new(), 0);
    let (mut one, mut sample) = (Vec::new(), Vec::new());
    for s in series {
        one.clear();
        one.extend_from_slice(&s.labels);
        let before = one.len();
        let due = |i: &usize| *i >= s.from && (*i - s.from).is_multiple_of(s.every);
        for i in scrapes.clone().filter(due) {
            let at = |i: usize| s.row[(s.first + i) % s.row.len()];
            let bits = match at(i) {
                Some(v) => v.to_bits(),
                None if i > 0 && at(i - 1).is_some() => STALE,
                None => continue,
            };
            let t_ms = (options.end_s - (last - i) as i64 * options.interval_s) * 1000;
            sample.clear();
            sample.push(0x09);
            sample.extend_from_slice(&bits.to_le_bytes());
            sample.push(0x10);
            varint(&mut sample, t_ms as u64);
            bytes_field(&mut one, 0x12, &sample);
            count += 1;
        }
        if one.len() > before {
            bytes_field(&mut out, 0x0a, &one);
        }
    }
    (out, count)
}

/// Sends what comes to one server, one request after the other.
fn deliver(url: &str, bodies: &Receiver<Arc<Vec<u8>>>) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).map_err(|e| format!("{url}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("{url}: {e}"))?;
    for body in bodies {
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        sent.map_err(|e| format!("{url}: {e}"))?;
        let answer = answer(&mut stream).map_err(|e| format!("{url}: {e}"))?;
        if !answer.starts_with("HTTP/1.1 20") {
            return Err(format!("{url} answers {answer}"));
        }
    }
    Ok(())
}

/// Head and body of an answer that says its length.
fn answer(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Ok(text);
        }
    }
}

fn main() -> Result<(), String> {
    let options = options()?;
    let scrapes = (options.hours * 3600 / options.interval_s) as usize + 1;
    if options.long > 0 || !options.counters.is_empty() {
        let rows = made_up_rows(scrapes);
        return send(&made_up_series(&rows, &options), scrapes, &options);
    }
    let folder = std::fs::read_dir(&options.corpus)
        .map_err(|e| format!("cannot list {}: {e}", options.corpus.display()))?;
    let mut files: Vec<PathBuf> = folder.flatten().map(|e| e.path()).collect();
    files.retain(|f| f.to_string_lossy().ends_with(".rec.zst"));
    files.sort();
    let recordings = files.iter().map(|f| load(f)).collect::<Result<Vec<_>, _>>()?;
    send(&all_series(&recordings, options.targets), scrapes, &options)
}

/// Sends all samples, oldest first, and prints how many there were.
fn send(series: &[Series<'_>], scrapes: usize, options: &Options) -> Result<(), String> {
    let mut samples = 0;
    std::thread::scope(|scope| {
        let (mut queues, mut workers) = (Vec::new(), Vec::new());
        for url in &options.to {
            let (send, receive) = sync_channel::<Arc<Vec<u8>>>(16);
            queues.push(send);
            workers.push(scope.spawn(move || deliver(url, &receive)));
        }
        for first in (0..scrapes).step_by(options.scrapes) {
            let until = (first + options.scrapes).min(scrapes);
            for part in series.chunks(SERIES).filter(|part| part.iter().any(|s| s.from < until)) {
                let (body, count) = request(part, first..until, options);
                samples += count;
                let body = snap::raw::Encoder::new().compress_vec(&body).map_err(|e| e.to_string())?;
                let body = Arc::new(body);
                // A server that gave up says why below.
                queues.retain(|queue| queue.send(Arc::clone(&body)).is_ok());
            }
        }
        drop(queues);
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| "a sender panicked".to_owned())?)
    })?;
    println!("{{\"series\": {}, \"samples\": {samples}}}", series.len());
    Ok(())
}
