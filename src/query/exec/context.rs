//! What all parts of one running query share: its view of the storage, settings, limits, notes and counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::model::{Labels, Matcher};
use crate::query::annotations::{ForcedMonotonicity, Note, Notes};
use crate::query::engine::{CancelToken, QueryError};
use crate::query::exec::column::Meta;
use crate::query::explain::Profile;
use crate::query::parse::Span;
use crate::telemetry::memory::{MemoryBudget, Pressure};
use crate::tsdb::{Querier, SelectHints, SeriesRef, SeriesSet, StorageError};

/// Memory of all queries of an engine together.
#[derive(Debug)]
pub struct GlobalBudget {
    held: AtomicUsize,
    limit: usize,
    /// What the whole process may use.
    process: Arc<MemoryBudget>,
}

impl GlobalBudget {
    /// A budget of `limit` bytes in a process that may use so much.
    #[must_use]
    pub fn new(limit: usize, process: Arc<MemoryBudget>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit, process })
    }
}

/// Limits of one query.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Samples held at once.
    pub max_samples: usize,
    /// Bytes held at once.
    pub max_bytes: usize,
    /// When to give up.
    pub deadline: Instant,
    /// When somebody else gives up.
    pub cancel: CancelToken,
    /// Threads a query may use.
    pub threads: usize,
}

/// Rules of evaluation that options change.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long a sample stays valid, milliseconds.
    pub lookback_ms: i64,
    /// Names go at the end of the query.
    pub delayed_name_removal: bool,
    /// Start timestamps count in counters.
    pub use_start_timestamps: bool,
    /// `__type__` tells counters.
    pub type_and_unit_labels: bool,
}

/// Counts what a loop does and looks now and then whether the query should stop: often enough for a tenth of a
/// second, rarely enough to cost nothing.
#[derive(Debug, Default)]
pub struct Pace(usize);

impl Pace {
    /// Looks at deadline and cancellation after this much work: well below a millisecond of simple steps.
    const BETWEEN_CHECKS: usize = 1 << 16;

    /// Counts `work` simple steps.
    #[inline]
    pub fn step(&mut self, ctx: &Context, work: usize) -> Result<(), QueryError> {
        self.0 += work;
        if self.0 < Self::BETWEEN_CHECKS {
            return Ok(());
        }
        self.0 = 0;
        ctx.check()
    }
}

/// The shared state of one query.
pub struct Context {
    querier: Box<dyn Querier>,
    /// The text of the query.
    pub query: String,
    /// Rules of evaluation.
    pub rules: Rules,
    /// Costs of the parts, when the query is explained.
    pub profile: Option<Profile>,
    /// The same query comes again and again.
    pub repeats: bool,
    limits: Limits,
    global: Arc<GlobalBudget>,
    notes: Mutex<Notes>,
    selections: Mutex<HashMap<SelectionKey, Arc<dyn SeriesSet>>>,
    held_samples: AtomicUsize,
    peak_samples: AtomicUsize,
    held_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
    /// The part of `held_bytes` that selections take as long as the query runs.
    selected_bytes: AtomicUsize,
    queryable_samples: AtomicU64,
    samples_read: AtomicU64,
    /// Samples by step of the whole query, when asked for.
    per_step: Option<Mutex<HashMap<i64, u64>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SelectionKey {
    matchers: Vec<Matcher>,
    start_ms: i64,
    end_ms: i64,
    presence_alone: bool,
    projected: bool,
}

impl Context {
    /// The state of a query that begins.
    #[must_use]
    pub fn new(
        querier: Box<dyn Querier>,
        query: &str,
        rules: Rules,
        limits: Limits,
        global: Arc<GlobalBudget>,
        per_step: bool,
    ) -> Self {
        Self {
            querier,
            query: query.to_owned(),
            rules,
            profile: None,
            repeats: false,
            limits,
            global,
            notes: Mutex::default(),
            selections: Mutex::default(),
            held_samples: AtomicUsize::new(0),
            peak_samples: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
            selected_bytes: AtomicUsize::new(0),
            queryable_samples: AtomicU64::new(0),
            samples_read: AtomicU64::new(0),
            per_step: per_step.then(Mutex::default),
        }
    }

    /// The same with room for the costs of its parts.
    #[must_use]
    pub fn profiled(mut self, profile: Option<Profile>) -> Self {
        self.profile = profile;
        self
    }

    /// The same for a query that comes again and again, or not.
    #[must_use]
    pub fn repeated(mut self, repeats: bool) -> Self {
        self.repeats = repeats;
        self
    }

    /// Fails when the query should stop. Called for every series, so at least every few thousand samples.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.limits.cancel.is_cancelled() {
            return Err(QueryError::Canceled("expression evaluation"));
        }
        if Instant::now() >= self.limits.deadline {
            return Err(QueryError::Timeout("expression evaluation"));
        }
        Ok(())
    }

    /// Threads the query may use.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.limits.threads
    }

    /// Charges memory to the query. On error it is charged all the same: the caller gives it back when it goes.
    pub fn hold(&self, bytes: usize, samples: usize) -> Result<(), QueryError> {
        let held_samples = self.held_samples.fetch_add(samples, Ordering::Relaxed) + samples;
        self.peak_samples.fetch_max(held_samples, Ordering::Relaxed);
        let held_bytes = self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(held_bytes, Ordering::Relaxed);
        let global = self.global.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.global.process.take(bytes as u64);
        if held_samples > self.limits.max_samples {
            return Err(too_many_samples());
        }
        if held_bytes > self.limits.max_bytes {
            return Err(QueryError::Execution(format!(
                "query processing would hold more than {} bytes in memory in query execution (limit of one query, --query.max-bytes)",
                self.limits.max_bytes
            )));
        }
        if global > self.global.limit {
            return Err(QueryError::Execution(format!(
                "query processing would hold more than {} bytes in memory in query execution (limit of all queries together, --query.max-total-bytes)",
                self.global.limit
            )));
        }
        let process = &self.global.process;
        if process.is_heavy(held_bytes as u64) && process.pressure() == Pressure::Queries {
            process.queries_shed.inc();
            return Err(QueryError::Execution(format!(
                "query processing was ended with {held_bytes} bytes in memory in query execution, because the server uses {} of {} bytes of memory (--storage.memory-limit); try again later or select less",
                process.used(),
                process.limit()
            )));
        }
        Ok(())
    }

    /// Gives memory back.
    pub fn release(&self, bytes: usize, samples: usize) {
        self.held_samples.fetch_sub(samples, Ordering::Relaxed);
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.global.held.fetch_sub(bytes, Ordering::Relaxed);
        self.global.process.give_back(bytes as u64);
    }

    /// Notes that one series needed this many samples at once.
    pub fn touch(&self, samples: usize) -> Result<(), QueryError> {
        let at_once = self.held_samples.load(Ordering::Relaxed) + samples;
        self.peak_samples.fetch_max(at_once, Ordering::Relaxed);
        if at_once > self.limits.max_samples { Err(too_many_samples()) } else { Ok(()) }
    }

    /// Adds a note about the expression at `span`.
    pub fn note(&self, note: &Note<'_>, span: Span) {
        self.notes.lock().add(note, span);
    }

    /// Adds what `histogram_quantile` corrected.
    pub fn note_forced(&self, metric: &str, forced: ForcedMonotonicity, span: Span) {
        self.notes.lock().add_forced_monotonicity(metric, forced, span);
    }

    /// The notes so far.
    #[must_use]
    pub fn annotations(&self) -> super::super::Annotations {
        self.notes.lock().finish(&self.query)
    }

    /// Selects series; equal selections are made once. Their labels are charged until the query ends.
    pub fn select(
        &self,
        hints: &SelectHints,
        matchers: &[Matcher],
    ) -> Result<Arc<dyn SeriesSet>, QueryError> {
        self.check()?;
        let key = SelectionKey {
            matchers: matchers.to_vec(),
            start_ms: hints.start_ms,
            end_ms: hints.end_ms,
            presence_alone: hints.presence_alone,
            projected: hints.projection.is_some() || hints.skip_histogram_buckets,
        };
        if !key.projected
            && let Some(found) = self.selections.lock().get(&key)
        {
            return Ok(Arc::clone(found));
        }
        let set: Arc<dyn SeriesSet> =
            Arc::from(self.querier.select(hints, matchers).map_err(|error| match error {
                StorageError::Limit(text) => QueryError::Execution(text),
                error => error.into(),
            })?);
        let bytes = bytes_of(&*set);
        self.selected_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.hold(bytes, 0)?;
        for text in set.warnings() {
            self.notes.lock().add_storage(text);
        }
        if !key.projected {
            self.selections.lock().insert(key, Arc::clone(&set));
        }
        Ok(set)
    }

    /// Counts samples: read from storage, and looked at by the steps of an expression.
    pub fn count_samples(&self, read: u64, looked_at: u64) {
        self.samples_read.fetch_add(read, Ordering::Relaxed);
        self.queryable_samples.fetch_add(looked_at, Ordering::Relaxed);
    }

    /// Whether samples are counted by step.
    #[must_use]
    pub fn counts_steps(&self) -> bool {
        self.per_step.is_some()
    }

    /// Counts samples of one step.
    pub fn count_step(&self, t_ms: i64, samples: u64) {
        if let Some(per_step) = &self.per_step {
            *per_step.lock().entry(t_ms).or_default() += samples;
        }
    }

    /// Samples of the steps `start`, `start + step`, ….
    #[must_use]
    pub fn steps(&self, axis: super::column::Axis) -> Vec<(i64, u64)> {
        let Some(per_step) = &self.per_step else { return Vec::new() };
        let per_step = per_step.lock();
        (0..axis.n).map(|i| axis.time(i)).map(|t| (t, per_step.get(&t).copied().unwrap_or(0))).collect()
    }

    /// Samples looked at, samples read, most samples held, most bytes held.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        (
            self.queryable_samples.load(Ordering::Relaxed),
            self.samples_read.load(Ordering::Relaxed),
            self.peak_samples.load(Ordering::Relaxed) as u64,
            self.peak_bytes.load(Ordering::Relaxed) as u64,
        )
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let bytes = *self.selected_bytes.get_mut();
        self.release(bytes, 0);
    }
}

/// Bytes that the labels of a selection take, there and in the vector that is made of it.
fn bytes_of(set: &dyn SeriesSet) -> usize {
    // A selection of many is judged by some of them: looking at each would cost as much as selecting it.
    const LOOKED_AT: usize = 256;
    let n = set.len();
    let some = (0..n).step_by(n.div_ceil(LOOKED_AT).max(1));
    let looked_at = some.len().max(1);
    let labels: usize = some.map(|i| set.labels(i).heap_bytes()).sum();
    n * (size_of::<(Labels, SeriesRef)>() + size_of::<Meta>()) + labels * n / looked_at
}

fn too_many_samples() -> QueryError {
    QueryError::Execution(
        "query processing would load too many samples into memory in query execution".into(),
    )
}
