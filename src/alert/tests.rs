//! Groups over a storage in memory, with an evaluator that answers from a script.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::model::{Labels, Matcher, SampleBuffer, is_stale_nan};
use crate::query::VectorSample;
use crate::query::value::PointValue;
use crate::telemetry::Registry;
use crate::tsdb::memory::MemoryStorage;
use crate::tsdb::{Queryable, SelectHints};

type Answers = HashMap<String, Result<Vec<(Labels, f64)>, String>>;

#[derive(Default)]
struct Scripted {
    answers: Mutex<Answers>,
    stored: Mutex<Vec<(Labels, i64, f64)>>,
    asked: Mutex<Vec<(String, i64)>>,
}

impl Scripted {
    fn answer(&self, query: &str, samples: &[(&[(&str, &str)], f64)]) {
        let samples =
            samples.iter().map(|(l, v)| (Labels::from_pairs(l.iter().copied()), *v)).collect::<Vec<_>>();
        self.answers.lock().insert(query.into(), Ok(samples));
    }
}

impl Evaluator for Scripted {
    fn eval(&self, query: &str, t_ms: i64) -> Result<Vec<VectorSample>, String> {
        self.asked.lock().push((query.into(), t_ms));
        let answer = self.answers.lock().get(query).cloned().unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(answer
            .into_iter()
            .map(|(labels, v)| VectorSample { labels, t_ms, value: PointValue::Float(v) })
            .collect())
    }

    fn last_samples(&self, _: &[Matcher], min: i64, max: i64) -> Result<Vec<(Labels, i64, f64)>, String> {
        Ok(self.stored.lock().iter().filter(|(_, t, _)| (min..=max).contains(t)).cloned().collect())
    }
}

#[derive(Default)]
struct Collected(Mutex<Vec<Notification>>);

impl Notifier for Collected {
    fn send(&self, notifications: Vec<Notification>) {
        self.0.lock().extend(notifications);
    }
}

struct House {
    evaluator: Arc<Scripted>,
    storage: Arc<MemoryStorage>,
    notified: Arc<Collected>,
    context: GroupContext,
}

fn house() -> House {
    let (evaluator, storage, notified) =
        (Arc::new(Scripted::default()), MemoryStorage::new(), Arc::new(Collected::default()));
    let context = GroupContext {
        evaluator: Arc::clone(&evaluator) as Arc<dyn Evaluator>,
        storage: Arc::clone(&storage) as Arc<dyn crate::tsdb::Appendable>,
        notifier: Arc::clone(&notified) as Arc<dyn Notifier>,
        external: ExternalContext { labels: Labels::empty(), url: "http://m:9090".into() },
        resend_delay_ms: 60_000,
        template_failures: Registry::new().counter("failures_total", "", &[]),
        concurrency: None,
    };
    House { evaluator, storage, notified, context }
}

impl House {
    /// All samples of a metric: labels without the name, time, value; a staleness marker is `None`.
    fn stored(&self, metric: &str) -> Vec<(String, i64, Option<f64>)> {
        let querier = self.storage.querier(i64::MIN, i64::MAX).expect("memory storage opens");
        let matchers = [Matcher::equal("__name__", metric)];
        let set = querier.select(&SelectHints::default(), &matchers).expect("memory storage selects");
        let mut out = Vec::new();
        let mut buffer = SampleBuffer::default();
        for i in 0..set.len() {
            set.samples(i, i64::MIN, i64::MAX, &mut buffer).expect("memory storage reads");
            for (t, v) in buffer.timestamps.iter().zip(&buffer.values) {
                out.push((set.labels(i).without_name().to_string(), *t, (!is_stale_nan(*v)).then_some(*v)));
            }
        }
        out
    }
}

fn recording(name: &str, expr: &str) -> Rule {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let spec = RecordingSpec { name: name.into(), expr: expr.into(), labels };
    Rule::new(RuleKind::Recording(Arc::new(spec)))
}

fn alerting(hold_ms: i64, keep_firing_ms: i64) -> Rule {
    let spec = AlertingSpec {
        name: "Down".into(),
        expr: "up == 0".into(),
        hold_ms,
        keep_firing_ms,
        labels: BTreeMap::from([("severity".to_owned(), "page {{ $labels.instance }}".to_owned())]),
        annotations: BTreeMap::from([("summary".to_owned(), "{{ $value }}".to_owned())]),
    };
    Rule::new(RuleKind::Alerting(AlertingRule::new(spec, true)))
}

fn group(rules: Vec<Rule>) -> Group {
    let spec = GroupSpec {
        name: "g".into(),
        file: "f.yml".into(),
        interval_ms: 60_000,
        limit: 0,
        query_offset_ms: 0,
    };
    Group::new(spec, rules)
}

fn only_alert(group: &Group) -> &Alert {
    let RuleKind::Alerting(rule) = &group.rules[0].kind else { panic!("an alerting rule") };
    rule.active.values().next().expect("an alert")
}

#[test]
fn recording_rules_store_and_end_series() {
    let house = house();
    let mut group = group(vec![recording("job:up", "sum by (job) (up)")]);
    house.evaluator.answer("sum by (job) (up)", &[(&[("job", "x")], 1.0), (&[("job", "y")], 2.0)]);
    assert_eq!(group.eval(60_000, &house.context).samples, 2);
    house.evaluator.answer("sum by (job) (up)", &[(&[("job", "y")], 3.0)]);
    group.eval(120_000, &house.context);
    assert_eq!(
        house.stored("job:up"),
        [
            ("{job=\"x\", team=\"a\"}".to_owned(), 60_000, Some(1.0)),
            ("{job=\"x\", team=\"a\"}".to_owned(), 120_000, None),
            ("{job=\"y\", team=\"a\"}".to_owned(), 60_000, Some(2.0)),
            ("{job=\"y\", team=\"a\"}".to_owned(), 120_000, Some(3.0)),
        ]
    );
}

#[test]
fn a_failing_rule_stops_no_other_and_ends_nothing() {
    let house = house();
    let mut group = group(vec![recording("bad", "bad"), recording("good", "good")]);
    house.evaluator.answer("bad", &[(&[("a", "1")], 1.0)]);
    house.evaluator.answer("good", &[(&[("a", "1")], 1.0)]);
    group.eval(60_000, &house.context);
    house.evaluator.answers.lock().insert("bad".into(), Err("broken".into()));
    let outcome = group.eval(120_000, &house.context);
    assert_eq!((outcome.failures, outcome.samples), (1, 1));
    assert_eq!(group.rules[0].last_error.as_deref(), Some("broken"));
    assert_eq!(group.rules[0].health, RuleHealth::Bad);
    assert_eq!(house.stored("bad").len(), 1, "no staleness marker after an error");
    assert_eq!(house.stored("good").len(), 2);
}

#[test]
fn equal_label_sets_and_limits_are_errors() {
    let house = house();
    let mut group = group(vec![recording("r", "q")]);
    house.evaluator.answer("q", &[(&[("team", "x")], 1.0), (&[("team", "y")], 2.0)]);
    group.eval(60_000, &house.context);
    let error = group.rules[0].last_error.clone().expect("the rule overrides the label that told them apart");
    assert_eq!(error, "vector contains metrics with the same labelset after applying rule labels");
    group.spec.limit = 1;
    house.evaluator.answer("q", &[(&[("a", "x")], 1.0), (&[("a", "y")], 2.0)]);
    group.eval(120_000, &house.context);
    assert_eq!(group.rules[0].last_error.as_deref(), Some("exceeded limit of 1 with 2 series"));
}

#[test]
fn the_query_offset_moves_query_and_result() {
    let house = house();
    let mut group = group(vec![recording("r", "q")]);
    group.spec.query_offset_ms = 30_000;
    house.evaluator.answer("q", &[(&[("a", "x")], 1.0)]);
    group.eval(60_000, &house.context);
    assert_eq!(*house.evaluator.asked.lock(), [("q".to_owned(), 30_000)]);
    assert_eq!(house.stored("r")[0].1, 30_000);
}

#[test]
fn an_alert_is_pending_then_firing_then_resolved() {
    let house = house();
    let mut group = group(vec![alerting(120_000, 0)]);
    let minute = 60_000;
    house.evaluator.answer("up == 0", &[(&[("__name__", "up"), ("instance", "i")], 0.0)]);
    group.eval(minute, &house.context);
    assert_eq!(only_alert(&group).state, AlertState::Pending);
    group.eval(2 * minute, &house.context);
    assert_eq!(only_alert(&group).state, AlertState::Pending);
    assert!(house.notified.0.lock().is_empty(), "pending alerts are not told");
    group.eval(3 * minute, &house.context);
    assert_eq!(only_alert(&group).state, AlertState::Firing);
    {
        let told = house.notified.0.lock();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].labels.to_string(), "{alertname=\"Down\", instance=\"i\", severity=\"page i\"}");
        assert_eq!(told[0].annotations, [("summary".to_owned(), "0".to_owned())]);
        assert_eq!((told[0].starts_at_ms, told[0].ends_at_ms), (3 * minute, 7 * minute));
        assert_eq!(told[0].generator_url, "http://m:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1");
    }
    group.eval(4 * minute, &house.context);
    assert_eq!(house.notified.0.lock().len(), 1, "the resend delay has not passed");
    house.evaluator.answer("up == 0", &[]);
    group.eval(5 * minute, &house.context);
    assert_eq!(only_alert(&group).state, AlertState::Inactive);
    assert_eq!(house.notified.0.lock().last().expect("resolved").ends_at_ms, 5 * minute);
    for slot in 6..=20 {
        group.eval(slot * minute, &house.context);
    }
    assert_eq!(house.notified.0.lock().len(), 2 + 7, "resent every second slot for fifteen minutes");
    group.eval(21 * minute, &house.context);
    assert_eq!(group.rules[0].alert_state(), AlertState::Inactive);
    let series = house.stored("ALERTS");
    let firing: Vec<_> =
        series.iter().filter(|(l, _, _)| l.contains("firing")).map(|(_, t, v)| (*t, *v)).collect();
    assert_eq!(firing, [(3 * minute, Some(1.0)), (4 * minute, Some(1.0)), (5 * minute, None)]);
    let since: Vec<_> = house.stored("ALERTS_FOR_STATE").into_iter().filter_map(|(_, _, v)| v).collect();
    assert_eq!(since, [60.0; 4]);
}

#[test]
fn keep_firing_for_holds_an_alert() {
    let house = house();
    let mut group = group(vec![alerting(0, 120_000)]);
    house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
    group.eval(60_000, &house.context);
    house.evaluator.answer("up == 0", &[]);
    for (t, state) in
        [(120_000, AlertState::Firing), (180_000, AlertState::Firing), (240_000, AlertState::Inactive)]
    {
        group.eval(t, &house.context);
        assert_eq!(only_alert(&group).state, state, "at {t}");
    }
}

#[test]
fn a_reload_keeps_alerts_and_ends_series_of_removed_rules() {
    let house = house();
    let mut old = group(vec![alerting(0, 0), recording("gone", "q")]);
    house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
    house.evaluator.answer("q", &[(&[("a", "x")], 1.0)]);
    old.eval(60_000, &house.context);
    let mut new = group(vec![alerting(0, 0)]);
    new.copy_state(old);
    assert_eq!(only_alert(&new).state, AlertState::Firing);
    assert_eq!(only_alert(&new).active_at_ms, 60_000);
    new.eval(120_000, &house.context);
    assert_eq!(house.stored("gone").last().map(|(_, t, v)| (*t, *v)), Some((120_000, None)));
}

/// A restart in the middle of `for: 10m`: the alert was active since 0 and the process went down at 5m.
#[test]
fn restoration_counts_the_time_before_the_restart() {
    let minute = 60_000;
    let stored_labels =
        [("__name__", "ALERTS_FOR_STATE"), ("alertname", "Down"), ("instance", "i"), ("severity", "page i")];
    // (back up at, expected activeAt): downtime is added, and the rest is at least the grace period.
    for (down_at, up_at, hold, want_active_at) in [
        (5 * minute, 7 * minute, 30 * minute, 2 * minute),
        (29 * minute, 31 * minute, 30 * minute, 31 * minute + 10 * minute - 30 * minute),
        (40 * minute, 42 * minute, 30 * minute, 0),
    ] {
        let house = house();
        let mut group = group(vec![alerting(hold, 0)]);
        if let RuleKind::Alerting(rule) = &mut group.rules[0].kind {
            rule.restored = false;
        }
        house.evaluator.stored.lock().push((Labels::from_pairs(stored_labels), down_at, 0.0));
        house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
        group.eval(up_at, &house.context);
        assert!(house.stored("ALERTS").is_empty(), "nothing is written before restoration");
        group.restore(up_at, 60 * minute, 10 * minute, house.evaluator.as_ref());
        assert_eq!(only_alert(&group).active_at_ms, want_active_at);
    }
}

#[test]
fn slots_are_spread_and_regular() {
    let mut offsets = std::collections::BTreeSet::new();
    for i in 0..50 {
        let mut group = group(Vec::new());
        group.spec.name = format!("group-{i}");
        let slot = group.spec.slot_at_or_before_ns(1_700_000_000_123_456_789);
        assert!(slot <= 1_700_000_000_123_456_789 && slot > 1_700_000_000_123_456_789 - 60_000_000_000);
        assert_eq!(group.spec.slot_at_or_before_ns(slot), slot);
        assert_eq!(group.spec.slot_at_or_before_ns(slot + 60_000_000_000), slot + 60_000_000_000);
        offsets.insert(slot.rem_euclid(60_000_000_000));
    }
    assert!(offsets.len() > 45, "{} distinct offsets of 50", offsets.len());
}

/// A process that dies after every evaluation: pending time counts on, firing goes on, nothing is sent twice.
#[test]
fn alert_state_survives_restarts() {
    let house = house();
    let minute = 60_000;
    let fresh = || {
        let mut group = group(vec![alerting(5 * minute, 0)]);
        if let RuleKind::Alerting(rule) = &mut group.rules[0].kind {
            rule.restored = false;
        }
        group
    };
    house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
    let mut saved: Option<(Vec<u8>, i64)> = None;
    let mut states = Vec::new();
    for slot in 1..=500 {
        let mut group = fresh();
        if let Some((content, _)) = &saved {
            assert_eq!(state::restore(&mut group, content, None, slot * minute, 60 * minute), Ok(1));
            if let RuleKind::Alerting(rule) = &mut group.rules[0].kind {
                // The process was down for no time: the shift is for outages.
                rule.active.values_mut().for_each(|a| {
                    if a.state == AlertState::Pending {
                        a.active_at_ms -= minute;
                    }
                });
            }
        }
        // Right after a restart nothing has been scraped yet.
        if slot % 7 == 0 && slot > 10 {
            house.evaluator.answer("up == 0", &[]);
        } else {
            house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
        }
        group.eval(slot * minute, &house.context);
        states.push(only_alert(&group).state);
        saved = state::encode(&group, slot * minute).map(|content| (content, slot));
    }
    let first_firing = states.iter().position(|s| *s == AlertState::Firing);
    assert_eq!(first_firing, Some(5), "five minutes after the first slot");
    assert!(states[5..].iter().all(|s| *s == AlertState::Firing), "no false resolve");
    let told = house.notified.0.lock();
    assert!(told.iter().all(|n| n.starts_at_ms == 6 * minute), "one alert, not a new one after each restart");
    assert!(told.windows(2).all(|w| w[1].ends_at_ms > w[0].ends_at_ms));
}

#[test]
fn damaged_or_foreign_alert_state_is_refused() {
    let house = house();
    let mut running = group(vec![alerting(0, 0)]);
    house.evaluator.answer("up == 0", &[(&[("instance", "i")], 0.0)]);
    running.eval(60_000, &house.context);
    let good = state::encode(&running, 60_000).expect("there is an alert");
    let mut target = group(vec![alerting(0, 0)]);
    assert_eq!(state::restore(&mut target, &good, None, 61_000, 3_600_000), Ok(1));
    for len in 0..good.len() {
        assert!(state::restore(&mut target, &good[..len], None, 61_000, 3_600_000).is_err(), "cut at {len}");
    }
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            let refused = state::restore(&mut target, &flipped, None, 61_000, 3_600_000).is_err();
            assert!(refused, "byte {at} bit {bit}");
        }
    }
    target.spec.name = "other".into();
    assert_eq!(
        state::restore(&mut target, &good, None, 61_000, 1).unwrap_err(),
        "it belongs to another group"
    );
    target.spec.name = "g".into();
    assert!(
        state::restore(&mut target, &good, None, 10_000_000, 3_600_000)
            .unwrap_err()
            .contains("outage tolerance")
    );
}
