//! How does alert state survive a restart? Each group's alerts are written to a small file after every evaluation
//! that changed them, and read at start. `docs/format/alert-state.md` describes the file.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::alerting::{Alert, AlertState, AlertingRule};
use super::group::{Group, RuleKind};
use crate::model::Labels;
use crate::query::value::PointValue;

const MAGIC: &str = "meerkat-alert-state";
const VERSION: u32 = 1;
/// Largest file that is read, bytes.
pub const MAX_STATE_BYTES: usize = 256 << 20;

/// Keeps one blob for each group.
pub trait AlertStore: Send + Sync {
    /// What was saved under `key`, `None` if nothing was or it cannot be read.
    fn load(&self, key: &str) -> Option<Vec<u8>>;

    /// Replaces what is saved under `key`; survives a power cut when it returns.
    fn save(&self, key: &str, content: &[u8]) -> Result<(), String>;
}

/// Keeps nothing: for tests and for running over the past.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAlertStore;

impl AlertStore for NoAlertStore {
    fn load(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _key: &str, _content: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The key under which a group's state is kept.
#[must_use]
pub fn store_key(group_key: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(group_key.as_bytes()))
}

/// The key under which the time of a group's last evaluation is kept while an alert is pending.
#[must_use]
pub fn seen_key(group_key: &str) -> String {
    format!("{}-seen", store_key(group_key))
}

/// The state of a group's alerts as it is stored; `None` if there is nothing to remember.
#[must_use]
pub fn encode(group: &Group, t_ms: i64) -> Option<Vec<u8>> {
    let rules: Vec<Value> = group
        .rules
        .iter()
        .filter_map(|rule| match &rule.kind {
            RuleKind::Alerting(alerting) if !alerting.active.is_empty() => Some(encode_rule(alerting)),
            _ => None,
        })
        .collect();
    if rules.is_empty() {
        return None;
    }
    Some(framed(&json!({"group": group.spec.key(), "savedAt": t_ms, "rules": rules})))
}

/// That the group was evaluated at `t_ms` and nothing changed.
#[must_use]
pub fn encode_seen(group: &Group, t_ms: i64) -> Vec<u8> {
    framed(&json!({"group": group.spec.key(), "savedAt": t_ms}))
}

fn framed(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let crc = crc32fast::hash(body.as_bytes());
    format!("{MAGIC} {VERSION} {crc:08x}\n{body}").into_bytes()
}

/// Whether an alert of the group waits for its `for` to pass.
#[must_use]
pub fn has_pending(group: &Group) -> bool {
    group.rules.iter().any(|rule| match &rule.kind {
        RuleKind::Alerting(alerting) => alerting.active.values().any(|a| a.state == AlertState::Pending),
        RuleKind::Recording(_) => false,
    })
}

fn encode_rule(rule: &AlertingRule) -> Value {
    let alerts: Vec<Value> = rule.active.values().map(encode_alert).collect();
    json!({"name": rule.spec.name, "labels": rule.spec.labels, "alerts": alerts})
}

fn encode_alert(alert: &Alert) -> Value {
    let mut object = Map::new();
    let labels: Map<String, Value> =
        alert.labels.iter().map(|l| (l.name.to_owned(), json!(l.value))).collect();
    object.insert("labels".into(), Value::Object(labels));
    object.insert("annotations".into(), json!(alert.annotations));
    object.insert("state".into(), json!(alert.state.as_str()));
    if let PointValue::Float(v) = alert.value {
        object.insert("value".into(), json!(crate::model::number::format_plain(v)));
    }
    object.insert("activeAt".into(), json!(alert.active_at_ms));
    for (name, time) in [
        ("firedAt", alert.fired_at_ms),
        ("resolvedAt", alert.resolved_at_ms),
        ("lastSentAt", alert.last_sent_at_ms),
        ("keepFiringSince", alert.keep_firing_since_ms),
    ] {
        if let Some(time) = time {
            object.insert(name.into(), json!(time));
        }
    }
    Value::Object(object)
}

/// What a file says, and when it was saved.
fn decode(group: &Group, content: &[u8]) -> Result<(Value, i64), String> {
    let body = checked_body(content)?;
    let stored: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if stored["group"].as_str() != Some(group.spec.key().as_str()) {
        return Err("it belongs to another group".into());
    }
    let saved_at_ms = stored["savedAt"].as_i64().ok_or("it does not say when it was saved")?;
    Ok((stored, saved_at_ms))
}

/// Takes stored state over into `group`, seen from `now_ms`; answers with the number of alerts. State older than
/// `tolerance_ms` is refused. `seen` may say that evaluations went on after the state was saved.
pub fn restore(
    group: &mut Group,
    content: &[u8],
    seen: Option<&[u8]>,
    now_ms: i64,
    tolerance_ms: i64,
) -> Result<usize, String> {
    let (stored, saved_at_ms) = decode(group, content)?;
    let seen_at_ms = seen.and_then(|seen| decode(group, seen).ok()).map_or(saved_at_ms, |(_, t_ms)| t_ms);
    let down_ms = now_ms - saved_at_ms.max(seen_at_ms);
    if down_ms > tolerance_ms {
        return Err(format!("it is {} s old, more than the outage tolerance", down_ms / 1000));
    }
    let mut count = 0;
    let empty = Vec::new();
    let mut rules: Vec<&Value> = stored["rules"].as_array().unwrap_or(&empty).iter().collect();
    for rule in &mut group.rules {
        let RuleKind::Alerting(alerting) = &mut rule.kind else { continue };
        // Whether or not it had alerts: the file is the truth.
        alerting.restored = true;
        let own_labels = json!(alerting.spec.labels);
        let same = |r: &&Value| r["name"] == json!(alerting.spec.name) && r["labels"] == own_labels;
        let Some(at) = rules.iter().position(same) else { continue };
        let found = rules.remove(at);
        let alerts: BTreeMap<Labels, Alert> = found["alerts"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .filter_map(decode_alert)
            .map(|mut alert| {
                if alert.state == AlertState::Pending {
                    alert.active_at_ms += down_ms.max(0);
                }
                // Saving comes before telling: the process may have died in between.
                if alert.last_sent_at_ms.is_some_and(|sent| sent >= saved_at_ms) {
                    alert.last_sent_at_ms = None;
                }
                (alert.labels.clone(), alert)
            })
            .collect();
        count += alerts.len();
        alerting.unconfirmed_evaluations = super::alerting::CONFIRMING_EVALUATIONS;
        alerting.active = alerts;
    }
    Ok(count)
}

fn checked_body(content: &[u8]) -> Result<&[u8], String> {
    let end = content.iter().take(100).position(|b| *b == b'\n').ok_or("it has no header line")?;
    let header = std::str::from_utf8(&content[..end]).map_err(|e| e.to_string())?;
    let body = &content[end + 1..];
    let parts: Vec<&str> = header.split(' ').collect();
    let [MAGIC, version, crc] = parts.as_slice() else {
        return Err("its header is not one of alert state".into());
    };
    if version.parse() != Ok(VERSION) {
        return Err(format!("its format version {version} is not {VERSION}"));
    }
    if *crc != format!("{:08x}", crc32fast::hash(body)) {
        return Err("its checksum does not fit".into());
    }
    Ok(body)
}

fn decode_alert(stored: &Value) -> Option<Alert> {
    let pairs = stored["labels"].as_object()?;
    let labels = Labels::from_pairs(pairs.iter().filter_map(|(n, v)| Some((n.as_str(), v.as_str()?))));
    let state = match stored["state"].as_str()? {
        "pending" => AlertState::Pending,
        "firing" => AlertState::Firing,
        "inactive" => AlertState::Inactive,
        _ => return None,
    };
    let value = stored["value"].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN);
    let annotations = serde_json::from_value(stored["annotations"].clone()).ok()?;
    Some(Alert {
        state,
        labels,
        annotations,
        value: PointValue::Float(value),
        active_at_ms: stored["activeAt"].as_i64()?,
        fired_at_ms: stored["firedAt"].as_i64(),
        resolved_at_ms: stored["resolvedAt"].as_i64(),
        last_sent_at_ms: stored["lastSentAt"].as_i64(),
        keep_firing_since_ms: stored["keepFiringSince"].as_i64(),
    })
}
