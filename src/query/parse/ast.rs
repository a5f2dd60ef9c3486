//! The tree of a PromQL expression. Every node carries its place in the text.

use std::sync::Arc;

use super::Span;
use crate::model::Matcher;

/// The four types of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number at each step.
    Scalar,
    /// A text; literals only.
    String,
    /// One sample per series at each step.
    Vector,
    /// A window of samples per series at each step.
    Matrix,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// `1.5`, `0x1f`, `5m` (300).
    Number(NumberLiteral),
    /// `"text"`.
    String(StringLiteral),
    /// `(expr)`.
    Paren(ParenExpr),
    /// `-expr`, `+expr`.
    Unary(UnaryExpr),
    /// `lhs op rhs`.
    Binary(BinaryExpr),
    /// `sum by (l) (expr)`.
    Aggregate(AggregateExpr),
    /// `rate(expr)`.
    Call(Call),
    /// `name{l="v"}`.
    Vector(VectorSelector),
    /// `name{l="v"}[5m]`.
    Matrix(MatrixSelector),
    /// `expr[1h:5m]`.
    Subquery(SubqueryExpr),
}

/// A number as written.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberLiteral {
    /// Value; durations in seconds.
    pub value: f64,
    /// Written as a duration; prints back as one.
    pub is_duration: bool,
    /// Place.
    pub span: Span,
}

/// A text.
#[derive(Debug, Clone, PartialEq)]
pub struct StringLiteral {
    /// The text with escapes resolved; bytes that are not UTF-8 are U+FFFD here.
    pub value: Arc<str>,
    /// All bytes, where they are not UTF-8: printing must give them back.
    pub bytes: Option<Arc<[u8]>>,
    /// Place.
    pub span: Span,
}

/// Parentheses.
#[derive(Debug, Clone, PartialEq)]
pub struct ParenExpr {
    /// What is inside.
    pub expr: Box<Expr>,
    /// Place, parentheses included.
    pub span: Span,
}

/// A sign.
#[derive(Debug, Clone, PartialEq)]
pub struct UnaryExpr {
    /// `-` rather than `+`.
    pub negative: bool,
    /// Operand.
    pub expr: Box<Expr>,
    /// Place.
    pub span: Span,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eql,
    /// `!=`
    Neq,
    /// `<`
    Lss,
    /// `>`
    Gtr,
    /// `<=`
    Lte,
    /// `>=`
    Gte,
    /// `</`: drop observations above
    TrimUpper,
    /// `>/`: drop observations below
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

/// How the sides of a vector operation pair up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchCardinality {
    /// One to one.
    OneToOne,
    /// Many to one (`group_left`).
    ManyToOne,
    /// One to many (`group_right`).
    OneToMany,
    /// Many to many (set operators).
    ManyToMany,
}

/// Matching clause of a binary operation between vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorMatching {
    /// Cardinality.
    pub cardinality: MatchCardinality,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<Arc<str>>,
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// Labels of `group_left` or `group_right`.
    pub include: Vec<Arc<str>>,
    /// `fill_left` value.
    pub fill_left: Option<f64>,
    /// `fill_right` value.
    pub fill_right: Option<f64>,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryExpr {
    /// Operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Box<Expr>,
    /// Right side.
    pub rhs: Box<Expr>,
    /// Matching; present when both sides are vectors.
    pub matching: Option<VectorMatching>,
    /// `bool` modifier.
    pub return_bool: bool,
    /// Place.
    pub span: Span,
}

impl BinaryExpr {
    /// The leftmost operand of a chain such as `a + b + c`, and the operations of the chain from the outermost
    /// (last) to the innermost (first). Walking a chain this way takes no stack.
    #[must_use]
    pub fn chain(&self) -> (&Expr, Vec<&BinaryExpr>) {
        let mut links = vec![self];
        let mut left = &*self.lhs;
        while let Expr::Binary(link) = left {
            links.push(link);
            left = &link.lhs;
        }
        (left, links)
    }
}

impl Drop for BinaryExpr {
    /// Takes chains apart link by link: thousands of nested drops would exhaust the stack.
    fn drop(&mut self) {
        let cut = |e: &mut BinaryExpr| {
            let leaf = NumberLiteral { value: 0.0, is_duration: false, span: Span::default() };
            std::mem::replace(&mut *e.lhs, Expr::Number(leaf))
        };
        if !matches!(*self.lhs, Expr::Binary(_)) {
            return;
        }
        let mut left = cut(self);
        while let Expr::Binary(link) = &mut left {
            let next = cut(link);
            left = next;
        }
    }
}

/// Aggregation operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `count`
    Count,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `quantile`
    Quantile,
    /// `count_values`
    CountValues,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateExpr {
    /// Operator.
    pub op: AggregateOp,
    /// Aggregated expression.
    pub expr: Box<Expr>,
    /// Parameter of `topk`, `quantile`, `count_values`, ….
    pub param: Option<Box<Expr>>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<Arc<str>>,
    /// `without` rather than `by`.
    pub without: bool,
    /// Place.
    pub span: Span,
}

/// A function call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Function name; known to the function table.
    pub func: &'static str,
    /// Arguments.
    pub args: Vec<Expr>,
    /// Place.
    pub span: Span,
}

/// `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtModifier {
    /// `@ 1234.5`, milliseconds.
    Timestamp(i64),
    /// `@ start()`.
    Start,
    /// `@ end()`.
    End,
}

/// A duration in a range, offset or subquery: a constant, or an expression resolved when a query starts.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationValue {
    /// Milliseconds, negative in offsets only.
    Constant(i64),
    /// `5m + step()` and the like.
    Expr(Box<DurationExpr>),
}

/// Arithmetic of durations; every leaf counts in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    /// A number or duration literal.
    Number(NumberLiteral),
    /// `step()`.
    Step(Span),
    /// `range()`.
    Range(Span),
    /// A sign: `true` = minus.
    Unary(bool, Box<DurationExpr>, Span),
    /// Arithmetic; only `+ - * / % ^`.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `min_of(a, b)`.
    MinOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// `max_of(a, b)`.
    MaxOf(Box<DurationExpr>, Box<DurationExpr>, Span),
    /// Parentheses.
    Paren(Box<DurationExpr>, Span),
}

/// Postfix of an extended selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RangeExtension {
    /// None.
    #[default]
    None,
    /// `anchored`.
    Anchored,
    /// `smoothed`.
    Smoothed,
}

/// An instant vector selector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// Metric name written outside the braces.
    pub name: Option<Arc<str>>,
    /// All conditions, that on the name included.
    pub matchers: Vec<Matcher>,
    /// Offset; positive looks back.
    pub offset: Option<DurationValue>,
    /// `@` modifier.
    pub at: Option<AtModifier>,
    /// `smoothed` or, inside a range, `anchored`.
    pub extension: RangeExtension,
    /// Place.
    pub span: Span,
}

/// A range vector selector.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    /// The series, with offset and `@`.
    pub selector: VectorSelector,
    /// Length of the window.
    pub range: DurationValue,
    /// Place.
    pub span: Span,
}

/// A subquery.
#[derive(Debug, Clone, PartialEq)]
pub struct SubqueryExpr {
    /// What is evaluated at each point.
    pub expr: Box<Expr>,
    /// Length of the window.
    pub range: DurationValue,
    /// Distance of the points; `None` takes the engine's default.
    pub step: Option<DurationValue>,
    /// Offset; positive looks back.
    pub offset: Option<DurationValue>,
    /// `@` modifier.
    pub at: Option<AtModifier>,
    /// Place.
    pub span: Span,
}

impl Expr {
    /// Place in the text.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(e) => e.span,
            Expr::String(e) => e.span,
            Expr::Paren(e) => e.span,
            Expr::Unary(e) => e.span,
            Expr::Binary(e) => e.span,
            Expr::Aggregate(e) => e.span,
            Expr::Call(e) => e.span,
            Expr::Vector(e) => e.span,
            Expr::Matrix(e) => e.span,
            Expr::Subquery(e) => e.span,
        }
    }
}

impl DurationExpr {
    /// Place in the text.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            DurationExpr::Number(literal) => literal.span,
            DurationExpr::Step(span)
            | DurationExpr::Range(span)
            | DurationExpr::Unary(_, _, span)
            | DurationExpr::Binary(_, _, _, span)
            | DurationExpr::MinOf(_, _, span)
            | DurationExpr::MaxOf(_, _, span)
            | DurationExpr::Paren(_, span) => *span,
        }
    }
}

impl Expr {
    /// The type of the value; calls of unknown functions count as vectors.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Paren(e) => e.expr.value_type(),
            Expr::Unary(e) => e.expr.value_type(),
            Expr::Binary(e) => {
                // Looking left first and stopping there keeps long chains of operators linear.
                if e.lhs.value_type() == ValueType::Scalar && e.rhs.value_type() == ValueType::Scalar {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            Expr::Call(e) => super::functions::function(e.func).map_or(ValueType::Vector, |f| f.returns),
            Expr::Aggregate(_) | Expr::Vector(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
        }
    }
}

impl ValueType {
    /// The name in messages for people.
    #[must_use]
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }
}

impl BinaryOp {
    /// The operator as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eql => "==",
            BinaryOp::Neq => "!=",
            BinaryOp::Lss => "<",
            BinaryOp::Gtr => ">",
            BinaryOp::Lte => "<=",
            BinaryOp::Gte => ">=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// Whether this is one of `== != < > <= >=`.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eql, Gte, Gtr, Lss, Lte, Neq};
        matches!(self, Eql | Neq | Lss | Gtr | Lte | Gte)
    }

    /// Whether this is `and`, `or` or `unless`.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

impl AggregateOp {
    /// The operator as written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Count => "count",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Quantile => "quantile",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// Whether the first argument is a parameter.
    #[must_use]
    pub fn takes_parameter(self) -> bool {
        use AggregateOp::{Bottomk, CountValues, LimitRatio, Limitk, Quantile, Topk};
        matches!(self, Topk | Bottomk | Quantile | CountValues | Limitk | LimitRatio)
    }

    /// Whether the feature `promql-experimental-functions` must be on.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}
