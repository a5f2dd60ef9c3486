//! Prometheus's durations (`1h30m`) and time parameters.

use std::fmt::Write as _;

use nom::character::complete::{alpha1, digit1};
use nom::combinator::all_consuming;
use nom::multi::many1;
use nom::sequence::pair;
use nom::{IResult, Parser};

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses a duration such as `1h30m` into milliseconds: whole numbers, units from large to small, each once; a
/// bare `0` is allowed. Errors carry Prometheus's wording.
pub fn parse_duration_ms(text: &str) -> Result<i64, String> {
    match text {
        "" => return Err("empty duration string".into()),
        "0" => return Ok(0),
        _ => {}
    }
    let (_, parts) = parts(text).map_err(|_| format!("not a valid duration string: {text:?}"))?;
    let mut next_unit = 0;
    let mut total = 0i64;
    for (digits, unit) in parts {
        let number: i64 = digits.parse().map_err(|_| "duration out of range".to_owned())?;
        let Some(at) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {unit:?} in duration {text:?}"));
        };
        if at < next_unit {
            return Err(format!("not a valid duration string: {text:?}"));
        }
        next_unit = at + 1;
        total = number
            .checked_mul(UNITS[at].1)
            .and_then(|part| total.checked_add(part))
            // Prometheus counts nanoseconds in an i64.
            .filter(|total| *total <= i64::MAX / 1_000_000)
            .ok_or_else(|| "duration out of range".to_owned())?;
    }
    Ok(total)
}

/// Numbers with their units, in the order they stand.
fn parts(text: &str) -> IResult<&str, Vec<(&str, &str)>> {
    all_consuming(many1(pair(digit1, alpha1))).parse(text)
}

/// Prints milliseconds as Prometheus's `model.Duration` does: `90m` is `1h30m`, whole weeks and years are used
/// only when nothing is left over, zero is `0s`.
#[must_use]
pub fn format_duration_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    let mut rest = ms.unsigned_abs();
    if ms < 0 {
        out.push('-');
    }
    for (name, factor) in UNITS {
        let factor = factor.unsigned_abs();
        let exact_only = matches!(name, "y" | "w");
        if exact_only && !rest.is_multiple_of(factor) {
            continue;
        }
        let count = rest / factor;
        if count > 0 {
            let _ = write!(out, "{count}{name}");
            rest -= count * factor;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("15d", 15 * 86_400_000, "15d"),
            ("14d", 14 * 86_400_000, "2w"),
            ("1y", 365 * 86_400_000, "1y"),
            ("1s500ms", 1_500, "1s500ms"),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
            assert_eq!(format_duration_ms(ms), printed);
        }
        for bad in ["", "1", "1.5h", "-5m", "1m1h", "1h1h", "h", "5mm", "99999999999999999999s", "400y"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }
}
