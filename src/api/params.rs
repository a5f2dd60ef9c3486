//! What did the client ask? URL and form parameters, merged as Go's `net/http` merges them, and the grammar of
//! times, durations, limits and selectors.

use super::error::ApiError;
use super::multipart;
use crate::model::duration::parse_duration_ms;
use crate::model::labels::quoted;

/// Most bytes of a form body, as in Go.
pub const MAX_FORM_BYTES: usize = 10 << 20;
/// Most parameters of one request.
const MAX_PARAMETERS: usize = 10_000;
/// Earliest time a client may leave open, milliseconds.
pub const MIN_TIME_MS: i64 = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// Latest time a client may leave open, milliseconds.
pub const MAX_TIME_MS: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// The parameters of one request: those of the form body first, then those of the URL, then those of a multipart form.
#[derive(Debug, Clone, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    /// What is wrong with the first piece that was left out.
    fault: Option<String>,
}

impl Params {
    /// Merges a form body and a query string.
    pub fn parse(body: &[u8], query: &str) -> Result<Self, ApiError> {
        let mut all = Self::default();
        for source in [body, query.as_bytes()] {
            for piece in source.split(|b| *b == b'&') {
                if let Some(fault) = fault_of(piece) {
                    all.fault.get_or_insert(fault);
                    continue;
                }
                for (name, value) in url::form_urlencoded::parse(piece) {
                    all.push(name.into_owned(), value.into_owned())?;
                }
            }
        }
        Ok(all)
    }

    /// Adds the texts of a multipart form; one that is broken adds nothing, as in Go.
    pub fn add_multipart(&mut self, body: &[u8], boundary: &str) -> Result<(), ApiError> {
        multipart::texts(body, boundary)
            .unwrap_or_default()
            .into_iter()
            .try_for_each(|(n, v)| self.push(n, v))
    }

    fn push(&mut self, name: String, value: String) -> Result<(), ApiError> {
        if self.pairs.len() >= MAX_PARAMETERS {
            return Err(ApiError::bad_data(format!(
                "error parsing form values: more than {MAX_PARAMETERS} parameters"
            )));
        }
        self.pairs.push((name, value));
        Ok(())
    }

    /// An error if a piece had to be left out, for endpoints where Prometheus looks.
    pub fn require_sound(&self) -> Result<(), ApiError> {
        match &self.fault {
            None => Ok(()),
            Some(fault) => Err(ApiError::bad_data(format!("error parsing form values: {fault}"))),
        }
    }

    /// The first value of a parameter, empty if absent.
    #[must_use]
    pub fn first(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time, milliseconds; `default_ms` where absent.
    pub fn time(&self, name: &str, default_ms: i64) -> Result<i64, ApiError> {
        match self.first(name) {
            "" => Ok(default_ms),
            text => parse_time(text)
                .map_err(|e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// A time that must be given, milliseconds.
    pub fn required_time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.first(name)).map_err(|e| ApiError::parameter(name, e))
    }

    /// A duration in milliseconds, if given.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.first(name) {
            "" => Ok(None),
            text => parse_seconds_or_duration(text).map(Some).map_err(|e| ApiError::parameter(name, e)),
        }
    }

    /// A non-negative number, 0 where absent.
    pub fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let text = self.first(name);
        if text.is_empty() {
            return Ok(0);
        }
        let number: i64 =
            text.parse().map_err(|e| ApiError::parameter(name, number_fault("Atoi", text, &e)))?;
        usize::try_from(number).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// A switch: `1`, `t`, `true` and the like; `default` where absent or strange.
    #[must_use]
    pub fn switch(&self, name: &str, default: bool) -> bool {
        parse_switch(self.first(name)).unwrap_or(default)
    }
}

/// Why a text is no whole number, in the words of a function of Go.
pub fn number_fault(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let reason = match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {reason}", quoted(text))
}

/// A switch in one of Go's spellings; the error is in its words.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(text))),
    }
}

/// Why Go does not take a piece of a query or form: a semicolon, or no two hexadecimal digits behind a percent sign.
fn fault_of(piece: &[u8]) -> Option<String> {
    if piece.contains(&b';') {
        return Some("invalid semicolon separator in query".into());
    }
    bad_escape(piece).map(|escape| {
        let mut text = "invalid URL escape ".to_owned();
        // Writing to a string cannot fail.
        let _ = crate::model::labels::write_quoted_bytes(&mut text, escape);
        text
    })
}

/// The first percent sign without two hexadecimal digits behind it, with what stands there instead.
pub fn bad_escape(text: &[u8]) -> Option<&[u8]> {
    let at = |(i, _): (usize, &u8)| &text[i..text.len().min(i + 3)];
    let escapes = text.iter().enumerate().filter(|(_, b)| **b == b'%').map(at);
    escapes.into_iter().find(|e| e.len() < 3 || !e[1..].iter().all(u8::is_ascii_hexdigit))
}

/// Parses Unix seconds with a fraction, or RFC 3339, to milliseconds.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Some(seconds) = parse_go_float(text) {
        if seconds.is_nan() {
            return Err(format!("cannot parse {} to a valid timestamp", quoted(text)));
        }
        let whole = seconds.trunc();
        let fraction = ((seconds - whole) * 1000.0).round();
        // Saturates for the huge values that stand for "open".
        return Ok((whole * 1000.0 + fraction) as i64);
    }
    match text {
        MIN_TIME_TEXT => return Ok(MIN_TIME_MS),
        MAX_TIME_TEXT => return Ok(MAX_TIME_MS),
        _ => {}
    }
    // Go wants the full form: `T` between date and time, and a zone.
    let shaped = text.as_bytes().get(10) == Some(&b'T');
    match text.parse::<jiff::Timestamp>() {
        Ok(t) if shaped => Ok(t.as_nanosecond().div_euclid(1_000_000) as i64),
        _ => Err(format!("cannot parse {} to a valid timestamp", quoted(text))),
    }
}

/// Parses float seconds or a Prometheus duration to milliseconds.
pub fn parse_seconds_or_duration(text: &str) -> Result<i64, String> {
    if let Some(seconds) = parse_go_float(text) {
        let nanoseconds = seconds * 1e9;
        if nanoseconds.is_nan() || nanoseconds > i64::MAX as f64 || nanoseconds < i64::MIN as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", quoted(text)));
        }
        return Ok((nanoseconds / 1e6) as i64);
    }
    parse_duration_ms(text).map_err(|_| format!("cannot parse {} to a valid duration", quoted(text)))
}

/// A decimal float as Go reads it: digits may be grouped by underscores, and what is too large for a float is none.
fn parse_go_float(text: &str) -> Option<f64> {
    let value: f64 = if text.contains('_') {
        let grouped = text.as_bytes().windows(3).filter(|w| w[1] == b'_');
        let all = grouped.clone().all(|w| w[0].is_ascii_digit() && w[2].is_ascii_digit());
        if !all || grouped.count() != text.matches('_').count() {
            return None;
        }
        text.replace('_', "").parse().ok()?
    } else {
        text.parse().ok()?
    };
    let spelled = text.bytes().any(|b| b.eq_ignore_ascii_case(&b'i'));
    (value.is_finite() || value.is_nan() || spelled).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        for (text, want) in [
            ("0", 0),
            ("1435781451.781", 1_435_781_451_781),
            ("1e3", 1_000_000),
            ("-1.5", -1_500),
            ("1_000.5", 1_000_500),
            ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
            ("2015-07-01T22:10:51.781+02:00", 1_435_781_451_781),
            (MIN_TIME_TEXT, MIN_TIME_MS),
            (MAX_TIME_TEXT, MAX_TIME_MS),
        ] {
            assert_eq!(parse_time(text), Ok(want), "{text}");
        }
        for bad in [
            "1e400",
            "_1",
            "1__0",
            "1_",
            "",
            "x",
            "NaN",
            "2015-07-01",
            "2015-07-01 20:10:51Z",
            "2015-07-01T20:10:51",
            "30m",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_durations() {
        for (text, want) in [("15", 15_000), ("0.5", 500), ("1m30s", 90_000), ("-1", -1_000)] {
            assert_eq!(parse_seconds_or_duration(text), Ok(want), "{text}");
        }
        assert_eq!(
            parse_seconds_or_duration("1e300"),
            Err("cannot parse \"1e300\" to a valid duration. It overflows int64".into())
        );
        assert_eq!(parse_seconds_or_duration("x"), Err("cannot parse \"x\" to a valid duration".into()));
    }

    #[test]
    fn the_body_comes_before_the_url() {
        let params = Params::parse(b"query=a&match[]=x", "query=b&match%5B%5D=y+z").expect("valid");
        assert_eq!(params.first("query"), "a");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y z"]);
        assert_eq!(params.first("absent"), "");
        // Pieces that Go does not take are as if they were not there.
        let params = Params::parse(b"query=%zz&time=1;2&a=%41", "query=b&x=%4").expect("valid");
        assert_eq!((params.first("query"), params.first("time")), ("b", ""));
        assert_eq!((params.first("a"), params.first("x")), ("A", ""));
        let fault = |query| Params::parse(b"", query).expect("valid").require_sound().map_err(|e| e.message);
        assert_eq!(fault("a=%41&b"), Ok(()));
        for (query, want) in [
            ("a=1&b=2;c", "error parsing form values: invalid semicolon separator in query"),
            ("a=%4&b=;", "error parsing form values: invalid URL escape \"%4\""),
            ("%x0y", "error parsing form values: invalid URL escape \"%x0\""),
        ] {
            assert_eq!(fault(query), Err(want.to_owned()), "{query}");
        }
    }
}
