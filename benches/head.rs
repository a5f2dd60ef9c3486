//! How fast does the head pack, unpack and take samples?

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meerkat::model::Labels;
use meerkat::model::clock::ManualClock;
use meerkat::telemetry::Registry;
use meerkat::tsdb::block::bytes::Input;
use meerkat::tsdb::block::values;
use meerkat::tsdb::chunk::float::{FloatDecoder, FloatEncoder};
use meerkat::tsdb::vfs::CrashVfs;
use meerkat::tsdb::{Appendable, BatchOptions, Db, DbOptions, SeriesRef};

/// Series of a recorded exporter, one body as a scrape each 15 s: from `../shared/corpus` when it is there,
/// otherwise from the short recording of `testdata/recorded`.
fn recorded() -> Vec<Vec<(i64, f64)>> {
    let recorded = ["/../shared/corpus/node.rec.zst", "/testdata/recorded/node.rec.zst"];
    let open = |path: &&str| std::fs::File::open(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).ok();
    let file = recorded.iter().find_map(open).expect("testdata has a recording");
    let bytes = zstd::decode_all(file).expect("a recording");
    let mut rest = bytes.as_slice();
    let mut columns: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let mut t_ms = 0;
    while let Some((len, after)) = rest.split_first_chunk::<4>().filter(|_| t_ms < 240 * 15_000) {
        let (body, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        for line in String::from_utf8_lossy(body).lines().filter(|line| !line.starts_with('#')) {
            if let Some((series, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
            {
                columns.entry(series.to_owned()).or_default().push((t_ms, value));
            }
        }
        t_ms += 15_000;
        rest = after;
    }
    columns.into_values().collect()
}

/// A counter with jitter, a constant, a gauge with decimals, and random steps that stay for three scrapes.
fn made_up() -> Vec<Vec<(i64, f64)>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut total = 0.0;
    let mut counter = Vec::new();
    for i in 0..240 {
        total += f64::from(random.u32(..500));
        counter.push((i * 15_000 + random.i64(-2..3), total));
    }
    let constant = (0..240).map(|i| (i * 15_000, 4.0)).collect();
    let gauge = (0..240).map(|i| (i * 15_000, f64::from(random.u32(..1000)) / 10.0)).collect();
    let random_steps: Vec<f64> = (0..80).map(|_| f64::from_bits(random.u64(..) >> 1)).collect();
    let steps = (0..240).map(|i| (i * 15_000, random_steps[i as usize / 3])).collect();
    vec![counter, constant, gauge, steps]
}

fn encode(samples: &[(i64, f64)]) -> FloatEncoder {
    let mut encoder = FloatEncoder::default();
    samples.iter().for_each(|(t, v)| encoder.push(*t, 0, *v));
    encoder
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("float chunk");
    group.throughput(Throughput::Elements(240));
    for (name, column) in ["counter", "constant", "gauge", "steps"].into_iter().zip(made_up()) {
        group.bench_function(format!("encode {name}"), |b| b.iter(|| black_box(encode(black_box(&column)))));
        let chunk = encode(&column);
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                FloatDecoder::new(chunk.bytes(), chunk.count())
                    .map(|s| s.map_or(0.0, |s| s.value))
                    .sum::<f64>()
            });
        });
    }
    let recorded = recorded();
    let samples: usize = recorded.iter().map(Vec::len).sum();
    group.throughput(Throughput::Elements(samples as u64));
    group.bench_function("encode recorded", |b| {
        b.iter(|| recorded.iter().map(|column| encode(black_box(column)).bytes().len()).sum::<usize>());
    });
    let chunks: Vec<FloatEncoder> = recorded.iter().map(|column| encode(column)).collect();
    group.bench_function("decode recorded", |b| {
        b.iter(|| {
            let values = chunks.iter().flat_map(|chunk| FloatDecoder::new(chunk.bytes(), chunk.count()));
            values.map(|s| s.map_or(0.0, |s| s.value)).sum::<f64>()
        });
    });
    group.finish();
}

/// Columns of blocks by the codec that suits them: those recorded and those made up.
fn columns(c: &mut Criterion) {
    let mut by_codec: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for column in recorded().into_iter().chain(made_up()) {
        let values: Vec<f64> = column.into_iter().map(|(_, value)| value).collect();
        let codec = values::encode(&values, &mut Vec::new());
        by_codec.entry(format!("{codec:?}").to_lowercase()).or_default().push(values);
    }
    let mut group = c.benchmark_group("block column");
    for (codec, columns) in by_codec {
        let samples: usize = columns.iter().map(Vec::len).sum();
        group.throughput(Throughput::Elements(samples as u64));
        let mut out = Vec::new();
        group.bench_function(format!("encode {codec}"), |b| {
            b.iter(|| {
                out.clear();
                columns.iter().for_each(|column| {
                    values::encode(black_box(column), &mut out);
                });
                out.len()
            });
        });
        let encoded = columns.iter().map(|column| {
            let mut bytes = Vec::new();
            values::encode(column, &mut bytes);
            (bytes, column.len())
        });
        let encoded: Vec<(Vec<u8>, usize)> = encoded.collect();
        let mut back = Vec::new();
        group.bench_function(format!("decode {codec}"), |b| {
            b.iter(|| {
                for (bytes, n) in &encoded {
                    values::decode(&mut Input::new(black_box(bytes)), *n, &mut back).expect("own bytes");
                }
                back.len()
            });
        });
    }
    group.finish();
}

fn append(c: &mut Criterion) {
    const SERIES: usize = 500;
    let options =
        DbOptions { path: "/data".into(), wal_sync_interval: Duration::ZERO, ..DbOptions::default() };
    let db =
        Db::open(options, CrashVfs::new(), ManualClock::at(0), &Registry::new()).expect("the storage opens");
    let mut references = [SeriesRef::NONE; SERIES];
    let mut k = 0i64;
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("scrape of 500 samples", |b| {
        b.iter(|| {
            k += 1;
            let mut appender = db.appender(BatchOptions { source: 1, ..BatchOptions::default() });
            for (i, reference) in references.iter_mut().enumerate() {
                let labels = || Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str())]);
                let value = if i % 3 == 0 { (k * i as i64) as f64 } else { i as f64 };
                *reference = appender.append(*reference, &labels, 0, k * 15_000, value).expect("stored");
            }
            let proof = appender.commit().expect("the batch is stored");
            if k % 64 == 0 {
                proof.wait_durable().expect("memory does not fail");
            }
        });
    });
    group.finish();
}

criterion_group!(benches, chunks, columns, append);
criterion_main!(benches);
