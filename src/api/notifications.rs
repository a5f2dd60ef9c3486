//! What should a person at the user interface know right now? A short list of messages, and a live feed of its
//! changes as server-sent events.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::json;
use super::time_text::rfc3339;
use crate::model::clock::Clock;
use crate::telemetry::{Counter, Registry};

/// The configuration could not be loaded.
pub const RELOAD_FAILED: &str = "Configuration reload has failed.";
/// Replay is running.
pub const STARTING_UP: &str = "Prometheus is starting and replaying the write-ahead log (WAL).";
/// The process is going down.
pub const SHUTTING_DOWN: &str = "Prometheus is shutting down and gracefully stopping all operations.";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Text.
    pub text: String,
    /// Since when, milliseconds.
    pub date_ms: i64,
    /// False when it is over.
    pub active: bool,
}

impl Notification {
    /// Appends the JSON object.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = json::Object::open(out);
        object.text("text", &self.text).text("date", &rfc3339(self.date_ms)).boolean("active", self.active);
        object.close();
    }
}

/// The list and its subscribers.
#[derive(Debug)]
pub struct Notifications {
    active: Mutex<Vec<Notification>>,
    changes: broadcast::Sender<Notification>,
    max_subscribers: usize,
    clock: Arc<dyn Clock>,
    sent: Counter,
    dropped: Counter,
}

impl Notifications {
    /// An empty list for at most `max_subscribers` live readers.
    #[must_use]
    pub fn new(max_subscribers: usize, clock: Arc<dyn Clock>, registry: &Registry) -> Arc<Self> {
        let (changes, _) = broadcast::channel(64);
        let counter = |name: &str, help: &str| registry.counter(name, help, &[]);
        let sent = counter(
            "prometheus_api_notification_updates_sent_total",
            "Total number of notification updates sent.",
        );
        let dropped = counter(
            "prometheus_api_notification_updates_dropped_total",
            "Total number of notification updates dropped.",
        );
        let subscribers = registry.gauge(
            "prometheus_api_notification_active_subscribers",
            "The current number of active notification subscribers.",
            &[],
        );
        let listening = changes.clone();
        registry.on_collect(move || subscribers.set(listening.receiver_count() as f64));
        Arc::new(Self { active: Mutex::default(), changes, max_subscribers, clock, sent, dropped })
    }

    fn tell(&self, change: Notification) {
        // An error means that nobody listens.
        if let Ok(listeners) = self.changes.send(change) {
            self.sent.add(listeners as f64);
        }
    }

    /// Counts messages that a slow subscriber missed.
    pub fn note_missed(&self, count: u64) {
        self.dropped.add(count as f64);
    }

    /// Adds a message unless it is there already.
    pub fn add(&self, text: &str) {
        let mut active = self.active.lock();
        if active.iter().any(|n| n.text == text) {
            return;
        }
        let new = Notification { text: text.to_owned(), date_ms: self.clock.now_ms(), active: true };
        active.push(new.clone());
        self.tell(new);
    }

    /// Takes a message away.
    pub fn remove(&self, text: &str) {
        let mut active = self.active.lock();
        if let Some(at) = active.iter().position(|n| n.text == text) {
            let mut over = active.remove(at);
            over.active = false;
            self.tell(over);
        }
    }

    /// What holds now.
    #[must_use]
    pub fn list(&self) -> Vec<Notification> {
        self.active.lock().clone()
    }

    /// What holds now, and the changes from here on; `None` when there are too many subscribers.
    #[must_use]
    pub fn subscribe(&self) -> Option<(Vec<Notification>, broadcast::Receiver<Notification>)> {
        let active = self.active.lock();
        if self.changes.receiver_count() >= self.max_subscribers {
            return None;
        }
        Some((active.clone(), self.changes.subscribe()))
    }
}
