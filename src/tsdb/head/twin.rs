//! The head against its naive twin: random batches, restarts and truncations, the same answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::chunk::histogram::tests::any_histogram;
use super::super::memory::MemoryStorage;
use super::super::vfs::{CrashVfs, Vfs};
use super::super::{
    Appendable, BatchOptions, Db, DbOptions, LabelQueryHints, Querier, Queryable, SelectHints, SeriesRef,
};
use super::series::validate;
use crate::model::clock::ManualClock;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, MatchOp, Matcher, SampleBuffer};
use crate::telemetry::Registry;

#[derive(Debug, Clone)]
enum Step {
    /// Series, distance in time, value.
    Batch(Vec<(u8, i64, Option<HistogramValue>, f64)>),
    Restart,
    Close,
    Checkpoint,
}

fn labels(series: u8) -> Labels {
    let env = ["dev", "prod", ""][usize::from(series) % 3];
    Labels::from_pairs([("__name__", "m"), ("env", env), ("i", &series.to_string())])
}

fn open(vfs: &Arc<CrashVfs>) -> Arc<Db> {
    let options = DbOptions {
        path: PathBuf::from("/data"),
        wal_sync_interval: Duration::ZERO,
        wal_segment_bytes: 4000,
        out_of_order_window_ms: 1 << 40,
        ..DbOptions::default()
    };
    Db::open(options, Arc::clone(vfs) as Arc<dyn Vfs>, ManualClock::at(0), &Registry::new()).unwrap()
}

fn append(db: &dyn Appendable, t: i64, items: &[(u8, i64, Option<HistogramValue>, f64)]) -> Vec<bool> {
    let mut appender = db.appender(BatchOptions { source: 3, ..BatchOptions::default() });
    let mut results = Vec::new();
    for (series, dt, histogram, value) in items {
        let names = || labels(*series);
        let result = match histogram.as_ref().filter(|h| validate(h).is_ok() && series % 4 == 1) {
            Some(h) => appender.append_histogram(SeriesRef::NONE, &names, 0, t + dt, h.clone()),
            None => appender.append(SeriesRef::NONE, &names, 0, t + dt, *value),
        };
        results.push(result.is_ok());
    }
    appender.commit().unwrap();
    results
}

fn bits(buffer: &SampleBuffer) -> Vec<(i64, String)> {
    let floats =
        buffer.timestamps.iter().zip(&buffer.values).map(|(t, v)| (*t, format!("{:x}", v.to_bits())));
    let histograms = buffer.histograms.iter().map(|(t, h)| (*t, format!("{h:?}")));
    floats.chain(histograms).collect()
}

fn same(
    a: &dyn Querier,
    b: &dyn Querier,
    matchers: &[Matcher],
    range: (i64, i64),
) -> Result<(), TestCaseError> {
    let (a_set, b_set) = (
        a.select(&SelectHints::default(), matchers).unwrap(),
        b.select(&SelectHints::default(), matchers).unwrap(),
    );
    let all = |set: &dyn super::super::SeriesSet| {
        let mut out = SampleBuffer::default();
        let mut all = Vec::new();
        for i in 0..set.len() {
            set.samples(i, range.0, range.1, &mut out).unwrap();
            if !out.is_empty() {
                all.push((set.labels(i), bits(&out)));
            }
        }
        all
    };
    let wanted = all(&*b_set);
    prop_assert_eq!(all(&*a_set), wanted.clone());
    // What rules ask is remembered, and the newest samples are at hand.
    let again = a.select(&SelectHints { repeats: true, ..SelectHints::default() }, matchers).unwrap();
    prop_assert_eq!(all(&*again), wanted);
    for set in [a_set, again] {
        let mut out = SampleBuffer::default();
        for i in 0..set.len() {
            let Some((t, v)) = set.latest(i, range.1) else { continue };
            set.samples(i, i64::MIN, range.1, &mut out).unwrap();
            prop_assert_eq!(bits(&out).iter().map(|(t, _)| *t).max(), Some(t));
            prop_assert_eq!(out.values.last().map(|v| v.to_bits()), Some(v.to_bits()));
        }
    }
    Ok(())
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        (0u8..4).prop_map(f64::from),
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("twin keeps floats floats", |v| !crate::model::is_stale_nan(*v)),
    ];
    let item = (
        0u8..9,
        prop_oneof![4 => Just(0i64), 1 => -40_000i64..40_000],
        prop::option::of(any_histogram()),
        value,
    );
    prop_oneof![
        20 => prop::collection::vec(item, 1..12).prop_map(Step::Batch),
        1 => Just(Step::Restart),
        1 => Just(Step::Close),
        1 => Just(Step::Checkpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn answers_like_the_naive_twin(
        steps in prop::collection::vec(step(), 1..120),
        range in (0i64..2_000_000, 0i64..2_000_000),
        stride in 1i64..20_000,
    ) {
        let mut vfs = CrashVfs::new();
        let mut db = open(&vfs);
        let twin = MemoryStorage::new();
        let mut t = 1_000_000;
        for step in &steps {
            match step {
                Step::Batch(items) => {
                    t += stride;
                    let all = (i64::MIN, i64::MAX);
                    let views = || (db.querier(all.0, all.1).unwrap(), twin.querier(all.0, all.1).unwrap());
                    let before = views();
                    prop_assert_eq!(append(&*db, t, items), append(&*twin, t, items));
                    for (ours, theirs) in [before, views()] {
                        same(&*ours, &*theirs, &[Matcher::equal("env", "prod")], all)?;
                    }
                }
                Step::Checkpoint => db.checkpoint().unwrap(),
                Step::Close => {
                    db.close().unwrap();
                    db = open(&vfs);
                }
                Step::Restart => {
                    vfs = vfs.kill();
                    db = open(&vfs);
                    prop_assert_eq!(db.recovery().damaged + db.recovery().unusable, 0);
                }
            }
        }
        let all = (i64::MIN, i64::MAX);
        let part = (t - range.0.max(range.1), t - range.0.min(range.1));
        for range in [all, part] {
            let (ours, theirs) = (db.querier(range.0, range.1).unwrap(), twin.querier(range.0, range.1).unwrap());
            let prod = Matcher::equal("env", "prod");
            let not = Matcher::new("env", MatchOp::NotRegex, "d.*").unwrap();
            let none = Matcher::equal("env", "");
            for matchers in [vec![], vec![prod], vec![not], vec![none]] {
                same(&*ours, &*theirs, &matchers, range)?;
                let hints = LabelQueryHints::default();
                if range == all {
                    prop_assert_eq!(ours.label_names(&matchers, &hints).unwrap(), theirs.label_names(&matchers, &hints).unwrap());
                    for label in ["i", "env"] {
                        let values = theirs.label_values(label, &matchers, &hints).unwrap();
                        let first = ours.label_values(label, &matchers, &LabelQueryHints { limit: 1 }).unwrap();
                        prop_assert_eq!(&first[..], &values[..values.len().min(1)]);
                        prop_assert_eq!(ours.label_values(label, &matchers, &hints).unwrap(), values);
                    }
                }
            }
        }
    }
}
