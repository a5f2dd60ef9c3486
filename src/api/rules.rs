//! The endpoints about rules and alerts.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use super::json::{self, Object};
use super::params::{number_fault, parse_switch};
use super::reply::{stream_json, success};
use super::routes::Call;
use super::selectors;
use super::sources::{AlertView, RuleGroupView, RuleView};
use super::time_text::{rfc3339, rfc3339_or_zero};
use crate::model::Matcher;
use crate::model::labels::quoted;
use crate::query::CancelToken;

fn write_alert(out: &mut Vec<u8>, alert: &AlertView) {
    let mut object = Object::open(out);
    json::labels(object.key("labels"), &alert.labels);
    json::labels(object.key("annotations"), &alert.annotations);
    object.text("state", alert.state).text("activeAt", &rfc3339(alert.active_at_ms));
    if let Some(since) = alert.keep_firing_since_ms {
        object.text("keepFiringSince", &rfc3339(since));
    }
    object.text("value", &alert.value);
    object.close();
}

fn texts(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn write_rule(out: &mut Vec<u8>, rule: &RuleView, exclude_alerts: bool) {
    let mut object = Object::open(out);
    if let Some(alerting) = &rule.alerting {
        object.text("state", alerting.state);
    }
    object.text("name", &rule.name).text("query", &rule.query);
    if let Some(alerting) = &rule.alerting {
        object.float("duration", alerting.duration).float("keepFiringFor", alerting.keep_firing_for);
    }
    // Prometheus leaves them out of recording rules that have none.
    if rule.alerting.is_some() || !rule.labels.is_empty() {
        json::pairs(object.key("labels"), texts(&rule.labels));
    }
    if let Some(alerting) = &rule.alerting {
        json::pairs(object.key("annotations"), texts(&alerting.annotations));
        if exclude_alerts {
            object.key("alerts").extend_from_slice(b"null");
        } else {
            json::list(object.key("alerts"), &alerting.alerts, write_alert);
        }
    }
    object.text("health", rule.health);
    if !rule.last_error.is_empty() {
        object.text("lastError", &rule.last_error);
    }
    object
        .float("evaluationTime", rule.evaluation_time)
        .text("lastEvaluation", &rfc3339_or_zero(rule.last_evaluation_ms))
        .text("type", if rule.alerting.is_some() { "alerting" } else { "recording" });
    object.close();
}

fn write_group(out: &mut Vec<u8>, group: &RuleGroupView, exclude_alerts: bool) {
    let mut object = Object::open(out);
    object.text("name", &group.name).text("file", &group.file);
    json::list(object.key("rules"), &group.rules, |out, rule| write_rule(out, rule, exclude_alerts));
    object
        .float("interval", group.interval)
        .integer("limit", i64::try_from(group.limit).unwrap_or(i64::MAX))
        .float("evaluationTime", group.evaluation_time)
        .text("lastEvaluation", &rfc3339_or_zero(group.last_evaluation_ms));
    object.close();
}

/// What names a group between two pages: SHA-256 of `file;name` in hexadecimal.
#[must_use]
pub fn page_token(group: &RuleGroupView) -> String {
    let mut hash = Sha256::new();
    hash.update(group.file.as_bytes());
    hash.update(b";");
    hash.update(group.name.as_bytes());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Filter {
    alerting: bool,
    recording: bool,
    exclude_alerts: bool,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    matchers: Vec<Vec<Matcher>>,
    page: Option<(usize, String)>,
}

impl Filter {
    fn parse(call: &Call) -> Result<Self, ApiError> {
        let params = &call.params;
        params.require_sound()?;
        let kind = params.first("type").to_ascii_lowercase();
        if !["", "alert", "record"].contains(&kind.as_str()) {
            return Err(ApiError::parameter("type", format!("not supported value {}", quoted(&kind))));
        }
        let exclude_alerts = match params.first("exclude_alerts") {
            "" => false,
            text => parse_switch(&text.to_lowercase()).map_err(|e| {
                ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {e}"))
            })?,
        };
        let token = params.first("group_next_token");
        let page = match params.first("group_limit") {
            "" if !token.is_empty() => {
                return Err(ApiError::parameter(
                    "group_next_token",
                    "group_limit needs to be present in order to paginate over the groups",
                ));
            }
            "" => None,
            text => match text.parse::<i32>() {
                Ok(n) if n > 0 => Some((usize::try_from(n).unwrap_or(usize::MAX), token.to_owned())),
                Ok(_) => {
                    return Err(ApiError::parameter("group_limit", "group_limit needs to be greater than 0"));
                }
                Err(e) => {
                    let fault = number_fault("ParseInt", text, &e);
                    return Err(ApiError::parameter(
                        "group_limit",
                        format!("group_limit needs to be a valid number: {fault}"),
                    ));
                }
            },
        };
        let texts = |name: &str| params.all(name).map(str::to_owned).collect::<Vec<_>>();
        Ok(Self {
            alerting: kind != "record",
            recording: kind != "alert",
            exclude_alerts,
            names: texts("rule_name[]"),
            groups: texts("rule_group[]"),
            files: texts("file[]"),
            matchers: selectors::of_label_params(params)?,
            page,
        })
    }

    fn keeps(&self, rule: &RuleView) -> bool {
        let value = |rule: &RuleView, name: &str| rule.labels.get(name).cloned().unwrap_or_default();
        let kind = if rule.alerting.is_some() { self.alerting } else { self.recording };
        let named = self.names.is_empty() || self.names.contains(&rule.name);
        let matched = self.matchers.is_empty()
            || self.matchers.iter().any(|set| set.iter().all(|m| m.matches(&value(rule, &m.name))));
        kind && named && matched
    }

    /// The groups of one page and the token of the next.
    fn apply(&self, groups: Vec<RuleGroupView>) -> Result<(Vec<RuleGroupView>, Option<String>), ApiError> {
        let mut found_token = self.page.as_ref().is_none_or(|(_, token)| token.is_empty());
        let mut out: Vec<RuleGroupView> = Vec::new();
        let mut next = None;
        for mut group in groups {
            if let Some((limit, token)) = &self.page {
                if !found_token {
                    if page_token(&group) != *token {
                        continue;
                    }
                    found_token = true;
                }
                if out.len() == *limit {
                    next = Some(page_token(&group));
                    break;
                }
            }
            let listed = (self.groups.is_empty() || self.groups.contains(&group.name))
                && (self.files.is_empty() || self.files.contains(&group.file));
            if !listed {
                continue;
            }
            group.rules.retain(|rule| self.keeps(rule));
            if !group.rules.is_empty() {
                out.push(group);
            }
        }
        if !found_token {
            let (_, token) = self.page.clone().unwrap_or_default();
            return Err(ApiError::parameter(
                "group_next_token",
                format!("invalid group_next_token '{token}'. were rule groups changed?"),
            ));
        }
        Ok((out, next))
    }
}

/// `/api/v1/rules`
pub async fn rules(call: Call) -> Response {
    let filter = match Filter::parse(&call) {
        Ok(filter) => filter,
        Err(error) => return error.into_response(),
    };
    stream_json(CancelToken::default(), move |out| {
        let (groups, next) = filter.apply(call.services.rules.groups())?;
        out.success(&[], &[], |out| {
            out.raw("{\"groups\":[");
            for (i, group) in groups.iter().enumerate() {
                out.raw(if i > 0 { "," } else { "" });
                write_group(&mut out.buf, group, filter.exclude_alerts);
                out.flush_if_full();
            }
            out.raw("]");
            if let Some(next) = next {
                out.raw(",\"groupNextToken\":");
                json::string(&mut out.buf, &next);
            }
            out.raw("}");
        });
        Ok(())
    })
    .await
}

/// `/api/v1/alerts`
pub async fn alerts(call: Call) -> Response {
    stream_json(CancelToken::default(), move |out| {
        let alerts = call.services.rules.alerts();
        out.success(&[], &[], |out| {
            let mut object = Object::open(&mut out.buf);
            json::list(object.key("alerts"), &alerts, write_alert);
            object.close();
        });
        Ok(())
    })
    .await
}

/// `/api/v1/alertmanagers`
pub async fn alertmanagers(call: Call) -> Response {
    let (active, dropped) = call.services.rules.alertmanagers();
    success(|out| {
        let mut object = Object::open(out);
        for (name, urls) in [("activeAlertmanagers", &active), ("droppedAlertmanagers", &dropped)] {
            json::list(object.key(name), urls, |out, url| json::pairs(out, [("url", url.as_str())]));
        }
        object.close();
    })
}
