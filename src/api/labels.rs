//! The metadata endpoints: series, label names, label values.

use axum::response::{IntoResponse, Response};
use http::Method;

use super::error::ApiError;
use super::params::{MAX_TIME_MS, MIN_TIME_MS, Params};
use super::query::{TRUNCATED, series_of};
use super::reply::stream_json;
use super::routes::Call;
use super::{json, selectors};
use crate::model::Matcher;
use crate::model::labels::{quoted, write_quoted_bytes};
use crate::query::CancelToken;
use crate::tsdb::{LabelQueryHints, Querier, StorageError};

struct Window {
    sets: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
    limit: usize,
}

impl Window {
    fn parse(
        call: &Call,
        sets: impl FnOnce(&Params) -> Result<Vec<Vec<Matcher>>, ApiError>,
    ) -> Result<Self, ApiError> {
        let limit = call.params.limit("limit")?;
        let start_ms = call.params.time("start", MIN_TIME_MS)?;
        let end_ms = call.params.time("end", MAX_TIME_MS)?;
        let sets = sets(&call.params)?;
        Ok(Self { sets, start_ms, end_ms, limit })
    }

    /// Asks for each matcher set, or once without any, and merges the sorted answers.
    fn collect(
        &self,
        services: &super::context::Services,
        ask: impl Fn(&dyn Querier, &[Matcher], &LabelQueryHints) -> Result<Vec<String>, StorageError>,
    ) -> Result<(Vec<String>, Vec<String>), ApiError> {
        let querier = services.queryable.querier(self.start_ms, self.end_ms)?;
        let hints = LabelQueryHints { limit: if self.limit > 0 { self.limit + 1 } else { 0 } };
        let mut all = Vec::new();
        if self.sets.is_empty() {
            all = ask(&*querier, &[], &hints)?;
        }
        for matchers in &self.sets {
            all.append(&mut ask(&*querier, matchers, &hints)?);
        }
        if self.sets.len() > 1 {
            all.sort_unstable();
            all.dedup();
        }
        let mut warnings = Vec::new();
        if self.limit > 0 && all.len() > self.limit {
            all.truncate(self.limit);
            warnings.push(TRUNCATED.to_owned());
        }
        Ok((all, warnings))
    }
}

/// `/api/v1/series`
pub async fn series(call: Call) -> Response {
    if call.method == Method::DELETE {
        return ApiError::internal("not implemented").into_response();
    }
    if let Err(error) = call.params.require_sound() {
        return error.into_response();
    }
    if call.params.all("match[]").next().is_none() {
        return ApiError::bad_data("no match[] parameter provided").into_response();
    }
    let window = match Window::parse(&call, selectors::of_params) {
        Ok(window) => window,
        Err(error) => return error.into_response(),
    };
    stream_json(CancelToken::default(), move |out| {
        let (all, warnings) =
            series_of(&call.services, &window.sets, window.start_ms, window.end_ms, window.limit)?;
        out.success(&warnings, &[], |out| {
            out.raw("[");
            for (i, labels) in all.iter().enumerate() {
                if i > 0 {
                    out.raw(",");
                }
                json::labels(&mut out.buf, labels);
                out.flush_if_full();
            }
            out.raw("]");
        });
        Ok(())
    })
    .await
}

fn write_strings(out: &mut super::reply::Out, all: &[String], warnings: &[String]) {
    out.success(warnings, &[], |out| {
        out.raw("[");
        for (i, text) in all.iter().enumerate() {
            if i > 0 {
                out.raw(",");
            }
            json::string(&mut out.buf, text);
            out.flush_if_full();
        }
        out.raw("]");
    });
}

/// `/api/v1/labels`
pub async fn names(call: Call) -> Response {
    let window = match Window::parse(&call, selectors::of_label_params) {
        Ok(window) => window,
        Err(error) => return error.into_response(),
    };
    stream_json(CancelToken::default(), move |out| {
        let (all, warnings) = window
            .collect(&call.services, |querier, matchers, hints| querier.label_names(matchers, hints))?;
        write_strings(out, &all, &warnings);
        Ok(())
    })
    .await
}

/// `/api/v1/label/{name}/values`
pub async fn values(call: Call) -> Response {
    let name = unescape_name(&call.path_value);
    if name.is_empty() {
        return ApiError::bad_data(format!("invalid label name: {}", quoted(&name))).into_response();
    }
    let window = match Window::parse(&call, selectors::of_label_params) {
        Ok(window) => window,
        Err(error) => return error.into_response(),
    };
    stream_json(CancelToken::default(), move |out| {
        let (all, warnings) = window.collect(&call.services, |querier, matchers, hints| {
            querier.label_values(&name, matchers, hints)
        })?;
        write_strings(out, &all, &warnings);
        Ok(())
    })
    .await
}

/// The answer for a name in a path whose escapes are not UTF-8.
pub fn not_utf8(path: &str) -> Response {
    let name = path.rsplit('/').nth(1).unwrap_or_default();
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    let mut text = "invalid label name: ".to_owned();
    // Writing to a string cannot fail.
    let _ = write_quoted_bytes(&mut text, &bytes);
    ApiError::bad_data(text).into_response()
}

/// Undoes the `U__` escaping of names in paths: `__` is an underscore, `_2e_` the character U+002E. A name that is
/// not escaped, or not well, stays as it is.
#[must_use]
pub fn unescape_name(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::with_capacity(rest.len());
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '_' {
            out.push(c);
            continue;
        }
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let Some((hex, after)) = rest.split_once('_') else { return name.to_owned() };
        let plain_hex =
            hex.len() <= 6 && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        match u32::from_str_radix(hex, 16).ok().and_then(char::from_u32) {
            Some(c) if plain_hex => out.push(c),
            _ => return name.to_owned(),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn undoes_escaping() {
        for (escaped, want) in [
            ("job", "job"),
            ("U__my_2e_label", "my.label"),
            ("U__a__b", "a_b"),
            ("U__", ""),
            ("U___20ac_", "€"),
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_2e", "U__a_2e"),
            ("U__a_D800_", "U__a_D800_"),
        ] {
            assert_eq!(unescape_name(escaped), want);
        }
    }
}
