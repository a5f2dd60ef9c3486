//! Selectors and what follows them: matchers, `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`.

use std::sync::Arc;

use super::ast::{
    AtModifier, BinaryOp, DurationExpr, DurationValue, Expr, MatrixSelector, NumberLiteral, RangeExtension,
    SubqueryExpr, VectorSelector,
};
use super::lexer::{Tok, Token, Word};
use super::parser::{Node, Parsed, Parser};
use super::{ParseError, Span};
use crate::model::labels::quoted;
use crate::model::{METRIC_NAME, MatchOp, Matcher};

const DURATION_STARTS: &str = "number, duration, step(), or range()";
const STEP_STARTS: &str = "number, duration, step(), range(), or \"]\"";
/// Prometheus counts nanoseconds in 64 bits.
const MAX_SECONDS: f64 = (i64::MAX / 1_000_000_000) as f64;

impl Parser<'_> {
    /// `name{matchers}`, `name` or `{matchers}`.
    pub(super) fn vector_selector(&mut self) -> Parsed<Node> {
        let selector = self.bare_selector()?;
        Ok((Expr::Vector(selector), 1))
    }

    pub(super) fn bare_selector(&mut self) -> Parsed<VectorSelector> {
        let first = self.peek();
        let mut name: Option<Arc<str>> = None;
        if first.kind != Tok::LeftBrace {
            self.next();
            name = Some(self.written(first.span).into());
        }
        let mut matchers = Vec::new();
        if self.accept(Tok::LeftBrace).is_some() {
            matchers = self.matchers()?;
        }
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        let span = Span { start: first.span.start, end: self.last_end() };
        Ok(VectorSelector { name, matchers, offset: None, at: None, extension: RangeExtension::None, span })
    }

    /// The matchers up to and with the closing brace.
    fn matchers(&mut self) -> Parsed<Vec<Matcher>> {
        const CONTEXT: &str = "label matching";
        let mut matchers = Vec::new();
        loop {
            let token = self.next_in(CONTEXT, "identifier or \"}\"", |kind| {
                matches!(kind, Tok::RightBrace | Tok::Ident | Tok::Str)
            })?;
            let name = match token.kind {
                Tok::RightBrace => return Ok(matchers),
                Tok::Str => self.unquoted(token),
                _ => self.written(token.span).to_owned(),
            };
            let op = match self.peek().kind {
                Tok::Equal => Some(MatchOp::Equal),
                Tok::Op(BinaryOp::Neq) => Some(MatchOp::NotEqual),
                Tok::EqualRegex => Some(MatchOp::Regex),
                Tok::NotRegex => Some(MatchOp::NotRegex),
                _ => None,
            };
            match op {
                Some(op) => {
                    self.next();
                    let value = self.next_in(CONTEXT, "string", |kind| kind == Tok::Str)?;
                    let text = self.unquoted(value);
                    match Matcher::new(&name, op, &text) {
                        Ok(matcher) => matchers.push(matcher),
                        Err(e) => {
                            let span = Span { start: token.span.start, end: value.span.end };
                            self.note(span, e.to_string());
                        }
                    }
                }
                None if token.kind == Tok::Str => matchers.push(Matcher::equal(METRIC_NAME, &name)),
                None => return Err(self.unexpected(CONTEXT, "label matching operator")),
            }
            if self.accept(Tok::Comma).is_none() && self.peek().kind != Tok::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
    }

    fn next_in(&mut self, context: &str, expected: &str, fits: impl Fn(Tok) -> bool) -> Parsed<Token> {
        if fits(self.peek().kind) { Ok(self.next()) } else { Err(self.unexpected(context, expected)) }
    }

    /// Applies everything that may follow an operand.
    pub(super) fn postfix(&mut self, mut node: Node) -> Parsed<Node> {
        loop {
            match self.peek().kind {
                Tok::LeftBracket => node = self.range_or_subquery(node)?,
                Tok::Word(Word::Offset) => self.offset(&mut node.0)?,
                Tok::At => self.at(&mut node.0)?,
                Tok::Word(Word::Anchored) => self.extension(&mut node.0, RangeExtension::Anchored),
                Tok::Word(Word::Smoothed) => self.extension(&mut node.0, RangeExtension::Smoothed),
                _ => return Ok(node),
            }
        }
    }

    fn range_or_subquery(&mut self, (expr, height): Node) -> Parsed<Node> {
        let open = self.next().span;
        let range = self.window("subquery or range selector", DURATION_STARTS)?;
        if self.accept(Tok::Colon).is_some() {
            let mut step = None;
            if self.peek().kind != Tok::RightBracket {
                step = Some(self.window("subquery selector", STEP_STARTS)?);
            }
            if self.accept(Tok::RightBracket).is_none() {
                return Err(self.unexpected("subquery selector", "\"]\""));
            }
            let height = self.grown(height)?;
            let span = Span { start: expr.span().start, end: self.last_end() };
            let expr = Box::new(expr);
            return Ok((
                Expr::Subquery(SubqueryExpr { expr, range, step, offset: None, at: None, span }),
                height,
            ));
        }
        if self.accept(Tok::RightBracket).is_none() {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let brackets = Span { start: open.start, end: self.last_end() };
        let selector = match expr {
            Expr::Vector(selector) if selector.offset.is_some() => {
                self.note(brackets, "no offset modifiers allowed before range");
                selector
            }
            Expr::Vector(selector) if selector.at.is_some() => {
                self.note(brackets, "no @ modifiers allowed before range");
                selector
            }
            Expr::Vector(selector) => selector,
            other => {
                self.note(brackets, "ranges only allowed for vector selectors");
                return Ok((other, height));
            }
        };
        let span = Span { start: selector.span.start, end: brackets.end };
        Ok((Expr::Matrix(MatrixSelector { selector, range, span }), height))
    }

    /// A range or step: positive where that is known now.
    fn window(&mut self, context: &str, expected: &str) -> Parsed<DurationValue> {
        let expr = self.duration_expr(0, context, expected)?;
        let span = expr.span();
        Ok(match self.constant(&expr) {
            Some(ms) => {
                let positive = matches!(&expr, DurationExpr::Number(n) if n.value > 0.0);
                if !positive {
                    self.note(span, "duration must be greater than 0");
                }
                DurationValue::Constant(ms)
            }
            None => DurationValue::Expr(Box::new(expr)),
        })
    }

    /// The milliseconds of a plain literal, cut off below a millisecond.
    fn constant(&mut self, expr: &DurationExpr) -> Option<i64> {
        let literal = match expr {
            DurationExpr::Number(literal) => literal,
            DurationExpr::Paren(inner, _) => return self.constant(inner),
            _ => return None,
        };

        if literal.value.is_nan() || literal.value.abs() > MAX_SECONDS {
            self.note(literal.span, "duration out of range");
            return Some(0);
        }
        Some((literal.value * 1e9).round() as i64 / 1_000_000)
    }

    /// Duration arithmetic with operators that bind at least as tightly as `min`.
    fn duration_expr(&mut self, min: u8, context: &str, expected: &str) -> Parsed<DurationExpr> {
        self.enter()?;
        let mut left = self.duration_operand(context, expected)?;
        let mut links = 0;
        while let Tok::Op(op) = self.peek().kind {
            let binds = match op {
                BinaryOp::Add | BinaryOp::Sub => 1,
                BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => 2,
                BinaryOp::Pow => 3,
                _ => break,
            };
            if binds < min {
                break;
            }
            self.next();
            // A chain makes the tree higher as nesting does, so each link costs a level.
            self.enter()?;
            links += 1;
            let right = self.duration_expr(if binds == 3 { 3 } else { binds + 1 }, context, expected)?;
            let span = Span { start: left.span().start, end: right.span().end };
            left = DurationExpr::Binary(op, Box::new(left), Box::new(right), span);
        }
        for _ in 0..=links {
            self.leave();
        }
        Ok(left)
    }

    fn duration_operand(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let token = self.peek();
        let negative = match token.kind {
            Tok::Op(BinaryOp::Sub) => true,
            Tok::Op(BinaryOp::Add) => false,
            _ => return self.duration_primary(context, expected),
        };
        self.next();
        let operand = self.duration_expr(3, context, expected)?;
        Ok(signed(negative, operand, token.span.start))
    }

    fn duration_primary(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let token = self.peek();
        match token.kind {
            Tok::Number | Tok::Duration => Ok(DurationExpr::Number(self.number_literal()?)),
            Tok::LeftParen => {
                self.next();
                let inner = self.duration_expr(0, context, expected)?;
                let Some(close) = self.accept(Tok::RightParen) else {
                    return Err(self.unexpected(context, expected));
                };
                let span = Span { start: token.span.start, end: close.span.end };
                Ok(match inner {
                    // A bare literal needs no parentheses, unless its sign would go astray in printing.
                    DurationExpr::Number(literal) if literal.value >= 0.0 => DurationExpr::Number(literal),
                    DurationExpr::Paren(inner, _) => DurationExpr::Paren(inner, span),
                    inner => DurationExpr::Paren(Box::new(inner), span),
                })
            }
            Tok::Word(word @ (Word::Step | Word::Range)) => {
                self.next();
                for kind in [Tok::LeftParen, Tok::RightParen] {
                    if self.accept(kind).is_none() {
                        return Err(self.unexpected(context, expected));
                    }
                }
                let span = Span { start: token.span.start, end: self.last_end() };
                Ok(if word == Word::Step { DurationExpr::Step(span) } else { DurationExpr::Range(span) })
            }
            Tok::Word(word @ (Word::MinOf | Word::MaxOf)) => {
                self.next();
                let wrong = |parser: &Self| -> ParseError { parser.unexpected(context, expected) };
                self.accept(Tok::LeftParen).ok_or_else(|| wrong(self))?;
                let a = Box::new(self.duration_expr(0, context, expected)?);
                self.accept(Tok::Comma).ok_or_else(|| wrong(self))?;
                let b = Box::new(self.duration_expr(0, context, expected)?);
                self.accept(Tok::RightParen).ok_or_else(|| wrong(self))?;
                let span = Span { start: token.span.start, end: self.last_end() };
                Ok(if word == Word::MinOf {
                    DurationExpr::MinOf(a, b, span)
                } else {
                    DurationExpr::MaxOf(a, b, span)
                })
            }
            _ => Err(self.unexpected(context, expected)),
        }
    }

    /// `offset` takes one signed operand; arithmetic needs parentheses.
    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.next();
        let sign = self.peek();
        let signed_by = match sign.kind {
            Tok::Op(BinaryOp::Sub) => Some(true),
            Tok::Op(BinaryOp::Add) => Some(false),
            _ => None,
        };
        if signed_by.is_some() {
            self.next();
        }
        self.enter()?;
        let mut value = self.duration_primary("offset", DURATION_STARTS)?;
        self.leave();
        if let Some(negative) = signed_by {
            value = signed(negative, value, sign.span.start);
        }
        let offset = match self.constant(&value) {
            Some(0) => None,
            Some(ms) => Some(DurationValue::Constant(ms)),
            None => Some(DurationValue::Expr(Box::new(value))),
        };
        let (whole, end) = (expr.span(), self.last_end());
        let (slot, outer) = match expr {
            Expr::Vector(s) => (&mut s.offset, &mut s.span),
            Expr::Matrix(m) => (&mut m.selector.offset, &mut m.span),
            Expr::Subquery(s) => (&mut s.offset, &mut s.span),
            _ => {
                self.note(
                    whole,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
                return Ok(());
            }
        };
        if slot.is_some() {
            self.note(whole, "offset may not be set multiple times");
        } else {
            *slot = offset;
            outer.end = end;
        }
        Ok(())
    }

    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.next();
        let token = self.peek();
        let negative = match token.kind {
            Tok::Op(BinaryOp::Sub) => Some(true),
            Tok::Op(BinaryOp::Add) => Some(false),
            _ => None,
        };
        if negative.is_some() {
            self.next();
        }
        let whole = expr.span();
        let at = match self.peek().kind {
            Tok::Number | Tok::Duration => {
                let value = self.number_literal()?.value;
                let value = if negative == Some(true) { -value } else { value };
                // Milliseconds must fit; this catches NaN and the infinities as well.
                if value.abs() < i64::MAX as f64 / 1000.0 {
                    AtModifier::Timestamp((value * 1000.0).round() as i64)
                } else {
                    let shown = crate::model::number::format_plain(value);
                    self.note(whole, format!("timestamp out of bounds for @ modifier: {shown}"));
                    AtModifier::Timestamp(0)
                }
            }
            Tok::Word(word @ (Word::Start | Word::End)) if negative.is_none() => {
                self.next();
                for kind in [Tok::LeftParen, Tok::RightParen] {
                    if self.accept(kind).is_none() {
                        return Err(self.unexpected("@", "timestamp"));
                    }
                }
                if word == Word::Start { AtModifier::Start } else { AtModifier::End }
            }
            _ => return Err(self.unexpected("@", "timestamp")),
        };
        let end = self.last_end();
        let (slot, outer) = match expr {
            Expr::Vector(s) => (&mut s.at, &mut s.span),
            Expr::Matrix(m) => (&mut m.selector.at, &mut m.span),
            Expr::Subquery(s) => (&mut s.at, &mut s.span),
            _ => {
                self.note(
                    whole,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
                return Ok(());
            }
        };
        if slot.is_some() {
            self.note(whole, "@ <timestamp> may not be set multiple times");
        } else {
            *slot = Some(at);
            outer.end = end;
        }
        Ok(())
    }

    fn extension(&mut self, expr: &mut Expr, extension: RangeExtension) {
        self.next();
        let word = if extension == RangeExtension::Anchored { "anchored" } else { "smoothed" };
        let (whole, end) = (expr.span(), self.last_end());
        if !self.options.extended_range_selectors {
            self.note(whole, format!("{word} modifier is experimental and not enabled"));
            return;
        }
        let (slot, outer) = match expr {
            Expr::Vector(s) => (&mut s.extension, &mut s.span),
            Expr::Matrix(m) => (&mut m.selector.extension, &mut m.span),
            Expr::Subquery(_) => {
                return self.note(whole, format!("{word} modifier is not supported for subqueries"));
            }
            _ => return self.note(whole, format!("{word} modifier not implemented")),
        };
        if *slot != RangeExtension::None && *slot != extension {
            self.note(whole, "anchored and smoothed modifiers cannot be used together");
        } else {
            *slot = extension;
            outer.end = end;
        }
    }

    /// A selector alone, up to the end of the text.
    pub(super) fn whole_selector(mut self) -> Parsed<VectorSelector> {
        if self.peek().kind != Tok::LeftBrace && !self.starts_name() {
            return Err(self.unexpected("", ""));
        }
        let selector = self.bare_selector()?;
        if self.peek().kind != Tok::Eof {
            return Err(self.unexpected("", ""));
        }
        match self.semantic {
            Some(error) => Err(error),
            None => Ok(selector),
        }
    }

    /// Whether the next token may be a metric name.
    fn starts_name(&self) -> bool {
        match self.peek().kind {
            Tok::Ident | Tok::MetricIdent | Tok::Aggregate(_) => true,
            Tok::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
            Tok::Word(word) => {
                !matches!(word, Word::On | Word::Ignoring | Word::GroupLeft | Word::GroupRight | Word::Bool)
            }
            _ => false,
        }
    }
}

/// A sign before a duration: folded into a literal, dropped when it is plus.
fn signed(negative: bool, operand: DurationExpr, start: u32) -> DurationExpr {
    let span = Span { start, end: operand.span().end };
    match operand {
        DurationExpr::Number(literal) => {
            let value = if negative { -literal.value } else { literal.value };
            DurationExpr::Number(NumberLiteral { value, span, ..literal })
        }
        operand if negative => DurationExpr::Unary(true, Box::new(operand), span),
        operand => operand,
    }
}

/// The message for a metric name given twice.
pub(super) fn name_twice(outside: &str, inside: &str) -> String {
    format!("metric name must not be set twice: {} or {}", quoted(outside), quoted(inside))
}
