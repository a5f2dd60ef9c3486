//! How does a node become a value? By [`FromYaml`], with null meaning "not given" as in Go, and with errors that
//! are collected in a [`Context`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::node::{self, Document, Node, NodeKind, Position};
use crate::config::error::{ConfigError, ConfigErrors, excerpt};
use crate::config::values::SECRET_TEXT;

/// Most errors that are kept for one file.
const MAX_ERRORS: usize = 100;

/// What decoding needs besides the node: the file, for relative paths and errors, and the errors so far.
#[derive(Debug)]
pub struct Context {
    file: String,
    text: String,
    dir: PathBuf,
    ignore_unknown: bool,
    errors: Vec<ConfigError>,
    /// Lines of the secrets of the file, which errors must not show.
    secrets: Vec<String>,
    /// Remarks that do not refuse the file.
    pub warnings: Vec<String>,
}

impl Context {
    /// A context for the text of `file`; relative paths resolve against `dir`.
    #[must_use]
    pub fn new(file: &str, dir: &Path, text: &str) -> Self {
        Self {
            file: file.into(),
            text: text.into(),
            dir: dir.into(),
            ignore_unknown: false,
            errors: Vec::new(),
            secrets: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Accepts fields that nobody knows.
    pub fn ignore_unknown_fields(&mut self, ignore: bool) {
        self.ignore_unknown = ignore;
    }

    /// Composes the text; faults of the document become errors of this context.
    pub fn document(&mut self) -> Document {
        match node::parse(&self.text) {
            Ok(document) => {
                for fault in &document.errors {
                    self.error(fault.at, fault.message.clone());
                }
                document
            }
            Err(fault) => {
                self.error(fault.at, fault.message);
                Document { root: Node::null(Position::default()), errors: Vec::new(), second_document: None }
            }
        }
    }

    /// Notes an error.
    pub fn error(&mut self, at: Position, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            let error = ConfigError {
                file: self.file.clone(),
                at,
                message: message.into(),
                excerpt: excerpt(&self.text, at),
            };
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }

    /// Notes a text that errors must not show.
    pub fn hide(&mut self, secret: &str) {
        self.secrets.extend(secret.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned));
    }

    /// Whether there are errors so far.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Notes a field that nobody knows.
    pub fn unknown_field(&mut self, key: &Node, section: &str, known: &[&str]) {
        if self.ignore_unknown {
            return;
        }
        let name = key.text().unwrap_or_default();
        let near = known
            .iter()
            .map(|k| (distance(name, k), *k))
            .min()
            .filter(|(d, k)| *d <= 2 && *d < k.len())
            .map_or(String::new(), |(_, k)| format!("; did you mean {k}?"));
        let known = known.join(", ");
        self.error(key.at, format!("field {name} not found in {section}{near} (known fields: {known})"));
    }

    /// Notes that a node is of the wrong kind.
    pub fn mismatch(&mut self, node: &Node, wanted: &str) {
        let got = match &node.kind {
            NodeKind::Null => "nothing",
            NodeKind::Scalar { .. } => "a scalar",
            NodeKind::Sequence(_) => "a list",
            NodeKind::Mapping(_) => "a mapping",
        };
        self.error(node.at, format!("yaml: unmarshal errors: cannot unmarshal {got} into {wanted}"));
    }

    /// Resolves a path of the file against the folder that contains the file.
    #[must_use]
    pub fn resolve(&self, path: &str) -> String {
        if path.is_empty() || Path::new(path).is_absolute() {
            return path.into();
        }
        join(&self.dir, path)
    }

    /// Ends the file: the errors in order of their place, or nothing.
    pub fn finish(mut self) -> Result<Vec<String>, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|e| e.at);
        for error in &mut self.errors {
            for secret in &self.secrets {
                if let Some(line) = error.excerpt.as_mut().filter(|line| line.contains(secret.as_str())) {
                    *line = line.replace(secret.as_str(), SECRET_TEXT);
                }
            }
        }
        Err(ConfigErrors(self.errors))
    }

    /// Decodes `node` into `field`; a null leaves the default.
    pub fn decode_into<T: FromYaml>(&mut self, field: &mut T, node: &Node) {
        if node.is_null() {
            return;
        }
        if let Some(value) = T::from_yaml(node, self) {
            *field = value;
        }
    }

    /// Notes an error for each item of the list under `key` that is null.
    pub fn no_nulls(&mut self, parent: &Node, key: &str, message: &str) {
        for item in parent.get(key).map_or(&[][..], Node::items) {
            if item.is_null() {
                self.error(item.at, message);
            }
        }
    }
}

/// Joins lexically, without asking the file system, dropping `.` and resolving `..`.
fn join(dir: &Path, path: &str) -> String {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in dir.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out.to_string_lossy().into_owned()
}

/// Levenshtein distance, for names of fields.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// A value that can be read from a node. `None` means that an error was noted.
pub trait FromYaml: Sized {
    /// Reads the node.
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self>;
}

impl FromYaml for String {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        match &node.kind {
            NodeKind::Scalar { invalid_utf8: true, .. } => {
                cx.error(node.at, "the value is not valid UTF-8");
                None
            }
            NodeKind::Scalar { text, .. } => Some(text.clone()),
            NodeKind::Null => Some(String::new()),
            _ => {
                cx.mismatch(node, "string");
                None
            }
        }
    }
}

/// The booleans of YAML 1.1, which Go's library accepts.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// The integers of YAML 1.1: underscores, `0x`, `0b`, `0o` and a leading zero for octal.
pub(super) fn parse_int(text: &str) -> Option<i128> {
    let text = text.replace('_', "");
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text.as_str()),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if body.len() > 70 || !body.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(body, radix).ok()?;
    Some(if negative { -value } else { value })
}

/// The floats of YAML 1.1.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let first = text.trim_start_matches(['+', '-']).as_bytes().first()?;
    if !(first.is_ascii_digit() || *first == b'.') {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// The text of a plain scalar, the only kind that can be a number or boolean.
fn plain<'n>(node: &'n Node, cx: &mut Context, wanted: &str) -> Option<&'n str> {
    match &node.kind {
        NodeKind::Scalar { text, plain: true, .. } => Some(text),
        _ => {
            cx.mismatch(node, wanted);
            None
        }
    }
}

impl FromYaml for bool {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = plain(node, cx, "bool")?;
        let value = parse_bool(text);
        if value.is_none() {
            cx.mismatch(node, "bool");
        }
        value
    }
}

impl FromYaml for f64 {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        let text = plain(node, cx, "float64")?;
        #[expect(clippy::cast_precision_loss, reason = "a whole number written where a float is wanted")]
        let value = parse_int(text).map(|v| v as f64).or_else(|| parse_float(text));
        if value.is_none() {
            cx.mismatch(node, "float64");
        }
        value
    }
}

macro_rules! integers {
    ($($ty:ty => $name:literal),*) => {$(
        impl FromYaml for $ty {
            fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
                let text = plain(node, cx, $name)?;
                let whole = parse_int(text).or_else(|| {
                    #[expect(clippy::cast_possible_truncation, reason = "bounded and whole")]
                    parse_float(text).filter(|f| f.fract() == 0.0 && f.abs() < 1e18).map(|f| f as i128)
                });
                let value = whole.and_then(|v| <$ty>::try_from(v).ok());
                if value.is_none() {
                    cx.mismatch(node, $name);
                }
                value
            }
        }
    )*};
}
integers!(u64 => "uint64", i64 => "int64", u32 => "uint32", i32 => "int32", u16 => "uint16");

impl<T: FromYaml> FromYaml for Option<T> {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        if node.is_null() {
            return Some(None);
        }
        T::from_yaml(node, cx).map(Some)
    }
}

impl<T: FromYaml> FromYaml for Box<T> {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        T::from_yaml(node, cx).map(Box::new)
    }
}

/// Null items of a list are left out where the item is a section; the section that owns the list reports them.
impl<T: FromYaml> FromYaml for Vec<T> {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        match &node.kind {
            NodeKind::Null => Some(Vec::new()),
            NodeKind::Sequence(items) => Some(
                items.iter().filter(|i| !i.is_null()).filter_map(|item| T::from_yaml(item, cx)).collect(),
            ),
            _ => {
                cx.mismatch(node, "list");
                None
            }
        }
    }
}

impl<T: FromYaml + Default> FromYaml for BTreeMap<String, T> {
    fn from_yaml(node: &Node, cx: &mut Context) -> Option<Self> {
        match &node.kind {
            NodeKind::Null => Some(BTreeMap::new()),
            NodeKind::Mapping(entries) => {
                let mut out = BTreeMap::new();
                for (key, value) in entries {
                    let Some(name) = String::from_yaml(key, cx) else { continue };
                    let mut item = T::default();
                    cx.decode_into(&mut item, value);
                    out.insert(name, item);
                }
                Some(out)
            }
            _ => {
                cx.mismatch(node, "map");
                None
            }
        }
    }
}
