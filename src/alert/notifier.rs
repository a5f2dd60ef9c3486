//! How do alerts reach Alertmanagers? Each discovered Alertmanager has a queue and a sender of its own, so that one
//! that hangs delays no other. A full queue drops its oldest alerts and counts them; a failed send is not repeated,
//! because firing alerts are sent again anyway.
//!
//! This is one implementation of the [`Notifier`] door; a router inside the process can be another.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use super::evaluator::{Notification, Notifier};
use crate::model::relabel::{RelabelRule, process};
use crate::model::{Labels, LabelsBuilder};
use crate::telemetry::{Counter, Gauge, Registry, Summary};

/// Posts a JSON body; answers with nothing on any 2xx status.
pub trait Poster: Send + Sync {
    /// Posts `body` to `url`; the error says why it was not taken.
    fn post(&self, url: String, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
}

/// The Alertmanagers of one section of the configuration, as discovered.
#[derive(Clone)]
pub struct AlertmanagerSet {
    /// URLs alerts are posted to, `/api/v2/alerts` included.
    pub urls: Vec<String>,
    /// `alert_relabel_configs` of the section.
    pub relabel: Arc<[RelabelRule]>,
    /// The client of the section.
    pub poster: Arc<dyn Poster>,
}

/// Settings of the notifier.
#[derive(Debug, Clone, Copy)]
pub struct NotifierOptions {
    /// `--alertmanager.notification-queue-capacity`, alerts per Alertmanager.
    pub queue_capacity: usize,
    /// `--alertmanager.notification-batch-size`, alerts per request.
    pub batch_size: usize,
    /// `--alertmanager.drain-notification-queue-on-shutdown`.
    pub drain_on_stop: bool,
}

impl Default for NotifierOptions {
    fn default() -> Self {
        Self { queue_capacity: 10_000, batch_size: 256, drain_on_stop: true }
    }
}

/// What a reload may change for all Alertmanagers.
#[derive(Clone, Default)]
struct Rewriting {
    external_labels: Labels,
    relabel: Arc<[RelabelRule]>,
}

struct Queue {
    url: String,
    relabel: ArcSwap<Vec<RelabelRule>>,
    poster: ArcSwap<Arc<dyn Poster>>,
    /// Oldest first.
    alerts: Mutex<VecDeque<Notification>>,
    wake: Notify,
    metrics: QueueMetrics,
}

#[derive(Clone)]
struct QueueMetrics {
    sent: Counter,
    errors: Counter,
    dropped: Counter,
    length: Gauge,
    latency: Summary,
}

struct Sender {
    queue: Arc<Queue>,
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Sends to Alertmanagers.
pub struct AlertmanagerNotifier {
    options: NotifierOptions,
    registry: Arc<Registry>,
    rewriting: ArcSwap<Rewriting>,
    /// By URL. Never locked across an await.
    senders: Mutex<BTreeMap<String, Sender>>,
    discovered: Gauge,
}

impl AlertmanagerNotifier {
    /// A notifier that knows no Alertmanager yet.
    #[must_use]
    pub fn new(options: NotifierOptions, registry: &Arc<Registry>) -> Arc<Self> {
        let discovered = registry.gauge(
            "prometheus_notifications_alertmanagers_discovered",
            "The number of alertmanagers discovered and active.",
            &[],
        );
        Arc::new(Self {
            options,
            registry: Arc::clone(registry),
            rewriting: ArcSwap::default(),
            senders: Mutex::default(),
            discovered,
        })
    }

    /// Takes over `global.external_labels` and `alerting.alert_relabel_configs`.
    pub fn set_rewriting(&self, external_labels: Labels, relabel: Arc<[RelabelRule]>) {
        self.rewriting.store(Arc::new(Rewriting { external_labels, relabel }));
    }

    /// Replaces the Alertmanagers. Queues of those that stay are kept. Must run inside a tokio runtime.
    pub fn set_alertmanagers(&self, sets: &[AlertmanagerSet]) {
        let mut senders = self.senders.lock();
        let mut old = std::mem::take(&mut *senders);
        for set in sets {
            for url in &set.urls {
                if senders.contains_key(url) {
                    continue;
                }
                let sender = old.remove(url).unwrap_or_else(|| self.start(url, set));
                sender.queue.relabel.store(Arc::new(set.relabel.to_vec()));
                sender.queue.poster.store(Arc::new(Arc::clone(&set.poster)));
                senders.insert(url.clone(), sender);
            }
        }
        for (url, removed) in old {
            removed.stop.cancel();
            self.forget(&url);
        }
        self.discovered.set(senders.len() as f64);
    }

    /// URLs of the active Alertmanagers, in order.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.senders.lock().keys().cloned().collect()
    }

    fn start(&self, url: &str, set: &AlertmanagerSet) -> Sender {
        let labels = [("alertmanager", url)];
        let r = &self.registry;
        r.gauge(
            "prometheus_notifications_queue_capacity",
            "The capacity of the alert notifications queue.",
            &labels,
        )
        .set(self.options.queue_capacity as f64);
        let metrics = QueueMetrics {
            sent: r.counter("prometheus_notifications_sent_total", "Total number of alerts sent.", &labels),
            errors: r.counter(
                "prometheus_notifications_errors_total",
                "Total number of sent alerts affected by errors.",
                &labels,
            ),
            dropped: r.counter(
                "prometheus_notifications_dropped_total",
                "Total number of alerts dropped due to errors when sending to Alertmanager.",
                &labels,
            ),
            length: r.gauge(
                "prometheus_notifications_queue_length",
                "The number of alert notifications in the queue.",
                &labels,
            ),
            latency: r.summary(
                "prometheus_notifications_latency_seconds",
                "Latency quantiles for sending alert notifications.",
                &[0.5, 0.9, 0.99],
                &labels,
            ),
        };
        let queue = Arc::new(Queue {
            url: url.to_owned(),
            relabel: ArcSwap::from_pointee(set.relabel.to_vec()),
            poster: ArcSwap::from_pointee(Arc::clone(&set.poster)),
            alerts: Mutex::default(),
            wake: Notify::new(),
            metrics,
        });
        let stop = tokio_util::sync::CancellationToken::new();
        let task = tokio::spawn(send_loop(Arc::clone(&queue), stop.clone(), self.options));
        Sender { queue, stop, task }
    }

    fn forget(&self, url: &str) {
        for name in [
            "prometheus_notifications_sent_total",
            "prometheus_notifications_errors_total",
            "prometheus_notifications_dropped_total",
            "prometheus_notifications_queue_length",
            "prometheus_notifications_queue_capacity",
            "prometheus_notifications_latency_seconds",
        ] {
            self.registry.remove(name, &[("alertmanager", url)]);
        }
    }

    /// Stops all senders; queued alerts are sent first where the options say so, for at most `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        let senders = std::mem::take(&mut *self.senders.lock());
        for sender in senders.values() {
            sender.stop.cancel();
        }
        let all = async {
            for (_, sender) in senders {
                let _ = sender.task.await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("Some alert notifications were not delivered before the shutdown deadline");
        }
    }
}

impl Notifier for AlertmanagerNotifier {
    fn send(&self, notifications: Vec<Notification>) {
        let rewriting = self.rewriting.load_full();
        let rewritten: Vec<Notification> = notifications
            .into_iter()
            .filter_map(|mut alert| {
                let mut labels = LabelsBuilder::new(&alert.labels);
                for label in rewriting.external_labels.iter() {
                    if labels.value(label.name).is_empty() {
                        labels.set(label.name, label.value);
                    }
                }
                process(&mut labels, &rewriting.relabel).then(|| {
                    alert.labels = labels.build();
                    alert
                })
            })
            .collect();
        for sender in self.senders.lock().values() {
            sender.queue.push(&rewritten, self.options.queue_capacity);
        }
    }
}

impl Queue {
    fn push(&self, alerts: &[Notification], capacity: usize) {
        let rules = self.relabel.load();
        let mut queue = self.alerts.lock();
        let mut dropped = 0usize;
        for alert in alerts {
            let mut alert = alert.clone();
            if !rules.is_empty() {
                let mut labels = LabelsBuilder::new(&alert.labels);
                if !process(&mut labels, &rules) {
                    continue;
                }
                alert.labels = labels.build();
            }
            queue.push_back(alert);
            if queue.len() > capacity {
                queue.pop_front();
                dropped += 1;
            }
        }
        self.metrics.length.set(queue.len() as f64);
        drop(queue);
        if dropped > 0 {
            self.metrics.dropped.add(dropped as f64);
            tracing::warn!(alertmanager = %self.url, dropped,
                           "Alert notification queue is full, dropping the oldest alerts");
        }
        self.wake.notify_one();
    }

    fn take(&self, most: usize) -> Vec<Notification> {
        let mut queue = self.alerts.lock();
        let count = queue.len().min(most);
        let batch = queue.drain(..count).collect();
        self.metrics.length.set(queue.len() as f64);
        batch
    }

    async fn send_batch(&self, batch: Vec<Notification>) {
        let body = alerts_json(&batch);
        let poster = Arc::clone(&self.poster.load());
        let started = Instant::now();
        let sent = poster.post(self.url.clone(), body).await;
        self.metrics.latency.observe(started.elapsed().as_secs_f64());
        self.metrics.sent.add(batch.len() as f64);
        if let Err(error) = sent {
            self.metrics.errors.add(batch.len() as f64);
            self.metrics.dropped.add(batch.len() as f64);
            tracing::error!(alertmanager = %self.url, count = batch.len(), %error, "Error sending alerts");
        }
    }
}

async fn send_loop(queue: Arc<Queue>, stop: tokio_util::sync::CancellationToken, options: NotifierOptions) {
    loop {
        let batch = queue.take(options.batch_size.max(1));
        if batch.is_empty() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = queue.wake.notified() => continue,
            }
        }
        if stop.is_cancelled() && !options.drain_on_stop {
            break;
        }
        queue.send_batch(batch).await;
    }
}

/// The body of Alertmanager's `POST /api/v2/alerts`.
#[must_use]
pub fn alerts_json(alerts: &[Notification]) -> Vec<u8> {
    let time =
        |ms: i64| jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |t| format!("{t:.3}"));
    let list: Vec<serde_json::Value> = alerts
        .iter()
        .map(|alert| {
            let labels: serde_json::Map<_, _> =
                alert.labels.iter().map(|l| (l.name.to_owned(), json!(l.value))).collect();
            let annotations: serde_json::Map<_, _> =
                alert.annotations.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
            json!({
                "labels": labels,
                "annotations": annotations,
                "startsAt": time(alert.starts_at_ms),
                "endsAt": time(alert.ends_at_ms),
                "generatorURL": alert.generator_url,
            })
        })
        .collect();
    serde_json::to_vec(&list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::relabel::Action;
    use std::collections::BTreeSet;
    use tokio::sync::mpsc;

    /// Hands each request to the test and answers as told.
    struct Recorder {
        requests: mpsc::UnboundedSender<(String, serde_json::Value)>,
        failing: BTreeSet<String>,
        hanging: BTreeSet<String>,
    }

    impl Poster for Recorder {
        fn post(
            &self,
            url: String,
            body: Vec<u8>,
        ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
            let value = serde_json::from_slice(&body).expect("the body is JSON");
            self.requests.send((url.clone(), value)).expect("the test listens");
            let (fails, hangs) = (self.failing.contains(&url), self.hanging.contains(&url));
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                if fails { Err("bad response status 500".into()) } else { Ok(()) }
            })
        }
    }

    fn alert(name: &str) -> Notification {
        Notification {
            labels: Labels::from_pairs([("alertname", name), ("job", "x")]),
            annotations: vec![("summary".into(), "s".into())],
            starts_at_ms: 1_000,
            ends_at_ms: 61_500,
            generator_url: "http://m/graph".into(),
        }
    }

    type Requests = mpsc::UnboundedReceiver<(String, serde_json::Value)>;

    fn poster(failing: &[&str], hanging: &[&str]) -> (Arc<dyn Poster>, Requests) {
        let (requests, received) = mpsc::unbounded_channel();
        let set = |urls: &[&str]| urls.iter().map(|u| (*u).to_owned()).collect();
        (Arc::new(Recorder { requests, failing: set(failing), hanging: set(hanging) }), received)
    }

    fn set(urls: &[&str], poster: &Arc<dyn Poster>) -> AlertmanagerSet {
        AlertmanagerSet {
            urls: urls.iter().map(|u| (*u).to_owned()).collect(),
            relabel: Arc::from(Vec::new()),
            poster: Arc::clone(poster),
        }
    }

    #[tokio::test]
    async fn every_alertmanager_gets_every_alert_and_a_hanging_one_delays_no_other() {
        let registry = Registry::new();
        let notifier = AlertmanagerNotifier::new(NotifierOptions::default(), &registry);
        let (poster, mut received) = poster(&["http://b"], &["http://a"]);
        notifier.set_alertmanagers(&[set(&["http://a", "http://b", "http://c"], &poster)]);
        notifier.set_rewriting(Labels::from_pairs([("cluster", "eu"), ("job", "not used")]), Arc::from([]));
        notifier.send(vec![alert("One")]);
        let mut urls = BTreeSet::new();
        for _ in 0..3 {
            let (url, body) = received.recv().await.expect("a request");
            urls.insert(url);
            assert_eq!(
                body,
                json!([{"labels": {"alertname": "One", "job": "x", "cluster": "eu"}, "annotations": {"summary": "s"},
                        "startsAt": "1970-01-01T00:00:01.000Z", "endsAt": "1970-01-01T00:01:01.500Z",
                        "generatorURL": "http://m/graph"}])
            );
        }
        assert_eq!(urls.len(), 3);
        notifier.send(vec![alert("Two")]);
        for _ in 0..2 {
            let (url, body) = received.recv().await.expect("a request");
            assert_ne!(url, "http://a");
            assert_eq!(body[0]["labels"]["alertname"], "Two");
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_oldest_and_the_rest_is_drained_on_stop() {
        let registry = Registry::new();
        let options = NotifierOptions { queue_capacity: 3, batch_size: 2, drain_on_stop: true };
        let notifier = AlertmanagerNotifier::new(options, &registry);
        let (poster, mut received) = poster(&[], &[]);
        notifier.set_alertmanagers(&[set(&["http://a"], &poster)]);
        // The sender has not run yet: this test has one thread.
        notifier.send(["1", "2", "3", "4", "5"].map(alert).to_vec());
        notifier.stop(Duration::from_secs(10)).await;
        let mut batches = Vec::new();
        while let Ok((_, body)) = received.try_recv() {
            let names = body.as_array().expect("a list").iter().map(|a| a["labels"]["alertname"].clone());
            batches.push(names.collect::<Vec<_>>());
        }
        assert_eq!(batches, [vec![json!("3"), json!("4")], vec![json!("5")]]);
        let text = registry.render_text();
        assert!(
            text.contains("prometheus_notifications_dropped_total{alertmanager=\"http://a\"} 2"),
            "{text}"
        );
        assert!(text.contains("prometheus_notifications_sent_total{alertmanager=\"http://a\"} 3"), "{text}");
    }

    #[tokio::test]
    async fn relabelling_can_drop_alerts() {
        let notifier = AlertmanagerNotifier::new(NotifierOptions::default(), &Registry::new());
        let (poster, mut received) = poster(&[], &[]);
        notifier.set_alertmanagers(&[set(&["http://a"], &poster)]);
        let drop_one = RelabelRule {
            source_labels: vec!["alertname".into()],
            separator: ";".into(),
            regex: crate::model::regex::AnchoredRegex::new("One").expect("a regex"),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".into(),
            action: Action::Drop,
            scheme: crate::model::relabel::NameScheme::default(),
        };
        notifier.set_rewriting(Labels::empty(), Arc::from(vec![drop_one]));
        notifier.send(vec![alert("One"), alert("Two")]);
        let (_, body) = received.recv().await.expect("a request");
        assert_eq!(body.as_array().map(Vec::len), Some(1));
        assert_eq!(body[0]["labels"]["alertname"], "Two");
    }
}
