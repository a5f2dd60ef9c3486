//! How many series may there be, and why was one refused? Caps on all series and on those of one job, and the memory
//! budget of the process. What exists already goes on in any case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::door::AppendError;
use super::state::State;
use crate::model::Labels;
use crate::telemetry::memory::{MemoryBudget, Pressure};
use crate::telemetry::{Counter, Registry};

/// Label that tells the job of a series.
const JOB: &str = "job";

/// Most series of one job; 0 = any number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobLimits {
    /// For jobs that are not named.
    pub others: u64,
    /// For jobs by name.
    pub named: BTreeMap<String, u64>,
}

impl JobLimits {
    /// Reads `100` (each job) and `job=100` (one job); the error says what is wrong.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut limits = Self::default();
        for text in texts {
            let (job, number) = text.rsplit_once('=').map_or((None, text), |(job, n)| (Some(job), n));
            let number = number
                .parse()
                .map_err(|_| format!("{text:?} is neither a number of series nor job=number"))?;
            match job {
                Some(job) => drop(limits.named.insert(job.to_owned(), number)),
                None => limits.others = number,
            }
        }
        Ok(limits)
    }

    fn of(&self, job: &str) -> u64 {
        self.named.get(job).copied().unwrap_or(self.others)
    }

    fn any(&self) -> bool {
        self.others > 0 || !self.named.is_empty()
    }
}

/// How often series were refused, and why the last one was.
#[derive(Debug)]
struct Refusals {
    all: Counter,
    job: Counter,
    memory: Counter,
    number: AtomicU64,
    last: Mutex<String>,
}

/// Settings of the head.
#[derive(Debug)]
pub struct Limits {
    /// How much older than the newest sample of all an out-of-order sample may be, milliseconds; 0 = refused.
    pub out_of_order_window_ms: AtomicI64,
    /// Length of the blocks that data leaves in, milliseconds.
    pub block_range_ms: i64,
    max_series: u64,
    jobs: JobLimits,
    memory: Arc<MemoryBudget>,
    refusals: Refusals,
}

impl Limits {
    /// Settings; `max_series` 0 = any number.
    #[must_use]
    pub fn new(
        block_range_ms: i64,
        out_of_order_window_ms: i64,
        max_series: u64,
        jobs: JobLimits,
        memory: Arc<MemoryBudget>,
        registry: &Registry,
    ) -> Self {
        let refused = |reason| {
            let help = "New series that were refused because a limit was reached.";
            registry.counter("meerkat_tsdb_head_series_refused_total", help, &[("reason", reason)])
        };
        Self {
            out_of_order_window_ms: AtomicI64::new(out_of_order_window_ms),
            block_range_ms,
            max_series,
            jobs,
            memory,
            refusals: Refusals {
                all: refused("max-series"),
                job: refused("max-series-per-job"),
                memory: refused("memory-limit"),
                number: AtomicU64::new(0),
                last: Mutex::default(),
            },
        }
    }

    /// The memory limit of the process.
    #[must_use]
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// Refuses a series that does not exist yet if a limit is reached.
    pub(super) fn admit(&self, state: &State, labels: &Labels) -> Result<(), AppendError> {
        let (counter, text) = if self.max_series > 0 && state.num_series >= self.max_series {
            (
                &self.refusals.all,
                format!("{} series are in memory (--storage.tsdb.max-series)", state.num_series),
            )
        } else if let Some(text) = self.job_is_full(state, labels) {
            (&self.refusals.job, text)
        } else if self.memory.pressure() >= Pressure::Series {
            let (used, limit) = (self.memory.used() >> 20, self.memory.limit() >> 20);
            (
                &self.refusals.memory,
                format!("{used} MiB of at most {limit} MiB of memory are in use (--storage.memory-limit)"),
            )
        } else {
            return Ok(());
        };
        counter.inc();
        self.refusals.number.fetch_add(1, Ordering::Relaxed);
        self.refusals.last.lock().clone_from(&text);
        Err(AppendError::SeriesLimit(text))
    }

    fn job_is_full(&self, state: &State, labels: &Labels) -> Option<String> {
        if !self.jobs.any() {
            return None;
        }
        let job = labels.value(JOB);
        let most = self.jobs.of(job);
        if job.is_empty() || most == 0 || (state.index.count(JOB, job) as u64) < most {
            return None;
        }
        Some(format!("{most} series of job {job:?} are in memory (--storage.tsdb.max-series-per-job)"))
    }

    /// How many series were refused so far, and why the last one was.
    #[must_use]
    pub fn refused(&self) -> (u64, String) {
        (self.refusals.number.load(Ordering::Relaxed), self.refusals.last.lock().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::JobLimits;

    #[test]
    fn limits_of_jobs_are_read() {
        let limits = JobLimits::parse(["100", "node=5", "a=b=0"]).unwrap();
        assert_eq!((limits.of("x"), limits.of("node"), limits.of("a=b")), (100, 5, 0));
        assert!(!JobLimits::parse([]).unwrap().any());
        assert!(JobLimits::parse(["node="]).is_err() && JobLimits::parse(["many"]).is_err());
    }
}
