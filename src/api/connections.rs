//! Who may be connected? At most `--web.max-connections`; when all places are taken, the connection that has been
//! without a request for longest makes room, so that clients who connect and dawdle cannot keep others out. When every
//! place is busy with a request, a few more connections are let in that are served health, readiness and metrics, and
//! told to come back later otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::guarded::ConnectionState;

/// Connections beyond the limit that are served the bare necessities.
const SPARE: usize = 64;
/// How long a connection may be without a request before it can be asked to go: whoever means it sends one at once.
const GRACE: Duration = Duration::from_millis(250);
/// The same when not even a spare place is left: a client that is new would wait in the kernel's queue instead.
const SHORT_GRACE: Duration = Duration::from_millis(10);
/// Longest wait for a place before connections are looked at again.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Known {
    state: Arc<ConnectionState>,
    leave: CancellationToken,
}

/// All connections of a server.
#[derive(Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    /// In the order in which they came.
    known: Mutex<(u64, BTreeMap<u64, Known>)>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
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
        self.all.known.lock().1.remove(&self.number);
    }
}

impl Connections {
    /// Places for `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
            spare: Arc::new(Semaphore::new(SPARE)),
            known: Mutex::default(),
        })
    }

    fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, is_spare: bool) -> Place {
        let (state, leave) = (ConnectionState::new(), CancellationToken::new());
        let mut known = self.known.lock();
        let number = known.0;
        known.0 += 1;
        known.1.insert(number, Known { state: Arc::clone(&state), leave: leave.clone() });
        drop(known);
        Place { _permit: permit, is_spare, leave, state, number, all: Arc::clone(self) }
    }

    /// Asks the oldest connection to go that has been without a request for a while.
    fn make_room(&self, grace: Duration) -> bool {
        let known = self.known.lock();
        let idle = |k: &&Known| !k.leave.is_cancelled() && k.state.idle_for().is_some_and(|t| t >= grace);
        known.1.values().find(idle).inspect(|k| k.leave.cancel()).is_some()
    }

    fn free_place(self: &Arc<Self>) -> Option<Place> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(self.take(permit, false));
        }
        None
    }

    /// A place for a connection that was accepted; waits while there is none at all.
    pub async fn enter(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.free_place() {
                return place;
            }
            let leaving = self.make_room(GRACE);
            if !leaving && let Ok(permit) = Arc::clone(&self.spare).try_acquire_owned() {
                return self.take(permit, true);
            }
            if !leaving {
                self.make_room(SHORT_GRACE);
            }
            // Whoever was asked to go does so as soon as its task runs. The semaphores are never closed.
            tokio::select! {
                Ok(permit) = Arc::clone(&self.places).acquire_owned() => return self.take(permit, false),
                Ok(permit) = Arc::clone(&self.spare).acquire_owned(), if !leaving => return self.take(permit, true),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::guarded::InFlight;

    #[tokio::test]
    async fn idle_ones_make_room_and_busy_ones_do_not() {
        let connections = Connections::new(2);
        let busy = connections.enter().await;
        let request = InFlight::begin(&busy.state, false);
        let idle = connections.enter().await;
        assert!(connections.enter().await.is_spare, "a fresh connection is left alone");
        assert!(connections.make_room(Duration::ZERO));
        assert!(idle.leave.is_cancelled() && !busy.leave.is_cancelled());
        assert!(!connections.make_room(Duration::ZERO), "the other one is busy");
        drop(idle);
        assert!(!connections.enter().await.is_spare, "a place became free");
        drop(request);
        assert!(connections.make_room(Duration::ZERO), "its request is over");
    }
}
