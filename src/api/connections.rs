//! Who may be connected? At most `--web.max-connections`; when all places are taken, the connection that has been
//! without a request for longest hands its place over, so that clients who connect and dawdle cannot keep others out.
//! When every place is busy with a request, a few more connections are let in that are served health, readiness and
//! metrics, and told to come back later otherwise.
//!
//! A place changes hands at once, not when whoever had it has gone: thousands who knock at the same time would
//! otherwise wait in the kernel's queue for one another, and an honest client behind them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::guarded::ConnectionState;

/// Connections beyond the limit that are served the bare necessities.
const SPARE: usize = 256;
/// Connections that handed their place over and have not gone yet: their tasks must run first.
const LEAVING: usize = 512;
/// How long a connection may be without a request before it can be asked to go: whoever means it sends one at once.
const GRACE: Duration = Duration::from_millis(250);
/// The same when not even a spare place is left: a client that is new would wait in the kernel's queue instead.
const SHORT_GRACE: Duration = Duration::from_millis(25);
/// Longest wait for a place before connections are looked at again.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Spare,
}

#[derive(Debug)]
struct Known {
    state: Arc<ConnectionState>,
    leave: CancellationToken,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Held {
    full: usize,
    spare: usize,
    leaving: usize,
    next: u64,
    /// Those that have a place, in the order in which they came.
    known: BTreeMap<u64, Known>,
}

impl Held {
    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Full => &mut self.full,
            Kind::Spare => &mut self.spare,
        }
    }

    /// Takes its place from the oldest connection that has been without a request for a while, preferably a full one.
    fn take_over(&mut self, grace: Duration) -> Option<Kind> {
        if self.leaving >= LEAVING {
            return None;
        }
        let idle = ConnectionState::idle_at_least(grace);
        let mut chosen = None;
        for (&number, known) in &self.known {
            if !idle(&known.state) {
                continue;
            }
            if known.kind == Kind::Full {
                chosen = Some(number);
                break;
            }
            chosen.get_or_insert(number);
        }
        let known = self.known.remove(&chosen?)?;
        known.leave.cancel();
        *self.count(known.kind) -= 1;
        self.leaving += 1;
        Some(known.kind)
    }

    fn free(&mut self, limit: usize) -> Option<Kind> {
        if self.full < limit {
            return Some(Kind::Full);
        }
        self.take_over(GRACE)
            .or_else(|| (self.spare < SPARE).then_some(Kind::Spare))
            .or_else(|| self.take_over(SHORT_GRACE))
    }
}

/// All connections of a server.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    held: Mutex<Held>,
    left: Notify,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    /// Whether only the bare necessities are served.
    pub is_spare: bool,
    /// Cancelled when the connection must go.
    pub leave: CancellationToken,
    /// What the stream and its requests share.
    pub state: Arc<ConnectionState>,
    number: u64,
    all: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.all.held.lock();
        match held.known.remove(&self.number) {
            Some(known) => *held.count(known.kind) -= 1,
            None => held.leaving -= 1,
        }
        drop(held);
        self.all.left.notify_one();
    }
}

impl Connections {
    /// Places for `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), held: Mutex::default(), left: Notify::new() })
    }

    /// A place for a connection that was accepted, if there is one or one can be taken over.
    fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let mut held = self.held.lock();
        let kind = held.free(self.limit)?;
        let (state, leave) = (ConnectionState::new(), CancellationToken::new());
        let number = held.next;
        held.next += 1;
        *held.count(kind) += 1;
        held.known.insert(number, Known { state: Arc::clone(&state), leave: leave.clone(), kind });
        Some(Place { is_spare: kind == Kind::Spare, leave, state, number, all: Arc::clone(self) })
    }

    /// A place for a connection that was accepted; waits while there is none at all.
    pub async fn enter(self: &Arc<Self>) -> Place {
        loop {
            let left = self.left.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            // Either somebody goes, or somebody's grace ends.
            let _ = tokio::time::timeout(PAUSE, left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::guarded::InFlight;

    fn take_over(connections: &Connections) -> Option<Kind> {
        connections.held.lock().take_over(Duration::ZERO)
    }

    /// A place whose connection has been looked at.
    async fn enter(connections: &Arc<Connections>) -> Place {
        let place = connections.enter().await;
        place.state.waits();
        place
    }

    #[tokio::test]
    async fn idle_ones_make_room_and_busy_ones_do_not() {
        let connections = Connections::new(2);
        let busy = enter(&connections).await;
        let request = InFlight::begin(&busy.state, false);
        let idle = connections.enter().await;
        assert_eq!(take_over(&connections), None, "nobody knows yet whether it dawdles");
        idle.state.waits();
        let spare = enter(&connections).await;
        assert!(spare.is_spare, "a fresh connection is left alone");
        assert_eq!(take_over(&connections), Some(Kind::Full));
        assert!(idle.leave.is_cancelled() && !busy.leave.is_cancelled() && !spare.leave.is_cancelled());
        assert_eq!(take_over(&connections), Some(Kind::Spare), "the other full one is busy");
        assert_eq!(take_over(&connections), None);
        assert!(!connections.enter().await.is_spare, "a place became free");
        drop(request);
        assert_eq!(take_over(&connections), Some(Kind::Full), "its request is over");
        drop((busy, idle, spare));
        let held = connections.held.lock();
        assert_eq!((held.full, held.spare, held.leaving), (0, 0, 0));
    }

    #[tokio::test]
    async fn those_asked_to_go_are_not_waited_for_up_to_a_bound() {
        let connections = Connections::new(1);
        let mut waiting = Vec::new();
        for _ in 0..1 + SPARE {
            waiting.push(connections.try_enter().expect("a place"));
        }
        waiting.iter().for_each(|place| place.state.waits());
        tokio::time::sleep(GRACE).await;
        for number in 0..LEAVING {
            let place = connections.try_enter().unwrap_or_else(|| panic!("place {number}"));
            place.state.waits();
            waiting.push(place);
            if number % 50 == 49 {
                tokio::time::sleep(GRACE).await;
            }
        }
        tokio::time::sleep(GRACE).await;
        assert!(connections.try_enter().is_none(), "too many have not gone yet");
        waiting.remove(0);
        assert!(connections.try_enter().is_some());
    }
}
