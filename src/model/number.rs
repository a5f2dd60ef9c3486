//! Number texts as Go prints them; dashboards, rules and tests compare these strings.
//!
//! The shortest digits that read back as the same double come from `zmij`; the layout is Go's.

/// The shortest decimal digits of a finite number that is not 0: `value = 0.d1d2… × 10^point`.
struct Digits {
    text: [u8; 24],
    len: usize,
    point: i32,
}

impl Digits {
    fn of(v: f64) -> Self {
        let mut buffer = zmij::Buffer::new();
        let (mut text, mut len, mut point, mut behind_point) = ([0; 24], 0, 0, false);
        let mut bytes = buffer.format_finite(v.abs()).bytes();
        for byte in bytes.by_ref() {
            match byte {
                b'.' => behind_point = true,
                b'e' | b'E' => break,
                b'0' if len == 0 => point -= i32::from(behind_point),
                digit => {
                    // Digits that do not fit are zeros: a double has 17 at most.
                    if len < text.len() {
                        text[len] = digit;
                        len += 1;
                    }
                    point += i32::from(!behind_point);
                }
            }
        }
        let (mut exponent, mut negative) = (0, false);
        for byte in bytes {
            match byte {
                b'-' => negative = true,
                b'0'..=b'9' => exponent = exponent * 10 + i32::from(byte - b'0'),
                _ => {}
            }
        }
        while len > 1 && text[len - 1] == b'0' {
            len -= 1;
        }
        Self { text, len, point: if negative { point - exponent } else { point + exponent } }
    }

    fn digits(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

fn special(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v == f64::INFINITY {
        Some("+Inf")
    } else if v == f64::NEG_INFINITY {
        Some("-Inf")
    } else if v == 0.0 {
        Some(if v.is_sign_negative() { "-0" } else { "0" })
    } else {
        None
    }
}

fn plain(digits: &[u8], point: i32, out: &mut Vec<u8>) {
    let zeros = |out: &mut Vec<u8>, n: usize| out.resize(out.len() + n, b'0');
    if point <= 0 {
        out.extend_from_slice(b"0.");
        zeros(out, point.unsigned_abs() as usize);
        out.extend_from_slice(digits);
    } else if (point as usize) >= digits.len() {
        out.extend_from_slice(digits);
        zeros(out, point as usize - digits.len());
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

fn scientific(digits: &[u8], point: i32, out: &mut Vec<u8>) {
    if let Some((first, rest)) = digits.split_first() {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
    }
    let exponent = point - 1;
    out.push(b'e');
    out.push(if exponent < 0 { b'-' } else { b'+' });
    let exponent = exponent.unsigned_abs();
    if exponent < 10 {
        out.push(b'0');
    }
    write_integer(out, u64::from(exponent));
}

fn write(out: &mut Vec<u8>, v: f64, use_exponent: impl Fn(i32) -> bool) {
    if let Some(text) = special(v) {
        return out.extend_from_slice(text.as_bytes());
    }
    let digits = Digits::of(v);
    if v < 0.0 {
        out.push(b'-');
    }
    if use_exponent(digits.point - 1) {
        scientific(digits.digits(), digits.point, out);
    } else {
        plain(digits.digits(), digits.point, out);
    }
}

fn layout(v: f64, use_exponent: impl Fn(i32) -> bool) -> String {
    let mut out = Vec::with_capacity(24);
    write(&mut out, v, use_exponent);
    // Nothing but ASCII was written.
    String::from_utf8(out).unwrap_or_default()
}

/// The numbers 00 to 99 as text.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Puts the decimal digits of a whole number at the beginning of `out` and answers how many there are.
#[inline]
pub fn put_integer(out: &mut [u8; 20], mut v: u64) -> usize {
    let len = v.checked_ilog10().map_or(1, |log| log as usize + 1);
    let mut at = len;
    while v >= 10 {
        at -= 2;
        out[at..at + 2].copy_from_slice(&PAIRS[(v % 100) as usize]);
        v /= 100;
    }
    if at > 0 {
        out[0] = b'0' + v as u8;
    }
    len
}

/// Appends the decimal digits of a whole number.
#[inline]
pub fn write_integer(out: &mut Vec<u8>, v: u64) {
    let mut digits = [0; 20];
    let len = put_integer(&mut digits, v);
    extend_short(out, &digits, len);
}

/// Appends `text[..len]`. All of `text` is copied and the rest cut off: that needs no call, as a copy of any length does.
#[inline]
pub fn extend_short<const N: usize>(out: &mut Vec<u8>, text: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(text);
    out.truncate(end);
}

/// Bytes that hold every API sample value.
pub const VALUE_BYTES: usize = 32;

/// Copies the short text of a number to the beginning of `room`, by copies of fixed lengths that may overlap: they need
/// no call.
#[inline]
fn put_text(room: &mut [u8; VALUE_BYTES], text: &[u8]) -> usize {
    let len = text.len();
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>())
        && len <= 24
    {
        room[..8].copy_from_slice(first);
        if let Some(middle) = text.get(8..16) {
            room[8..16].copy_from_slice(middle);
        }
        room[len - 8..len].copy_from_slice(last);
        return len;
    }
    for (place, byte) in room.iter_mut().zip(text) {
        *place = *byte;
    }
    len.min(VALUE_BYTES)
}

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: plain decimals always. PromQL printing and string values use it.
#[must_use]
pub fn format_plain(v: f64) -> String {
    layout(v, |_| false)
}

/// API sample values: plain decimals, exponents only below 1e-6 or from 1e21 on.
#[must_use]
pub fn format_api(v: f64) -> String {
    let mut out = Vec::with_capacity(24);
    write_api(&mut out, v);
    // Nothing but ASCII was written.
    String::from_utf8(out).unwrap_or_default()
}

/// Appends [`format_api`].
pub fn write_api(out: &mut Vec<u8>, v: f64) {
    let mut room = [0; VALUE_BYTES];
    let len = put_api(&mut room, v);
    extend_short(out, &room, len);
}

/// Puts [`format_api`] at the beginning of `room` and answers how long it is.
#[inline]
pub fn put_api(room: &mut [u8; VALUE_BYTES], v: f64) -> usize {
    let magnitude = v.abs();
    // Whole numbers that every digit of is exact: counters, sizes, states.
    if magnitude < 1e15 && magnitude as u64 as f64 == magnitude {
        let sign = usize::from(v.is_sign_negative());
        let mut digits = [0; 20];
        let len = put_integer(&mut digits, magnitude as u64);
        room[0] = b'-';
        room[sign..sign + 20].copy_from_slice(&digits);
        return sign + len;
    }
    if (1e-4..1e15).contains(&magnitude) {
        // In this range both write plain decimals.
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(v).as_bytes();
        debug_assert!(!text.contains(&b'e'), "{v} has an exponent");
        return put_text(room, text);
    }
    put_rare(room, v)
}

/// The same for special, tiny and huge values.
#[cold]
fn put_rare(room: &mut [u8; VALUE_BYTES], v: f64) -> usize {
    let mut text = Vec::with_capacity(VALUE_BYTES);
    write(&mut text, v, |_| !(1e-6..1e21).contains(&v.abs()));
    put_text(room, &text)
}

/// Go's `FormatFloat(v, 'g', -1, 64)` and `%v`: the exponent form when the decimal exponent is below −4 or at
/// least 6. The text exposition format, template values and `le` labels use it.
#[must_use]
pub fn format_g(v: f64) -> String {
    layout(v, |exponent| !(-4..6).contains(&exponent))
}

/// `le` and `quantile` values as scrapes normalise them: [`format_g`] with `.0` behind whole numbers.
#[must_use]
pub fn format_open_metrics(v: f64) -> String {
    let mut text = format_g(v);
    if v.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

/// Go's `%.{precision}g`: at most `precision` significant digits, trailing zeros removed, the exponent form when
/// the decimal exponent is below −4 or at least `precision`.
#[must_use]
pub fn format_g_precision(v: f64, precision: usize) -> String {
    if let Some(text) = special(v) {
        return text.to_owned();
    }
    let precision = precision.max(1);
    let rounded = format!("{:.*e}", precision - 1, v.abs());
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let mut out = Vec::with_capacity(24);
    if v < 0.0 {
        out.push(b'-');
    }
    if exponent < -4 || exponent >= i32::try_from(precision).unwrap_or(i32::MAX) {
        scientific(digits.as_bytes(), exponent + 1, &mut out);
    } else {
        plain(digits.as_bytes(), exponent + 1, &mut out);
    }
    // Nothing but ASCII was written.
    String::from_utf8(out).unwrap_or_default()
}

/// Go's `%.{precision}e`; without a precision the shortest digits.
#[must_use]
pub fn format_e(v: f64, precision: Option<usize>) -> String {
    if !v.is_finite() {
        return special(v).unwrap_or_default().to_owned();
    }
    let text = match precision {
        Some(precision) => format!("{v:.precision$e}"),
        None => format!("{v:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_go_does() {
        for (v, plain, api, g) in [
            (0.0, "0", "0", "0"),
            (-0.0, "-0", "-0", "-0"),
            (1.0, "1", "1", "1"),
            (0.1, "0.1", "0.1", "0.1"),
            (-12.5, "-12.5", "-12.5", "-12.5"),
            (100_000.0, "100000", "100000", "100000"),
            (1e6, "1000000", "1000000", "1e+06"),
            (1_234_567.0, "1234567", "1234567", "1.234567e+06"),
            (0.0001, "0.0001", "0.0001", "0.0001"),
            (0.00001, "0.00001", "0.00001", "1e-05"),
            (1e-7, "0.0000001", "1e-07", "1e-07"),
            (1e20, "100000000000000000000", "100000000000000000000", "1e+20"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (5e-324, "", "5e-324", "5e-324"),
            (f64::MAX, "", "1.7976931348623157e+308", "1.7976931348623157e+308"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN", "NaN"),
        ] {
            if !plain.is_empty() {
                assert_eq!(format_plain(v), plain);
            }
            assert_eq!(format_api(v), api);
            assert_eq!(format_g(v), g);
        }
        for (v, precision, want) in [
            (1_234_567.0, 4, "1.235e+06"),
            (1234.0, 4, "1234"),
            (12_345.0, 4, "1.234e+04"),
            (0.5, 4, "0.5"),
            (0.000_012_34, 4, "1.234e-05"),
            (99_999.0, 4, "1e+05"),
            (-2.0, 4, "-2"),
        ] {
            assert_eq!(format_g_precision(v, precision), want);
        }
        assert_eq!(format_e(1500.0, Some(2)), "1.50e+03");
        assert_eq!(format_e(0.0, Some(1)), "0.0e+00");
        assert_eq!(format_e(1e-7, None), "1e-07");
        assert_eq!(format_open_metrics(1.0), "1.0");
        assert_eq!(format_open_metrics(1e6), "1e+06");
        assert_eq!(format_open_metrics(f64::INFINITY), "+Inf");
    }

    #[test]
    fn whole_numbers_of_every_length_print() {
        let lengths =
            (0..20).flat_map(|digits| [10u64.pow(digits), 10u64.pow(digits) - 1, 7 * 10u64.pow(digits / 2)]);
        for v in lengths.chain([0, 10, 101, 1_090, u64::MAX]) {
            let mut out = Vec::new();
            write_integer(&mut out, v);
            assert_eq!(out, v.to_string().into_bytes());
        }
    }

    proptest! {
        #[test]
        fn values_of_every_day_are_plain_decimals(digits in 1.0..10.0f64, places in 0..17i32, power in -4..15i32) {
            let shorter = 10f64.powi(places);
            let v = (digits * shorter).round() / shorter * 10f64.powi(power);
            for v in [v, -v] {
                let text = format_api(v);
                prop_assert!(!text.contains('e') && !text.ends_with('.') && !text.ends_with(".0"), "{}", text);
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), v.to_bits(), "{}", text);
            }
        }

        #[test]
        fn every_form_reads_back_as_the_same_double(bits in any::<u64>()) {
            let v = f64::from_bits(bits);
            prop_assume!(v.is_finite());
            for text in [format_plain(v), format_api(v), format_g(v)] {
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
            }
        }
    }
}
