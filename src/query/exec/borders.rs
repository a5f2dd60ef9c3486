//! How is a fold over long windows kept up to date without ever taking a sample out?
//!
//! Borders lie at multiples of the window's length, so a window crosses one at most. What lies before the border is
//! folded backwards from it once, with each intermediate result kept; what lies behind it is folded as the windows
//! advance; a window joins the two. Every sample is looked at twice however long the windows are, nothing is
//! subtracted, so nothing drifts, and an outlier is forgotten with the last window that holds it.

use super::context::Pace;
use super::range::Windows;
use super::slide::walk;
use crate::query::QueryError;

/// What is known about the samples of a part of a window.
pub trait Fold: Copy {
    /// With one more sample.
    fn add(&mut self, t: i64, v: f64);
    /// Of two parts together.
    fn join(self, later: Self) -> Self;
}

/// Visits every window that is not empty: `few` when it holds fewer than `worth` samples, otherwise `many` with its fold.
/// Both answer how many samples they looked at. `start(t, v)` makes the empty fold of a border from the first sample of
/// the first window that crosses it.
pub fn slide<F: Fold>(
    windows: &Windows,
    (t, v): (&[i64], &[f64]),
    worth: usize,
    start: impl Fn(i64, f64) -> F,
    mut few: impl FnMut(usize, usize, usize) -> usize,
    mut many: impl FnMut(usize, usize, usize, F) -> usize,
) -> Result<u64, QueryError> {
    // behind[k]: fold of the k + 1 samples before the border; ahead: of middle..ahead_end.
    let (mut behind, mut border, mut middle): (Vec<F>, Option<i64>, usize) = (Vec::new(), None, 0);
    let (mut ahead, mut ahead_end): (Option<F>, usize) = (None, 0);
    let (mut pace, mut going) = (Pace::default(), Ok(()));
    let seen = walk(windows, t, 1, |step, lo, hi| {
        if going.is_err() {
            return;
        }
        if hi - lo < worth {
            going = pace.step(windows.context(), few(step, lo, hi));
            return;
        }
        let end = windows.shift.apply(windows.axis.time(step));
        let at = end.div_euclid(windows.range_ms);
        if border != Some(at) || ahead.is_none() {
            border = Some(at);
            middle = lo + t[lo..hi].partition_point(|t| *t <= at.saturating_mul(windows.range_ms));
            let empty = start(t[lo], v[lo]);
            (ahead, ahead_end) = (Some(empty), middle);
            behind.clear();
            let mut acc = empty;
            for i in (lo..middle).rev() {
                acc.add(t[i], v[i]);
                behind.push(acc);
            }
        }
        let Some(ahead) = &mut ahead else { return };
        for i in ahead_end..hi {
            ahead.add(t[i], v[i]);
        }
        ahead_end = hi;
        let fold = middle.checked_sub(lo + 1).map_or(*ahead, |k| behind[k].join(*ahead));
        going = pace.step(windows.context(), many(step, lo, hi, fold));
    })?;
    going.map(|()| seen)
}
