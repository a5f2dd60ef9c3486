//! What does a recording rule store? The result of its expression under its own name and labels.

use std::collections::{BTreeMap, HashSet};

use super::alerting::RuleSamples;
use super::written::Output;
use crate::model::{Labels, METRIC_NAME};
use crate::query::VectorSample;

/// The definition of a recording rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingSpec {
    /// `record`.
    pub name: String,
    /// `expr`.
    pub expr: String,
    /// Labels of the rule over those of the group.
    pub labels: BTreeMap<String, String>,
}

impl RecordingSpec {
    /// The series to store for a result of the expression.
    pub fn apply(&self, result: Vec<VectorSample>, limit: usize) -> Result<RuleSamples, String> {
        let own = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let changes: BTreeMap<&str, &str> =
            [(METRIC_NAME, self.name.as_str())].into_iter().chain(own).collect();
        let changes: Vec<(&str, &str)> = changes.into_iter().collect();
        let series: Vec<Labels> = result.iter().map(|sample| sample.labels.with(&changes)).collect();
        let mut seen =
            HashSet::with_capacity_and_hasher(series.len(), foldhash::fast::RandomState::default());
        if !series.iter().all(|labels| seen.insert(labels)) {
            return Err("vector contains metrics with the same labelset after applying rule labels".into());
        }
        let values = result.into_iter().map(|sample| sample.value);
        let samples: RuleSamples = series.into_iter().map(Output::plain).zip(values).collect();
        if limit > 0 && samples.len() > limit {
            return Err(format!("exceeded limit of {limit} with {} series", samples.len()));
        }
        Ok(samples)
    }
}
