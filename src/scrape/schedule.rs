//! When is a target scraped, and what time do its samples get?

/// Milliseconds from now until the first scrape: a point of the interval that `hash` chooses, the same after every
/// restart.
pub(super) fn offset_ms(now_ms: i64, interval_ms: i64, hash: u64) -> u64 {
    let base = interval_ms - now_ms.rem_euclid(interval_ms);
    let offset = i64::try_from(hash % interval_ms.unsigned_abs().max(1)).unwrap_or(0);
    let next = base + offset;
    (if next > interval_ms { next - interval_ms } else { next }).unsigned_abs()
}

/// After this many scrapes in a row that missed the grid, the grid moves: the clock was set.
const MISSES: u32 = 3;

/// Puts sample times onto a regular grid when the scrape is nearly on it, which makes timestamps compress.
#[derive(Debug)]
pub(super) struct Alignment {
    interval_ms: i64,
    tolerance_ms: i64,
    grid_ms: Option<i64>,
    misses: u32,
}

impl Alignment {
    /// `tolerance_ms` is cut to one percent of the interval.
    pub(super) fn new(interval_ms: i64, tolerance_ms: i64) -> Self {
        Self { interval_ms, tolerance_ms: tolerance_ms.min(interval_ms / 100), grid_ms: None, misses: 0 }
    }

    /// The time of the samples of a scrape that starts at `now_ms`.
    pub(super) fn align(&mut self, now_ms: i64) -> i64 {
        let Some(grid) = self.grid_ms else {
            self.grid_ms = Some(now_ms);
            return now_ms;
        };
        let steps = (now_ms - grid + self.interval_ms / 2).div_euclid(self.interval_ms);
        let nearest = grid + steps * self.interval_ms;
        if (now_ms - nearest).abs() <= self.tolerance_ms {
            self.misses = 0;
            self.grid_ms = Some(nearest);
            return nearest;
        }
        self.misses += 1;
        if self.misses >= MISSES {
            self.misses = 0;
            self.grid_ms = Some(now_ms);
        }
        now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_hit_the_same_point_of_every_interval() {
        for now in [0, 1, 999, 10_000, 1_700_000_000_123] {
            let offset = offset_ms(now, 10_000, 123_456_789);
            assert!(offset <= 10_000);
            assert_eq!((now + offset as i64).rem_euclid(10_000), 123_456_789 % 10_000);
        }
    }

    #[test]
    fn small_delays_vanish_and_large_ones_stay() {
        let mut alignment = Alignment::new(10_000, 2);
        assert_eq!(alignment.align(1_000), 1_000);
        assert_eq!(alignment.align(11_002), 11_000);
        assert_eq!(alignment.align(20_999), 21_000);
        assert_eq!(alignment.align(31_050), 31_050);
        assert_eq!(alignment.align(41_001), 41_000);
        // The clock is set back by an hour: after three scrapes there is a new grid.
        let back = 41_000 - 3_600_000 + 777;
        for i in 1..=3 {
            assert_eq!(alignment.align(back + i * 10_000), back + i * 10_000);
        }
        assert_eq!(alignment.align(back + 40_001), back + 40_000);
    }

    #[test]
    fn one_percent_of_the_interval_bounds_the_tolerance() {
        let mut alignment = Alignment::new(100, 2);
        alignment.align(0);
        assert_eq!(alignment.align(102), 102);
    }
}
