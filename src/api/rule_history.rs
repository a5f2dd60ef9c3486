//! Rules over the past: would an alert have fired, and what would recording rules have stored?

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};

use super::admin::check_enabled;
use super::error::{ApiError, ErrorKind};
use super::json::{self, Object};
use super::reply::{stream_json, success};
use super::routes::Call;
use crate::alert::AlertingSpec;
use crate::alert::backfill::JobStatus;
use crate::alert::backtest::{self, Interval, Period, TestedAlert};
use crate::query::QueryOptions;

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn write_interval(out: &mut Vec<u8>, interval: &Interval) {
    let mut object = Object::open(out);
    object
        .text("state", interval.state.as_str())
        .float("start", seconds(interval.start_ms))
        .float("end", seconds(interval.end_ms));
    object.close();
}

fn write_tested(out: &mut Vec<u8>, alert: &TestedAlert) {
    let mut object = Object::open(out);
    json::labels(object.key("labels"), &alert.labels);
    json::list(object.key("intervals"), &alert.intervals, write_interval);
    object.close();
}

fn backtest_of(call: &Call) -> Result<(AlertingSpec, Period), ApiError> {
    let params = &call.params;
    let expr = match params.first("expr") {
        "" => params.first("query"),
        expr => expr,
    };
    if expr.is_empty() {
        return Err(ApiError::parameter("expr", "the expression of the alert is missing"));
    }
    let end_ms = params.time("end", call.api.clock.now_ms())?;
    let start_ms = params.required_time("start")?;
    let step_ms = params.duration("step")?.unwrap_or(60_000);
    if step_ms <= 0 {
        return Err(ApiError::parameter("step", "the step must be positive"));
    }
    let steps = end_ms.checked_sub(start_ms).map(|range| range / step_ms);
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    if steps.is_none_or(|steps| steps >= backtest::MAX_STEPS) {
        let most = backtest::MAX_STEPS;
        return Err(ApiError::parameter("step", format!("more than {most} evaluations: use a larger step")));
    }
    let name = match params.first("name") {
        "" => "backtest",
        name => name,
    };
    let spec = AlertingSpec {
        name: name.to_owned(),
        expr: expr.to_owned(),
        hold_ms: params.duration("for")?.unwrap_or(0).max(0),
        keep_firing_ms: params.duration("keep_firing_for")?.unwrap_or(0).max(0),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    Ok((spec, Period { start_ms, end_ms, step_ms }))
}

/// `/api/v1/rules/backtest`
pub async fn backtest(call: Call) -> Response {
    let (spec, period) = match backtest_of(&call) {
        Ok(parsed) => parsed,
        Err(error) => return error.into_response(),
    };
    let services = call.services;
    let options = QueryOptions::default();
    stream_json(options.cancel.clone(), move |out| {
        let alerts = backtest::run(&services.engine, &*services.queryable, spec, period, &options)?;
        out.success(&[], &[], |out| {
            let mut object = Object::open(&mut out.buf);
            object
                .float("start", seconds(period.start_ms))
                .float("end", seconds(period.end_ms))
                .float("step", seconds(period.step_ms));
            json::list(object.key("alerts"), &alerts, write_tested);
            object.close();
        });
        Ok(())
    })
    .await
}

fn write_job(out: &mut Vec<u8>, job: &JobStatus) {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut object = Object::open(out);
    object
        .integer("id", count(job.id))
        .text("state", job.state)
        .text("group", &job.group)
        .text("file", &job.file);
    json::strings(object.key("rules"), job.rules.iter().map(String::as_str));
    object
        .float("start", seconds(job.start_ms))
        .float("end", seconds(job.end_ms))
        .integer("evaluations", job.evaluations)
        .integer("evaluationsDone", job.evaluations_done)
        .integer("samplesWritten", count(job.samples_written))
        .integer("samplesPresent", count(job.samples_present));
    if let Some(error) = &job.error {
        object.text("error", error);
    }
    object.close();
}

fn start(call: &Call) -> Result<u64, ApiError> {
    check_enabled(call)?;
    let params = &call.params;
    let group = params.first("group");
    if group.is_empty() {
        return Err(ApiError::parameter("group", "the name of the rule group is missing"));
    }
    let start_ms = params.required_time("start")?;
    let end_ms = params.time("end", call.api.clock.now_ms())?;
    if end_ms > call.api.clock.now_ms() {
        return Err(ApiError::parameter("end", "the future cannot be backfilled"));
    }
    let rules: Vec<String> = params.all("rule[]").map(str::to_owned).collect();
    let source = &call.services.rules;
    source.start_backfill(group, params.first("file"), &rules, start_ms, end_ms).map_err(ApiError::bad_data)
}

/// `/api/v1/admin/rules/backfill`
pub async fn backfill(call: Call) -> Response {
    if call.method == http::Method::GET {
        let jobs = call.services.rules.backfills();
        return success(|out| {
            let mut object = Object::open(out);
            json::list(object.key("backfills"), &jobs, write_job);
            object.close();
        });
    }
    match start(&call) {
        Ok(id) => success(|out| {
            let mut object = Object::open(out);
            object.integer("id", i64::try_from(id).unwrap_or(i64::MAX));
            object.close();
        }),
        Err(error) => error.into_response(),
    }
}

/// `/api/v1/admin/rules/backfill/cancel`
pub async fn cancel(call: Call) -> Response {
    if let Err(error) = check_enabled(&call) {
        return error.into_response();
    }
    let id = call.params.first("id");
    let Ok(number) = id.parse::<u64>() else {
        return ApiError::parameter("id", format!("{id:?} is not the number of a backfill")).into_response();
    };
    if call.services.rules.cancel_backfill(number) {
        return http::StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(ErrorKind::NotFound, format!("backfill {number} does not run")).into_response()
}
