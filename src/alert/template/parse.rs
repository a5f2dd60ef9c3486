//! From tokens to a tree. Unknown functions and undefined variables are found here, before anything runs.

use std::collections::HashMap;
use std::sync::Arc;

use super::Part;
use super::functions;
use super::lex::{Kind, Token, line_of, tokenize};

/// Longest template text, bytes.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Deepest nesting of blocks and parentheses.
pub const MAX_NESTING: usize = 100;

/// Why a text is not a template. Prints as Go does: `template: name:line: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {name}:{line}: {message}")]
pub struct TemplateError {
    /// Name of the template.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl TemplateError {
    pub(super) fn new(name: &str, line: usize, message: &str) -> Self {
        Self { name: name.into(), line, message: message.into() }
    }
}

/// A parsed template with the templates it defines.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) root: Vec<Node>,
    pub(super) defined: HashMap<String, Arc<Vec<Node>>>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// A pipeline; prints its value unless it declares a variable.
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template {
        name: String,
        argument: Option<Pipeline>,
        offset: usize,
    },
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `=` rather than `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
    pub(super) offset: usize,
}

/// An operand and what follows it up to a pipe.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) words: Vec<Operand>,
    pub(super) offset: usize,
    /// Source text, for error messages.
    pub(super) source: String,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// `.A.B` behind the base.
    pub(super) fields: Vec<String>,
    pub(super) offset: usize,
    /// Where Go says that fields are wrong: at the first one that follows something.
    pub(super) fields_offset: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Variable(String),
    Function(String),
    Paren(Box<Pipeline>),
}

impl Template {
    /// The parts behind the first `skip` nodes, if all of them are texts, labels and the value of an alert.
    pub(super) fn simple_parts(&self, skip: usize) -> Option<Vec<Part>> {
        let part = |node: &Node| match node {
            Node::Text(text) => Some(Part::Text(text.clone())),
            Node::Action(pipeline) if pipeline.variables.is_empty() => {
                let [Command { words, .. }] = &pipeline.commands[..] else { return None };
                let [Operand { base: Base::Variable(name), fields, .. }] = &words[..] else { return None };
                match (name.as_str(), &fields[..]) {
                    ("$labels", [label]) => Some(Part::Label(label.clone())),
                    ("$value", []) => Some(Part::Value),
                    _ => None,
                }
            }
            _ => None,
        };
        self.root.get(skip..)?.iter().map(part).collect()
    }

    /// Parses `text`.
    pub fn parse(name: &str, text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            let message = format!("text of {} bytes is longer than {MAX_TEMPLATE_BYTES}", text.len());
            return Err(TemplateError::new(name, 1, &message));
        }
        let tokens = tokenize(name, text)?;
        let mut parser = Parser {
            name,
            text,
            tokens,
            at: 0,
            scopes: vec!["$".into()],
            loops: 0,
            nesting: 0,
            defined: HashMap::new(),
        };
        let (root, end) = parser.nodes()?;
        if let Some((word, offset)) = end {
            return Err(parser.error_at(offset, &format!("unexpected {{{{{word}}}}}")));
        }
        Ok(Self { name: name.into(), text: text.into(), root, defined: parser.defined })
    }
}

struct Parser<'a> {
    name: &'a str,
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    /// Variables in sight, innermost last.
    scopes: Vec<String>,
    loops: usize,
    nesting: usize,
    defined: HashMap<String, Arc<Vec<Node>>>,
}

/// The keyword that ended a list of nodes, and where it stood.
type EndWord = Option<(String, usize)>;

impl Parser<'_> {
    fn error_at(&self, offset: usize, message: &str) -> TemplateError {
        TemplateError::new(self.name, line_of(self.text, offset), message)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn unexpected(&self, token: &Token, context: &str) -> TemplateError {
        let what = match &token.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Close => "\"}}\"".to_owned(),
            kind => format!("{:?}", describe(kind)),
        };
        self.error_at(token.offset, &format!("unexpected {what} in {context}"))
    }

    fn enter(&mut self, offset: usize) -> Result<(), TemplateError> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error_at(offset, &format!("nested more than {MAX_NESTING} deep")));
        }
        Ok(())
    }

    /// Nodes up to `{{end}}`, `{{else…}}` or the end of the text; the ending keyword is consumed, not what
    /// follows it.
    fn nodes(&mut self) -> Result<(Vec<Node>, EndWord), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let token = self.next();
            match token.kind {
                Kind::End => return Ok((nodes, None)),
                Kind::Text(text) => nodes.push(Node::Text(text)),
                _ => {
                    self.skip_space();
                    let keyword = match &self.peek().kind {
                        Kind::Ident(word) => word.clone(),
                        _ => String::new(),
                    };
                    let offset = self.peek().offset;
                    if matches!(keyword.as_str(), "end" | "else") {
                        self.at += 1;
                        self.skip_space();
                        return Ok((nodes, Some((keyword, offset))));
                    }
                    if let Some(node) = self.action(&keyword, offset)? {
                        nodes.push(node);
                    }
                }
            }
        }
    }

    fn close(&mut self, context: &str) -> Result<(), TemplateError> {
        self.skip_space();
        let token = self.next();
        if token.kind == Kind::Close { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn action(&mut self, keyword: &str, offset: usize) -> Result<Option<Node>, TemplateError> {
        match keyword {
            "if" | "with" | "range" => {
                self.at += 1;
                self.enter(offset)?;
                let node = self.control(keyword)?;
                self.nesting -= 1;
                Ok(Some(node))
            }
            "break" | "continue" => {
                self.at += 1;
                if self.loops == 0 {
                    return Err(self.error_at(offset, &format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                }
                self.close(keyword)?;
                Ok(Some(if keyword == "break" { Node::Break } else { Node::Continue }))
            }
            "define" | "block" => {
                self.at += 1;
                self.enter(offset)?;
                let name = self.template_name(keyword)?;
                let argument =
                    if keyword == "block" { Some(self.pipeline("block clause", true)?) } else { None };
                self.close(&format!("{keyword} clause"))?;
                let outer = std::mem::replace(&mut self.scopes, vec!["$".into()]);
                let (body, end) = self.nodes()?;
                self.expect_end(end, keyword)?;
                self.scopes = outer;
                self.nesting -= 1;
                self.defined.insert(name.clone(), Arc::new(body));
                Ok(argument.map(|argument| Node::Template { name, argument: Some(argument), offset }))
            }
            "template" => {
                self.at += 1;
                let name = self.template_name(keyword)?;
                self.skip_space();
                let argument = match self.peek().kind {
                    Kind::Close => None,
                    _ => Some(self.pipeline("template clause", true)?),
                };
                self.close("template clause")?;
                Ok(Some(Node::Template { name, argument, offset }))
            }
            _ => {
                let pipeline = self.pipeline("command", true)?;
                self.close("command")?;
                Ok(Some(Node::Action(pipeline)))
            }
        }
    }

    fn template_name(&mut self, keyword: &str) -> Result<String, TemplateError> {
        self.skip_space();
        let token = self.next();
        match token.kind {
            Kind::Str(name) => Ok(name),
            _ => Err(self.unexpected(&token, &format!("{keyword} clause"))),
        }
    }

    fn expect_end(&mut self, end: EndWord, context: &str) -> Result<(), TemplateError> {
        match end {
            Some((word, _)) if word == "end" => self.close("end"),
            Some((word, offset)) => {
                Err(self.error_at(offset, &format!("unexpected {{{{{word}}}}} in {context}")))
            }
            None => Err(self.error_at(self.text.len(), "unexpected EOF")),
        }
    }

    fn control(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        let scope = self.scopes.len();
        let head = self.pipeline(keyword, true)?;
        self.close(keyword)?;
        if keyword == "range" {
            self.loops += 1;
        }
        let (then, mut end) = self.nodes()?;
        if keyword == "range" {
            self.loops -= 1;
        }
        let mut otherwise = Vec::new();
        if end.as_ref().is_some_and(|(word, _)| word == "else") {
            let chained = match &self.peek().kind {
                Kind::Ident(word) if word == keyword && keyword != "range" => true,
                Kind::Close => false,
                _ => {
                    let token = self.peek().clone();
                    return Err(self.unexpected(&token, "else clause"));
                }
            };
            if chained {
                let offset = self.next().offset;
                self.enter(offset)?;
                otherwise = vec![self.control(keyword)?];
                self.nesting -= 1;
                end = None;
            } else {
                self.close("else")?;
                (otherwise, end) = self.nodes()?;
                self.expect_end(end.take(), keyword)?;
            }
        } else {
            self.expect_end(end.take(), keyword)?;
        }
        debug_assert!(end.is_none(), "the end of the block was consumed");
        self.scopes.truncate(scope);
        Ok(match keyword {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { value: head, then, otherwise },
            _ => Node::Range { over: head, body: then, otherwise },
        })
    }

    /// A pipeline up to `}}` or `)`, which is not consumed.
    fn pipeline(&mut self, context: &str, may_declare: bool) -> Result<Pipeline, TemplateError> {
        self.skip_space();
        let offset = self.peek().offset;
        let mut pipeline = Pipeline { variables: Vec::new(), assigns: false, commands: Vec::new(), offset };
        if may_declare {
            self.declarations(context, &mut pipeline)?;
        }
        loop {
            self.skip_space();
            let token = self.peek().clone();
            match token.kind {
                Kind::Close | Kind::RightParen => break,
                Kind::End => return Err(self.error_at(token.offset, "unclosed action")),
                Kind::Pipe if !pipeline.commands.is_empty() => {
                    self.at += 1;
                    self.skip_space();
                    if matches!(self.peek().kind, Kind::Close | Kind::RightParen) {
                        return Err(self.error_at(token.offset, &format!("missing value for {context}")));
                    }
                }
                Kind::Pipe => {
                    return Err(self.error_at(token.offset, &format!("missing value for {context}")));
                }
                _ if pipeline.commands.is_empty() => {}
                _ => return Err(self.unexpected(&token, context)),
            }
            let command = self.command()?;
            pipeline.commands.push(command);
        }
        if pipeline.commands.is_empty() {
            return Err(self.error_at(offset, &format!("missing value for {context}")));
        }
        for command in &pipeline.commands[1..] {
            if !matches!(&command.words[0].base, Base::Function(_)) {
                let message = "non executable command in pipeline stage 2";
                return Err(self.error_at(command.offset, message));
            }
        }
        if !pipeline.assigns {
            self.scopes.extend(pipeline.variables.iter().cloned());
        }
        Ok(pipeline)
    }

    /// `$x :=`, `$x =`, `$i, $x :=`; leaves the position alone when the pipeline declares nothing.
    fn declarations(&mut self, context: &str, pipeline: &mut Pipeline) -> Result<(), TemplateError> {
        let start = self.at;
        let mut variables = Vec::new();
        loop {
            self.skip_space();
            let Kind::Variable(name) = self.peek().kind.clone() else { break };
            self.at += 1;
            self.skip_space();
            variables.push(name);
            match self.peek().kind {
                Kind::Comma if context == "range" && variables.len() == 1 => self.at += 1,
                Kind::Declare | Kind::Assign => {
                    pipeline.assigns = self.peek().kind == Kind::Assign;
                    let offset = self.next().offset;
                    if pipeline.assigns {
                        for name in &variables {
                            self.known_variable(name, offset)?;
                        }
                    }
                    pipeline.variables = variables;
                    return Ok(());
                }
                _ => break,
            }
        }
        self.at = start;
        Ok(())
    }

    fn known_variable(&self, name: &str, offset: usize) -> Result<(), TemplateError> {
        if self.scopes.iter().any(|v| v == name) {
            return Ok(());
        }
        Err(self.error_at(offset, &format!("undefined variable {name:?}")))
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        self.skip_space();
        let offset = self.peek().offset;
        let mut words = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.peek().kind, Kind::Pipe | Kind::Close | Kind::RightParen | Kind::End) {
                break;
            }
            words.push(self.operand()?);
            match self.peek().kind {
                Kind::Space | Kind::Pipe | Kind::Close | Kind::RightParen | Kind::End => {}
                _ => {
                    let token = self.peek().clone();
                    return Err(self.unexpected(&token, "operand"));
                }
            }
        }
        if words.is_empty() {
            return Err(self.error_at(offset, "empty command"));
        }
        let end = self.peek().offset.min(self.text.len());
        let source = self.text.get(offset..end).unwrap_or("").trim().to_owned();
        Ok(Command { words, offset, source })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let token = self.next();
        let offset = token.offset;
        let mut fields = Vec::new();
        let base = match token.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) => {
                self.known_variable(&name, offset)?;
                Base::Variable(name)
            }
            Kind::Str(text) => Base::Str(text.into()),
            Kind::Char(c) => Base::Int(i64::from(u32::from(c))),
            Kind::Number(text) => {
                let base = number(&text)
                    .ok_or_else(|| self.error_at(offset, &format!("bad number syntax: {text:?}")))?;
                if matches!(base, Base::Float(_)) && !text.contains(['.', 'e', 'E', 'p', 'P']) {
                    return Err(self.error_at(offset, &format!("integer overflow: {text:?}")));
                }
                base
            }
            Kind::Ident(word) => match word.as_str() {
                "true" => Base::Bool(true),
                "false" => Base::Bool(false),
                "nil" => Base::Nil,
                _ if functions::exists(&word) => Base::Function(word),
                _ => return Err(self.error_at(offset, &format!("function {word:?} not defined"))),
            },
            Kind::LeftParen => {
                self.enter(offset)?;
                let inner = self.pipeline("parenthesized pipeline", false)?;
                self.skip_space();
                let close = self.next();
                if close.kind != Kind::RightParen {
                    return Err(self.error_at(offset, "unclosed left paren"));
                }
                self.nesting -= 1;
                Base::Paren(Box::new(inner))
            }
            _ => return Err(self.unexpected(&token, "operand")),
        };
        let mut fields_offset = None;
        while let Kind::Field(name) = self.peek().kind.clone() {
            fields_offset = fields_offset.or(Some(self.peek().offset));
            if matches!(base, Base::Bool(_) | Base::Nil | Base::Int(_) | Base::Float(_) | Base::Str(_)) {
                return Err(self.error_at(
                    offset,
                    &format!(
                        "unexpected . after term {:?}",
                        self.text.get(offset..self.peek().offset).unwrap_or("")
                    ),
                ));
            }
            self.at += 1;
            fields.push(name);
        }
        Ok(Operand { base, fields, offset, fields_offset: fields_offset.unwrap_or(offset) })
    }
}

/// Go's number constants: whole numbers (decimal, hexadecimal, octal, binary, with `_`) are `int`, others `float64`.
fn number(text: &str) -> Option<Base> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let plain = unsigned.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let radix =
        [("0x", 16), ("0o", 8), ("0b", 2)].iter().find_map(|(p, r)| Some((lower.strip_prefix(p)?, *r)));
    let whole = match radix {
        Some((digits, radix)) => Some(i64::from_str_radix(digits, radix).ok()?),
        None if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => {
            i64::from_str_radix(&lower, 8).ok()
        }
        None => lower.parse().ok(),
    };
    if let Some(whole) = whole {
        return Some(Base::Int(if negative { -whole } else { whole }));
    }
    if !lower.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b)) {
        return None;
    }
    let float: f64 = lower.parse().ok()?;
    Some(Base::Float(if negative { -float } else { float }))
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Text(text)
        | Kind::Ident(text)
        | Kind::Variable(text)
        | Kind::Number(text)
        | Kind::Str(text) => text.clone(),
        Kind::Field(name) => format!(".{name}"),
        Kind::Char(c) => c.to_string(),
        Kind::Open => "{{".into(),
        Kind::Close => "}}".into(),
        Kind::Dot => ".".into(),
        Kind::Pipe => "|".into(),
        Kind::Declare => ":=".into(),
        Kind::Assign => "=".into(),
        Kind::Comma => ",".into(),
        Kind::LeftParen => "(".into(),
        Kind::RightParen => ")".into(),
        Kind::Space => " ".into(),
        Kind::End => "EOF".into(),
    }
}
