//! From text to tokens. The lexer is modal, as PromQL needs: keywords mean nothing inside braces, and inside
//! square brackets only durations, their arithmetic and a colon may stand.
//!
//! A lexical error does not stop the caller at once: it becomes the last token, so that a syntax error before
//! it is reported first, as Prometheus does.

use super::Span;
use super::ast::{AggregateOp, BinaryOp};
use crate::model::labels::quoted;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tok {
    Eof,
    /// The text that follows is not PromQL; the message is in [`Tokens::error`].
    Error,
    Ident,
    MetricIdent,
    Str,
    Number,
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Equal,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotRegex,
    At,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Word(Word),
}

/// Keywords that are neither operators nor aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Offset,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
    Anchored,
    Smoothed,
    Fill,
    FillLeft,
    FillRight,
}

/// A token and its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub kind: Tok,
    pub span: Span,
}

/// All tokens of a text; the last one is [`Tok::Eof`] or [`Tok::Error`].
#[derive(Debug)]
pub(super) struct Tokens {
    pub list: Vec<Token>,
    /// Message of the [`Tok::Error`] at the end.
    pub error: String,
}

fn keyword(word: &str) -> Option<Tok> {
    use AggregateOp as A;
    use Word as W;
    // The longest keyword has 12 letters.
    if word.len() > 12 {
        return None;
    }
    Some(match word.to_ascii_lowercase().as_str() {
        "and" => Tok::Op(BinaryOp::And),
        "or" => Tok::Op(BinaryOp::Or),
        "unless" => Tok::Op(BinaryOp::Unless),
        "atan2" => Tok::Op(BinaryOp::Atan2),
        "sum" => Tok::Aggregate(A::Sum),
        "avg" => Tok::Aggregate(A::Avg),
        "count" => Tok::Aggregate(A::Count),
        "min" => Tok::Aggregate(A::Min),
        "max" => Tok::Aggregate(A::Max),
        "group" => Tok::Aggregate(A::Group),
        "stddev" => Tok::Aggregate(A::Stddev),
        "stdvar" => Tok::Aggregate(A::Stdvar),
        "topk" => Tok::Aggregate(A::Topk),
        "bottomk" => Tok::Aggregate(A::Bottomk),
        "count_values" => Tok::Aggregate(A::CountValues),
        "quantile" => Tok::Aggregate(A::Quantile),
        "limitk" => Tok::Aggregate(A::Limitk),
        "limit_ratio" => Tok::Aggregate(A::LimitRatio),
        "offset" => Tok::Word(W::Offset),
        "by" => Tok::Word(W::By),
        "without" => Tok::Word(W::Without),
        "on" => Tok::Word(W::On),
        "ignoring" => Tok::Word(W::Ignoring),
        "group_left" => Tok::Word(W::GroupLeft),
        "group_right" => Tok::Word(W::GroupRight),
        "bool" => Tok::Word(W::Bool),
        "start" => Tok::Word(W::Start),
        "end" => Tok::Word(W::End),
        "step" => Tok::Word(W::Step),
        "range" => Tok::Word(W::Range),
        "min_of" => Tok::Word(W::MinOf),
        "max_of" => Tok::Word(W::MaxOf),
        "anchored" => Tok::Word(W::Anchored),
        "smoothed" => Tok::Word(W::Smoothed),
        "fill" => Tok::Word(W::Fill),
        "fill_left" => Tok::Word(W::FillLeft),
        "fill_right" => Tok::Word(W::FillRight),
        "inf" | "nan" => Tok::Number,
        _ => return None,
    })
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alpha(c: u8) -> bool {
    c == b'_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: u8) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// Quotes a character as Go's `%q` does.
pub(super) fn quote_char(c: char) -> String {
    match c {
        '\'' => r"'\''".into(),
        '\\' => r"'\\'".into(),
        '\n' => r"'\n'".into(),
        '\r' => r"'\r'".into(),
        '\t' => r"'\t'".into(),
        '\x07' => r"'\a'".into(),
        '\x08' => r"'\b'".into(),
        '\x0b' => r"'\v'".into(),
        '\x0c' => r"'\f'".into(),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => format!(r"'\x{:02x}'", c as u32),
        c if c.is_control() => format!(r"'\u{:04x}'", c as u32),
        c => format!("'{c}'"),
    }
}

/// Cuts `text` into tokens.
pub(super) fn tokenize(text: &str) -> Tokens {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        start: 0,
        pos: 0,
        paren_depth: 0,
        got_duration: false,
        got_colon: false,
        list: Vec::with_capacity(text.len() / 4 + 4),
    };
    let mut mode = Mode::Statement;
    loop {
        let step = match mode {
            Mode::Statement => lexer.statement(),
            Mode::Braces => lexer.braces(),
            Mode::Brackets => lexer.brackets(),
        };
        match step {
            Ok(Some(next)) => mode = next,
            Ok(None) => return Tokens { list: lexer.list, error: String::new() },
            Err(error) => {
                let span = Span { start: lexer.start as u32, end: text.len() as u32 };
                lexer.list.push(Token { kind: Tok::Error, span });
                return Tokens { list: lexer.list, error };
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Statement,
    Braces,
    Brackets,
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Start of the token under way.
    start: usize,
    pos: usize,
    paren_depth: u32,
    got_duration: bool,
    got_colon: bool,
    list: Vec<Token>,
}

type Step = Result<Option<Mode>, String>;

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    fn accept(&mut self, set: &[u8]) -> bool {
        let found = self.peek().is_some_and(|c| set.contains(&c));
        self.pos += usize::from(found);
        found
    }

    /// The character at the position, for messages.
    fn char_here(&self) -> char {
        self.text.get(self.pos..).and_then(|rest| rest.chars().next()).unwrap_or('\u{fffd}')
    }

    fn emit(&mut self, kind: Tok) {
        self.list.push(Token { kind, span: Span { start: self.start as u32, end: self.pos as u32 } });
        self.start = self.pos;
    }

    /// Skips blanks and comments; the next token begins where it stops.
    fn skip_blanks(&mut self, comments: bool) {
        while let Some(c) = self.peek() {
            if is_space(c) {
                self.pos += 1;
            } else if c == b'#' && comments {
                while self.peek().is_some_and(|c| c != b'\n' && c != b'\r') {
                    self.pos += 1;
                }
            } else {
                break;
            }
        }
        self.start = self.pos;
    }

    fn statement(&mut self) -> Step {
        use BinaryOp as B;
        self.skip_blanks(true);
        let Some(c) = self.peek() else {
            if self.paren_depth > 0 {
                return Err("unclosed left parenthesis".into());
            }
            self.emit(Tok::Eof);
            return Ok(None);
        };
        if c.is_ascii_digit() || (c == b'.' && self.bytes.get(self.pos + 1).is_some_and(u8::is_ascii_digit)) {
            self.number_or_duration()?;
            return Ok(Some(Mode::Statement));
        }
        if is_alpha(c) || c == b':' {
            self.word();
            return Ok(Some(Mode::Statement));
        }
        if matches!(c, b'"' | b'\'' | b'`') {
            self.string(c)?;
            return Ok(Some(Mode::Statement));
        }
        let unknown = self.char_here();
        self.pos += 1;
        let kind = match c {
            b',' => Tok::Comma,
            b'*' => Tok::Op(B::Mul),
            b'/' => Tok::Op(B::Div),
            b'%' => Tok::Op(B::Mod),
            b'+' => Tok::Op(B::Add),
            b'-' => Tok::Op(B::Sub),
            b'^' => Tok::Op(B::Pow),
            b'@' => Tok::At,
            b'=' => {
                if self.accept(b"=") {
                    Tok::Op(B::Eql)
                } else if self.peek() == Some(b'~') {
                    return Err("unexpected character after '=': '~'".into());
                } else {
                    Tok::Equal
                }
            }
            b'!' => {
                if !self.accept(b"=") {
                    return Err(format!("unexpected character after '!': {}", self.quoted_here()));
                }
                Tok::Op(B::Neq)
            }
            b'<' => {
                if self.accept(b"=") {
                    Tok::Op(B::Lte)
                } else if self.accept(b"/") {
                    Tok::Op(B::TrimUpper)
                } else {
                    Tok::Op(B::Lss)
                }
            }
            b'>' => {
                if self.accept(b"=") {
                    Tok::Op(B::Gte)
                } else if self.accept(b"/") {
                    Tok::Op(B::TrimLower)
                } else {
                    Tok::Op(B::Gtr)
                }
            }
            b'(' => {
                self.paren_depth += 1;
                Tok::LeftParen
            }
            b')' => {
                self.close_paren()?;
                Tok::RightParen
            }
            b'{' => {
                self.emit(Tok::LeftBrace);
                return Ok(Some(Mode::Braces));
            }
            b'[' => {
                self.emit(Tok::LeftBracket);
                self.got_colon = false;
                self.got_duration = false;
                return Ok(Some(Mode::Brackets));
            }
            b']' => return Err("unexpected right bracket ']'".into()),
            _ => return Err(format!("unexpected character: {}", quote_char(unknown))),
        };
        self.emit(kind);
        Ok(Some(Mode::Statement))
    }

    fn close_paren(&mut self) -> Result<(), String> {
        match self.paren_depth.checked_sub(1) {
            Some(depth) => self.paren_depth = depth,
            None => {
                // Prometheus names the position behind it.
                self.start = self.pos;
                return Err("unexpected right parenthesis ')'".into());
            }
        }
        Ok(())
    }

    /// The next character in Go's quotes; the end of input prints as Go's −1 rune does.
    fn quoted_here(&self) -> String {
        quote_char(if self.pos < self.bytes.len() { self.char_here() } else { '\u{fffd}' })
    }

    fn word(&mut self) {
        let mut colon = false;
        while let Some(c) = self.peek().filter(|c| is_alphanumeric(*c) || *c == b':') {
            colon |= c == b':';
            self.pos += 1;
        }
        let word = &self.text[self.start..self.pos];
        self.emit(keyword(word).unwrap_or(if colon { Tok::MetricIdent } else { Tok::Ident }));
    }

    fn braces(&mut self) -> Step {
        self.skip_blanks(true);
        let Some(c) = self.peek() else {
            return Err("unexpected end of input inside braces".into());
        };
        if is_alpha(c) {
            while self.peek().is_some_and(is_alphanumeric) {
                self.pos += 1;
            }
            self.emit(Tok::Ident);
            return Ok(Some(Mode::Braces));
        }
        if matches!(c, b'"' | b'\'' | b'`') {
            self.string(c)?;
            return Ok(Some(Mode::Braces));
        }
        let unknown = self.char_here();
        self.pos += 1;
        let kind = match c {
            b',' => Tok::Comma,
            b'=' if self.accept(b"~") => Tok::EqualRegex,
            b'=' => Tok::Equal,
            b'!' if self.accept(b"~") => Tok::NotRegex,
            b'!' if self.accept(b"=") => Tok::Op(BinaryOp::Neq),
            b'!' => {
                return Err(format!("unexpected character after '!' inside braces: {}", self.quoted_here()));
            }
            b'{' => return Err("unexpected left brace '{'".into()),
            b'}' => {
                self.emit(Tok::RightBrace);
                return Ok(Some(Mode::Statement));
            }
            _ => return Err(format!("unexpected character inside braces: {}", quote_char(unknown))),
        };
        self.emit(kind);
        Ok(Some(Mode::Braces))
    }

    fn brackets(&mut self) -> Step {
        use BinaryOp as B;
        self.skip_blanks(false);
        let Some(c) = self.peek() else {
            return Err("unexpected end of input in duration expression".into());
        };
        if c.is_ascii_digit() || (c == b'.' && self.bytes.get(self.pos + 1).is_some_and(u8::is_ascii_digit)) {
            self.got_duration = true;
            self.number_or_duration()?;
            return Ok(Some(Mode::Brackets));
        }
        let unknown = self.char_here();
        let refused = || Err(format!("unexpected character in duration expression: {}", quote_char(unknown)));
        if is_alpha(c) {
            let end = (self.pos..self.bytes.len()).find(|i| !is_alphanumeric(self.bytes[*i]));
            let end = end.unwrap_or(self.bytes.len());
            let kind = keyword(&self.text[self.pos..end]);
            let Some(kind @ Tok::Word(Word::Step | Word::Range | Word::MinOf | Word::MaxOf)) = kind else {
                return refused();
            };
            self.pos = end;
            self.got_duration = true;
            self.emit(kind);
            return Ok(Some(Mode::Brackets));
        }
        self.pos += 1;
        let kind = match c {
            b']' => {
                self.emit(Tok::RightBracket);
                return Ok(Some(Mode::Statement));
            }
            b':' => {
                if !self.got_duration {
                    return Err("unexpected colon before duration in duration expression".into());
                }
                if self.got_colon {
                    return Err("unexpected repeated colon in duration expression".into());
                }
                self.got_colon = true;
                Tok::Colon
            }
            b'(' => {
                self.paren_depth += 1;
                Tok::LeftParen
            }
            b')' => {
                self.close_paren()?;
                Tok::RightParen
            }
            b'+' => Tok::Op(B::Add),
            b'-' => Tok::Op(B::Sub),
            b'*' => Tok::Op(B::Mul),
            b'/' => Tok::Op(B::Div),
            b'%' => Tok::Op(B::Mod),
            b'^' => Tok::Op(B::Pow),
            b',' => Tok::Comma,
            _ => return refused(),
        };
        self.emit(kind);
        Ok(Some(Mode::Brackets))
    }

    fn number_or_duration(&mut self) -> Result<(), String> {
        if self.scan_number() {
            self.emit(Tok::Number);
            return Ok(());
        }
        if self.scan_rest_of_duration() {
            self.emit(Tok::Duration);
            return Ok(());
        }
        Err(format!("bad number or duration syntax: {}", quoted(&self.text[self.start..self.pos])))
    }

    /// Scans digits, one dot, one exponent, underscores between digits, or a hexadecimal integer. `false` leaves
    /// the position behind what was read, where a duration may go on.
    fn scan_number(&mut self) -> bool {
        const DECIMAL: &[u8] = b"0123456789";
        const HEXADECIMAL: &[u8] = b"0123456789abcdefABCDEF";
        let mut digits = DECIMAL;
        if self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            digits = HEXADECIMAL;
        }
        let hexadecimal = digits.len() > 10;
        self.accept(b".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while let Some(c) = self.peek() {
            match c {
                c if digits.contains(&c) => self.pos += 1,
                b'.' => {
                    self.pos += 1;
                    if dot || hexadecimal || self.accept(b"_.") {
                        return false;
                    }
                    dot = true;
                }
                b'e' | b'E' => {
                    self.pos += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.pos += 1;
                    if self.accept(b"._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                _ => break,
            }
        }
        !self.peek().is_some_and(is_alphanumeric)
    }

    fn scan_rest_of_duration(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(b"0123456789") {
            while self.accept(b"0123456789") {}
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let goes_on = self.peek().is_some_and(is_alphanumeric);
        // The message about a bad duration shows the character that is one too many.
        self.pos += usize::from(goes_on);
        !goes_on
    }

    /// Finds the end of a string and checks that its escapes end; their values are resolved by the parser.
    fn string(&mut self, quote: u8) -> Result<(), String> {
        self.pos += 1;
        loop {
            match self.peek() {
                None if quote == b'`' => return Err("unterminated raw string".into()),
                None => return Err("unterminated quoted string".into()),
                Some(b'\n') if quote != b'`' => return Err("unterminated quoted string".into()),
                Some(c) if c == quote => {
                    self.pos += 1;
                    self.emit(Tok::Str);
                    return Ok(());
                }
                Some(b'\\') if quote != b'`' => {
                    self.pos += 1;
                    self.pos += super::strings::check_escape(&self.text[self.pos..], quote)?;
                }
                Some(_) => self.pos += self.char_here().len_utf8(),
            }
        }
    }
}

impl Token {
    /// How Prometheus names a token in a message: `identifier "x"`, `<op:+>`, `<by>`, `"("`.
    pub(super) fn describe(&self, text: &str) -> String {
        let written = &text[self.span.start as usize..self.span.end as usize];
        let shown = || {
            if written.len() > 10 {
                let cut: String = written.chars().take(10).collect();
                format!("{}...", quoted(&cut))
            } else {
                quoted(written)
            }
        };
        match self.kind {
            Tok::Eof | Tok::Error => "end of input".into(),
            Tok::Ident => format!("identifier {}", quoted(written)),
            Tok::MetricIdent => format!("metric identifier {}", quoted(written)),
            Tok::Str => format!("string {}", shown()),
            Tok::Number => format!("number {}", shown()),
            Tok::Duration => format!("duration {}", shown()),
            Tok::Op(_) | Tok::EqualRegex | Tok::NotRegex | Tok::At => format!("<op:{written}>"),
            Tok::Aggregate(_) => format!("<aggr:{written}>"),
            Tok::Word(Word::Start | Word::End | Word::Step | Word::Range | Word::MinOf | Word::MaxOf) => {
                shown()
            }
            Tok::Word(_) => format!("<{written}>"),
            _ => shown(),
        }
    }
}
