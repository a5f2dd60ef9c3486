//! How does a person see that long work goes on? A bar that is drawn over itself on a terminal, a plain line now and
//! then elsewhere. Everything goes to standard error.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
const WIDTH: usize = 24;

struct State {
    next: Instant,
    drawn: bool,
}

/// The progress of one piece of work.
pub(super) struct Progress {
    what: &'static str,
    terminal: bool,
    state: RefCell<State>,
}

impl Progress {
    /// Work that is described by `what`; short work shows nothing.
    pub(super) fn new(what: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let first = if terminal { Duration::from_millis(300) } else { LINE_EVERY };
        Self { what, terminal, state: RefCell::new(State { next: Instant::now() + first, drawn: false }) }
    }

    /// `done` of `all`, and a text for what is being done; `all` may be 0 where it is not known.
    pub(super) fn show(&self, done: u64, all: u64, text: &str) {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        if now < state.next {
            return;
        }
        state.next = now + if self.terminal { DRAW_EVERY } else { LINE_EVERY };
        state.drawn = true;
        let line = self.line(done, all, text);
        // Nobody to tell when standard error is closed.
        let _ = if self.terminal {
            let line: String = line.chars().take(100).collect();
            write!(std::io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    fn line(&self, done: u64, all: u64, text: &str) -> String {
        if all == 0 {
            return format!("{}: {text}", self.what);
        }
        let share = done.min(all) as f64 / all as f64;
        let percent = (share * 100.0) as u64;
        if !self.terminal {
            return format!("{}: {percent}% {text}", self.what);
        }
        let full = (share * WIDTH as f64) as usize;
        format!("{} [{}{}] {percent}% {text}", self.what, "#".repeat(full), "-".repeat(WIDTH - full))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.state.borrow().drawn {
            // As above.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_how_far_it_is() {
        let mut progress = Progress::new("Reading");
        progress.terminal = false;
        assert_eq!(progress.line(1, 4, "a.wal"), "Reading: 25% a.wal");
        assert_eq!(progress.line(5, 0, "a.wal"), "Reading: a.wal");
        progress.terminal = true;
        assert_eq!(progress.line(2, 4, "b"), "Reading [############------------] 50% b");
        assert_eq!(progress.line(9, 4, "b"), "Reading [########################] 100% b");
    }
}
