//! How is one target scraped, again and again? A task waits for the next moment of its schedule, fetches the body,
//! and stores it as one batch: samples, stale markers of what vanished, and the report on the scrape itself.
//!
//! A failed scrape is an empty one: everything that was there ends. When the target goes away the loop waits
//! until a successor would have been scraped and only then ends its series.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::model::{Labels, LabelsBuilder, METRIC_NAME, stale_nan};
use crate::net::{HttpClient, Kept, NetError, beside_others};
use crate::tsdb::door::{AppendError, Appender, BatchOptions, SeriesRef};

use super::buffers::Buffers;
use super::cache::SeriesCache;
use super::exposition::{ParseError, ParseOptions, choose_format, parse};
use super::fetch;
use super::ingest::{Ingest, IngestError, MAX_AHEAD_MS, Refused, Scratch};
use super::metadata::MetadataCache;
use super::pool::PoolShared;
use super::schedule::{Alignment, offset_ms};
use super::settings::JobSettings;
use super::target::Target;

/// Bodies up to here are stored where they were fetched, bytes: that takes a few milliseconds at most.
const SMALL_BODY: usize = 1 << 20;

/// Names of the series that report on scrapes; the last three only with `extra_scrape_metrics`.
const REPORTS: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// Whether the last scrape worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// It worked.
    Up,
    /// It failed.
    Down,
}

impl Health {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}

/// What is known of the last scrape.
#[derive(Debug, Clone, Default)]
pub struct LastScrape {
    /// Whether it worked.
    pub health: Health,
    /// Why not; empty if it did.
    pub error: String,
    /// When it began, milliseconds; 0 = never.
    pub at_ms: i64,
    /// How long it took.
    pub duration: Duration,
}

/// What a target remembers between scrapes; handed on when a target is only rescheduled.
#[derive(Debug, Default)]
pub struct TargetMemory {
    pub(super) series: SeriesCache,
    pub(super) metadata: MetadataCache,
    reports: [SeriesRef; REPORTS.len()],
    epoch: u64,
}

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScrapeError {
    #[error("{0}")]
    Net(#[from] NetError),
    #[error("server returned HTTP status {0}")]
    Status(http::StatusCode),
    #[error("{0}")]
    ContentType(String),
    #[error("{0}")]
    Parse(String),
    /// A sample cannot be stored; `place` is its line where that is known.
    #[error("{error}{}{}", if place.is_some() { " in " } else { "" }, place.as_deref().unwrap_or_default())]
    Ingest { error: IngestError, place: Option<String> },
    /// The pool refuses to scrape.
    #[error("{0}")]
    Forced(String),
}

/// Counts of one scrape for its report.
#[derive(Debug, Default)]
struct Counts {
    total: u64,
    added: u64,
    series_added: u64,
    refused: Refused,
    /// New series were left out, for this reason.
    series_limit: Option<AppendError>,
}

/// The loop of one target.
pub struct ScrapeLoop {
    /// What is scraped.
    pub target: Arc<Target>,
    pool: Arc<PoolShared>,
    last: Mutex<LastScrape>,
    pub(super) memory: Arc<Mutex<TargetMemory>>,
    /// No stale markers at the end: a successor goes on with the same series.
    quiet_end: AtomicBool,
    /// The client for a target with its own socket.
    own_client: Option<HttpClient>,
    /// The connection to the target; not here while it is used.
    connection: Mutex<Kept>,
}

impl ScrapeLoop {
    /// A loop that goes on with `memory`.
    pub(super) fn new(
        target: Arc<Target>,
        pool: Arc<PoolShared>,
        memory: Arc<Mutex<TargetMemory>>,
        last: LastScrape,
    ) -> Arc<Self> {
        let own_client = target.unix_socket.as_ref().and_then(|path| pool.socket_client(path));
        Arc::new(Self {
            target,
            pool,
            last: Mutex::new(last),
            memory,
            quiet_end: AtomicBool::new(false),
            own_client,
            connection: Mutex::default(),
        })
    }

    /// What is known of the last scrape.
    #[must_use]
    pub fn last(&self) -> LastScrape {
        self.last.lock().clone()
    }

    /// Somebody else goes on with the series of this loop.
    pub(super) fn end_quietly(&self) {
        self.quiet_end.store(true, Ordering::Release);
    }

    /// Scrapes on schedule until `cancel`, then ends the series unless `shutdown` comes first.
    pub(super) async fn run(self: Arc<Self>, cancel: CancellationToken, shutdown: CancellationToken) {
        let shared = Arc::clone(&self.pool.shared);
        let interval = self.target.interval;
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let seed = self.target.identity ^ shared.options.offset_seed;
        let offset = offset_ms(shared.clock.now_ms(), interval_ms, seed);
        let mut tick = Instant::now() + Duration::from_millis(offset);
        let mut alignment = Alignment::new(interval_ms, shared.options.timestamp_tolerance_ms);
        let mut last_start: Option<Instant> = None;
        let mut interval_length = None;
        let (stopped, gone) = (shutdown.cancelled(), cancel.cancelled());
        tokio::pin!(stopped, gone);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = &mut gone => break,
                () = self.wait(tick) => {}
            }
            let started = Instant::now();
            if let Some(last) = last_start {
                let text = || crate::model::duration::format_duration_ms(interval_ms);
                let summary = interval_length.get_or_insert_with(|| shared.metrics.interval_length(&text()));
                summary.observe((started - last).as_secs_f64());
            }
            last_start = Some(started);
            let mut t_ms = shared.clock.now_ms();
            if shared.options.align_timestamps {
                t_ms = alignment.align(t_ms);
            }
            tokio::select! {
                biased;
                () = &mut stopped => return,
                () = self.scrape(t_ms, started) => {}
            }
            tick += interval;
            let now = Instant::now();
            while tick + interval <= now {
                tick += interval;
            }
        }
        *self.connection.lock() = Kept::default();
        if last_start.is_some() {
            self.end(tick, &shutdown).await;
        }
    }

    /// Waits for the next scrape. A connection that the target closes meanwhile does not wait that long.
    async fn wait(&self, tick: Instant) {
        let mut tick = pin!(sleep_until(tick));
        poll_fn(|cx| {
            let due = tick.as_mut().poll(cx);
            if due.is_pending() {
                self.connection.lock().tend(cx);
            }
            due
        })
        .await;
    }

    /// Ends all series, dated one interval after the last scrape, once a successor would have been scraped.
    async fn end(&self, tick: Instant, shutdown: &CancellationToken) {
        let interval = self.target.interval;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep_until(tick) => {}
        }
        let stale_ms = self.pool.shared.clock.now_ms();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep_until(tick + interval + interval / 10) => {}
        }
        if !self.quiet_end.load(Ordering::Acquire) {
            self.burst(0, || self.end_series(stale_ms)).await;
        }
    }

    /// Runs a burst of computing and disk access for a body of so many bytes. Others wait for a small one, a fraction
    /// of a millisecond, since making way for them costs task switches; large ones run beside them, a few at a time.
    async fn burst<R>(&self, bytes: usize, work: impl FnOnce() -> R) -> R {
        if bytes <= SMALL_BODY {
            return work();
        }
        // The semaphore is never closed, and without a permit the work is still right.
        let _permit = self.pool.shared.bursts.acquire().await;
        beside_others(work)
    }

    /// Writes stale markers for everything the target had.
    pub(super) fn end_series(&self, t_ms: i64) {
        let mut memory = self.memory.lock();
        let options = BatchOptions { reject_out_of_order: true, ..self.batch_options() };
        let mut appender = self.pool.shared.storage.appender(options);
        let ended = memory.series.take_all_tracked();
        append_stale(&mut *appender, &ended, t_ms);
        let reports: Vec<SeriesRef> = memory.reports.iter().copied().filter(|r| r.is_some()).collect();
        append_stale(&mut *appender, &reports, t_ms);
        if let Err(error) = appender.commit() {
            tracing::warn!(%error, target = self.target.url, "stale markers of a removed target were not stored");
        }
    }

    fn batch_options(&self) -> BatchOptions {
        BatchOptions {
            source: self.target.series_identity,
            reject_out_of_order: false,
            job: Arc::clone(&self.pool.settings.load().job),
        }
    }

    /// One scrape: fetch and store.
    pub(super) async fn scrape(&self, t_ms: i64, started: Instant) {
        let settings = self.pool.settings.load_full();
        let mut buffers = self.pool.buffers.take();
        let fetched = match self.pool.forced_error.load_full() {
            Some(error) => Err(ScrapeError::Forced((*error).clone())),
            None => {
                let pool_client = self.pool.client.load_full();
                let client = self.own_client.as_ref().unwrap_or(&pool_client);
                let mut kept = std::mem::take(&mut *self.connection.lock());
                let fetched =
                    fetch::fetch(client, &settings, &self.target, &mut kept, &mut buffers.body).await;
                *self.connection.lock() = kept;
                fetched
            }
        };
        let bytes = buffers.body.bytes().len();
        self.burst(bytes, || self.store(&settings, fetched, &mut buffers, t_ms, started)).await;
        self.pool.buffers.give(buffers);
    }

    /// Stores what was fetched, the stale markers and the report; updates health.
    fn store(
        &self,
        settings: &JobSettings,
        fetched: Result<String, ScrapeError>,
        buffers: &mut Buffers,
        t_ms: i64,
        started: Instant,
    ) {
        let shared = &self.pool.shared;
        let mut memory = self.memory.lock();
        let memory = &mut *memory;
        if memory.epoch != settings.epoch {
            memory.series.retire();
            memory.epoch = settings.epoch;
        }
        let mut counts = Counts::default();
        let body_bytes = match &fetched {
            Ok(_) => buffers.body.bytes().len() as f64,
            Err(ScrapeError::Net(NetError::BodyTooLarge { .. } | NetError::NoRoom { .. })) => -1.0,
            Err(_) => 0.0,
        };
        let result = fetched.and_then(|content_type| {
            let Buffers { body, scratch } = buffers;
            self.ingest(settings, &content_type, body.bytes(), scratch, memory, t_ms, &mut counts)
        });
        let (mut appender, error) = match result {
            Ok(appender) => (appender, None),
            Err(error) => {
                let mut appender = shared.storage.appender(self.batch_options());
                append_stale(&mut *appender, &memory.series.take_all_tracked(), t_ms);
                (appender, Some(error))
            }
        };
        let duration = started.elapsed();
        let config = &settings.config;
        let reports = [
            if error.is_none() { 1.0 } else { 0.0 },
            duration.as_secs_f64(),
            counts.total as f64,
            counts.added as f64,
            counts.series_added as f64,
            self.target.timeout.as_secs_f64(),
            config.sample_limit as f64,
            body_bytes,
        ];
        let wanted = if config.extra_scrape_metrics { REPORTS.len() } else { 5 };
        for ((value, name), reference) in
            reports.into_iter().zip(REPORTS).zip(&mut memory.reports).take(wanted)
        {
            // A refusal only says that another loop of the same target was here before.
            if let Ok(new) = appender.append(*reference, &|| self.report_labels(name), 0, t_ms, value) {
                *reference = new;
            }
        }
        if let Err(error) = appender.commit() {
            tracing::error!(%error, target = self.target.url, "scrape commit failed");
        }
        self.note_refused(&counts.refused);
        self.note(error, counts.series_limit, t_ms, duration);
    }

    fn report_labels(&self, name: &str) -> Labels {
        let mut builder = LabelsBuilder::new(&self.target.labels);
        builder.set(METRIC_NAME, name);
        builder.build()
    }

    /// Parses a body into a batch that is not committed yet.
    fn ingest<'s>(
        &'s self,
        settings: &JobSettings,
        content_type: &str,
        body: &[u8],
        scratch: &mut Scratch,
        memory: &mut TargetMemory,
        t_ms: i64,
        counts: &mut Counts,
    ) -> Result<Box<dyn Appender + 's>, ScrapeError> {
        let shared = &self.pool.shared;
        let choice = choose_format(content_type, settings.config.fallback_scrape_protocol);
        let Some(format) = choice.format else {
            return Err(ScrapeError::ContentType(choice.warning.unwrap_or_default()));
        };
        if let Some(warning) = choice.warning {
            tracing::debug!(target = self.target.url, "{warning}");
        }
        let options = ParseOptions {
            type_and_unit_labels: shared.options.type_and_unit_labels,
            skip_created: shared.options.zero_ingestion || shared.options.store_start_timestamps,
            convert_classic_histograms_to_nhcb: self.target.convert_classic_histograms_to_nhcb,
            always_scrape_classic_histograms: self.target.always_scrape_classic_histograms,
            scrape_native_histograms: self.target.scrape_native_histograms,
        };
        let mut appender = shared.storage.appender(self.batch_options());
        memory.metadata.begin();
        let mut ingest = Ingest {
            shared,
            settings,
            target: &self.target,
            appender: &mut *appender,
            pass: memory.series.begin(&shared.hash_key),
            metadata: &mut memory.metadata,
            scratch,
            t_ms,
            max_t_ms: shared.clock.now_ms().saturating_add(MAX_AHEAD_MS),
            total: 0,
            added: 0,
            series_added: 0,
            appended: 0,
            refused: Refused::default(),
            error: None,
            series_limit: None,
            limit_error: None,
        };
        let parsed = parse(format, body, &options, &mut ingest);
        *counts = Counts {
            total: ingest.total,
            added: ingest.added,
            series_added: ingest.series_added,
            refused: ingest.refused,
            series_limit: ingest.series_limit.take(),
        };
        let Ingest { pass, error, limit_error, .. } = ingest;
        let failed = match parsed {
            Err(ParseError::Syntax(text)) => Some(ScrapeError::Parse(text)),
            Err(ParseError::Stopped(place)) => error.map(|error| ScrapeError::Ingest { error, place }),
            Ok(()) => limit_error.map(|error| ScrapeError::Ingest { error, place: None }),
        };
        if let Some(failed) = failed {
            appender.rollback();
            return Err(failed);
        }
        let ended = pass.finish();
        memory.metadata.finish();
        append_stale(&mut *appender, &ended, t_ms);
        Ok(appender)
    }

    fn note_refused(&self, refused: &Refused) {
        if *refused == Refused::default() {
            return;
        }
        let metrics = &self.pool.shared.metrics;
        let target = self.target.url.as_str();
        metrics.out_of_order.add(refused.out_of_order as f64);
        metrics.duplicate_timestamp.add(refused.duplicates as f64);
        metrics.out_of_bounds.add(refused.out_of_bounds as f64);
        metrics.exemplar_out_of_order.add(refused.exemplars as f64);
        metrics.series_limited.add(refused.limited as f64);
        for (count, what) in [
            (refused.out_of_order, "Error on ingesting out-of-order samples"),
            (refused.duplicates, "Error on ingesting samples with different value but same timestamp"),
            (
                refused.out_of_bounds,
                "Error on ingesting samples that are too old or are too far into the future",
            ),
            (refused.exemplars, "Error on ingesting out-of-order exemplars"),
        ] {
            if count > 0 {
                tracing::warn!(target, num_dropped = count, "{what}");
            }
        }
    }

    /// Notes how the scrape went. A target whose new series were left out is up, and says so all the same.
    fn note(&self, error: Option<ScrapeError>, limit: Option<AppendError>, t_ms: i64, duration: Duration) {
        let metrics = &self.pool.shared.metrics;
        let mut last = LastScrape {
            health: Health::Up,
            error: limit.map(|limit| limit.to_string()).unwrap_or_default(),
            at_ms: t_ms,
            duration,
        };
        if let Some(error) = error {
            match &error {
                ScrapeError::Net(NetError::BodyTooLarge { .. } | NetError::NoRoom { .. }) => {
                    metrics.exceeded_body_size.inc();
                }
                ScrapeError::Ingest { error: IngestError::SampleLimit(_), .. } => {
                    metrics.exceeded_sample_limit.inc();
                }
                ScrapeError::Ingest { error: IngestError::BucketLimit(_), .. } => {
                    metrics.exceeded_bucket_limit.inc();
                }
                ScrapeError::Ingest { error: IngestError::LabelLimit(_), .. } => {
                    metrics.exceeded_label_limits.inc();
                }
                _ => {}
            }
            last.health = Health::Down;
            last.error = error.to_string();
            tracing::debug!(target = self.target.url, error = last.error, "scrape failed");
            self.pool.log_failure(&self.target.url, &last.error, t_ms);
        }
        *self.last.lock() = last;
    }
}

fn append_stale(appender: &mut dyn Appender, ended: &[SeriesRef], t_ms: i64) {
    for reference in ended.iter().filter(|r| r.is_some()) {
        // A series that left memory needs no marker, and one with newer samples has a new owner.
        match appender.append(*reference, &Labels::empty, 0, t_ms, stale_nan()) {
            Ok(_)
            | Err(
                AppendError::OutOfOrder
                | AppendError::DuplicateTimestamp
                | AppendError::UnknownSeries
                | AppendError::InvalidLabels(_)
                | AppendError::TooOld,
            ) => {}
            Err(error) => {
                tracing::warn!(%error, "stale marker was not stored");
                return;
            }
        }
    }
}
