//! Prometheus's durations (`1h30m`) and time parameters.

use std::fmt::Write as _;

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
    let invalid = || format!("not a valid duration string: {text:?}");
    let mut rest = text;
    let mut next_unit = 0;
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(invalid());
        }
        let number: i64 = rest[..digits].parse().map_err(|_| "duration out of range".to_owned())?;
        rest = &rest[digits..];
        let unit_len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = &rest[..unit_len];
        rest = &rest[unit_len..];
        if !unit.is_empty() && !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(format!("unknown unit {unit:?} in duration {text:?}"));
        }
        let Some(offset) = UNITS[next_unit..].iter().position(|(name, _)| *name == unit) else {
            return Err(invalid());
        };
        let (_, factor) = UNITS[next_unit + offset];
        next_unit += offset + 1;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            // Prometheus counts nanoseconds in an i64.
            .filter(|total| *total <= i64::MAX / 1_000_000)
            .ok_or_else(|| "duration out of range".to_owned())?;
    }
    Ok(total)
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
