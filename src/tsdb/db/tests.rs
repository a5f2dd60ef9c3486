//! Head and blocks as one storage, on real files: hours pass by hand, the process "ends" by dropping it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::vfs::RealVfs;
use super::*;
use crate::model::clock::ManualClock;
use crate::model::{Labels, SampleBuffer};
use crate::telemetry::memory::MemoryBudget;
use crate::tsdb::block::{SeriesColumns, write_block};
use crate::tsdb::door::{AppendError, LabelQueryHints, SelectHints, SeriesRef};
use crate::tsdb::head::leave::LeavePolicy;
use crate::tsdb::prometheus::write_prometheus_block;

const RANGE: i64 = 10_000;

type Samples = BTreeMap<String, BTreeMap<i64, f64>>;

struct Store {
    db: Arc<Db>,
    registry: Arc<Registry>,
}

fn open(dir: &Path, change: impl FnOnce(&mut DbOptions)) -> Store {
    let mut options = DbOptions {
        path: dir.to_owned(),
        block_range_ms: RANGE,
        retention_ms: 0,
        wal_sync_interval: Duration::ZERO,
        out_of_order_window_ms: 0,
        ..DbOptions::default()
    };
    change(&mut options);
    let registry = Registry::new();
    let db = Db::open(options, Arc::new(RealVfs), ManualClock::at(0), &registry).unwrap();
    Store { db, registry }
}

fn labels(series: &str) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("s", series)])
}

impl Store {
    fn append(&self, series: &str, t_ms: i64, value: f64) -> Result<(), AppendError> {
        let mut appender = self.db.appender(BatchOptions::default());
        appender.append(SeriesRef::NONE, &|| labels(series), 0, t_ms, value)?;
        appender.commit().map(|_| ())
    }

    fn fill(&self, from: i64, to: i64) -> Samples {
        self.fill_each(from, to, 500)
    }

    fn fill_each(&self, from: i64, to: i64, step: usize) -> Samples {
        let mut all = Samples::new();
        for t in (from..to).step_by(step) {
            for series in ["a", "b"] {
                let value = (t + i64::from(series == "b")) as f64;
                self.append(series, t, value).unwrap();
                all.entry(series.into()).or_default().insert(t, value);
            }
        }
        all
    }

    fn read(&self, min: i64, max: i64) -> Samples {
        let querier = self.db.querier(min, max).unwrap();
        let set = querier.select(&SelectHints::default(), &[Matcher::equal("__name__", "m")]).unwrap();
        let hints = SelectHints { repeats: true, ..SelectHints::default() };
        let again = querier.select(&hints, &[Matcher::equal("__name__", "m")]).unwrap();
        let mut buffer = SampleBuffer::default();
        let mut all = Samples::new();
        for i in 0..set.len() {
            set.samples(i, min, max, &mut buffer).unwrap();
            assert_eq!(again.labels(i), set.labels(i), "remembered selections");
            for set in [&set, &again] {
                if let Some((t_ms, value)) = set.latest(i, max).filter(|(t_ms, _)| *t_ms >= min) {
                    let last = buffer.timestamps.last().copied().zip(buffer.values.last());
                    let last = last.map(|(t_ms, value)| (t_ms, value.to_bits()));
                    assert_eq!(last, Some((t_ms, value.to_bits())), "the newest sample");
                }
            }
            let samples: BTreeMap<i64, f64> =
                buffer.timestamps.iter().copied().zip(buffer.values.iter().copied()).collect();
            assert_eq!(samples.len(), buffer.timestamps.len(), "a timestamp came twice");
            if !samples.is_empty() {
                all.insert(set.labels(i).value("s").to_owned(), samples);
            }
        }
        assert_eq!(set.warnings(), Vec::<String>::new());
        all
    }

    /// The directory as a kill would leave it now, when everything was acknowledged.
    fn killed(&self, dir: &Path) -> tempfile::TempDir {
        self.db.wal.sync().unwrap();
        copied(dir)
    }

    fn all(&self) -> Samples {
        self.read(i64::MIN, i64::MAX)
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.registry.render_text();
        let line = text.lines().find(|l| l.split([' ', '{']).next() == Some(name));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }
}

#[test]
fn old_ranges_move_to_blocks_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let want = store.fill_each(0, 95_000, 100);
    let chunks = store.metric("prometheus_tsdb_head_chunks");
    assert!(store.db.compact().unwrap() > 0);
    assert_eq!(store.all(), want);
    let stats = store.db.head_stats();
    assert_eq!((stats.min_time, stats.max_time), (80_000, 94_900));
    assert!(store.metric("prometheus_tsdb_head_chunks") < chunks);
    let blocks = store.db.blocks();
    assert!(blocks.iter().any(|b| b.compaction.level > 1), "{blocks:?}");
    assert_eq!((blocks[0].min_time, blocks.last().unwrap().max_time), (0, 80_000));
    assert_eq!(store.metric("prometheus_tsdb_blocks_loaded"), blocks.len() as f64);
    let bytes: Vec<u64> = store.db.sized_blocks().iter().map(|(_, bytes)| *bytes).collect();
    assert!(bytes.iter().all(|b| *b > 0), "{bytes:?}");
    assert_eq!(store.metric("prometheus_tsdb_storage_blocks_bytes"), bytes.iter().sum::<u64>() as f64);
    assert!(store.metric("prometheus_tsdb_compactions_total") >= 8.0);
    assert_eq!(store.metric("prometheus_tsdb_compactions_failed_total"), 0.0);
    assert_eq!(store.metric("prometheus_tsdb_lowest_timestamp_seconds"), 0.0);
    let querier = store.db.querier(0, 5000).unwrap();
    assert_eq!(querier.label_values("s", &[], &LabelQueryHints::default()).unwrap(), ["a", "b"]);
    drop(querier);
    assert_eq!(store.db.compact().unwrap(), 0, "nothing more is due");
    // Both kinds of end.
    for clean in [false, true] {
        if clean {
            store.db.close().unwrap();
        }
        let copy = if clean { copied(dir.path()) } else { store.killed(dir.path()) };
        let again = open(copy.path(), |_| {});
        assert_eq!(again.all(), want);
        assert_eq!(again.db.blocks(), blocks);
    }
}

fn copied(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy(dir, to.path());
    to
}

#[test]
fn a_kill_between_the_steps_of_a_flush_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let want = store.fill(0, 26_000);
    let range = store.db.head().range_to_flush(0).unwrap();
    // Killed while the block is written.
    std::fs::create_dir(dir.path().join("01ARZ3NDEKTSV4RRFFQ69G5FAV.tmp-for-creation")).unwrap();
    let writing = store.killed(dir.path());
    // Killed after the block was renamed, before anything was forgotten.
    let view = store.db.head().flush_view(range).unwrap();
    let meta = BlockMeta::new(crate::tsdb::block::new_ulid(1), range.min_t_ms, range.max_t_ms + 1);
    let mut series = crate::tsdb::compact::sources::FlushSeries::new(&*view);
    write_block(dir.path(), meta, &mut series, &|| false).unwrap().unwrap();
    drop(view);
    let published = store.killed(dir.path());
    // Killed after the head has forgotten, before the checkpoint.
    store.db.head().forget_before(range.max_t_ms + 1, &|| false).unwrap();
    let forgotten = store.killed(dir.path());
    store.db.checkpoint().unwrap();
    let done = store.killed(dir.path());
    for (stage, killed) in
        [("writing", writing), ("published", published), ("forgotten", forgotten), ("done", done)]
    {
        let again = open(killed.path(), |_| {});
        assert_eq!(again.all(), want, "{stage}");
        again.db.compact().unwrap();
        assert_eq!(again.all(), want, "{stage}");
        assert!(again.append("a", 26_000, 1.0).is_ok());
        let left: Vec<_> = std::fs::read_dir(killed.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".tmp"))
            .collect();
        assert!(left.is_empty(), "{stage}: {left:?}");
        let blocks = again.db.blocks();
        assert!(blocks.windows(2).all(|w| w[0].max_time <= w[1].min_time), "{stage}: {blocks:?}");
    }
}

#[test]
fn chunks_are_not_mistaken_for_those_of_files_that_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut want = Samples::new();
    let all = |want: &mut Samples, more: Samples| {
        more.into_iter().for_each(|(name, samples)| want.entry(name).or_default().extend(samples));
    };
    // Full chunks whose file is closed by a restart, then in a block, so that the file is deleted.
    let store = open(dir.path(), |_| {});
    all(&mut want, store.fill_each(0, 8_000, 20));
    all(&mut want, store.fill_each(12_000, 12_001, 1));
    store.db.checkpoint().unwrap();
    drop(store);
    let store = open(dir.path(), |_| {});
    all(&mut want, store.fill_each(15_500, 15_501, 1));
    store.db.compact().unwrap();
    let chunk_files = || std::fs::read_dir(dir.path().join(CHUNKS_DIR)).unwrap().count();
    assert_eq!(chunk_files(), 0);
    let killed = store.killed(dir.path());
    // New chunks go to a new file; what the checkpoint says of the old one must not lead there.
    let again = open(killed.path(), |_| {});
    all(&mut want, again.fill_each(16_000, 24_000, 20));
    again.db.checkpoint().unwrap();
    assert_eq!(again.all(), want);
    assert_eq!(open(again.killed(killed.path()).path(), |_| {}).all(), want);
}

#[test]
fn a_gap_of_half_a_century_is_not_walked_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |o| o.out_of_order_window_ms = i64::MAX);
    let now = 1_700_000_000_000;
    store.append("a", 1, 1.0).unwrap();
    store.append("a", now, 2.0).unwrap();
    store.append("b", now + 4 * RANGE, 3.0).unwrap();
    assert!(store.db.compact().unwrap() < 10);
    let times = |s: &str| store.all()[s].keys().copied().collect::<Vec<_>>();
    assert_eq!((times("a"), times("b")), (vec![1, now], vec![now + 4 * RANGE]));
    // Samples of any age, one by one.
    store.append("a", now / 2, 4.0).unwrap();
    store.append("a", 5, 5.0).unwrap();
    store.append("b", now + 8 * RANGE, 3.0).unwrap();
    assert!(store.db.compact().unwrap() < 20);
    assert_eq!(times("a"), vec![1, 5, now / 2, now]);
}

/// Staleness markers equal nothing, but their bits do.
fn bits(samples: &Samples) -> BTreeMap<&String, Vec<(i64, u64)>> {
    samples.iter().map(|(name, s)| (name, s.iter().map(|(t, v)| (*t, v.to_bits())).collect())).collect()
}

/// A series that ends with a staleness marker.
fn ends(store: &Store, series: &str, from: i64, to: i64) {
    for t in (from..to).step_by(500) {
        store.append(series, t, t as f64).unwrap();
    }
    store.append(series, to, crate::model::stale_nan()).unwrap();
}

#[test]
fn ended_series_leave_memory_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), |_| {});
    for i in 0..20 {
        ends(&store, &format!("old{i:02}"), 0, 2_000);
    }
    ends(&store, "back", 0, 2_000);
    store.fill(0, 6_000);
    store.append("back", 5_900, 7.0).unwrap();
    let want = store.all();
    assert_eq!(store.db.head_stats().num_series, 23);
    assert!(store.db.compact().unwrap() >= 1);
    assert_eq!(store.db.head_stats().num_series, 3, "what lives, and what came back");
    assert_eq!(store.db.blocks()[0].compaction.hints, ["from-stale-series"]);
    assert_eq!(bits(&store.all()), bits(&want));
    // Killed here, and started again: still not in memory.
    let next = store.killed(dir.path());
    drop(store);
    store = open(next.path(), |_| {});
    assert_eq!(store.db.head_stats().num_series, 3);
    assert_eq!(bits(&store.all()), bits(&want));
    // It may live again, and the end of its range brings everything together in one block.
    store.append("old03", 5_950, 8.0).unwrap();
    let mut want = store.all();
    for (name, samples) in store.fill(6_000, 40_000) {
        want.entry(name).or_default().extend(samples);
    }
    assert_eq!(want["old03"].len(), 6);
    store.db.compact().unwrap();
    assert_eq!(bits(&store.all()), bits(&want));
    assert!(store.db.blocks().iter().all(|b| b.max_time <= 30_000 && b.min_time % RANGE == 0));
    let first: Vec<_> = store.db.blocks().iter().filter(|b| b.min_time < RANGE).cloned().collect();
    assert_eq!(first.len(), 1, "{first:?}");
}

#[test]
fn many_late_samples_leave_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |o| o.out_of_order_window_ms = 1_000_000_000);
    let policy = LeavePolicy { stale_after_ms: 1, idle_after_ms: 1, share: 1.0, most_late: 10 };
    let mut want = store.fill(500_000, 501_000);
    for t in (0..40_000).step_by(700) {
        store.append("a", t, 0.5).unwrap();
        want.get_mut("a").unwrap().insert(t, 0.5);
    }
    let leaving = store.db.head().late_samples(&policy).unwrap().unwrap();
    // One that comes while the block is written stays.
    store.append("a", 41, 4.1).unwrap();
    want.get_mut("a").unwrap().insert(41, 4.1);
    assert_eq!(leaving.ranges().count(), 4);
    let stored = store.db.stored.as_ref().unwrap();
    let samples = stored.write_parts(&leaving, 0, &|| false).unwrap();
    assert_eq!(samples, 58);
    assert_eq!(store.all(), want, "in both places");
    store.db.head().let_go(&leaving, &|| false).unwrap();
    assert_eq!(store.all(), want);
    assert!(store.db.head().late_samples(&policy).unwrap().is_none());
}

#[test]
fn series_are_taken_again_when_memory_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let used = Arc::new(AtomicU64::new(10));
    let probe = Arc::clone(&used);
    let probe = Box::new(move || Some(probe.load(Ordering::Relaxed)));
    let memory = MemoryBudget::with_probe(100, Duration::ZERO, probe);
    let store = open(dir.path(), |o| o.memory = memory);
    store.append("a", 1, 1.0).unwrap();
    used.store(95, Ordering::Relaxed);
    store.append("a", 2, 2.0).unwrap();
    let refused = store.append("b", 2, 2.0).unwrap_err();
    assert!(matches!(&refused, AppendError::SeriesLimit(text) if text.contains("--storage.memory-limit")));
    used.store(50, Ordering::Relaxed);
    store.append("b", 3, 3.0).unwrap();
    assert_eq!(store.db.head().limits.refused().0, 1);
}

#[test]
fn deletions_reach_blocks_and_head() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let mut want = store.fill(0, 45_000);
    store.db.compact().unwrap();
    store.db.delete_series(&[Matcher::equal("s", "a")], 3_000, 44_000).unwrap();
    want.get_mut("a").unwrap().retain(|t, _| !(3_000..=44_000).contains(t));
    assert_eq!(store.all(), want);
    let killed = store.killed(dir.path());
    let again = open(killed.path(), |_| {});
    assert_eq!(again.all(), want);
    assert!(store.db.clean_tombstones().unwrap() > 0);
    assert_eq!(store.db.clean_tombstones().unwrap(), 0);
    assert_eq!(store.all(), want);
    // A deletion of nothing marks no block.
    store.db.delete_series(&[Matcher::equal("s", "none")], 0, i64::MAX).unwrap();
    assert_eq!(store.db.clean_tombstones().unwrap(), 0);
}

#[test]
fn a_block_of_which_much_was_deleted_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    store.fill(0, 45_000);
    store.db.compact().unwrap();
    let count = |store: &Store| store.db.blocks().iter().map(|b| b.stats.num_samples).sum::<u64>();
    let (before, want) = (count(&store), store.all());
    // A tenth of a second of one of two series is too little.
    store.db.delete_series(&[Matcher::equal("s", "a")], 1_000, 1_099).unwrap();
    assert_eq!(store.db.compact().unwrap(), 0);
    assert_eq!(count(&store), before);
    store.db.delete_series(&[Matcher::equal("s", "a")], 0, 29_999).unwrap();
    assert!(store.db.compact().unwrap() > 0);
    assert_eq!(count(&store), before - 60);
    assert_eq!(store.all()["b"], want["b"]);
    assert_eq!(store.db.compact().unwrap(), 0, "once is enough");
}

#[test]
fn retention_drops_old_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let want = store.fill(0, 95_000);
    store.db.set_retention(30_000, 0);
    store.db.compact().unwrap();
    let kept = store.all();
    assert!(kept["a"].keys().next().unwrap() >= &50_000, "{:?}", store.db.blocks());
    assert_eq!(kept["a"], want["a"].clone().split_off(kept["a"].keys().next().unwrap()));
    assert_eq!(store.metric("prometheus_tsdb_retention_limit_seconds"), 30.0);
    assert!(store.metric("prometheus_tsdb_time_retentions_total") >= 1.0);
    store.db.set_retention(0, 1);
    store.db.compact().unwrap();
    assert_eq!(store.db.blocks(), []);
    assert!(store.metric("prometheus_tsdb_size_retentions_total") >= 1.0);
    assert_eq!(store.all()["a"].keys().next(), Some(&80_000));
}

#[test]
fn snapshots_open_as_storage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let want = store.fill(0, 45_000);
    store.db.compact().unwrap();
    let name = store.db.snapshot(true).unwrap();
    assert!(name.starts_with("19700101T000000Z-"), "{name}");
    let without_head = store.db.snapshot(false).unwrap();
    let later = store.fill(45_000, 46_000);
    let snapshots = dir.path().join("snapshots");
    let copy = open(&snapshots.join(&name), |_| {});
    assert_eq!(copy.all(), want);
    let blocks_only = open(&snapshots.join(&without_head), |_| {});
    assert_eq!(blocks_only.all()["a"].keys().last(), Some(&29_500));
    // Nothing counts as safe because it was copied.
    assert_eq!(store.all()["a"].len(), want["a"].len() + later["a"].len());
}

#[test]
fn prometheus_blocks_are_served_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut columns = SeriesColumns::default();
    (0..20).for_each(|i| columns.push_float(i * 500, 0, i as f64));
    let meta = BlockMeta::new(crate::tsdb::block::new_ulid(1), 0, RANGE);
    let mut source = [(labels("a"), columns)].into_iter();
    write_prometheus_block(dir.path(), meta, &mut source, &|| false).unwrap().unwrap();
    let store = open(dir.path(), |_| {});
    assert_eq!(store.all()["a"].len(), 20);
    let added = store.fill(RANGE, RANGE * 4);
    store.db.compact().unwrap();
    assert_eq!(store.all()["a"].len(), 20 + added["a"].len());
}

#[test]
fn a_closed_storage_compacts_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), |_| {});
    let want = store.fill(0, 45_000);
    store.db.close().unwrap();
    assert_eq!(store.db.compact().unwrap(), 0);
    assert_eq!(open(dir.path(), |_| {}).all(), want);
}

#[derive(Debug, Clone)]
enum Action {
    Append(u8, i64),
    Late(u8, i64),
    Compact,
    Kill,
    Restart,
    Delete(u8, i64, i64),
    Clean,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        24 => (0u8..3, 0i64..2_500).prop_map(|(s, dt)| Action::Append(s, dt)),
        6 => (0u8..3, 0i64..40_000).prop_map(|(s, back)| Action::Late(s, back)),
        3 => Just(Action::Compact),
        1 => Just(Action::Kill),
        1 => Just(Action::Restart),
        1 => (0u8..3, 0i64..60_000, 0i64..30_000).prop_map(|(s, from, len)| Action::Delete(s, from, len)),
        1 => Just(Action::Clean),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(actions in prop::collection::vec(action(), 60..160)) {
        let mut dir = tempfile::tempdir().unwrap();
        let window = |o: &mut DbOptions| o.out_of_order_window_ms = 40_000;
        let mut store = open(dir.path(), window);
        let mut want = Samples::new();
        let mut deleted: Vec<(String, i64, i64)> = Vec::new();
        let mut now = 0;
        for (i, action) in actions.iter().enumerate() {
            match action {
                Action::Append(s, _) | Action::Late(s, _) => {
                    let t = if let Action::Append(_, dt) = action { now + dt } else { now - action_back(action) };
                    let name = s.to_string();
                    let known = want.get(&name).is_some_and(|m| m.contains_key(&t));
                    // What was deleted stays hidden in the head; a sample of a known time may count as a duplicate.
                    let dead = deleted.iter().any(|(n, a, b)| *n == name && (*a..=*b).contains(&t));
                    if t >= 0 && !known && !dead && store.append(&name, t, i as f64).is_ok() {
                        now = now.max(t);
                        want.entry(name).or_default().insert(t, i as f64);
                    }
                }
                Action::Compact => {
                    store.db.compact().unwrap();
                }
                Action::Clean => {
                    store.db.clean_tombstones().unwrap();
                }
                Action::Delete(s, from, len) => {
                    let name = s.to_string();
                    store.db.delete_series(&[Matcher::equal("s", &name)], *from, from + len).unwrap();
                    if let Some(samples) = want.get_mut(&name) {
                        samples.retain(|t, _| !(*from..=from + len).contains(t));
                    }
                    deleted.push((name, *from, from + len));
                }
                Action::Kill => {
                    let next = store.killed(dir.path());
                    drop(store);
                    store = open(next.path(), window);
                    dir = next;
                }
                Action::Restart => {
                    store.db.close().unwrap();
                    drop(store);
                    store = open(dir.path(), window);
                }
            }
            if !matches!(action, Action::Append(..) | Action::Late(..)) {
                want.retain(|_, samples| !samples.is_empty());
                prop_assert_eq!(store.all(), want.clone(), "after {:?} at {}", action, i);
            }
        }
        let part: Samples = want
            .iter()
            .map(|(n, s)| (n.clone(), s.range(now / 3..=now / 2).map(|(t, v)| (*t, *v)).collect::<BTreeMap<_, _>>()))
            .filter(|(_, s)| !s.is_empty())
            .collect();
        prop_assert_eq!(store.read(now / 3, now / 2), part);
    }
}

fn action_back(action: &Action) -> i64 {
    if let Action::Late(_, back) = action { *back } else { 0 }
}
