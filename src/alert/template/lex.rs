//! From the text of a template to tokens: plain text, and what stands between `{{` and `}}`.

use super::parse::TemplateError;

/// A token with the byte offset where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) offset: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Text(String),
    Open,
    Close,
    /// Function or keyword.
    Ident(String),
    /// `.Name`, attached to nothing.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    Dot,
    Number(String),
    Str(String),
    Char(char),
    Pipe,
    Declare,
    Assign,
    Comma,
    LeftParen,
    RightParen,
    Space,
    End,
}

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

pub(super) fn tokenize(name: &str, text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { name, text, at: 0, tokens: Vec::new() };
    lexer.run()?;
    lexer.tokens.push(Token { kind: Kind::End, offset: text.len() });
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    name: &'a str,
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn error(&self, offset: usize, message: &str) -> TemplateError {
        TemplateError::new(self.name, line_of(self.text, offset), message)
    }

    fn push(&mut self, kind: Kind, offset: usize) {
        self.tokens.push(Token { kind, offset });
    }

    fn run(&mut self) -> Result<(), TemplateError> {
        let mut trim_next = false;
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let open = rest.find("{{");
            let mut plain = &rest[..open.unwrap_or(rest.len())];
            let offset = self.at;
            self.at += plain.len();
            if trim_next {
                plain = plain.trim_start_matches([' ', '\t', '\r', '\n']);
            }
            if open.is_none() {
                if !plain.is_empty() {
                    self.push(Kind::Text(plain.to_owned()), offset);
                }
                return Ok(());
            }
            let after = &self.text[self.at + 2..];
            let trims = after.strip_prefix('-').is_some_and(|r| r.starts_with([' ', '\t', '\r', '\n']));
            if trims {
                plain = plain.trim_end_matches([' ', '\t', '\r', '\n']);
            }
            if !plain.is_empty() {
                self.push(Kind::Text(plain.to_owned()), offset);
            }
            let action = self.at;
            self.at += if trims { 4 } else { 2 };
            trim_next = self.action(action)?;
        }
        Ok(())
    }

    /// Lexes one action behind its `{{`; answers whether the text behind it is trimmed.
    fn action(&mut self, action: usize) -> Result<bool, TemplateError> {
        let rest = self.text.get(self.at..).unwrap_or("");
        if let Some(comment) = rest.strip_prefix("/*") {
            let Some(end) = comment.find("*/") else { return Err(self.error(action, "unclosed comment")) };
            self.at += 2 + end + 2;
            let rest = &self.text[self.at..];
            let trimmed = rest.strip_prefix([' ', '\t', '\r', '\n']).and_then(|r| r.strip_prefix("-}}"));
            if trimmed.is_some() {
                self.at += 4;
                return Ok(true);
            }
            if rest.starts_with("}}") {
                self.at += 2;
                return Ok(false);
            }
            return Err(self.error(action, "comment ends before closing delimiter"));
        }
        self.push(Kind::Open, action);
        let mut depth = 0usize;
        loop {
            let offset = self.at;
            let rest = self.text.get(self.at..).unwrap_or("");
            let Some(c) = rest.chars().next() else { return Err(self.error(action, "unclosed action")) };
            if let Some(after) = rest.strip_prefix([' ', '\t', '\r', '\n']) {
                if after.starts_with("-}}") {
                    self.at += 4;
                    self.close(depth, offset)?;
                    return Ok(true);
                }
                let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
                // The last blank may belong to a trim marker.
                let trims = rest[spaces..].starts_with("-}}");
                self.at += if trims { spaces - 1 } else { spaces };
                self.push(Kind::Space, offset);
                continue;
            }
            if rest.starts_with("}}") {
                self.at += 2;
                self.close(depth, offset)?;
                return Ok(false);
            }
            self.at += c.len_utf8();
            match c {
                '|' => self.push(Kind::Pipe, offset),
                ',' => self.push(Kind::Comma, offset),
                '=' => self.push(Kind::Assign, offset),
                ':' if rest[1..].starts_with('=') => {
                    self.at += 1;
                    self.push(Kind::Declare, offset);
                }
                '(' => {
                    depth += 1;
                    self.push(Kind::LeftParen, offset);
                }
                ')' => {
                    depth =
                        depth.checked_sub(1).ok_or_else(|| self.error(offset, "unexpected right paren"))?;
                    self.push(Kind::RightParen, offset);
                }
                '"' => self.quoted(offset, '"')?,
                '\'' => self.quoted(offset, '\'')?,
                '`' => {
                    let body = &self.text[self.at..];
                    let end =
                        body.find('`').ok_or_else(|| self.error(offset, "unterminated raw quoted string"))?;
                    self.push(Kind::Str(body[..end].to_owned()), offset);
                    self.at += end + 1;
                }
                '$' => {
                    let word = self.word();
                    self.push(Kind::Variable(format!("${word}")), offset);
                }
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    let word = self.word();
                    self.push(if word.is_empty() { Kind::Dot } else { Kind::Field(word) }, offset);
                }
                '.' | '0'..='9' | '+' | '-' => {
                    let body = &self.text[self.at..];
                    let len = body
                        .char_indices()
                        .find(|(i, c)| {
                            let after_exponent = matches!(c, '+' | '-')
                                && (body[..*i].ends_with(['e', 'E']) || (*i == 0 && c.is_ascii_digit()));
                            !(c.is_ascii_alphanumeric() || *c == '.' || *c == '_' || after_exponent)
                        })
                        .map_or(body.len(), |(i, _)| i);
                    self.at += len;
                    let number = self.text[offset..self.at].to_owned();
                    if !number.contains(|c: char| c.is_ascii_digit()) {
                        return Err(self.error(offset, &format!("bad number syntax: {number:?}")));
                    }
                    self.push(Kind::Number(number), offset);
                }
                c if c.is_alphabetic() || c == '_' => {
                    let word = format!("{c}{}", self.word());
                    self.push(Kind::Ident(word), offset);
                }
                c => {
                    let message = format!("unexpected {:?} in command", c.to_string());
                    return Err(self.error(offset, &message));
                }
            }
        }
    }

    fn close(&mut self, depth: usize, offset: usize) -> Result<(), TemplateError> {
        if depth > 0 {
            return Err(self.error(offset, "unclosed left paren"));
        }
        self.push(Kind::Close, offset);
        Ok(())
    }

    fn word(&mut self) -> String {
        let body = &self.text[self.at..];
        let len = body.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(body.len());
        self.at += len;
        body[..len].to_owned()
    }

    /// A string or character constant with Go's escapes; `self.at` is behind the opening quote.
    fn quoted(&mut self, offset: usize, quote: char) -> Result<(), TemplateError> {
        let unterminated =
            if quote == '"' { "unterminated quoted string" } else { "unterminated character constant" };
        let mut out = String::new();
        let mut chars = self.text[self.at..].char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += i + 1;
                    if quote == '"' {
                        self.push(Kind::Str(out), offset);
                    } else {
                        let mut inner = out.chars();
                        match (inner.next(), inner.next()) {
                            (Some(c), None) => self.push(Kind::Char(c), offset),
                            _ => return Err(self.error(offset, "malformed character constant")),
                        }
                    }
                    return Ok(());
                }
                '\n' => break,
                '\\' => {
                    let Some((_, escape)) = chars.next() else { break };
                    let hex = |chars: &mut std::str::CharIndices<'_>, digits: usize| {
                        let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                        (code.len() == digits).then_some(code).and_then(|c| u32::from_str_radix(&c, 16).ok())
                    };
                    let code = match escape {
                        'a' => Some(7),
                        'b' => Some(8),
                        'f' => Some(12),
                        'n' => Some(10),
                        'r' => Some(13),
                        't' => Some(9),
                        'v' => Some(11),
                        '\\' | '"' | '\'' => Some(u32::from(escape)),
                        'x' => hex(&mut chars, 2),
                        'u' => hex(&mut chars, 4),
                        'U' => hex(&mut chars, 8),
                        _ => None,
                    };
                    match code.and_then(char::from_u32) {
                        Some(c) => out.push(c),
                        None => return Err(self.error(offset, "invalid syntax")),
                    }
                }
                c => out.push(c),
            }
        }
        Err(self.error(offset, unterminated))
    }
}
