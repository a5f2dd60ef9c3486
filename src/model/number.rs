//! Number texts as Go prints them; dashboards, rules and tests compare these strings.
//!
//! The shortest digits that read back as the same double come from `zmij`; the layout is Go's.

/// Shortest decimal digits and decimal exponent of a finite, positive number: `value = 0.d1d2… × 10^exponent`.
fn shortest_digits(v: f64) -> (String, i32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(v);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().unwrap_or(0)),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.bytes().take_while(|b| *b == b'0').count();
    let digits = all[leading..].trim_end_matches('0').to_owned();
    let point = whole.len() as i32 + exponent - leading as i32;
    (digits, point)
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

fn plain(digits: &str, point: i32, out: &mut String) {
    if point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-point) as usize));
        out.push_str(digits);
    } else if (point as usize) >= digits.len() {
        out.push_str(digits);
        out.extend(std::iter::repeat_n('0', point as usize - digits.len()));
    } else {
        out.push_str(&digits[..point as usize]);
        out.push('.');
        out.push_str(&digits[point as usize..]);
    }
}

fn scientific(digits: &str, point: i32, out: &mut String) {
    out.push_str(&digits[..1]);
    if digits.len() > 1 {
        out.push('.');
        out.push_str(&digits[1..]);
    }
    let exponent = point - 1;
    out.push('e');
    out.push(if exponent < 0 { '-' } else { '+' });
    let exponent = exponent.unsigned_abs();
    if exponent < 10 {
        out.push('0');
    }
    out.push_str(&exponent.to_string());
}

fn layout(v: f64, use_exponent: impl Fn(i32) -> bool) -> String {
    if let Some(text) = special(v) {
        return text.to_owned();
    }
    let (digits, point) = shortest_digits(v.abs());
    let mut out = String::with_capacity(24);
    if v < 0.0 {
        out.push('-');
    }
    if use_exponent(point - 1) {
        scientific(&digits, point, &mut out);
    } else {
        plain(&digits, point, &mut out);
    }
    out
}

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`: plain decimals always. PromQL printing and string values use it.
#[must_use]
pub fn format_plain(v: f64) -> String {
    layout(v, |_| false)
}

/// API sample values: plain decimals, exponents only below 1e-6 or from 1e21 on.
#[must_use]
pub fn format_api(v: f64) -> String {
    let magnitude = v.abs();
    layout(v, |_| !(1e-6..1e21).contains(&magnitude))
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
    let mut out = String::with_capacity(24);
    if v < 0.0 {
        out.push('-');
    }
    if exponent < -4 || exponent >= i32::try_from(precision).unwrap_or(i32::MAX) {
        scientific(digits, exponent + 1, &mut out);
    } else {
        plain(digits, exponent + 1, &mut out);
    }
    out
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

    proptest! {
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
