//! How are the numbers of text bodies read? As Go's `ParseFloat` reads them, minus hexadecimal and underscores.
//!
//! Most values have at most 19 digits and a small exponent; for these the mantissa is an exact integer and one
//! multiplication or division by an exact power of ten rounds correctly (W. D. Clinger, "How to Read Floating Point
//! Numbers Accurately", 1990). The rest goes to the standard library.

use crate::model::sample::NORMAL_NAN_BITS;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The canonical NaN that every scraped NaN becomes.
pub(super) fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Reads a number from the start of `bytes`; returns it with the number of bytes used. `None` when the fast path
/// does not apply, which says nothing about validity.
#[inline]
pub(super) fn fast_float(bytes: &[u8]) -> Option<(f64, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0u64;
    let mut digits = 0usize;
    let start = at;
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    digits += at - start;
    let mut exponent = 0i32;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let fraction = at;
        while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        digits += at - fraction;
        exponent = -i32::try_from(at - fraction).ok()?;
    }
    if digits == 0 || digits > 19 {
        return None;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let sign = match bytes.get(at) {
            Some(b'-') => {
                at += 1;
                -1
            }
            Some(b'+') => {
                at += 1;
                1
            }
            _ => 1,
        };
        let exponent_start = at;
        let mut value = 0i32;
        while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            value = value.wrapping_mul(10).wrapping_add(i32::from(digit));
            at += 1;
        }
        if at == exponent_start || at - exponent_start > 4 {
            return None;
        }
        exponent += sign * value;
    }
    if mantissa > 1 << 53 {
        return None;
    }
    let magnitude = mantissa as f64;
    let value = match exponent {
        0 => magnitude,
        1..=22 => magnitude * POWERS[exponent as usize],
        -22..=-1 => magnitude / POWERS[exponent.unsigned_abs() as usize],
        _ => return None,
    };
    Some((if negative { -value } else { value }, at))
}

/// Reads a whole token as a number.
///
/// # Errors
///
/// The text says what is wrong with it: not a number, hexadecimal, or beyond the range of doubles.
pub fn parse_float(token: &[u8]) -> Result<f64, String> {
    if let Some((value, used)) = fast_float(token)
        && used == token.len()
    {
        return Ok(value);
    }
    let shown = || format!("parsing {:?}", super::excerpt(token));
    if token.iter().any(|b| matches!(b, b'_' | b'p' | b'P')) {
        return Err(format!("{}: unsupported character in float", shown()));
    }
    let invalid = || format!("{}: invalid syntax", shown());
    let text = std::str::from_utf8(token).map_err(|_| invalid())?;
    let value: f64 = text.parse().map_err(|_| invalid())?;
    let letter = text.trim_start_matches(['+', '-']).as_bytes().first().map(u8::to_ascii_lowercase);
    match letter {
        Some(b'n') if text.len() == 3 => Ok(normal_nan()),
        Some(b'n') => Err(invalid()),
        Some(b'i') => Ok(value),
        _ if value.is_infinite() => Err(format!("{}: value out of range", shown())),
        _ => Ok(value),
    }
}

/// Seconds as text formats write them into milliseconds, cut towards zero. `what` names the field in errors.
pub(super) fn parse_seconds(token: &[u8], what: &str) -> Result<i64, String> {
    let seconds = parse_float(token)?;
    if !seconds.is_finite() {
        return Err(format!("invalid {what} {}", crate::model::number::format_g(seconds)));
    }
    Ok((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_the_standard_library(text in "-?[0-9]{0,21}\\.?[0-9]{0,8}([eE][+-]?[0-9]{1,3})?") {
            let ours = parse_float(text.as_bytes());
            match text.parse::<f64>() {
                Ok(v) if v.is_finite() => prop_assert_eq!(ours.map(f64::to_bits), Ok(v.to_bits())),
                _ => prop_assert!(ours.is_err()),
            }
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for bad in
            ["", "+", "-", ".", "e5", "0x1", "1_0", "-nan", "+nan", "nan1", "1e400", "infin", "1 ", "--1"]
        {
            assert!(parse_float(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
