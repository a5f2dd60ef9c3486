//! String and number literals: Go's escapes, and Go's spellings of numbers.

use crate::model::labels::quoted;

/// Checks the escape whose backslash was just read and returns its length in bytes. `quote` is the quotation
/// mark of the string around it.
pub(super) fn check_escape(rest: &str, quote: u8) -> Result<usize, String> {
    let Some(&first) = rest.as_bytes().first() else {
        return Err("escape sequence not terminated".into());
    };
    let (skip, digits, radix, max) = match first {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' => return Ok(1),
        c if c == quote => return Ok(1),
        b'0'..=b'7' => (0, 3, 8, 255),
        b'x' => (1, 2, 16, 255),
        b'u' => (1, 4, 16, 0x10_ffff),
        b'U' => (1, 8, 16, 0x10_ffff),
        _ => {
            let c = rest.chars().next().unwrap_or('\u{fffd}');
            return Err(format!("unknown escape sequence {}", code_point(c)));
        }
    };
    let mut value = 0u32;
    let mut chars = rest[skip..].chars();
    for _ in 0..digits {
        let Some(c) = chars.next() else {
            return Err("escape sequence not terminated".into());
        };
        let Some(digit) = c.to_digit(radix) else {
            return Err(format!("illegal character {} in escape sequence", code_point(c)));
        };
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    if value > max || (0xd800..0xe000).contains(&value) {
        return Err("escape sequence is an invalid Unicode code point".into());
    }
    Ok(skip + digits)
}

/// Go's `%#U`: `U+0041 'A'`.
fn code_point(c: char) -> String {
    if c.is_control() { format!("U+{:04X}", c as u32) } else { format!("U+{:04X} '{c}'", c as u32) }
}

/// Resolves a quoted literal, quotation marks included. `None` if it is malformed. Bytes that are not UTF-8
/// (`"\xff"`) become U+FFFD, which [`is_label_name`] refuses.
pub fn unquote(literal: &str) -> Option<String> {
    unquote_bytes(literal).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

/// The bytes that a quoted literal stands for, UTF-8 or not. `None` if it is malformed.
pub(super) fn unquote_bytes(literal: &str) -> Option<Vec<u8>> {
    let bytes = literal.as_bytes();
    let quote = *bytes.first()?;
    if bytes.len() < 2 || *bytes.last()? != quote {
        return None;
    }
    let inner = &literal[1..literal.len() - 1];
    match quote {
        b'`' => return (!inner.contains('`')).then(|| inner.as_bytes().to_vec()),
        b'"' | b'\'' => {}
        _ => return None,
    }
    if inner.contains('\n') {
        return None;
    }
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c as u32 == u32::from(quote) {
            return None;
        }
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let length = check_escape(rest, quote).ok()?;
        let (escape, after) = rest.split_at(length);
        rest = after;
        let number = |from: usize, radix| u32::from_str_radix(&escape[from..], radix).ok();
        match escape.as_bytes()[0] {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => out.push(u8::try_from(number(0, 8)?).ok()?),
            b'x' => out.push(u8::try_from(number(1, 16)?).ok()?),
            b'u' | b'U' => {
                let c = char::from_u32(number(1, 16)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => out.push(other),
        }
    }
    Some(out)
}

/// Whether a string literal may be a label name: any text but the empty one, as long as it is UTF-8.
#[must_use]
pub fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\u{fffd}')
}

/// Reads a number as Go does: an integer with its base prefix (`0x`, a leading `0` for octal) and underscores
/// if it fits into 64 bits, else a float. The error is Go's.
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    let invalid =
        || Err(format!("error parsing number: strconv.ParseFloat: parsing {}: invalid syntax", quoted(text)));
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "inf" => return Ok(f64::INFINITY),
        "nan" => return Ok(f64::NAN),
        _ => {}
    }
    let plain = lower.replace('_', "");
    if let Some(hexadecimal) = plain.strip_prefix("0x") {
        if let Ok(value) = i64::from_str_radix(hexadecimal, 16) {
            return Ok(value as f64);
        }
        // Go wants an exponent for hexadecimal floats, which the lexer never lets through.
        return invalid();
    }
    if plain.len() > 1
        && plain.starts_with('0')
        && plain.bytes().all(|c| (b'0'..=b'7').contains(&c))
        && let Ok(value) = i64::from_str_radix(&plain, 8)
    {
        return Ok(value as f64);
    }
    if plain.bytes().all(|c| c.is_ascii_digit())
        && let Ok(value) = plain.parse::<i64>()
    {
        return Ok(value as f64);
    }
    // Underscores belong to integer literals alone.
    if lower.contains('_') {
        return invalid();
    }
    match plain.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!(
            "error parsing number: strconv.ParseFloat: parsing {}: value out of range",
            quoted(text)
        )),
        Err(_) => invalid(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_resolve_go_escapes() {
        for (literal, text) in [
            (r#""a\n\t\\\"b""#, Some("a\n\t\\\"b")),
            (r"'it\'s'", Some("it's")),
            (r"'\x41\101\u00e9\U0001F600'", Some("AAé😀")),
            (r#""\xc3\xa9""#, Some("é")),
            (r#""a\xffb""#, Some("a\u{fffd}b")),
            (r#""\'""#, None),
            ("`a\\n\nb`", Some("a\\n\nb")),
            ("\"a\nb\"", None),
            ("\"", None),
            ("abc", None),
        ] {
            assert_eq!(unquote(literal).as_deref(), text, "{literal}");
        }
        for (escape, error) in [
            ("", "escape sequence not terminated"),
            ("q", "unknown escape sequence U+0071 'q'"),
            ("xg1", "illegal character U+0067 'g' in escape sequence"),
            ("ud800", "escape sequence is an invalid Unicode code point"),
            ("400", "escape sequence is an invalid Unicode code point"),
        ] {
            assert_eq!(check_escape(escape, b'"').unwrap_err(), error);
        }
    }

    #[test]
    fn numbers_are_those_of_go() {
        for (text, value) in [
            ("1", 1.0),
            ("0755", 493.0),
            ("089", 89.0),
            ("0x8f", 143.0),
            ("0X_1F", 31.0),
            ("1_000", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("5e-3", 0.005),
            ("Inf", f64::INFINITY),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("nAn").unwrap().is_nan());
        for bad in ["1e400", "1_000.5", "0xffffffffffffffffff"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
    }
}
