//! How much memory may bodies take together whose senders are under no limit? Each may hold at most as much as is
//! left for all others: one endless body gets half of the room, two get a third each, and whoever sends little always
//! finds place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::NetError;

/// Buffers up to here are not counted, bytes: they are what every request takes.
const FREE: u64 = 1 << 20;

/// Memory shared by the bodies that have no limit of their own.
#[derive(Debug)]
pub struct BodyRoom {
    total: u64,
    used: AtomicU64,
}

impl BodyRoom {
    /// Room of so many bytes.
    #[must_use]
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, used: AtomicU64::new(0) })
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one body holds of the room; gives it back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    room: Option<Arc<BodyRoom>>,
    held: u64,
}

impl Share {
    /// A share of `room` that holds nothing yet.
    pub(super) fn of(room: Arc<BodyRoom>) -> Self {
        Self { room: Some(room), held: 0 }
    }

    /// Takes what buffers of so many bytes need beyond what is held already.
    ///
    /// # Errors
    ///
    /// Others would be left with less than this one has.
    pub(super) fn cover(&mut self, bytes: u64) -> Result<(), NetError> {
        let Some(room) = &self.room else { return Ok(()) };
        let wanted = bytes.saturating_sub(FREE);
        let more = wanted.saturating_sub(self.held);
        let fits = |used: u64| {
            let used = used.saturating_add(more);
            (wanted <= room.total.saturating_sub(used)).then_some(used)
        };
        if more > 0 {
            room.used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .map_err(|_| NetError::NoRoom { bytes })?;
            self.held = wanted;
        }
        Ok(())
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        if let Some(room) = &self.room {
            room.used.fetch_sub(std::mem::take(&mut self.held), Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(share: &mut Share) -> u64 {
        (FREE..).step_by(1 << 20).take_while(|bytes| share.cover(*bytes).is_ok()).last().unwrap_or(0) - FREE
    }

    #[test]
    fn many_endless_bodies_leave_room_for_small_ones() {
        let room = BodyRoom::new(256 << 20);
        let mut first = Share::of(Arc::clone(&room));
        assert_eq!(fill(&mut first), 128 << 20);
        let mut hogs: Vec<Share> = (0..20).map(|_| Share::of(Arc::clone(&room))).collect();
        for _ in 0..2 {
            for hog in &mut hogs {
                fill(hog);
            }
        }
        assert!(room.used() <= 256 << 20);
        let mut small = Share::of(Arc::clone(&room));
        assert!(small.cover(FREE).is_ok(), "what everybody needs is not counted");
        drop(first);
        assert!(small.cover(FREE + (4 << 20)).is_ok(), "{} are used", room.used());
        drop((hogs, small));
        assert_eq!(room.used(), 0);
    }
}
