//! Functions of one float at a time.

use super::Func;
use super::time::date;

/// Go's `math.Max`: NaN wins, +0 is above −0.
#[inline]
#[must_use]
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`: NaN wins, −0 is below +0.
#[inline]
#[must_use]
pub fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

/// `round` to the nearest multiple of `1 / inverse`, halves up.
#[inline]
#[must_use]
pub fn round_to(v: f64, inverse: f64) -> f64 {
    (v * inverse + 0.5).floor() / inverse
}

/// A function of one float.
pub type Elementwise = fn(f64) -> f64;

fn sgn(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// The function of one float that `func` is, calendar functions of Unix seconds included.
#[must_use]
pub fn elementwise(func: Func) -> Option<Elementwise> {
    Some(match func {
        Func::Abs => f64::abs,
        Func::Ceil => f64::ceil,
        Func::Floor => f64::floor,
        Func::Exp => f64::exp,
        Func::Sqrt => f64::sqrt,
        Func::Ln => f64::ln,
        Func::Log2 => f64::log2,
        Func::Log10 => f64::log10,
        Func::Sgn => sgn,
        Func::Sin => f64::sin,
        Func::Cos => f64::cos,
        Func::Tan => f64::tan,
        Func::Asin => f64::asin,
        Func::Acos => f64::acos,
        Func::Atan => f64::atan,
        Func::Sinh => f64::sinh,
        Func::Cosh => f64::cosh,
        Func::Tanh => f64::tanh,
        Func::Asinh => f64::asinh,
        Func::Acosh => f64::acosh,
        Func::Atanh => f64::atanh,
        Func::Rad => |v| v * std::f64::consts::PI / 180.0,
        Func::Deg => |v| v * 180.0 / std::f64::consts::PI,
        Func::Minute => |v| (v as i64).rem_euclid(3600).div_euclid(60) as f64,
        Func::Hour => |v| (v as i64).rem_euclid(86_400).div_euclid(3600) as f64,
        Func::DayOfWeek => |v| date(v as i64).weekday() as f64,
        Func::DayOfMonth => |v| date(v as i64).day as f64,
        Func::DayOfYear => |v| date(v as i64).day_of_year() as f64,
        Func::DaysInMonth => |v| date(v as i64).days_in_month() as f64,
        Func::Month => |v| date(v as i64).month as f64,
        Func::Year => |v| date(v as i64).year as f64,
        _ => return None,
    })
}
