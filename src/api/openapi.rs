//! The interface described for programs: an OpenAPI document, generated from the table of routes.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::context::Api;
use super::routes::ROUTES;
use super::{params::Params, reply};

/// The document for one version of OpenAPI.
#[must_use]
pub fn text(version: &str, server_version: &str, prefix: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "openapi: {version}\ninfo:\n  title: Meerkat HTTP API\n  version: \"{server_version}\"\nservers:\n  - url: \"{}\"\npaths:\n",
        if prefix.is_empty() { "/" } else { prefix }
    );
    for route in ROUTES {
        let _ = writeln!(out, "  {}:", route.path);
        for method in route.methods {
            let _ = write!(
                out,
                "    {}:\n      summary: \"{}\"\n      operationId: \"{}\"\n",
                method.to_ascii_lowercase(),
                route.summary,
                operation_id(method, route.path)
            );
            if route.path.contains("{name}") {
                out.push_str("      parameters:\n        - name: name\n          in: path\n          required: true\n          schema: { type: string }\n");
            }
            out.push_str("      responses:\n        \"200\":\n          description: Success\n        default:\n          description: Error\n");
        }
    }
    out
}

fn operation_id(method: &str, path: &str) -> String {
    let words = path.trim_start_matches("/api/v1").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{}{words}", method.to_ascii_lowercase())
}

/// `/api/v1/openapi.yaml`
pub async fn document(api: Arc<Api>, request: Request) -> Response {
    let asked = Params::parse(b"", request.uri().query().unwrap_or(""));
    let asked = asked.map(|p| p.first("openapi_version").to_owned()).unwrap_or_default();
    let version = match asked.as_str() {
        "" | "3.1" | "3.1.0" => "3.1.0",
        "3.2" | "3.2.0" => "3.2.0",
        _ => return reply::text(StatusCode::BAD_REQUEST, "openapi_version must be 3.1 or 3.2\n"),
    };
    let mut response =
        reply::text(StatusCode::OK, text(version, api.build.version, &api.options.route_prefix));
    let kind = HeaderValue::from_static("application/yaml; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_well_formed_and_complete() {
        let text = super::text("3.1.0", "1", "");
        for route in super::ROUTES {
            assert!(text.contains(&format!("  {}:\n", route.path)), "{}", route.path);
        }
        assert!(!text.contains('\t'));
    }
}
