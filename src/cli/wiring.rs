//! Which rooms stand behind the API's small traits? Each room is adapted here, so that neither side knows the other.

use crate::api::sources::{ConfigSource, HeadStats, StorageAdmin};
use crate::model::{Labels, Matcher};
use crate::tsdb::StorageError;

/// A storage without files.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

fn without_files<T>() -> Result<T, StorageError> {
    Err(StorageError::NotReady("this storage keeps nothing on disk".into()))
}

impl StorageAdmin for NoFiles {
    fn head_stats(&self, _: usize) -> Result<HeadStats, StorageError> {
        Ok(HeadStats::default())
    }

    fn blocks(&self) -> Vec<String> {
        Vec::new()
    }

    fn corruption_count(&self) -> u64 {
        0
    }

    fn snapshot(&self, _: bool) -> Result<String, StorageError> {
        without_files()
    }

    fn delete(&self, _: i64, _: i64, _: &[Matcher]) -> Result<(), StorageError> {
        without_files()
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        without_files()
    }
}

/// A configuration that was not read from anywhere.
#[derive(Debug, Clone, Default)]
pub struct FixedConfig {
    /// As YAML.
    pub yaml: String,
    /// Storage retention as text.
    pub retention: String,
}

impl ConfigSource for FixedConfig {
    fn yaml(&self) -> String {
        self.yaml.clone()
    }

    fn external_labels(&self) -> Labels {
        Labels::empty()
    }

    fn retention(&self) -> String {
        self.retention.clone()
    }
}
