//! How do OpenTelemetry's names become names here? Units and types become suffixes, other characters underscores, as
//! `translation_strategy` says.

use crate::config::{OtlpConfig, TranslationStrategy};

/// What a name is for: types differ in their suffixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOf {
    /// A sum that only grows.
    Counter,
    /// A gauge.
    Gauge,
    /// Anything else.
    Other,
}

/// Units in UCUM and their words.
const UNITS: [(&str, &str); 27] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
    ("", ""),
];

const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(table: &'a [(&str, &'a str)], unit: &'a str) -> &'a str {
    table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, word)| word)
}

/// Words of a unit: the unit itself, and what it is per.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let is_plain = |u: &str| !u.is_empty() && !u.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if is_plain(main) { word(&UNITS, main).to_owned() } else { String::new() };
    let per = if is_plain(per) { word(&PER_UNITS, per) } else { "" };
    (main, if per.is_empty() { String::new() } else { format!("per_{per}") })
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit's word as part of a name: other characters are underscores, none of them first or twice.
fn clean(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        let c = if is_metric_char(c) { c } else { '_' };
        if c != '_' || !(out.is_empty() || out.ends_with('_')) {
            out.push(c);
        }
    }
    out
}

fn digit_guarded(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn escaped_with_suffixes(name: &str, unit: &str, of: NameOf) -> String {
    let mut tokens: Vec<String> =
        name.split(|c| !is_metric_char(c)).filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let (main, per) = unit_words(unit);
    let (mut main, mut per) = (clean(&main), clean(&per));
    if tokens.contains(&main) {
        main.clear();
    }
    per = if per == "per_" { String::new() } else { per.trim_end_matches('_').to_owned() };
    if tokens.contains(&per) {
        per.clear();
    }
    let main = main.trim_end_matches('_').to_owned();
    tokens.extend([main, per].into_iter().filter(|t| !t.is_empty()));
    let mut last = |word: &str| {
        tokens.retain(|t| t != word);
        tokens.push(word.to_owned());
    };
    match of {
        NameOf::Counter => last("total"),
        NameOf::Gauge if unit == "1" => last("ratio"),
        _ => {}
    }
    digit_guarded(tokens.join("_"))
}

fn kept_with_suffixes(name: &str, unit: &str, of: NameOf) -> String {
    let trimmed = |name: &mut String, suffix: &str| {
        if name.ends_with(suffix) && name.len() > suffix.len() + 1 {
            let mut end = name.len() - suffix.len() - 1;
            // The delimiter may be a character of several bytes.
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            name.truncate(end);
        }
    };
    let (main, per) = unit_words(unit);
    let mut name = name.to_owned();
    let last = match of {
        NameOf::Counter => "total",
        NameOf::Gauge if unit == "1" => "ratio",
        _ => "",
    };
    if !last.is_empty() {
        trimmed(&mut name, last);
    }
    if !per.is_empty() {
        trimmed(&mut name, &per);
    }
    if !main.is_empty() && !name.ends_with(&main) {
        name = format!("{name}_{main}");
    }
    for suffix in [per.as_str(), last] {
        if !suffix.is_empty() {
            name = format!("{name}_{suffix}");
        }
    }
    name
}

/// The name of a metric.
#[must_use]
pub fn metric_name(config: &OtlpConfig, name: &str, unit: &str, of: NameOf) -> String {
    match config.translation_strategy {
        TranslationStrategy::UnderscoreEscapingWithSuffixes => escaped_with_suffixes(name, unit, of),
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes => {
            let tokens = name.split(|c| !is_metric_char(c) && c != '_').filter(|t| !t.is_empty());
            digit_guarded(tokens.collect::<Vec<_>>().join("_"))
        }
        TranslationStrategy::NoUtf8EscapingWithSuffixes => kept_with_suffixes(name, unit, of),
        TranslationStrategy::NoTranslation => name.to_owned(),
    }
}

/// The name of a label.
#[must_use]
pub fn label_name(config: &OtlpConfig, name: &str) -> String {
    let keeps = matches!(
        config.translation_strategy,
        TranslationStrategy::NoUtf8EscapingWithSuffixes | TranslationStrategy::NoTranslation
    );
    if keeps || name.is_empty() {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c == '_' && !config.label_name_preserve_multiple_underscores && out.ends_with('_') {
            continue;
        }
        out.push(c);
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("key_{out}");
    }
    if config.label_name_underscore_sanitization && out.starts_with('_') && !out.starts_with("__") {
        return format!("key{out}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_strategy() {
        let rows = [
            (
                "system.io",
                "By",
                NameOf::Counter,
                "system_io_bytes_total",
                "system_io",
                "system.io_bytes_total",
            ),
            (
                "http.server.duration",
                "s",
                NameOf::Other,
                "http_server_duration_seconds",
                "http_server_duration",
                "http.server.duration_seconds",
            ),
            ("hit", "1", NameOf::Gauge, "hit_ratio", "hit", "hit_ratio"),
            ("hit.total", "1", NameOf::Counter, "hit_total", "hit_total", "hit_total"),
            ("speed", "m/s", NameOf::Gauge, "speed_meters_per_second", "speed", "speed_meters_per_second"),
            ("packets", "{packet}/s", NameOf::Gauge, "packets_per_second", "packets", "packets_per_second"),
            ("2xx__hits", "", NameOf::Counter, "_2xx_hits_total", "_2xx__hits", "2xx__hits_total"),
            ("temp_celsius", "Cel", NameOf::Gauge, "temp_celsius", "temp_celsius", "temp_celsius"),
            (
                "broken.metric.speed.km",
                "km/h",
                NameOf::Gauge,
                "broken_metric_speed_km_per_hour",
                "broken_metric_speed_km",
                "broken.metric.speed.km_per_hour",
            ),
            ("ü", "", NameOf::Gauge, "", "", "ü"),
        ];
        let mut config = OtlpConfig::default();
        for (name, unit, of, escaped, plain, kept) in rows {
            for (strategy, want) in [
                (TranslationStrategy::UnderscoreEscapingWithSuffixes, escaped),
                (TranslationStrategy::UnderscoreEscapingWithoutSuffixes, plain),
                (TranslationStrategy::NoUtf8EscapingWithSuffixes, kept),
                (TranslationStrategy::NoTranslation, name),
            ] {
                config.translation_strategy = strategy;
                assert_eq!(metric_name(&config, name, unit, of), want, "{name} {unit} {strategy:?}");
            }
        }
    }

    #[test]
    fn labels_follow_the_strategy() {
        let mut config = OtlpConfig::default();
        for (name, want) in [
            ("http.method", "http_method"),
            ("1st", "key_1st"),
            ("_x", "key_x"),
            ("__x", "__x"),
            ("a..b", "a__b"),
            ("", ""),
        ] {
            assert_eq!(label_name(&config, name), want);
        }
        config.label_name_preserve_multiple_underscores = false;
        config.label_name_underscore_sanitization = false;
        assert_eq!(label_name(&config, "a..b"), "a_b");
        assert_eq!(label_name(&config, "_x"), "_x");
        config.translation_strategy = TranslationStrategy::NoTranslation;
        assert_eq!(label_name(&config, "a.b"), "a.b");
    }
}
