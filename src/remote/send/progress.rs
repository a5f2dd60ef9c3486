//! Up to where is everything settled? Requests end in any order; a batch of the log is settled when all its items are,
//! and the place to go on from is behind the last batch before which nothing is open.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::tsdb::LogPosition;

#[derive(Debug, Default)]
struct Open {
    /// Ticket of the first batch in `batches`.
    first: u64,
    /// End of each batch and its open items.
    batches: VecDeque<(LogPosition, usize)>,
    done: Option<LogPosition>,
}

/// Batches that were passed on.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Open>);

impl Progress {
    /// Notes a batch that ends at `end` and has `items`; its ticket.
    pub fn begin(&self, end: LogPosition, items: usize) -> u64 {
        let mut open = self.0.lock();
        let ticket = open.first + open.batches.len() as u64;
        open.batches.push_back((end, items));
        open.advance();
        ticket
    }

    /// Notes that items of batches are sent or given up.
    pub fn settle(&self, tickets: impl Iterator<Item = u64>) {
        let mut open = self.0.lock();
        for ticket in tickets {
            let at = ticket.checked_sub(open.first).and_then(|at| usize::try_from(at).ok());
            if let Some((_, items)) = at.and_then(|at| open.batches.get_mut(at)) {
                *items = items.saturating_sub(1);
            }
        }
        open.advance();
    }

    /// The end of the last batch before which everything is settled.
    pub fn done(&self) -> Option<LogPosition> {
        self.0.lock().done
    }
}

impl Open {
    fn advance(&mut self) {
        while let Some((end, 0)) = self.batches.front() {
            self.done = Some(*end);
            self.batches.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> LogPosition {
        LogPosition { segment: 1, offset }
    }

    #[test]
    fn an_open_batch_holds_those_behind_it() {
        let progress = Progress::default();
        let first = progress.begin(at(10), 2);
        let second = progress.begin(at(20), 1);
        progress.begin(at(30), 0);
        assert_eq!(progress.done(), None);
        progress.settle([second, first].into_iter());
        assert_eq!(progress.done(), None);
        progress.settle([first].into_iter());
        assert_eq!(progress.done(), Some(at(30)));
        let later = progress.begin(at(40), 1);
        progress.settle([first, later].into_iter());
        assert_eq!(progress.done(), Some(at(40)));
    }
}
