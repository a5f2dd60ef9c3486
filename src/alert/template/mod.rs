//! How do labels and annotations of alerts become text? Go's `text/template` language with Prometheus's functions:
//! parsed once into a tree ([`parse`]), executed over [`Value`]s ([`exec`]) with Go's printing ([`format`], [`printf`]) and
//! the function table ([`functions`]).
//!
//! Errors read as Go's do, because users search for them. Execution is bounded: depth of calls, steps of loops
//! and bytes of output each have a limit that the error names.

/// Running a parsed template.
pub mod exec;
/// Go's `fmt.Print`: `%v` of every value.
pub mod format;
/// The functions that templates may call.
pub mod functions;
/// `humanize` and its kin.
mod humanize;
/// From text to tokens.
mod lex;
/// Methods of times and durations.
mod methods;
/// From tokens to a tree.
pub mod parse;
/// Go's `fmt.Printf`.
pub mod printf;
/// Values that templates compute with.
pub mod value;

/// Templates against the texts of Go and Prometheus.
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use exec::{ExpandError, QuerySource};
pub use functions::names as function_names;
pub use parse::{Template, TemplateError};
pub use value::Value;

use crate::model::Labels;

/// Definitions that come before the text of every alert template, so that `$labels` and `$value` work.
const ALERT_PREFIX: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                            {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// What an alert's template sees.
#[derive(Debug, Clone)]
pub struct AlertData {
    /// Labels of the alert's series.
    pub labels: Labels,
    /// The value that made it fire: a float, or the text of a histogram.
    pub value: Value,
    /// `global.external_labels`.
    pub external_labels: Labels,
    /// `--web.external-url`.
    pub external_url: String,
}

impl AlertData {
    fn to_value(&self) -> Value {
        Value::Struct(Arc::new(BTreeMap::from([
            ("Labels".to_owned(), Value::from_labels(&self.labels)),
            ("ExternalLabels".to_owned(), Value::from_labels(&self.external_labels)),
            ("ExternalURL".to_owned(), Value::string(&self.external_url)),
            ("Value".to_owned(), self.value.clone()),
        ])))
    }
}

/// Checks the text of a label or annotation of the alert `alert_name`.
pub fn check_alert_template(alert_name: &str, text: &str) -> Result<(), TemplateError> {
    parse_alert_template(alert_name, text).map(drop)
}

/// Parses the text of a label or annotation of the alert `alert_name`.
pub fn parse_alert_template(alert_name: &str, text: &str) -> Result<Template, TemplateError> {
    Template::parse(&format!("__alert_{alert_name}"), &format!("{ALERT_PREFIX}{text}"))
}

/// How many nodes the prefix makes.
const PREFIX_NODES: usize = 4;

/// The text of a label or annotation of an alert, read once.
#[derive(Debug, Clone)]
pub enum AlertText {
    /// No template.
    Plain(String),
    /// A template.
    Template {
        /// What it says.
        template: Template,
        /// The same as a row of parts, for the templates that do no more than that.
        parts: Option<Vec<Part>>,
    },
    /// Not a template, though it looks like one.
    Broken(TemplateError),
}

/// A part of a simple template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A text.
    Text(String),
    /// `{{ $labels.name }}`.
    Label(String),
    /// `{{ $value }}`.
    Value,
}

impl AlertText {
    /// Reads a text of the alert `alert_name`.
    #[must_use]
    pub fn new(alert_name: &str, text: &str) -> Self {
        if !text.contains("{{") {
            return AlertText::Plain(text.to_owned());
        }
        match parse_alert_template(alert_name, text) {
            Ok(template) => AlertText::Template { parts: template.simple_parts(PREFIX_NODES), template },
            Err(error) => AlertText::Broken(error),
        }
    }

    /// Expands the text at time `t_ms`. An error reads as Prometheus puts it into the annotation, without the surrounding
    /// `<error expanding template: …>`.
    pub fn expand(
        &self,
        data: &AlertData,
        t_ms: i64,
        source: &dyn QuerySource,
    ) -> Result<String, ExpandError> {
        match self {
            AlertText::Plain(text) => Ok(text.clone()),
            AlertText::Broken(error) => Err(error.clone().into()),
            AlertText::Template { template, parts } => {
                let joined = parts.as_ref().map(|parts| join(parts, data));
                match joined.filter(|text| text.len() <= exec::MAX_OUTPUT_BYTES) {
                    Some(text) => Ok(text),
                    None => exec::execute(template, &data.to_value(), t_ms, source),
                }
            }
        }
    }
}

fn join(parts: &[Part], data: &AlertData) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Label(name) => out.push_str(data.labels.value(name)),
            Part::Value => out.push_str(&format::print_value(&data.value)),
        }
    }
    out
}
