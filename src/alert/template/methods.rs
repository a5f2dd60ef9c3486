//! Which methods do values have? Go's `time.Time` and `time.Duration`, as far as templates use them.

use super::format::{duration_text, time_text};
use super::value::Value;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Calls a method; `None` if the value has none of this name, an error if it does not take these arguments.
pub(super) fn call(value: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    match value {
        Value::Time(ms) => time_method(*ms, name, arguments),
        Value::Duration(ns) => duration_method(*ns, name, arguments),
        _ => None,
    }
}

fn time_method(ms: i64, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let known = [
        "Format",
        "Unix",
        "UnixMilli",
        "UnixMicro",
        "UnixNano",
        "Year",
        "Month",
        "Day",
        "Hour",
        "Minute",
        "Second",
        "Nanosecond",
        "Weekday",
        "YearDay",
        "UTC",
        "String",
        "IsZero",
        "Add",
        "Sub",
        "Before",
        "After",
        "Equal",
    ];
    if !known.contains(&name) {
        return None;
    }
    let Ok(stamp) = jiff::Timestamp::from_millisecond(ms) else {
        return Some(Err(format!("{ms} ms since 1970 is not a time")));
    };
    let t = stamp.to_zoned(jiff::tz::TimeZone::UTC);
    let int = |n: i64| Ok(Value::Int(n));
    let other_time = |check: fn(i64, i64) -> Value| match arguments {
        [Value::Time(other)] => Ok(check(ms, *other)),
        _ => Err(format!("wrong arguments for {name}: want a time")),
    };
    Some(match (name, arguments) {
        ("Format", [Value::String(layout)]) => Ok(Value::string(&format_time(&t, layout))),
        ("Add", [Value::Duration(ns)]) => Ok(Value::Time(ms.saturating_add(ns.div_euclid(1_000_000)))),
        ("Sub", _) => other_time(|a, b| Value::Duration(a.saturating_sub(b).saturating_mul(1_000_000))),
        ("Before", _) => other_time(|a, b| Value::Bool(a < b)),
        ("After", _) => other_time(|a, b| Value::Bool(a > b)),
        ("Equal", _) => other_time(|a, b| Value::Bool(a == b)),
        (_, [_, ..]) | ("Format" | "Add", []) => Err(format!("wrong number of args for {name}")),
        ("Unix", []) => int(ms.div_euclid(1000)),
        ("UnixMilli", []) => int(ms),
        ("UnixMicro", []) => int(ms.saturating_mul(1000)),
        ("UnixNano", []) => int(ms.saturating_mul(1_000_000)),
        ("Year", []) => int(i64::from(t.year())),
        ("Month", []) => Ok(Value::Named(i64::from(t.month()), month(&t))),
        ("Day", []) => int(i64::from(t.day())),
        ("Hour", []) => int(i64::from(t.hour())),
        ("Minute", []) => int(i64::from(t.minute())),
        ("Second", []) => int(i64::from(t.second())),
        ("Nanosecond", []) => int(ms.rem_euclid(1000) * 1_000_000),
        ("Weekday", []) => Ok(Value::Named(i64::from(t.weekday().to_sunday_zero_offset()), weekday(&t))),
        ("YearDay", []) => int(i64::from(t.day_of_year())),
        ("IsZero", []) => Ok(Value::Bool(false)),
        ("String", []) => Ok(Value::string(&time_text(ms))),
        _ => Ok(Value::Time(ms)),
    })
}

fn duration_method(ns: i64, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let value = match name {
        "Hours" => Value::Float(ns as f64 / 3.6e12),
        "Minutes" => Value::Float(ns as f64 / 6e10),
        "Seconds" => Value::Float(ns as f64 / 1e9),
        "Milliseconds" => Value::Int(ns / 1_000_000),
        "Microseconds" => Value::Int(ns / 1_000),
        "Nanoseconds" => Value::Int(ns),
        "Abs" => Value::Duration(ns.saturating_abs()),
        "String" => Value::string(&duration_text(ns)),
        _ => return None,
    };
    Some(if arguments.is_empty() {
        Ok(value)
    } else {
        Err(format!("wrong number of args for {name}: want 0 got {}", arguments.len()))
    })
}

fn month(t: &jiff::Zoned) -> &'static str {
    usize::try_from(t.month() - 1).ok().and_then(|i| MONTHS.get(i)).copied().unwrap_or("")
}

fn weekday(t: &jiff::Zoned) -> &'static str {
    usize::try_from(t.weekday().to_sunday_zero_offset()).ok().and_then(|i| DAYS.get(i)).copied().unwrap_or("")
}

/// Go's `Time.Format`: the layout shows how the reference time, Monday 2 January 2006 15:04:05, would look.
fn format_time(t: &jiff::Zoned, layout: &str) -> String {
    let hour12 = if t.hour() % 12 == 0 { 12 } else { t.hour() % 12 };
    let half = if t.hour() < 12 { ("AM", "am") } else { ("PM", "pm") };
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        if let Some((digits, separator, trims)) = fraction(rest) {
            let nanos = format!("{:09}", t.subsec_nanosecond());
            let mut shown = nanos[..digits.min(9)].to_owned();
            if trims {
                shown.truncate(shown.trim_end_matches('0').len());
            }
            if !shown.is_empty() {
                out.push(separator);
                out.push_str(&shown);
            }
            rest = &rest[digits + 1..];
            continue;
        }
        let pieces: [(&str, String); 30] = [
            ("January", month(t).into()),
            ("Jan", month(t).chars().take(3).collect()),
            ("Monday", weekday(t).into()),
            ("Mon", weekday(t).chars().take(3).collect()),
            ("MST", "UTC".into()),
            ("2006", format!("{:04}", t.year())),
            ("002", format!("{:03}", t.day_of_year())),
            ("__2", format!("{:>3}", t.day_of_year())),
            ("_2", format!("{:>2}", t.day())),
            ("01", format!("{:02}", t.month())),
            ("02", format!("{:02}", t.day())),
            ("03", format!("{hour12:02}")),
            ("04", format!("{:02}", t.minute())),
            ("05", format!("{:02}", t.second())),
            ("06", format!("{:02}", t.year().rem_euclid(100))),
            ("15", format!("{:02}", t.hour())),
            ("PM", half.0.into()),
            ("pm", half.1.into()),
            ("-07:00:00", "+00:00:00".into()),
            ("-070000", "+000000".into()),
            ("-07:00", "+00:00".into()),
            ("-0700", "+0000".into()),
            ("-07", "+00".into()),
            ("Z07:00", "Z".into()),
            ("Z0700", "Z".into()),
            ("1", t.month().to_string()),
            ("2", t.day().to_string()),
            ("3", hour12.to_string()),
            ("4", t.minute().to_string()),
            ("5", t.second().to_string()),
        ];
        match pieces.iter().find(|(piece, _)| rest.starts_with(piece)) {
            Some((piece, text)) => {
                out.push_str(text);
                rest = &rest[piece.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// `.000` or `,999` at the start of a layout: number of digits, separator, whether zeros at the end go.
fn fraction(layout: &str) -> Option<(usize, char, bool)> {
    let separator = layout.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let digit = layout[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let digits = layout[1..].chars().take_while(|c| *c == digit).count();
    let follows_digit = layout[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
    (!follows_digit).then_some((digits, separator, digit == '9'))
}
