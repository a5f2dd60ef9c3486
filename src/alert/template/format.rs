//! Go's `fmt.Print` for template values, and the texts of times and durations.

use super::value::Value;
use crate::model::number::format_g;

/// `fmt.Sprint` of one value, as a template action prints it.
#[must_use]
pub fn print_value(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".into(),
        // An action follows a pointer.
        Value::Sample(_) => default_text(value).trim_start_matches('&').to_owned(),
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
            let entries: Vec<String> = map.iter().map(|l| format!("{}:{}", l.name, l.value)).collect();
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
        Value::Named(_, name) => (*name).to_owned(),
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
