//! Does storage keep its promises when the disk misbehaves? Whatever fails, it starts again, returns no wrong value,
//! keeps each batch whole or absent, and loses nothing that it acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meerkat::model::clock::ManualClock;
use meerkat::model::histogram::{Histogram, Span};
use meerkat::model::metadata::{Exemplar, Metadata, MetricType};
use meerkat::model::sample::HistogramValue;
use meerkat::model::{Labels, Matcher, SampleBuffer};
use meerkat::telemetry::Registry;
use meerkat::tsdb::vfs::crash::Fault;
use meerkat::tsdb::vfs::{CrashVfs, Vfs};
use meerkat::tsdb::{
    AppendError, Appendable, BatchOptions, Db, DbOptions, ExemplarQuerier, MetadataStore, Queryable,
    SelectHints, SeriesRef, StorageError,
};

const SERIES: usize = 3;

fn options() -> DbOptions {
    DbOptions {
        path: PathBuf::from("/data"),
        wal_sync_interval: Duration::ZERO,
        wal_segment_bytes: 700,
        retry_interval: Duration::ZERO,
        ..DbOptions::default()
    }
}

fn open_with(vfs: &Arc<CrashVfs>, options: DbOptions) -> Result<(Arc<Db>, Arc<Registry>), StorageError> {
    let registry = Registry::new();
    let db = Db::open(options, Arc::clone(vfs) as Arc<dyn Vfs>, ManualClock::at(0), &registry)?;
    Ok((db, registry))
}

fn open(vfs: &Arc<CrashVfs>) -> Arc<Db> {
    open_with(vfs, options()).expect("a start never fails").0
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("job", "test"), ("i", ["a", "b", "c", "d"][i % 4])])
}

/// A value says where it belongs.
fn value(i: usize, t: i64) -> f64 {
    (i as i64 * 1_000_000 + t / 1000 * 7 + t % 5) as f64
}

fn commit(db: &Db, t: i64) -> Result<meerkat::tsdb::Commit, AppendError> {
    let mut appender = db.appender(BatchOptions { source: 9, ..BatchOptions::default() });
    for i in 0..SERIES {
        appender.append(SeriesRef::NONE, &|| labels(i), 0, t, value(i, t))?;
    }
    appender.commit()
}

/// Times of the stored batches; fails on a wrong value or a batch that is there in part.
fn stored(db: &Db) -> BTreeSet<i64> {
    let querier = db.querier(i64::MIN, i64::MAX).unwrap();
    let set = querier.select(&SelectHints::default(), &[Matcher::equal("job", "test")]).unwrap();
    let mut out = SampleBuffer::default();
    let mut all: Vec<BTreeSet<i64>> = vec![BTreeSet::new(); SERIES];
    for s in 0..set.len() {
        let own = set.labels(s);
        let i = (0..SERIES).find(|i| labels(*i) == own).expect("a series that nobody sent");
        set.samples(s, i64::MIN, i64::MAX, &mut out).unwrap();
        for (t, v) in out.timestamps.iter().zip(&out.values) {
            assert_eq!(*v, value(i, *t), "series {i} at {t}");
        }
        all[i].extend(out.timestamps.iter());
    }
    for other in &all {
        assert_eq!(*other, all[0], "a batch is there in part");
    }
    all.swap_remove(0)
}

#[derive(Default)]
struct Acknowledged {
    committed: BTreeSet<i64>,
    durable: BTreeSet<i64>,
}

/// Batches, durable waits, checkpoints; errors are taken as they come.
fn script(db: &Db, from: i64, steps: i64, done: &mut Acknowledged) {
    for k in from..from + steps {
        let t = k * 1000;
        if let Ok(proof) = commit(db, t) {
            done.committed.insert(t);
            if k % 3 == 0 && proof.wait_durable().is_ok() {
                done.durable.extend(done.committed.iter().copied());
            }
        }
        if k % 8 == 7 {
            // A failed checkpoint must change nothing.
            let _ = db.checkpoint();
        }
    }
}

#[test]
fn nothing_committed_is_lost_by_a_kill() {
    let mut vfs = CrashVfs::new();
    let mut done = Acknowledged::default();
    for round in 0..6 {
        let db = open(&vfs);
        assert_eq!(stored(&db), done.committed, "round {round}");
        script(&db, round * 50, 13 + round, &mut done);
        assert_eq!(stored(&db), done.committed);
        if round == 3 {
            db.close().unwrap();
        }
        vfs = vfs.kill();
    }
    let db = open(&vfs);
    assert_eq!(stored(&db), done.committed);
    assert_eq!(db.recovery().damaged, 0);
}

#[test]
fn power_cuts_keep_what_was_durable_again_and_again() {
    for seed in 0..150u64 {
        let mut vfs = CrashVfs::new();
        let mut done = Acknowledged::default();
        for round in 0..4u64 {
            let db = open(&vfs);
            let kept = stored(&db);
            assert!(
                done.durable.is_subset(&kept),
                "seed {seed} round {round}: lost {:?}",
                done.durable.difference(&kept)
            );
            assert!(kept.is_subset(&done.committed), "seed {seed} round {round}: appeared");
            // What is visible after a start is not yet a promise, but the next script continues from it.
            done = Acknowledged { committed: kept, durable: done.durable };
            script(&db, round as i64 * 40, (seed % 23) as i64 + 1, &mut done);
            vfs = vfs.power_cut(seed * 31 + round);
        }
    }
}

#[test]
fn every_failing_call_once_and_for_good() {
    let calls = {
        let vfs = CrashVfs::new();
        let mut done = Acknowledged::default();
        script(&open(&vfs), 0, 20, &mut done);
        vfs.calls()
    };
    assert!(calls > 40, "{calls}");
    for n in 0..calls {
        for fault in [Fault::Once(n), Fault::From(n)] {
            let vfs = CrashVfs::new();
            vfs.set_fault(Some(fault));
            let mut done = Acknowledged::default();
            let db = open_with(&vfs, options()).map(|(db, _)| db);
            if let Ok(db) = &db {
                script(db, 0, 20, &mut done);
                assert_eq!(stored(db), done.committed, "{fault:?}");
                // Healed, it goes on without a restart.
                vfs.set_fault(None);
                script(db, 100, 10, &mut done);
                assert!(
                    (100..110).all(|k| done.committed.contains(&(k * 1000))),
                    "{fault:?}: no ingestion after healing"
                );
                assert_eq!(stored(db), done.committed, "{fault:?}");
            }
            vfs.set_fault(None);
            drop(db);
            let after_kill = stored(&open(&vfs.kill()));
            assert!(
                done.committed.is_subset(&after_kill),
                "{fault:?}: lost {:?}",
                done.committed.difference(&after_kill)
            );
            for seed in 0..3 {
                let after_cut = stored(&open(&vfs.power_cut(seed)));
                assert!(
                    done.durable.is_subset(&after_cut),
                    "{fault:?}: lost {:?}",
                    done.durable.difference(&after_cut)
                );
            }
        }
    }
}

#[test]
fn failed_syncs_acknowledge_nothing() {
    for fault in (0..12).flat_map(|n| [Fault::Once(n), Fault::From(n)]) {
        let vfs = CrashVfs::new();
        let db = open(&vfs);
        vfs.set_sync_fault(Some(fault));
        let mut done = Acknowledged::default();
        script(&db, 0, 25, &mut done);
        let cut = vfs.power_cut(7);
        let kept = stored(&open(&cut));
        assert!(done.durable.is_subset(&kept), "{fault:?}: lost {:?}", done.durable.difference(&kept));
        if matches!(fault, Fault::Once(_)) {
            assert_eq!(done.durable.len(), 25, "{fault:?}: one failed sync must not refuse anything");
        }
    }
}

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() {
    let vfs = CrashVfs::new();
    let db = open(&vfs);
    let mut done = Acknowledged::default();
    script(&db, 0, 10, &mut done);
    for round in 1..20i64 {
        vfs.set_quota(Some(vfs.used() + 100 * (round as u64 % 4)));
        let mut refused = 0;
        for k in 0..20 {
            match commit(&db, round * 100_000 + k * 1000) {
                Ok(_) => drop(done.committed.insert(round * 100_000 + k * 1000)),
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error, AppendError::Storage(StorageError::ReadOnly(_))), "{error}");
                }
            }
        }
        assert!(refused > 10, "round {round}: {refused}");
        assert_eq!(stored(&db), done.committed, "reads go on");
        let full = vfs.kill();
        full.set_quota(None);
        assert_eq!(stored(&open(&full)), done.committed, "round {round}");
        vfs.set_quota(None);
        let t = round * 100_000 + 50_000;
        commit(&db, t).expect("writing resumes when there is room").wait_durable().unwrap();
        done.committed.insert(t);
        db.checkpoint().unwrap();
    }
    assert_eq!(stored(&open(&vfs.kill())), done.committed);
}

fn log_files(vfs: &CrashVfs) -> Vec<PathBuf> {
    vfs.files()
        .into_iter()
        .filter(|f| f.starts_with("/data/meerkat-wal") || f.starts_with("/data/meerkat-head"))
        .collect()
}

#[test]
fn flipped_bits_never_give_wrong_values_and_are_counted() {
    let vfs = CrashVfs::new();
    let mut done = Acknowledged::default();
    let db = open_with(&vfs, DbOptions { wal_segment_bytes: 1 << 20, ..options() }).unwrap().0;
    script(&db, 0, 14, &mut done);
    drop(db);
    for file in log_files(&vfs) {
        let content = vfs.content(&file).unwrap();
        for bit in (0..content.len() * 8).step_by(3) {
            let damaged = vfs.kill();
            let mut bytes = content.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            damaged.damage(&file, bytes);
            let (db, registry) = open_with(&damaged, options()).expect("a start never fails");
            let kept = stored(&db);
            assert!(kept.is_subset(&done.committed));
            if kept != done.committed {
                let counted = registry.counter("prometheus_tsdb_wal_corruptions_total", "", &[]).get();
                let torn = bit / 8 + 400 > content.len();
                assert!(counted > 0.0 || torn, "{} bit {bit}: lost but not counted", file.display());
            }
            commit(&db, 1_000_000).expect("ingestion resumes");
            assert_eq!(
                damaged.content(&file).map(|c| c.len()),
                Some(content.len()),
                "damage deletes nothing"
            );
        }
    }
}

#[test]
fn every_truncation_keeps_what_is_before_it() {
    let vfs = CrashVfs::new();
    let mut done = Acknowledged::default();
    let db = open_with(&vfs, DbOptions { wal_segment_bytes: 1 << 20, ..options() }).unwrap().0;
    for k in 0..6 {
        commit(&db, k * 1000).unwrap();
        done.committed.insert(k * 1000);
    }
    drop(db);
    let file = log_files(&vfs).pop().unwrap();
    let content = vfs.content(&file).unwrap();
    let mut most = 0;
    for len in 0..=content.len() {
        let damaged = vfs.kill();
        damaged.damage(&file, content[..len].to_vec());
        let db = open(&damaged);
        let kept = stored(&db);
        assert_eq!(kept, (0..kept.len() as i64).map(|k| k * 1000).collect(), "a prefix");
        assert!(kept.len() >= most);
        most = kept.len();
        assert_eq!(db.recovery().damaged, 0, "a torn tail is no damage");
    }
    assert_eq!(most, 6);
}

#[test]
fn a_directory_in_use_or_of_the_future_is_refused() {
    let vfs = CrashVfs::new();
    let db = open(&vfs);
    let error = open_with(&vfs, options()).err().expect("two owners").to_string();
    assert!(error.contains("another process"), "{error}");
    db.close().unwrap();
    drop(db);
    vfs.damage(Path::new("/data/meerkat.json"), b"{\"format\":99}".to_vec());
    let error = open_with(&vfs, options()).err().expect("a later format").to_string();
    assert!(error.contains("format 99"), "{error}");
    vfs.damage(Path::new("/data/meerkat.json"), b"garbage".to_vec());
    assert!(open_with(&vfs, options()).is_ok());
}

fn histogram(count: u64) -> HistogramValue {
    HistogramValue::Integer(Arc::new(Histogram {
        schema: 0,
        count,
        sum: count as f64 * 1.5,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count as i64],
        ..Histogram::default()
    }))
}

#[test]
fn histograms_exemplars_metadata_and_deletions_survive() {
    let mut vfs = CrashVfs::new();
    for round in 0..3 {
        let db = open(&vfs);
        if round == 0 {
            let help = Metadata { metric_type: MetricType::Counter, unit: "s".into(), help: "Helps.".into() };
            let mut series = SeriesRef::NONE;
            for k in 0..300i64 {
                let mut appender = db.appender(BatchOptions::default());
                series = appender
                    .append_histogram(series, &|| labels(0), k * 10, k * 1000 + 10, histogram(k as u64))
                    .unwrap();
                let own = Labels::from_pairs([("trace_id", format!("{k}"))]);
                let exemplar = Exemplar { labels: own, value: k as f64, timestamp_ms: None };
                appender.append_exemplar(series, k * 1000, &exemplar).unwrap();
                assert_eq!(appender.append_exemplar(series, -5000, &exemplar).is_err(), k > 0);
                appender.update_metadata("m", &help).unwrap();
                appender.append(SeriesRef::NONE, &|| labels(1), 0, k * 1000, k as f64).unwrap();
                appender.commit().unwrap();
                if k == 150 {
                    db.checkpoint().unwrap();
                }
            }
            db.delete_series(&[Matcher::equal("i", "b")], 10_000, 20_000).unwrap();
        }
        assert_eq!(db.metadata(Some("m"))[0].1.help, "Helps.");
        let found = db.select_exemplars(100_000, 200_000, &[vec![Matcher::equal("i", "a")]]).unwrap();
        assert_eq!(found[0].exemplars.len(), 101, "round {round}");
        let querier = db.querier(0, i64::MAX).unwrap();
        let set = querier.select(&SelectHints::default(), &[]).unwrap();
        let mut out = SampleBuffer::default();
        set.samples(0, 100_000, i64::MAX, &mut out).unwrap();
        assert_eq!(out.histograms.len(), 200);
        assert_eq!(out.histogram_start_ts[199], 2990);
        assert_eq!(out.histograms[199].1.count, 299.0);
        set.samples(1, 0, i64::MAX, &mut out).unwrap();
        assert_eq!(out.len(), 300 - 11, "round {round}");
        if round == 1 {
            db.close().unwrap();
        }
        drop((set, querier, db));
        vfs = vfs.kill();
    }
}

#[test]
fn open_queriers_see_neither_later_batches_nor_halves() {
    let vfs = CrashVfs::new();
    let (db, _) = open_with(&vfs, DbOptions { out_of_order_window_ms: 1_000_000, ..options() }).unwrap();
    let mut views = Vec::new();
    let mut want = BTreeMap::new();
    for k in 0..400i64 {
        // Every fifth batch is out of order.
        let t = if k % 5 == 4 { (k - 4) * 1000 + 500 } else { k * 1000 };
        if k % 40 == 3 {
            views.push((want.clone(), db.querier(i64::MIN, i64::MAX).unwrap()));
        }
        commit(&db, t).unwrap();
        want.insert(t, ());
    }
    for (want, querier) in &views {
        let set = querier.select(&SelectHints::default(), &[]).unwrap();
        assert_eq!(set.len(), if want.is_empty() { 0 } else { SERIES });
        let mut out = SampleBuffer::default();
        for s in 0..set.len() {
            set.samples(s, i64::MIN, i64::MAX, &mut out).unwrap();
            assert_eq!(out.timestamps, want.keys().copied().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_damaged_head_chunk_costs_only_itself() {
    let vfs = CrashVfs::new();
    let db = open(&vfs);
    let mut all = BTreeSet::new();
    for k in 0..1200 {
        commit(&db, k * 1000).unwrap();
        all.insert(k * 1000);
    }
    db.close().unwrap();
    drop(db);
    let file =
        vfs.files().into_iter().find(|f| f.extension().is_some_and(|e| e == "chunks")).expect("full chunks");
    let content = vfs.content(&file).unwrap();
    for byte in (0..content.len()).step_by(37) {
        let damaged = vfs.kill();
        let mut bytes = content.clone();
        bytes[byte] ^= 0x10;
        damaged.damage(&file, bytes);
        let (db, registry) = open_with(&damaged, options()).expect("a start never fails");
        let querier = db.querier(i64::MIN, i64::MAX).unwrap();
        let set = querier.select(&SelectHints::default(), &[]).unwrap();
        let (mut out, mut missing) = (SampleBuffer::default(), 0);
        for i in 0..set.len() {
            set.samples(i, i64::MIN, i64::MAX, &mut out).unwrap();
            assert!(out.timestamps.iter().zip(&out.values).all(|(t, v)| *v == value(i, *t)));
            missing += all.len() - out.len();
        }
        assert_eq!(missing, 240, "byte {byte}");
        assert_eq!(set.warnings().len(), 1, "byte {byte}");
        assert!(registry.counter("prometheus_tsdb_mmap_chunk_corruptions_total", "", &[]).get() > 0.0);
    }
}

#[test]
fn truncation_forgets_what_is_in_blocks_and_nothing_else() {
    use meerkat::tsdb::head::flush::RawSamples;
    let vfs = CrashVfs::new();
    let hour = 3_600_000;
    let (db, _) = open_with(&vfs, DbOptions { out_of_order_window_ms: 10 * hour, ..options() }).unwrap();
    for k in 0..(4 * 60) {
        commit(&db, k * 60_000).unwrap();
        if k == 10 {
            // A series that ends early.
            let mut appender = db.appender(BatchOptions::default());
            appender.append(SeriesRef::NONE, &|| labels(3), 0, k * 60_000, 1.0).unwrap();
            appender.commit().unwrap();
        }
    }
    let range = db.head().range_to_flush(0).expect("four hours are more than one and a half block ranges");
    assert_eq!((range.min_t_ms, range.max_t_ms), (0, 2 * hour - 1));
    let old = db.querier(0, 2 * hour).unwrap();
    let view = db.head().flush_view(range).unwrap();
    assert_eq!(view.len(), 4);
    let mut raw = RawSamples::default();
    view.samples(0, &mut raw).unwrap();
    assert_eq!(raw.len(), 120);
    // Late samples: one that the view cannot have seen.
    commit(&db, 30_000).unwrap();
    drop((view, old));
    db.head().forget_before(range.max_t_ms + 1, &|| false).unwrap();
    db.checkpoint().unwrap();
    let mut want: BTreeSet<i64> = (120..240).map(|k| k * 60_000).collect();
    want.insert(30_000);
    assert_eq!(stored(&db), want);
    assert_eq!(db.head_stats().num_series, 3, "the series that ended is gone");
    assert_eq!(stored(&open(&vfs.kill())), want);
    assert!(matches!(
        db.head().range_to_flush(0),
        None | Some(meerkat::tsdb::head::flush::FlushRange { min_t_ms: 0, .. })
    ));
    // The slot of the removed series is used again under another reference.
    let mut appender = db.appender(BatchOptions::default());
    appender.append(SeriesRef::NONE, &|| labels(3), 0, 4 * hour, 5.0).unwrap();
    appender.commit().unwrap();
    let again = open(&vfs.kill());
    assert_eq!(again.head_stats().num_series, 4);
}
