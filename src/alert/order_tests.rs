//! Is a group evaluated in stages, and by several threads, the same as its rules one after the other? Random groups
//! over the real query engine are compared, sample by sample and alert by alert.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::query::{Engine, EngineOptions};
use crate::telemetry::Registry;
use crate::tsdb::memory::MemoryStorage;
use crate::tsdb::{Appendable, BatchOptions, Queryable, SelectHints, SeriesRef};

const NAMES: [&str; 5] = ["a", "b", "c", "ab", "ALERTS"];
const STEP_MS: i64 = 60_000;

/// One rule: whether it alerts, the name it writes, its expression, its annotation.
type Draft = (bool, usize, String, bool);

fn expressions() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "ab", "x"]);
    let two = (name.clone(), name.clone());
    prop_oneof![
        name.clone().prop_map(|n| n.to_owned()),
        two.prop_map(|(n, m)| format!("sum({n}) + sum({m})")),
        name.clone().prop_map(|n| format!("count_over_time({n}[5m]) > 1")),
        name.clone().prop_map(|n| format!("max_over_time(sum({n})[5m:1m])")),
        name.clone().prop_map(|n| format!("{{__name__=~\"{n}.*\"}} * 2")),
        name.prop_map(|n| format!("ALERTS{{alertname=\"{n}\"}}")),
        Just("count(ALERTS_FOR_STATE)".to_owned()),
        Just("count({l=~\".+\"})".to_owned()),
        Just("nonsense(".to_owned()),
    ]
}

fn group(drafts: &[Draft]) -> Group {
    let rules = drafts.iter().map(|(alerts, name, expr, asks)| {
        let name = NAMES[*name].to_owned();
        let kind = if *alerts {
            let annotation = if *asks { "{{ query \"sum(a)\" | first | value }}" } else { "{{ $value }}" };
            let spec = AlertingSpec {
                name,
                expr: expr.clone(),
                hold_ms: STEP_MS,
                keep_firing_ms: 0,
                labels: BTreeMap::new(),
                annotations: BTreeMap::from([("a".to_owned(), annotation.to_owned())]),
            };
            RuleKind::Alerting(AlertingRule::new(spec, true))
        } else {
            RuleKind::Recording(Arc::new(RecordingSpec { name, expr: expr.clone(), labels: BTreeMap::new() }))
        };
        Rule::new(kind)
    });
    let spec =
        GroupSpec { name: "g".into(), file: "f".into(), interval_ms: STEP_MS, limit: 0, query_offset_ms: 0 };
    Group::new(spec, rules.collect())
}

/// Everything that a run leaves behind, as text.
fn run(mut group: Group, concurrency: Option<Arc<EvalPermits>>) -> Vec<String> {
    let registry = Registry::new();
    let storage = MemoryStorage::new();
    let engine = Arc::new(Engine::new(EngineOptions::default(), &registry));
    let context = GroupContext {
        evaluator: Arc::new(EngineEvaluator::new(engine, Arc::clone(&storage) as Arc<dyn Queryable>)),
        storage: Arc::clone(&storage) as Arc<dyn Appendable>,
        notifier: Arc::new(NoNotifier),
        external: ExternalContext::default(),
        resend_delay_ms: 60_000,
        template_failures: registry.counter("failures_total", "", &[]),
        concurrency,
    };
    let mut trace = Vec::new();
    for step in 1..=4 {
        let t_ms = step * STEP_MS;
        let mut batch = storage.appender(BatchOptions::default());
        for series in ["1", "2"] {
            // One series comes and goes, so that staleness markers matter.
            if series == "1" || step != 3 {
                let labels = || Labels::from_pairs([("__name__", "x"), ("l", series)]);
                batch.append(SeriesRef::NONE, &labels, 0, t_ms, step as f64).expect("memory takes it");
            }
        }
        batch.commit().expect("memory takes it");
        group.eval(t_ms, &context);
        for rule in &group.rules {
            let alerts = match &rule.kind {
                RuleKind::Alerting(alerting) => {
                    let each = alerting.active.values();
                    each.map(|a| format!("{} {:?} {:?} {:?}", a.labels, a.state, a.annotations, a.value))
                        .collect()
                }
                RuleKind::Recording(_) => Vec::new(),
            };
            trace.push(format!(
                "{t_ms} {} {:?} {:?} {alerts:?}",
                rule.name(),
                rule.last_error,
                rule.last_samples
            ));
        }
    }
    let querier = storage.querier(i64::MIN, i64::MAX).expect("memory opens");
    let all = [Matcher::new("__name__", crate::model::MatchOp::Regex, ".+").expect("a pattern")];
    let set = querier.select(&SelectHints::default(), &all).expect("memory selects");
    let mut buffer = SampleBuffer::default();
    for i in 0..set.len() {
        set.samples(i, i64::MIN, i64::MAX, &mut buffer).expect("memory reads");
        let bits: Vec<u64> = buffer.values.iter().map(|v| v.to_bits()).collect();
        trace.push(format!("{} {:?} {bits:?}", set.labels(i), buffer.timestamps));
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn stages_and_threads_change_nothing(
        drafts in prop::collection::vec((any::<bool>(), 0..NAMES.len(), expressions(), prop::bool::weighted(0.2)), 1..10)
    ) {
        let plain = run(group(&drafts).strictly_sequential(), None);
        prop_assert_eq!(&run(group(&drafts), None), &plain);
        prop_assert_eq!(&run(group(&drafts), Some(Arc::new(EvalPermits::new(3)))), &plain);
    }
}
