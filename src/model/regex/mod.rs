//! Regular expressions as Prometheus understands them: Go's RE2 dialect, for matchers and relabelling anchored
//! at both ends with the dot matching a line feed ([`AnchoredRegex`]), for templates found anywhere
//! ([`GoRegex`]).
//!
//! `syntax` parses the dialect, `shape` finds the patterns that need no automaton, `template` expands
//! replacements; the automata are `regex-automata`'s.

mod shape;
mod syntax;
mod template;

use std::collections::HashSet;
use std::sync::OnceLock;

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_syntax::hir::{Hir, Look};

use shape::Shape;

/// Bytes that a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 32 << 20;

/// Why a pattern was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("error parsing regexp: {message}")]
pub struct RegexError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it, with the offending part, in Go's words.
    pub message: String,
}

impl RegexError {
    fn new(pattern: &str, message: String) -> Self {
        Self { pattern: pattern.into(), message }
    }

    fn too_large(pattern: &str) -> Self {
        Self::new(pattern, format!("expression too large: `{pattern}`"))
    }
}

/// `None` if the compiled pattern would exceed the limit, the only thing that can go wrong.
fn compile(hir: &Hir, limit: Option<usize>) -> Option<Regex> {
    let config = Regex::config().nfa_size_limit(limit);
    Regex::builder().configure(config).build_from_hir(hir).ok()
}

fn anchored(hir: Hir) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)])
}

/// A compiled pattern that must match the whole text.
#[derive(Debug, Clone)]
pub struct AnchoredRegex {
    pattern: Box<str>,
    shape: Shape,
    /// For sets too long to walk.
    set: Option<HashSet<Box<str>, foldhash::fast::FixedState>>,
    groups: Vec<Option<Box<str>>>,
    /// The parsed pattern, kept where matching does without the automaton until groups are asked for.
    lazy: Option<Box<Hir>>,
    regex: OnceLock<Regex>,
}

/// Longest literal set that is searched by bisection rather than by hash.
const SMALL_SET: usize = 8;

impl AnchoredRegex {
    /// Compiles `^(?s:pattern)$`.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let parsed = syntax::parse(pattern, true).map_err(|message| RegexError::new(pattern, message))?;
        let shape = shape::shape(&parsed.hir);
        let set = match &shape {
            Shape::Literals(texts) if texts.len() > SMALL_SET => Some(texts.iter().cloned().collect()),
            _ => None,
        };
        let regex = OnceLock::new();
        let mut lazy = None;
        if matches!(shape, Shape::Other(_)) {
            let compiled = compile(&anchored(parsed.hir), Some(MAX_COMPILED_BYTES));
            let _ = regex.set(compiled.ok_or_else(|| RegexError::too_large(pattern))?);
        } else {
            lazy = Some(Box::new(parsed.hir));
        }
        Ok(Self { pattern: pattern.into(), shape, set, groups: parsed.groups, lazy, regex })
    }

    /// The pattern as given, without the anchors.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Literals(texts) => match &self.set {
                Some(set) => set.contains(text),
                None => texts.iter().any(|t| **t == *text),
            },
            Shape::Any => true,
            Shape::NonEmpty => !text.is_empty(),
            Shape::Prefix(literal) => text.starts_with(&**literal),
            Shape::Suffix(literal) => text.ends_with(&**literal),
            Shape::Contains(literal) => memchr::memmem::find(text.as_bytes(), literal.as_bytes()).is_some(),
            Shape::Other(start) => {
                text.starts_with(&**start) && self.regex.get().is_some_and(|regex| regex.is_match(text))
            }
        }
    }

    /// The texts that match, sorted, if they can be listed: then the matcher is a look-up of values.
    #[must_use]
    pub fn literal_set(&self) -> Option<&[Box<str>]> {
        match &self.shape {
            Shape::Literals(texts) => Some(texts),
            _ => None,
        }
    }

    /// A text that every match begins with, empty if none is known: a sorted list of values need only be
    /// searched from there.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match &self.shape {
            Shape::Prefix(literal) | Shape::Other(literal) => literal,
            Shape::Literals(texts) if texts.len() == 1 => &texts[0],
            _ => "",
        }
    }

    /// Whether every text matches.
    #[must_use]
    pub fn matches_everything(&self) -> bool {
        self.shape == Shape::Any
    }

    fn automaton(&self) -> Option<&Regex> {
        if let (None, Some(hir)) = (self.regex.get(), &self.lazy) {
            // What has a simple shape is as large as its text; no limit is needed.
            let _ = self.regex.set(compile(&anchored((**hir).clone()), None)?);
        }
        self.regex.get()
    }

    /// Expands a Go replacement template (`$1`, `${name}`, `$$`) with the groups of a match of the whole text;
    /// `None` when the text does not match.
    #[must_use]
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        if !self.is_match(text) {
            return None;
        }
        let mut out = String::new();
        if !template.contains('$') {
            out.push_str(template);
            return Some(out);
        }
        let regex = self.automaton()?;
        let mut captures = regex.create_captures();
        regex.captures(text, &mut captures);
        template::expand(
            template,
            &self.groups,
            |i| captures.get_group(i).map(|s| &text[s.range()]),
            &mut out,
        );
        Some(out)
    }
}

/// A compiled pattern that may match anywhere in a text, as Go's `regexp.MustCompile` makes it.
#[derive(Debug, Clone)]
pub struct GoRegex {
    regex: Regex,
    groups: Vec<Option<Box<str>>>,
}

impl GoRegex {
    /// Compiles the pattern; the dot does not match a line feed.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let parsed = syntax::parse(pattern, false).map_err(|message| RegexError::new(pattern, message))?;
        let regex =
            compile(&parsed.hir, Some(MAX_COMPILED_BYTES)).ok_or_else(|| RegexError::too_large(pattern))?;
        Ok(Self { regex, groups: parsed.groups })
    }

    /// Whether the pattern occurs in `text` (Go's `MatchString`).
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Replaces every occurrence by the expanded template (Go's `ReplaceAllString`).
    #[must_use]
    pub fn replace_all(&self, text: &str, template: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut end = 0;
        for captures in self.regex.captures_iter(Input::new(text)) {
            let Some(whole) = captures.get_match() else { continue };
            out.push_str(&text[end..whole.start()]);
            let group = |i| captures.get_group(i).map(|s| &text[s.range()]);
            template::expand(template, &self.groups, group, &mut out);
            end = whole.end();
        }
        out.push_str(&text[end..]);
        out
    }
}

#[cfg(test)]
mod tests;
