//! The whole life of samples (log, head, blocks, merging, deletion, snapshots, retention) on a disk that fails, fills
//! up, loses power or rots, against a map of what was acknowledged.
//!
//! A short walk runs each time; `MEERKAT_FAULTS=all` takes every call, every bit and every length (minutes).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use meerkat::model::clock::ManualClock;
use meerkat::model::{Labels, Matcher, SampleBuffer};
use meerkat::telemetry::Registry;
use meerkat::tsdb::vfs::crash::Fault;
use meerkat::tsdb::vfs::{CrashVfs, Vfs};
use meerkat::tsdb::{
    Appendable, BatchOptions, Db, DbOptions, Queryable, SelectHints, SeriesRef, StorageError,
};

const SERIES: usize = 3;
/// The series from which something is deleted.
const DELETED: usize = 1;
const RANGE_MS: i64 = 4_000;
const STEP_MS: i64 = 500;
const RETENTION_MS: i64 = 24_000;

/// `short` usually, `all` when everything is asked for.
fn stride(short: usize) -> usize {
    if std::env::var("MEERKAT_FAULTS").is_ok_and(|v| v == "all") { 1 } else { short }
}

struct Store {
    db: Arc<Db>,
    registry: Arc<Registry>,
}

fn try_open(vfs: &Arc<CrashVfs>) -> Result<Store, StorageError> {
    let options = DbOptions {
        path: PathBuf::from("/srv/data"),
        block_range_ms: RANGE_MS,
        retention_ms: 0,
        wal_sync_interval: Duration::ZERO,
        wal_segment_bytes: 900,
        retry_interval: Duration::ZERO,
        out_of_order_window_ms: 20_000,
        ..DbOptions::default()
    };
    let registry = Registry::new();
    let db = Db::open(options, Arc::clone(vfs) as Arc<dyn Vfs>, ManualClock::at(0), &registry)?;
    Ok(Store { db, registry })
}

fn open(vfs: &Arc<CrashVfs>, context: &str) -> Store {
    try_open(vfs).unwrap_or_else(|e| panic!("{context}: a start never fails: {e}"))
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", ["a", "b", "c"][i])])
}

/// A value says where it belongs.
fn value(i: usize, t: i64) -> f64 {
    (i as i64 * 1_000_000 + t / 100 * 7 + t % 5) as f64
}

/// Series and times.
type Samples = BTreeSet<(usize, i64)>;

#[derive(Debug, Default, Clone)]
struct Oracle {
    attempted: Samples,
    committed: Samples,
    durable: Samples,
    /// What was there and whose deletion was acknowledged, and that of which nobody knows.
    deleted: Samples,
    doubtful: Samples,
    retention: bool,
    newest: i64,
}

impl Oracle {
    fn batch(&mut self, store: &Store, t: i64) -> bool {
        self.attempted.extend((0..SERIES).map(|i| (i, t)));
        let commit = || {
            let mut appender = store.db.appender(BatchOptions { source: 3, ..BatchOptions::default() });
            for i in 0..SERIES {
                appender.append(SeriesRef::NONE, &|| labels(i), 0, t, value(i, t))?;
            }
            appender.commit()
        };
        let Ok(proof) = commit() else { return false };
        self.newest = self.newest.max(t);
        self.committed.extend((0..SERIES).map(|i| (i, t)));
        if t / STEP_MS % 5 == 0 && proof.wait_durable().is_ok() {
            self.durable.extend(self.committed.iter().copied());
        }
        true
    }

    fn batches(&mut self, store: &Store, from: i64, to: i64) {
        for t in (from..to).step_by(STEP_MS as usize) {
            self.batch(store, t);
        }
    }

    fn delete(&mut self, store: &Store, min: i64, max: i64) {
        let done = store.db.delete_series(&[Matcher::equal("i", "b")], min, max);
        let meant = self.committed.iter().filter(|(i, t)| *i == DELETED && (min..=max).contains(t));
        if done.is_ok() { self.deleted.extend(meant) } else { self.doubtful.extend(meant) }
    }

    /// Everything that can happen to samples, within a minute of theirs. Errors are taken as they come.
    fn life(&mut self, store: &Store, from: i64) {
        self.batches(store, from, from + 14_000);
        let _ = store.db.compact();
        self.delete(store, from + 3_000, from + 9_000);
        self.batches(store, from + 14_000, from + 22_000);
        // Late samples of a range that is in a block already.
        self.batch(store, from + 2_250);
        let _ = store.db.checkpoint();
        self.batches(store, from + 22_000, from + 34_000);
        let _ = store.db.compact();
        let _ = store.db.clean_tombstones();
        let _ = store.db.snapshot(true);
        self.batches(store, from + 34_000, from + 40_000);
        self.retention = true;
        store.db.set_retention(RETENTION_MS, 0);
        let _ = store.db.compact();
        self.batches(store, from + 40_000, from + 42_000);
    }

    /// Whatever is there was sent and is not deleted, and `required` is there.
    fn judge(&self, found: &Samples, required: &Samples, context: &str) {
        for sample in found {
            assert!(self.attempted.contains(sample), "{context}: {sample:?} was never sent");
            assert!(!self.deleted.contains(sample), "{context}: {sample:?} was deleted");
        }
        let oldest = if self.retention { self.newest - RETENTION_MS } else { i64::MIN };
        let lost: Vec<_> = required
            .iter()
            .filter(|s| s.1 >= oldest && !self.deleted.contains(s) && !self.doubtful.contains(s))
            .filter(|s| !found.contains(s))
            .collect();
        assert!(lost.is_empty(), "{context}: lost {lost:?}");
    }

    fn check(&self, store: &Store, required: &Samples, context: &str) {
        let (found, warnings) = read(store, context);
        assert!(warnings.is_empty(), "{context}: {warnings:?}");
        self.judge(&found, required, context);
        let oldest = if self.retention { self.newest - RETENTION_MS } else { i64::MIN };
        for t in found.iter().map(|(_, t)| t).filter(|t| **t >= oldest) {
            let whole = found.contains(&(0, *t)) && found.contains(&(2, *t));
            assert!(whole, "{context}: the batch of {t} is there in part");
        }
    }

    /// After the fault everything goes on by itself.
    fn goes_on(&mut self, store: &Store, context: &str) {
        let from = self.newest.max(0) / RANGE_MS * RANGE_MS + 2 * RANGE_MS;
        for t in (from..from + 3 * RANGE_MS).step_by(STEP_MS as usize) {
            assert!(self.batch(store, t), "{context}: no ingestion");
        }
        store.db.compact().unwrap_or_else(|e| panic!("{context}: compaction does not go on: {e}"));
        assert!(!store.db.blocks().is_empty(), "{context}: no block was cut");
        store.db.clean_tombstones().unwrap_or_else(|e| panic!("{context}: deletions stay: {e}"));
        store.db.snapshot(true).unwrap_or_else(|e| panic!("{context}: no snapshot: {e}"));
        store.db.checkpoint().unwrap_or_else(|e| panic!("{context}: no checkpoint: {e}"));
    }
}

/// All samples with their values checked, and what the engine says is missing.
fn read(store: &Store, context: &str) -> (Samples, Vec<String>) {
    let querier = store.db.querier(i64::MIN, i64::MAX).unwrap();
    let set = match querier.select(&SelectHints::default(), &[Matcher::equal("__name__", "m")]) {
        Ok(set) => set,
        Err(e) => return (Samples::new(), vec![e.to_string()]),
    };
    let (mut buffer, mut found, mut failed) = (SampleBuffer::default(), Samples::new(), Vec::new());
    for s in 0..set.len() {
        let own = set.labels(s);
        let i = (0..SERIES).find(|i| labels(*i) == own);
        let i = i.unwrap_or_else(|| panic!("{context}: nobody sent {own}"));
        if let Err(e) = set.samples(s, i64::MIN, i64::MAX, &mut buffer) {
            failed.push(e.to_string());
            continue;
        }
        for (t, v) in buffer.timestamps.iter().zip(&buffer.values) {
            assert_eq!(*v, value(i, *t), "{context}: series {i} at {t}");
            assert!(found.insert((i, *t)), "{context}: {t} comes twice");
        }
    }
    failed.extend(set.warnings());
    (found, failed)
}

/// Nothing unfinished lies about after a start and a cycle.
fn is_tidy(vfs: &CrashVfs, context: &str) {
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in vfs.files() {
        let block = file.ancestors().nth(1).unwrap_or(Path::new("/")).to_path_buf();
        *names.entry(block).or_default() += 1;
    }
    let left: Vec<_> = names.keys().filter(|p| p.to_string_lossy().contains(".tmp")).collect();
    assert!(left.is_empty(), "{context}: {left:?}");
}

/// Calls of a life, and the bytes it takes.
fn measure() -> (u64, u64, u64) {
    fastrand::seed(1);
    let vfs = CrashVfs::new();
    let store = open(&vfs, "measuring");
    let mut oracle = Oracle::default();
    oracle.life(&store, 0);
    oracle.check(&store, &oracle.committed, "measuring");
    assert!(store.db.blocks().iter().any(|b| b.compaction.level > 1), "{:?}", store.db.blocks());
    assert!(store.db.blocks().iter().all(|b| b.min_time > 0), "retention has dropped something");
    (vfs.calls(), vfs.syncs(), vfs.used())
}

#[test]
fn each_call_may_fail_once_and_for_good() {
    let (calls, ..) = measure();
    assert!(calls > 200, "{calls}");
    for n in (0..calls).step_by(stride(11)) {
        for fault in [Fault::Once(n), Fault::From(n)] {
            fastrand::seed(1);
            let context = format!("{fault:?}");
            let vfs = CrashVfs::new();
            vfs.set_fault(Some(fault));
            let mut oracle = Oracle::default();
            if let Ok(store) = try_open(&vfs) {
                oracle.life(&store, 0);
                oracle.check(&store, &oracle.committed, &context);
                vfs.set_fault(None);
                oracle.goes_on(&store, &context);
                oracle.check(&store, &oracle.committed, &format!("{context}, healed"));
            }
            vfs.set_fault(None);
            let context = format!("{context}, killed");
            let killed = vfs.kill();
            let store = open(&killed, &context);
            oracle.check(&store, &oracle.committed, &context);
            oracle.goes_on(&store, &context);
            oracle.check(&store, &oracle.committed, &context);
            is_tidy(&killed, &context);
        }
    }
}

#[test]
fn power_may_fail_at_each_call_again_and_again() {
    let (calls, ..) = measure();
    for n in (0..calls).step_by(stride(7)) {
        let mut vfs = CrashVfs::new();
        let mut oracle = Oracle::default();
        let mut cut = n;
        for round in 0..4 {
            fastrand::seed(n * 10 + round);
            let context = format!("power cut at call {n}, round {round}");
            // Nothing after the cut reaches the disk; the call itself may have left a half behind.
            vfs.set_fault(Some(Fault::From(cut)));
            if let Ok(store) = try_open(&vfs) {
                oracle.check(&store, &oracle.durable, &context);
                // What is visible after a start need not be durable yet.
                oracle.committed = read(&store, &context).0;
                oracle.newest = oracle.committed.iter().map(|s| s.1).max().unwrap_or(0).max(oracle.newest);
                let from = (oracle.newest / RANGE_MS + 1) * RANGE_MS;
                oracle.life(&store, from);
            }
            vfs = vfs.power_cut(n * 31 + round);
            cut = fastrand::u64(..calls.min(if round % 2 == 0 { 30 } else { calls }));
        }
        let context = format!("power cut at call {n}, at the end");
        let store = open(&vfs, &context);
        oracle.check(&store, &oracle.durable, &context);
        oracle.committed = read(&store, &context).0;
        oracle.goes_on(&store, &context);
        oracle.check(&store, &oracle.durable, &context);
        is_tidy(&vfs, &context);
    }
}

#[test]
fn each_sync_may_fail_once_and_for_good() {
    let (_, syncs, _) = measure();
    for n in (0..syncs).step_by(stride(3)) {
        for fault in [Fault::Once(n), Fault::From(n)] {
            fastrand::seed(2);
            let context = format!("failed sync, {fault:?}");
            let vfs = CrashVfs::new();
            vfs.set_sync_fault(Some(fault));
            let mut oracle = Oracle::default();
            if let Ok(store) = try_open(&vfs) {
                oracle.life(&store, 0);
                oracle.check(&store, &oracle.committed, &context);
                let cut = vfs.power_cut(n);
                oracle.check(&open(&cut, &context), &oracle.durable, &context);
                vfs.set_sync_fault(None);
                oracle.goes_on(&store, &context);
                oracle.check(&store, &oracle.committed, &context);
            }
            vfs.set_sync_fault(None);
            let cut = vfs.power_cut(n + 1);
            oracle.check(&open(&cut, &context), &oracle.durable, &context);
        }
    }
}

#[test]
fn the_disk_may_be_full_at_any_point() {
    let (.., used) = measure();
    for quota in (1_500..used).step_by(stride(997) * 23) {
        fastrand::seed(3);
        let context = format!("disk of {quota} bytes");
        let vfs = CrashVfs::new();
        let store = open(&vfs, &context);
        let mut oracle = Oracle::default();
        vfs.set_quota(Some(quota));
        oracle.life(&store, 0);
        oracle.check(&store, &oracle.committed, &context);
        // A start on the full disk serves what is there.
        let full = vfs.kill();
        full.set_quota(Some(full.used()));
        let restarted = open(&full, &context);
        oracle.check(&restarted, &oracle.committed, &format!("{context}, restarted"));
        full.set_quota(None);
        oracle.clone().goes_on(&restarted, &format!("{context}, restarted, room again"));
        vfs.set_quota(None);
        oracle.goes_on(&store, &format!("{context}, room again"));
        oracle.check(&store, &oracle.committed, &context);
        oracle.check(&open(&vfs.kill(), &context), &oracle.committed, &context);
        is_tidy(&vfs, &context);
    }
}

#[test]
fn reads_may_fail_while_it_runs() {
    fastrand::seed(4);
    let vfs = CrashVfs::new();
    let store = open(&vfs, "reading");
    vfs.set_read_fault(None);
    let mut oracle = Oracle::default();
    oracle.life(&store, 0);
    let reads = vfs.reads();
    for n in (0..reads).step_by(stride(9)) {
        for fault in [Fault::Once(n), Fault::From(n)] {
            fastrand::seed(4);
            let context = format!("reading, {fault:?}");
            let vfs = CrashVfs::new();
            let store = open(&vfs, &context);
            vfs.set_read_fault(Some(fault));
            let mut oracle = Oracle::default();
            oracle.life(&store, 0);
            vfs.set_read_fault(None);
            oracle.check(&store, &oracle.committed, &context);
            oracle.goes_on(&store, &context);
            oracle.check(&store, &oracle.committed, &context);
            oracle.check(&open(&vfs.kill(), &context), &oracle.committed, &context);
        }
    }
}

/// A life that leaves every kind of file behind.
fn settled() -> (Arc<CrashVfs>, Oracle, Vec<PathBuf>) {
    fastrand::seed(5);
    let vfs = CrashVfs::new();
    let store = open(&vfs, "settling");
    let mut oracle = Oracle::default();
    oracle.batches(&store, 0, 14_000);
    store.db.compact().unwrap();
    oracle.delete(&store, 1_000, 2_000);
    // Enough for full chunks.
    for t in (14_000..17_000).step_by(10) {
        oracle.batch(&store, t / 500 * 500 + t % 500);
    }
    store.db.checkpoint().unwrap();
    oracle.batches(&store, 17_000, 18_000);
    drop(store);
    let files = vfs.files();
    for part in ["meta.json", "block.mkt", "deletions.mkt", ".wal", ".ckp", ".chunks", "meerkat.json"] {
        assert!(files.iter().any(|f| f.to_string_lossy().ends_with(part)), "no {part} in {files:?}");
    }
    let files = files.into_iter().filter(|f| !f.ends_with("lock")).collect();
    (vfs, oracle, files)
}

/// The store with one file damaged: it starts, says what is missing, and goes on.
fn survives(vfs: &CrashVfs, oracle: &Oracle, file: &Path, bytes: Vec<u8>, context: &str, torn: bool) {
    let damaged = vfs.kill();
    damaged.damage(file, bytes);
    let store = open(&damaged, context);
    let (found, warnings) = read(&store, context);
    let mut judge = oracle.clone();
    if file.extension().is_some_and(|e| e == "ckp") && found.iter().any(|s| oracle.deleted.contains(s)) {
        // Which samples of the head are deleted stands in the checkpoint alone.
        assert!(store.db.recovery().damaged > 0, "{context}: deletions lost and not counted");
        judge.deleted.clear();
    }
    judge.judge(&found, &Samples::new(), context);
    let counted: f64 = [
        "prometheus_tsdb_wal_corruptions_total",
        "prometheus_tsdb_mmap_chunk_corruptions_total",
        "meerkat_tsdb_damaged_block_files_total",
    ]
    .iter()
    .map(|name| store.registry.counter(name, "", &[]).get())
    .sum();
    let gone = oracle.committed.iter().any(|s| !found.contains(s) && !oracle.deleted.contains(s));
    assert!(!gone || torn || counted > 0.0 || !warnings.is_empty(), "{context}: lost and not counted");
    let mut later = Oracle { committed: found, retention: false, ..judge };
    let t = later.newest + RANGE_MS;
    for k in 0..16 {
        assert!(later.batch(&store, t + k * STEP_MS), "{context}: no ingestion");
    }
    store.db.compact().unwrap_or_else(|e| panic!("{context}: compaction stops: {e}"));
    let (found, _) = read(&store, context);
    later.judge(&found, &later.committed, &format!("{context}, compacted"));
}

#[test]
fn flipped_bits_cost_what_they_hit_and_no_more() {
    let (vfs, oracle, files) = settled();
    let mut before = 0;
    for file in &files {
        let content = vfs.content(file).unwrap();
        let first = (97 - before % 97) % stride(97);
        before += content.len() * 8;
        for bit in (first..content.len() * 8).step_by(stride(97)) {
            let mut bytes = content.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let context = format!("{} bit {bit}", file.display());
            let end_of_log = file.extension().is_some_and(|e| e == "wal") && bit / 8 + 400 > content.len();
            survives(&vfs, &oracle, file, bytes, &context, end_of_log);
        }
    }
}

#[test]
fn truncated_files_and_swapped_pages_cost_what_they_hit() {
    let (vfs, oracle, files) = settled();
    for file in &files {
        let content = vfs.content(file).unwrap();
        let is_log = file.extension().is_some_and(|e| e == "wal");
        for len in (0..content.len()).step_by(stride(61)) {
            let context = format!("{} cut to {len}", file.display());
            survives(&vfs, &oracle, file, content[..len].to_vec(), &context, is_log);
        }
        for page in [64, 512] {
            let pages = content.len() / page;
            for (a, b) in (0..pages).flat_map(|a| (a + 1..pages).map(move |b| (a, b))).step_by(stride(13)) {
                let mut bytes = content.clone();
                for k in 0..page {
                    bytes.swap(a * page + k, b * page + k);
                }
                let context = format!("{} pages {a} and {b} of {page}", file.display());
                survives(&vfs, &oracle, file, bytes, &context, false);
            }
            for at in (0..pages).step_by(stride(3)) {
                let mut bytes = content.clone();
                bytes[at * page..(at + 1) * page].fill(0);
                survives(&vfs, &oracle, file, bytes, &format!("{} page {at} zeroed", file.display()), is_log);
            }
        }
    }
}
