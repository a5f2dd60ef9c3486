//! How many shards does a queue need? Rates are smoothed over windows of ten seconds; the number follows the work that
//! comes in plus a share of the backlog, and only when it is clearly off.

use std::time::Duration;

/// Between two decisions.
pub const PERIOD: Duration = Duration::from_secs(10);
/// Weight of the newest window.
const WEIGHT: f64 = 0.2;
/// A number within this share of the ideal one stays.
const TOLERANCE: f64 = 0.3;
/// Share of the backlog that shall be worked off each second.
const CATCH_UP: f64 = 0.05;
/// A queue that is further behind keeps its shards.
const BEHIND_SECONDS: f64 = 10.0;

/// An exponentially weighted rate.
#[derive(Debug, Default, Clone, Copy)]
struct Rate {
    per_second: f64,
    begun: bool,
}

impl Rate {
    fn tick(&mut self, count: f64, seconds: f64) {
        let now = count / seconds;
        if self.begun {
            self.per_second += WEIGHT * (now - self.per_second);
        } else if now > 0.0 {
            self.begun = true;
            self.per_second = now;
        }
    }
}

/// What happened since the last decision.
#[derive(Debug, Default, Clone, Copy)]
pub struct Window {
    /// Items read from the log, dropped ones included.
    pub came: f64,
    /// Items that rules dropped.
    pub dropped: f64,
    /// Items sent.
    pub sent: f64,
    /// Seconds that requests took, summed over shards.
    pub busy_seconds: f64,
}

/// Decides on the number of shards.
#[derive(Debug, Default)]
pub struct Scaling {
    came: Rate,
    dropped: Rate,
    sent: Rate,
    busy: Rate,
}

impl Scaling {
    /// Takes a window in. Answers with the ideal number and the one to have.
    pub fn decide(
        &mut self,
        window: Window,
        seconds: f64,
        delay_seconds: f64,
        shards: usize,
        (least, most): (usize, usize),
    ) -> (f64, usize) {
        self.came.tick(window.came, seconds);
        self.dropped.tick(window.dropped, seconds);
        self.sent.tick(window.sent, seconds);
        self.busy.tick(window.busy_seconds, seconds);
        let sent = self.sent.per_second;
        if sent <= 0.0 {
            return (shards as f64, shards);
        }
        let kept = sent / (self.dropped.per_second + sent);
        let needed = self.came.per_second * kept;
        let backlog = delay_seconds.max(0.0) * needed;
        let seconds_each = self.busy.per_second / sent;
        let ideal = seconds_each * (needed + CATCH_UP * backlog);
        let now = shards as f64;
        if ideal >= now * (1.0 - TOLERANCE) && ideal <= now * (1.0 + TOLERANCE) {
            return (ideal, shards);
        }
        let wanted = ideal.ceil().min(most as f64) as usize;
        if wanted < shards && delay_seconds > BEHIND_SECONDS {
            return (ideal, shards);
        }
        (ideal, wanted.clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(scaling: &mut Scaling, sent: f64, busy: f64, delay: f64, shards: usize) -> usize {
        let window = Window { came: 10_000.0, dropped: 0.0, sent, busy_seconds: busy };
        scaling.decide(window, 10.0, delay, shards, (1, 50)).1
    }

    #[test]
    fn follows_the_work() {
        // 1,000 a second, each request second carries 500 of them: two shards.
        let mut scaling = Scaling::default();
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 0.0, 1), 2);
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 0.0, 2), 2);
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 0.0, 8), 2, "shrinks when it keeps up");
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 60.0, 20), 20, "keeps its shards while behind");
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 60.0, 2), 8, "grows by the backlog");
        assert_eq!(decide(&mut scaling, 10_000.0, 20.0, 1e9, 2), 50, "never above the most");
        let mut silent = Scaling::default();
        assert_eq!(decide(&mut silent, 0.0, 0.0, 1e9, 3), 3, "a peer that takes nothing gets no more shards");
    }
}
