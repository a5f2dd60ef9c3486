//! The OpenMetrics text format, versions 0.0.1 and 1.0.0: strict about blanks, ends with `# EOF`.

use std::collections::HashMap;

use super::around::{Around, Nobody, Said};
use super::number::{fast_float, parse_seconds};
use super::series_text::{self, Checked, Utf8, of_bytes, walk};
use super::text::{metadata_name, text_of};
use super::{
    Family, Form, PairBuffer, ParseError, ParseOptions, SampleView, SeriesView, Sink, parse_float, unescape,
    unexpected,
};
use crate::model::metadata::{Exemplar, MetricType};

struct Tail {
    value: f64,
    timestamp_ms: Option<i64>,
    exemplar: Option<Exemplar>,
    next: usize,
}

fn token_end(body: &[u8], at: usize) -> usize {
    let rest = &body[at..];
    at + rest.iter().position(|b| matches!(b, b' ' | b'\n')).unwrap_or(rest.len())
}

/// The token behind exactly one blank at `at`.
fn token<'a>(body: &'a [u8], at: usize, what: &str) -> Result<(&'a [u8], usize), ParseError> {
    if body.get(at) != Some(&b' ') {
        return Err(unexpected(what, body, at));
    }
    let end = token_end(body, at + 1);
    if end == at + 1 {
        return Err(unexpected(what, body, at));
    }
    Ok((&body[at + 1..end], end))
}

/// What follows the series text.
fn tail(body: &[u8], text_end: usize, utf8: Utf8) -> Result<Tail, ParseError> {
    const VALUE: &str = "value after metric";
    const NEXT: &str = "next entry after timestamp";
    let fast =
        body.get(text_end..).filter(|rest| rest.first() == Some(&b' ')).and_then(|r| fast_float(&r[1..]));
    let (value, mut at) = match fast {
        Some((value, used)) if matches!(body.get(text_end + 1 + used), Some(b'\n' | b' ')) => {
            (value, text_end + 1 + used)
        }
        _ => {
            let (token, end) = token(body, text_end, VALUE)?;
            (parse_float(token).map_err(ParseError::Syntax)?, end)
        }
    };
    let mut timestamp_ms = None;
    if body.get(at) == Some(&b' ') && !body[at..].starts_with(b" # {") {
        let (token, end) = token(body, at, "timestamp or new record")?;
        timestamp_ms = Some(parse_seconds(token, "timestamp").map_err(ParseError::Syntax)?);
        at = end;
    }
    let mut exemplar = None;
    if body[at.min(body.len())..].starts_with(b" # {") {
        let (parsed, end) = parse_exemplar(body, at + 3, utf8)?;
        exemplar = Some(parsed);
        at = end;
    }
    if body.get(at) != Some(&b'\n') {
        return Err(unexpected(NEXT, body, at));
    }
    Ok(Tail { value, timestamp_ms, exemplar, next: at + 1 })
}

fn parse_exemplar(body: &[u8], brace: usize, utf8: Utf8) -> Result<(Exemplar, usize), ParseError> {
    let mut pairs = PairBuffer::default();
    let mut bad = None;
    // An exemplar has no metric name; told that there is one already, the walk refuses a quoted name.
    let end = series_text::walk_braces(body, brace, true, utf8, true, |part| {
        bad = bad.take().or(series_text::put(part, &mut pairs, of_bytes(body)).err());
    })?;
    if let Some(error) = bad.or_else(|| pairs.sort().err()) {
        return Err(ParseError::Syntax(error.to_string()));
    }
    let (value, mut at) = token(body, end, "value after exemplar labels")?;
    let value = parse_float(value).map_err(ParseError::Syntax)?;
    let mut timestamp_ms = None;
    if body.get(at) == Some(&b' ') {
        let (time, end) = token(body, at, "exemplar timestamp")?;
        timestamp_ms = Some(parse_seconds(time, "exemplar timestamp").map_err(ParseError::Syntax)?);
        at = end;
    }
    Ok((Exemplar { labels: pairs.to_labels(), value, timestamp_ms }, at))
}

/// Parses a body into `sink`; `line_start` is where the line starts that was read last.
pub(super) fn parse<S: Sink>(
    body: &[u8],
    options: &ParseOptions,
    sink: &mut S,
    line_start: &mut usize,
) -> Result<(), ParseError> {
    let created = if options.skip_created { created_lines(body) } else { Created::default() };
    let mut around = Around::new();
    let mut name = String::new();
    let mut pairs = PairBuffer::default();
    let mut checked = Checked::default();
    let mut at = 0;
    while at < body.len() {
        *line_start = at;
        if body[at] == b'#' {
            if let Some(len) = around.skip_known(body, at, options, sink, read_again) {
                at += len;
                continue;
            }
            around.catch_up(read_again);
            let end = memchr::memchr(b'\n', &body[at..]).map(|found| at + found);
            let line = &body[at..end.unwrap_or(body.len())];
            if line == b"# EOF" {
                let rest = end.map_or(body.len(), |end| end + 1);
                if rest < body.len() {
                    *line_start = rest;
                    return Err(ParseError::Syntax("unexpected data after # EOF".into()));
                }
                return Ok(());
            }
            let Some(end) = end else {
                return Err(unexpected("a valid start token", body, at));
            };
            let valid = checked.part(body, at, end);
            let said = metadata(line, valid, &mut around.family, &mut name, sink)?;
            around.note(at, said, options);
            at = end + 1;
            if body.get(at) != Some(&b'#') {
                around.lines_end(body, at, sink);
            }
            continue;
        }
        let context = around.context;
        let utf8 = checked.utf8(body);
        let guess = sink.expected(&body[at..], context).filter(|len| at + len <= body.len());
        let known = guess.and_then(|len| Some((at + len, tail(body, at + len, utf8).ok()?)));
        let is_known = known.is_some();
        let (text_end, tail) = match known {
            Some(known) => known,
            None => {
                around.catch_up(read_again);
                let text_end = walk(body, at, true, utf8, |_| {})?;
                (text_end, tail(body, text_end, utf8)?)
            }
        };
        let family = &around.family;
        let view = SeriesView {
            text: &body[at..text_end],
            valid: checked.part(body, at, text_end),
            form: Form::OpenMetrics,
            family,
            options,
            context,
        };
        let mut start_ms = 0;
        if options.skip_created && has_created(family.metric_type) {
            // A fault of the labels comes to light when the sink asks for them.
            if view.labels(&mut pairs).is_ok() && family.owns(pairs.get(crate::model::METRIC_NAME)) {
                if pairs.get(crate::model::METRIC_NAME).strip_prefix(family.name.as_str()) == Some("_created")
                {
                    at = tail.next;
                    continue;
                }
                start_ms = created.get(&created_key(&family.name, &pairs)).copied().unwrap_or(0);
            }
        }
        let exemplars = tail.exemplar.as_slice();
        let sample = SampleView { value: tail.value, timestamp_ms: tail.timestamp_ms, start_ms, exemplars };
        sink.series(&view, &sample, is_known)?;
        at = tail.next;
    }
    Err(ParseError::Syntax("data does not end with # EOF".into()))
}

/// Reads a line that was read before without a fault.
fn read_again(line: &[u8], family: &mut Family) {
    let _ = metadata(line, None, family, &mut String::new(), &mut Nobody);
}

fn metadata<S: Sink>(
    line: &[u8],
    valid: Option<&str>,
    family: &mut Family,
    name: &mut String,
    sink: &mut S,
) -> Result<Said, ParseError> {
    let (Some(keyword), Some(b' ')) = (line.get(..6), line.get(6)) else {
        return Err(unexpected("a valid start token", line, 0));
    };
    let (what, missing) = match keyword {
        b"# HELP" => ("metric name after HELP", "expected text in HELP"),
        b"# TYPE" => ("metric name after TYPE", "expected text in TYPE"),
        b"# UNIT" => ("metric name after UNIT", "expected text in UNIT"),
        _ => return Err(unexpected("a valid start token", line, 0)),
    };
    let end = metadata_name(line, valid, 7, name).ok_or_else(|| unexpected(what, line, 7))?;
    if line.get(end) != Some(&b' ') {
        return Err(ParseError::Syntax(missing.into()));
    }
    let text = &line[end + 1..];
    let entered = family.enter(name);
    match keyword {
        b"# HELP" => {
            let text = text_of(line, valid, end + 1).map_err(|_| {
                let shown = super::excerpt(text);
                ParseError::Syntax(format!("help text {shown:?} is not a valid utf8 string"))
            })?;
            name.clear();
            unescape(text, true, name);
            sink.help(&family.name, name)?;
        }
        b"# TYPE" => {
            family.metric_type = metric_type(text)?;
            sink.metric_type(&family.name, family.metric_type)?;
        }
        _ => {
            let unit = text_of(line, valid, end + 1).map_err(|_| {
                ParseError::Syntax(format!("unit {:?} is not valid UTF-8", super::excerpt(text)))
            })?;
            let fits =
                unit.is_empty() || family.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
            if !fits {
                let (unit, name) = (super::excerpt(unit.as_bytes()), super::excerpt(family.name.as_bytes()));
                return Err(ParseError::Syntax(format!("unit {unit:?} not a suffix of metric {name:?}")));
            }
            family.unit.clear();
            family.unit.push_str(unit);
            sink.unit(&family.name, unit)?;
        }
    }
    Ok(Said { entered, typed: keyword == b"# TYPE" })
}

fn metric_type(text: &[u8]) -> Result<MetricType, ParseError> {
    Ok(match text {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"gaugehistogram" => MetricType::GaugeHistogram,
        b"summary" => MetricType::Summary,
        b"info" => MetricType::Info,
        b"stateset" => MetricType::StateSet,
        b"unknown" => MetricType::Unknown,
        other => {
            let shown = super::excerpt(other);
            return Err(ParseError::Syntax(format!("invalid metric type {shown:?}")));
        }
    })
}

/// Start timestamps by family and label set.
type Created = HashMap<u128, i64>;

fn has_created(metric_type: MetricType) -> bool {
    matches!(metric_type, MetricType::Counter | MetricType::Histogram | MetricType::Summary)
}

/// Identifies the label set that a `_created` line speaks for.
fn created_key(family: &str, pairs: &PairBuffer) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(family.as_bytes());
    for label in pairs.iter() {
        if !matches!(label.name, crate::model::METRIC_NAME | "le" | "quantile") {
            hash.update(&[0xff]);
            hash.update(label.name.as_bytes());
            hash.update(&[0xff]);
            hash.update(label.value.as_bytes());
        }
    }
    hash.digest128()
}

/// Collects the `_created` lines ahead of the parse, since they may stand behind the series they speak for.
struct CreatedSink {
    found: Created,
    pairs: PairBuffer,
}

impl Sink for CreatedSink {
    fn help(&mut self, _: &str, _: &str) -> Result<(), super::Stop> {
        Ok(())
    }

    fn metric_type(&mut self, _: &str, _: MetricType) -> Result<(), super::Stop> {
        Ok(())
    }

    fn unit(&mut self, _: &str, _: &str) -> Result<(), super::Stop> {
        Ok(())
    }

    fn series(
        &mut self,
        series: &SeriesView<'_>,
        sample: &SampleView<'_>,
        _: bool,
    ) -> Result<(), super::Stop> {
        let family = series.family();
        if has_created(family.metric_type) && series.labels(&mut self.pairs).is_ok() {
            let name = self.pairs.get(crate::model::METRIC_NAME);
            if name.strip_prefix(family.name.as_str()) == Some("_created") && sample.value.is_finite() {
                let key = created_key(&family.name, &self.pairs);
                self.found.insert(key, (sample.value * 1000.0) as i64);
            }
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        _: &SeriesView<'_>,
        _: crate::model::sample::HistogramValue,
        _: &SampleView<'_>,
    ) -> Result<(), super::Stop> {
        Ok(())
    }
}

fn created_lines(body: &[u8]) -> Created {
    let mut sink = CreatedSink { found: HashMap::new(), pairs: PairBuffer::default() };
    // Faults are reported by the parse proper.
    let _ = parse(body, &ParseOptions::default(), &mut sink, &mut 0);
    sink.found
}
