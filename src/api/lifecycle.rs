//! Is the process alive, ready, what is it, and how is it told to reload or stop?

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::oneshot;

use super::context::{Api, BuildInfo, Command};
use super::json::Object;
use super::reply;

/// `/-/healthy`
pub async fn healthy(_api: Arc<Api>, request: Request) -> Response {
    let body = if request.method() == Method::HEAD { "" } else { "Prometheus Server is Healthy.\n" };
    reply::text(StatusCode::OK, body)
}

/// `/-/ready`
pub async fn ready(api: Arc<Api>, request: Request) -> Response {
    if api.ready_services().is_none() {
        return super::routes::not_ready(&api);
    }
    let body = if request.method() == Method::HEAD { "" } else { "Prometheus Server is Ready.\n" };
    reply::text(StatusCode::OK, body)
}

fn lifecycle_off() -> Response {
    reply::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled.")
}

/// `/-/reload`
pub async fn reload(api: Arc<Api>, _request: Request) -> Response {
    if !api.options.lifecycle {
        return lifecycle_off();
    }
    let (done, outcome) = oneshot::channel();
    if api.commands.send(Command::Reload(done)).await.is_err() {
        return reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed to reload config: the server is stopping\n",
        );
    }
    match outcome.await {
        Ok(Ok(())) => reply::text(StatusCode::OK, ""),
        Ok(Err(error)) => {
            reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {error}\n"))
        }
        Err(_) => reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed to reload config: the server is stopping\n",
        ),
    }
}

/// `/-/quit`
pub async fn quit(api: Arc<Api>, _request: Request) -> Response {
    if !api.options.lifecycle {
        return lifecycle_off();
    }
    // A full or closed channel means that the process is stopping already.
    let _ = api.commands.try_send(Command::Quit);
    reply::text(StatusCode::OK, "Requesting termination... Goodbye!")
}

/// `/metrics`
pub async fn metrics(api: Arc<Api>, _request: Request) -> Response {
    let rendered = tokio::task::spawn_blocking(move || api.pages.get(|| api.registry.render_text())).await;
    let Ok(rendered) = rendered else {
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, "collecting metrics failed\n");
    };
    let mut response = Response::new(Body::from(rendered));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Writes the build information as an object.
pub fn write_build_info(build: &BuildInfo, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object
        .text("version", build.version)
        .text("revision", build.revision)
        .text("branch", build.branch)
        .text("buildUser", build.user)
        .text("buildDate", build.date)
        .text("goVersion", build.compiler);
    object.close();
}

/// `/version`, which is JSON but does not say so.
pub async fn version(api: Arc<Api>, _request: Request) -> Response {
    let mut body = Vec::new();
    write_build_info(&api.build, &mut body);
    body.push(b'\n');
    reply::text(StatusCode::OK, String::from_utf8_lossy(&body))
}
