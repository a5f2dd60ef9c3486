//! `tsdb dump` and `tsdb dump-openmetrics`: the samples of a data directory as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use super::super::output::tell;
use super::super::{code, text};
use super::{match_argument, matcher_sets, open, path_argument, time_arguments, time_range};
use crate::model::labels::{is_legacy_label_name, is_legacy_metric_name, write_quoted};
use crate::model::number::format_g;
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::tsdb::readonly::ReadOnlyDb;
use crate::tsdb::{Queryable as _, SelectHints, SeriesSet};

/// How series are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{labels} value time`, as promtool does.
    Samples,
    /// One JSON object with the labels of each series.
    SeriesJson,
    /// OpenMetrics text.
    OpenMetrics,
}

fn sandbox() -> Arg {
    Arg::new("sandbox-dir-root")
        .long("sandbox-dir-root")
        .value_name("DIR")
        .default_value("")
        .help("Accepted for promtool's sake; nothing is copied.")
}

pub(super) fn command() -> Command {
    Command::new("dump")
        .about("Print the samples of a data directory, head included")
        .after_help("Works beside a running server. Times are milliseconds since 1970 or RFC 3339.")
        .args(time_arguments())
        .arg(match_argument())
        .arg(
            Arg::new("format")
                .long("format")
                .value_parser(["prom", "seriesjson", "openmetrics"])
                .default_value("prom")
                .help("Samples as lines, labels of series as JSON, or OpenMetrics text (without native histograms)."),
        )
        .arg(sandbox())
        .arg(path_argument())
}

pub(super) fn open_metrics_command() -> Command {
    Command::new("dump-openmetrics")
        .about("Print the float samples of a data directory as OpenMetrics text, without metadata")
        .args(time_arguments())
        .arg(match_argument())
        .arg(sandbox())
        .arg(path_argument())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(dump(
        matches,
        match text(matches, "format") {
            "seriesjson" => Form::SeriesJson,
            "openmetrics" => Form::OpenMetrics,
            _ => Form::Samples,
        },
    ))
}

pub(super) fn run_open_metrics(matches: &ArgMatches) -> u8 {
    code(dump(matches, Form::OpenMetrics))
}

fn dump(matches: &ArgMatches, form: Form) -> Result<(), String> {
    let (range, sets) = (time_range(matches)?, matcher_sets(matches)?);
    let db = open(Path::new(text(matches, "path")))?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    write_series(&db, range, &sets, form, &mut out)?;
    db.whole()
}

/// Writes all samples of the selected series; a reader that goes away ends it without an error.
pub(super) fn write_series(
    db: &ReadOnlyDb,
    (min, max): (i64, i64),
    matcher_sets: &[Vec<Matcher>],
    form: Form,
    out: &mut dyn Write,
) -> Result<(), String> {
    let querier = db.querier(min, max).map_err(|e| e.to_string())?;
    let hints = SelectHints { start_ms: min, end_ms: max, ..SelectHints::default() };
    let all = [Vec::new()];
    let wanted = if matcher_sets.is_empty() { &all[..] } else { matcher_sets };
    let selected: Vec<Box<dyn SeriesSet>> = wanted
        .iter()
        .map(|matchers| querier.select(&hints, matchers).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    // A series that several selectors find is written once.
    let mut order: BTreeMap<Labels, (usize, usize)> = BTreeMap::new();
    for (number, set) in selected.iter().enumerate() {
        for i in 0..set.len() {
            order.entry(set.labels(i)).or_insert((number, i));
        }
    }
    let (mut samples, mut lines, mut histograms) = (SampleBuffer::default(), String::new(), 0);
    for (labels, (number, i)) in &order {
        let Some(set) = selected.get(*number) else { continue };
        set.samples(*i, min, max, &mut samples).map_err(|e| e.to_string())?;
        if samples.is_empty() {
            continue;
        }
        lines.clear();
        match form {
            Form::Samples => sample_lines(labels, &samples, &mut lines),
            Form::SeriesJson => json_line(labels, &mut lines)?,
            Form::OpenMetrics => {
                histograms += samples.histograms.len();
                open_metrics_lines(labels, &samples, &mut lines);
            }
        }
        if !written(out.write_all(lines.as_bytes()))? {
            return Ok(());
        }
    }
    if form == Form::OpenMetrics && !written(out.write_all(b"# EOF\n"))? {
        return Ok(());
    }
    written(out.flush())?;
    if histograms > 0 {
        tell!("warning: {histograms} native histogram samples cannot be written in this format");
    }
    let warnings: Vec<String> = selected.iter().flat_map(|set| set.warnings()).collect();
    if warnings.is_empty() { Ok(()) } else { Err(warnings.join("\n")) }
}

/// Whether the reader is still there.
fn written(result: io::Result<()>) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(format!("cannot write: {e}")),
    }
}

/// promtool prints the floats of a series before its histograms.
fn sample_lines(labels: &Labels, samples: &SampleBuffer, out: &mut String) {
    let name = labels.to_string();
    // Writing to a string cannot fail.
    for (t, v) in samples.timestamps.iter().zip(&samples.values) {
        let _ = writeln!(out, "{name} {} {t}", format_g(*v));
    }
    for (t, h) in &samples.histograms {
        let _ = writeln!(out, "{name} {h} {t}");
    }
}

fn json_line(labels: &Labels, out: &mut String) -> Result<(), String> {
    let map: BTreeMap<&str, &str> = labels.iter().map(|l| (l.name, l.value)).collect();
    out.push_str(&serde_json::to_string(&map).map_err(|e| e.to_string())?);
    out.push('\n');
    Ok(())
}

fn open_metrics_lines(labels: &Labels, samples: &SampleBuffer, out: &mut String) {
    let metric = labels.metric_name();
    let mut name = String::new();
    let mut pairs: Vec<String> = Vec::new();
    let quoted = |text: &str| {
        let mut out = String::new();
        // As above.
        let _ = write_quoted(&mut out, text);
        out
    };
    if is_legacy_metric_name(metric) {
        name.push_str(metric);
    } else {
        pairs.push(quoted(metric));
    }
    for label in labels.without_name().iter() {
        let key = if is_legacy_label_name(label.name) { label.name.to_owned() } else { quoted(label.name) };
        pairs.push(format!("{key}={}", quoted(label.value)));
    }
    for (t, v) in samples.timestamps.iter().zip(&samples.values) {
        let _ = writeln!(out, "{name}{{{}}} {} {:.3}", pairs.join(","), format_g(*v), *t as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_promtools() {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "x\"y\n"), ("b", "2")]);
        let mut samples = SampleBuffer::default();
        samples.push_float(1_700_000_000_123, 1e21);
        samples.push_float(1_700_000_015_000, f64::INFINITY);
        let mut out = String::new();
        sample_lines(&labels, &samples, &mut out);
        let name = r#"{__name__="m", a="x\"y\n", b="2"}"#;
        assert_eq!(out, format!("{name} 1e+21 1700000000123\n{name} +Inf 1700000015000\n"));
        out.clear();
        open_metrics_lines(&labels, &samples, &mut out);
        assert_eq!(
            out,
            "m{a=\"x\\\"y\\n\",b=\"2\"} 1e+21 1700000000.123\nm{a=\"x\\\"y\\n\",b=\"2\"} +Inf 1700000015.000\n"
        );
        out.clear();
        json_line(&labels, &mut out).unwrap();
        assert_eq!(out, "{\"__name__\":\"m\",\"a\":\"x\\\"y\\n\",\"b\":\"2\"}\n");
        out.clear();
        samples.timestamps.truncate(1);
        samples.values.truncate(1);
        open_metrics_lines(&Labels::from_pairs([("__name__", "é"), ("ü", "1")]), &samples, &mut out);
        assert_eq!(out, "{\"é\",\"ü\"=\"1\"} 1e+21 1700000000.123\n");
    }
}
