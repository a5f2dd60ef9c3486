//! In what shape do labels leave the parsers? As pairs in one reusable buffer, sorted by name.

use crate::model::number::format_open_metrics;
use crate::model::{Label, Labels};

/// Why the labels of a series cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label occurs twice.
    #[error("label name {0:?} is not unique: invalid sample")]
    Duplicate(String),
    /// A quoted name or a value is not UTF-8.
    #[error("invalid metric name or label names")]
    NotUtf8,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    name: (u32, u32),
    value: (u32, u32),
}

/// Label pairs over one text buffer; cleared and filled again without allocating.
#[derive(Debug, Clone, Default)]
pub struct PairBuffer {
    text: String,
    pairs: Vec<Pair>,
}

impl PairBuffer {
    /// Empties the buffer and keeps its allocations.
    pub fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
    }

    fn range(&self, range: (u32, u32)) -> &str {
        self.text.get(range.0 as usize..range.1 as usize).unwrap_or("")
    }

    fn put(&mut self, write: impl FnOnce(&mut String)) -> (u32, u32) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        (start, self.text.len() as u32)
    }

    /// Adds a label; a pair with an empty value is the same as no label, but an empty name is kept so that
    /// validation can refuse it.
    pub fn push(&mut self, name: &str, value: &str) {
        self.push_with(|out| out.push_str(name), |out| out.push_str(value));
    }

    /// Adds a label whose parts are written by functions.
    pub(super) fn push_with(&mut self, name: impl FnOnce(&mut String), value: impl FnOnce(&mut String)) {
        let before = self.text.len();
        let name = self.put(name);
        let value = self.put(value);
        if value.0 == value.1 && name.0 != name.1 {
            self.text.truncate(before);
            return;
        }
        self.pairs.push(Pair { name, value });
    }

    /// Sorts by name.
    ///
    /// # Errors
    ///
    /// A name occurs twice.
    pub(super) fn sort(&mut self) -> Result<(), LabelError> {
        let text = &self.text;
        let name = |pair: &Pair| text.get(pair.name.0 as usize..pair.name.1 as usize).unwrap_or("");
        if self.pairs.windows(2).all(|two| name(&two[0]) < name(&two[1])) {
            return Ok(());
        }
        self.pairs.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        match self.pairs.windows(2).find(|two| name(&two[0]) == name(&two[1])) {
            Some(two) => Err(LabelError::Duplicate(name(&two[0]).to_owned())),
            None => Ok(()),
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|pair| self.range(pair.name).cmp(name))
    }

    /// The value of a label of a sorted buffer, empty if absent.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.position(name).map_or("", |at| self.range(self.pairs[at].value))
    }

    /// Sets a label of a sorted buffer.
    pub fn replace(&mut self, name: &str, value: &str) {
        let new_value = self.put(|out| out.push_str(value));
        match self.position(name) {
            Ok(at) if value.is_empty() => {
                self.pairs.remove(at);
            }
            Ok(at) => self.pairs[at].value = new_value,
            Err(_) if value.is_empty() => {}
            Err(at) => {
                let new_name = self.put(|out| out.push_str(name));
                self.pairs.insert(at, Pair { name: new_name, value: new_value });
            }
        }
    }

    /// Rewrites the value of a label as OpenMetrics writes floats, if it is one.
    pub(super) fn normalise_float(&mut self, name: &str) {
        let value = self.get(name);
        if value.is_empty() {
            return;
        }
        if let Ok(number) = super::parse_float(value.as_bytes()) {
            let text = format_open_metrics(number);
            if text != self.get(name) {
                self.replace(name, &text);
            }
        }
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The labels, in order of name once sorted.
    pub fn iter(&self) -> impl Iterator<Item = Label<'_>> {
        self.pairs.iter().map(|pair| Label { name: self.range(pair.name), value: self.range(pair.value) })
    }

    /// Packs the labels of a sorted buffer.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        Labels::from_sorted(self.iter().filter(|l| !l.value.is_empty()).map(|l| (l.name, l.value)))
    }
}

/// Appends one pair in the packed form of a series text: two little-endian lengths and the bytes of both.
pub(super) fn pack_pair(out: &mut Vec<u8>, name: &str, value: &[&str]) {
    let value_len: usize = value.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(&(value_len as u32).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    for part in value {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Reads pairs back.
pub(super) fn unpack(mut packed: &[u8], out: &mut PairBuffer) -> Result<(), LabelError> {
    while !packed.is_empty() {
        let (head, rest) = packed.split_first_chunk::<8>().ok_or(LabelError::NotUtf8)?;
        let [a, b, c, d, e, f, g, h] = *head;
        let name_len = u32::from_le_bytes([a, b, c, d]) as usize;
        let value_len = u32::from_le_bytes([e, f, g, h]) as usize;
        let (name, rest) = rest.split_at_checked(name_len).ok_or(LabelError::NotUtf8)?;
        let (value, rest) = rest.split_at_checked(value_len).ok_or(LabelError::NotUtf8)?;
        let name = std::str::from_utf8(name).map_err(|_| LabelError::NotUtf8)?;
        let value = std::str::from_utf8(value).map_err(|_| LabelError::NotUtf8)?;
        out.push(name, value);
        packed = rest;
    }
    Ok(())
}
