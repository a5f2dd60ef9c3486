//! Executes a script against the engine and a storage in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meerkat::model::Labels;
use meerkat::model::sample::HistogramValue;
use meerkat::query::parse::ast::{AtModifier, Expr};
use meerkat::query::parse::series::{SequenceValue, SeriesDescription};
use meerkat::query::parse::{ParseOptions, parse_expr};
use meerkat::query::value::{MatrixSeries, PointValue, QueryValue, VectorSample};
use meerkat::query::{Engine, EngineOptions, QueryError, QueryOptions, QueryResult};
use meerkat::telemetry::Registry;
use meerkat::tsdb::memory::MemoryStorage;
use meerkat::tsdb::{Appendable, BatchOptions, SeriesRef};

use super::compare;
use super::nhcb;
use super::script::{Command, Eval, Kind, LoadSeries, Text, Times, is_point};

/// Evaluations of one script, and line and reason of those that failed.
pub struct Outcome {
    pub total: usize,
    pub failures: Vec<(usize, String)>,
}

const MINUTE: i64 = 60_000;
const OPTIONS: ParseOptions =
    ParseOptions { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true };
/// Functions whose result depends on the time of evaluation, so that pinning their input changes nothing.
const TIME_BOUND: [&str; 16] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "start_timestamp",
];

struct Runner {
    engine: Engine,
    storage: Arc<MemoryStorage>,
}

type Judged = Result<(), String>;

/// Runs all commands.
pub fn run(script: &[Command]) -> Outcome {
    let options = EngineOptions {
        timeout: Duration::from_secs(100),
        max_samples: 10_000,
        experimental_functions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        delayed_name_removal: true,
        use_start_timestamps: true,
        ..EngineOptions::default()
    };
    let runner = Runner { engine: Engine::new(options, &Registry::new()), storage: MemoryStorage::new() };
    let mut outcome = Outcome { total: 0, failures: Vec::new() };
    for command in script {
        let judged = match &command.kind {
            Kind::Clear => {
                runner.storage.clear();
                Ok(())
            }
            Kind::Load { step_ms, nhcb, series } => runner.load(*step_ms, *nhcb, series),
            Kind::Eval(eval) => {
                outcome.total += 1;
                runner.eval(eval).map_err(|e| format!("{}\n    {e}", eval.query))
            }
        };
        if let Err(reason) = judged {
            outcome.failures.push((command.line, reason));
        }
    }
    outcome
}

impl Runner {
    fn load(&self, step_ms: i64, with_nhcb: bool, series: &[LoadSeries]) -> Judged {
        let mut appender = self.storage.appender(BatchOptions::default());
        let refused = |e| format!("load: {e}");
        for loaded in series {
            let labels = || loaded.series.labels.clone();
            for (i, value) in loaded.series.values.iter().enumerate() {
                let t = i as i64 * step_ms;
                let start = loaded.starts.get(i).copied().flatten().map_or(0, |delta| t + delta);
                match value {
                    SequenceValue::Omitted => continue,
                    SequenceValue::Float(v) => appender.append(SeriesRef::NONE, &labels, start, t, *v),
                    SequenceValue::Histogram(h, _) => {
                        let h = HistogramValue::Float(Arc::clone(h));
                        appender.append_histogram(SeriesRef::NONE, &labels, start, t, h)
                    }
                }
                .map_err(refused)?;
            }
        }
        if with_nhcb {
            for (labels, i, h) in nhcb::convert(series)? {
                let t = i as i64 * step_ms;
                appender
                    .append_histogram(SeriesRef::NONE, &|| labels.clone(), 0, t, HistogramValue::Float(h))
                    .map_err(refused)?;
            }
        }
        appender.commit().map(|_| ()).map_err(refused)
    }

    fn instant(&self, query: &str, t: i64) -> Result<QueryResult, QueryError> {
        self.engine.instant(&*self.storage, query, t, &QueryOptions::default())
    }

    fn eval(&self, eval: &Eval) -> Judged {
        match eval.times {
            None => Err("no time".into()),
            Some(Times::Range { start, end, step }) => {
                let result = self.engine.range(
                    &*self.storage,
                    &eval.query,
                    start,
                    end,
                    step,
                    &QueryOptions::default(),
                );
                let Some(result) = judge_run(eval, result, true)? else { return Ok(()) };
                let QueryValue::Matrix(series) = result.value else {
                    return Err(format!("a range query answered {:?}", result.value));
                };
                if !series.is_sorted_by(|a, b| a.labels < b.labels) {
                    return Err("the series are not sorted by labels".into());
                }
                matrix(&eval.series, &series, start, end, step)
            }
            Some(Times::Instant(t)) => {
                let t = eval.range_vector.map_or(t, |(_, end, _)| end);
                self.instant_and_twin(eval, &eval.query, t, true)?;
                let Some(pinned) = pinned(&eval.query, t) else { return Ok(()) };
                let times = if t == 0 { vec![-1_000, 0, 1_000] } else { vec![-10 * t, 0, t / 5, t, 10 * t] };
                for at in times {
                    self.instant_and_twin(eval, &pinned, at, false)
                        .map_err(|e| format!("pinned: {pinned} at {at} ms: {e}"))?;
                }
                Ok(())
            }
        }
    }

    fn instant_and_twin(&self, eval: &Eval, query: &str, t: i64, positions: bool) -> Judged {
        let Some(result) = judge_run(eval, self.instant(query, t), positions)? else { return Ok(()) };
        judge_instant(eval, &result.value, t)?;
        let skips = ["start()", "end()", "step()", "range()"];
        if eval.string.is_some()
            || eval.range_vector.is_some()
            || eval.ordered
            || skips.iter().any(|s| eval.query.contains(s))
        {
            return Ok(());
        }
        let twin = self.engine.range(
            &*self.storage,
            query,
            t - MINUTE,
            t + MINUTE,
            MINUTE,
            &QueryOptions::default(),
        );
        let result = twin.map_err(|e| format!("as a range query: {e}"))?;
        let QueryValue::Matrix(series) = result.value else {
            return Err(format!("a range query answered {:?}", result.value));
        };
        let middle: Vec<VectorSample> = series.iter().filter_map(|s| at_time(s, t)).collect();
        let judged = match eval.scalar {
            Some(want) => match middle.first().map(|s| &s.value) {
                Some(PointValue::Float(v)) if compare::floats(want, *v) => Ok(()),
                other => Err(format!("want {want}, got {other:?}")),
            },
            None => vector(&eval.series, &middle, false),
        };
        judged.map_err(|e| format!("as a range query: {e}"))
    }
}

fn at_time(series: &MatrixSeries, t: i64) -> Option<VectorSample> {
    let float = series.floats.iter().find(|p| p.0 == t).map(|p| PointValue::Float(p.1));
    let histogram =
        || series.histograms.iter().find(|p| p.0 == t).map(|p| PointValue::Histogram(Arc::clone(&p.1)));
    let value = float.or_else(histogram)?;
    Some(VectorSample { labels: series.labels.clone(), t_ms: t, value })
}

/// Checks failure and annotations; `None` if the query failed as it should.
fn judge_run(
    eval: &Eval,
    result: Result<QueryResult, QueryError>,
    positions: bool,
) -> Result<Option<QueryResult>, String> {
    let result = match (result, &eval.fail) {
        (Err(e), Some(want)) if want.holds(&e.to_string()) => return Ok(None),
        (Err(e), Some(want)) => return Err(format!("failed with {e}, want {want:?}")),
        (Err(e), None) => return Err(format!("failed with {e}")),
        (Ok(_), Some(_)) => return Err("should have failed".into()),
        (Ok(result), None) => result,
    };
    annotations("warn", &eval.warn, eval.no_warn, &result.annotations.warnings, positions)?;
    annotations("info", &eval.info, eval.no_info, &result.annotations.infos, positions)?;
    Ok(Some(result))
}

/// A message without its ` (line:column)`.
fn placeless(text: &str) -> &str {
    text.rfind(" (").map_or(text, |at| &text[..at])
}

fn annotations(level: &str, want: &[Text], none: bool, got: &[String], positions: bool) -> Judged {
    if none && !got.is_empty() {
        return Err(format!("unwanted {level}: {got:?}"));
    }
    if want.is_empty() {
        return Ok(());
    }
    let holds = |want: &Text, got: &String| {
        want.holds(got)
            || (!positions
                && match want {
                    Text::Equal(want) => placeless(want) == placeless(got),
                    // A pattern may contain the place as written; then the level alone counts.
                    Text::Matches(pattern) => pattern.contains("(1:") || pattern.contains(r"\(1:"),
                    Text::Any => true,
                })
    };
    if let Some(missing) = want.iter().find(|want| !got.iter().any(|got| holds(want, got))) {
        return Err(format!("no {level} for {missing:?} among {got:?}"));
    }
    match got.iter().find(|got| !want.iter().any(|want| holds(want, got))) {
        Some(extra) => Err(format!("unexpected {level}: {extra}")),
        None => Ok(()),
    }
}

fn judge_instant(eval: &Eval, value: &QueryValue, t: i64) -> Judged {
    match (value, eval) {
        (QueryValue::String { value, .. }, Eval { string: Some(want), .. }) => {
            if value == want {
                Ok(())
            } else {
                Err(format!("want {want:?}, got {value:?}"))
            }
        }
        (QueryValue::Matrix(series), Eval { range_vector: Some((start, end, step)), .. }) => {
            let mut series = series.clone();
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            matrix(&eval.series, &series, *start, *end, *step)
        }
        (QueryValue::Scalar { value, .. }, Eval { scalar: Some(want), .. }) => {
            if compare::floats(*want, *value) { Ok(()) } else { Err(format!("want {want}, got {value}")) }
        }
        (QueryValue::Vector(got), Eval { scalar: None, string: None, range_vector: None, .. }) => {
            if let Some(wrong) = got.iter().find(|s| s.t_ms != t) {
                return Err(format!("{} has time {}", wrong.labels, wrong.t_ms));
            }
            vector(&eval.series, got, eval.ordered)
        }
        (value, _) => Err(format!("a value of another type: {value:?}")),
    }
}

fn vector(want: &[SeriesDescription], got: &[VectorSample], ordered: bool) -> Judged {
    let mut seen: BTreeMap<&Labels, usize> = BTreeMap::new();
    for (i, sample) in got.iter().enumerate() {
        if seen.insert(&sample.labels, i).is_some() {
            return Err(format!("{} occurs twice", sample.labels));
        }
    }
    for (i, series) in want.iter().enumerate() {
        let Some(at) = seen.remove(&series.labels) else {
            let labels: Vec<String> = got.iter().map(|s| s.labels.to_string()).collect();
            return Err(format!("{} is missing, got {labels:?}", series.labels));
        };
        if ordered && at != i {
            return Err(format!("{} stands at {at}, want {i}", series.labels));
        }
        let Some(value) = series.values.first() else { continue };
        compare::point(value, &got[at].value).map_err(|e| format!("{}: {e}", series.labels))?;
    }
    match seen.keys().next() {
        Some(labels) => Err(format!("unexpected {labels}: {:?}", got[seen[*labels]].value)),
        None => Ok(()),
    }
}

fn matrix(want: &[SeriesDescription], got: &[MatrixSeries], start: i64, end: i64, step: i64) -> Judged {
    let mut rest: BTreeMap<&Labels, &MatrixSeries> = got.iter().map(|s| (&s.labels, s)).collect();
    if rest.len() != got.len() {
        return Err("a label set occurs twice".into());
    }
    for series in want {
        let points: Vec<(i64, &SequenceValue)> = series
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| (start + i as i64 * step, v))
            .filter(|(_, v)| is_point(v))
            .collect();
        if points.iter().any(|(t, _)| *t > end) {
            return Err(format!("{}: more values than steps", series.labels));
        }
        let Some(found) = rest.remove(&series.labels) else {
            if points.is_empty() {
                continue;
            }
            let labels: Vec<String> = got.iter().map(|s| s.labels.to_string()).collect();
            return Err(format!("{} is missing, got {labels:?}", series.labels));
        };
        let have = found.floats.len() + found.histograms.len();
        if have != points.len() {
            return Err(format!("{}: want {} points, got {found:?}", series.labels, points.len()));
        }
        for (t, value) in points {
            let Some(sample) = at_time(found, t) else {
                return Err(format!("{}: no point at {t}: {found:?}", series.labels));
            };
            compare::point(value, &sample.value).map_err(|e| format!("{} at {t}: {e}", series.labels))?;
        }
    }
    match rest.keys().next() {
        Some(labels) => Err(format!("unexpected series {labels}")),
        None => Ok(()),
    }
}

/// The query with every selector and subquery pinned to `t`; `None` if it looks at the time by itself.
fn pinned(query: &str, t: i64) -> Option<String> {
    // A text that does not parse was judged already, as it is.
    let mut expr = parse_expr(query, &OPTIONS).ok()?;
    if !pin(&mut expr, AtModifier::Timestamp(t)) {
        return None;
    }
    Some(expr.to_string())
}

/// Pins what is not pinned to a time yet; `false` if a function depends on the time of evaluation.
fn pin(expr: &mut Expr, at: AtModifier) -> bool {
    let set = |slot: &mut Option<AtModifier>| {
        if !matches!(slot, Some(AtModifier::Timestamp(_))) {
            *slot = Some(at);
        }
    };
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Paren(e) => pin(&mut e.expr, at),
        Expr::Unary(e) => pin(&mut e.expr, at),
        Expr::Binary(e) => pin(&mut e.lhs, at) && pin(&mut e.rhs, at),
        Expr::Aggregate(e) => pin(&mut e.expr, at) && e.param.as_mut().is_none_or(|p| pin(p, at)),
        Expr::Call(e) => !TIME_BOUND.contains(&e.func) && e.args.iter_mut().all(|a| pin(a, at)),
        Expr::Vector(e) => {
            set(&mut e.at);
            true
        }
        Expr::Matrix(e) => {
            set(&mut e.selector.at);
            true
        }
        Expr::Subquery(e) => {
            set(&mut e.at);
            // What is inside stays, but it may look at the time.
            pin(&mut e.expr.clone(), at)
        }
    }
}
