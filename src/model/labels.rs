//! Label sets: name–value pairs sorted by name, packed into one shared allocation.
//!
//! Layout: for each label, in order of name bytes: length of the name, the name, length of the value, the
//! value. A length below 127 is one byte; longer ones are the byte 127 and four bytes of seven bits each, low
//! bits first. Every length byte is ASCII, so the whole is valid UTF-8 and slices need no `unsafe`. A clone
//! costs a reference count. Empty values are left out: an empty label is the same as no label.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::METRIC_NAME;

const LONG_LENGTH: u8 = 127;
/// Longest name or value that can be packed, 2^28 − 1 bytes.
pub const MAX_LABEL_BYTES: usize = (1 << 28) - 1;

/// Most bytes that stay reserved for packing the next set.
const KEPT_BYTES: usize = 64 << 10;

thread_local! {
    /// Room for packing, used again for the next set.
    static PACKED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One label, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label<'a> {
    /// Name.
    pub name: &'a str,
    /// Value, never empty inside [`Labels`].
    pub value: &'a str,
}

/// An immutable label set, sorted by name, without empty values and without repeated names.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

fn put_text(out: &mut String, text: &str) {
    let len = text.len();
    assert!(len <= MAX_LABEL_BYTES, "a label of {len} bytes cannot be packed");
    if len < LONG_LENGTH as usize {
        out.push(len as u8 as char);
    } else {
        out.push(LONG_LENGTH as char);
        for shift in [0, 7, 14, 21] {
            out.push(((len >> shift) & 0x7f) as u8 as char);
        }
    }
    out.push_str(text);
}

/// Splits one packed text off the front of `rest`.
#[inline]
fn take_text(rest: &str) -> (&str, &str) {
    let text = text_at(rest.as_bytes(), 0);
    (&rest[text.clone()], &rest[text.end..])
}

/// Iterates over the labels of a set in order of name.
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = Label<'a>;

    #[inline]
    fn next(&mut self) -> Option<Label<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let (name, rest) = take_text(self.0);
        let (value, rest) = take_text(rest);
        self.0 = rest;
        Some(Label { name, value })
    }
}

impl Labels {
    /// The set without labels.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Packs pairs in any order. Empty values are dropped; of a repeated name the last value wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Packs pairs that are already strictly sorted by name and have no empty value (checked in debug builds).
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::fill(|packed| {
            let mut last: Option<&str> = None;
            for (name, value) in pairs {
                debug_assert!(last.is_none_or(|last| last < name), "labels out of order at {name:?}");
                debug_assert!(!value.is_empty(), "empty value of {name:?}");
                put_text(packed, name);
                put_text(packed, value);
                last = Some(name);
            }
        })
    }

    /// One label in packed form, for [`Labels::from_packed`].
    #[must_use]
    pub fn pack(name: &str, value: &str) -> Box<str> {
        let mut packed = String::with_capacity(name.len() + value.len() + 2);
        put_text(&mut packed, name);
        put_text(&mut packed, value);
        packed.into()
    }

    /// Puts packed labels together that are strictly sorted by name and have no empty value.
    #[must_use]
    pub fn from_packed<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        Self::fill(|packed| labels.into_iter().for_each(|label| packed.push_str(label)))
    }

    fn fill(write: impl FnOnce(&mut String)) -> Self {
        // Sets are made by the thousand: growing a text for each would cost more than all the rest.
        let mut packed = PACKED.take();
        packed.clear();
        write(&mut packed);
        let labels = Self(Arc::from(packed.as_str()));
        if packed.capacity() <= KEPT_BYTES {
            PACKED.set(packed);
        }
        labels
    }

    /// The labels in order of name.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// Number of labels; walks the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the set has no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of heap that the set and all its clones take together.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        // The text stands behind two counts of references.
        2 * size_of::<usize>() + self.0.len()
    }

    /// The value of a label, if present.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        for label in self.iter() {
            match label.name.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(label.value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value of a label, empty if absent.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// The metric name, empty if absent.
    #[must_use]
    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// The packed bytes: equal sets have equal bytes, so they serve as key and hash input.
    #[must_use]
    pub fn as_packed(&self) -> &str {
        &self.0
    }

    /// A 64-bit hash (XXH3) of the packed bytes; stable across processes and platforms.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0.as_bytes())
    }

    /// The set without the metric name.
    #[must_use]
    pub fn without_name(&self) -> Self {
        if self.get(METRIC_NAME).is_none() {
            return self.clone();
        }
        Self::from_sorted(self.iter().filter(|l| l.name != METRIC_NAME).map(|l| (l.name, l.value)))
    }

    /// Only the labels for which `keep` answers true.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(Label<'_>) -> bool) -> Self {
        Self::from_sorted(self.iter().filter(|l| keep(*l)).map(|l| (l.name, l.value)))
    }

    /// The set with these labels set, which are sorted by name, each once; one without a value deletes the label.
    #[must_use]
    pub fn with<'a>(&'a self, changes: &'a [(&'a str, &'a str)]) -> Self {
        let (mut own, mut changes) = (self.iter().peekable(), changes.iter().peekable());
        let merged = std::iter::from_fn(move || {
            loop {
                let Some((name, value)) = changes.peek().copied().copied() else {
                    return own.next().map(|l| (l.name, l.value));
                };
                if let Some(label) = own.next_if(|l| l.name < name) {
                    return Some((label.name, label.value));
                }
                own.next_if(|l| l.name == name);
                changes.next();
                if !value.is_empty() {
                    return Some((name, value));
                }
            }
        });
        Self::from_sorted(merged)
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prometheus's order: label by label, name then value, bytewise; a prefix comes first.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        // Label sets of one selection begin alike: the shared beginning is skipped bytewise, then the text in which
        // the first difference lies decides.
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let same = shared_prefix(a, b);
        if same == a.len() || same == b.len() {
            return a.len().cmp(&b.len());
        }
        let mut at = 0;
        loop {
            let text = text_at(a, at);
            if text.end > same {
                return a[text].cmp(&b[text_at(b, at)]);
            }
            at = text.end;
        }
    }
}

/// Where the packed text lies whose length stands at `at`.
#[inline]
fn text_at(packed: &[u8], at: usize) -> Range<usize> {
    let (start, len) = if packed[at] < LONG_LENGTH {
        (at + 1, packed[at] as usize)
    } else {
        (at + 5, (0..4).fold(0usize, |len, i| len | ((packed[at + 1 + i] as usize) << (7 * i))))
    };
    start..start + len
}

/// Number of bytes at which two strings begin alike.
#[inline]
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let ((a_words, _), (b_words, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut same = 0;
    for (a, b) in a_words.iter().zip(b_words) {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return same + difference.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// Prints as PromQL prints a label set: `{a="b", c="d"}`, quoting names that are not plain identifiers.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(label.name) {
                f.write_str(label.name)?;
            } else {
                write_quoted(f, label.name)?;
            }
            f.write_str("=")?;
            write_quoted(f, label.value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes `text` in double quotes with Go's `strconv.Quote` escapes.
pub fn write_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    write_escaped(out, text)?;
    out.write_char('"')
}

/// `text` in double quotes with Go's escapes.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _ = write_quoted(&mut out, text);
    out
}

/// Writes bytes in double quotes as [`write_quoted`] does; what is not UTF-8 becomes `\x` escapes.
pub fn write_quoted_bytes(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    out.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        write_escaped(out, chunk.valid())?;
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    out.write_char('"')
}

/// Whether Go prints a character as it is: letters, marks, numbers, punctuation, symbols and the plain space.
fn is_printable(c: char) -> bool {
    // Behind another character the library leaves marks alone, as Go does.
    c.is_ascii() || format!("a{c}").escape_debug().nth(1) == Some(c)
}

fn write_escaped(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\x07' => out.write_str("\\a")?,
            '\x08' => out.write_str("\\b")?,
            '\x0c' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\x0b' => out.write_str("\\v")?,
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32)?,
            c if is_printable(c) => out.write_char(c)?,
            c if (c as u32) < 0x1_0000 => write!(out, "\\u{:04x}", c as u32)?,
            c => write!(out, "\\U{:08x}", c as u32)?,
        }
    }
    Ok(())
}

/// Whether `name` is `[a-zA-Z_][a-zA-Z0-9_]*`.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Whether `name` is `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b':')
}

/// Builds a label set from changes to another one. Setting an empty value deletes the label.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    /// Sorted by name, no empty values.
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl LabelsBuilder {
    /// Starts from an existing set.
    #[must_use]
    pub fn new(base: &Labels) -> Self {
        Self { pairs: base.iter().map(|l| (l.name.into(), l.value.into())).collect() }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(n, _)| (**n).cmp(name))
    }

    /// Sets a label, or deletes it when `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match (self.position(name), value.is_empty()) {
            (Ok(i), false) => self.pairs[i].1 = value.into(),
            (Ok(i), true) => {
                self.pairs.remove(i);
            }
            (Err(i), false) => self.pairs.insert(i, (name.into(), value.into())),
            (Err(_), true) => {}
        }
        self
    }

    /// Deletes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value of a label, empty if absent.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.position(name).map_or("", |i| &self.pairs[i].1)
    }

    /// The labels so far, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = Label<'_>> {
        self.pairs.iter().map(|(name, value)| Label { name, value })
    }

    /// Keeps only the labels for which `keep` answers true.
    pub fn retain(&mut self, mut keep: impl FnMut(Label<'_>) -> bool) {
        self.pairs.retain(|(name, value)| keep(Label { name, value }));
    }

    /// Packs the set.
    #[must_use]
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.pairs.iter().map(|(n, v)| (&**n, &**v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn long_values_survive_packing() {
        for len in [0usize, 1, 126, 127, 128, 16_383, 16_384, 300_000] {
            let value = "é".repeat(len);
            let labels = Labels::from_pairs([("a", value.as_str()), ("b", "x")]);
            assert_eq!(labels.value("a"), value);
            assert_eq!(labels.value("b"), "x");
        }
    }

    #[test]
    fn quotes_as_go_does() {
        for (text, want) in [
            ("a\"b\\\n\t\u{0}\u{7f}", "\"a\\\"b\\\\\\n\\t\\x00\\x7f\""),
            ("é e\u{301} € 日 😀", "\"é e\u{301} € 日 😀\""),
            ("\u{85}\u{a0}\u{200b}\u{2028}\u{feff}", "\"\\u0085\\u00a0\\u200b\\u2028\\ufeff\""),
            ("\u{e000}\u{e0001}", "\"\\ue000\\U000e0001\""),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    #[test]
    fn prints_as_promql_does() {
        let labels = Labels::from_pairs([("my.label", "a\"b\n"), ("job", "x")]);
        assert_eq!(labels.to_string(), r#"{job="x", "my.label"="a\"b\n"}"#);
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(pairs in prop::collection::vec(("[a-c]{1,3}", "\\PC{0,4}"), 0..8),
                                     other in prop::collection::vec(("[a-c]{1,3}", "\\PC{0,4}"), 0..8)) {
            let map = |pairs: &[(String, String)]| -> BTreeMap<String, String> {
                let mut map = BTreeMap::new();
                for (n, v) in pairs {
                    if v.is_empty() { map.remove(n); } else { map.insert(n.clone(), v.clone()); }
                }
                map
            };
            let (want, got) = (map(&pairs), Labels::from_pairs(pairs.iter().map(|(n, v)| (n, v))));
            prop_assert_eq!(got.iter().map(|l| (l.name.to_owned(), l.value.to_owned())).collect::<Vec<_>>(),
                            want.clone().into_iter().collect::<Vec<_>>());
            for (name, value) in &want {
                prop_assert_eq!(got.get(name), Some(value.as_str()));
            }
            let mut changed = want.clone();
            let changes: BTreeMap<&str, &str> = other.iter().map(|(n, v)| (&**n, &**v)).collect();
            for (name, value) in &changes {
                if value.is_empty() { changed.remove(*name); } else { changed.insert((*name).into(), (*value).into()); }
            }
            let changes: Vec<(&str, &str)> = changes.into_iter().collect();
            prop_assert_eq!(got.with(&changes), Labels::from_pairs(changed));
            let (want2, got2) = (map(&other), Labels::from_pairs(other.iter().map(|(n, v)| (n, v))));
            prop_assert_eq!(got.cmp(&got2), want.iter().cmp(want2.iter()));
        }
    }
}
