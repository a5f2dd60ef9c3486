//! Which answers are given at once, by the thread that read the request? Those to questions whose last answer was quick
//! and small: to wake another thread and to be woken takes longer than such an answer. One at a time and with little
//! patience, so that nobody else waits; what takes longer than the last time begins anew where it may take its time.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Questions that are remembered.
const PLACES: usize = 4096;
/// Longest time of a quick answer.
const QUICK: Duration = Duration::from_millis(2);
/// Most bytes of a small answer.
const SMALL: usize = 160 << 10;

/// How long an answer that was expected to be quick may take.
pub const PATIENCE: Duration = Duration::from_millis(20);
/// How long it may be, bytes.
pub const MOST: usize = 512 << 10;

/// What is asked, whenever it is asked: questions about the same text, range and step take about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question(u64);

impl Question {
    /// From everything that tells questions apart.
    #[must_use]
    pub fn new(parts: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        // Zero stands for an empty place.
        Self(hasher.finish().max(1))
    }
}

/// The questions whose last answer was quick. Two that share a place forget each other, which costs time and nothing
/// else.
#[derive(Debug)]
pub struct Quick {
    places: Box<[AtomicU64]>,
    taken: AtomicBool,
}

/// The turn to answer at once; the next can have it when this goes.
#[derive(Debug)]
pub struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Default for Quick {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), taken: AtomicBool::new(false) }
    }
}

impl Quick {
    fn place(&self, question: Question) -> &AtomicU64 {
        // There are fewer than 2^32 places.
        &self.places[(question.0 % PLACES as u64) as usize]
    }

    /// The turn, if the question is known for quick answers and nobody else is at it.
    pub fn turn(&self, question: Question) -> Option<Turn<'_>> {
        let known = self.place(question).load(Ordering::Relaxed) == question.0;
        (known && !self.taken.swap(true, Ordering::Acquire)).then(|| Turn(&self.taken))
    }

    /// Remembers how long an answer took and how many bytes it had.
    pub fn note(&self, question: Question, time: Duration, bytes: usize) {
        let place = self.place(question);
        if time <= QUICK && bytes <= SMALL {
            place.store(question.0, Ordering::Relaxed);
        } else {
            // Somebody else's may be there by now.
            let _ = place.compare_exchange(question.0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_quick_and_small_the_last_time_is_answered_at_once() {
        let quick = Quick::default();
        let question = Question::new(("up", 0));
        assert_ne!(question, Question::new(("up", 1)));
        let ms = Duration::from_millis;
        for (time, bytes, expected) in
            [(ms(1), 10, true), (ms(3), 10, false), (ms(0), SMALL, true), (ms(0), SMALL + 1, false)]
        {
            quick.note(question, time, bytes);
            assert_eq!(quick.turn(question).is_some(), expected, "{time:?} {bytes}");
        }
        quick.note(question, ms(0), 0);
        let turn = quick.turn(question);
        assert!(turn.is_some() && quick.turn(question).is_none(), "one at a time");
        drop(turn);
        assert!(quick.turn(question).is_some());
        assert!(quick.turn(Question::new("another")).is_none(), "nobody knows yet");
    }
}
