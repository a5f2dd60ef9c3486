//! What does a storage that is closed answer to those who still write?

use super::super::door::{AppendError, Appender, Commit, SeriesRef, StorageError};
use crate::model::Labels;
use crate::model::metadata::{Exemplar, Metadata};
use crate::model::sample::HistogramValue;

/// A batch of a storage that is closed.
pub struct Refused;

fn refused() -> AppendError {
    AppendError::Storage(StorageError::NotReady("the storage is closed".into()))
}

impl Appender for Refused {
    fn append(
        &mut self,
        _: SeriesRef,
        _: &dyn Fn() -> Labels,
        _: i64,
        _: i64,
        _: f64,
    ) -> Result<SeriesRef, AppendError> {
        Err(refused())
    }

    fn append_histogram(
        &mut self,
        _: SeriesRef,
        _: &dyn Fn() -> Labels,
        _: i64,
        _: i64,
        _: HistogramValue,
    ) -> Result<SeriesRef, AppendError> {
        Err(refused())
    }

    fn append_exemplar(&mut self, _: SeriesRef, _: i64, _: &Exemplar) -> Result<(), AppendError> {
        Err(refused())
    }

    fn update_metadata(&mut self, _: &str, _: &Metadata) -> Result<(), AppendError> {
        Err(refused())
    }

    fn commit(self: Box<Self>) -> Result<Commit, AppendError> {
        Err(refused())
    }

    fn rollback(self: Box<Self>) {}
}
