//! The self-metrics of sending, under Prometheus's names, for one peer.

use crate::telemetry::{Counter, Gauge, Histogram, Registry};

/// Counters of one kind of thing sent.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Sent.
    pub sent: Counter,
    /// Given up after an error that no retry mends.
    pub failed: Counter,
    /// Sent again.
    pub retried: Counter,
    /// Waiting in shards.
    pub pending: Gauge,
    dropped: [Counter; 4],
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Older than `sample_age_limit`.
    TooOld = 0,
    /// A rule dropped its series.
    Series = 1,
    /// The log lost the name of its series, or was deleted before it was read.
    Unintentionally = 2,
    /// A histogram with custom buckets, which version 1.0 cannot carry.
    CustomBuckets = 3,
}

const REASONS: [&str; 4] =
    ["too_old", "dropped_series", "unintentionally_dropped_series", "nhcb_in_rw1_not_supported"];

impl Kind {
    fn new(registry: &Registry, kind: &str, labels: &[(&str, &str)], no_histograms: bool) -> Self {
        let name = |end: &str| format!("prometheus_remote_storage_{kind}_{end}");
        let what = |start: &str, end: &str| format!("{start} {kind} {end}");
        let dropped = |reason: &str| {
            let mut labels = labels.to_vec();
            labels.push(("reason", reason));
            registry.counter(
                &name("dropped_total"),
                &what("Total number of", "which were dropped after being read from the WAL before being sent via remote write, either via relabelling, due to being too old or unintentionally because of an unknown reference ID."),
                &labels,
            )
        };
        let reasons = REASONS;
        let custom = if no_histograms { reasons[2] } else { reasons[3] };
        Self {
            sent: registry.counter(&name("total"), &what("Total number of", "sent to remote storage."), labels),
            failed: registry.counter(
                &name("failed_total"),
                &what("Total number of", "which failed on send to remote storage, non-recoverable errors."),
                labels,
            ),
            retried: registry.counter(
                &name("retried_total"),
                &what("Total number of", "which failed on send to remote storage but were retried because the send error was recoverable."),
                labels,
            ),
            pending: registry.gauge(
                &name("pending"),
                &what("The number of", "pending in the queues shards to be sent to the remote storage."),
                labels,
            ),
            dropped: [dropped(reasons[0]), dropped(reasons[1]), dropped(reasons[2]), dropped(custom)],
        }
    }

    /// Counts what was not sent.
    pub fn drop(&self, reason: Dropped, n: usize) {
        if n > 0 {
            self.dropped[reason as usize].add(n as f64);
        }
    }
}

/// All metrics of one peer.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Float samples.
    pub samples: Kind,
    /// Histogram samples.
    pub histograms: Kind,
    /// Exemplars.
    pub exemplars: Kind,
    /// Metadata sent, failed, retried.
    pub metadata: [Counter; 3],
    /// Waits for room in a shard.
    pub enqueue_retries: Counter,
    /// Duration of requests, retries apart.
    pub batch_duration: Histogram,
    /// Newest timestamp sent, seconds.
    pub highest_sent: Gauge,
    /// Newest timestamp queued, seconds.
    pub highest_queued: Gauge,
    /// Shards: running, least, most, ideal, capacity of one.
    pub shards: Gauge,
    /// Fewest shards.
    pub shards_min: Gauge,
    /// Most shards.
    pub shards_max: Gauge,
    /// Shards by calculation.
    pub shards_desired: Gauge,
    /// Items of a shard.
    pub shard_capacity: Gauge,
    /// Items of a request.
    pub max_per_send: Gauge,
    /// Bytes sent, compressed.
    pub bytes: Counter,
    /// Bytes of metadata sent, compressed.
    pub metadata_bytes: Counter,
    /// Segment that is being read.
    pub segment: Gauge,
    /// Batches read from the log.
    pub records: Counter,
    /// Damage that was skipped.
    pub damaged: Counter,
}

/// Bounds of request durations, seconds.
const DURATIONS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

/// Removes the metrics of a peer that is gone.
pub fn forget(registry: &Registry, name: &str, url: &str) {
    let labels = [("remote_name", name), ("url", url)];
    let families: Vec<String> = registry.collect().into_iter().map(|f| f.name).collect();
    for family in families {
        if family.starts_with("prometheus_remote_storage_") {
            registry.remove(&family, &labels);
            for reason in REASONS {
                let [a, b] = labels;
                registry.remove(&family, &[a, b, ("reason", reason)]);
            }
        } else if family.starts_with("prometheus_wal_watcher_") {
            registry.remove(&family, &[("consumer", name)]);
            registry.remove(&family, &[("consumer", name), ("type", "samples")]);
        }
    }
}

impl Metrics {
    /// Registers the metrics of a peer.
    #[must_use]
    pub fn new(registry: &Registry, name: &str, url: &str) -> Self {
        let labels = [("remote_name", name), ("url", url)];
        let consumer = [("consumer", name)];
        let counter = |end: &str, help: &str| {
            registry.counter(&format!("prometheus_remote_storage_{end}"), help, &labels)
        };
        let gauge = |end: &str, help: &str| {
            registry.gauge(&format!("prometheus_remote_storage_{end}"), help, &labels)
        };
        Self {
            samples: Kind::new(registry, "samples", &labels, true),
            histograms: Kind::new(registry, "histograms", &labels, false),
            exemplars: Kind::new(registry, "exemplars", &labels, true),
            metadata: [
                counter("metadata_total", "Total number of metadata entries sent to remote storage."),
                counter(
                    "metadata_failed_total",
                    "Total number of metadata entries which failed on send to remote storage, non-recoverable errors.",
                ),
                counter(
                    "metadata_retried_total",
                    "Total number of metadata entries which failed on send to remote storage but were retried because the send error was recoverable.",
                ),
            ],
            enqueue_retries: counter(
                "enqueue_retries_total",
                "Total number of times enqueue has failed because a shards queue was full.",
            ),
            batch_duration: registry.histogram(
                "prometheus_remote_storage_sent_batch_duration_seconds",
                "Duration of send calls to the remote storage.",
                &DURATIONS,
                &labels,
            ),
            highest_sent: gauge(
                "queue_highest_sent_timestamp_seconds",
                "Timestamp from a WAL sample, the highest timestamp successfully sent by this queue, in seconds since epoch. Initialized to 0 when no data has been sent yet.",
            ),
            highest_queued: gauge(
                "queue_highest_timestamp_seconds",
                "Highest timestamp that was enqueued, in seconds since epoch. Initialized to 0 when no data has been received yet.",
            ),
            shards: gauge("shards", "The number of shards used for parallel sending to the remote storage."),
            shards_min: gauge("shards_min", "The minimum number of shards that the queue is allowed to run."),
            shards_max: gauge("shards_max", "The maximum number of shards that the queue is allowed to run."),
            shards_desired: gauge(
                "shards_desired",
                "The number of shards that the queues shard calculation wants to run based on the rate of samples in vs. samples out.",
            ),
            shard_capacity: gauge(
                "shard_capacity",
                "The capacity of each shard of the queue used for parallel sending to the remote storage.",
            ),
            max_per_send: gauge(
                "max_samples_per_send",
                "The maximum number of samples to be sent, in a single request, to the remote storage. Note that, when sending of exemplars over remote write is enabled, exemplars count towards this limit.",
            ),
            bytes: counter(
                "bytes_total",
                "The total number of bytes of data (not metadata) sent by the queue after compression. Note that when exemplars over remote write is enabled the exemplars are included in this metric.",
            ),
            metadata_bytes: counter(
                "metadata_bytes_total",
                "The total number of bytes of metadata sent by the queue after compression.",
            ),
            segment: registry.gauge(
                "prometheus_wal_watcher_current_segment",
                "Current segment the WAL watcher is reading records from.",
                &consumer,
            ),
            records: registry.counter(
                "prometheus_wal_watcher_records_read_total",
                "Number of records read by the WAL watcher from the WAL.",
                &[("consumer", name), ("type", "samples")],
            ),
            damaged: registry.counter(
                "prometheus_wal_watcher_record_decode_failures_total",
                "Number of records read by the WAL watcher that resulted in an error when decoding.",
                &consumer,
            ),
        }
    }
}
