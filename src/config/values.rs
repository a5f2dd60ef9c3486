//! Which scalar values does a configuration hold? Durations, sizes, secrets, paths, URLs, label maps: each knows
//! how it is read and how it prints.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::yaml::{Context, FromYaml, Node, NodeKind, ToYaml, Value};
use crate::model::duration::{format_duration_ms, parse_duration_ms};

/// A duration in milliseconds, written as `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PromDuration(pub i64);

impl PromDuration {
    /// Of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds * 1000)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// As a duration of the standard library; a negative one is zero.
    #[must_use]
    pub fn as_std(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// Whether it is zero, which most fields take as "not given".
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration_ms(self.0))
    }
}

impl fmt::Debug for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromYaml for PromDuration {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = String::from_yaml(node, cx)?;
        match parse_duration_ms(&text) {
            Ok(ms) => Some(Self(ms)),
            Err(message) => {
                cx.error(node.at, message);
                None
            }
        }
    }
}

impl ToYaml for PromDuration {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// A size in bytes with base-2 units (`15MB` is 15 · 2^20 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub i64);

const SIZE_UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

impl ByteSize {
    /// In bytes; a negative size is zero.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    /// Parses numbers with units, such as `1GB`, `512KiB` or `1.5MB`; a unit is required except after a bare 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("units: invalid {text}");
        let (negative, mut rest) = match text.as_bytes().first() {
            None => return Err(invalid()),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit = &rest[..unit_len];
            let power = SIZE_UNITS
                .iter()
                .position(|u| {
                    unit.strip_prefix(u).is_some_and(|tail| tail == "B" || (!u.is_empty() && tail == "iB"))
                })
                .ok_or_else(|| format!("units: unknown unit {unit} in {text}"))?;
            total += number * 1024f64.powi(i32::try_from(power).unwrap_or(0));
            rest = &rest[unit_len..];
        }
        if total >= 9.2e18 {
            return Err(format!("units: {text} is out of range"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked against the range above")]
        let bytes = total as i64;
        Ok(Self(if negative { -bytes } else { bytes }))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut rest = self.0;
        for (i, unit) in SIZE_UNITS.iter().enumerate() {
            let part = rest % 1024;
            if part != 0 || (i == 0 && rest == 0) {
                parts.push(format!("{part}{unit}{}", if i == 0 { "B" } else { "iB" }));
            }
            rest /= 1024;
            if rest == 0 {
                break;
            }
        }
        parts.iter().rev().try_for_each(|part| f.write_str(part))
    }
}

impl FromYaml for ByteSize {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = String::from_yaml(node, cx)?;
        match Self::parse(&text) {
            Ok(size) => Some(size),
            Err(message) => {
                cx.error(node.at, message);
                None
            }
        }
    }
}

impl ToYaml for ByteSize {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// What a secret prints as.
pub const SECRET_TEXT: &str = "<secret>";

/// A text that cannot print itself: `Debug`, `Display` and YAML show `<secret>`.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; every use is a place where it could leak.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is not given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { SECRET_TEXT })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromYaml for Secret {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = String::from_yaml(node, cx)?;
        cx.hide(&text);
        Some(Self(text))
    }
}

impl ToYaml for Secret {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A path, already resolved against the folder of the file that names it; empty when not given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FilePath(pub String);

impl FilePath {
    /// Whether it is not given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a path.
    #[must_use]
    pub fn as_path(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

impl FromYaml for FilePath {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        String::from_yaml(node, cx).map(|text| Self(cx.resolve(&text)))
    }
}

impl ToYaml for FilePath {
    fn to_value(&self) -> Value {
        Value::Text(self.0.clone())
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A URL as written; prints without its password. Empty when not given.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ConfigUrl(String);

impl ConfigUrl {
    /// Takes a text as a URL, with Go's idea of what a URL is: nearly anything, but no control characters, no
    /// blank in the host, no missing scheme before `://`, and a port that is a number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.chars().any(char::is_control) {
            return fault("net/url: invalid control character in URL");
        }
        if text.starts_with(':') {
            return fault("missing protocol scheme");
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            if !valid {
                return fault("first path segment in URL cannot contain colon");
            }
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            if host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
                return fault("invalid character in host name");
            }
            if host.starts_with('[') && !host.contains(']') {
                return fault("missing ']' in host");
            }
            let after =
                if host.starts_with('[') { host.rsplit(']').next().unwrap_or_default() } else { host };
            if let Some((_, port)) = after.rsplit_once(':')
                && !port.bytes().all(|b| b.is_ascii_digit())
            {
                return fault(&format!("invalid port {:?} after host", format!(":{port}")));
            }
        }
        Ok(Self(text.into()))
    }

    /// The URL with its password.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is not given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scheme, empty if there is none.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// Host and port, empty if there is none.
    #[must_use]
    pub fn host(&self) -> &str {
        let Some((_, rest)) = self.0.split_once("://") else { return "" };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }
}

impl fmt::Display for ConfigUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((scheme, rest)) = self.0.split_once("://") {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, tail) = rest.split_at(end);
            if let Some((user_info, host)) = authority.rsplit_once('@')
                && let Some((user, _)) = user_info.split_once(':')
            {
                return write!(f, "{scheme}://{user}:xxxxx@{host}{tail}");
            }
        }
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConfigUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromYaml for ConfigUrl {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = String::from_yaml(node, cx)?;
        match Self::parse(&text) {
            Ok(url) => Some(url),
            Err(message) => {
                cx.error(node.at, message);
                None
            }
        }
    }
}

impl ToYaml for ConfigUrl {
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Label names with values, names checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelMap(pub BTreeMap<String, String>);

impl FromYaml for LabelMap {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let NodeKind::Mapping(entries) = &node.kind else {
            if node.is_null() {
                return Some(Self::default());
            }
            cx.mismatch(node, "map of labels");
            return None;
        };
        let mut out = BTreeMap::new();
        for (key, value) in entries {
            let show = |n: &Node| n.text().unwrap_or_default().to_owned();
            match &key.kind {
                NodeKind::Scalar { text, invalid_utf8: false, .. } if !text.is_empty() => {}
                _ => {
                    cx.error(key.at, format!("\"{}\" is not a valid label name", show(key)));
                    continue;
                }
            }
            if matches!(value.kind, NodeKind::Scalar { invalid_utf8: true, .. }) {
                cx.error(value.at, format!("\"{}\" is not a valid label value", show(value)));
                continue;
            }
            if let Some(value) = String::from_yaml(value, cx) {
                out.insert(show(key), value);
            }
        }
        Some(Self(out))
    }
}

impl ToYaml for LabelMap {
    fn to_value(&self) -> Value {
        self.0.to_value()
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
