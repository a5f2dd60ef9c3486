//! Kept answers are exact: under random writes, late writes, deletions and compaction a range query answers with the
//! cache what it answers without it.

use std::sync::Arc;
use std::time::Duration;

use meerkat::model::clock::ManualClock;
use meerkat::model::{Labels, Matcher, stale_nan};
use meerkat::query::{Engine, EngineOptions, QueryOptions};
use meerkat::telemetry::Registry;
use meerkat::tsdb::memory::MemoryStorage;
use meerkat::tsdb::vfs::RealVfs;
use meerkat::tsdb::{Appendable, BatchOptions, Db, DbOptions, Queryable, SeriesRef};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;

/// What happens to the storage, times in seconds.
#[derive(Debug, Clone)]
enum Deed {
    /// One scrape of some series at the newest time plus this.
    Scrape(i64, Vec<(u8, i32)>),
    /// A sample this much older than the newest.
    Late(u8, i64, i32),
    /// Deletes a series in a range that begins this long before the newest time.
    Delete(u8, i64, i64),
    /// What the background does once a minute.
    Compact,
    /// A query: which, first step before the newest time, number of steps, step.
    Ask(usize, i64, i64, i64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        6 => (1i64..90, prop::collection::vec((0u8..4, -5i32..100), 1..4)).prop_map(|(t, s)| Deed::Scrape(t, s)),
        2 => (0u8..4, 1i64..900, -5i32..100).prop_map(|(s, t, v)| Deed::Late(s, t, v)),
        1 => (0u8..4, 0i64..1500, 0i64..600).prop_map(|(s, t, len)| Deed::Delete(s, t, len)),
        1 => Just(Deed::Compact),
        8 => (0..QUERIES.len(), 0i64..1500, 2i64..60, prop::sample::select(&[15i64, 30, 60][..]))
            .prop_map(|(q, start, n, step)| Deed::Ask(q, start, n, step)),
    ];
    prop::collection::vec(deed, 10..60)
}

const QUERIES: [&str; 14] = [
    "m_total",
    "sum(rate(m_total[2m]))",
    "sum by (s) (increase(m_total[5m] offset 1m))",
    "max_over_time(m_total[10m])",
    "avg_over_time(m_total[30m])",
    "sum_over_time(m_total[45m])",
    "topk(1, m_total)",
    "m_total{s=\"1\"} / on () group_right m_total",
    "m_total{s=\"0\"} or m_total{s=\"1\"} offset -1m",
    "max_over_time(sum(m_total)[7m:30s])",
    "absent(m_total{s=\"3\"})",
    "stddev_over_time(m_total[6m]) + time()",
    "count_values(\"v\", m_total > 90)",
    "last_over_time(m_total[1m]) and m_total @ end()",
];

/// A storage that can do what [`Deed`] asks for.
trait Doing: Queryable + Appendable {
    fn delete(&self, _matcher: Matcher, _from_ms: i64, _to_ms: i64) {}
    fn compact(&self) {}
}

impl Doing for MemoryStorage {}

impl Doing for Db {
    fn delete(&self, matcher: Matcher, from_ms: i64, to_ms: i64) {
        self.delete_series(&[matcher], from_ms, to_ms).expect("the disk works");
    }

    fn compact(&self) {
        Db::compact(self).expect("the disk works");
    }
}

fn write(storage: &dyn Doing, t_ms: i64, samples: &[(u8, i32)]) {
    let mut batch = storage.appender(BatchOptions::default());
    for (s, v) in samples {
        let labels = || Labels::from_pairs([("__name__", "m_total"), ("s", &s.to_string())]);
        let value = if *v < 0 { stale_nan() } else { f64::from(*v) / 7.0 };
        // Duplicates and samples that are too old are refused; that is no change.
        let _ = batch.append(SeriesRef::NONE, &labels, 0, t_ms, value);
    }
    batch.commit().expect("the disk works");
}

/// Does everything and compares all answers; tells how many steps were known.
fn play(storage: &dyn Doing, deeds: &[Deed]) -> Result<f64, TestCaseError> {
    let registry = Registry::new();
    let options = EngineOptions { result_cache_bytes: 1 << 20, ..EngineOptions::default() };
    let engine = Engine::new(options, &registry);
    let plain = QueryOptions { no_cache: true, ..QueryOptions::default() };
    let kept = QueryOptions::default();
    let mut newest = 100 * MINUTE;
    for deed in deeds {
        match deed {
            Deed::Scrape(later, samples) => {
                newest += later * 1000;
                write(storage, newest, samples);
            }
            Deed::Late(s, ago, v) => write(storage, newest - ago * 1000, &[(*s, *v)]),
            Deed::Delete(s, ago, len) => {
                let from = newest - ago * 1000;
                storage.delete(Matcher::equal("s", &s.to_string()), from, from + len * 1000);
            }
            Deed::Compact => storage.compact(),
            Deed::Ask(query, ago, n, step) => {
                // On the grid, as dashboards ask.
                let step = step * 1000;
                let start = (newest - ago * 1000).div_euclid(step) * step;
                let end = start + (n - 1) * step;
                let ask = |options| {
                    engine
                        .range(storage, QUERIES[*query], start, end, step, options)
                        .map_err(|e| e.to_string())
                };
                let got = ask(&kept);
                let want = ask(&plain);
                match (got, want) {
                    (Ok(got), Ok(want)) => {
                        prop_assert_eq!(
                            format!("{:?}", got.value),
                            format!("{:?}", want.value),
                            "{} from {} to {} by {}",
                            QUERIES[*query],
                            start,
                            end,
                            step
                        );
                        prop_assert_eq!(got.annotations, want.annotations);
                    }
                    (got, want) => prop_assert_eq!(got.is_err(), want.is_err()),
                }
            }
        }
    }
    let text = registry.render_text();
    let line = text.lines().find_map(|l| l.strip_prefix("meerkat_query_result_cache_hit_steps_total "));
    Ok(line.and_then(|v| v.parse().ok()).unwrap_or(0.0))
}

fn disk(dir: &std::path::Path) -> Arc<Db> {
    let options = DbOptions {
        path: dir.to_owned(),
        wal_sync_interval: Duration::ZERO,
        block_range_ms: 10 * MINUTE,
        out_of_order_window_ms: 10 * MINUTE,
        retention_ms: 0,
        ..DbOptions::default()
    };
    Db::open(options, Arc::new(RealVfs), ManualClock::at(100 * MINUTE), &Registry::new()).expect("it opens")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_changes_no_answer_in_memory(deeds in deeds()) {
        play(&*MemoryStorage::new(), &deeds)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_changes_no_answer_on_disk(deeds in deeds()) {
        let dir = tempfile::tempdir().expect("a folder");
        let db = disk(dir.path());
        play(&*db, &deeds)?;
    }
}

#[test]
fn a_moving_window_computes_only_its_new_steps() {
    let storage = MemoryStorage::new();
    let mut deeds = Vec::new();
    for _ in 0..200 {
        deeds.push(Deed::Scrape(15, vec![(0, 5), (1, 6)]));
    }
    for _ in 0..5 {
        deeds.push(Deed::Scrape(15, vec![(0, 5), (1, 6)]));
        deeds.push(Deed::Ask(1, 1500, 100, 15));
    }
    let known = play(&*storage, &deeds).expect("all answers agree");
    // Of the four repetitions all but a few of the hundred steps are known: those whose window or bucket of time is new.
    assert!(known > 4.0 * 85.0, "{known}");
    let off = Engine::new(EngineOptions::default(), &Registry::new());
    assert_eq!(off.options().result_cache_bytes, 0);
}
