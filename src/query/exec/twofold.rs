//! Sums of twice the precision of a double: the unevaluated sum of a double and what it lost.
//!
//! Moments of values that are large against their spread (memory sizes, timestamps) cancel nearly all digits of a double.
//! Here 106 bits are carried, so that sums of squares and products may be taken apart and put together again. The
//! error-free steps are Knuth's sum and Dekker's product ("A floating-point technique for extending the available precision", 1971).

/// `hi + lo`, where `lo` is at most half a unit in the last place of `hi`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Twofold {
    /// The sum, rounded.
    pub hi: f64,
    lo: f64,
}

/// `a + b` and what rounding lost.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> Twofold {
    let hi = a + b;
    let taken = hi - a;
    Twofold { hi, lo: (a - (hi - taken)) + (b - taken) }
}

/// The same where `a` is the larger one.
#[inline(always)]
fn quick_sum(a: f64, b: f64) -> Twofold {
    let hi = a + b;
    Twofold { hi, lo: b - (hi - a) }
}

/// A double as the sum of two with half the digits each.
#[inline(always)]
fn split(a: f64) -> (f64, f64) {
    /// 2²⁷ + 1.
    const SPLITTER: f64 = 134_217_729.0;
    let c = SPLITTER * a;
    let high = c - (c - a);
    (high, a - high)
}

/// `a · b` and what rounding lost.
#[inline(always)]
fn two_product(a: f64, b: f64) -> Twofold {
    let hi = a * b;
    let ((a1, a2), (b1, b2)) = (split(a), split(b));
    Twofold { hi, lo: ((a1 * b1 - hi) + a1 * b2 + a2 * b1) + a2 * b2 }
}

impl Twofold {
    /// `a − b`, exactly.
    #[inline(always)]
    #[must_use]
    pub fn difference(a: f64, b: f64) -> Self {
        two_sum(a, -b)
    }

    /// The sum.
    #[inline(always)]
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (high, low) = (two_sum(self.hi, other.hi), two_sum(self.lo, other.lo));
        let sum = quick_sum(high.hi, high.lo + low.hi);
        quick_sum(sum.hi, sum.lo + low.lo)
    }

    /// The difference.
    #[inline(always)]
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { hi: -other.hi, lo: -other.lo })
    }

    /// The product.
    #[inline(always)]
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let product = two_product(self.hi, other.hi);
        quick_sum(product.hi, product.lo + (self.hi * other.lo + self.lo * other.hi))
    }

    /// The product with a double.
    #[inline(always)]
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        let product = two_product(self.hi, by);
        quick_sum(product.hi, product.lo + self.lo * by)
    }
}

impl From<f64> for Twofold {
    fn from(v: f64) -> Self {
        Self { hi: v, lo: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value, where it is a whole number.
    fn whole(x: Twofold) -> i128 {
        x.hi as i128 + x.lo as i128
    }

    proptest! {
        #[test]
        fn whole_numbers_are_exact(a in -(1i64 << 52)..1 << 52, b in -(1i64 << 52)..1 << 52, c in -(1i64 << 30)..1 << 30) {
            let (x, y) = (Twofold::from(a as f64), Twofold::from(b as f64));
            prop_assert_eq!(whole(Twofold::difference(a as f64, b as f64)), i128::from(a) - i128::from(b));
            prop_assert_eq!(whole(x.times(y)), i128::from(a) * i128::from(b));
            let product = x.times(Twofold::from(c as f64));
            prop_assert_eq!(whole(product.plus(y)), i128::from(a) * i128::from(c) + i128::from(b));
            prop_assert_eq!(whole(product.minus(product)), 0);
            prop_assert_eq!(whole(product.scaled(1024.0)), i128::from(a) * i128::from(c) * 1024);
        }
    }

    #[test]
    fn what_a_double_loses_stays() {
        let sum = Twofold::from(1e16).plus(1.0.into()).minus(1e16.into());
        assert_eq!(sum.hi, 1.0);
    }
}
