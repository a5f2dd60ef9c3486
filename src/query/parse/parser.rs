//! From tokens to the tree: precedence climbing over recursive descent.
//!
//! Messages and places are those of Prometheus, whose grammar names a context only in some states ("in label
//! matching", "in grouping opts"); everywhere else a syntax error inside the parentheses of an aggregation says
//! "in aggregation", and any other one says nothing. Errors of meaning found on the way (an unknown function, a
//! bad duration) do not stop the parser, but the first of them is what the caller gets.

use std::sync::Arc;

use super::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Call, Expr, MatchCardinality, NumberLiteral, ParenExpr,
    StringLiteral, UnaryExpr, VectorMatching,
};
use super::lexer::{Tok, Token, Tokens, Word, tokenize};
use super::{
    MAX_NESTING, MAX_QUERY_BYTES, MAX_TREE_HEIGHT, ParseError, ParseOptions, Span, functions, strings,
};
use crate::model::labels::quoted;

/// A finished subtree and its height.
pub(super) type Node = (Expr, u32);
pub(super) type Parsed<T> = Result<T, ParseError>;

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) options: &'a ParseOptions,
    tokens: Tokens,
    pos: usize,
    /// First error of meaning.
    pub(super) semantic: Option<ParseError>,
    nesting: u32,
    /// How many aggregations are open around the position.
    aggregations: u32,
}

/// Binding strength of an operator, higher binds tighter, and whether it groups to the right.
fn precedence(op: BinaryOp) -> (u8, bool) {
    match op {
        BinaryOp::Or => (1, false),
        BinaryOp::And | BinaryOp::Unless => (2, false),
        BinaryOp::Eql
        | BinaryOp::Neq
        | BinaryOp::Lss
        | BinaryOp::Gtr
        | BinaryOp::Lte
        | BinaryOp::Gte
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => (3, false),
        BinaryOp::Add | BinaryOp::Sub => (4, false),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => (5, false),
        BinaryOp::Pow => (6, true),
    }
}

/// A sign binds like `*`, so its operand takes only `^`.
const OPERAND_OF_SIGN: u8 = 6;

/// Builds the error for a place, counting line and column.
pub(super) fn error_at(text: &str, span: Span, message: impl Into<String>) -> ParseError {
    let before = &text.as_bytes()[..(span.start as usize).min(text.len())];
    let line = before.iter().filter(|c| **c == b'\n').count() as u32 + 1;
    let column = before.iter().rev().take_while(|c| **c != b'\n').count() as u32 + 1;
    let line = if text.is_empty() { 0 } else { line };
    ParseError { message: message.into(), span, line, column }
}

impl<'a> Parser<'a> {
    /// Refuses texts above the size limit before anything is allocated for them.
    pub(super) fn new(text: &'a str, options: &'a ParseOptions) -> Parsed<Self> {
        if text.len() > MAX_QUERY_BYTES {
            let message =
                format!("the query has {} bytes, more than the limit of {MAX_QUERY_BYTES}", text.len());
            return Err(ParseError { message, span: Span::default(), line: 1, column: 1 });
        }
        let tokens = tokenize(text);
        Ok(Self { text, options, tokens, pos: 0, semantic: None, nesting: 0, aggregations: 0 })
    }

    pub(super) fn peek(&self) -> Token {
        self.peek_at(0)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Token {
        // The list always ends with an end or error token.
        let last = self.tokens.list.len() - 1;
        self.tokens.list[(self.pos + ahead).min(last)]
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek();
        self.pos = (self.pos + 1).min(self.tokens.list.len());
        token
    }

    pub(super) fn accept(&mut self, kind: Tok) -> Option<Token> {
        (self.peek().kind == kind).then(|| self.next())
    }

    pub(super) fn accept_word(&mut self, word: Word) -> Option<Token> {
        self.accept(Tok::Word(word))
    }

    pub(super) fn written(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The end of the last token taken.
    pub(super) fn last_end(&self) -> u32 {
        self.pos.checked_sub(1).map_or(0, |i| self.tokens.list[i].span.end)
    }

    /// Notes an error of meaning; the first one wins.
    pub(super) fn note(&mut self, span: Span, message: impl Into<String>) {
        if self.semantic.is_none() {
            self.semantic = Some(error_at(self.text, span, message));
        }
    }

    /// The error for the next token, which cannot stand here.
    pub(super) fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        if let Some(earlier) = &self.semantic {
            return earlier.clone();
        }
        let token = self.peek();
        if token.kind == Tok::Error {
            return error_at(self.text, token.span, self.tokens.error.clone());
        }
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        error_at(self.text, token.span, message)
    }

    /// The error where the grammar names no context of its own.
    pub(super) fn unexpected_here(&self) -> ParseError {
        self.unexpected(if self.aggregations > 0 { "aggregation" } else { "" }, "")
    }

    pub(super) fn expect(&mut self, kind: Tok) -> Parsed<Token> {
        self.accept(kind).ok_or_else(|| self.unexpected_here())
    }

    /// A whole expression up to the end of the text.
    pub(super) fn whole(mut self) -> Parsed<(Expr, Option<ParseError>)> {
        if self.peek().kind == Tok::Eof {
            return Err(error_at(self.text, Span::default(), "no expression found in input"));
        }
        let (expr, _) = self.expression(0)?;
        if self.peek().kind != Tok::Eof {
            return Err(self.unexpected_here());
        }
        Ok((expr, self.semantic))
    }

    /// The tree may not become higher than the limit: everything that walks it recurses.
    pub(super) fn grown(&self, height: u32) -> Parsed<u32> {
        if height >= MAX_TREE_HEIGHT {
            let message = format!("expression is nested or chained more than {MAX_TREE_HEIGHT} levels deep");
            return Err(error_at(self.text, self.peek().span, message));
        }
        Ok(height + 1)
    }

    pub(super) fn enter(&mut self) -> Parsed<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            let message = format!("expression is nested more than {MAX_NESTING} levels deep");
            return Err(error_at(self.text, self.peek().span, message));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.nesting -= 1;
    }

    /// An expression whose operators bind at least as tightly as `min`.
    fn expression(&mut self, min: u8) -> Parsed<Node> {
        self.enter()?;
        let mut left = self.operand()?;
        while let Tok::Op(op) = self.peek().kind {
            let (binds, to_the_right) = precedence(op);
            if binds < min {
                break;
            }
            self.next();
            let (return_bool, matching) = self.binary_modifiers(left.0.span().start)?;
            let right = self.expression(if to_the_right { binds } else { binds + 1 })?;
            let height = self.grown(left.1.max(right.1))?;
            let span = Span { start: left.0.span().start, end: right.0.span().end };
            let expr = BinaryExpr {
                op,
                lhs: Box::new(left.0),
                rhs: Box::new(right.0),
                matching: Some(matching),
                return_bool,
                span,
            };
            left = (Expr::Binary(expr), height);
        }
        self.leave();
        Ok(left)
    }

    fn operand(&mut self) -> Parsed<Node> {
        let token = self.peek();
        let negative = match token.kind {
            Tok::Op(BinaryOp::Sub) => true,
            Tok::Op(BinaryOp::Add) => false,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.next();
        let (expr, height) = self.expression(OPERAND_OF_SIGN)?;
        let span = Span { start: token.span.start, end: expr.span().end };
        if let Expr::Number(mut number) = expr {
            if negative {
                number.value = -number.value;
            }
            number.span = span;
            return Ok((Expr::Number(number), height));
        }
        let height = self.grown(height)?;
        Ok((Expr::Unary(UnaryExpr { negative, expr: Box::new(expr), span }), height))
    }

    fn primary(&mut self) -> Parsed<Node> {
        let token = self.peek();
        match token.kind {
            Tok::Number | Tok::Duration => Ok((Expr::Number(self.number_literal()?), 1)),
            Tok::Str => {
                self.next();
                let literal = match self.unquoted_bytes(token) {
                    Ok(text) => StringLiteral { value: text.into(), bytes: None, span: token.span },
                    Err(bytes) => {
                        let value = String::from_utf8_lossy(&bytes).into();
                        StringLiteral { value, bytes: Some(bytes.into()), span: token.span }
                    }
                };
                Ok((Expr::String(literal), 1))
            }
            Tok::LeftParen => {
                self.next();
                let (expr, height) = self.expression(0)?;
                let close = self.expect(Tok::RightParen)?;
                let span = Span { start: token.span.start, end: close.span.end };
                let height = self.grown(height)?;
                Ok((Expr::Paren(ParenExpr { expr: Box::new(expr), span }), height))
            }
            Tok::LeftBrace | Tok::MetricIdent => self.vector_selector(),
            Tok::Ident if self.peek_at(1).kind == Tok::LeftParen => self.call(),
            Tok::Ident => self.vector_selector(),
            Tok::Aggregate(op) => match self.peek_at(1).kind {
                Tok::LeftParen | Tok::Word(Word::By | Word::Without) => self.aggregate(op),
                Tok::Ident | Tok::MetricIdent | Tok::Str | Tok::Number | Tok::Duration => {
                    self.next();
                    Err(self.unexpected("aggregation", ""))
                }
                _ => self.vector_selector(),
            },
            Tok::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => self.vector_selector(),
            Tok::Word(word) => match word {
                Word::On | Word::Ignoring | Word::GroupLeft | Word::GroupRight | Word::Bool => {
                    Err(self.unexpected_here())
                }
                Word::Start | Word::End | Word::Step | Word::Range | Word::MinOf | Word::MaxOf
                    if self.peek_at(1).kind == Tok::LeftParen =>
                {
                    self.call()
                }
                _ => self.vector_selector(),
            },
            _ => Err(self.unexpected_here()),
        }
    }

    /// A number or a duration.
    pub(super) fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.next();
        let written = self.written(token.span);
        let is_duration = token.kind == Tok::Duration;
        let value = if is_duration {
            crate::model::duration::parse_duration_ms(written).map(|ms| ms as f64 / 1000.0)
        } else {
            strings::parse_number(written)
        };
        let value = match value {
            Ok(value) => value,
            Err(message) => {
                self.note(token.span, message);
                0.0
            }
        };
        Ok(NumberLiteral { value, is_duration, span: token.span })
    }

    pub(super) fn unquoted(&mut self, token: Token) -> String {
        self.unquoted_bytes(token).unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of a literal, or its bytes if they are not UTF-8.
    fn unquoted_bytes(&mut self, token: Token) -> Result<String, Vec<u8>> {
        let written = self.written(token.span);
        let Some(bytes) = strings::unquote_bytes(written) else {
            self.note(token.span, format!("error unquoting string {}: invalid syntax", quoted(written)));
            return Ok(String::new());
        };
        String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes)
    }

    /// Arguments in parentheses, the opening one included; the height of the highest.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, u32)> {
        self.expect(Tok::LeftParen)?;
        let (mut args, mut highest) = (Vec::new(), 0);
        if self.accept(Tok::RightParen).is_some() {
            return Ok((args, highest));
        }
        loop {
            let (arg, height) = self.expression(0)?;
            highest = highest.max(height);
            args.push(arg);
            if self.accept(Tok::RightParen).is_some() {
                return Ok((args, highest));
            }
            let comma = self.expect(Tok::Comma)?;
            if self.accept(Tok::RightParen).is_some() {
                self.note(comma.span, "trailing commas not allowed in function call args");
                return Ok((args, highest));
            }
        }
    }

    fn call(&mut self) -> Parsed<Node> {
        let name = self.next();
        let written = self.written(name.span);
        let func = functions::function(written);
        let (args, highest) = self.arguments()?;
        match func {
            None => self.note(name.span, format!("unknown function with name {}", quoted(written))),
            Some(f) if f.experimental && !self.options.experimental_functions => {
                self.note(name.span, format!("function {} is not enabled", quoted(written)));
            }
            Some(_) => {}
        }
        let height = self.grown(highest)?;
        let span = Span { start: name.span.start, end: self.last_end() };
        Ok((Expr::Call(Call { func: func.map_or("", |f| f.name), args, span }), height))
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Node> {
        let start = self.next().span.start;
        self.aggregations += 1;
        let mut clause = self.grouping_clause()?;
        let (mut args, highest) = self.arguments()?;
        if clause.is_none() {
            clause = self.grouping_clause()?;
        }
        self.aggregations -= 1;
        let (without, grouping) = clause.unwrap_or_default();
        let span = Span { start, end: self.last_end() };
        let wanted = if op.takes_parameter() { 2 } else { 1 };
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            self.note(span, message);
        }
        if args.is_empty() {
            self.note(span, "no arguments for aggregate expression provided");
        } else if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            self.note(span, message);
        }
        // After a noted error any tree will do, as nobody gets to see it.
        let number = || Expr::Number(NumberLiteral { value: 0.0, is_duration: false, span });
        let expr = Box::new(args.pop().unwrap_or_else(number));
        let param = op.takes_parameter().then(|| Box::new(args.pop().unwrap_or_else(number)));
        let height = self.grown(highest)?;
        Ok((Expr::Aggregate(AggregateExpr { op, expr, param, grouping, without, span }), height))
    }

    /// `by (…)` or `without (…)`, if it stands here; `true` is `without`.
    fn grouping_clause(&mut self) -> Parsed<Option<(bool, Vec<Arc<str>>)>> {
        let without = match self.peek().kind {
            Tok::Word(Word::By) => false,
            Tok::Word(Word::Without) => true,
            _ => return Ok(None),
        };
        self.next();
        Ok(Some((without, self.grouping_labels()?)))
    }

    fn grouping_labels(&mut self) -> Parsed<Vec<Arc<str>>> {
        if self.accept(Tok::LeftParen).is_none() {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        let mut labels = Vec::new();
        loop {
            let token = self.peek();
            let label: Arc<str> = match token.kind {
                Tok::RightParen => {
                    self.next();
                    return Ok(labels);
                }
                Tok::Str => {
                    let label = self.unquoted(token);
                    if !strings::is_label_name(&label) {
                        return Err(self.unexpected("grouping opts", "label"));
                    }
                    label.into()
                }
                Tok::Ident | Tok::Aggregate(_) | Tok::Word(_) => self.written(token.span).into(),
                Tok::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => {
                    self.written(token.span).into()
                }
                _ => return Err(self.unexpected("grouping opts", "label")),
            };
            self.next();
            labels.push(label);
            if self.accept(Tok::Comma).is_none() && self.peek().kind != Tok::RightParen {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            }
        }
    }

    /// `bool`, `on`/`ignoring`, `group_left`/`group_right`, fill values: all optional, in this order.
    fn binary_modifiers(&mut self, expr_start: u32) -> Parsed<(bool, VectorMatching)> {
        let return_bool = self.accept_word(Word::Bool).is_some();
        let mut matching = VectorMatching {
            cardinality: MatchCardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if let Tok::Word(word @ (Word::On | Word::Ignoring)) = self.peek().kind {
            self.next();
            matching.on = word == Word::On;
            matching.labels = self.grouping_labels()?;
            if let Tok::Word(word @ (Word::GroupLeft | Word::GroupRight)) = self.peek().kind {
                self.next();
                matching.cardinality = if word == Word::GroupLeft {
                    MatchCardinality::ManyToOne
                } else {
                    MatchCardinality::OneToMany
                };
                if self.peek().kind == Tok::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        let mut filled = false;
        while let Tok::Word(word @ (Word::Fill | Word::FillLeft | Word::FillRight)) = self.peek().kind {
            let taken = match word {
                Word::Fill => filled,
                Word::FillLeft => matching.fill_left.is_some(),
                _ => matching.fill_right.is_some(),
            };
            // Without a parenthesis this is a metric of that name.
            if self.peek_at(1).kind != Tok::LeftParen {
                break;
            }
            if taken || (filled && matching.fill_left.is_some() && matching.fill_right.is_some()) {
                return Err(self.unexpected_here());
            }
            self.next();
            self.next();
            filled = true;
            let negative = match self.peek().kind {
                Tok::Op(BinaryOp::Sub) => Some(true),
                Tok::Op(BinaryOp::Add) => Some(false),
                _ => None,
            };
            if negative.is_some() {
                self.next();
            }
            if !matches!(self.peek().kind, Tok::Number | Tok::Duration) {
                return Err(self.unexpected_here());
            }
            let value = self.number_literal()?.value;
            let value = if negative == Some(true) { -value } else { value };
            self.expect(Tok::RightParen)?;
            if word != Word::FillRight {
                matching.fill_left = Some(value);
            }
            if word != Word::FillLeft {
                matching.fill_right = Some(value);
            }
        }
        if filled && !self.options.fill_modifiers {
            let span = Span { start: expr_start, end: self.last_end() };
            self.note(span, "binop fill modifiers are experimental and not enabled");
        }
        Ok((return_bool, matching))
    }
}
