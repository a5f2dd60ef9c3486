//! How does Go's JSON print a time? RFC 3339 in UTC, with as many decimals as needed; the zero time before the
//! first event.

/// What Go prints for a time that was never set.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Prints milliseconds since the Unix epoch.
#[must_use]
pub fn rfc3339(t_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(t_ms).map_or_else(|_| ZERO_TIME.to_owned(), |t| t.to_string())
}

/// Prints a time that may not have come yet.
#[must_use]
pub fn rfc3339_or_zero(t_ms: Option<i64>) -> String {
    t_ms.map_or_else(|| ZERO_TIME.to_owned(), rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        assert_eq!(rfc3339(1_435_781_451_000), "2015-07-01T20:10:51Z");
        assert_eq!(rfc3339(1_435_781_451_780), "2015-07-01T20:10:51.78Z");
        assert_eq!(rfc3339_or_zero(None), ZERO_TIME);
    }
}
