//! Samples that go out and come in are the same samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gather::{Gather, SHORTEST_MS, block_length, block_length_for_span};
use super::publish::{Staging, finish};
use super::*;
use crate::model::clock::SystemClock;
use crate::model::histogram::{FloatHistogram, Span};
use crate::model::sample::{HistogramValue, Value};
use crate::telemetry::Registry;
use crate::tsdb::door::{Appendable, BatchOptions, SeriesRef};
use crate::tsdb::vfs::RealVfs;
use crate::tsdb::{Db, DbOptions};

type Content = BTreeMap<String, Vec<(i64, String)>>;

/// Everything below a directory, in a form that can be compared bit for bit.
fn content(dir: &std::path::Path) -> Content {
    let db = ReadOnlyDb::open(dir).unwrap();
    assert_eq!((db.unreadable.len(), db.recovery.damaged), (0, 0));
    let mut all = Content::new();
    let mut put = |source: &mut dyn SeriesSource| {
        let mut columns = SeriesColumns::default();
        while let Some(labels) = source.next_series(&mut columns).unwrap() {
            let samples = all.entry(labels.to_string()).or_default();
            samples.extend(
                columns
                    .timestamps
                    .iter()
                    .zip(&columns.values)
                    .map(|(t, v)| (*t, format!("{:x}", v.to_bits()))),
            );
            samples.extend(columns.histograms.iter().map(|(t, h)| (*t, format!("{h:?}"))));
        }
    };
    for block in db.blocks() {
        put(&mut block.source());
    }
    if let Some(range) = db.head_range() {
        put(&mut FlushSeries::new(&*db.head_view(range)));
    }
    all.values_mut().for_each(|samples| samples.sort());
    all.retain(|_, samples| !samples.is_empty());
    all
}

fn histogram(n: u32) -> HistogramValue {
    HistogramValue::Float(Arc::new(FloatHistogram {
        schema: 2,
        zero_threshold: 0.001,
        count: f64::from(n),
        sum: f64::from(n) * 2.5,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![f64::from(n)],
        ..FloatHistogram::default()
    }))
}

fn open(dir: &std::path::Path) -> Arc<Db> {
    let options = DbOptions {
        path: dir.to_owned(),
        wal_sync_interval: std::time::Duration::ZERO,
        retention_ms: 0,
        ..DbOptions::default()
    };
    Db::open(options, Arc::new(RealVfs), Arc::new(SystemClock), &Registry::new()).unwrap()
}

/// A storage with a block and a head: five hours, every 5 minutes, floats and histograms.
fn fill(dir: &std::path::Path) -> Arc<Db> {
    let db = open(dir);
    let begin = 1_700_000_000_000i64;
    for step in 0..60u32 {
        let t = begin + i64::from(step) * 300_000;
        let mut batch = db.appender(BatchOptions::default());
        for series in 0..5u32 {
            let labels = || Labels::from_pairs([("__name__", "m"), ("i", &*series.to_string())]);
            batch.append(SeriesRef::NONE, &labels, 0, t, f64::from(step * series) / 10.0).unwrap();
        }
        let labels = || Labels::from_pairs([("__name__", "h")]);
        batch.append_histogram(SeriesRef::NONE, &labels, 0, t, histogram(step)).unwrap();
        batch.commit().unwrap();
    }
    assert!(db.compact().unwrap() > 0, "a block was written");
    db
}

fn all(format: BlockFormat) -> ExportOptions {
    ExportOptions {
        format,
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX - 1,
        matchers: Vec::new(),
        block_range_ms: SHORTEST_MS,
    }
}

#[test]
fn what_is_exported_beside_a_running_server_is_everything() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = fill(from.path());
    let before = content(from.path());
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 360);
    let listed = |dir: &std::path::Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let names = listed(from.path());
    for format in [BlockFormat::Native, BlockFormat::Prometheus] {
        let to = to.path().join(format!("{format:?}"));
        std::fs::create_dir(&to).unwrap();
        let view = ReadOnlyDb::open(from.path()).unwrap();
        let report = export(&view, &to, &all(format), &|_, _, _| {}).unwrap();
        assert!(report.blocks.len() >= 3 && report.warnings.is_empty(), "{report:?}");
        assert!(report.blocks.windows(2).all(|w| w[0].max_time <= w[1].min_time), "no overlaps");
        assert!(report.blocks.iter().all(|b| b.min_time % SHORTEST_MS == 0 && b.max_time % SHORTEST_MS == 0));
        assert_eq!(content(&to), before, "{format:?}");
    }
    assert_eq!(listed(from.path()), names, "reading writes nothing");
    drop(db);
}

#[test]
fn exports_can_be_narrowed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path()).close().unwrap();
    let view = ReadOnlyDb::open(from.path()).unwrap();
    let options = ExportOptions {
        min_t_ms: 1_700_003_000_000,
        max_t_ms: 1_700_006_000_000,
        matchers: vec![Matcher::equal("i", "3")],
        ..all(BlockFormat::Prometheus)
    };
    export(&view, to.path(), &options, &|_, _, _| {}).unwrap();
    let got = content(to.path());
    assert_eq!(got.len(), 1);
    let times: Vec<i64> = got.values().flatten().map(|(t, _)| *t).collect();
    assert_eq!(
        (times.first(), times.last(), times.len()),
        (Some(&1_700_003_000_000), Some(&1_700_006_000_000), 11)
    );
}

#[test]
fn gathered_samples_return_in_any_order_and_with_little_memory() {
    for (memory, format) in
        [(7, BlockFormat::Native), (1 << 20, BlockFormat::Native), (50, BlockFormat::Prometheus)]
    {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::create(dir.path()).unwrap();
        let mut gather = Gather::with_memory(&staging.path().join("runs"), SHORTEST_MS, memory).unwrap();
        let mut want = Content::new();
        let mut rng = fastrand::Rng::with_seed(5);
        for n in 0..300 {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", &*rng.u8(0..4).to_string())]);
            let t = rng.i64(0..100) * 600_000 - 20_000_000;
            gather.add(&labels, t, 0, Value::Float(f64::from(n))).unwrap();
            let samples = want.entry(labels.to_string()).or_default();
            samples.retain(|(other, _)| *other != t);
            samples.push((t, format!("{:x}", f64::from(n).to_bits())));
        }
        want.values_mut().for_each(|s| s.sort());
        let blocks = gather.finish(staging.path(), format, &|_, _| {}).unwrap();
        assert!(blocks.len() > 5);
        assert!(content(dir.path()).is_empty(), "nothing is shown before all is decided");
        staging.publish().unwrap();
        assert_eq!(content(dir.path()), want, "{memory} {format:?}");
    }
}

#[test]
fn an_import_that_was_cut_off_is_finished_and_one_that_was_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let staging = Staging::create(dir.path()).unwrap();
    let mut gather = Gather::new(&staging.path().join("runs"), SHORTEST_MS).unwrap();
    for t in 0..10 {
        let labels = Labels::from_pairs([("__name__", "m")]);
        gather.add(&labels, t * SHORTEST_MS, 0, Value::Float(1.0)).unwrap();
    }
    let blocks = gather.finish(staging.path(), BlockFormat::Native, &|_, _| {}).unwrap();
    // As if the process had ended after two of the moves.
    let ready = dir.path().join("01J00000000000000000000000.import");
    std::fs::rename(staging.path(), &ready).unwrap();
    for block in &blocks[..2] {
        let name = block.ulid.to_string();
        std::fs::rename(ready.join(&name), dir.path().join(&name)).unwrap();
    }
    finish(&RealVfs, dir.path()).unwrap();
    assert!(!ready.exists());
    assert_eq!(content(dir.path()).values().map(Vec::len).sum::<usize>(), 10);
    drop(Staging::create(dir.path()).unwrap());
    drop(staging);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(names.len(), 10, "{names:?}");
}

#[test]
fn block_lengths_follow_the_span() {
    assert_eq!(block_length(0), SHORTEST_MS);
    assert_eq!(block_length(24 * 3_600_000), 9 * SHORTEST_MS);
    assert_eq!(block_length_for_span(0, 365 * 24 * 3_600_000), 81 * SHORTEST_MS);
    assert_eq!(block_length_for_span(0, 3_600_000), SHORTEST_MS);
}
