//! Which paths are there, and what do they need? One table: the router, the handler labels of self-metrics and the
//! OpenAPI document come from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::admission::{self, Cost};
use super::context::{Api, Services};
use super::error::{ApiError, ErrorKind};
use super::params::{MAX_FORM_BYTES, Params};
use super::{
    admin, features, federate, labels, lifecycle, live, multipart, openapi, otlp, paths, query, read, reply,
    rule_history, rules, search, self_metrics, silences, status, targets, write,
};
use crate::telemetry::spans::SpanContext;

/// A request as handlers of the table see it.
pub struct Call {
    /// Shared parts.
    pub api: Arc<Api>,
    /// Parts that depend on storage.
    pub services: Arc<Services>,
    /// URL and form parameters.
    pub params: Params,
    /// Path of the URL, prefix included.
    pub path: String,
    /// What the `{…}` of the path stood for.
    pub path_value: String,
    /// Method.
    pub method: Method,
    /// Headers.
    pub headers: HeaderMap,
    /// Whom the connection comes from.
    pub peer: Option<std::net::SocketAddr>,
    /// The trace that it belongs to.
    pub trace: SpanContext,
    /// The body, unless it was a form.
    pub body: Body,
}

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
/// Serves a route that needs storage.
pub type Handler = fn(Call) -> Answer;
/// Serves a route that always answers.
pub type EarlyHandler = fn(Arc<Api>, Request) -> Answer;

/// Who serves a route.
#[derive(Clone, Copy)]
pub enum Serve {
    /// Needs storage; answers 503 until it is open.
    Ready(Handler),
    /// Answers from the first moment.
    Always(EarlyHandler),
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Route {
    /// Path below the prefix, in axum's notation.
    pub path: &'static str,
    /// Methods; GET includes HEAD.
    pub methods: &'static [&'static str],
    /// Who serves it.
    pub serve: Serve,
    /// One line for the OpenAPI document.
    pub summary: &'static str,
    /// Names of its parameters, `!` behind those that must be given; the OpenAPI document knows their types.
    pub parameters: &'static [&'static str],
    /// What it may cost.
    pub cost: Cost,
}

impl Route {
    const fn costs(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    const fn with(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }
}

/// What all searches take, and what else one of them takes.
macro_rules! search_parameters {
    ($($more:literal),*) => {
        &[
            "search[]",
            "match[]",
            "fuzz_threshold",
            "fuzz_alg",
            "case_sensitive",
            "sort_by",
            "sort_dir",
            "include_score",
            "start",
            "end",
            "limit",
            "batch_size",
            $($more),*
        ]
    };
}

macro_rules! ready {
    ($handler:path) => {
        Serve::Ready(|call| Box::pin($handler(call)))
    };
}
macro_rules! always {
    ($handler:path) => {
        Serve::Always(|api, request| Box::pin($handler(api, request)))
    };
}

/// Longest time for a form to arrive.
const FORM_DEADLINE: Duration = Duration::from_secs(30);

const GET: &[&str] = &["GET"];
const GET_POST: &[&str] = &["GET", "POST"];
/// Wherever there is something to get, heads are too; these say so in `Allow`, as in Prometheus.
const GET_HEAD: &[&str] = &["GET", "HEAD"];
const GET_POST_DELETE: &[&str] = &["GET", "POST", "DELETE"];
const POST: &[&str] = &["POST"];
const POST_PUT: &[&str] = &["POST", "PUT"];

const fn route(
    path: &'static str,
    methods: &'static [&'static str],
    serve: Serve,
    summary: &'static str,
) -> Route {
    Route { path, methods, serve, summary, parameters: &[], cost: Cost::Free }
}

/// All routes but those of the user interface.
pub const ROUTES: &[Route] = &[
    route("/api/v1/query", GET_POST, ready!(query::instant), "Evaluate an instant query")
        .costs(Cost::Query)
        .with(&["query!", "time", "timeout", "limit", "lookback_delta", "stats"]),
    route("/api/v1/query_range", GET_POST, ready!(query::range), "Evaluate a range query")
        .costs(Cost::Query)
        .with(&["query!", "start!", "end!", "step!", "timeout", "limit", "lookback_delta", "stats"]),
    route(
        "/api/v1/query_exemplars",
        GET_POST,
        ready!(query::exemplars),
        "Find exemplars of the series in a query",
    )
    .costs(Cost::Lookup)
    .with(&["query!", "start", "end"]),
    route("/api/v1/explain", GET_POST, ready!(query::explain), "Show what the parts of a query cost")
        .costs(Cost::Query)
        .with(&["query!", "time", "start", "end", "step", "timeout", "lookback_delta"]),
    route("/api/v1/format_query", GET_POST, ready!(query::format), "Format a query").with(&["query!"]),
    route("/api/v1/parse_query", GET_POST, ready!(query::parse), "Parse a query into its tree")
        .with(&["query!"]),
    // DELETE is there to say that it is not implemented, as in Prometheus.
    route("/api/v1/series", GET_POST_DELETE, ready!(labels::series), "Find series by label matchers")
        .costs(Cost::Lookup)
        .with(&["match[]!", "start", "end", "limit"]),
    route("/api/v1/labels", GET_POST, ready!(labels::names), "List label names")
        .costs(Cost::Lookup)
        .with(&["match[]", "start", "end", "limit"]),
    route("/api/v1/label/{name}/values", GET, ready!(labels::values), "List values of a label")
        .costs(Cost::Lookup)
        .with(&["match[]", "start", "end", "limit"]),
    route("/api/v1/search/metric_names", GET_POST, ready!(search::metric_names), "Search metric names")
        .costs(Cost::Lookup)
        .with(search_parameters!("include_metadata")),
    route("/api/v1/search/label_names", GET_POST, ready!(search::label_names), "Search label names")
        .costs(Cost::Lookup)
        .with(search_parameters!()),
    route("/api/v1/search/label_values", GET_POST, ready!(search::label_values), "Search values of a label")
        .costs(Cost::Lookup)
        .with(search_parameters!("label!")),
    route("/api/v1/metadata", GET, ready!(targets::metadata), "Metadata of metrics")
        .costs(Cost::Lookup)
        .with(&["metric", "limit", "limit_per_metric"]),
    route("/api/v1/targets", GET, ready!(targets::targets), "Targets, active and dropped")
        .costs(Cost::Lookup)
        .with(&["state", "scrapePool"]),
    route("/api/v1/targets/metadata", GET, ready!(targets::target_metadata), "Metadata of metrics by target")
        .costs(Cost::Lookup)
        .with(&["match_target", "metric", "limit"]),
    route(
        "/api/v1/targets/relabel_steps",
        GET,
        ready!(targets::relabel_steps),
        "Relabelling of a target, rule by rule",
    )
    .with(&["scrapePool!", "labels!"]),
    route("/api/v1/scrape_pools", GET, ready!(targets::scrape_pools), "Names of scrape jobs"),
    route(
        "/api/v1/scrape_pools/config",
        GET,
        ready!(targets::scrape_pool_config),
        "Configuration of a scrape job",
    )
    .with(&["scrapePool!"]),
    route("/api/v1/rules", GET, ready!(rules::rules), "Rules with their state").costs(Cost::Lookup).with(&[
        "type",
        "rule_name[]",
        "rule_group[]",
        "file[]",
        "match[]",
        "exclude_alerts",
        "group_limit",
        "group_next_token",
    ]),
    route(
        "/api/v1/rules/backtest",
        GET_POST,
        ready!(rule_history::backtest),
        "When an alert would have been pending and firing",
    )
    .costs(Cost::Query),
    route("/api/v1/alerts", GET, ready!(rules::alerts), "Active alerts").costs(Cost::Lookup),
    route("/api/v1/alertmanagers", GET, ready!(rules::alertmanagers), "Alertmanagers, active and dropped"),
    route(
        "/api/v1/alertmanagers/silences",
        GET_POST,
        ready!(silences::silences),
        "Silences of the configured Alertmanagers; POST adds one",
    )
    .costs(Cost::Lookup),
    route("/api/v1/alertmanagers/silences/expire", POST, ready!(silences::expire), "End a silence")
        .costs(Cost::Lookup),
    route("/api/v1/status/config", GET, ready!(status::config), "The running configuration"),
    route(
        "/api/v1/status/config/disk",
        GET,
        ready!(status::config_on_disk),
        "The configuration as its file stands now",
    )
    .costs(Cost::Lookup),
    route("/api/v1/status/flags", GET, ready!(status::flags), "Flags and their values"),
    route("/api/v1/status/buildinfo", GET, ready!(status::build_info), "What this program is"),
    route("/api/v1/status/runtimeinfo", GET, ready!(status::runtime_info), "How this process is"),
    route("/api/v1/status/tsdb", GET, ready!(status::tsdb), "Statistics of storage")
        .costs(Cost::Lookup)
        .with(&["limit"]),
    route("/api/v1/status/tsdb/blocks", GET, ready!(status::blocks), "Blocks of storage").costs(Cost::Lookup),
    route(
        "/api/v1/status/self_metrics",
        GET,
        ready!(self_metrics::self_metrics),
        "Metrics of this process as JSON",
    )
    .costs(Cost::Lookup)
    .with(&["metric_name_pattern"]),
    route("/api/v1/status/walreplay", GET, always!(status::wal_replay), "Progress of replaying the log"),
    route("/api/v1/features", GET, ready!(features::features), "Capabilities of this server"),
    route("/api/v1/notifications", GET, always!(live::list), "Messages for the user interface"),
    route(
        "/api/v1/notifications/live",
        GET,
        always!(live::live),
        "Messages for the user interface as they come",
    ),
    route("/api/v1/openapi.yaml", GET, always!(openapi::document), "This interface as an OpenAPI document")
        .with(&["openapi_version"]),
    route("/api/v1/read", POST, ready!(read::read), "Answer remote read"),
    route("/api/v1/otlp/v1/metrics", POST, ready!(otlp::metrics), "Receive metrics of OpenTelemetry"),
    route("/api/v1/write", POST, ready!(write::write), "Receive remote write"),
    route("/api/v1/admin/tsdb/snapshot", POST_PUT, ready!(admin::snapshot), "Take a snapshot of storage")
        .with(&["skip_head"]),
    route("/api/v1/admin/tsdb/delete_series", POST_PUT, ready!(admin::delete_series), "Delete series")
        .with(&["match[]!", "start", "end"]),
    route(
        "/api/v1/admin/tsdb/clean_tombstones",
        POST_PUT,
        ready!(admin::clean_tombstones),
        "Remove deleted samples from disk",
    ),
    route(
        "/api/v1/admin/rules/backfill",
        GET_POST,
        ready!(rule_history::backfill),
        "Compute recording rules over stored history; list such computations",
    ),
    route(
        "/api/v1/admin/rules/backfill/cancel",
        POST_PUT,
        ready!(rule_history::cancel),
        "Stop a computation of recording rules over stored history",
    ),
    route("/federate", GET, ready!(federate::federate), "Newest samples, for another server to scrape")
        .costs(Cost::Lookup)
        .with(&["match[]"]),
    route("/-/healthy", GET_HEAD, always!(lifecycle::healthy), "Whether the process lives"),
    route("/-/ready", GET_HEAD, always!(lifecycle::ready), "Whether queries are served"),
    route("/-/reload", POST_PUT, always!(lifecycle::reload), "Load the configuration again"),
    route("/-/quit", POST_PUT, always!(lifecycle::quit), "Stop the process"),
    route("/metrics", GET, always!(lifecycle::metrics), "Metrics of this process"),
    route("/version", GET, always!(lifecycle::version), "What this program is"),
];

/// Whether a request for a path of the table is there to change something: whatever cannot be asked for with GET, and
/// administration by other methods.
#[must_use]
pub fn changes_something(path: &str, method: &Method) -> bool {
    let reading = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let only_changes = |route: &Route| !route.methods.contains(&"GET") || path.contains("/admin/");
    !reading && ROUTES.iter().any(|route| route.path == path && only_changes(route))
}

/// The answer of ready-only routes while the process starts or stops.
pub fn not_ready(api: &Api) -> Response {
    let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    let stopping = HeaderValue::from_static(if api.is_stopping() { "true" } else { "false" });
    response.headers_mut().insert("X-Prometheus-Stopping", stopping);
    response
}

/// The methods of a path below the prefix, if it is in the table.
#[must_use]
pub fn methods_of(path: &str) -> Option<&'static [&'static str]> {
    let label = path.strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
    let is_label = label.is_some_and(|name| !name.is_empty() && !name.contains('/'));
    let path = if is_label { "/api/v1/label/{name}/values" } else { path };
    ROUTES.iter().find(|route| route.path == path).map(|route| route.methods)
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok())
}

fn is_plain_form(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|v| {
        v.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

async fn read_call(
    api: Arc<Api>,
    services: Arc<Services>,
    path_value: String,
    request: Request,
) -> Result<Call, ApiError> {
    let (parts, body) = request.into_parts();
    let peer = write::peer_of(&parts.extensions);
    let trace = parts.extensions.get::<SpanContext>().cloned().unwrap_or_default();
    let multipart = content_type(&parts.headers).and_then(multipart::boundary).map(str::to_owned);
    let is_form = multipart.is_some() || is_plain_form(&parts.headers);
    let (form, body) = if is_form && parts.method != Method::GET {
        let reading = axum::body::to_bytes(body, MAX_FORM_BYTES);
        let bytes = tokio::time::timeout(FORM_DEADLINE, reading)
            .await
            .map_err(|_| ApiError::bad_data("error parsing form values: the body came too slowly"))?
            .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
        (bytes, Body::empty())
    } else {
        (bytes::Bytes::new(), body)
    };
    let query = parts.uri.query().unwrap_or("");
    let params = match multipart {
        None => Params::parse(&form, query)?,
        Some(boundary) => {
            let mut params = Params::parse(b"", query)?;
            params.add_multipart(&form, &boundary)?;
            params
        }
    };
    let path = parts.uri.path().to_owned();
    Ok(Call {
        api,
        services,
        params,
        path,
        path_value,
        method: parts.method,
        headers: parts.headers,
        peer,
        trace,
        body,
    })
}

/// Whether a path asks for what an agent does not have: samples, rules, alerts.
fn needs_queries(path: &str) -> bool {
    const PATHS: [&str; 17] = [
        "/api/v1/query",
        "/api/v1/query_range",
        "/api/v1/query_exemplars",
        "/api/v1/explain",
        "/api/v1/format_query",
        "/api/v1/parse_query",
        "/api/v1/series",
        "/api/v1/labels",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/alertmanagers",
        "/api/v1/status/tsdb",
        "/api/v1/status/tsdb/blocks",
        "/api/v1/read",
        "/api/v1/admin/tsdb/snapshot",
        "/api/v1/admin/tsdb/delete_series",
        "/api/v1/admin/tsdb/clean_tombstones",
    ];
    PATHS.iter().any(|p| path.ends_with(p))
        || path.contains("/api/v1/label/")
        || path.contains("/api/v1/search/")
        || path.ends_with("/federate")
}

async fn serve_ready(
    handler: Handler,
    cost: Cost,
    api: Arc<Api>,
    path_value: String,
    request: Request,
) -> Response {
    let Some(services) = api.ready_services() else { return not_ready(&api) };
    if api.options.agent && needs_queries(request.uri().path()) {
        return ApiError::new(ErrorKind::Execution, "unavailable with Prometheus Agent").into_response();
    }
    // The parameters come first: a slow sender must not hold a place.
    let call = match read_call(Arc::clone(&api), Arc::clone(&services), path_value, request).await {
        Ok(call) => call,
        Err(error) => return error.into_response(),
    };
    let longest = services.engine.options().timeout;
    match services.admission.enter(cost, longest).await {
        Ok(permit) => admission::hold(permit, handler(call).await),
        Err(error) => error.into_response(),
    }
}

fn methods(names: &[&str]) -> MethodFilter {
    let one = |name: &str| match name {
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
        "HEAD" => MethodFilter::HEAD,
        _ => MethodFilter::GET,
    };
    names.iter().skip(1).fold(one(names.first().copied().unwrap_or("GET")), |all, name| all.or(one(name)))
}

async fn preflight() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The router of the table, without prefix and layers.
pub fn router(api: Arc<Api>) -> Router {
    let mut router: Router<Arc<Api>> = Router::new();
    for route in ROUTES {
        let served = match route.serve {
            Serve::Always(handler) => {
                on(methods(route.methods), move |State(api): State<Arc<Api>>, request: Request| {
                    handler(api, request)
                })
            }
            Serve::Ready(handler) if route.path.contains('{') => on(
                methods(route.methods),
                move |State(api): State<Arc<Api>>,
                      value: Result<Path<String>, PathRejection>,
                      request: Request| async move {
                    let path = request.uri().path().to_owned();
                    match value {
                        Ok(Path(value)) => serve_ready(handler, route.cost, api, value, request).await,
                        Err(_) => labels::not_utf8(&path),
                    }
                },
            ),
            Serve::Ready(handler) => {
                on(methods(route.methods), move |State(api): State<Arc<Api>>, request: Request| {
                    serve_ready(handler, route.cost, api, String::new(), request)
                })
            }
        };
        let served = if route.path.starts_with("/api/v1/") {
            served.on(MethodFilter::OPTIONS, preflight)
        } else {
            served.on(MethodFilter::OPTIONS, || async { paths::only(route.methods, &Method::OPTIONS) })
        };
        router = router.route(route.path, served);
    }
    router.with_state(api)
}
