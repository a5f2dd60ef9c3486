//! Do rules do what their unit tests say? Each test group gets a storage of its own; time runs in steps of the
//! evaluation interval, samples are added as they come due, all rule groups are evaluated, and the cases are
//! compared. The format is that of `promtool test rules`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::alerting::AlertState;
use super::evaluator::{EngineEvaluator, Evaluator, NoNotifier};
use super::group::{Group, GroupContext, GroupSpec, Rule, RuleKind};
use super::load::{RuleFileOptions, load_rule_file, rule_kind};
use super::{AlertingRule, ExternalContext};
use crate::config::expand_pattern;
use crate::config::rule_tests::{AlertCase, ExprCase, RuleTestFile, TestGroup};
use crate::model::histogram::FloatHistogram;
use crate::model::number::format_plain;
use crate::model::regex::GoRegex;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, LabelsBuilder};
use crate::query::parse::ParseOptions;
use crate::query::parse::series::{SequenceValue, parse_metric, parse_series};
use crate::query::value::PointValue;
use crate::query::{Engine, EngineOptions, VectorSample};
use crate::telemetry::Registry;
use crate::tsdb::memory::MemoryStorage;
use crate::tsdb::{Appendable, BatchOptions, Queryable, SeriesRef};

/// How tests are run.
#[derive(Debug, Clone, Default)]
pub struct UnitTestOptions {
    /// Run only groups whose name matches one of these (Go's dialect, not anchored); all if empty.
    pub run: Vec<String>,
    /// Accept fields that nobody knows.
    pub ignore_unknown_fields: bool,
    /// What PromQL allows.
    pub parse: ParseOptions,
    /// Feature `promql-delayed-name-removal`.
    pub delayed_name_removal: bool,
    /// Show what differs line by line, a label or annotation a line, rather than one line an alert or sample.
    pub diff: Option<DiffStyle>,
}

/// How differences are shown line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffStyle {
    /// For files.
    Plain,
    /// For terminals: with colours.
    Coloured,
}

/// One test group after it was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Its name, or its line in the file where it has none.
    pub name: String,
    /// What failed, each with its place; nothing if all passed.
    pub failures: Vec<String>,
}

/// Runs all tests of a file; answers with what failed, nothing if all passed.
#[must_use]
pub fn run_file(path: &Path, options: &UnitTestOptions) -> Vec<String> {
    match run_tests(path, options) {
        Ok(results) => results.into_iter().flat_map(|result| result.failures).collect(),
        Err(error) => vec![error],
    }
}

/// Runs all tests of a file, group by group; an error if there is something wrong with the file as a whole.
pub fn run_tests(path: &Path, options: &UnitTestOptions) -> Result<Vec<TestResult>, String> {
    let file = RuleTestFile::load(path, options.ignore_unknown_fields).map_err(|e| e.to_string())?;
    let mut patterns = Vec::new();
    for pattern in &options.run {
        patterns.push(GoRegex::new(pattern).map_err(|e| e.to_string())?);
    }
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut results = Vec::new();
    for test in &file.tests {
        if !patterns.is_empty() && !patterns.iter().any(|p| p.is_match(&test.name)) {
            continue;
        }
        let mut failures = Vec::new();
        if let Err(error) = run_group(&file, test, dir, options, &mut failures) {
            failures.push(error);
        }
        for failure in &mut failures {
            let name = if test.name.is_empty() { String::new() } else { format!(" name: {},", test.name) };
            *failure = format!("{}:{}:{name} {failure}", path.display(), test.at.line);
        }
        let name = if test.name.is_empty() { format!("line {}", test.at.line) } else { test.name.clone() };
        results.push(TestResult { name, failures });
    }
    Ok(results)
}

/// The storage and engine of one test group.
struct Bench {
    storage: Arc<MemoryStorage>,
    context: GroupContext,
    groups: Vec<Group>,
}

fn bench(
    file: &RuleTestFile,
    test: &TestGroup,
    dir: &Path,
    options: &UnitTestOptions,
) -> Result<Bench, String> {
    let registry = Registry::new();
    let engine_options = EngineOptions {
        max_samples: 10_000,
        timeout: std::time::Duration::from_secs(100),
        default_subquery_step_ms: file.evaluation_interval.0,
        experimental_functions: options.parse.experimental_functions,
        extended_range_selectors: options.parse.extended_range_selectors,
        fill_modifiers: options.parse.fill_modifiers,
        delayed_name_removal: options.delayed_name_removal,
        ..EngineOptions::default()
    };
    let engine = Arc::new(Engine::new(engine_options, &registry));
    let storage = MemoryStorage::new();
    let context = GroupContext {
        evaluator: Arc::new(EngineEvaluator::new(engine, Arc::clone(&storage) as Arc<dyn Queryable>)),
        storage: Arc::clone(&storage) as Arc<dyn Appendable>,
        notifier: Arc::new(NoNotifier),
        external: ExternalContext {
            labels: Labels::from_pairs(&test.external_labels),
            url: test.external_url.clone(),
        },
        resend_delay_ms: 60_000,
        template_failures: registry.counter("template_failures_total", "Failed templates.", &[]),
        concurrency: None,
    };
    let rule_options = RuleFileOptions {
        parse: options.parse,
        ignore_unknown_fields: options.ignore_unknown_fields,
        ..RuleFileOptions::default()
    };
    let mut groups = Vec::new();
    for pattern in &file.rule_files {
        let paths = expand_pattern(&dir.join(pattern).display().to_string());
        if paths.is_empty() {
            return Err(format!("no rule file matches {pattern:?}"));
        }
        for path in paths {
            let rules = load_rule_file(Path::new(&path), &rule_options).map_err(|e| e.to_string())?;
            for group in rules.groups {
                let spec = GroupSpec {
                    name: group.name.clone(),
                    file: path.clone(),
                    interval_ms: file.evaluation_interval.0,
                    limit: usize::try_from(group.limit).unwrap_or(0),
                    query_offset_ms: group.query_offset.map_or(0, |offset| offset.0),
                };
                let kinds = group.rules.iter().map(|rule| rule_kind(rule, &group.labels));
                groups.push(Group::new(spec, kinds.map(ready).map(Rule::new).collect()));
            }
        }
    }
    let rank = |group: &Group| {
        let named = file.group_eval_order.iter().position(|name| *name == group.spec.name);
        named.unwrap_or(file.group_eval_order.len())
    };
    groups.sort_by_key(rank);
    Ok(Bench { storage, context, groups })
}

/// There is no earlier process whose state could be restored.
fn ready(mut kind: RuleKind) -> RuleKind {
    if let RuleKind::Alerting(alerting) = &mut kind {
        alerting.restored = true;
    }
    kind
}

type Input = Vec<(Labels, i64, SequenceValue)>;

/// Input samples in order of time.
fn input(test: &TestGroup) -> Result<Input, String> {
    let mut samples = Input::new();
    for line in &test.input_series {
        let series = parse_series(&format!("{} {}", line.series, line.values)).map_err(|e| e.to_string())?;
        for (i, value) in (0i64..).zip(series.values) {
            let t_ms = test.interval.0.checked_mul(i).and_then(|t| t.checked_add(test.start_timestamp.0));
            let t_ms = t_ms.ok_or_else(|| format!("the times of {} overflow", line.series))?;
            if value != SequenceValue::Omitted {
                samples.push((series.labels.clone(), t_ms, value));
            }
        }
    }
    samples.sort_by_key(|(_, t_ms, _)| *t_ms);
    Ok(samples)
}

fn run_group(
    file: &RuleTestFile,
    test: &TestGroup,
    dir: &Path,
    options: &UnitTestOptions,
    failures: &mut Vec<String>,
) -> Result<(), String> {
    let mut bench = bench(file, test, dir, options)?;
    let samples = input(test)?;
    let start_ms = test.start_timestamp.0;
    let last_ms = test
        .alert_rule_test
        .iter()
        .map(|case| case.eval_time.0)
        .chain(test.promql_expr_test.iter().map(|case| case.eval_time.0))
        .max()
        .unwrap_or(0);
    let mut cases: Vec<&AlertCase> = test.alert_rule_test.iter().collect();
    cases.sort_by_key(|case| case.eval_time.0);
    let (mut next_sample, mut next_case) = (0, 0);
    let mut offset_ms = 0i64;
    while offset_ms <= last_ms {
        let t_ms = start_ms + offset_ms;
        let due = samples[next_sample..].partition_point(|(_, t, _)| *t <= t_ms);
        store(&samples[next_sample..next_sample + due], bench.storage.as_ref())?;
        next_sample += due;
        for group in &mut bench.groups {
            group.eval(t_ms, &bench.context);
            for rule in &group.rules {
                if let Some(error) = &rule.last_error {
                    return Err(format!(
                        "rule: {}, time: {}s, err: {error}",
                        rule.name(),
                        format_plain(offset_ms as f64 / 1000.0)
                    ));
                }
            }
        }
        let following_ms = offset_ms + file.evaluation_interval.0;
        while let Some(case) = cases.get(next_case).filter(|case| case.eval_time.0 < following_ms) {
            check_alerts(case, &bench.groups, options.diff, failures);
            next_case += 1;
        }
        offset_ms = following_ms;
    }
    for case in &test.promql_expr_test {
        let mut fail = |text: String| {
            failures.push(format!("expr: {:?}, time: {}, {text}", case.expr, case.eval_time));
        };
        match compare_expr(case, start_ms, bench.context.evaluator.as_ref(), file.fuzzy_compare) {
            Ok(None) => {}
            Ok(Some(sides)) => fail(format!("\n{}", sides.show(options.diff))),
            Err(error) => fail(format!("err: {error}")),
        }
    }
    Ok(())
}

fn store(samples: &[(Labels, i64, SequenceValue)], storage: &dyn Appendable) -> Result<(), String> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut batch = storage.appender(BatchOptions::default());
    for (labels, t_ms, value) in samples {
        let own = || labels.clone();
        let appended = match value {
            SequenceValue::Omitted => continue,
            SequenceValue::Float(v) => batch.append(SeriesRef::NONE, &own, 0, *t_ms, *v),
            SequenceValue::Histogram(h, _) => {
                let histogram = HistogramValue::Float(Arc::clone(h));
                batch.append_histogram(SeriesRef::NONE, &own, 0, *t_ms, histogram)
            }
        };
        appended.map_err(|e| format!("{labels}: {e}"))?;
    }
    batch.commit().map(drop).map_err(|e| e.to_string())
}

/// What was wanted and what came: of each alert or sample one line, and the lines that tell it in full.
#[derive(Debug, Default)]
struct Sides {
    want: Vec<(String, Vec<String>)>,
    got: Vec<(String, Vec<String>)>,
}

impl Sides {
    fn show(&self, style: Option<DiffStyle>) -> String {
        let Some(style) = style else { return self.show_short() };
        let lines = |side: &[(String, Vec<String>)]| -> Vec<String> {
            let numbered = side.iter().enumerate();
            numbered
                .flat_map(|(i, (_, lines))| std::iter::once(format!("[{i}]")).chain(lines.clone()))
                .collect()
        };
        let mut out = String::from("    --- expected\n    +++ got\n");
        for (mark, line) in line_diff(&lines(&self.want), &lines(&self.got)) {
            let (begin, end) = match (style, mark) {
                (DiffStyle::Coloured, '-') => ("\u{1b}[31m", "\u{1b}[0m"),
                (DiffStyle::Coloured, '+') => ("\u{1b}[32m", "\u{1b}[0m"),
                _ => ("", ""),
            };
            let _ = writeln!(out, "    {begin}{mark} {line}{end}");
        }
        out
    }

    /// Lines that only one side has, marked.
    fn show_short(&self) -> String {
        let mut out = String::new();
        let has = |side: &[(String, Vec<String>)], line: &str| side.iter().any(|(other, _)| other == line);
        for (line, _) in &self.want {
            let mark = if has(&self.got, line) { ' ' } else { '-' };
            let _ = writeln!(out, "    {mark} expected {line}");
        }
        for (line, _) in self.got.iter().filter(|(line, _)| !has(&self.want, line)) {
            let _ = writeln!(out, "    + got      {line}");
        }
        if self.want.is_empty() {
            out.push_str("    (nothing was expected)\n");
        }
        if self.got.is_empty() {
            out.push_str("    (got nothing)\n");
        }
        out
    }
}

/// More lines than this are not compared one with another, but shown one side after the other.
const MAX_COMPARED: usize = 4_000;

/// The lines of both sides in order: `-` only the first has it, `+` only the second, ` ` both.
fn line_diff(want: &[String], got: &[String]) -> Vec<(char, String)> {
    let marked = |mark: char, line: &String| (mark, line.clone());
    if want.len().max(got.len()) > MAX_COMPARED {
        let (gone, new) = (want.iter().map(|l| marked('-', l)), got.iter().map(|l| marked('+', l)));
        return gone.chain(new).collect();
    }
    // Length of the longest common sequence of the lines from (i, j) on.
    let width = got.len() + 1;
    let mut common = vec![0u16; (want.len() + 1) * width];
    for i in (0..want.len()).rev() {
        for j in (0..got.len()).rev() {
            common[i * width + j] = if want[i] == got[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < want.len() || j < got.len() {
        if i < want.len() && j < got.len() && want[i] == got[j] {
            out.push(marked(' ', &want[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == got.len()
            || (i < want.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            out.push(marked('-', &want[i]));
            i += 1;
        } else {
            out.push(marked('+', &got[j]));
            j += 1;
        }
    }
    out
}

type FiringAlerts = Vec<(Labels, BTreeMap<String, String>)>;

fn check_alerts(case: &AlertCase, groups: &[Group], style: Option<DiffStyle>, failures: &mut Vec<String>) {
    let alerting = groups.iter().flat_map(|g| &g.rules).filter_map(|rule| match &rule.kind {
        RuleKind::Alerting(alerting) => Some(alerting),
        RuleKind::Recording(_) => None,
    });
    let named: Vec<&AlertingRule> = alerting.filter(|a| a.spec.name == case.alertname).collect();
    let firing = named.iter().flat_map(|a| a.active.values()).filter(|a| a.state == AlertState::Firing);
    let mut got: FiringAlerts =
        firing.map(|a| (a.labels.clone(), a.annotations.iter().cloned().collect())).collect();
    let mut want: FiringAlerts = case
        .exp_alerts
        .iter()
        .map(|alert| {
            let mut labels = LabelsBuilder::new(&Labels::from_pairs(&alert.exp_labels));
            labels.set("alertname", &case.alertname);
            (labels.build(), alert.exp_annotations.clone())
        })
        .collect();
    got.sort();
    want.sort();
    if got != want {
        let show = |alerts: &FiringAlerts| {
            let each = alerts.iter().map(|(labels, annotations)| {
                let pairs = labels.iter().map(|l| (l.name, l.value));
                let mut lines = vec!["  labels:".to_owned()];
                lines.extend(pairs.map(|(name, value)| format!("    {name}: {value:?}")));
                lines.push("  annotations:".to_owned());
                lines.extend(annotations.iter().map(|(name, value)| format!("    {name}: {value:?}")));
                (format!("Labels:{labels} Annotations:{annotations:?}"), lines)
            });
            each.collect()
        };
        let sides = Sides { want: show(&want), got: show(&got) };
        let place = format!("alertname: {}, time: {}", case.alertname, case.eval_time);
        failures.push(format!("{place}\n{}", sides.show(style)));
    }
}

/// What differs, if anything.
fn compare_expr(
    case: &ExprCase,
    start_ms: i64,
    evaluator: &dyn Evaluator,
    fuzzy: bool,
) -> Result<Option<Sides>, String> {
    let got = evaluator.eval(&case.expr, start_ms + case.eval_time.0)?;
    let mut want = Vec::new();
    for sample in &case.exp_samples {
        want.push(expected(&sample.labels, sample.value, &sample.histogram)?);
    }
    let mut got: Vec<(Labels, PointValue)> =
        got.into_iter().map(|VectorSample { labels, value, .. }| (labels, value)).collect();
    got.sort_by(|a, b| a.0.cmp(&b.0));
    want.sort_by(|a, b| a.0.cmp(&b.0));
    let equal = got.len() == want.len()
        && got.iter().zip(&want).all(|(g, w)| g.0 == w.0 && same_value(&g.1, &w.1, fuzzy));
    if equal {
        return Ok(None);
    }
    let show = |samples: &[(Labels, PointValue)]| {
        let each = samples.iter().map(|(labels, value)| {
            let value = match value {
                PointValue::Float(v) => format_plain(*v),
                PointValue::Histogram(h) => format!("{h} ({:?})", h.counter_reset_hint),
            };
            (format!("{labels} {value}"), vec![format!("  labels: {labels}"), format!("  value: {value}")])
        });
        each.collect()
    };
    Ok(Some(Sides { want: show(&want), got: show(&got) }))
}

fn expected(labels: &str, value: f64, histogram: &str) -> Result<(Labels, PointValue), String> {
    let labels =
        if labels.is_empty() { Labels::empty() } else { parse_metric(labels).map_err(|e| e.to_string())? };
    if histogram.is_empty() {
        return Ok((labels, PointValue::Float(value)));
    }
    let series = parse_series(&format!("expected {histogram}")).map_err(|e| e.to_string())?;
    match series.values.as_slice() {
        [SequenceValue::Histogram(h, _)] => Ok((labels, PointValue::Histogram(Arc::clone(h)))),
        _ => Err(format!("{histogram:?} is not one histogram")),
    }
}

fn same_value(got: &PointValue, want: &PointValue, fuzzy: bool) -> bool {
    match (got, want) {
        (PointValue::Float(a), PointValue::Float(b)) => {
            a == b || (fuzzy && (a.next_up() == *b || a.next_down() == *b))
        }
        (PointValue::Histogram(a), PointValue::Histogram(b)) => {
            let compact = |h: &FloatHistogram| {
                let mut h = h.clone();
                h.compact();
                h
            };
            let (a, b) = (compact(a), compact(b));
            a.equals(&b) && a.counter_reset_hint == b.counter_reset_hint
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_by_line_only_what_differs_is_marked() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (want, got, diff) in [
            ("abc", "abc", " a b c"),
            ("abc", "axc", " a-b+x c"),
            ("", "ab", "+a+b"),
            ("ab", "", "-a-b"),
            ("abcd", "acde", " a-b c d+e"),
        ] {
            let shown: String = line_diff(&lines(want), &lines(got))
                .into_iter()
                .map(|(mark, line)| format!("{mark}{line}"))
                .collect();
            assert_eq!(shown, diff, "{want} {got}");
        }
    }
}
