//! Label matchers: which series does a selector mean? An absent label counts as the empty string.

use std::fmt;
use std::sync::Arc;

use super::labels::{is_legacy_label_name, write_quoted};
use super::regex::{AnchoredRegex, RegexError};

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// One condition on one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Label name.
    pub name: Arc<str>,
    /// Comparison.
    pub op: MatchOp,
    /// Text or pattern to compare with.
    pub value: Arc<str>,
    regex: Option<Arc<AnchoredRegex>>,
}

impl Matcher {
    /// Builds a matcher; fails if a pattern is not valid in Go's RE2 dialect or too large.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, RegexError> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(AnchoredRegex::new(value)?)),
        };
        Ok(Self { name: name.into(), op, value: value.into(), regex })
    }

    /// An equality matcher.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Whether a label value (empty if the label is absent) satisfies the condition.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => *self.value == *value,
            (MatchOp::NotEqual, _) => *self.value != *value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("a regex matcher always has its regex")
            }
        }
    }

    /// Whether a series without this label satisfies the condition.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The compiled pattern of `=~` and `!~`.
    #[must_use]
    pub fn regex(&self) -> Option<&AnchoredRegex> {
        self.regex.as_deref()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}
