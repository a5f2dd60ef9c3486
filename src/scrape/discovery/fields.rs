//! How are foreign documents read without describing all of them? Leniently, by path: what is missing or of another
//! kind is empty. Also collects the labels of a target under a common prefix.

use serde_json::Value;

use super::{LabelMap, sanitize, surrounded};

/// A place in a JSON document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Value);

impl<'a> Fields<'a> {
    /// The value at a JSON pointer (RFC 6901), null if there is none.
    pub(super) fn at(self, pointer: &str) -> Fields<'a> {
        Fields(self.0.pointer(pointer).unwrap_or(&Value::Null))
    }

    /// A text, number or boolean as text; nothing for other kinds.
    pub(super) fn some(self, pointer: &str) -> Option<String> {
        match self.at(pointer).0 {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// As [`Fields::some`], empty instead of nothing.
    pub(super) fn text(self, pointer: &str) -> String {
        self.some(pointer).unwrap_or_default()
    }

    /// A whole number, 0 if it is none.
    pub(super) fn number(self, pointer: &str) -> i64 {
        match self.at(pointer).0 {
            Value::Number(number) => number.as_i64().unwrap_or_default(),
            Value::String(text) => text.parse().unwrap_or_default(),
            _ => 0,
        }
    }

    /// Whether there is something other than null.
    pub(super) fn has(self, pointer: &str) -> bool {
        !self.at(pointer).0.is_null()
    }

    /// Whether the value is `true`.
    pub(super) fn is_true(self, pointer: &str) -> bool {
        self.at(pointer).0 == &Value::Bool(true)
    }

    /// The items of a list.
    pub(super) fn items(self, pointer: &str) -> impl Iterator<Item = Fields<'a>> + use<'a> {
        self.at(pointer).0.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(Fields)
    }

    /// The texts of a list.
    pub(super) fn texts(self, pointer: &str) -> Vec<String> {
        self.items(pointer).map(|item| item.text("")).collect()
    }

    /// The members of an object.
    pub(super) fn members(self, pointer: &str) -> impl Iterator<Item = (&'a str, Fields<'a>)> + use<'a> {
        let object = self.at(pointer).0.as_object();
        object.into_iter().flat_map(|o| o.iter().map(|(name, value)| (name.as_str(), Fields(value))))
    }
}

/// The labels of one target.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    prefix: &'static str,
    labels: LabelMap,
}

impl Meta {
    /// No labels yet; names begin with `prefix`.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix, labels: LabelMap::new() }
    }

    /// Sets a label.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.labels.insert(format!("{}{name}", self.prefix), value.into());
    }

    /// Sets a label unless the value is missing.
    pub(super) fn set_some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Sets labels from fields of a document, empty where a field is missing: pairs of name and pointer.
    pub(super) fn copy(&mut self, from: Fields<'_>, pairs: &[(&str, &str)]) {
        for (name, pointer) in pairs {
            self.set(name, from.text(pointer));
        }
    }

    /// As [`Meta::copy`], leaving out what is missing.
    pub(super) fn copy_some(&mut self, from: Fields<'_>, pairs: &[(&str, &str)]) {
        for (name, pointer) in pairs {
            self.set_some(name, from.some(pointer));
        }
    }

    /// Sets a list joined by, and within, the separator, unless it is empty.
    pub(super) fn set_list(&mut self, name: &str, values: &[String], separator: &str) {
        if !values.is_empty() {
            self.set(name, surrounded(values.iter().map(String::as_str), separator));
        }
    }

    /// Sets a label for each pair, its name made valid.
    pub(super) fn set_tags(&mut self, prefix: &str, tags: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in tags {
            self.set(&format!("{prefix}{}", sanitize(&name)), value);
        }
    }

    /// Sets a label whose name does not begin with the prefix.
    pub(super) fn set_plain(&mut self, name: &str, value: impl Into<String>) {
        self.labels.insert(name.to_owned(), value.into());
    }

    /// The target at this address.
    pub(super) fn at(mut self, address: impl Into<String>) -> LabelMap {
        self.labels.insert("__address__".into(), address.into());
        self.labels
    }

    /// The labels without an address.
    pub(super) fn labels(self) -> LabelMap {
        self.labels
    }
}
