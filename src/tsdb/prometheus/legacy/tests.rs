//! A log that is written here as Prometheus writes it comes into storage whole, once, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::floats::encode_xor;
use super::super::log::tests::SegmentWriter;
use super::*;
use crate::model::Labels;
use crate::model::clock::ManualClock;
use crate::model::{Matcher, SampleBuffer};
use crate::telemetry::Registry;
use crate::tsdb::block::bytes::{put_varint, put_zigzag};
use crate::tsdb::door::{
    Appendable, BatchOptions, ExemplarQuerier, MetadataStore, Queryable, SelectHints, SeriesRef,
};
use crate::tsdb::vfs::CrashVfs;
use crate::tsdb::vfs::crash::Fault;
use crate::tsdb::{Db, DbOptions};

const SNAPPY: u8 = 8;
const ZSTD: u8 = 16;
const T: i64 = 1_700_000_000_000;

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_labels(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    put_varint(out, labels.len() as u64);
    for (name, value) in labels {
        put_text(out, name);
        put_text(out, value);
    }
}

fn series(all: &[(u64, &[(&str, &str)])]) -> Vec<u8> {
    let mut out = vec![1];
    for (number, labels) in all {
        out.extend_from_slice(&number.to_be_bytes());
        put_labels(&mut out, labels);
    }
    out
}

fn floats(all: &[(u64, i64, f64)]) -> Vec<u8> {
    let mut out = vec![2];
    let (first, t, _) = all[0];
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&t.to_be_bytes());
    for (number, at, v) in all {
        put_zigzag(&mut out, number.wrapping_sub(first).cast_signed());
        put_zigzag(&mut out, at - t);
        out.extend_from_slice(&v.to_bits().to_be_bytes());
    }
    out
}

/// The second generation, with start timestamps: none, the same as before, another one.
fn floats_v2(all: &[(u64, i64, i64, f64)]) -> Vec<u8> {
    let mut out = vec![11];
    let mut before: Option<(u64, i64)> = None;
    let (_, first_t, first_start, _) = all[0];
    for (number, t, start, v) in all {
        match before {
            None => {
                put_zigzag(&mut out, number.cast_signed());
                put_zigzag(&mut out, *t);
                put_zigzag(&mut out, *start);
            }
            Some((last, last_start)) => {
                put_zigzag(&mut out, number.wrapping_sub(last).cast_signed());
                put_zigzag(&mut out, t - first_t);
                match *start {
                    0 => out.push(0),
                    start if start == last_start => out.push(1),
                    start => {
                        out.push(2);
                        put_zigzag(&mut out, start - first_start);
                    }
                }
            }
        }
        out.extend_from_slice(&v.to_bits().to_be_bytes());
        before = Some((*number, *start));
    }
    out
}

/// An integer histogram with two buckets, or with custom bounds.
fn histogram(number: u64, t: i64, counts: [u64; 2], custom: bool) -> Vec<u8> {
    let mut out = vec![if custom { 9 } else { 7 }];
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&t.to_be_bytes());
    put_zigzag(&mut out, 0);
    put_zigzag(&mut out, 0);
    out.push(0);
    put_zigzag(&mut out, if custom { -53 } else { 1 });
    out.extend_from_slice(&(if custom { 0.0f64 } else { 0.001 }).to_bits().to_be_bytes());
    put_varint(&mut out, 0);
    put_varint(&mut out, counts[0] + counts[1]);
    out.extend_from_slice(&7.5f64.to_bits().to_be_bytes());
    put_varint(&mut out, 1);
    put_zigzag(&mut out, 0);
    put_varint(&mut out, 2);
    put_varint(&mut out, 0);
    put_varint(&mut out, 2);
    put_zigzag(&mut out, counts[0].cast_signed());
    put_zigzag(&mut out, counts[1].cast_signed() - counts[0].cast_signed());
    put_varint(&mut out, 0);
    if custom {
        put_varint(&mut out, 2);
        for bound in [1.0f64, 5.0] {
            out.extend_from_slice(&bound.to_bits().to_be_bytes());
        }
    }
    out
}

/// A float histogram of the second generation.
fn float_histogram(number: u64, t: i64, start: i64, count: f64) -> Vec<u8> {
    let mut out = vec![13];
    put_zigzag(&mut out, number.cast_signed());
    put_zigzag(&mut out, t);
    put_zigzag(&mut out, start);
    out.push(3);
    put_zigzag(&mut out, 0);
    for v in [0.5, 0.0, count, 1.0] {
        out.extend_from_slice(&f64::to_bits(v).to_be_bytes());
    }
    put_varint(&mut out, 1);
    put_zigzag(&mut out, 3);
    put_varint(&mut out, 1);
    put_varint(&mut out, 0);
    put_varint(&mut out, 1);
    out.extend_from_slice(&count.to_bits().to_be_bytes());
    put_varint(&mut out, 0);
    out
}

fn deletion(number: u64, min: i64, max: i64) -> Vec<u8> {
    let mut out = vec![3];
    out.extend_from_slice(&number.to_be_bytes());
    put_zigzag(&mut out, min);
    put_zigzag(&mut out, max);
    out
}

fn exemplar(number: u64, t: i64) -> Vec<u8> {
    let mut out = vec![4];
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&t.to_be_bytes());
    put_zigzag(&mut out, 0);
    put_zigzag(&mut out, 0);
    out.extend_from_slice(&0.25f64.to_bits().to_be_bytes());
    put_labels(&mut out, &[("trace_id", "abc")]);
    out
}

fn metadata(number: u64) -> Vec<u8> {
    let mut out = vec![6];
    put_varint(&mut out, number);
    out.push(1);
    put_varint(&mut out, 2);
    for text in ["UNIT", "seconds", "HELP", "What it counts."] {
        put_text(&mut out, text);
    }
    out
}

fn segment(records: &[Vec<u8>], compression: u8) -> Vec<u8> {
    let mut writer = SegmentWriter::default();
    records.iter().for_each(|record| writer.put(record, compression));
    writer.bytes
}

fn head_chunk(out: &mut Vec<u8>, number: u64, samples: &[(i64, f64)], flags: u8) {
    if out.is_empty() {
        out.extend_from_slice(&[0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0]);
    }
    let at = out.len();
    let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&times[0].to_be_bytes());
    out.extend_from_slice(&times[times.len() - 1].to_be_bytes());
    out.push(1 | flags);
    let data = encode_xor(&times, &values);
    put_varint(out, data.len() as u64);
    out.extend_from_slice(&data);
    let crc = crc32c::crc32c(&out[at..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

const A: &[(&str, &str)] = &[("__name__", "a_total"), ("job", "x")];
const B: &[(&str, &str)] = &[("__name__", "b"), ("job", "x")];

/// A directory as Prometheus leaves it: a checkpoint with segments it replaced, a log with three compressions, late
/// samples, chunks in files.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let checkpoint = [
        series(&[(1, A), (2, B), (7, &[("__name__", "gone")])]),
        floats(&[(1, T, 1.0), (2, T, -0.0)]),
        vec![14, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let first = [
        floats_v2(&[
            (1, T + 1000, 0, 2.0),
            (2, T + 1000, T, 5.0),
            (1, T + 2000, T, 3.0),
            (2, T + 2000, T + 5, 6.0),
        ]),
        series(&[(3, &[("__name__", "h")]), (4, &[("__name__", "fh")]), (5, &[("__name__", "nhcb")])]),
        histogram(3, T + 2000, [2, 5], false),
        histogram(5, T + 2000, [1, 1], true),
        float_histogram(4, T + 2000, T, 8.0),
        exemplar(1, T + 2000),
        metadata(1),
    ];
    let second = [
        // The same series under another number, as after it was collected and came back.
        series(&[(9, B)]),
        floats(&[(9, T + 3000, f64::from_bits(0x7ff0_0000_0000_0002)), (1, T + 3000, f64::NAN)]),
        deletion(2, T + 1000, T + 1500),
        floats(&[(77, T + 3000, 1.0)]),
    ];
    let late = [
        floats(&[(1, T - 5000, 0.5), (1, T + 500, 1.5)]),
        vec![5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],
        floats(&[(1, T - 5000, 99.0), (1, T + 1000, 99.0)]),
    ];
    let mut chunks = Vec::new();
    head_chunk(&mut chunks, 1, &[(T, 1.0), (T + 1000, 2.0)], 0);
    head_chunk(&mut chunks, 2, &[(T - 20_000, 7.0), (T - 10_000, 8.0), (T, -0.0)], 0);
    head_chunk(&mut chunks, 1, &[(T - 5000, 0.5)], 0x80);
    chunks.resize(chunks.len() + 300, 0);
    vec![
        ("wal/checkpoint.00000003/00000000", segment(&checkpoint, SNAPPY)),
        ("wal/00000003", segment(&[floats(&[(1, T, 1234.0)])], 0)),
        ("wal/00000004", segment(&first, ZSTD)),
        ("wal/00000005", segment(&second, 0)),
        ("wbl/00000000", segment(&late, SNAPPY)),
        ("chunks_head/000001", chunks),
    ]
}

fn write(vfs: &dyn Vfs, path: &str, content: &[u8]) {
    let path = PathBuf::from("/data").join(path);
    vfs.create_dir_all(path.parent().unwrap()).unwrap();
    let file = vfs.create(&path).unwrap();
    file.append(content).unwrap();
    file.sync_data().unwrap();
    for dir in path.ancestors().skip(1) {
        vfs.sync_dir(dir).unwrap();
    }
}

fn directory() -> Arc<CrashVfs> {
    let vfs = CrashVfs::new();
    for (path, content) in files() {
        write(&*vfs, path, &content);
    }
    vfs
}

fn open(vfs: &Arc<CrashVfs>) -> Result<Arc<Db>, StorageError> {
    let options = DbOptions {
        path: PathBuf::from("/data"),
        wal_sync_interval: Duration::ZERO,
        retention_ms: 0,
        ..DbOptions::default()
    };
    Db::open(options, Arc::clone(vfs) as Arc<dyn Vfs>, ManualClock::at(T), &Registry::new())
}

type Content = BTreeMap<String, Vec<(i64, i64, String)>>;

fn content(db: &Db) -> Content {
    let querier = db.querier(i64::MIN, i64::MAX).unwrap();
    let set = querier.select(&SelectHints::default(), &[]).unwrap();
    let mut out = SampleBuffer::default();
    let mut all = Content::new();
    for i in 0..set.len() {
        set.samples(i, i64::MIN, i64::MAX, &mut out).unwrap();
        let start = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
        let mut samples: Vec<(i64, i64, String)> = Vec::new();
        for (i, (t, v)) in out.timestamps.iter().zip(&out.values).enumerate() {
            samples.push((t - T, start(&out.float_start_ts, i), format!("{v:?} {:x}", v.to_bits())));
        }
        for (i, (t, h)) in out.histograms.iter().enumerate() {
            samples.push((t - T, start(&out.histogram_start_ts, i), h.to_string()));
        }
        all.insert(set.labels(i).to_string(), samples);
    }
    all
}

fn expected() -> Content {
    let float = |t: i64, start: i64, v: f64| (t, start, format!("{v:?} {:x}", v.to_bits()));
    let text = |t: i64, start: i64, text: &str| (t, start, text.to_owned());
    Content::from([
        (
            "{__name__=\"a_total\", job=\"x\"}".into(),
            vec![
                float(-5000, 0, 0.5),
                float(0, 0, 1.0),
                float(500, 0, 1.5),
                float(1000, 0, 2.0),
                float(2000, T, 3.0),
                float(3000, 0, f64::NAN),
            ],
        ),
        (
            "{__name__=\"b\", job=\"x\"}".into(),
            vec![
                float(-20_000, 0, 7.0),
                float(-10_000, 0, 8.0),
                float(0, 0, -0.0),
                float(2000, T + 5, 6.0),
                float(3000, 0, f64::from_bits(0x7ff0_0000_0000_0002)),
            ],
        ),
        (
            "{__name__=\"h\"}".into(),
            vec![text(2000, 0, "{count:7, sum:7.5, (0.7071067811865475,1]:2, (1,1.414213562373095]:5}")],
        ),
        ("{__name__=\"fh\"}".into(), vec![text(2000, T, "{count:8, sum:1, (4,8]:8}")]),
        ("{__name__=\"nhcb\"}".into(), vec![text(2000, 0, "{count:2, sum:7.5, [-Inf,1]:1, (1,5]:1}")]),
    ])
}

/// Numbers may differ in the last place of a bound between machines; what matters is which buckets there are.
fn assert_content(got: &Content, what: &str) {
    let want = expected();
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}");
    for (series, samples) in &want {
        let have = &got[series];
        let brief = |all: &[(i64, i64, String)]| -> Vec<(i64, i64, String)> {
            all.iter()
                .map(|(t, s, v)| (*t, *s, v.split(", (0.707").next().unwrap_or("").to_owned()))
                .collect()
        };
        assert_eq!(brief(have), brief(samples), "{what}: {series}");
    }
}

#[test]
fn everything_is_imported_once_and_put_aside() {
    let vfs = directory();
    let db = open(&vfs).unwrap();
    assert_content(&content(&db), "first start");
    let a = [vec![Matcher::equal("__name__", "a_total")]];
    let exemplars = db.select_exemplars(T, T + 10_000, &a).unwrap();
    assert_eq!(exemplars.len(), 1);
    assert_eq!(
        (exemplars[0].exemplars[0].value, exemplars[0].exemplars[0].timestamp_ms),
        (0.25, Some(T + 2000))
    );
    let known = db.metadata(Some("a_total"));
    assert_eq!((known[0].1.unit.as_str(), known[0].1.help.as_str()), ("seconds", "What it counts."));
    assert_eq!(db.recovery().damaged, 0);
    for (path, bytes) in files() {
        let old = PathBuf::from("/data").join(path);
        assert!(vfs.content(&old).is_none(), "{path} is gone");
        let aside = PathBuf::from("/data/prometheus-imported").join(path);
        assert_eq!(vfs.content(&aside), Some(bytes), "{path} is kept");
    }
    // Appending goes on, and the next start imports nothing.
    let mut batch = db.appender(BatchOptions::default());
    batch.append(SeriesRef::NONE, &|| Labels::from_pairs(A.iter().copied()), 0, T + 4000, 9.0).unwrap();
    batch.commit().unwrap();
    let before = content(&db);
    drop(db);
    assert_eq!(content(&open(&vfs.kill()).unwrap()), before);
}

#[test]
fn a_directory_that_went_back_to_prometheus_is_imported_again() {
    let vfs = directory();
    drop(open(&vfs).unwrap());
    let records = [series(&[(1, A)]), floats(&[(1, T + 3000, f64::NAN), (1, T + 9000, 4.0)])];
    write(&*vfs, "wal/00000000", &segment(&records, SNAPPY));
    let db = open(&vfs).unwrap();
    let got = content(&db);
    let a = &got["{__name__=\"a_total\", job=\"x\"}"];
    assert_eq!(a.len(), 7, "{a:?}");
    assert_eq!(a[6].0, 9000);
    assert!(vfs.content(&PathBuf::from("/data/prometheus-imported-2/wal/00000000")).is_some());
}

#[test]
fn an_import_may_end_at_any_call_and_is_complete_at_the_next_start() {
    let calls = {
        let vfs = directory();
        let before = vfs.calls();
        open(&vfs).unwrap();
        vfs.calls() - before
    };
    assert!(calls > 10, "{calls}");
    for n in 0..calls {
        let vfs = directory();
        vfs.set_fault(Some(Fault::From(n)));
        drop(open(&vfs));
        vfs.set_fault(None);
        assert_content(&content(&open(&vfs.kill()).unwrap()), &format!("killed at call {n}"));
        for seed in 0..2 {
            let db = open(&vfs.power_cut(seed)).unwrap();
            assert_content(&content(&db), &format!("power cut at call {n}, seed {seed}"));
        }
        // A second end in the midst of what follows the first.
        let again = vfs.kill();
        again.set_fault(Some(Fault::From(n / 2)));
        drop(open(&again));
        again.set_fault(None);
        assert_content(
            &content(&open(&again.kill()).unwrap()),
            &format!("killed at calls {n} and {}", n / 2),
        );
    }
}

#[test]
fn damage_is_counted_and_costs_what_lies_under_it() {
    let all = expected();
    for (path, bytes) in files().into_iter().filter(|(path, _)| *path != "wal/00000003") {
        for at in (0..bytes.len()).step_by(7) {
            let mut broken = bytes.clone();
            if broken[at..].iter().all(|b| *b == 0) {
                break;
            }
            broken[at] ^= 0x41;
            let vfs = directory();
            vfs.damage(&PathBuf::from("/data").join(path), broken);
            let db = open(&vfs).expect("a start never fails");
            let got = content(&db);
            for (series, samples) in &got {
                let known =
                    all.get(series).unwrap_or_else(|| panic!("{path} at {at}: {series} was never written"));
                let times = |all: &[(i64, i64, String)]| all.iter().map(|s| s.0).collect::<Vec<_>>();
                // A lost deletion shows what it hid, and a lost sample may uncover a later one of its time.
                let allowed = [times(known), vec![1000]].concat();
                assert!(
                    times(samples).iter().all(|t| allowed.contains(t)),
                    "{path} at {at}: {series} {samples:?}"
                );
            }
            let lost =
                all.iter().any(|(series, samples)| got.get(series).map_or(0, Vec::len) < samples.len());
            let torn = at + 60 > bytes.len();
            assert!(!lost || db.recovery().damaged > 0 || torn, "{path} at {at}: lost and not counted");
        }
    }
}

#[test]
fn samples_that_blocks_have_stay_out() {
    let vfs = directory();
    let meta = |end: i64, hint: &str| {
        format!(
            "{{\"ulid\":\"01J00000000000000000000000\",\"minTime\":{},\"maxTime\":{end},\"version\":1,\
             \"compaction\":{{\"level\":1,\"hints\":[{hint}]}}}}",
            T - 100_000
        )
    };
    let dir = PathBuf::from("/data");
    assert_eq!(in_blocks_until(&*vfs, &dir, T + 3000), i64::MIN);
    write(&*vfs, "01J00000000000000000000000/meta.json", meta(T + 1500, "").as_bytes());
    write(&*vfs, "01J00000000000000000000001/meta.json", meta(T + 9_999_999, "").as_bytes());
    write(&*vfs, "01J00000000000000000000002/meta.json", meta(T + 2500, "\"from-out-of-order\"").as_bytes());
    assert_eq!(in_blocks_until(&*vfs, &dir, T + 3000), T + 1500);
    let db = open(&vfs).unwrap();
    let got = content(&db);
    let a: Vec<i64> = got["{__name__=\"a_total\", job=\"x\"}"].iter().map(|s| s.0).collect();
    assert_eq!(a, [-5000, 500, 1000, 2000, 3000], "late ones and those after the block");
}

#[test]
fn garbage_never_panics() {
    let mut rng = fastrand::Rng::with_seed(11);
    let records: Vec<Vec<u8>> = files()
        .iter()
        .filter(|(path, _)| path.starts_with("w"))
        .flat_map(|(_, bytes)| {
            Records::new(bytes)
                .filter_map(|f| if let Found::Record { bytes, .. } = f { Some(bytes) } else { None })
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(records.len() > 12);
    for _ in 0..3000 {
        let mut record = records[rng.usize(0..records.len())].clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..record.len());
            record[at] = rng.u8(..);
        }
        record.truncate(rng.usize(0..=record.len()));
        // Only that it returns.
        drop(decode(&record));
        drop(Chunks::new(&record).map(|c| c.map(|c| c.decode())).collect::<Vec<_>>());
    }
}
