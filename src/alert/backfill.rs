//! What would recording rules have stored in the past? A group is evaluated slot by slot over stored history by the
//! same code that evaluates it live, rule after rule, each seeing what the ones before it gave. Results go into blocks
//! of their own. Samples that are there already stay, so that a repetition adds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::evaluator::{EngineEvaluator, NoNotifier};
use super::group::{Group, GroupContext, GroupSpec, Rule, RuleKind};
use super::recording::RecordingSpec;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, METRIC_NAME, Matcher, SampleBuffer};
use crate::query::Engine;
use crate::telemetry::Registry;
use crate::tsdb::block::{SeriesColumns, SeriesSource};
use crate::tsdb::memory::MemoryStorage;
use crate::tsdb::merge::MergedQuerier;
use crate::tsdb::{Appendable, Querier, Queryable, SelectHints, StorageError};

/// Length of the blocks that are written: two hours, aligned, so that compaction treats them like any others.
pub const BLOCK_MS: i64 = 2 * 3_600_000;
/// Samples held in memory before a block is written early.
const MAX_HELD_SAMPLES: usize = 1_000_000;
/// Most evaluations one job may ask for.
const MAX_SLOTS: i64 = 10_000_000;
/// Finished jobs that are remembered.
const KEPT_JOBS: usize = 50;

/// Takes finished blocks.
pub trait BlockSink: Send + Sync {
    /// Stores the series of `[min_t_ms, max_t_ms]`; they can be queried when this returns.
    fn write(&self, min_t_ms: i64, max_t_ms: i64, series: &mut dyn SeriesSource) -> Result<(), StorageError>;
}

/// What a job needs of the process.
pub struct BackfillDoors {
    /// Evaluates.
    pub engine: Arc<Engine>,
    /// What is stored.
    pub stored: Arc<dyn Queryable>,
    /// Where results go.
    pub blocks: Arc<dyn BlockSink>,
}

/// What shall be computed.
#[derive(Debug, Clone)]
pub struct BackfillWish {
    /// The group: name, file, interval, limit, query offset.
    pub group: GroupSpec,
    /// Its recording rules, or those of them that are wanted, in order.
    pub rules: Vec<Arc<RecordingSpec>>,
    /// First time, milliseconds.
    pub start_ms: i64,
    /// Last time, milliseconds.
    pub end_ms: i64,
}

/// How far a job is.
#[derive(Debug, Default)]
pub struct Progress {
    slots: AtomicI64,
    slots_done: AtomicI64,
    samples_written: AtomicU64,
    samples_present: AtomicU64,
    cancelled: AtomicBool,
}

/// State of a job as shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// Names the job while the process lives.
    pub id: u64,
    /// Name of the group.
    pub group: String,
    /// Its file.
    pub file: String,
    /// Names of the rules.
    pub rules: Vec<String>,
    /// First time, milliseconds.
    pub start_ms: i64,
    /// Last time, milliseconds.
    pub end_ms: i64,
    /// `running`, `done`, `canceled` or `failed`.
    pub state: &'static str,
    /// Evaluations in all.
    pub evaluations: i64,
    /// Evaluations done.
    pub evaluations_done: i64,
    /// Samples that were added.
    pub samples_written: u64,
    /// Samples that were there already and stayed as they are.
    pub samples_present: u64,
    /// Why it failed.
    pub error: Option<String>,
}

struct Job {
    id: u64,
    wish: BackfillWish,
    progress: Arc<Progress>,
    /// `None` while it runs.
    outcome: Option<Result<(), String>>,
}

/// Runs jobs, one at a time.
pub struct Backfills {
    doors: BackfillDoors,
    jobs: Mutex<Vec<Job>>,
}

/// History with the results that are not in a block yet.
struct Overlay {
    stored: Arc<dyn Queryable>,
    results: Arc<MemoryStorage>,
}

impl Queryable for Overlay {
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        let results = self.results.querier(min_t_ms, max_t_ms)?;
        // What is stored wins, because it stays.
        Ok(Box::new(MergedQuerier::new(vec![results, self.stored.querier(min_t_ms, max_t_ms)?])))
    }
}

/// Series in order of labels.
struct Collected(std::collections::btree_map::IntoIter<Labels, SeriesColumns>);

impl SeriesSource for Collected {
    fn next_series(&mut self, out: &mut SeriesColumns) -> Result<Option<Labels>, StorageError> {
        out.clear();
        Ok(self.0.next().map(|(labels, columns)| {
            *out = columns;
            labels
        }))
    }
}

/// Series as the source of a block.
pub fn source(series: BTreeMap<Labels, SeriesColumns>) -> impl SeriesSource {
    Collected(series.into_iter())
}

/// Computes what `wish` asks for; returns when all is stored, when something fails or when it is cancelled.
pub fn run(wish: &BackfillWish, doors: &BackfillDoors, progress: &Progress) -> Result<(), String> {
    let spec = &wish.group;
    let interval_ms = spec.interval_ms.max(1);
    let first_ms = first_slot(spec, wish.start_ms);
    let slots = if first_ms > wish.end_ms { 0 } else { (wish.end_ms - first_ms) / interval_ms + 1 };
    progress.slots.store(slots, Ordering::Relaxed);
    if slots > MAX_SLOTS {
        return Err(format!("{slots} evaluations are more than {MAX_SLOTS}: ask for a shorter range"));
    }
    let results = MemoryStorage::new();
    let overlay = Overlay { stored: Arc::clone(&doors.stored), results: Arc::clone(&results) };
    let context = GroupContext {
        evaluator: Arc::new(EngineEvaluator::new(Arc::clone(&doors.engine), Arc::new(overlay))),
        storage: Arc::clone(&results) as Arc<dyn Appendable>,
        notifier: Arc::new(NoNotifier),
        external: super::ExternalContext::default(),
        resend_delay_ms: i64::MAX,
        // Recording rules have no templates; nobody will look.
        template_failures: Registry::new().counter("template_failures_total", "Failed templates.", &[]),
        concurrency: None,
    };
    let rules = wish.rules.iter().map(|rule| Rule::new(RuleKind::Recording(Arc::clone(rule))));
    let mut group = Group::new(spec.clone(), rules.collect());
    let names: BTreeSet<&str> = wish.rules.iter().map(|rule| rule.name.as_str()).collect();
    let (mut held, mut from_ms) = (0usize, None);
    for slot in 0..slots {
        let t_ms = first_ms + slot * interval_ms;
        let sample_ms = t_ms - spec.query_offset_ms;
        let begin_ms: i64 = *from_ms.get_or_insert(sample_ms);
        if sample_ms.div_euclid(BLOCK_MS) != begin_ms.div_euclid(BLOCK_MS) || held > MAX_HELD_SAMPLES {
            flush(&results, &names, begin_ms, sample_ms - 1, doors, progress)?;
            (held, from_ms) = (0, Some(sample_ms));
        }
        if progress.cancelled.load(Ordering::Relaxed) {
            break;
        }
        held += group.eval(t_ms, &context).samples;
        if let Some((rule, error)) = group.rules.iter().find_map(|r| Some((r.name(), r.last_error.as_ref()?)))
        {
            return Err(format!("rule {rule} at {t_ms} ms: {error}"));
        }
        progress.slots_done.fetch_add(1, Ordering::Relaxed);
    }
    match from_ms {
        Some(begin_ms) => flush(&results, &names, begin_ms, wish.end_ms, doors, progress),
        None => Ok(()),
    }
}

/// The first slot of a group that is not before `start_ms`.
#[must_use]
pub fn first_slot(spec: &GroupSpec, start_ms: i64) -> i64 {
    let slot_ms = spec.slot_at_or_before_ns(start_ms.saturating_mul(1_000_000)) / 1_000_000;
    if slot_ms < start_ms { slot_ms + spec.interval_ms.max(1) } else { slot_ms }
}

/// Moves results into a block, without those that are stored already.
fn flush(
    results: &MemoryStorage,
    names: &BTreeSet<&str>,
    min_t_ms: i64,
    max_t_ms: i64,
    doors: &BackfillDoors,
    progress: &Progress,
) -> Result<(), String> {
    let mut series: BTreeMap<Labels, SeriesColumns> = BTreeMap::new();
    let (mut written, mut present) = (0u64, 0u64);
    for name in names {
        let matchers = [Matcher::equal(METRIC_NAME, name)];
        let there =
            timestamps(doors.stored.as_ref(), &matchers, min_t_ms, max_t_ms).map_err(|e| e.to_string())?;
        let found = read(results, &matchers, min_t_ms, max_t_ms).map_err(|e| e.to_string())?;
        for (labels, mut columns) in found {
            let before = columns.len();
            if let Some(there) = there.get(&labels) {
                columns.retain(|t| there.binary_search(&t).is_err());
            }
            written += columns.len() as u64;
            present += (before - columns.len()) as u64;
            if !columns.is_empty() {
                series.insert(labels, columns);
            }
        }
    }
    if !series.is_empty() {
        doors.blocks.write(min_t_ms, max_t_ms, &mut source(series)).map_err(|e| e.to_string())?;
    }
    results.clear();
    progress.samples_written.fetch_add(written, Ordering::Relaxed);
    progress.samples_present.fetch_add(present, Ordering::Relaxed);
    Ok(())
}

fn read(
    storage: &dyn Queryable,
    matchers: &[Matcher],
    min_t_ms: i64,
    max_t_ms: i64,
) -> Result<Vec<(Labels, SeriesColumns)>, StorageError> {
    let hints = SelectHints { start_ms: min_t_ms, end_ms: max_t_ms, ..SelectHints::default() };
    let set = storage.querier(min_t_ms, max_t_ms)?.select(&hints, matchers)?;
    let mut buffer = SampleBuffer::default();
    let mut out = Vec::with_capacity(set.len());
    for i in 0..set.len() {
        set.samples(i, min_t_ms, max_t_ms, &mut buffer)?;
        let mut columns = SeriesColumns::default();
        for (t_ms, value) in buffer.timestamps.iter().zip(&buffer.values) {
            columns.push_float(*t_ms, 0, *value);
        }
        for (t_ms, histogram) in &buffer.histograms {
            columns.push_histogram(*t_ms, 0, HistogramValue::Float(Arc::clone(histogram)));
        }
        out.push((set.labels(i), columns));
    }
    Ok(out)
}

/// The sorted timestamps of stored samples.
fn timestamps(
    storage: &dyn Queryable,
    matchers: &[Matcher],
    min_t_ms: i64,
    max_t_ms: i64,
) -> Result<BTreeMap<Labels, Vec<i64>>, StorageError> {
    let with_times = read(storage, matchers, min_t_ms, max_t_ms)?.into_iter().map(|(labels, columns)| {
        let histograms = columns.histograms.iter().map(|(t_ms, _)| *t_ms);
        let mut times: Vec<i64> = columns.timestamps.iter().copied().chain(histograms).collect();
        times.sort_unstable();
        (labels, times)
    });
    Ok(with_times.collect())
}

impl Backfills {
    /// No jobs yet.
    #[must_use]
    pub fn new(doors: BackfillDoors) -> Arc<Self> {
        Arc::new(Self { doors, jobs: Mutex::default() })
    }

    /// Begins a job in a thread of its own; its number. Refused while another one runs.
    pub fn start(self: &Arc<Self>, wish: BackfillWish) -> Result<u64, String> {
        if wish.rules.is_empty() {
            return Err("no recording rule is asked for".into());
        }
        if wish.end_ms < wish.start_ms {
            return Err("the end is before the start".into());
        }
        let mut jobs = self.jobs.lock();
        if let Some(running) = jobs.iter().find(|job| job.outcome.is_none()) {
            return Err(format!("backfill {} is running; wait for it or cancel it", running.id));
        }
        let id = jobs.last().map_or(1, |job| job.id + 1);
        let progress = Arc::new(Progress::default());
        let (this, job_wish, job_progress) = (Arc::clone(self), wish.clone(), Arc::clone(&progress));
        let work = move || {
            let outcome = run(&job_wish, &this.doors, &job_progress);
            match &outcome {
                Ok(()) => tracing::info!(id, group = %job_wish.group.name, "Backfill of rules ended"),
                Err(error) => {
                    tracing::error!(id, group = %job_wish.group.name, %error, "Backfill of rules failed")
                }
            }
            if let Some(job) = this.jobs.lock().iter_mut().find(|job| job.id == id) {
                job.outcome = Some(outcome);
            }
        };
        std::thread::Builder::new()
            .name("rule-backfill".into())
            .spawn(work)
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        tracing::info!(id, group = %wish.group.name, start = wish.start_ms, end = wish.end_ms, "Backfill of rules began");
        if jobs.len() >= KEPT_JOBS {
            jobs.remove(0);
        }
        jobs.push(Job { id, wish, progress, outcome: None });
        Ok(id)
    }

    /// All jobs that are remembered, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<JobStatus> {
        self.jobs.lock().iter().map(Job::status).collect()
    }

    /// Asks a job to stop after the evaluation under way; what it computed stays. False if it does not run.
    pub fn cancel(&self, id: u64) -> bool {
        let jobs = self.jobs.lock();
        let Some(job) = jobs.iter().find(|job| job.id == id && job.outcome.is_none()) else { return false };
        job.progress.cancelled.store(true, Ordering::Relaxed);
        true
    }

    /// Asks all jobs to stop.
    pub fn stop(&self) {
        for job in self.jobs.lock().iter() {
            job.progress.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

impl Job {
    fn status(&self) -> JobStatus {
        let progress = &self.progress;
        let cancelled = progress.cancelled.load(Ordering::Relaxed);
        let (done, all) =
            (progress.slots_done.load(Ordering::Relaxed), progress.slots.load(Ordering::Relaxed));
        let state = match &self.outcome {
            None => "running",
            Some(Ok(())) if cancelled && done < all => "canceled",
            Some(Ok(())) => "done",
            Some(Err(_)) => "failed",
        };
        JobStatus {
            id: self.id,
            group: self.wish.group.name.clone(),
            file: self.wish.group.file.clone(),
            rules: self.wish.rules.iter().map(|rule| rule.name.clone()).collect(),
            start_ms: self.wish.start_ms,
            end_ms: self.wish.end_ms,
            state,
            evaluations: all,
            evaluations_done: done,
            samples_written: progress.samples_written.load(Ordering::Relaxed),
            samples_present: progress.samples_present.load(Ordering::Relaxed),
            error: self.outcome.as_ref().and_then(|outcome| outcome.clone().err()),
        }
    }
}
