//! Blocks in Prometheus's format: returned bit for bit, damaged, and judged by Prometheus itself where it is
//! available (`MEERKAT_PEERS` names the directory of its binaries).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::sample::{HistogramValue, stale_nan};
use crate::model::{Labels, Matcher};
use crate::tsdb::block::bytes::{put_varint, put_zigzag};
use crate::tsdb::block::{BlockMeta, SeriesSource, histograms::same_bits, new_ulid};
use crate::tsdb::door::{Querier, SelectHints};

type Naive = BTreeMap<Labels, SeriesColumns>;

fn integer(i: u64, stale: bool) -> HistogramValue {
    HistogramValue::Integer(Arc::new(if stale {
        Histogram { sum: stale_nan(), ..Histogram::default() }
    } else {
        Histogram {
            counter_reset_hint: CounterResetHint::Unknown,
            schema: if i >= 50 { -53 } else { 1 },
            zero_threshold: if i < 20 { 1e-3 } else { 0.25 },
            zero_count: if i >= 50 { 0 } else { i / 2 },
            count: if i >= 50 { 3 * i } else { 3 * i + i / 2 },
            sum: i as f64 * 0.7,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![i as i64, i as i64],
            custom_values: if i >= 50 { vec![0.1, 2.5, 1e-9].into() } else { Arc::default() },
            ..Histogram::default()
        }
    }))
}

fn float(i: u64) -> HistogramValue {
    HistogramValue::Float(Arc::new(FloatHistogram {
        counter_reset_hint: CounterResetHint::Gauge,
        schema: 0,
        zero_threshold: 0.0,
        count: i as f64 * 1.5,
        sum: -(i as f64),
        negative_spans: vec![Span { offset: -3, length: 1 }, Span { offset: 2, length: 1 }],
        negative_buckets: vec![i as f64, i as f64 * 0.5],
        ..FloatHistogram::default()
    }))
}

fn data() -> Naive {
    let start = 1_760_000_400_000;
    let mut all = Naive::new();
    for s in 0..40 {
        let labels = Labels::from_pairs([
            ("__name__", "metric_total".to_owned()),
            ("instance", format!("host-{}", s % 7)),
            ("n", format!("{s}")),
        ]);
        let mut columns = SeriesColumns::default();
        for i in 0..300 {
            let v = if i == 200 && s % 5 == 0 { stale_nan() } else { f64::from(i * s) + 0.1 };
            columns.push_float(start + i64::from(i) * 15_000 + i64::from(s * i % 3), 0, v);
        }
        all.insert(labels, columns);
    }
    let mut columns = SeriesColumns::default();
    for i in 0..70 {
        columns.push_histogram(start + i as i64 * 15_000, 0, integer(if i == 33 { 1 } else { i }, i == 40));
    }
    columns.push_float(start + 70 * 15_000, 0, 1.0);
    all.insert(Labels::from_pairs([("__name__", "latency")]), columns);
    let mut columns = SeriesColumns::default();
    (0..130).for_each(|i| columns.push_histogram(start + i as i64 * 15_000, 0, float(i)));
    all.insert(Labels::from_pairs([("__name__", "size")]), columns);
    all
}

fn write(dir: &Path, data: &Naive) -> Arc<PrometheusBlock> {
    let meta = BlockMeta::new(new_ulid(1_760_000_400_000), i64::MAX, i64::MIN);
    let mut source = data.clone().into_iter();
    let (dir, _) = write_prometheus_block(dir, meta, &mut source, &|| false).unwrap().unwrap();
    PrometheusBlock::open(&dir).unwrap()
}

fn plain(h: &HistogramValue) -> HistogramValue {
    // Prometheus keeps the hint of a chunk's first sample only.
    match h {
        HistogramValue::Integer(h) => HistogramValue::Integer(Arc::new(Histogram {
            counter_reset_hint: CounterResetHint::Unknown,
            ..(**h).clone()
        })),
        HistogramValue::Float(h) => HistogramValue::Float(Arc::new(FloatHistogram {
            counter_reset_hint: CounterResetHint::Unknown,
            ..(**h).clone()
        })),
    }
}

fn same(a: &SeriesColumns, b: &SeriesColumns) -> bool {
    let bits = |c: &SeriesColumns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.timestamps == b.timestamps
        && bits(a) == bits(b)
        && a.histograms.len() == b.histograms.len()
        && a.histograms
            .iter()
            .zip(&b.histograms)
            .all(|(a, b)| a.0 == b.0 && same_bits(&plain(&a.1), &plain(&b.1)))
}

fn read_all(block: &Arc<PrometheusBlock>) -> (Naive, Vec<String>) {
    let mut source = PrometheusSource::new(Arc::clone(block));
    let (mut columns, mut all) = (SeriesColumns::default(), Naive::new());
    while let Ok(Some(labels)) = source.next_series(&mut columns) {
        all.insert(labels, columns.clone());
    }
    (all, source.warnings)
}

#[test]
fn everything_returns() {
    let dir = tempfile::tempdir().unwrap();
    let data = data();
    let block = write(dir.path(), &data);
    let (back, warnings) = read_all(&block);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(back.keys().collect::<Vec<_>>(), data.keys().collect::<Vec<_>>());
    for (labels, columns) in &data {
        assert!(same(columns, &back[labels]), "{labels}");
    }
    let querier = PrometheusQuerier::new(Arc::clone(&block), i64::MIN, i64::MAX);
    let matchers = [
        Matcher::equal("instance", "host-3"),
        Matcher::new("n", crate::model::MatchOp::Regex, "1.*").unwrap(),
    ];
    let set = querier.select(&SelectHints::default(), &matchers).unwrap();
    let got: Vec<String> = (0..set.len()).map(|i| set.labels(i).value("n").to_owned()).collect();
    assert_eq!(got, ["10", "17"]);
    block.delete(i64::MIN, i64::MAX, &[Matcher::equal("__name__", "size")]).unwrap();
    let reopened = PrometheusBlock::open(block.dir()).unwrap();
    let (back, _) = read_all(&reopened);
    assert!(back[&Labels::from_pairs([("__name__", "size")])].is_empty());
}

/// The index of a block in version 1: symbols and series are named by where they begin.
fn version_1(block: &PrometheusBlock) -> Vec<u8> {
    fn section(out: &mut Vec<u8>, content: &[u8]) -> u64 {
        let at = out.len() as u64;
        out.extend_from_slice(&(content.len() as u32).to_be_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
        at
    }
    fn put_text(out: &mut Vec<u8>, text: &str) {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    let series: Vec<_> = block.select_ids(&[]).unwrap().iter().map(|id| block.series(*id).unwrap()).collect();
    let mut out = vec![0xba, 0xaa, 0xd7, 0x00, 1];
    let texts = series.iter().flat_map(|(labels, _)| labels.iter().flat_map(|l| [l.name, l.value]));
    let mut symbols: BTreeMap<&str, u64> = texts.map(|text| (text, 0)).collect();
    let mut content = (symbols.len() as u32).to_be_bytes().to_vec();
    for (text, at) in &mut symbols {
        *at = (out.len() + 4 + content.len()) as u64;
        put_text(&mut content, text);
    }
    let symbols_at = section(&mut out, &content);
    let series_at = out.len() as u64;
    let mut lists: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (labels, chunks) in &series {
        let id = out.len() as u32;
        lists.entry(("", "")).or_default().push(id);
        let mut content = Vec::new();
        put_varint(&mut content, labels.len() as u64);
        for label in labels.iter() {
            lists.entry((label.name, label.value)).or_default().push(id);
            put_varint(&mut content, symbols[label.name]);
            put_varint(&mut content, symbols[label.value]);
        }
        put_varint(&mut content, chunks.len() as u64);
        for (i, chunk) in chunks.iter().enumerate() {
            match i.checked_sub(1).map(|before| &chunks[before]) {
                None => put_zigzag(&mut content, chunk.min_t_ms),
                Some(before) => put_varint(&mut content, chunk.min_t_ms.abs_diff(before.max_t_ms)),
            }
            put_varint(&mut content, chunk.max_t_ms.abs_diff(chunk.min_t_ms));
            match i.checked_sub(1).map(|before| &chunks[before]) {
                None => put_varint(&mut content, chunk.reference),
                Some(before) => {
                    put_zigzag(&mut content, chunk.reference.wrapping_sub(before.reference).cast_signed());
                }
            }
        }
        put_varint(&mut out, content.len() as u64);
        out.extend_from_slice(&content);
        out.extend_from_slice(&crc32c::crc32c(&content).to_be_bytes());
    }
    let postings_at = out.len() as u64;
    let mut table = (lists.len() as u32).to_be_bytes().to_vec();
    for ((name, value), ids) in &lists {
        let mut content = (ids.len() as u32).to_be_bytes().to_vec();
        ids.iter().for_each(|id| content.extend_from_slice(&id.to_be_bytes()));
        let at = section(&mut out, &content);
        put_varint(&mut table, 2);
        put_text(&mut table, name);
        put_text(&mut table, value);
        put_varint(&mut table, at);
    }
    let table_at = section(&mut out, &table);
    let places = [symbols_at, series_at, 0, 0, postings_at, table_at];
    let contents: Vec<u8> = places.iter().flat_map(|at| at.to_be_bytes()).collect();
    out.extend_from_slice(&contents);
    out.extend_from_slice(&crc32c::crc32c(&contents).to_be_bytes());
    out
}

#[test]
fn an_index_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = data();
    let block = write(dir.path(), &data);
    std::fs::write(block.dir().path().join("index"), version_1(&block)).unwrap();
    let block = PrometheusBlock::open(block.dir().path()).unwrap();
    let (mut source, mut columns) = (PrometheusSource::new(Arc::clone(&block)), SeriesColumns::default());
    for (labels, want) in &data {
        assert_eq!(source.next_series(&mut columns).unwrap().as_ref(), Some(labels));
        assert!(same(&columns, want), "{labels}");
    }
    assert_eq!(source.next_series(&mut columns).unwrap(), None);
    assert_eq!(source.warnings, Vec::<String>::new());
    let host = |labels: &&Labels| labels.value("instance") == "host-3";
    let found = block.select_ids(&[Matcher::equal("instance", "host-3")]).unwrap();
    assert_eq!(found.len(), data.keys().filter(host).count());
}

#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = data();
    data.retain(|l, _| l.value("n").len() < 2);
    data.values_mut().for_each(|c| c.retain(|t| t < 1_760_000_400_000 + 40 * 15_000));
    let block = write(dir.path(), &data);
    let block_dir = block.dir().to_owned();
    drop(block);
    for file in ["index", "chunks/000001"] {
        let path = block_dir.join(file);
        let original = std::fs::read(&path).unwrap();
        for byte in (0..original.len()).step_by(3) {
            let mut broken = original.clone();
            broken[byte] ^= 1 << (byte % 8);
            std::fs::write(&path, &broken).unwrap();
            let Ok(block) = PrometheusBlock::open(&block_dir) else { continue };
            let (back, _) = read_all(&block);
            for (labels, columns) in &back {
                let want = data.get(labels).unwrap_or_else(|| panic!("{file} byte {byte}: {labels}"));
                let right = columns.timestamps.iter().zip(&columns.values).all(|(t, v)| {
                    want.timestamps.binary_search(t).is_ok_and(|i| want.values[i].to_bits() == v.to_bits())
                });
                assert!(right, "{file} byte {byte}");
            }
        }
        for len in (0..original.len()).step_by(7) {
            std::fs::write(&path, &original[..len]).unwrap();
            if let Ok(block) = PrometheusBlock::open(&block_dir) {
                let (back, _) = read_all(&block);
                assert!(back.keys().all(|l| data.contains_key(l)));
            }
        }
        std::fs::write(&path, &original).unwrap();
    }
}

proptest! {
    #[test]
    fn xor_returns(samples in prop::collection::vec((1i64..100_000, any::<u64>(), 0u32..64), 0..120)) {
        let mut t = -5_000_000i64;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for (step, bits, shift) in samples {
            t += if shift == 63 { step << 40 } else { step };
            times.push(t);
            values.push(f64::from_bits(bits >> shift << (shift / 2)));
        }
        let chunk = floats::encode_xor(&times, &values);
        let mut back = SeriesColumns::default();
        decode_chunk(ENC_XOR, &chunk, &mut back).unwrap();
        prop_assert_eq!(&back.timestamps, &times);
        prop_assert!(back.values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn garbage_never_panics(encoding in 0u8..6, data in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_chunk(encoding, &data, &mut SeriesColumns::default());
    }
}

#[test]
fn xor2_is_read() {
    // Written by hand from the description of the format: two samples 15 s apart with value 1, then one with the
    // same step and value (0), one stale (11111), one 1 ms late with value 1 (110 + 13 bits, 0).
    let mut bits = bits::BitWriter::after(vec![0, 5, 0]);
    bits.varint(1000);
    bits.put(1f64.to_bits(), 64);
    bits.uvarint(15_000);
    bits.put(0, 1);
    bits.put(0, 1);
    bits.put(0b11111, 5);
    bits.put(0b110, 3);
    bits.put(1, 13);
    bits.put(0, 1);
    let mut out = SeriesColumns::default();
    decode_chunk(ENC_XOR2, &bits.finish(), &mut out).unwrap();
    assert_eq!(out.timestamps, [1000, 16_000, 31_000, 46_000, 61_001]);
    let want = [1.0, 1.0, 1.0, stale_nan(), 1.0];
    assert!(out.values.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()));
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.0 200").then_some(())?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn prometheus_itself_reads_what_is_written() {
    let peers = PathBuf::from(std::env::var("MEERKAT_PEERS").unwrap_or_else(|_| "/nonexistent".into()));
    let binary = peers.join("prometheus");
    if !binary.exists() {
        eprintln!("skipped: no prometheus in MEERKAT_PEERS");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = data();
    write(dir.path(), &data);
    std::fs::write(dir.path().join("prometheus.yml"), "global: {}\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = dir.path().join("log");
    let child = Command::new(binary)
        .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--storage.tsdb.retention.time=100y")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _peer = Peer(child);
    let ready = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        get(port, "/-/ready").is_some()
    });
    let log = std::fs::read_to_string(log).unwrap();
    assert!(ready, "Prometheus did not start on the block: {log}");
    let end = 1_760_000_400 + 70 * 15;
    let body = get(port, &format!("/api/v1/query?query=metric_total%5B10m%5D&time={end}")).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let series = answer["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 40);
    for one in series {
        let labels = Labels::from_pairs(
            one["metric"].as_object().unwrap().iter().map(|(n, v)| (n.as_str(), v.as_str().unwrap())),
        );
        let want = &data[&labels];
        let values = one["values"].as_array().unwrap();
        assert!(values.len() >= 39, "{labels}");
        for pair in values {
            let t = (pair[0].as_f64().unwrap() * 1000.0).round() as i64;
            let v: f64 = pair[1].as_str().unwrap().parse().unwrap();
            let at = want.timestamps.binary_search(&t).unwrap();
            assert_eq!(v.to_bits(), want.values[at].to_bits(), "{labels} at {t}");
        }
    }
    for (query, at, want) in [
        ("histogram_count(latency)", 1_760_000_400 + 30 * 15, 105.0),
        ("histogram_sum(latency)", 1_760_000_400 + 60 * 15, 42.0),
        ("histogram_count(size)", 1_760_000_400 + 100 * 15, 150.0),
        ("count(metric_total)", 1_760_000_400 + 100 * 15, 40.0),
    ] {
        let body = get(
            port,
            &format!("/api/v1/query?query={}&time={at}", query.replace('(', "%28").replace(')', "%29")),
        );
        let answer: serde_json::Value = serde_json::from_str(&body.unwrap()).unwrap();
        let v: f64 = answer["data"]["result"][0]["value"][1].as_str().unwrap().parse().unwrap();
        assert!((v - want).abs() < 1e-9, "{query}: {v}");
    }
}
