//! Regular expressions as Prometheus understands them: Go's RE2 dialect, anchored at both ends, the dot
//! matching a line feed.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// Why a pattern was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("error parsing regexp: {message}: `{pattern}`")]
pub struct RegexError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    pub message: String,
}

/// A compiled pattern that must match the whole text.
#[derive(Debug, Clone)]
pub struct AnchoredRegex {
    pattern: Box<str>,
    regex: Regex,
}

impl AnchoredRegex {
    /// Compiles `^(?s:pattern)$`.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let config = syntax::Config::new().dot_matches_new_line(true);
        Regex::builder()
            .syntax(config)
            .build(&format!("^(?:{pattern})$"))
            .map(|regex| Self { pattern: pattern.into(), regex })
            .map_err(|e| RegexError { pattern: pattern.into(), message: e.to_string() })
    }

    /// The pattern as given, without the anchors.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Expands a Go replacement template (`$1`, `${name}`, `$$`) with the groups of a match of the whole text;
    /// `None` when the text does not match.
    #[must_use]
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        let mut captures = self.regex.create_captures();
        self.regex.captures(text, &mut captures);
        if !captures.is_match() {
            return None;
        }
        let mut out = String::new();
        captures.interpolate_string_into(text, template, &mut out);
        Some(out)
    }
}

/// A compiled pattern that matches anywhere in a text.
#[derive(Debug, Clone)]
pub struct GoRegex(Regex);

impl GoRegex {
    /// Compiles `pattern`.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        Regex::new(pattern)
            .map(Self)
            .map_err(|e| RegexError { pattern: pattern.into(), message: e.to_string() })
    }

    /// Whether some part of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Replaces every match by the expanded `template`.
    #[must_use]
    pub fn replace_all(&self, text: &str, template: &str) -> String {
        let mut out = String::new();
        let mut last = 0;
        for captures in self.0.captures_iter(text) {
            if let Some(found) = captures.get_match() {
                out.push_str(&text[last..found.start()]);
                captures.interpolate_string_into(text, template, &mut out);
                last = found.end();
            }
        }
        out.push_str(&text[last..]);
        out
    }
}
