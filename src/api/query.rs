//! The query endpoints: instant, range, exemplars, formatting.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};

use super::context::Services;
use super::error::{ApiError, ErrorKind};
use super::params::Params;
use super::quick::Question;
use super::reply::{Out, stream_json, stream_or_at_once};
use super::routes::Call;
use super::{ast_json, encode, json, selectors};
use crate::model::Labels;
use crate::query::log::QueryOrigin;
use crate::query::{CancelToken, QueryError, QueryOptions, QueryResult, QueryValue};
use crate::telemetry::spans::SpanContext;

/// Most points a range query may answer for each series.
const MAX_POINTS: i64 = 11_000;
/// The warning of a shortened result.
pub const TRUNCATED: &str = "results truncated due to limit";
/// Most warnings, and most infos, in one answer.
const MAX_ANNOTATIONS: usize = 10;

/// How `stats` was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatsWish {
    None,
    Totals,
    PerStep,
}

struct Wishes {
    options: QueryOptions,
    limit: usize,
    stats: StatsWish,
    warnings: Vec<String>,
}

impl Wishes {
    fn parse(
        params: &Params,
        (origin, trace): (QueryOrigin, SpanContext),
        per_step_feature: bool,
    ) -> Result<Self, ApiError> {
        let limit = params.limit("limit")?;
        let timeout = match params.duration("timeout")? {
            Some(ms) if ms <= 0 => {
                return Err(ApiError::new(ErrorKind::Timeout, "query timed out in query execution"));
            }
            timeout => timeout.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        };
        let lookback_delta_ms = match params.first("lookback_delta") {
            "" => None,
            text => Some(
                super::params::parse_seconds_or_duration(text)
                    .map_err(|e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}")))?,
            ),
        };
        let mut warnings = Vec::new();
        let stats = match params.first("stats") {
            "" => StatsWish::None,
            "all" if per_step_feature => StatsWish::PerStep,
            "all" | "true" => StatsWish::Totals,
            other => {
                warnings.push(format!(
                    "the value {other:?} of the parameter \"stats\" is deprecated; use \"true\" or \"all\""
                ));
                StatsWish::Totals
            }
        };
        let options = QueryOptions {
            timeout,
            lookback_delta_ms,
            per_step_stats: stats == StatsWish::PerStep,
            cancel: CancelToken::default(),
            origin,
            no_cache: matches!(params.first("nocache"), "1" | "true"),
            trace,
        };
        Ok(Self { options, limit, stats, warnings })
    }

    /// The options, with less time if there is little patience.
    fn options(&self, patience: Option<Duration>) -> QueryOptions {
        let options = self.options.clone();
        let timeout = patience.map_or(options.timeout, |p| Some(options.timeout.map_or(p, |t| t.min(p))));
        QueryOptions { timeout, ..options }
    }

    fn write(&self, out: &mut Out, mut result: QueryResult) {
        let mut warnings = self.warnings.clone();
        warnings.append(&mut result.annotations.warnings);
        if self.limit > 0 && truncate(&mut result.value, self.limit) {
            warnings.push(TRUNCATED.into());
        }
        let warnings = capped(warnings, "warning");
        let infos = capped(std::mem::take(&mut result.annotations.infos), "info");
        let stats = match self.stats {
            StatsWish::None => None,
            wish => Some((&result.stats, wish == StatsWish::PerStep)),
        };
        out.success(&warnings, &infos, |out| encode::query_data(out, &result.value, stats));
    }
}

/// What the query log says of a request.
fn origin(call: &Call) -> QueryOrigin {
    QueryOrigin::Http {
        client_ip: call.peer.map(|p| p.ip().to_string()).unwrap_or_default(),
        method: call.method.to_string(),
        path: call.path.clone(),
    }
}

fn truncate(value: &mut QueryValue, limit: usize) -> bool {
    match value {
        QueryValue::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        QueryValue::Matrix(series) if series.len() > limit => series.truncate(limit),
        _ => return false,
    }
    true
}

fn capped(mut texts: Vec<String>, kind: &str) -> Vec<String> {
    if texts.len() > MAX_ANNOTATIONS {
        let more = texts.len() - MAX_ANNOTATIONS;
        texts.truncate(MAX_ANNOTATIONS);
        texts.push(format!("{more} more {kind} annotations omitted"));
    }
    texts
}

/// Answers with what `evaluate` finds; `parts` tell the question apart from others, besides its text.
async fn evaluated(
    services: Arc<Services>,
    wishes: Wishes,
    query: String,
    parts: impl Hash,
    evaluate: impl Fn(&Services, &str, &QueryOptions) -> Result<QueryResult, QueryError> + Send + 'static,
) -> Response {
    // A query that begins anew would be in the log twice, which would puzzle its reader.
    let question = (!services.engine.is_logged()).then(|| Question::new((&query, wishes.limit, parts)));
    let (quick, cancel) = (Arc::clone(&services.quick), wishes.options.cancel.clone());
    stream_or_at_once(quick, question, cancel, move |out, patience| {
        let result = evaluate(&services, &query, &wishes.options(patience))?;
        wishes.write(out, result);
        Ok(())
    })
    .await
}

/// `/api/v1/query`
pub async fn instant(call: Call) -> Response {
    let asker = (origin(&call), call.trace.clone());
    let prepared = || -> Result<_, ApiError> {
        let wishes = Wishes::parse(&call.params, asker, call.api.options.per_step_stats)?;
        let t_ms = call.params.time("time", call.api.clock.now_ms())?;
        Ok((wishes, t_ms, call.params.first("query").to_owned()))
    };
    let (wishes, t_ms, query) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error.into_response(),
    };
    evaluated(call.services, wishes, query, (), move |services, query, options| {
        services.engine.instant(&*services.queryable, query, t_ms, options)
    })
    .await
}

/// `/api/v1/query_range`
pub async fn range(call: Call) -> Response {
    let asker = (origin(&call), call.trace.clone());
    let prepared = || -> Result<_, ApiError> {
        let params = &call.params;
        let limit = params.limit("limit")?;
        let (start, end, step) = range_times(params)?;
        let mut wishes = Wishes::parse(&call.params, asker, call.api.options.per_step_stats)?;
        wishes.limit = limit;
        Ok((wishes, start, end, step, params.first("query").to_owned()))
    };
    let (wishes, start, end, step, query) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error.into_response(),
    };
    let parts = (end.saturating_sub(start), step);
    evaluated(call.services, wishes, query, parts, move |services, query, options| {
        services.engine.range(&*services.queryable, query, start, end, step, options)
    })
    .await
}

/// `/api/v1/explain`: the plan of a query with series, samples and seconds of each part. With `start`, `end` and
/// `step` the query runs as a range query, else as an instant query at `time`.
pub async fn explain(call: Call) -> Response {
    let asker = (origin(&call), call.trace.clone());
    let prepared = || -> Result<_, ApiError> {
        let params = &call.params;
        let wishes = Wishes::parse(params, asker, false)?;
        if params.first("step").is_empty() {
            let t_ms = params.time("time", call.api.clock.now_ms())?;
            return Ok((wishes, t_ms, t_ms, 0));
        }
        let (start, end, step) = range_times(params)?;
        Ok((wishes, start, end, step))
    };
    let (wishes, start, end, step) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error.into_response(),
    };
    let query = call.params.first("query").to_owned();
    let services = call.services;
    stream_json(wishes.options.cancel.clone(), move |out| {
        let explained =
            services.engine.explain(&*services.queryable, &query, start, end, step, &wishes.options)?;
        let notes = &explained.annotations;
        out.success(&notes.warnings, &notes.infos, |out| encode::explanation(&mut out.buf, &explained));
        Ok(())
    })
    .await
}

/// `start`, `end` and `step` of a range query.
fn range_times(params: &Params) -> Result<(i64, i64, i64), ApiError> {
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step = super::params::parse_seconds_or_duration(params.first("step"))
        .map_err(|e| ApiError::parameter("step", e))?;
    if step <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end.saturating_sub(start) / step > MAX_POINTS {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query \
             resolution (?step=XX)",
        ));
    }
    Ok((start, end, step))
}

/// `/api/v1/query_exemplars`
pub async fn exemplars(call: Call) -> Response {
    let prepared = || -> Result<_, ApiError> {
        let start = call.params.time("start", super::params::MIN_TIME_MS)?;
        let end = call.params.time("end", super::params::MAX_TIME_MS)?;
        if end < start {
            return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
        }
        let sets = selectors::of_expression(call.services.engine.options(), call.params.first("query"))
            .map_err(|e| ApiError::bad_data(e.to_string()))?;
        Ok((start, end, sets))
    };
    let (start, end, sets) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error.into_response(),
    };
    if sets.is_empty() {
        return http::StatusCode::NO_CONTENT.into_response();
    }
    let services = call.services;
    stream_json(CancelToken::default(), move |out| {
        let found = match &services.exemplars {
            Some(store) => store.select_exemplars(start, end, &sets)?,
            None => Vec::new(),
        };
        out.success(&[], &[], |out| {
            out.raw("[");
            for (i, series) in found.iter().enumerate() {
                out.raw(if i > 0 { ",{\"seriesLabels\":" } else { "{\"seriesLabels\":" });
                json::labels(&mut out.buf, &series.labels);
                out.raw(",\"exemplars\":");
                json::list(&mut out.buf, &series.exemplars, |buf, exemplar| {
                    buf.extend_from_slice(b"{\"labels\":");
                    json::labels(buf, &exemplar.labels);
                    buf.extend_from_slice(b",\"value\":");
                    json::sample_value(buf, exemplar.value);
                    buf.extend_from_slice(b",\"timestamp\":");
                    json::timestamp(buf, exemplar.timestamp_ms.unwrap_or(0));
                    buf.push(b'}');
                });
                out.raw("}");
                out.flush_if_full();
            }
            out.raw("]");
        });
        Ok(())
    })
    .await
}

/// The label sets of all series that satisfy at least one matcher set, sorted, each once; at most `limit` (0 = all).
/// The second value tells whether some were left out.
pub fn series_of(
    services: &Arc<Services>,
    sets: &[Vec<crate::model::Matcher>],
    start_ms: i64,
    end_ms: i64,
    limit: usize,
) -> Result<(Vec<Labels>, Vec<String>), ApiError> {
    let querier = services.queryable.querier(start_ms, end_ms)?;
    let hints = crate::tsdb::SelectHints {
        start_ms,
        end_ms,
        function: Some("series".into()),
        limit: if limit > 0 { limit + 1 } else { 0 },
        ..crate::tsdb::SelectHints::default()
    };
    let mut all: Vec<Labels> = Vec::new();
    let mut warnings = Vec::new();
    for matchers in sets {
        let set = querier.select(&hints, matchers)?;
        all.extend((0..set.len()).map(|i| set.labels(i)));
        warnings.extend(set.warnings());
    }
    if sets.len() > 1 {
        all.sort_unstable();
        all.dedup();
    }
    if limit > 0 && all.len() > limit {
        all.truncate(limit);
        warnings.push(TRUNCATED.into());
    }
    Ok((all, warnings))
}

fn parsed(call: &Call) -> Result<crate::query::parse::ast::Expr, ApiError> {
    let options = selectors::parse_options(call.services.engine.options());
    crate::query::parse::parse_expr(call.params.first("query"), &options)
        .map_err(|e| ApiError::parameter("query", e))
}

/// `/api/v1/format_query`
pub async fn format(call: Call) -> Response {
    match parsed(&call) {
        Ok(expr) => {
            let text = crate::query::parse::pretty(&expr);
            super::reply::success(|out| json::string(out, &text))
        }
        Err(error) => error.into_response(),
    }
}

/// `/api/v1/parse_query`
pub async fn parse(call: Call) -> Response {
    match parsed(&call) {
        Ok(expr) => {
            let mut tree = Vec::new();
            match ast_json::write_tree(&mut tree, &expr) {
                Ok(()) => super::reply::success(|out| out.append(&mut tree)),
                Err(e) => ApiError::internal(format!("writing a long expression: {e}")).into_response(),
            }
        }
        Err(error) => error.into_response(),
    }
}
