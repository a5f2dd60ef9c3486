//! Whole blocks: written, read back, compared with a naive copy, damaged in every way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use crate::model::sample::{HistogramValue, stale_nan};
use crate::model::{Labels, MatchOp, Matcher, SampleBuffer};
use crate::tsdb::StorageError;
use crate::tsdb::door::{LabelQueryHints, Querier, SelectHints};
use crate::tsdb::vfs::{CrashVfs, Place, Vfs};

type Naive = BTreeMap<Labels, SeriesColumns>;

fn integer_histogram(i: i64) -> HistogramValue {
    HistogramValue::Integer(Arc::new(Histogram {
        counter_reset_hint: if i % 7 == 0 { CounterResetHint::Gauge } else { CounterResetHint::Unknown },
        schema: if i % 11 == 0 { -53 } else { 3 },
        zero_threshold: 1e-128,
        zero_count: i as u64,
        count: 10 * i as u64 + 3,
        sum: if i == 5 { stale_nan() } else { i as f64 * 0.1 },
        positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 4, length: 1 }],
        negative_spans: if i % 3 == 0 { vec![Span { offset: 0, length: 1 }] } else { vec![] },
        positive_buckets: vec![i, 2, -i],
        negative_buckets: if i % 3 == 0 { vec![i64::MIN] } else { vec![] },
        custom_values: if i % 11 == 0 { vec![0.5, 1.0].into() } else { Arc::default() },
    }))
}

fn float_histogram(i: i64) -> HistogramValue {
    HistogramValue::Float(Arc::new(FloatHistogram {
        schema: 0,
        zero_threshold: 0.001,
        count: i as f64 + 0.5,
        sum: f64::NAN,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![0.25, i as f64],
        ..FloatHistogram::default()
    }))
}

fn sample_data() -> Naive {
    let mut all = Naive::new();
    for name in ["up", "http_requests_total", "temperature"] {
        for instance in 0..13 {
            let labels = Labels::from_pairs([
                ("__name__", name.to_owned()),
                ("instance", format!("host-{instance}:9100")),
                ("job", if instance % 2 == 0 { "even".to_owned() } else { "odd".to_owned() }),
                ("only_some", if instance == 3 { "x".to_owned() } else { String::new() }),
            ]);
            let mut columns = SeriesColumns::default();
            for i in 0..300 {
                let t = 1_000_000 + i * 15_000 + i64::from(instance);
                let v = match name {
                    "up" if i == 40 => stale_nan(),
                    "up" => 1.0,
                    "temperature" => ((i * 7919 + i64::from(instance)) % 97) as f64 / 10.0,
                    _ => (i * i) as f64,
                };
                columns.push_float(t, if name == "http_requests_total" && i > 100 { 5000 } else { 0 }, v);
            }
            all.insert(labels, columns);
        }
    }
    let mut histograms = SeriesColumns::default();
    (0..60).for_each(|i| histograms.push_histogram(1_000_000 + i * 15_000, 17, integer_histogram(i)));
    (60..80).for_each(|i| histograms.push_histogram(1_000_000 + i * 15_000, 0, float_histogram(i)));
    histograms.push_float(1_000_000 + 90 * 15_000, 0, -0.0);
    all.insert(Labels::from_pairs([("__name__", "latency")]), histograms);
    all
}

fn write(dir: &Path, data: &Naive) -> Arc<Block> {
    let meta = BlockMeta::new(new_ulid(1), i64::MAX, i64::MIN);
    let mut source = data.clone().into_iter();
    let (dir, meta, report) = write_block(dir, meta, &mut source, &|| false).unwrap().unwrap();
    let block = Block::open(&dir).unwrap();
    assert_eq!(*block.meta(), meta);
    assert_eq!(report.file_len, block.file_len());
    block
}

fn same(a: &SeriesColumns, b: &SeriesColumns) -> bool {
    let bits = |c: &SeriesColumns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    a.timestamps == b.timestamps
        && bits(a) == bits(b)
        && a.float_start_ts == b.float_start_ts
        && a.histogram_start_ts == b.histogram_start_ts
        && a.histograms.len() == b.histograms.len()
        && a.histograms
            .iter()
            .zip(&b.histograms)
            .all(|(a, b)| a.0 == b.0 && histograms::same_bits(&a.1, &b.1))
}

fn read_all(block: &Arc<Block>) -> (Naive, Vec<String>) {
    let mut source = BlockSource::new(Arc::clone(block));
    let mut columns = SeriesColumns::default();
    let mut all = Naive::new();
    while let Some(labels) = source.next_series(&mut columns).unwrap() {
        all.insert(labels, columns.clone());
    }
    (all, source.warnings)
}

#[test]
fn everything_returns_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let data = sample_data();
    let block = write(dir.path(), &data);
    let (back, warnings) = read_all(&block);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(back.len(), data.len());
    for ((labels, want), (got_labels, got)) in data.iter().zip(&back) {
        assert_eq!(labels, got_labels);
        assert!(same(want, got), "{labels}");
    }
    assert_eq!(block.meta().stats.num_series, data.len() as u64);
    assert_eq!(block.meta().stats.num_histogram_samples, 80);
    assert!(block.footer().time_columns <= 13 + 3, "timestamps are shared");
    block.verify().unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary directory stays");
}

#[test]
fn an_empty_source_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let meta = BlockMeta::new(new_ulid(1), 0, 0);
    let mut source = [(Labels::from_pairs([("a", "b")]), SeriesColumns::default())].into_iter();
    assert!(write_block(dir.path(), meta.clone(), &mut source, &|| false).unwrap().is_none());
    let mut source = sample_data().into_iter();
    assert!(write_block(dir.path(), meta, &mut source, &|| true).is_err(), "cancelled");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    let name =
        prop_oneof![Just("__name__"), Just("instance"), Just("job"), Just("only_some"), Just("missing")];
    let text = prop_oneof![
        Just("up"),
        Just("even"),
        Just(""),
        Just("x"),
        Just("host-3:9100"),
        Just("host-1.*"),
        Just("up|temperature|none"),
        Just(".*"),
        Just(".+"),
        Just("o(d)d|"),
        Just("http.?requests_total")
    ];
    (name, op, text).prop_map(|(name, op, text)| Matcher::new(name, op, text).unwrap())
}

#[test]
fn selection_equals_the_naive_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = sample_data();
    let block = write(dir.path(), &data);
    proptest!(|(matchers in prop::collection::vec(matcher(), 0..4), from in 900_000i64..6_000_000, len in 0i64..2_000_000)| {
        let querier = BlockQuerier::new(Arc::clone(&block), from, from + len);
        let set = querier.select(&SelectHints::default(), &matchers).unwrap();
        let got: BTreeMap<Labels, usize> = (0..set.len()).map(|i| (set.labels(i), i)).collect();
        prop_assert!((1..set.len()).all(|i| set.labels(i - 1) < set.labels(i)));
        let (mut buffer, mut want) = (SampleBuffer::default(), SampleBuffer::default());
        let mut names = std::collections::BTreeSet::new();
        for (labels, columns) in &data {
            let matches = matchers.iter().all(|m| m.matches(labels.value(&m.name)));
            want.clear();
            columns.copy_into(from, from + len, &mut want);
            match got.get(labels) {
                None => prop_assert!(!matches || want.is_empty()),
                Some(i) => {
                    prop_assert!(matches);
                    set.samples(*i, i64::MIN, i64::MAX, &mut buffer).unwrap();
                    let bits = |b: &SampleBuffer| b.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    prop_assert_eq!(&buffer.timestamps, &want.timestamps);
                    prop_assert_eq!(bits(&buffer), bits(&want));
                    prop_assert_eq!(buffer.histograms.len(), want.histograms.len());
                    names.extend(labels.iter().map(|l| l.name.to_owned()));
                }
            }
        }
        if !got.is_empty() && !matchers.is_empty() {
            let hints = LabelQueryHints::default();
            prop_assert_eq!(querier.label_names(&matchers, &hints).unwrap(), names.into_iter().collect::<Vec<_>>());
            let jobs: std::collections::BTreeSet<String> = data.keys()
                .filter(|l| matchers.iter().all(|m| m.matches(l.value(&m.name))))
                .filter_map(|l| l.get("job")).map(str::to_owned).collect();
            prop_assert_eq!(querier.label_values("job", &matchers, &hints).unwrap(), jobs.into_iter().collect::<Vec<_>>());
        }
    });
}

#[test]
fn deletions_count_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = sample_data();
    let block = write(dir.path(), &data);
    block.delete(1_000_000, 1_300_000, &[Matcher::equal("__name__", "up")]).unwrap();
    for block in [Arc::clone(&block), Block::open(block.dir()).unwrap()] {
        let (back, _) = read_all(&block);
        for (labels, columns) in back {
            let mut want = data[&labels].clone();
            if labels.metric_name() == "up" {
                want.retain(|t| !(1_000_000..=1_300_000).contains(&t));
            }
            assert!(same(&columns, &want), "{labels}");
        }
    }
}

/// Whether what a damaged block shows is a part of the truth.
fn never_wrong(dir: &Path, data: &Naive) -> bool {
    let Ok(block) = Block::open(dir) else { return true };
    let querier = BlockQuerier::new(Arc::clone(&block), i64::MIN, i64::MAX);
    let selected =
        querier.select(&SelectHints::default(), &[Matcher::new("job", MatchOp::Regex, "e.*|").unwrap()]);
    let mut noticed = block.verify().is_err();
    match selected {
        Err(_) => noticed = true,
        Ok(set) => {
            let mut buffer = SampleBuffer::default();
            for i in 0..set.len() {
                set.samples(i, i64::MIN, i64::MAX, &mut buffer).unwrap();
            }
            noticed |= !set.warnings().is_empty();
        }
    }
    let (back, warnings) = read_all(&block);
    noticed |= !warnings.is_empty();
    let subset = back.iter().all(|(labels, columns)| {
        data.get(labels).is_some_and(|want| {
            columns.timestamps.iter().zip(&columns.values).all(|(t, v)| {
                want.timestamps.binary_search(t).is_ok_and(|i| want.values[i].to_bits() == v.to_bits())
            }) && columns.histograms.iter().all(|(t, h)| {
                want.histograms
                    .binary_search_by_key(t, |(t, _)| *t)
                    .is_ok_and(|i| histograms::same_bits(&want.histograms[i].1, h))
            })
        })
    });
    let whole = back.len() == data.len() && back.iter().all(|(l, c)| data.get(l).is_some_and(|w| same(c, w)));
    subset && (whole || noticed)
}

/// A disk or a memory that changes a bit on the way out: the block is refused before anything relies on it.
#[test]
fn a_block_that_was_written_wrongly_is_not_taken() {
    let mut data = sample_data();
    data.retain(|labels, _| labels.metric_name() == "latency");
    let vfs = CrashVfs::new();
    let dir = Place::new(Arc::clone(&vfs) as Arc<dyn Vfs>, Path::new("/data"));
    vfs.create_dir_all(Path::new("/data")).unwrap();
    let meta = || BlockMeta::new(new_ulid(1), i64::MAX, i64::MIN);
    let write = || write_block(&dir, meta(), &mut data.clone().into_iter(), &|| false);
    write().unwrap().unwrap().0.remove_dir_all().unwrap();
    let mut refused = 0;
    for bit in (0..).step_by(97) {
        vfs.set_flip(bit);
        let written = write();
        let is_past_the_end = vfs.take_flip().is_some();
        match written {
            Err(error) => {
                assert!(matches!(error, StorageError::Corrupt { .. }), "bit {bit}: {error}");
                assert_eq!(vfs.list(Path::new("/data")).unwrap(), [], "bit {bit}");
                refused += 1;
            }
            Ok(written) => {
                let (dir, meta, _) = written.unwrap();
                let block = Block::open(&dir).unwrap();
                assert_eq!(*block.meta(), meta, "bit {bit}");
                let (back, warnings) = read_all(&block);
                assert!(warnings.is_empty() && back.iter().all(|(l, c)| same(c, &data[l])), "bit {bit}");
                dir.remove_dir_all().unwrap();
            }
        }
        if is_past_the_end {
            break;
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn no_flipped_bit_and_no_truncation_yields_wrong_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut data: Naive =
        sample_data().into_iter().filter(|(l, _)| l.value("instance") <= "host-1:9100").collect();
    for columns in data.values_mut() {
        columns.retain(|t| t < 1_300_000);
    }
    let block = write(dir.path(), &data);
    let (block_dir, path) = (block.dir().to_owned(), block.dir().join(format::BLOCK_FILE));
    drop(block);
    let original = std::fs::read(&path).unwrap();
    assert!(never_wrong(&block_dir, &data));
    // Every byte, and within it a bit that moves on: eight neighbours cover all eight.
    for byte in 0..original.len() {
        let bit = byte * 8 + byte % 8;
        let mut broken = original.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &broken).unwrap();
        assert!(never_wrong(&block_dir, &data), "bit {bit}");
    }
    for len in 0..original.len() {
        std::fs::write(&path, &original[..len]).unwrap();
        assert!(Block::open(&block_dir).is_err(), "length {len}");
    }
}
