//! `tsdb create-blocks-from rules`: what would recording rules have stored? A server is asked for each rule's result
//! over each two hours; the answers become blocks of Prometheus's format, which Prometheus and Meerkat both read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
use http::header::CONTENT_TYPE;
use serde_json::Value;
use url::form_urlencoded;

use super::client::{Client, block_on, http_config};
use super::output::say;
use super::rules::duration_ms;
use super::{code, features, many, parse_options, switch, text, value};
use crate::alert::backfill::{BLOCK_MS, first_slot, source};
use crate::alert::load::{RuleFileOptions, load_rule_file, rule_kind};
use crate::alert::{GroupSpec, RecordingSpec, RuleKind};
use crate::model::{Labels, LabelsBuilder, METRIC_NAME};
use crate::tsdb::block::{BlockMeta, SeriesColumns, new_ulid};
use crate::tsdb::prometheus::write_prometheus_block;

/// How long a server may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Without `--end` the last three hours are left to the head, as in promtool.
const DEFAULT_END_MS: i64 = 3 * 3_600_000;

pub(super) fn rules_command() -> Command {
    Command::new("rules")
        .about("Write blocks with what recording rules would have stored")
        .after_help(
            "Alerting rules are left out. Rules that read what other rules of the files store need a second run after \
             the blocks of the first are in place; a running server does it in one go, see the documentation of \
             /api/v1/admin/rules/backfill. Times are Unix seconds or RFC 3339.",
        )
        .arg(http_config())
        .arg(value("url", "The server to ask.").default_value("http://localhost:9090"))
        .arg(value("start", "First time.").required(true).allow_hyphen_values(true))
        .arg(value("end", "Last time; three hours ago by default.").allow_hyphen_values(true))
        .arg(value("output-dir", "Where the blocks go.").default_value("data/"))
        .arg(value("eval-interval", "Distance of evaluations of groups without an interval.").default_value("60s"))
        .arg(switch("ignore-unknown-fields", "Accept fields that nobody knows."))
        .arg(features())
        .arg(Arg::new("file").required(true).num_args(1..).value_name("FILE").help("Rule files."))
}

pub(super) fn run_rules(matches: &ArgMatches) -> u8 {
    code(create(matches))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn time_ms(matches: &ArgMatches, name: &str) -> Result<Option<i64>, String> {
    let given = text(matches, name);
    if given.is_empty() {
        return Ok(None);
    }
    let number = given.parse::<f64>().ok().filter(|s| s.is_finite()).map(|s| (s * 1000.0) as i64);
    let date = || given.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond());
    let error = || format!("--{name}: {given:?} is neither Unix seconds nor an RFC 3339 time");
    number.or_else(date).map(Some).ok_or_else(error)
}

fn create(matches: &ArgMatches) -> Result<(), String> {
    let start_ms = time_ms(matches, "start")?.unwrap_or(0);
    let end_ms = time_ms(matches, "end")?.unwrap_or_else(|| now_ms() - DEFAULT_END_MS);
    if end_ms < start_ms {
        return Err("start time is not before end time".into());
    }
    let default_interval_ms = duration_ms(matches, "eval-interval")?;
    if default_interval_ms <= 0 {
        return Err("--eval-interval: must be positive".into());
    }
    let options = RuleFileOptions {
        parse: parse_options(matches),
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
        ..RuleFileOptions::default()
    };
    let mut rules: Vec<(GroupSpec, Arc<RecordingSpec>)> = Vec::new();
    for path in many(matches, "file") {
        let file = load_rule_file(Path::new(&path), &options).map_err(|e| e.to_string())?;
        for group in &file.groups {
            let spec = GroupSpec {
                name: group.name.clone(),
                file: path.clone(),
                interval_ms: if group.interval.0 == 0 { default_interval_ms } else { group.interval.0 },
                limit: 0,
                query_offset_ms: 0,
            };
            for rule in &group.rules {
                match rule_kind(rule, &group.labels) {
                    RuleKind::Recording(recording) => rules.push((spec.clone(), recording)),
                    RuleKind::Alerting(_) => say!("skipped: {} is an alerting rule", rule.name()),
                }
            }
        }
    }
    if rules.is_empty() {
        return Err("the files have no recording rules".into());
    }
    let client = Client::new(matches, ANSWER_TIMEOUT)?;
    let url = format!("{}/api/v1/query_range", text(matches, "url").trim_end_matches('/'));
    let dir = PathBuf::from(text(matches, "output-dir"));
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
    let mut begin_ms = start_ms.div_euclid(BLOCK_MS) * BLOCK_MS;
    while begin_ms <= end_ms {
        let window = (begin_ms.max(start_ms), (begin_ms + BLOCK_MS - 1).min(end_ms));
        let mut series: BTreeMap<Labels, SeriesColumns> = BTreeMap::new();
        for (spec, rule) in &rules {
            let first_ms = first_slot(spec, window.0);
            if first_ms > window.1 {
                continue;
            }
            let result = block_on(ask(&client, &url, &rule.expr, first_ms, window.1, spec.interval_ms))?
                .map_err(|e| format!("rule {}: {e}", rule.name))?;
            add(&result, rule, &mut series)?;
        }
        if !series.is_empty() {
            let meta = BlockMeta::new(new_ulid(now_ms()), window.0, window.1 + 1);
            let written = write_prometheus_block(&dir, meta, &mut source(series), &|| false);
            if let Some((path, meta)) = written.map_err(|e| e.to_string())? {
                say!(
                    "{}: {} samples of {} series",
                    path.display(),
                    meta.stats.num_samples,
                    meta.stats.num_series
                );
            }
        }
        begin_ms += BLOCK_MS;
    }
    Ok(())
}

async fn ask(
    client: &Client,
    url: &str,
    expr: &str,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<Value, String> {
    let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", expr)
        .append_pair("start", &seconds(start_ms))
        .append_pair("end", &seconds(end_ms))
        .append_pair("step", &seconds(step_ms))
        .finish();
    let kind = [(CONTENT_TYPE, "application/x-www-form-urlencoded")];
    let (status, body) = client.send(url, &kind, Some(Bytes::from(form))).await?;
    let answer: Value =
        serde_json::from_str(&body).map_err(|_| format!("status {status}: {}", body.trim_end()))?;
    if answer["status"] != "success" {
        return Err(answer["error"].as_str().unwrap_or("the server did not say why it failed").to_owned());
    }
    Ok(answer["data"]["result"].clone())
}

/// Adds the points of a range query under the rule's name and labels.
fn add(
    result: &Value,
    rule: &RecordingSpec,
    series: &mut BTreeMap<Labels, SeriesColumns>,
) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for item in result.as_array().into_iter().flatten() {
        if item["histograms"].is_array() {
            return Err(format!(
                "rule {} returns native histograms, which the API does not give back whole: backfill it on the server",
                rule.name
            ));
        }
        let pairs = item["metric"].as_object().into_iter().flatten();
        let labels = Labels::from_pairs(pairs.filter_map(|(name, value)| Some((name, value.as_str()?))));
        let mut labels = LabelsBuilder::new(&labels);
        labels.set(METRIC_NAME, &rule.name);
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(format!("rule {} returns {labels} twice", rule.name));
        }
        let columns = series.entry(labels).or_default();
        let mut added = SeriesColumns::default();
        for point in item["values"].as_array().into_iter().flatten() {
            let (Some(t), Some(v)) = (point[0].as_f64(), point[1].as_str().and_then(|v| v.parse().ok()))
            else {
                return Err(format!("rule {}: {point} is not a point", rule.name));
            };
            added.push_float((t * 1000.0).round() as i64, 0, v);
        }
        columns.merge(&added);
    }
    Ok(())
}
