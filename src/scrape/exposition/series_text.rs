//! The grammar of `name{label="value", …}` in the text formats: one walk that checks a series, and yields its parts
//! to whoever wants them.
//!
//! The Prometheus text format allows blanks around every token; OpenMetrics (`strict`) allows none.

use super::labels::{LabelError, PairBuffer};
use super::{ParseError, unescape, unexpected};
use crate::model::METRIC_NAME;

/// One part of a series text, still escaped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// The metric name as it stands.
    Name(&'a [u8]),
    /// The metric name in quotes.
    QuotedName(&'a [u8]),
    /// A label; the flag says whether the name was quoted.
    Label(&'a [u8], bool, &'a [u8]),
}

#[inline]
pub(super) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

#[inline]
fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b':'
}

#[inline]
pub(super) fn skip_blanks(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// The end of the metric name that starts at `at`; equal to `at` if there is none.
#[inline]
pub(super) fn name_end(body: &[u8], at: usize) -> usize {
    if !body.get(at).is_some_and(|b| is_name_start(*b)) {
        return at;
    }
    let rest = &body[at..];
    at + rest.iter().position(|b| !is_name(*b)).unwrap_or(rest.len())
}

/// The position of the closing quote of the text that begins at `at`, behind its opening quote.
pub(super) fn quoted_end(body: &[u8], mut at: usize, allow_line_feed: bool) -> Option<usize> {
    loop {
        let rest = body.get(at..)?;
        let found = at + memchr::memchr2(b'"', b'\\', rest)?;
        if !allow_line_feed && memchr::memchr(b'\n', &body[at..found]).is_some() {
            return None;
        }
        if body[found] == b'"' {
            return Some(found);
        }
        if matches!(body.get(found + 1), None | Some(b'\n')) {
            return None;
        }
        at = found + 2;
    }
}

/// Whether the values of a body must be checked for UTF-8 one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Utf8 {
    /// The whole body has been found to be valid.
    Checked,
    /// Somewhere it is not.
    Unchecked,
}

/// Walks the series that starts at `start`; returns where its text ends.
pub(super) fn walk<'a>(
    body: &'a [u8],
    start: usize,
    strict: bool,
    utf8: Utf8,
    mut part: impl FnMut(Part<'a>),
) -> Result<usize, ParseError> {
    let end = name_end(body, start);
    let has_name = end > start;
    if has_name {
        part(Part::Name(&body[start..end]));
    } else if body.get(start) != Some(&b'{') {
        return Err(unexpected("a valid start token", body, start));
    }
    let brace = if strict { end } else { skip_blanks(body, end) };
    if body.get(brace) != Some(&b'{') {
        return Ok(end);
    }
    walk_braces(body, brace, strict, utf8, has_name, part)
}

/// Walks the label set whose brace opens at `brace`; without `has_name` it must hold the metric name.
pub(super) fn walk_braces<'a>(
    body: &'a [u8],
    brace: usize,
    strict: bool,
    utf8: Utf8,
    mut has_name: bool,
    mut part: impl FnMut(Part<'a>),
) -> Result<usize, ParseError> {
    let blanks = |at: usize| if strict { at } else { skip_blanks(body, at) };
    let mut at = blanks(brace + 1);
    while body.get(at) != Some(&b'}') {
        let (name, quoted) = if body.get(at) == Some(&b'"') {
            let close =
                quoted_end(body, at + 1, !strict).ok_or_else(|| unexpected("label name", body, at))?;
            let name = &body[at + 1..close];
            at = blanks(close + 1);
            (name, true)
        } else {
            let close = name_end(body, at);
            let name = &body[at..close];
            if name.is_empty() || name.contains(&b':') {
                return Err(unexpected("label name", body, at));
            }
            at = blanks(close);
            (name, false)
        };
        if body.get(at) == Some(&b'=') {
            at = blanks(at + 1);
            if body.get(at) != Some(&b'"') {
                return Err(unexpected("label value", body, at));
            }
            let close =
                quoted_end(body, at + 1, !strict).ok_or_else(|| unexpected("label value", body, at))?;
            let value = &body[at + 1..close];
            if utf8 == Utf8::Unchecked && std::str::from_utf8(value).is_err() {
                let shown = super::excerpt(value);
                return Err(ParseError::Syntax(format!("invalid UTF-8 label value: {shown:?}")));
            }
            part(Part::Label(name, quoted, value));
            at = blanks(close + 1);
        } else if quoted && !has_name {
            has_name = true;
            part(Part::QuotedName(name));
        } else if quoted && matches!(body.get(at), Some(b',' | b'}')) {
            return Err(ParseError::Syntax("metric name already set".into()));
        } else {
            return Err(unexpected("equal", body, at));
        }
        match body.get(at) {
            Some(b',') => at = blanks(at + 1),
            Some(b'}') => break,
            _ => return Err(unexpected("comma or brace close", body, at)),
        }
    }
    if !has_name {
        return Err(ParseError::Syntax("metric name not set".into()));
    }
    Ok(at + 1)
}

fn put_unescaped(raw: &[u8], out: &mut PairBuffer, name: Option<(&[u8], bool)>) -> Result<(), LabelError> {
    let value = std::str::from_utf8(raw).map_err(|_| LabelError::NotUtf8)?;
    let (name, quoted) = name.unwrap_or((METRIC_NAME.as_bytes(), false));
    let name = std::str::from_utf8(name).map_err(|_| LabelError::NotUtf8)?;
    out.push_with(
        |out| if quoted { unescape(name, true, out) } else { out.push_str(name) },
        |out| unescape(value, true, out),
    );
    Ok(())
}

/// Adds one part to `out`, with escapes resolved.
pub(super) fn put(part: Part<'_>, out: &mut PairBuffer) -> Result<(), LabelError> {
    match part {
        Part::Name(name) => put_unescaped(name, out, None),
        Part::QuotedName(name) => put_unescaped(name, out, None),
        Part::Label(name, quoted, value) => put_unescaped(value, out, Some((name, quoted))),
    }
}

/// The labels of a text that [`walk`] has accepted, in the order of the text.
pub(super) fn extract(text: &[u8], strict: bool, out: &mut PairBuffer) -> Result<(), LabelError> {
    let mut failed = None;
    let walked = walk(text, 0, strict, Utf8::Checked, |part| {
        if let Err(error) = put(part, out) {
            failed.get_or_insert(error);
        }
    });
    match (failed, walked) {
        (Some(error), _) => Err(error),
        (None, Err(_)) => Err(LabelError::NotUtf8),
        (None, Ok(_)) => Ok(()),
    }
}
