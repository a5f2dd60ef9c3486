//! The part of storage that takes writes: active series, their open chunks, the index over them.
//!
//! One lock guards the state; it is held for one series at a time when reading and for one batch at a time when a
//! commit becomes visible. Commits are ordered by a mutex of their own, under which a batch is written to the log
//! before it is applied. What an open querier must not see yet is in [`isolation`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use super::changes::Changes;
use super::door::{AppendError, SeriesRef, StorageError};
use super::wal::{SeriesNames, Wal};
use crate::model::Labels;
use crate::model::metadata::Metadata;
use crate::model::sample::Value;

/// Batches.
pub mod append;
/// Snapshots of the head on disk.
pub mod checkpoint;
/// Full chunks in files.
pub mod chunks;
/// The ring of exemplars.
pub mod exemplars;
/// The way of data from the head into blocks.
pub mod flush;
/// Samples of another program's log.
pub mod import;
/// Views.
pub mod isolation;
/// Leaving early.
pub mod leave;
/// Caps.
pub mod limits;
/// Instruments.
pub mod metrics;
/// Series in order of their labels.
mod order;
/// Reading.
pub mod query;
/// From files back to memory.
pub mod replay;
/// Selections that come again.
mod selections;
/// One series.
pub mod series;
/// What the lock guards.
pub mod state;
/// Forgetting what is in blocks.
pub mod truncate;
/// The head against its naive twin.
#[cfg(test)]
mod twin;

use chunks::{ChunkRef, ChunkStore};
use exemplars::ExemplarRing;
use isolation::Isolation;
pub use limits::{JobLimits, Limits};
use metrics::HeadMetrics;
use selections::Selections;
use series::decode;
use state::State;

/// The head.
pub struct Head {
    /// Series and index.
    pub(super) state: RwLock<State>,
    /// Open views. Locked after `state`.
    pub(super) isolation: RwLock<Isolation>,
    /// Full chunks. Locked after `state`.
    pub(super) chunks: ChunkStore,
    /// What repeated selections select. Locked after `state`.
    selections: Mutex<Selections>,
    /// Orders commits and everything that changes samples. Locked before `state`.
    pub(super) commit: Mutex<()>,
    /// The log. Its lock may be held when `state` is read, never the other way round.
    pub(super) wal: Arc<Wal>,
    /// Exemplars.
    pub(super) exemplars: Mutex<ExemplarRing>,
    /// Metadata by family name.
    pub(super) metadata: RwLock<BTreeMap<String, Metadata>>,
    /// Settings.
    pub limits: Limits,
    /// Instruments.
    pub metrics: HeadMetrics,
    /// Which times changed.
    pub changes: Arc<Changes>,
    /// Open batches.
    pub(super) appenders: AtomicU64,
    /// Buffers for samples that the next batches use again.
    spare_samples: Mutex<Vec<Vec<append::Pending>>>,
    /// How many samples batches have had lately.
    pub(super) batch_len: AtomicUsize,
}

impl Head {
    /// An empty head.
    #[must_use]
    pub fn new(
        chunks: ChunkStore,
        wal: Arc<Wal>,
        limits: Limits,
        exemplars: usize,
        metrics: HeadMetrics,
    ) -> Arc<Self> {
        let head = Arc::new(Self {
            state: RwLock::default(),
            isolation: RwLock::default(),
            chunks,
            selections: Mutex::default(),
            commit: Mutex::new(()),
            wal,
            exemplars: Mutex::new(ExemplarRing::new(exemplars)),
            metadata: RwLock::default(),
            limits,
            metrics,
            changes: Arc::default(),
            appenders: AtomicU64::new(0),
            spare_samples: Mutex::default(),
            batch_len: AtomicUsize::new(0),
        });
        let names: Arc<dyn SeriesNames> = Arc::clone(&head) as Arc<dyn SeriesNames>;
        head.wal.set_names(Arc::downgrade(&names));
        head
    }

    /// The out-of-order window, milliseconds.
    #[must_use]
    pub fn window_ms(&self) -> i64 {
        self.limits.out_of_order_window_ms.load(Ordering::Relaxed)
    }

    /// Number of series, and how many were created since the start.
    #[must_use]
    pub fn series_and_created(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.num_series, state.counts.created)
    }

    /// In-order samples before this time are in blocks.
    #[must_use]
    pub fn valid_from_ms(&self) -> i64 {
        self.state.read().valid_from_ms
    }

    /// The oldest time that in-order samples may have.
    fn in_order_bound(&self, state: &State) -> i64 {
        let recent = if state.max_t_ms == i64::MIN {
            i64::MIN
        } else {
            state.max_t_ms.saturating_sub(self.limits.block_range_ms / 2)
        };
        state.valid_from_ms.max(state.closed_below_ms).max(recent)
    }

    fn find_or_create(&self, labels: &Labels) -> Result<(u32, bool), AppendError> {
        if labels.is_empty() {
            return Err(AppendError::InvalidLabels("empty labelset".into()));
        }
        {
            // Those who are refused again and again keep nobody else out.
            let state = self.state.read();
            if let Some(slot) = state.find(labels) {
                return Ok((slot, false));
            }
            self.limits.admit(&state, labels)?;
        }
        let mut state = self.state.write();
        if let Some(slot) = state.find(labels) {
            return Ok((slot, false));
        }
        self.limits.admit(&state, labels)?;
        Ok((state.create(labels, None), true))
    }

    /// The stored sample of a series at a time, in memory or in chunk files. Deletions do not count.
    fn sample_at(&self, state: &State, slot: u32, t_ms: i64) -> Option<Value> {
        let series = state.series(slot)?;
        if let Ok(at) = series.late().binary_search_by_key(&t_ms, |s| s.t_ms) {
            return series.late().get(at).map(|s| s.value.clone());
        }
        let mut found = None;
        let mut look = |t, _, value| {
            if t == t_ms {
                found = Some(value);
            }
        };
        if let Some((encoding, count, bytes)) = series.open.content().filter(|_| t_ms >= series.open_min_t_ms)
        {
            // A damaged chunk has no sample to compare with.
            let _ = decode(encoding, count, bytes, &mut look);
            return found;
        }
        let mut place: ChunkRef = series.sealed;
        while let Ok(Some(chunk)) = self.chunks.read(place) {
            if chunk.meta.max_t_ms < t_ms || chunk.meta.series != series.id {
                return None;
            }
            if chunk.meta.min_t_ms <= t_ms {
                let _ = decode(chunk.meta.encoding, chunk.meta.count, chunk.data(), &mut look);
                return found;
            }
            place = chunk.meta.previous;
        }
        None
    }

    /// The reference of a series, if it is in memory.
    #[must_use]
    pub fn reference_of(&self, labels: &Labels) -> Option<SeriesRef> {
        let state = self.state.read();
        state.find(labels).map(|slot| state.reference(slot))
    }

    /// Changes how many exemplars are kept.
    pub fn set_exemplar_capacity(&self, capacity: usize) {
        self.exemplars.lock().resize(capacity);
    }

    /// Metadata of one family, or of all.
    #[must_use]
    pub fn metadata_of(&self, name: Option<&str>) -> Vec<(String, Metadata)> {
        let all = self.metadata.read();
        match name {
            Some(name) => all.get(name).map(|m| (name.to_owned(), m.clone())).into_iter().collect(),
            None => all.iter().map(|(name, m)| (name.clone(), m.clone())).collect(),
        }
    }

    /// Why nothing can be written now, if so.
    #[must_use]
    pub fn write_failure(&self) -> Option<StorageError> {
        self.wal.failure()
    }
}

impl SeriesNames for Head {
    fn identity(&self, slot: u32) -> Option<(u64, Labels)> {
        let state = self.state.read();
        let series = state.series(slot)?;
        Some((series.id, state.index.labels(&series.pairs)))
    }
}
