//! The functions that templates may call: Go's built-ins and Prometheus's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exec::QuerySource;
use super::format::{default_text, print_values};
use super::humanize;
use super::printf::sprintf;
use super::value::Value;
use crate::model::Labels;
use crate::model::duration::parse_duration_ms;
use crate::model::regex::GoRegex;

/// What a running template knows of the outside.
pub(super) struct Context<'a> {
    pub(super) t_ms: i64,
    pub(super) source: &'a dyn QuerySource,
}

/// Why a call has no value.
pub(super) enum CallError {
    /// Wrong number or type of arguments.
    Signature(String),
    /// An argument of another type than this one; the second is what came.
    Type(&'static str, &'static str),
    /// The function itself failed.
    Failed(String),
}

/// Name and fewest and most arguments.
const FUNCTIONS: [(&str, usize, usize); 48] = {
    const ANY: usize = usize::MAX;
    [
        ("and", 1, ANY),
        ("or", 1, ANY),
        ("not", 1, 1),
        ("call", 1, ANY),
        ("len", 1, 1),
        ("index", 1, ANY),
        ("slice", 1, 4),
        ("print", 0, ANY),
        ("printf", 1, ANY),
        ("println", 0, ANY),
        ("html", 0, ANY),
        ("js", 0, ANY),
        ("urlquery", 0, ANY),
        ("eq", 1, ANY),
        ("ne", 2, 2),
        ("lt", 2, 2),
        ("le", 2, 2),
        ("gt", 2, 2),
        ("ge", 2, 2),
        ("query", 1, 1),
        ("first", 1, 1),
        ("label", 2, 2),
        ("value", 1, 1),
        ("strvalue", 1, 1),
        ("args", 0, ANY),
        ("reReplaceAll", 3, 3),
        ("safeHtml", 1, 1),
        ("match", 2, 2),
        ("title", 1, 1),
        ("toUpper", 1, 1),
        ("toLower", 1, 1),
        ("graphLink", 1, 1),
        ("tableLink", 1, 1),
        ("sortByLabel", 2, 2),
        ("stripPort", 1, 1),
        ("stripDomain", 1, 1),
        ("humanize", 1, 1),
        ("humanize1024", 1, 1),
        ("humanizeDuration", 1, 1),
        ("humanizePercentage", 1, 1),
        ("humanizeTimestamp", 1, 1),
        ("toTime", 1, 1),
        ("toDuration", 1, 1),
        ("now", 0, 0),
        ("pathPrefix", 0, 0),
        ("externalURL", 0, 0),
        ("parseDuration", 1, 1),
        ("urlQueryEscape", 1, 1),
    ]
};

/// Whether a template may call `name`.
pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(n, _, _)| *n == name)
}

/// All function names, for `/api/v1/features`.
#[must_use]
pub fn names() -> Vec<&'static str> {
    FUNCTIONS.iter().map(|(n, _, _)| *n).collect()
}

type Called = Result<Value, CallError>;

fn failed(message: impl Into<String>) -> CallError {
    CallError::Failed(message.into())
}

fn wrong_type(expected: &'static str, got: &Value) -> CallError {
    CallError::Type(expected, got.type_name())
}

fn text(v: &Value) -> Result<&str, CallError> {
    match v {
        Value::String(s) => Ok(s),
        other => Err(wrong_type("string", other)),
    }
}

fn sample(v: &Value) -> Result<&(Labels, f64), CallError> {
    match v {
        Value::Sample(sample) => Ok(sample),
        other => Err(wrong_type("*template.sample", other)),
    }
}

fn samples(v: &Value) -> Result<&Arc<Vec<(Labels, f64)>>, CallError> {
    match v {
        Value::Samples(samples) => Ok(samples),
        other => Err(wrong_type("template.queryResult", other)),
    }
}

/// Numbers as `humanize` and its kin take them: floats, whole numbers, durations, or their text.
fn float(v: &Value) -> Result<f64, CallError> {
    match v {
        Value::Float(f) => Ok(*f),
        Value::Int(i) => Ok(*i as f64),
        Value::Duration(ns) => Ok(*ns as f64 / 1e9),
        Value::String(s) => parse_float(s)
            .map_err(|reason| failed(format!("strconv.ParseFloat: parsing {:?}: {reason}", s.as_ref()))),
        Value::Nil => Err(failed("can't convert <nil> to float")),
        other => Err(failed(format!("can't convert {} to float", other.type_name()))),
    }
}

/// Go's `strconv.ParseFloat`: underscores between digits, hexadecimal floats, an error where a number is too large.
fn parse_float(text: &str) -> Result<f64, &'static str> {
    let invalid = "invalid syntax";
    let bytes = text.as_bytes();
    let lone_underscore = bytes.iter().enumerate().any(|(i, b)| {
        *b == b'_'
            && !(i > 0 && bytes[i - 1].is_ascii_digit() && bytes.get(i + 1).is_some_and(u8::is_ascii_digit))
    });
    if lone_underscore {
        return Err(invalid);
    }
    let plain = text.replace('_', "");
    let unsigned = plain.trim_start_matches(['+', '-']);
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let (mantissa, exponent) = hex.split_once(['p', 'P']).ok_or(invalid)?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let number = u64::from_str_radix(&digits, 16).map_err(|_| invalid)? as f64;
        let exponent: i32 = exponent.parse().map_err(|_| invalid)?;
        let shift = i32::try_from(fraction.len()).map_or(i32::MIN, |n| exponent.saturating_sub(4 * n));
        let value = number * 2f64.powi(shift);
        return Ok(if plain.starts_with('-') { -value } else { value });
    }
    let value: f64 = plain.parse().map_err(|_| invalid)?;
    let infinite_by_name = unsigned.starts_with(['i', 'I']);
    if value.is_infinite() && !infinite_by_name { Err("value out of range") } else { Ok(value) }
}

pub(super) fn call(name: &str, arguments: &[Value], context: &Context<'_>) -> Called {
    let Some((_, least, most)) = FUNCTIONS.iter().find(|(n, _, _)| *n == name) else {
        return Err(CallError::Signature(format!("{name:?} is not a defined function")));
    };
    let got = arguments.len();
    if got < *least || got > *most {
        let want = if least == most { least.to_string() } else { format!("at least {least}") };
        return Err(CallError::Signature(format!("wrong number of args for {name}: want {want} got {got}")));
    }
    match name {
        "query" => context
            .source
            .query(text(&arguments[0])?, context.t_ms)
            .map(|result| Value::Samples(Arc::new(result)))
            .map_err(failed),
        "now" => Ok(Value::Float(context.t_ms as f64 / 1000.0)),
        "externalURL" => Ok(Value::string(context.source.external_url())),
        "pathPrefix" => {
            let url = context.source.external_url();
            let path = url.split_once("://").map_or(url, |(_, rest)| rest);
            let path = path.find('/').map_or("", |at| &path[at..]);
            Ok(Value::string(path.trim_end_matches('/')))
        }
        "call" if arguments[0] == Value::Nil => Err(failed("call of nil")),
        "call" => Err(failed(format!(
            "non-function {} of type {}",
            default_text(&arguments[0]),
            arguments[0].type_name()
        ))),
        "not" => Ok(Value::Bool(!arguments[0].is_true())),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments),
        "len" => length(&arguments[0]),
        "index" => index(arguments),
        "slice" => slice(arguments),
        _ => pure(name, arguments),
    }
}

fn pure(name: &str, arguments: &[Value]) -> Called {
    let a = |i: usize| arguments.get(i).unwrap_or(&Value::Nil);
    let string = |s: String| Ok(Value::String(s.into()));
    match name {
        "print" => string(print_values(arguments)),
        "println" => {
            let all: Vec<String> = arguments.iter().map(default_text).collect();
            string(format!("{}\n", all.join(" ")))
        }
        "printf" => string(sprintf(text(a(0))?, arguments.get(1..).unwrap_or(&[]))),
        "html" => string(escape_html(&print_values(arguments))),
        "js" => string(escape_js(&print_values(arguments))),
        "urlquery" => string(query_escape(&print_values(arguments))),
        "urlQueryEscape" => string(query_escape(text(a(0))?)),
        "first" => samples(a(0))?
            .first()
            .map(|s| Value::Sample(Arc::new(s.clone())))
            .ok_or_else(|| failed("first() called on vector with no elements")),
        "label" => Ok(Value::string(sample(a(1))?.0.value(text(a(0))?))),
        "value" => Ok(Value::Float(sample(a(0))?.1)),
        "strvalue" => Ok(Value::string(sample(a(0))?.0.value("__value__"))),
        "args" => Ok(Value::Map(Arc::new(
            arguments
                .iter()
                .enumerate()
                .map(|(i, v)| (format!("arg{i}"), v.clone()))
                .collect::<BTreeMap<_, _>>(),
        ))),
        "reReplaceAll" => {
            let pattern = text(a(0))?;
            let regex =
                GoRegex::new(pattern).map_err(|e| failed(format!("regexp: Compile(`{pattern}`): {e}")))?;
            string(regex.replace_all(text(a(2))?, text(a(1))?))
        }
        "match" => {
            let regex = GoRegex::new(text(a(0))?).map_err(|e| failed(e.to_string()))?;
            Ok(Value::Bool(regex.is_match(text(a(1))?)))
        }
        "safeHtml" => text(a(0)).map(Value::string),
        "title" => string(title(text(a(0))?)),
        "toUpper" => string(text(a(0))?.to_uppercase()),
        "toLower" => string(text(a(0))?.to_lowercase()),
        "graphLink" => string(format!("/graph?g0.expr={}&g0.tab=0", query_escape(text(a(0))?))),
        "tableLink" => string(format!("/graph?g0.expr={}&g0.tab=1", query_escape(text(a(0))?))),
        "sortByLabel" => {
            let (label, mut sorted) = (text(a(0))?, samples(a(1))?.as_ref().clone());
            sorted.sort_by(|x, y| x.0.value(label).cmp(y.0.value(label)));
            Ok(Value::Samples(Arc::new(sorted)))
        }
        "stripPort" => string(strip_port(text(a(0))?)),
        "stripDomain" => string(strip_domain(text(a(0))?)),
        "humanize" => string(humanize::humanize(float(a(0))?)),
        "humanize1024" => string(humanize::humanize1024(float(a(0))?)),
        "humanizeDuration" => string(humanize::humanize_duration(float(a(0))?)),
        "humanizePercentage" => string(humanize::humanize_percentage(float(a(0))?)),
        "humanizeTimestamp" => string(humanize::humanize_timestamp(float(a(0))?).map_err(failed)?),
        "toTime" => Ok(Value::Time(humanize::seconds_to_ms(float(a(0))?).map_err(failed)?)),
        "toDuration" => {
            let v = float(a(0))?;
            humanize::seconds_to_ms(v).map_err(failed)?;
            Ok(Value::Duration((v * 1e9) as i64))
        }
        "parseDuration" => {
            let ms = parse_duration_ms(text(a(0))?).map_err(failed)?;
            Ok(Value::Float(ms as f64 / 1000.0))
        }
        other => Err(CallError::Signature(format!("{other:?} is not a defined function"))),
    }
}

fn compare(name: &str, arguments: &[Value]) -> Called {
    use std::cmp::Ordering;
    let pair = |a: &Value, b: &Value| -> Result<Option<Ordering>, CallError> {
        match (a, b) {
            (Value::Bool(x), Value::Bool(y)) if matches!(name, "eq" | "ne") => Ok(Some(x.cmp(y))),
            (Value::Int(x), Value::Int(y)) => Ok(Some(x.cmp(y))),
            (Value::Float(x), Value::Float(y)) => Ok(x.partial_cmp(y)),
            (Value::String(x), Value::String(y)) => Ok(Some(x.cmp(y))),
            (Value::Nil, Value::Nil) if matches!(name, "eq" | "ne") => Ok(Some(Ordering::Equal)),
            (Value::Nil, _) | (_, Value::Nil) if matches!(name, "eq" | "ne") => Ok(None),
            (Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Bool(_), _)
                if matches!(b, Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Bool(_))
                    && std::mem::discriminant(a) != std::mem::discriminant(b) =>
            {
                Err(failed(format!(
                    "incompatible types for comparison: {} and {}",
                    a.type_name(),
                    b.type_name()
                )))
            }
            (Value::StringMap(_) | Value::Map(_) | Value::Samples(_), _) if matches!(name, "eq" | "ne") => {
                Err(failed(format!("non-comparable type {}: {}", default_text(a), a.type_name())))
            }
            _ => Err(failed("invalid type for comparison")),
        }
    };
    if name == "eq" {
        if arguments.len() < 2 {
            return Err(failed("missing argument for comparison"));
        }
        for other in &arguments[1..] {
            if pair(&arguments[0], other)? == Some(Ordering::Equal) {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    let order = pair(&arguments[0], &arguments[1])?;
    Ok(Value::Bool(match name {
        "ne" => order != Some(Ordering::Equal),
        "lt" => order == Some(Ordering::Less),
        "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }))
}

fn length(v: &Value) -> Called {
    let n = match v {
        Value::String(s) => s.len(),
        Value::StringMap(m) => m.len(),
        Value::Map(m) => m.len(),
        Value::Samples(s) => s.len(),
        other => return Err(failed(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

fn index(arguments: &[Value]) -> Called {
    let mut current = arguments[0].clone();
    for key in &arguments[1..] {
        let at = |len: usize| -> Result<usize, CallError> {
            match key {
                Value::Int(i) => usize::try_from(*i)
                    .ok()
                    .filter(|i| *i < len)
                    .ok_or_else(|| failed(format!("index out of range: {i}"))),
                other => Err(failed(format!("cannot index slice/array with type {}", other.type_name()))),
            }
        };
        current = match &current {
            Value::StringMap(_) | Value::Map(_) if !matches!(key, Value::String(_)) => {
                return Err(failed(format!("value has type {}; should be string", key.type_name())));
            }
            Value::StringMap(map) => Value::string(map.value(text(key)?)),
            Value::Map(map) => map.get(text(key)?).cloned().unwrap_or(Value::Nil),
            Value::Samples(samples) => Value::Sample(Arc::new(samples[at(samples.len())?].clone())),
            Value::String(s) => Value::Int(i64::from(s.as_bytes()[at(s.len())?])),
            Value::Nil => return Err(failed("index of untyped nil")),
            other => return Err(failed(format!("can't index item of type {}", other.type_name()))),
        };
    }
    Ok(current)
}

fn slice(arguments: &[Value]) -> Called {
    let length = match &arguments[0] {
        Value::String(_) if arguments.len() == 4 => return Err(failed("cannot 3-index slice a string")),
        Value::String(s) => s.len(),
        Value::Samples(s) => s.len(),
        other => return Err(failed(format!("can't slice item of type {}", other.type_name()))),
    };
    let mut bounds = [0, length, length];
    for (bound, given) in bounds.iter_mut().zip(&arguments[1..]) {
        *bound = match given {
            Value::Int(n) => usize::try_from(*n)
                .ok()
                .filter(|n| *n <= length)
                .ok_or_else(|| failed(format!("index out of range: {n}")))?,
            other => return Err(failed(format!("cannot index slice/array with type {}", other.type_name()))),
        };
    }
    let [from, to, most] = bounds;
    for (low, high) in [(from, to), (to, most)] {
        if low > high {
            return Err(failed(format!("invalid slice index: {low} > {high}")));
        }
    }
    Ok(match &arguments[0] {
        // A cut within a character leaves replacement characters, as Go's bytes would print.
        Value::String(s) => Value::string(&String::from_utf8_lossy(&s.as_bytes()[from..to])),
        Value::Samples(s) => Value::Samples(Arc::new(s[from..to].to_vec())),
        _ => Value::Nil,
    })
}

/// The first cased letter of each word in its title form; the rest stays. Words end as in Unicode's word boundaries:
/// an apostrophe, point, colon or middle dot between letters does not end one, nor a point or comma between digits.
fn title(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut titled = false;
    for (i, c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| chars.get(i)).copied().unwrap_or(' ');
        let after = chars.get(i + 1).copied().unwrap_or(' ');
        let joins = match c {
            '\'' | '.' | '\u{2018}' | '\u{2019}' | '\u{2024}' => {
                (before.is_alphabetic() && after.is_alphabetic())
                    || (before.is_numeric() && after.is_numeric())
            }
            ':' | '\u{b7}' | '\u{387}' | '\u{2027}' => before.is_alphabetic() && after.is_alphabetic(),
            ',' | ';' => before.is_numeric() && after.is_numeric(),
            c => c.is_alphanumeric() || *c == '_',
        };
        if !joins {
            titled = false;
        } else if !titled && (c.is_lowercase() || c.is_uppercase()) {
            titled = true;
            push_title(*c, &mut out);
            continue;
        } else if c.is_alphabetic() {
            titled = true;
        }
        out.push(*c);
    }
    out
}

fn push_title(c: char, out: &mut String) {
    // Four letters have a title form of their own.
    let own = match c {
        'ǆ' | 'Ǆ' => Some('ǅ'),
        'ǉ' | 'Ǉ' => Some('ǈ'),
        'ǌ' | 'Ǌ' => Some('ǋ'),
        'ǳ' | 'Ǳ' => Some('ǲ'),
        _ => None,
    };
    if let Some(own) = own {
        out.push(own);
        return;
    }
    let mut upper = c.to_uppercase();
    out.extend(upper.next());
    out.extend(upper.flat_map(char::to_lowercase));
}

fn strip_port(host_port: &str) -> String {
    if let Some(rest) = host_port.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return if port.starts_with(':') { host.to_owned() } else { host_port.to_owned() };
    }
    match host_port.split_once(':') {
        Some((host, port)) if !port.contains(':') => host.to_owned(),
        _ => host_port.to_owned(),
    }
}

fn strip_domain(host_port: &str) -> String {
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (host_port, None),
    };
    if host_port.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        return host_port.to_owned();
    }
    let short = host.split('.').next().unwrap_or(host);
    port.map_or_else(|| short.to_owned(), |port| format!("{short}:{port}"))
}

/// Go's `url.QueryEscape`.
#[must_use]
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b' ' => out.push('+'),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' => out.push_str("\\u003C"),
            '>' => out.push_str("\\u003E"),
            '&' => out.push_str("\\u0026"),
            '=' => out.push_str("\\u003D"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}
