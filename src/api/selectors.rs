//! Which series do `match[]` and exemplar queries mean? Texts become matcher sets through PromQL's own parser.

use super::error::ApiError;
use super::params::Params;
use crate::model::Matcher;
use crate::query::EngineOptions;
use crate::query::parse::ast::Expr;
use crate::query::parse::{ParseError, ParseOptions, parse_expr, parse_metric_selector};

/// What the grammar allows under these engine settings.
#[must_use]
pub fn parse_options(options: &EngineOptions) -> ParseOptions {
    ParseOptions {
        experimental_functions: options.experimental_functions,
        extended_range_selectors: options.extended_range_selectors,
        fill_modifiers: options.fill_modifiers,
    }
}

/// The children of a node, left to right.
#[must_use]
pub fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => Vec::new(),
        Expr::Paren(e) => vec![&e.expr],
        Expr::Unary(e) => vec![&e.expr],
        Expr::Binary(e) => vec![&e.lhs, &e.rhs],
        Expr::Aggregate(e) => e.param.as_deref().into_iter().chain([&*e.expr]).collect(),
        Expr::Call(e) => e.args.iter().collect(),
        Expr::Subquery(e) => vec![&e.expr],
    }
}

/// The matcher sets of all selectors inside an expression.
pub fn of_expression(options: &EngineOptions, text: &str) -> Result<Vec<Vec<Matcher>>, ParseError> {
    let root = parse_expr(text, &parse_options(options))?;
    let mut sets = Vec::new();
    let mut pending = vec![&root];
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::Vector(selector) => sets.push(selector.matchers.clone()),
            Expr::Matrix(matrix) => sets.push(matrix.selector.matchers.clone()),
            other => pending.extend(children(other)),
        }
    }
    Ok(sets)
}

fn sets_of(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    params
        .all("match[]")
        .map(|text| {
            let matchers = parse_metric_selector(text).map_err(|e| e.to_string())?;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err("match[] must contain at least one non-empty matcher".into());
            }
            Ok(matchers)
        })
        .collect()
}

/// The matcher sets of all `match[]` parameters; each needs a matcher that the empty text does not satisfy.
pub fn of_params(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    sets_of(params).map_err(|e| ApiError::parameter("match[]", e))
}

/// The same for federation, where any selector goes.
pub fn of_federation(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params.require_sound()?;
    let parse = |text| parse_metric_selector(text).map_err(|e| ApiError::bad_data(e.to_string()));
    params.all("match[]").map(parse).collect()
}

/// The same for deletion: `{}` means everything.
pub fn of_deletion(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let parse = |text| parse_metric_selector(text).map_err(|e| ApiError::parameter("match[]", e));
    params.all("match[]").map(parse).collect()
}

/// The same for labels, their values and rules, where Prometheus does not name the parameter in its errors.
pub fn of_label_params(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    sets_of(params).map_err(ApiError::bad_data)
}
