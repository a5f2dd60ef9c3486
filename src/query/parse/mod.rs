//! From text to a typed tree with positions.
//!
//! `lexer` cuts the text into tokens, `parser` and `selector` build the tree, `check` verifies its types;
//! `print` and `pretty` turn a tree back into text. Size, nesting and height are limited, so that no query can
//! exhaust the stack: printing and dropping take chains of operators iteratively, other walkers of a high tree
//! run on a large stack (`query::stack`).

/// The tree.
pub mod ast;
mod check;
/// The table of functions.
pub mod functions;
mod lexer;
mod parser;
mod pretty;
mod print;
mod selector;
/// The notation of series in test scripts.
pub mod series;
mod strings;
#[cfg(test)]
mod tests;

use ast::Expr;
pub use functions::{FUNCTIONS, Function, function};
pub use pretty::pretty;
pub use strings::{is_label_name, unquote};

use super::stack::{is_high, on_large_stack};
use crate::model::Matcher;

/// Longest query in bytes.
pub const MAX_QUERY_BYTES: usize = 1 << 20;
/// Deepest nesting of parentheses, calls, signs and right-hand sides.
pub const MAX_NESTING: u32 = 100;
/// Highest tree, chains of operators (`a or b or c …`) included.
pub const MAX_TREE_HEIGHT: u32 = 4_000;

/// A place in a query: byte offsets, start included, end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Why a text is not PromQL. Prints as Prometheus does: `1:5: parse error: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: parse error: {message}", position(*.line, *.column))]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Line, from 1; 0 in an empty text, which has no positions.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
}

fn position(line: u32, column: u32) -> String {
    if line == 0 { "unknown position".into() } else { format!("{line}:{column}") }
}

/// What the grammar allows beyond the stable language.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParseOptions {
    /// Feature `promql-experimental-functions`.
    pub experimental_functions: bool,
    /// Feature `promql-extended-range-selectors`.
    pub extended_range_selectors: bool,
    /// Feature `promql-binop-fill-modifiers`.
    pub fill_modifiers: bool,
}

/// Parses and checks a query. The error is the first one that Prometheus would report.
pub fn parse_expr(text: &str, options: &ParseOptions) -> Result<Expr, ParseError> {
    let (mut expr, semantic) = parser::Parser::new(text, options)?.whole()?;
    if let Some(error) = semantic {
        return Err(error);
    }
    if is_high(&expr) {
        on_large_stack(|| check::check(text, &mut expr)).map_err(|e| {
            parser::error_at(text, Span::default(), format!("checking a long expression: {e}"))
        })??;
    } else {
        check::check(text, &mut expr)?;
    }
    Ok(expr)
}

/// Parses a selector such as a `match[]` parameter: its matchers, the one on the name last if it stands before
/// the braces. Unlike a query it may match everything (`{}`); where that is not wanted, the caller checks.
pub fn parse_metric_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let options = ParseOptions::default();
    Ok(parser::Parser::new(text, &options)?.whole_selector()?.matchers)
}
