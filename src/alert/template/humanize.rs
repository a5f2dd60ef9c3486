//! `humanize` and its kin: numbers as people read them. The texts are Prometheus's.

use super::format::time_text;
use crate::model::number::{format_g, format_g_precision};

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
const BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];

fn g4(v: f64) -> String {
    format_g_precision(v, 4)
}

/// Multiplies or divides by `base` until the magnitude fits, and names the prefix.
fn scale(mut v: f64, base: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut prefix = "";
    for p in prefixes {
        if v.abs() < base {
            break;
        }
        prefix = p;
        v /= base;
    }
    (v, prefix)
}

fn scale_up(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for p in SMALL {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = p;
        v *= 1000.0;
    }
    (v, prefix)
}

pub(super) fn humanize(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return g4(v);
    }
    let (v, prefix) = if v.abs() >= 1.0 { scale(v, 1000.0, &LARGE) } else { scale_up(v) };
    format!("{}{prefix}", g4(v))
}

pub(super) fn humanize1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return g4(v);
    }
    let (v, prefix) = scale(v, 1024.0, &BINARY);
    format!("{}{prefix}", g4(v))
}

pub(super) fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return g4(v);
    }
    if v == 0.0 {
        return format!("{}s", g4(v));
    }
    if v.abs() >= 1.0 {
        let sign = if v < 0.0 { "-" } else { "" };
        let v = v.abs();
        let whole = v as i64;
        let (seconds, minutes, hours, days) =
            (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
        return if days != 0 {
            format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
        } else if hours != 0 {
            format!("{sign}{hours}h {minutes}m {seconds}s")
        } else if minutes != 0 {
            format!("{sign}{minutes}m {seconds}s")
        } else {
            format!("{sign}{}s", g4(v))
        };
    }
    let (v, prefix) = scale_up(v);
    format!("{}{prefix}s", g4(v))
}

pub(super) fn humanize_percentage(v: f64) -> String {
    format!("{}%", g4(v * 100.0))
}

pub(super) fn humanize_timestamp(v: f64) -> Result<String, String> {
    if !v.is_finite() {
        return Ok(g4(v));
    }
    Ok(time_text(seconds_to_ms(v)?))
}

pub(super) fn seconds_to_ms(v: f64) -> Result<i64, String> {
    let ns = v * 1e9;
    if !v.is_finite() {
        return Err("value is NaN or Inf".into());
    }
    if !(-9.223_372_036_854_775e18..=9.223_372_036_854_775e18).contains(&ns) {
        let shown = format_g(v);
        return Err(format!(
            "{shown} cannot be represented as a nanoseconds timestamp since it overflows int64"
        ));
    }
    Ok((ns as i64).div_euclid(1_000_000))
}
