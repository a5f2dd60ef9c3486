//! From Go's regular-expression syntax (RE2, `regexp/syntax` with the Perl flags) to a `regex_syntax` HIR.
//!
//! The dialects look alike and differ in places that real dashboards use: brackets inside classes, `{` that
//! begins no repetition, `\Q…\E`, octal escapes, ASCII-only `\d \w \s \b`, no set operations in classes, no
//! stacked repetitions. Error messages are Go's.

use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

/// Deepest nesting of groups; the compiler behind recurses.
const MAX_NESTING: u32 = 200;
/// Largest repetition count, also when repetitions nest.
const MAX_REPEAT: u32 = 1000;

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct Parsed {
    pub hir: Hir,
    /// Name of each group; index 0 is the whole match.
    pub groups: Vec<Option<Box<str>>>,
}

#[derive(Debug, Clone, Copy)]
struct Flags {
    fold: bool,
    dot_newline: bool,
    multi_line: bool,
    ungreedy: bool,
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
    flags: Flags,
    groups: Vec<Option<Box<str>>>,
    depth: u32,
}

type Result<T> = std::result::Result<T, String>;

/// Parses a pattern. `dot_newline` lets the dot match a line feed from the start.
pub(super) fn parse(pattern: &str, dot_newline: bool) -> Result<Parsed> {
    let flags = Flags { fold: false, dot_newline, multi_line: false, ungreedy: false };
    let mut parser = Parser { text: pattern, pos: 0, flags, groups: vec![None], depth: 0 };
    let hir = parser.alternation()?;
    if parser.peek().is_some() {
        return Err(format!("unexpected ): `{pattern}`"));
    }
    Ok(Parsed { hir, groups: parser.groups })
}

/// One item of a concatenation, with what a following repetition must know.
struct Item {
    hir: Hir,
    /// Where the repetition operators behind the item begin, if there are any.
    repeated_from: Option<usize>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.pos += text.len();
        }
        found
    }

    /// Alternatives up to a closing parenthesis or the end.
    fn alternation(&mut self) -> Result<Hir> {
        let mut branches = vec![self.concatenation()?];
        while self.accept("|") {
            branches.push(self.concatenation()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Hir::alternation(branches) })
    }

    fn concatenation(&mut self) -> Result<Hir> {
        let mut items: Vec<Item> = Vec::new();
        while let Some(c) = self.peek() {
            let start = self.pos;
            match c {
                '|' | ')' => break,
                '*' | '+' | '?' => {
                    self.pos += 1;
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(&mut items, start, min, max)?;
                    continue;
                }
                '{' => {
                    if let Some((min, max)) = self.counts() {
                        let too_many = |n: u32| n > MAX_REPEAT;
                        if too_many(min) || max.is_some_and(|max| too_many(max) || max < min) {
                            return Err(format!("invalid repeat count: `{}`", &self.text[start..self.pos]));
                        }
                        self.repeat(&mut items, start, min, max)?;
                        continue;
                    }
                    self.pos += 1;
                    self.push_char(&mut items, '{');
                }
                '(' => {
                    if let Some(hir) = self.group()? {
                        items.push(Item { hir, repeated_from: None });
                    }
                }
                '[' => {
                    let hir = self.class()?;
                    items.push(Item { hir, repeated_from: None });
                }
                '.' => {
                    self.pos += 1;
                    items.push(Item { hir: self.dot(), repeated_from: None });
                }
                '^' | '$' => {
                    self.pos += 1;
                    let look = match (c, self.flags.multi_line) {
                        ('^', false) => Look::Start,
                        ('^', true) => Look::StartLF,
                        (_, false) => Look::End,
                        (_, true) => Look::EndLF,
                    };
                    items.push(Item { hir: Hir::look(look), repeated_from: None });
                }
                '\\' => self.escape_item(&mut items)?,
                c => {
                    self.pos += c.len_utf8();
                    self.push_char(&mut items, c);
                }
            }
        }
        Ok(Hir::concat(items.into_iter().map(|item| item.hir).collect()))
    }

    fn push_char(&self, items: &mut Vec<Item>, c: char) {
        items.push(Item { hir: self.char(c), repeated_from: None });
    }

    fn char(&self, c: char) -> Hir {
        if self.flags.fold {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            class.case_fold_simple();
            return Hir::class(Class::Unicode(class));
        }
        Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes())
    }

    fn dot(&self) -> Hir {
        let mut class = ClassUnicode::empty();
        if !self.flags.dot_newline {
            class.push(ClassUnicodeRange::new('\n', '\n'));
        }
        class.negate();
        Hir::class(Class::Unicode(class))
    }

    /// `{n}`, `{n,}`, `{n,m}` at the position; anything else is no repetition and leaves the position alone.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let close = self.rest().find('}')?;
        let inner = &self.rest()[1..close];
        let number = |digits: &str| -> Option<u32> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            // A leading zero makes it no number; one that does not fit is far above the limit.
            (plain && (digits.len() == 1 || !digits.starts_with('0')))
                .then(|| digits.parse().unwrap_or(u32::MAX))
        };
        let counts = match inner.split_once(',') {
            None => number(inner).map(|n| (n, Some(n))),
            Some((min, "")) => number(min).map(|n| (n, None)),
            Some((min, max)) => Some((number(min)?, Some(number(max)?))),
        }?;
        self.pos += close + 1;
        Some(counts)
    }

    /// Applies a repetition whose operator begins at `start` to the last item.
    fn repeat(&mut self, items: &mut [Item], start: usize, min: u32, max: Option<u32>) -> Result<()> {
        let end = self.pos;
        let greedy = self.accept("?") == self.flags.ungreedy;
        let Some(last) = items.last_mut() else {
            return Err(format!("missing argument to repetition operator: `{}`", &self.text[start..end]));
        };
        // Go checks stacking before anything else.
        if let Some(from) = last.repeated_from.filter(|_| self.stacked(start)) {
            return Err(format!("invalid nested repetition operator: `{}`", &self.text[from..self.pos]));
        }
        let sub = std::mem::replace(&mut last.hir, Hir::empty());
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(sub) });
        if (min >= 2 || max.is_some_and(|max| max >= 2)) && !repeats_at_most(&hir, MAX_REPEAT, 0) {
            return Err(format!("invalid repeat count: `{}`", &self.text[start..end]));
        }
        last.hir = hir;
        last.repeated_from = Some(start);
        Ok(())
    }

    /// Whether the operator at `start` directly follows another one.
    fn stacked(&self, start: usize) -> bool {
        // A flag group between the two, `a*(?i)*`, ends the first.
        !self.text[..start].ends_with(')')
    }

    /// A group, or a change of flags, which is no item.
    fn group(&mut self) -> Result<Option<Hir>> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(format!("expression nests too deeply: `{}`", self.text));
        }
        let outer = self.flags;
        let start = self.pos;
        self.pos += 1;
        let mut capture = None;
        if self.rest().starts_with('?') {
            if self.rest().starts_with("?P<") || self.rest().starts_with("?<") {
                capture = Some(Some(self.group_name(start)?));
            } else if !self.group_flags(start)? {
                self.depth -= 1;
                return Ok(None);
            }
        } else {
            capture = Some(None);
        }
        let index = self.groups.len() as u32;
        let captures = capture.is_some();
        let name = capture.flatten();
        if captures {
            self.groups.push(name.clone());
        }
        let hir = self.alternation()?;
        if !self.accept(")") {
            return Err(format!("missing closing ): `{}`", self.text));
        }
        self.flags = outer;
        self.depth -= 1;
        Ok(Some(if captures { Hir::capture(Capture { index, name, sub: Box::new(hir) }) } else { hir }))
    }

    fn group_name(&mut self, start: usize) -> Result<Box<str>> {
        let _ = self.accept("?P<") || self.accept("?<");
        let Some(close) = self.rest().find('>') else {
            return Err(format!("invalid named capture: `{}`", &self.text[start..]));
        };
        let name = &self.rest()[..close];
        self.pos += close + 1;
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid || self.groups.iter().any(|g| g.as_deref() == Some(name)) {
            return Err(format!("invalid named capture: `{}`", &self.text[start..self.pos]));
        }
        Ok(name.into())
    }

    /// Reads `?flags:` (answers `true`) or `?flags)` (answers `false`).
    fn group_flags(&mut self, start: usize) -> Result<bool> {
        self.pos += 1;
        let mut flags = self.flags;
        let (mut on, mut any) = (true, false);
        loop {
            let Some(c) = self.next() else {
                return Err(format!("missing closing ): `{}`", &self.text[start..]));
            };
            match c {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.ungreedy = on,
                '-' if on => {
                    on = false;
                    // Behind the minus sign there must be a flag again.
                    any = false;
                    continue;
                }
                ':' | ')' if on || any => {
                    self.flags = flags;
                    return Ok(c == ':');
                }
                _ => {
                    let shown = &self.text[start..self.pos];
                    return Err(format!("invalid or unsupported Perl syntax: `{shown}`"));
                }
            }
            any = true;
        }
    }

    /// An escape outside classes.
    fn escape_item(&mut self, items: &mut Vec<Item>) -> Result<()> {
        let look = match self.rest().as_bytes().get(1) {
            Some(b'A') => Some(Look::Start),
            Some(b'z') => Some(Look::End),
            Some(b'b') => Some(Look::WordAscii),
            Some(b'B') => Some(Look::WordAsciiNegate),
            Some(b'Q') => {
                self.pos += 2;
                let (literal, skip) = match self.rest().find("\\E") {
                    Some(end) => (&self.rest()[..end], end + 2),
                    None => (self.rest(), self.rest().len()),
                };
                self.pos += skip;
                for c in literal.chars() {
                    self.push_char(items, c);
                }
                return Ok(());
            }
            _ => None,
        };
        if let Some(look) = look {
            self.pos += 2;
            items.push(Item { hir: Hir::look(look), repeated_from: None });
            return Ok(());
        }
        if let Some(class) = self.class_escape()? {
            items.push(Item { hir: Hir::class(Class::Unicode(class)), repeated_from: None });
            return Ok(());
        }
        let c = self.escape()?;
        self.push_char(items, c);
        Ok(())
    }

    /// `\d`, `\w`, `\s`, `\pX`, `\p{Name}` and their negations, if one stands here.
    fn class_escape(&mut self) -> Result<Option<ClassUnicode>> {
        let bytes = self.rest().as_bytes();
        let Some(&letter) = bytes.get(1) else { return Ok(None) };
        let ranges: &[(char, char)] = match letter.to_ascii_lowercase() {
            b'd' => &[('0', '9')],
            b's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
            b'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            b'p' => return self.unicode_class().map(Some),
            _ => return Ok(None),
        };
        self.pos += 2;
        Ok(Some(self.finished(of_ranges(ranges), letter.is_ascii_uppercase())))
    }

    /// Folds, then negates.
    fn finished(&self, mut class: ClassUnicode, negated: bool) -> ClassUnicode {
        if self.flags.fold {
            class.case_fold_simple();
        }
        if negated {
            class.negate();
        }
        class
    }

    fn unicode_class(&mut self) -> Result<ClassUnicode> {
        let start = self.pos;
        let mut negated = self.rest().as_bytes().get(1) == Some(&b'P');
        self.pos += 2;
        let invalid = |parser: &Self| {
            Err(format!("invalid character class range: `{}`", &parser.text[start..parser.pos]))
        };
        let mut name = match self.next() {
            None => return invalid(self),
            Some('{') => {
                let Some(close) = self.rest().find('}') else {
                    self.pos = self.text.len();
                    return invalid(self);
                };
                let name = &self.rest()[..close];
                self.pos += close + 1;
                name
            }
            Some(c) => &self.text[self.pos - c.len_utf8()..self.pos],
        };
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest;
        }
        match named_class(name) {
            Some(class) => Ok(self.finished(class, negated)),
            None => invalid(self),
        }
    }

    /// An escape that stands for one character; the position is at the backslash.
    fn escape(&mut self) -> Result<char> {
        let start = self.pos;
        self.pos += 1;
        let Some(c) = self.next() else {
            return Err("trailing backslash at end of expression: ``".into());
        };
        let octal = |c: Option<char>| c.and_then(|c| c.to_digit(8));
        match c {
            // One digit alone would be a back-reference.
            '1'..='7' if octal(self.peek()).is_none() => {}
            '0'..='7' => {
                let mut value = octal(Some(c)).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = octal(self.peek()) else { break };
                    value = value * 8 + digit;
                    self.pos += 1;
                }
                if let Some(c) = char::from_u32(value) {
                    return Ok(c);
                }
            }
            'x' => {
                if let Some(c) = self.hexadecimal() {
                    return Ok(c);
                }
            }
            'a' => return Ok('\x07'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c),
            _ => {}
        }
        Err(format!("invalid escape sequence: `{}`", &self.text[start..self.pos]))
    }

    fn hexadecimal(&mut self) -> Option<char> {
        if self.accept("{") {
            let close = self.rest().find('}')?;
            let digits = &self.rest()[..close];
            let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if !valid {
                return None;
            }
            self.pos += close + 1;
            return u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        }
        let digits = self.rest().get(..2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.pos += 2;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
    }

    fn class(&mut self) -> Result<Hir> {
        let start = self.pos;
        self.pos += 1;
        let negated = self.accept("^");
        let mut class = ClassUnicode::empty();
        let mut first = true;
        loop {
            let Some(c) = self.peek() else {
                return Err(format!("missing closing ]: `{}`", &self.text[start..]));
            };
            if c == ']' && !first {
                self.pos += 1;
                break;
            }
            first = false;
            if self.rest().starts_with("[:")
                && let Some(named) = self.posix_class()?
            {
                class.union(&named);
                continue;
            }
            if c == '\\'
                && let Some(named) = self.class_escape()?
            {
                class.union(&named);
                continue;
            }
            let from = self.pos;
            let low = self.class_char(start)?;
            let mut high = low;
            if self.rest().starts_with('-') && self.rest().len() >= 2 && !self.rest()[1..].starts_with(']') {
                self.pos += 1;
                high = self.class_char(start)?;
                if high < low {
                    let shown = &self.text[from..self.pos];
                    return Err(format!("invalid character class range: `{shown}`"));
                }
            }
            let mut range = ClassUnicode::new([ClassUnicodeRange::new(low, high)]);
            if self.flags.fold {
                range.case_fold_simple();
            }
            class.union(&range);
        }
        if negated {
            class.negate();
        }
        Ok(Hir::class(Class::Unicode(class)))
    }

    fn class_char(&mut self, class_start: usize) -> Result<char> {
        match self.peek() {
            None => Err(format!("missing closing ]: `{}`", &self.text[class_start..])),
            Some('\\') => self.escape(),
            Some(c) => {
                self.pos += c.len_utf8();
                Ok(c)
            }
        }
    }

    /// `[:alpha:]` and the like; `None` if no `:]` follows, so that the bracket is an ordinary character.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>> {
        let Some(close) = self.rest()[2..].find(":]") else { return Ok(None) };
        let whole = &self.rest()[..close + 4];
        let mut name = &self.rest()[2..close + 2];
        let negated = name.starts_with('^');
        if negated {
            name = &name[1..];
        }
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7f')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return Err(format!("invalid character class range: `{whole}`")),
        };
        self.pos += whole.len();
        Ok(Some(self.finished(of_ranges(ranges), negated)))
    }
}

fn of_ranges(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)))
}

/// A Unicode general category or script; other properties do not exist in Go.
fn named_class(name: &str) -> Option<ClassUnicode> {
    let plain: String =
        name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    match plain.as_str() {
        "any" => return Some(of_ranges(&[('\0', char::MAX)])),
        "ascii" => return Some(of_ranges(&[('\0', '\x7f')])),
        // Surrogates never occur in text.
        "cs" | "surrogate" => return Some(ClassUnicode::empty()),
        _ => {}
    }
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(&b));
    if !valid {
        return None;
    }
    [format!(r"\p{{gc={plain}}}"), format!(r"\p{{sc={plain}}}")].iter().find_map(|pattern| {
        match regex_syntax::parse(pattern).ok()?.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            _ => None,
        }
    })
}

/// Whether nested repetitions multiply to at most `limit`.
fn repeats_at_most(hir: &Hir, limit: u32, depth: u32) -> bool {
    if depth > 2 * MAX_NESTING {
        return false;
    }
    let mut limit = limit;
    if let HirKind::Repetition(r) = hir.kind() {
        // `*`, `+` and `?` are no counted repetitions.
        let counted = !matches!((r.min, r.max), (0 | 1, None) | (0, Some(1)));
        let times = r.max.unwrap_or(r.min);
        if counted && times > limit {
            return false;
        }
        if counted && times > 0 {
            limit /= times;
        }
    }
    hir.kind().subs().iter().all(|sub| repeats_at_most(sub, limit, depth + 1))
}
