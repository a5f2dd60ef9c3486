//! Which paths are there, and what do they need? One table: the router, the handler labels of self-metrics and the
//! OpenAPI document come from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::context::{Api, Services};
use super::error::{ApiError, ErrorKind};
use super::params::{MAX_FORM_BYTES, Params};
use super::{
    admin, features, federate, labels, lifecycle, live, openapi, otlp, query, read, reply, rule_history,
    rules, silences, status, targets, write,
};

/// A request as handlers of the table see it.
pub struct Call {
    /// Shared parts.
    pub api: Arc<Api>,
    /// Parts that depend on storage.
    pub services: Arc<Services>,
    /// URL and form parameters.
    pub params: Params,
    /// What the `{…}` of the path stood for.
    pub path_value: String,
    /// Method.
    pub method: Method,
    /// Headers.
    pub headers: HeaderMap,
    /// Whom the connection comes from.
    pub peer: Option<std::net::SocketAddr>,
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

const GET: &[&str] = &["GET"];
const GET_POST: &[&str] = &["GET", "POST"];
const POST: &[&str] = &["POST"];
const POST_PUT: &[&str] = &["POST", "PUT"];

const fn route(
    path: &'static str,
    methods: &'static [&'static str],
    serve: Serve,
    summary: &'static str,
) -> Route {
    Route { path, methods, serve, summary }
}

/// All routes but those of the user interface.
pub const ROUTES: &[Route] = &[
    route("/api/v1/query", GET_POST, ready!(query::instant), "Evaluate an instant query"),
    route("/api/v1/query_range", GET_POST, ready!(query::range), "Evaluate a range query"),
    route(
        "/api/v1/query_exemplars",
        GET_POST,
        ready!(query::exemplars),
        "Find exemplars of the series in a query",
    ),
    route("/api/v1/explain", GET_POST, ready!(query::explain), "Show what the parts of a query cost"),
    route("/api/v1/format_query", GET_POST, ready!(query::format), "Format a query"),
    route("/api/v1/parse_query", GET_POST, ready!(query::parse), "Parse a query into its tree"),
    route("/api/v1/series", GET_POST, ready!(labels::series), "Find series by label matchers"),
    route("/api/v1/labels", GET_POST, ready!(labels::names), "List label names"),
    route("/api/v1/label/{name}/values", GET, ready!(labels::values), "List values of a label"),
    route("/api/v1/metadata", GET, ready!(targets::metadata), "Metadata of metrics"),
    route("/api/v1/targets", GET, ready!(targets::targets), "Targets, active and dropped"),
    route("/api/v1/targets/metadata", GET, ready!(targets::target_metadata), "Metadata of metrics by target"),
    route(
        "/api/v1/targets/relabel_steps",
        GET,
        ready!(targets::relabel_steps),
        "Relabelling of a target, rule by rule",
    ),
    route("/api/v1/scrape_pools", GET, ready!(targets::scrape_pools), "Names of scrape jobs"),
    route(
        "/api/v1/scrape_pools/config",
        GET,
        ready!(targets::scrape_pool_config),
        "Configuration of a scrape job",
    ),
    route("/api/v1/rules", GET, ready!(rules::rules), "Rules with their state"),
    route(
        "/api/v1/rules/backtest",
        GET_POST,
        ready!(rule_history::backtest),
        "When an alert would have been pending and firing",
    ),
    route("/api/v1/alerts", GET, ready!(rules::alerts), "Active alerts"),
    route("/api/v1/alertmanagers", GET, ready!(rules::alertmanagers), "Alertmanagers, active and dropped"),
    route(
        "/api/v1/alertmanagers/silences",
        GET_POST,
        ready!(silences::silences),
        "Silences of the configured Alertmanagers; POST adds one",
    ),
    route("/api/v1/alertmanagers/silences/expire", POST, ready!(silences::expire), "End a silence"),
    route("/api/v1/status/config", GET, ready!(status::config), "The running configuration"),
    route(
        "/api/v1/status/config/disk",
        GET,
        ready!(status::config_on_disk),
        "The configuration as its file stands now",
    ),
    route("/api/v1/status/flags", GET, ready!(status::flags), "Flags and their values"),
    route("/api/v1/status/buildinfo", GET, ready!(status::build_info), "What this program is"),
    route("/api/v1/status/runtimeinfo", GET, ready!(status::runtime_info), "How this process is"),
    route("/api/v1/status/tsdb", GET, ready!(status::tsdb), "Statistics of storage"),
    route("/api/v1/status/tsdb/blocks", GET, ready!(status::blocks), "Blocks of storage"),
    route("/api/v1/status/walreplay", GET, always!(status::wal_replay), "Progress of replaying the log"),
    route("/api/v1/features", GET, ready!(features::features), "Capabilities of this server"),
    route("/api/v1/notifications", GET, always!(live::list), "Messages for the user interface"),
    route(
        "/api/v1/notifications/live",
        GET,
        always!(live::live),
        "Messages for the user interface as they come",
    ),
    route("/api/v1/openapi.yaml", GET, always!(openapi::document), "This interface as an OpenAPI document"),
    route("/api/v1/read", POST, ready!(read::read), "Answer remote read"),
    route("/api/v1/otlp/v1/metrics", POST, ready!(otlp::metrics), "Receive metrics of OpenTelemetry"),
    route("/api/v1/write", POST, ready!(write::write), "Receive remote write"),
    route("/api/v1/admin/tsdb/snapshot", POST_PUT, ready!(admin::snapshot), "Take a snapshot of storage"),
    route("/api/v1/admin/tsdb/delete_series", POST_PUT, ready!(admin::delete_series), "Delete series"),
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
    route("/federate", GET, ready!(federate::federate), "Newest samples in the text format"),
    route("/-/healthy", GET, always!(lifecycle::healthy), "Whether the process lives"),
    route("/-/ready", GET, always!(lifecycle::ready), "Whether queries are served"),
    route("/-/reload", POST_PUT, always!(lifecycle::reload), "Load the configuration again"),
    route("/-/quit", POST_PUT, always!(lifecycle::quit), "Stop the process"),
    route("/metrics", GET, always!(lifecycle::metrics), "Metrics of this process"),
    route("/version", GET, always!(lifecycle::version), "What this program is"),
];

/// Paths of the API proper.
#[must_use]
pub fn api_paths() -> Vec<&'static str> {
    ROUTES.iter().map(|r| r.path).filter(|p| p.starts_with("/api/v1/")).collect()
}

/// The answer of ready-only routes while the process starts or stops.
pub fn not_ready(api: &Api) -> Response {
    let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    let stopping = HeaderValue::from_static(if api.is_stopping() { "true" } else { "false" });
    response.headers_mut().insert("X-Prometheus-Stopping", stopping);
    response
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| {
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
    let (form, body) = if is_form(&parts.headers) && parts.method != Method::GET {
        let bytes = axum::body::to_bytes(body, MAX_FORM_BYTES)
            .await
            .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
        (bytes, Body::empty())
    } else {
        (bytes::Bytes::new(), body)
    };
    let params = Params::parse(&form, parts.uri.query().unwrap_or(""))?;
    Ok(Call { api, services, params, path_value, method: parts.method, headers: parts.headers, peer, body })
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

async fn serve_ready(handler: Handler, api: Arc<Api>, path_value: String, request: Request) -> Response {
    let Some(services) = api.ready_services() else { return not_ready(&api) };
    if api.options.agent && needs_queries(request.uri().path()) {
        return ApiError::new(ErrorKind::Execution, "unavailable with Prometheus Agent").into_response();
    }
    match read_call(api, services, path_value, request).await {
        Ok(call) => handler(call).await,
        Err(error) => error.into_response(),
    }
}

fn methods(names: &[&str]) -> MethodFilter {
    let one = |name: &str| match name {
        "POST" => MethodFilter::POST,
        "PUT" => MethodFilter::PUT,
        "DELETE" => MethodFilter::DELETE,
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
                move |State(api): State<Arc<Api>>, Path(value): Path<String>, request: Request| {
                    serve_ready(handler, api, value, request)
                },
            ),
            Serve::Ready(handler) => {
                on(methods(route.methods), move |State(api): State<Arc<Api>>, request: Request| {
                    serve_ready(handler, api, String::new(), request)
                })
            }
        };
        let served = if route.path.starts_with("/api/v1/") {
            served.on(MethodFilter::OPTIONS, preflight)
        } else {
            served
        };
        router = router.route(route.path, served);
    }
    router.with_state(api)
}
