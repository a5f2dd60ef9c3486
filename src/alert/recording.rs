//! What does a recording rule store? The result of its expression under its own name and labels.

use std::collections::{BTreeMap, BTreeSet};

use super::alerting::RuleSamples;
use crate::model::{LabelsBuilder, METRIC_NAME};
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
        let mut seen = BTreeSet::new();
        let mut samples = RuleSamples::with_capacity(result.len());
        for sample in result {
            let mut labels = LabelsBuilder::new(&sample.labels);
            labels.set(METRIC_NAME, &self.name);
            for (name, value) in &self.labels {
                labels.set(name, value);
            }
            let labels = labels.build();
            if !seen.insert(labels.clone()) {
                return Err(
                    "vector contains metrics with the same labelset after applying rule labels".into()
                );
            }
            samples.push((labels, sample.value));
        }
        if limit > 0 && samples.len() > limit {
            return Err(format!("exceeded limit of {limit} with {} series", samples.len()));
        }
        Ok(samples)
    }
}
