//! Calendar fields of a Unix time, in UTC and the proleptic Gregorian calendar.

/// A date in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Year.
    pub year: i64,
    /// Month from 1.
    pub month: i64,
    /// Day of the month from 1.
    pub day: i64,
    /// Days since 1970-01-01.
    pub days: i64,
}

/// The date at `seconds` since the epoch (day arithmetic over 400-year eras that begin on 1 March).
#[must_use]
pub fn date(seconds: i64) -> Date {
    let days = seconds.div_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Date { year, month, day, days }
}

/// Whether February has 29 days.
#[must_use]
pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

impl Date {
    /// 0 = Sunday.
    #[must_use]
    pub fn weekday(&self) -> i64 {
        (self.days + 4).rem_euclid(7)
    }

    /// 1 = 1 January.
    #[must_use]
    pub fn day_of_year(&self) -> i64 {
        const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        BEFORE[(self.month - 1) as usize] + self.day + i64::from(self.month > 2 && is_leap(self.year))
    }

    /// Days of the month.
    #[must_use]
    pub fn days_in_month(&self) -> i64 {
        match self.month {
            2 => 28 + i64::from(is_leap(self.year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, year, month, day, weekday, day_of_year, length) in [
            (0, 1970, 1, 1, 4, 1, 31),
            (951_782_400, 2000, 2, 29, 2, 60, 29),
            (1_136_239_445, 2006, 1, 2, 1, 2, 31),
            (-1, 1969, 12, 31, 3, 365, 31),
            (4_107_542_400, 2100, 3, 1, 1, 60, 31),
        ] {
            let d = date(seconds);
            assert_eq!(
                (d.year, d.month, d.day, d.weekday(), d.day_of_year(), d.days_in_month()),
                (year, month, day, weekday, day_of_year, length),
                "{seconds}"
            );
        }
    }
}
