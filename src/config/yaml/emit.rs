//! How does the effective configuration print? As Go's YAML library prints it: two blanks of indentation, lists
//! at the level of their key, quotes only where a plain text would read as something else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::decode::{parse_bool, parse_float, parse_int};

/// A value to print.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A number or boolean, printed as it is.
    Plain(String),
    /// A text, quoted where needed.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A list of texts on one line.
    Flow(Vec<String>),
    /// A mapping in order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value under a key of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Prints the value as a document.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::new();
        match self {
            Value::Map(entries) if entries.is_empty() => out.push_str("{}\n"),
            Value::Map(_) | Value::List(_) => block(self, 0, &mut out),
            _ => {
                scalar(self, 0, &mut out);
                out.push('\n');
            }
        }
        out
    }
}

fn pad(indent: usize, out: &mut String) {
    for _ in 0..indent {
        out.push(' ');
    }
}

/// Prints a collection whose first line is already indented by the caller when `indent` is where it stands.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Map(entries) => {
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 || out.ends_with('\n') {
                    pad(indent, out);
                }
                text(key, indent, out);
                out.push(':');
                match value {
                    Value::Map(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Value::List(items) if !items.is_empty() => {
                        out.push('\n');
                        block(value, indent, out);
                    }
                    _ => {
                        out.push(' ');
                        scalar(value, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Value::List(items) => {
            for item in items {
                if out.ends_with('\n') || out.is_empty() {
                    pad(indent, out);
                }
                out.push_str("- ");
                match item {
                    Value::Map(inner) if !inner.is_empty() => block(item, indent + 2, out),
                    Value::List(inner) if !inner.is_empty() => block(item, indent + 2, out),
                    _ => {
                        scalar(item, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

fn scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Plain(plain) => out.push_str(plain),
        Value::Text(t) => text(t, indent, out),
        Value::List(_) => out.push_str("[]"),
        Value::Flow(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                // Characters that end a text within brackets.
                if item.contains([',', '[', ']', '{', '}', '\n']) {
                    double_quoted(item, out);
                } else {
                    text(item, indent, out);
                }
            }
            out.push(']');
        }
        Value::Map(_) => out.push_str("{}"),
    }
}

fn text(text: &str, indent: usize, out: &mut String) {
    let reads_as_other = matches!(text, "~" | "null" | "Null" | "NULL" | "<<")
        || parse_bool(text).is_some()
        || parse_int(text).is_some()
        || parse_float(text).is_some()
        || text == "="
        || is_base_60(text)
        || is_date(text);
    if text.is_empty() || reads_as_other {
        let _ = write!(out, "\"{text}\"");
        return;
    }
    let printable = text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{feff}'));
    if !printable {
        double_quoted(text, out);
        return;
    }
    if text.contains('\n') {
        literal(text, indent, out);
        return;
    }
    // A dash before anything but a blank is part of the text.
    let dashed =
        text.strip_prefix(['-', '?']).is_some_and(|rest| !rest.is_empty() && !rest.starts_with([' ', '-']));
    let first_special = !dashed && text.starts_with(|c: char| "-?:,[]{}#&*!|>'\"%@`".contains(c));
    let special = first_special
        || text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.starts_with("---");
    if special {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    } else {
        out.push_str(text);
    }
}

/// The sexagesimal numbers of YAML 1.1, such as `190:20:30`.
fn is_base_60(text: &str) -> bool {
    let mut parts = text.trim_start_matches(['+', '-']).split(':');
    let first = parts.next().unwrap_or_default();
    let numeric =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || b == b'_' || b == b'.');
    let mut rest = parts.peekable();
    rest.peek().is_some() && numeric(first) && rest.all(numeric)
}

/// Dates and timestamps of YAML 1.1: four digits, a dash, one or two digits, a dash, a digit.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, len: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|p| len.contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
    };
    digits(parts.next(), 4..=4)
        && digits(parts.next(), 1..=2)
        && parts.next().is_some_and(|p| p.starts_with(|c: char| c.is_ascii_digit()))
}

fn literal(text: &str, indent: usize, out: &mut String) {
    if text.starts_with([' ', '\n']) {
        double_quoted(text, out);
        return;
    }
    let trimmed = text.trim_end_matches('\n');
    out.push_str(match text.len() - trimmed.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent.max(2), out);
            out.push_str(line);
        }
    }
}

fn double_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A value that prints itself.
pub trait ToYaml {
    /// The value to print, secrets blanked out.
    fn to_value(&self) -> Value;
    /// Whether Go's `omitempty` would leave it out.
    fn is_empty(&self) -> bool;
}

impl ToYaml for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
    fn is_empty(&self) -> bool {
        String::is_empty(self)
    }
}

impl ToYaml for bool {
    fn to_value(&self) -> Value {
        Value::Plain(self.to_string())
    }
    fn is_empty(&self) -> bool {
        !self
    }
}

impl ToYaml for f64 {
    fn to_value(&self) -> Value {
        Value::Plain(crate::model::number::format_g(*self))
    }
    fn is_empty(&self) -> bool {
        *self == 0.0
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl ToYaml for $ty {
            fn to_value(&self) -> Value {
                Value::Plain(self.to_string())
            }
            fn is_empty(&self) -> bool {
                *self == 0
            }
        }
    )*};
}
integers!(u64, i64, u32, i32, u16);

impl<T: ToYaml> ToYaml for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToYaml::to_value)
    }
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T: ToYaml> ToYaml for Box<T> {
    fn to_value(&self) -> Value {
        (**self).to_value()
    }
    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }
}

impl<T: ToYaml> ToYaml for Vec<T> {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(ToYaml::to_value).collect())
    }
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

impl<T: ToYaml> ToYaml for BTreeMap<String, T> {
    fn to_value(&self) -> Value {
        Value::Map(self.iter().map(|(k, v)| (k.clone(), v.to_value())).collect())
    }
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }
}
