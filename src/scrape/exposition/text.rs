//! The Prometheus text format, versions 0.0.4 and 1.0.0.

use super::around::{Around, Nobody, Said};
use super::number::fast_float;
use super::series_text::{Checked, name_end, quoted_end, skip_blanks, walk};
use super::{
    Family, Form, ParseError, ParseOptions, SampleView, SeriesView, Sink, parse_float, unescape, unexpected,
};
use crate::model::metadata::MetricType;

/// Value, timestamp, and where the next line starts.
type Tail = (f64, Option<i64>, usize);

/// What follows the series text: blanks, value, optional timestamp, line feed or end.
#[inline]
fn tail(body: &[u8], text_end: usize) -> Result<Tail, ParseError> {
    // Most values have one digit.
    if let Some([b' ', digit @ b'0'..=b'9', b'\n', ..]) = body.get(text_end..) {
        return Ok((f64::from(digit - b'0'), None, text_end + 3));
    }
    let start = skip_blanks(body, text_end);
    if start == text_end && body.get(text_end.wrapping_sub(1)) != Some(&b'}') {
        return Err(unexpected("value after metric", body, start));
    }
    let (value, mut at) = match fast_float(&body[start..]) {
        Some((value, used)) if matches!(body.get(start + used), None | Some(b'\n' | b' ' | b'\t')) => {
            (value, start + used)
        }
        _ => slow_value(body, start)?,
    };
    let mut timestamp = None;
    if matches!(body.get(at), Some(b' ' | b'\t')) {
        at = skip_blanks(body, at);
        if body.get(at).is_some_and(u8::is_ascii_digit) {
            let (parsed, end) = millis(body, at)?;
            timestamp = Some(parsed);
            at = skip_blanks(body, end);
        } else if !matches!(body.get(at), None | Some(b'\n')) {
            return Err(unexpected("timestamp or new record", body, at));
        }
    }
    match body.get(at) {
        None => Ok((value, timestamp, at)),
        Some(b'\n') => Ok((value, timestamp, at + 1)),
        Some(_) => Err(unexpected("next entry after timestamp", body, at)),
    }
}

fn slow_value(body: &[u8], start: usize) -> Result<(f64, usize), ParseError> {
    let rest = &body[start..];
    let len = rest.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'{')).unwrap_or(rest.len());
    if len == 0 {
        return Err(unexpected("value after metric", body, start));
    }
    parse_float(&rest[..len]).map(|value| (value, start + len)).map_err(ParseError::Syntax)
}

fn millis(body: &[u8], start: usize) -> Result<(i64, usize), ParseError> {
    let mut at = start;
    let mut total = 0i64;
    while let Some(digit) = body.get(at).filter(|b| b.is_ascii_digit()) {
        total = total
            .checked_mul(10)
            .and_then(|t| t.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| unexpected("a timestamp within range", body, start))?;
        at += 1;
    }
    Ok((total, at))
}

/// Parses a body into `sink`; `line` is where the line starts that was read last.
pub(super) fn parse<S: Sink>(
    body: &[u8],
    options: &ParseOptions,
    sink: &mut S,
    line: &mut usize,
) -> Result<(), ParseError> {
    let mut around = Around::new();
    let mut name = String::new();
    let mut checked = Checked::default();
    let mut at = 0;
    while let Some(first) = body.get(at) {
        *line = at;
        match first {
            b'\n' => at += 1,
            b' ' | b'\t' => at = skip_blanks(body, at),
            b'#' => {
                if let Some(len) = around.skip_known(body, at, options, sink, read_again) {
                    at += len;
                    continue;
                }
                around.catch_up(read_again);
                while body.get(at) == Some(&b'#') {
                    *line = at;
                    let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |found| at + found);
                    let valid = checked.part(body, at, end);
                    let said = metadata(&body[at..end], valid, &mut around.family, &mut name, sink)?;
                    around.note(at, said, options);
                    at = end + 1;
                }
                around.lines_end(body, at, sink);
            }
            _ => {
                let context = around.context;
                let view = |text, valid, family| SeriesView {
                    text,
                    valid,
                    form: Form::Text,
                    family,
                    options,
                    context,
                };
                if let Some(len) = sink.expected(&body[at..], context)
                    && at + len <= body.len()
                    && let Ok((value, timestamp_ms, next)) = tail(body, at + len)
                {
                    let sample = SampleView { value, timestamp_ms, start_ms: 0, exemplars: &[] };
                    sink.series(&view(&body[at..at + len], None, &around.family), &sample, true)?;
                    at = next;
                    continue;
                }
                around.catch_up(read_again);
                let text_end = walk(body, at, false, checked.utf8(body), |_| {})?;
                let (value, timestamp_ms, next) = tail(body, text_end)?;
                let sample = SampleView { value, timestamp_ms, start_ms: 0, exemplars: &[] };
                let valid = checked.part(body, at, text_end);
                sink.series(&view(&body[at..text_end], valid, &around.family), &sample, false)?;
                at = next;
            }
        }
    }
    Ok(())
}

/// Reads a line that was read before without a fault.
fn read_again(line: &[u8], family: &mut Family) {
    let _ = metadata(line, None, family, &mut String::new(), &mut Nobody);
}

/// A line that starts with `#`: HELP, TYPE, or a comment.
fn metadata<S: Sink>(
    line: &[u8],
    valid: Option<&str>,
    family: &mut Family,
    name: &mut String,
    sink: &mut S,
) -> Result<Said, ParseError> {
    let keyword = skip_blanks(line, 1);
    let rest = &line[keyword..];
    let is_help = rest.starts_with(b"HELP");
    if keyword == 1 || !(is_help || rest.starts_with(b"TYPE")) {
        return Ok(Said::default());
    }
    if !matches!(rest.get(4), Some(b' ' | b'\t')) {
        return Ok(Said::default());
    }
    let start = skip_blanks(line, keyword + 4);
    let keyword = if is_help { "metric name after HELP" } else { "metric name after TYPE" };
    let end = metadata_name(line, valid, start, name).ok_or_else(|| unexpected(keyword, line, start))?;
    let text = line.get(end + 1..).unwrap_or_default();
    let entered = family.enter(name);
    if is_help {
        let text = text_of(line, valid, line.len().min(end + 1)).map_err(|_| {
            let shown = super::excerpt(text);
            ParseError::Syntax(format!("help text {shown:?} is not a valid utf8 string"))
        })?;
        name.clear();
        unescape(text, false, name);
        sink.help(&family.name, name)?;
    } else {
        family.metric_type = match text {
            b"counter" => MetricType::Counter,
            b"gauge" => MetricType::Gauge,
            b"histogram" => MetricType::Histogram,
            b"summary" => MetricType::Summary,
            b"untyped" => MetricType::Unknown,
            other => {
                let shown = super::excerpt(other);
                return Err(ParseError::Syntax(format!("invalid metric type {shown:?}")));
            }
        };
        sink.metric_type(&family.name, family.metric_type)?;
    }
    Ok(Said { entered, typed: !is_help })
}

/// The end of a line as text, which is checked unless the line is known to be text.
pub(super) fn text_of<'l>(
    line: &'l [u8],
    valid: Option<&'l str>,
    from: usize,
) -> Result<&'l str, std::str::Utf8Error> {
    valid.and_then(|line| line.get(from..)).map_or_else(|| std::str::from_utf8(&line[from..]), Ok)
}

/// The family name at `start`, plain or quoted, into `name`; returns where it ends.
pub(super) fn metadata_name(
    line: &[u8],
    valid: Option<&str>,
    start: usize,
    name: &mut String,
) -> Option<usize> {
    name.clear();
    let part = |from: usize, to: usize| {
        valid.and_then(|line| line.get(from..to)).or_else(|| std::str::from_utf8(&line[from..to]).ok())
    };
    if line.get(start) == Some(&b'"') {
        let close = quoted_end(line, start + 1, false)?;
        unescape(part(start + 1, close)?, true, name);
        return Some(close + 1);
    }
    let end = name_end(line, start);
    name.push_str(part(start, end)?);
    (end > start).then_some(end)
}
