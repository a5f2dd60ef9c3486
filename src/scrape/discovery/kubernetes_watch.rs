//! How are Kubernetes objects followed? Each kind of object of an API server is listed once and then watched, whoever
//! needs it: watches are shared by all sections that ask the same, and end with the last of them.
//!
//! A watch is a long request that the API server answers with one JSON object a line; the resource version of the last
//! is where the next watch begins. A version that is too old (410 Gone) starts over with a list.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::kubernetes_objects::{Event, List, Object};
use super::kubernetes_targets::Store;
use super::rest::{Rest, query};
use crate::config::HttpClientConfig;
use crate::telemetry::{Counter, Registry};

/// How long the API server is asked to keep one watch open, seconds; at random up to twice that, so that watches do not
/// all begin anew at once.
const WATCH_SECONDS: u64 = 300;
/// How much longer than that a watch may be silent before it is given up.
const GRACE: Duration = Duration::from_secs(30);
/// Objects in one answer to a list request.
const PAGE: &str = "500";
/// Pause after a failure, doubled up to the maximum.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What a watch follows, and with which credentials.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WatchKey {
    /// Address of the API server.
    pub(super) server: String,
    /// Credentials and TLS.
    pub(super) http: HttpClientConfig,
    /// Path of the resource.
    pub(super) path: String,
    /// Selector over labels; everything when empty.
    pub(super) label_selector: String,
    /// Selector over fields; everything when empty.
    pub(super) field_selector: String,
}

/// The objects of one watch.
pub(super) struct SharedStore {
    /// None until they were listed once.
    objects: Mutex<Option<Arc<Store>>>,
    followers: Mutex<Vec<Weak<Notify>>>,
    /// Ends the watch when the last user is gone.
    _watch: DropGuard,
}

impl SharedStore {
    /// The objects as they are now; none until they were listed.
    pub(super) fn objects(&self) -> Option<Arc<Store>> {
        self.objects.lock().clone()
    }

    fn tell(&self) {
        self.followers.lock().retain(|follower| {
            let follower = follower.upgrade();
            follower.inspect(|f| f.notify_one()).is_some()
        });
    }

    fn replace(&self, objects: Vec<Object>) {
        let key = |o: &Object| (o.metadata.namespace.clone(), o.metadata.name.clone());
        let store = objects.into_iter().map(|object| (key(&object), Arc::new(object))).collect();
        *self.objects.lock() = Some(Arc::new(store));
        self.tell();
    }
}

/// All watches of a process.
pub(super) struct WatchPool {
    stores: Mutex<Vec<(WatchKey, Weak<SharedStore>)>>,
    failures: Counter,
    runtime: Handle,
}

impl WatchPool {
    /// A pool without watches. Must be called inside a tokio runtime.
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        Arc::new(Self {
            stores: Mutex::default(),
            failures: registry.counter(
                "prometheus_sd_kubernetes_failures_total",
                "The number of failed WATCH/LIST requests.",
                &[],
            ),
            runtime: Handle::current(),
        })
    }

    /// The store of a watch, which is begun if nobody has it; `changed` is told of each change.
    pub(super) fn follow(&self, key: WatchKey, changed: &Arc<Notify>) -> Result<Arc<SharedStore>, String> {
        let mut stores = self.stores.lock();
        stores.retain(|(_, store)| store.strong_count() > 0);
        let known = stores.iter().find(|(other, _)| *other == key).and_then(|(_, store)| store.upgrade());
        let store = match known {
            Some(store) => store,
            None => {
                let rest = Rest::new(&key.http, &key.server)?;
                let cancel = CancellationToken::new();
                let store = Arc::new(SharedStore {
                    objects: Mutex::default(),
                    followers: Mutex::default(),
                    _watch: cancel.clone().drop_guard(),
                });
                let failures = self.failures.clone();
                let watch = Watch { rest, key: key.clone(), store: Arc::downgrade(&store), failures };
                self.runtime.spawn(watch.run(cancel));
                stores.push((key, Arc::downgrade(&store)));
                store
            }
        };
        store.followers.lock().push(Arc::downgrade(changed));
        Ok(store)
    }

    /// How many watches are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.stores.lock().iter().filter(|(_, store)| store.strong_count() > 0).count()
    }
}

struct Watch {
    rest: Rest,
    key: WatchKey,
    store: Weak<SharedStore>,
    failures: Counter,
}

impl Watch {
    async fn run(mut self, cancel: CancellationToken) {
        let mut pause = RETRY;
        loop {
            let started = std::time::Instant::now();
            let error = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.list_and_watch() => ended,
            };
            self.failures.inc();
            tracing::error!(discovery = "kubernetes", path = self.key.path, error, "list or watch failed");
            pause = if started.elapsed() > MAX_RETRY { RETRY } else { (pause * 2).min(MAX_RETRY) };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn parameters<'p>(&'p self, own: &[(&'p str, &'p str)]) -> String {
        let mut all = own.to_vec();
        for (name, value) in
            [("labelSelector", &self.key.label_selector), ("fieldSelector", &self.key.field_selector)]
        {
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        query(all)
    }

    async fn list(&mut self) -> Result<String, String> {
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let mut own = vec![("limit", PAGE)];
            if !next.is_empty() {
                own.push(("continue", &next));
            }
            let path = format!("{}?{}", self.key.path, self.parameters(&own));
            let list: List = self.rest.get(&path).await?;
            objects.extend(list.items);
            next = list.metadata.next;
            if next.is_empty() {
                if let Some(store) = self.store.upgrade() {
                    store.replace(objects);
                }
                return Ok(list.metadata.resource_version);
            }
        }
    }

    /// Returns why it ended.
    async fn list_and_watch(&mut self) -> String {
        let mut version = match self.list().await {
            Ok(version) => version,
            Err(error) => return error,
        };
        loop {
            match self.watch(&version).await {
                Ok(Some(new)) => version = new,
                Ok(None) => match self.list().await {
                    Ok(new) => version = new,
                    Err(error) => return error,
                },
                Err(error) => return error,
            }
        }
    }

    /// Watches from `version` until the server ends it; the version to go on from, none to list anew.
    async fn watch(&mut self, version: &str) -> Result<Option<String>, String> {
        let seconds = WATCH_SECONDS + fastrand::u64(..WATCH_SECONDS);
        let limit = seconds.to_string();
        let own = [
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", limit.as_str()),
        ];
        let path = format!("{}?{}", self.key.path, self.parameters(&own));
        let started = tokio::time::Instant::now();
        let mut lines = self.rest.open(&path).await?;
        match lines.status {
            StatusCode::OK => {}
            StatusCode::GONE => return Ok(None),
            other => return Err(format!("the watch was answered with status {other}")),
        }
        let mut version = version.to_owned();
        let end = started + Duration::from_secs(seconds) + GRACE;
        let mut events = 0u64;
        loop {
            let line = match tokio::time::timeout_at(end, lines.next()).await {
                Ok(line) => line.map_err(|e| e.to_string())?,
                Err(_) => return Err("the watch did not end in time".into()),
            };
            let Some(line) = line else { break };
            let event: Event =
                serde_json::from_slice(&line).map_err(|e| format!("cannot decode a watch: {e}"))?;
            events += 1;
            if event.kind == "ERROR" {
                if event.object.get("code").and_then(serde_json::Value::as_u64) == Some(410) {
                    return Ok(None);
                }
                let message = event.object.get("message").and_then(|m| m.as_str()).unwrap_or("unknown");
                return Err(format!("watch ended: {message}"));
            }
            version = self.apply(event)?;
        }
        // A server that ends watches at once must not be asked without a pause.
        if events == 0 && started.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(Some(version).filter(|v| !v.is_empty()))
    }

    /// Applies an event; returns the version to go on from.
    fn apply(&mut self, event: Event) -> Result<String, String> {
        let object: Object =
            serde_json::from_value(event.object).map_err(|e| format!("cannot decode an object: {e}"))?;
        let version = object.metadata.resource_version.clone();
        let Some(store) = self.store.upgrade() else { return Ok(version) };
        let key = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let changed = {
            let mut objects = store.objects.lock();
            // Copied only while somebody is reading.
            let objects = Arc::make_mut(objects.get_or_insert_default());
            match event.kind.as_str() {
                "ADDED" | "MODIFIED" => {
                    objects.insert(key, Arc::new(object));
                    true
                }
                "DELETED" => objects.remove(&key).is_some(),
                _ => false,
            }
        };
        if changed {
            store.tell();
        }
        Ok(version)
    }
}
