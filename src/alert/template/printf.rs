//! Go's `fmt.Sprintf` for template values, wrong verbs and missing, extra or badly indexed arguments included.

use super::format::default_text;
use super::value::Value;
use crate::model::number::{format_e, format_g, format_g_precision};

/// Largest width or precision a verb may ask for.
const MAX_WIDTH: usize = 10_000;

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

/// Where a format is being read, and which argument comes next.
struct Reader<'a> {
    chars: Vec<char>,
    at: usize,
    arguments: &'a [Value],
    next: usize,
    /// An index such as `[2]` was used: then nothing counts as extra.
    reordered: bool,
    /// An index was just read: what follows uses it.
    indexed: bool,
    good: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn number(&mut self) -> Option<usize> {
        let mut number: Option<usize> = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit as usize));
        }
        number
    }

    /// Reads `[n]` if it is there.
    fn index(&mut self) {
        if self.peek() != Some('[') {
            return;
        }
        self.reordered = true;
        let Some(close) = self.chars[self.at..].iter().position(|c| *c == ']') else {
            self.good = false;
            self.at += 1;
            return;
        };
        let text: String = self.chars[self.at + 1..self.at + close].iter().collect();
        self.at += close + 1;
        match text.parse::<usize>().ok().filter(|n| (1..=self.arguments.len()).contains(n)) {
            Some(n) => {
                self.next = n - 1;
                self.indexed = true;
            }
            None => self.good = false,
        }
    }

    /// The value of a `*`.
    fn star(&mut self) -> Option<i64> {
        self.at += 1;
        let value = self.arguments.get(self.next);
        self.next += 1;
        self.indexed = false;
        match value {
            Some(Value::Int(i)) if i.unsigned_abs() as usize <= MAX_WIDTH * 100 => Some(*i),
            _ => None,
        }
    }
}

/// `fmt.Sprintf`.
#[must_use]
pub fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut r = Reader {
        chars: format.chars().collect(),
        at: 0,
        arguments,
        next: 0,
        reordered: false,
        indexed: false,
        good: true,
    };
    while let Some(c) = r.peek() {
        r.at += 1;
        if c != '%' {
            out.push(c);
            continue;
        }
        (r.good, r.indexed) = (true, false);
        let flags = read_flags(&mut r, &mut out);
        if !r.indexed {
            r.index();
        }
        let Some(verb) = r.peek() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        r.at += 1;
        if verb == '%' {
            out.push('%');
        } else if !r.good {
            out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = arguments.get(r.next) {
            r.next += 1;
            out.push_str(&verb_text(verb, &flags, value));
        } else {
            out.push_str(&format!("%!{verb}(MISSING)"));
        }
    }
    if !r.reordered && r.next < arguments.len() {
        let extra = arguments[r.next..].iter().map(|v| match v {
            Value::Nil => "<nil>".into(),
            v => format!("{}={}", v.type_name(), default_text(v)),
        });
        out.push_str(&format!("%!(EXTRA {})", extra.collect::<Vec<_>>().join(", ")));
    }
    out
}

fn read_flags(r: &mut Reader<'_>, out: &mut String) -> Flags {
    let mut flags = Flags::default();
    while let Some(c) = r.peek() {
        match c {
            '-' => flags.minus = true,
            '+' => flags.plus = true,
            ' ' => flags.space = true,
            '0' => flags.zero = true,
            '#' => flags.sharp = true,
            _ => break,
        }
        r.at += 1;
    }
    r.index();
    let bounded = |n: usize| n.min(MAX_WIDTH);
    if r.peek() == Some('*') {
        match r.star() {
            Some(width) => {
                flags.minus |= width < 0;
                flags.width = usize::try_from(width.unsigned_abs()).ok().map(bounded);
            }
            None => out.push_str("%!(BADWIDTH)"),
        }
    } else {
        flags.width = r.number().map(bounded);
        r.good &= !(r.indexed && flags.width.is_some());
    }
    if r.peek() == Some('.') {
        r.at += 1;
        r.good &= !r.indexed;
        r.index();
        if r.peek() == Some('*') {
            match r.star() {
                Some(precision) => flags.precision = usize::try_from(precision).ok().map(bounded),
                None => out.push_str("%!(BADPREC)"),
            }
        } else {
            flags.precision = Some(bounded(r.number().unwrap_or(0)));
        }
    }
    flags
}

fn verb_text(verb: char, flags: &Flags, value: &Value) -> String {
    if verb == 'v' && flags.sharp {
        return pad(go_syntax(value), verb, flags, value);
    }
    let text = match (verb, value) {
        ('T', v) => return pad(v.type_name().to_owned(), verb, flags, &Value::Nil),
        ('v', Value::Float(f)) => float_text('g', flags, *f),
        ('v', Value::Int(i)) => int_text('d', flags, *i),
        ('v', Value::String(s)) => cut(s, flags),
        ('v', Value::Sample(sample)) if flags.plus => {
            format!(
                "&{{Labels:{} Value:{}}}",
                default_text(&Value::from_labels(&sample.0)),
                format_g(sample.1)
            )
        }
        ('v', v) => default_text(v),
        ('t', Value::Bool(b)) => b.to_string(),
        ('d' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'U' | 'q', Value::Int(i) | Value::Named(i, _)) => {
            int_text(verb, flags, *i)
        }
        ('d', Value::Duration(ns)) => int_text('d', flags, *ns),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'x' | 'X' | 'b', Value::Float(f)) => float_text(verb, flags, *f),
        ('s', Value::String(_) | Value::Time(_) | Value::Duration(_) | Value::Named(..)) => {
            cut(&default_text(value), flags)
        }
        ('q', Value::String(s)) => quoted(&cut(s, flags), flags),
        ('x' | 'X', Value::String(s)) => hex_bytes(s.as_bytes(), verb == 'X', flags),
        (_, Value::StringMap(map)) => {
            let each = |text: &str| verb_text(verb, &Flags::default(), &Value::string(text));
            let entries: Vec<String> =
                map.iter().map(|l| format!("{}:{}", each(l.name), each(l.value))).collect();
            return format!("map[{}]", entries.join(" "));
        }
        (_, Value::Map(map)) => {
            let each = |v: &Value| verb_text(verb, &Flags::default(), v);
            let entries: Vec<String> =
                map.iter().map(|(k, v)| format!("{}:{}", each(&Value::string(k)), each(v))).collect();
            return format!("map[{}]", entries.join(" "));
        }
        (_, Value::Samples(samples)) => {
            let each = samples.iter().map(|s| {
                let sample = Value::Sample(std::sync::Arc::new(s.clone()));
                format!("%!{verb}({}={})", sample.type_name(), default_text(&sample))
            });
            return format!("[{}]", each.collect::<Vec<_>>().join(" "));
        }
        (_, Value::Nil) => return format!("%!{verb}(<nil>)"),
        (_, v) => return format!("%!{verb}({}={})", v.type_name(), default_text(v)),
    };
    pad(text, verb, flags, value)
}

fn cut(text: &str, flags: &Flags) -> String {
    flags.precision.map_or_else(|| text.to_owned(), |p| text.chars().take(p).collect())
}

/// `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s, &Flags::default()),
        Value::StringMap(map) => {
            let entries = map.iter().map(|l| format!("{}:{}", plain_quoted(l.name), plain_quoted(l.value)));
            format!("map[string]string{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let entries = map.iter().map(|(k, v)| format!("{}:{}", plain_quoted(k), go_syntax(v)));
            format!("map[string]interface {{}}{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Duration(ns) => ns.to_string(),
        Value::Named(i, _) => i.to_string(),
        other => default_text(other),
    }
}

fn plain_quoted(text: &str) -> String {
    quoted(text, &Flags::default())
}

fn quoted(text: &str, flags: &Flags) -> String {
    if flags.sharp && !text.chars().any(|c| c == '`' || c == '\u{feff}' || (c.is_control() && c != '\t')) {
        return format!("`{text}`");
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = crate::model::labels::write_quoted(&mut out, text);
    if flags.plus { ascii_only(&out) } else { out }
}

fn ascii_only(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c as u32 {
            0..0x80 => out.push(c),
            n @ 0x80..0x10000 => out.push_str(&format!("\\u{n:04x}")),
            n => out.push_str(&format!("\\U{n:08x}")),
        }
    }
    out
}

fn hex_bytes(bytes: &[u8], upper: bool, flags: &Flags) -> String {
    let prefix = match (flags.sharp && !bytes.is_empty(), upper) {
        (true, false) => "0x",
        (true, true) => "0X",
        (false, _) => "",
    };
    let bytes = &bytes[..flags.precision.unwrap_or(bytes.len()).min(bytes.len())];
    let each = bytes.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") });
    if flags.space {
        each.map(|b| format!("{prefix}{b}")).collect::<Vec<_>>().join(" ")
    } else {
        format!("{prefix}{}", each.collect::<String>())
    }
}

fn pad(text: String, verb: char, flags: &Flags, value: &Value) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    let finite = !matches!(value, Value::Float(f) if !f.is_finite());
    let is_number = matches!(value, Value::Int(_) | Value::Float(_)) && !matches!(verb, 'c' | 'q' | 'U');
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
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(i).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            return match verb {
                'c' => c.to_string(),
                'q' if flags.plus => ascii_only(&format!("{c:?}")),
                'q' => format!("{c:?}"),
                _ if flags.sharp => format!("U+{:04X} '{c}'", c as u32),
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
        ('O', _) => "0o",
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
            'x' => hex_float(f, flags.precision),
            'X' => hex_float(f, flags.precision).to_uppercase(),
            'b' => {
                let (mantissa, exponent) = parts(f);
                format!("{}{mantissa}p{exponent:+}", if f.is_sign_negative() { "-" } else { "" })
            }
            _ => {
                let text = flags.precision.map_or_else(|| format_g(f), |p| format_g_precision(f, p));
                let text = if flags.sharp { with_zeros(&text, flags.precision.unwrap_or(6)) } else { text };
                if verb == 'G' { text.to_uppercase() } else { text }
            }
        }
    } else {
        format_g(f)
    };
    signed(text, flags)
}

/// Mantissa as a whole number, and the power of two it is multiplied with.
fn parts(f: f64) -> (u64, i64) {
    let bits = f.to_bits();
    let exponent = i64::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) }
}

/// `%x`: `0x1.8p+01`.
fn hex_float(f: f64, precision: Option<usize>) -> String {
    let sign = if f.is_sign_negative() { "-" } else { "" };
    if f == 0.0 {
        let zeros = precision.filter(|p| *p > 0).map_or_else(String::new, |p| format!(".{}", "0".repeat(p)));
        return format!("{sign}0x0{zeros}p+00");
    }
    let (mut mantissa, mut exponent) = parts(f);
    // The leading one at bit 52.
    let shift = i64::from(mantissa.leading_zeros()) - 11;
    mantissa <<= shift;
    exponent += 52 - shift;
    if let Some(digits) = precision.filter(|p| *p < 13) {
        let dropped = 52 - 4 * digits;
        let (half, rest) = (1u64 << (dropped - 1), mantissa & ((1u64 << dropped) - 1));
        mantissa -= rest;
        if rest > half || (rest == half && (mantissa >> dropped) & 1 == 1) {
            mantissa += 1 << dropped;
        }
        if mantissa >> 53 != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let mut digits = format!("{:013x}", mantissa & ((1 << 52) - 1));
    match precision {
        Some(p) => {
            digits.truncate(p);
            while digits.len() < p {
                digits.push('0');
            }
        }
        None => digits.truncate(digits.trim_end_matches('0').len()),
    }
    let point = if digits.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}0x1{point}{digits}p{exponent_sign}{:02}", exponent.abs())
}

/// The zeros that `#` keeps: so many significant digits, and a point.
fn with_zeros(text: &str, digits: usize) -> String {
    let (number, tail) = text.find('e').map_or((text, ""), |at| text.split_at(at));
    let significant =
        number.trim_start_matches(['-', '+', '0', '.']).chars().filter(char::is_ascii_digit).count();
    let point = if number.contains('.') { "" } else { "." };
    format!("{number}{point}{}{tail}", "0".repeat(digits.saturating_sub(significant)))
}
