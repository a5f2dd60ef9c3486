//! From rule files to groups: patterns are expanded, expressions and templates checked, defaults filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::alerting::{AlertingRule, AlertingSpec};
use super::group::{GroupSpec, RuleKind};
use super::manager::GroupDefinition;
use super::recording::RecordingSpec;
use super::template::check_alert_template;
use crate::config::rules::{Rule, RuleFile, RuleGroup, RuleOptions};
use crate::config::{Config, ConfigErrors, expand_pattern};
use crate::query::parse::{ParseOptions, parse_expr};

/// Reads and checks one rule file; every fault is reported.
pub fn load_rule_file(path: &Path, options: &RuleFileOptions) -> Result<RuleFile, ConfigErrors> {
    with_checks(options, |rule_options| RuleFile::load(path, rule_options))
}

/// Checks rules as if they stood in `origin`.
pub fn check_rule_text(
    text: &str,
    origin: &Path,
    options: &RuleFileOptions,
) -> Result<RuleFile, ConfigErrors> {
    with_checks(options, |rule_options| RuleFile::parse(text, origin, rule_options))
}

fn with_checks<T>(options: &RuleFileOptions, read: impl FnOnce(&RuleOptions<'_>) -> T) -> T {
    let check_expr =
        |text: &str| parse_expr(text, &options.parse).map(drop).map_err(|error| error.to_string());
    let check_template =
        |text: &str| check_alert_template("template", text).map_err(|error| error.to_string());
    let rule_options = RuleOptions {
        scheme: options.scheme,
        ignore_unknown_fields: options.ignore_unknown_fields,
        check_expr: &check_expr,
        check_template: &check_template,
    };
    read(&rule_options)
}

/// How rule files are checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleFileOptions {
    /// Which names are valid.
    pub scheme: crate::model::relabel::NameScheme,
    /// What PromQL allows.
    pub parse: ParseOptions,
    /// Accept fields that nobody knows.
    pub ignore_unknown_fields: bool,
}

/// All groups of a configuration. A pattern may match nothing; a file that is faulty refuses all.
pub fn load_groups(config: &Config, parse: ParseOptions) -> Result<Vec<GroupDefinition>, ConfigErrors> {
    let options = RuleFileOptions {
        scheme: config.global.metric_name_validation_scheme,
        parse,
        ignore_unknown_fields: false,
    };
    let mut seen = BTreeSet::new();
    let (mut groups, mut errors) = (Vec::new(), Vec::new());
    for pattern in &config.rule_files {
        for path in expand_pattern(&pattern.0) {
            if !seen.insert(path.clone()) {
                continue;
            }
            match load_rule_file(Path::new(&path), &options) {
                Ok(file) => {
                    for warning in &file.warnings {
                        tracing::warn!("{warning}");
                    }
                    groups.extend(file.groups.iter().map(|group| definition(group, &path, config)));
                }
                Err(ConfigErrors(list)) => errors.extend(list),
            }
        }
    }
    if errors.is_empty() { Ok(groups) } else { Err(ConfigErrors(errors)) }
}

fn definition(group: &RuleGroup, path: &str, config: &Config) -> GroupDefinition {
    let interval_ms = match group.interval.0 {
        0 => config.global.evaluation_interval.0,
        own => own,
    };
    let spec = GroupSpec {
        name: group.name.clone(),
        file: path.to_owned(),
        interval_ms,
        limit: usize::try_from(group.limit).unwrap_or(0),
        query_offset_ms: group.query_offset.unwrap_or(config.global.rule_query_offset).0,
    };
    GroupDefinition { spec, rules: group.rules.iter().map(|rule| rule_kind(rule, &group.labels)).collect() }
}

/// An expression as it is shown: printed from its tree, as in Prometheus.
fn printed(expr: &str) -> String {
    let all =
        ParseOptions { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true };
    // Expressions were checked; one that fails here is shown as it was written.
    parse_expr(expr, &all).map_or_else(|_| expr.to_owned(), |tree| tree.to_string())
}

/// A rule with the labels of its group beneath its own.
#[must_use]
pub fn rule_kind(rule: &Rule, group_labels: &BTreeMap<String, String>) -> RuleKind {
    let mut labels = group_labels.clone();
    labels.extend(rule.labels.clone());
    if rule.alert.is_empty() {
        let spec = RecordingSpec { name: rule.record.clone(), expr: printed(&rule.expr), labels };
        return RuleKind::Recording(Arc::new(spec));
    }
    let spec = AlertingSpec {
        name: rule.alert.clone(),
        expr: printed(&rule.expr),
        hold_ms: rule.for_duration.0,
        keep_firing_ms: rule.keep_firing_for.0,
        labels,
        annotations: rule.annotations.clone(),
    };
    RuleKind::Alerting(AlertingRule::new(spec, false))
}
