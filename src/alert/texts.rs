//! What do the labels and annotations of a rule's alerts say? Their texts are read once and expanded for each element of a
//! result.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::alerting::{Alert, AlertState, AlertingSpec, ExternalContext};
use super::template::{AlertData, AlertText, QuerySource, Value};
use crate::model::METRIC_NAME;
use crate::query::VectorSample;
use crate::query::value::PointValue;

const ALERT_NAME: &str = "alertname";

/// The texts of an alerting rule.
#[derive(Debug, Clone)]
pub struct AlertTexts {
    alert_name: String,
    /// By name; the metric name is deleted unless the rule sets it.
    labels: Vec<(String, AlertText)>,
    annotations: Vec<(String, AlertText)>,
}

/// What expanding needs besides the element of the result.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// When, milliseconds.
    pub t_ms: i64,
    /// The process.
    pub context: &'a ExternalContext,
    /// Answers queries of templates.
    pub source: &'a dyn QuerySource,
    /// Told of each template that fails.
    pub on_error: &'a dyn Fn(),
}

impl AlertTexts {
    /// Reads the texts of a rule.
    #[must_use]
    pub fn new(spec: &AlertingSpec) -> Self {
        let mut labels = BTreeMap::from([(METRIC_NAME.to_owned(), AlertText::Plain(String::new()))]);
        labels
            .extend(spec.labels.iter().map(|(name, text)| (name.clone(), AlertText::new(&spec.name, text))));
        labels.insert(ALERT_NAME.to_owned(), AlertText::Plain(spec.name.clone()));
        let annotations = spec.annotations.iter();
        let annotations = annotations.map(|(name, text)| (name.clone(), AlertText::new(&spec.name, text)));
        Self {
            alert_name: spec.name.clone(),
            labels: labels.into_iter().collect(),
            annotations: annotations.collect(),
        }
    }

    /// The alerts that the elements of a result ask for, templates expanded, sorted by labels.
    pub fn expand(
        &self,
        result: Vec<VectorSample>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Vec<Alert>, String> {
        let mut alerts: Vec<Alert> =
            result.into_iter().map(|sample| self.alert(sample, surroundings)).collect();
        alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
        if alerts.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
            return Err("vector contains metrics with the same labelset after applying alert labels".into());
        }
        Ok(alerts)
    }

    fn alert(&self, sample: VectorSample, surroundings: &Surroundings<'_>) -> Alert {
        let Surroundings { t_ms, context, source, on_error } = *surroundings;
        let value = match &sample.value {
            PointValue::Float(v) => Value::Float(*v),
            PointValue::Histogram(h) => Value::string(&h.to_string()),
        };
        let data = AlertData {
            labels: sample.labels.clone(),
            value,
            external_labels: context.labels.clone(),
            external_url: context.url.clone(),
        };
        let expand = |text: &AlertText| {
            text.expand(&data, t_ms, source).unwrap_or_else(|error| {
                on_error();
                tracing::warn!(alert = %self.alert_name, %error, "Expanding alert template failed");
                format!("<error expanding template: {error}>")
            })
        };
        let expanded: Vec<(&str, Cow<'_, str>)> = self
            .labels
            .iter()
            .map(|(name, text)| match text {
                AlertText::Plain(text) => (name.as_str(), Cow::Borrowed(text.as_str())),
                template => (name.as_str(), Cow::Owned(expand(template))),
            })
            .collect();
        let changes: Vec<(&str, &str)> = expanded.iter().map(|(name, text)| (*name, &**text)).collect();
        let annotations = self.annotations.iter().map(|(name, text)| (name.clone(), expand(text)));
        Alert {
            state: AlertState::Pending,
            labels: sample.labels.with(&changes),
            annotations: annotations.collect(),
            value: sample.value,
            active_at_ms: t_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            last_sent_at_ms: None,
            keep_firing_since_ms: None,
        }
    }
}
