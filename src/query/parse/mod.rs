//! From text to a typed tree with positions.

/// The tree.
pub mod ast;

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
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
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
