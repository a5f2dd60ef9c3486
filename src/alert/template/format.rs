//! Go's `fmt` for template values: `Print` and `Printf`.

use super::value::Value;
use crate::model::number::{format_e, format_g, format_g_precision};

/// Largest width or precision a verb may ask for.
const MAX_WIDTH: usize = 10_000;

/// `fmt.Sprint` of one value, as a template action prints it.
#[must_use]
pub fn print_value(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".into(),
        other => default_text(other),
    }
}

/// `fmt.Sprint` of several values: a blank between two that are both no strings.
#[must_use]
pub fn print_values(values: &[Value]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let is_string = |v: &Value| matches!(v, Value::String(_));
        if i > 0 && !is_string(value) && !is_string(&values[i - 1]) {
            out.push(' ');
        }
        out.push_str(&default_text(value));
    }
    out
}

/// `%v`.
pub(super) fn default_text(value: &Value) -> String {
    match value {
        Value::Nil => "<nil>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => format_g(*f),
        Value::String(s) => s.to_string(),
        Value::StringMap(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Map(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", default_text(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Struct(map) => {
            let get = |name: &str| map.get(name).map_or_else(String::new, default_text);
            format!("{{{} {} {} {}}}", get("Labels"), get("ExternalLabels"), get("ExternalURL"), get("Value"))
        }
        Value::Sample(sample) => {
            format!("&{{{} {}}}", default_text(&Value::from_labels(&sample.0)), format_g(sample.1))
        }
        Value::Samples(samples) => {
            let all: Vec<String> = samples
                .iter()
                .map(|(labels, v)| {
                    format!("&{{{} {}}}", default_text(&Value::from_labels(labels)), format_g(*v))
                })
                .collect();
            format!("[{}]", all.join(" "))
        }
        Value::Time(ms) => time_text(*ms),
        Value::Duration(ns) => duration_text(*ns),
    }
}

/// Go's `time.Time.String` in UTC: `2006-01-02 15:04:05.999 +0000 UTC`.
#[must_use]
pub fn time_text(ms: i64) -> String {
    let Ok(t) = jiff::Timestamp::from_millisecond(ms) else { return format!("{ms}ms since 1970") };
    let millis = ms.rem_euclid(1000);
    let mut text = t.strftime("%Y-%m-%d %H:%M:%S").to_string();
    if millis != 0 {
        let fraction = format!("{millis:03}");
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push_str(" +0000 UTC");
    text
}

/// Go's `time.Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
#[must_use]
pub fn duration_text(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let n = ns.unsigned_abs();
    let fraction = |n: u64, unit: u64| {
        let text = format!("{}.{:0width$}", n / unit, n % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match n {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(n, 1_000_000)),
        _ => {
            let minutes = n / 60_000_000_000;
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

#[derive(Default, Clone)]
struct Flags {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`, wrong verbs and missing or extra arguments included.
#[must_use]
pub fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(c) = chars.peek() {
            match c {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                '#' => flags.sharp = true,
                _ => break,
            }
            chars.next();
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String| {
            if chars.peek() == Some(&'*') {
                chars.next();
                let value = arguments.get(next);
                next += 1;
                return match value {
                    Some(Value::Int(i)) => Some(*i),
                    _ => {
                        out.push_str("%!(BADWIDTH)");
                        None
                    }
                };
            }
            let mut n: Option<i64> = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                chars.next();
                n = Some(n.unwrap_or(0).saturating_mul(10).saturating_add(i64::from(digit)));
            }
            n
        };
        if let Some(width) = number(&mut chars, &mut out) {
            flags.minus |= width < 0;
            flags.width = usize::try_from(width.unsigned_abs()).ok().map(|w| w.min(MAX_WIDTH));
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            let precision = number(&mut chars, &mut out).unwrap_or(0);
            flags.precision = usize::try_from(precision).ok().map(|p| p.min(MAX_WIDTH));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.get(next) else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        next += 1;
        out.push_str(&verb_text(verb, &flags, value));
    }
    if next < arguments.len() {
        let extra: Vec<String> = arguments[next..]
            .iter()
            .map(|v| match v {
                Value::Nil => "<nil>".into(),
                v => format!("{}={}", v.type_name(), default_text(v)),
            })
            .collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verb_text(verb: char, flags: &Flags, value: &Value) -> String {
    let text = match (verb, value) {
        ('T', v) => v.type_name().to_owned(),
        ('v', Value::Float(f)) => float_text('g', flags, *f),
        ('v', Value::Int(i)) => int_text('d', flags, *i),
        ('v', v) => default_text(v),
        ('t', Value::Bool(b)) => b.to_string(),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'U' | 'q', Value::Int(i)) => int_text(verb, flags, *i),
        ('d', Value::Duration(ns)) => int_text('d', flags, *ns),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(f)) => float_text(verb, flags, *f),
        ('s', Value::String(_) | Value::Time(_) | Value::Duration(_)) => {
            let text = default_text(value);
            flags.precision.map_or(text.clone(), |p| text.chars().take(p).collect())
        }
        ('q', Value::String(s)) => {
            let mut quoted = String::new();
            // Writing to a string cannot fail.
            let _ = crate::model::labels::write_quoted(&mut quoted, s);
            quoted
        }
        ('x', Value::String(s)) => s.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::String(s)) => s.bytes().map(|b| format!("{b:02X}")).collect(),
        ('s' | 'd' | 'f' | 'g' | 'e' | 'q', Value::StringMap(map)) => {
            let each = |text: &str| verb_text(verb, &Flags::default(), &Value::string(text));
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{}:{}", each(k), each(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        (_, Value::Nil) => format!("%!{verb}(<nil>)"),
        (_, v) => format!("%!{verb}({}={})", v.type_name(), default_text(v)),
    };
    pad(text, verb, flags, value)
}

fn pad(text: String, verb: char, flags: &Flags, value: &Value) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    let finite = !matches!(value, Value::Float(f) if !f.is_finite());
    let is_number = matches!(value, Value::Int(_) | Value::Float(_)) && verb != 'c';
    if flags.minus {
        format!("{text}{}", " ".repeat(missing))
    } else if flags.zero && finite && (is_number || verb == 's') {
        let sign = usize::from(text.starts_with(['-', '+', ' ']) && is_number);
        format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
    } else {
        format!("{}{text}", " ".repeat(missing))
    }
}

fn signed(text: String, flags: &Flags) -> String {
    match (text.starts_with(['-', '+']), flags.plus, flags.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    }
}

fn int_text(verb: char, flags: &Flags, i: i64) -> String {
    let magnitude = i.unsigned_abs();
    let sign = if i < 0 { "-" } else { "" };
    let digits = match verb {
        'b' => format!("{magnitude:b}"),
        'o' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(i).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            return match verb {
                'c' => c.to_string(),
                'q' => format!("{c:?}"),
                _ => format!("U+{:04X}", c as u32),
            };
        }
        _ => magnitude.to_string(),
    };
    let width = flags.precision.unwrap_or(0);
    let prefix = match (verb, flags.sharp) {
        ('x', true) => "0x",
        ('X', true) => "0X",
        ('o', true) => "0",
        ('b', true) => "0b",
        _ => "",
    };
    signed(format!("{sign}{prefix}{digits:0>width$}"), flags)
}

fn float_text(verb: char, flags: &Flags, f: f64) -> String {
    let text = if f.is_finite() {
        match verb {
            'e' => format_e(f, Some(flags.precision.unwrap_or(6))),
            'E' => format_e(f, Some(flags.precision.unwrap_or(6))).to_uppercase(),
            'f' | 'F' => format!("{f:.*}", flags.precision.unwrap_or(6)),
            _ => {
                let text = flags.precision.map_or_else(|| format_g(f), |p| format_g_precision(f, p));
                if verb == 'G' { text.to_uppercase() } else { text }
            }
        }
    } else {
        format_g(f)
    };
    signed(text, flags)
}
