//! The grammar of `name{label="value", …}` in the text formats: one walk that checks a series, and yields its parts
//! to whoever wants them.
//!
//! The Prometheus text format allows blanks around every token; OpenMetrics (`strict`) allows none.

use super::labels::{LabelError, PairBuffer};
use super::{ParseError, unescape, unexpected};
use crate::model::METRIC_NAME;

/// Where a part begins and ends.
type Place = (usize, usize);

/// One part of a series text, still escaped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The metric name, quoted or not.
    Name(Place),
    /// A label; the flag says whether the name was quoted.
    Label(Place, bool, Place),
}

#[inline]
pub(super) fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_' || b == b':'
}

/// Which bytes names consist of.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        b += 1;
    }
    table
};

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
    at + rest.iter().position(|b| !NAME[usize::from(*b)]).unwrap_or(rest.len())
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

/// A body as text, if all of it is; looked at when it is needed first.
#[derive(Default)]
pub(super) struct Checked<'b>(Option<Option<&'b str>>);

impl<'b> Checked<'b> {
    fn whole(&mut self, body: &'b [u8]) -> Option<&'b str> {
        *self.0.get_or_insert_with(|| std::str::from_utf8(body).ok())
    }

    /// Whether all of it is text.
    pub(super) fn utf8(&mut self, body: &'b [u8]) -> Utf8 {
        if self.whole(body).is_some() { Utf8::Checked } else { Utf8::Unchecked }
    }

    /// A part of it.
    pub(super) fn part(&mut self, body: &'b [u8], from: usize, to: usize) -> Option<&'b str> {
        self.whole(body)?.get(from..to)
    }
}

/// Walks the series that starts at `start`; returns where its text ends.
#[inline]
pub(super) fn walk(
    body: &[u8],
    start: usize,
    strict: bool,
    utf8: Utf8,
    mut part: impl FnMut(Part),
) -> Result<usize, ParseError> {
    let end = name_end(body, start);
    let has_name = end > start;
    if has_name {
        part(Part::Name((start, end)));
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
#[inline]
pub(super) fn walk_braces(
    body: &[u8],
    brace: usize,
    strict: bool,
    utf8: Utf8,
    mut has_name: bool,
    mut part: impl FnMut(Part),
) -> Result<usize, ParseError> {
    let blanks = |at: usize| if strict { at } else { skip_blanks(body, at) };
    let mut at = blanks(brace + 1);
    while body.get(at) != Some(&b'}') {
        let (name, quoted) = if body.get(at) == Some(&b'"') {
            let close =
                quoted_end(body, at + 1, !strict).ok_or_else(|| unexpected("label name", body, at))?;
            let name = (at + 1, close);
            at = blanks(close + 1);
            (name, true)
        } else {
            let close = name_end(body, at);
            if close == at || body[at..close].contains(&b':') {
                return Err(unexpected("label name", body, at));
            }
            let name = (at, close);
            at = blanks(close);
            (name, false)
        };
        if body.get(at) == Some(&b'=') {
            at = blanks(at + 1);
            if body.get(at) != Some(&b'"') {
                return Err(unexpected("label value", body, at));
            }
            let open = at + 1;
            let close = quoted_end(body, open, !strict).ok_or_else(|| unexpected("label value", body, at))?;
            if utf8 == Utf8::Unchecked && std::str::from_utf8(&body[open..close]).is_err() {
                let shown = super::excerpt(&body[open..close]);
                return Err(ParseError::Syntax(format!("invalid UTF-8 label value: {shown:?}")));
            }
            part(Part::Label(name, quoted, (open, close)));
            at = blanks(close + 1);
        } else if quoted && !has_name {
            has_name = true;
            part(Part::Name(name));
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

/// Adds one part to `out`, with escapes resolved; `text` reads what is at a place.
pub(super) fn put<'t>(
    part: Part,
    out: &mut PairBuffer,
    text: impl Fn(Place) -> Result<&'t str, LabelError>,
) -> Result<(), LabelError> {
    let (name, quoted, value) = match part {
        Part::Name(place) => (METRIC_NAME, false, text(place)?),
        Part::Label(name, quoted, value) => (text(name)?, quoted, text(value)?),
    };
    out.push_with(
        |out| if quoted { unescape(name, true, out) } else { out.push_str(name) },
        |out| unescape(value, true, out),
    );
    Ok(())
}

/// Reads parts of a body that need not be UTF-8.
pub(super) fn of_bytes<'t>(body: &'t [u8]) -> impl Fn(Place) -> Result<&'t str, LabelError> {
    move |(from, to)| std::str::from_utf8(&body[from..to]).map_err(|_| LabelError::NotUtf8)
}

/// The labels of a text that [`walk`] has accepted, in the order of the text; `valid` is the same text if that is known
/// to be UTF-8.
pub(super) fn extract(
    text: &[u8],
    valid: Option<&str>,
    strict: bool,
    out: &mut PairBuffer,
) -> Result<(), LabelError> {
    let valid = valid.map_or_else(|| std::str::from_utf8(text), Ok).map_err(|_| LabelError::NotUtf8)?;
    let mut failed = None;
    let walked = walk(text, 0, strict, Utf8::Checked, |part| {
        if let Err(error) = put(part, out, |(from, to)| valid.get(from..to).ok_or(LabelError::NotUtf8)) {
            failed.get_or_insert(error);
        }
    });
    match (failed, walked) {
        (Some(error), _) => Err(error),
        (None, Err(_)) => Err(LabelError::NotUtf8),
        (None, Ok(_)) => Ok(()),
    }
}
