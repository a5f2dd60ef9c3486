//! How many requests may come? The token bucket of `rate_limit` in the web configuration file: one token an interval,
//! at most `burst` of them saved.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A bucket of tokens.
#[derive(Debug)]
pub struct RateLimit {
    interval: Duration,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl RateLimit {
    /// A full bucket that gains one token each `interval`, which must not be zero.
    #[must_use]
    pub fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { interval, burst, state: Mutex::new((burst, now)) }
    }

    /// Takes a token if there is one.
    pub fn allow(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let gained = now.saturating_duration_since(state.1).as_secs_f64() / self.interval.as_secs_f64();
        let tokens = (state.0 + gained).min(self.burst);
        let allowed = tokens >= 1.0;
        *state = (if allowed { tokens - 1.0 } else { tokens }, now);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saves_a_burst_and_refills_steadily() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let limit = RateLimit::new(Duration::from_millis(100), 2, begin);
        let got: Vec<bool> =
            [0, 0, 0, 50, 100, 150, 1000, 1000, 1000].iter().map(|ms| limit.allow(at(*ms))).collect();
        assert_eq!(got, [true, true, false, false, true, false, true, true, false]);
    }
}
