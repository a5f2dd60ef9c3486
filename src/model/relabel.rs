//! Relabelling: rules that rewrite, keep or drop a label set.
//!
//! A rule is compiled once; applying one allocates only where it changes the set. The semantics are those of
//! Prometheus's `model/relabel`: regular expressions match the whole text, the joined source values are hashed
//! with MD5 for `hashmod`, letter case is mapped letter by letter.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use md5::{Digest as _, Md5};

use super::labels::{Labels, LabelsBuilder, is_legacy_label_name};
use super::regex::AnchoredRegex;

/// Which names of labels and metrics are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NameScheme {
    /// Any UTF-8 text that is not empty.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`, for metrics also `:`.
    Legacy,
}

impl NameScheme {
    /// Whether `name` may name a label.
    #[must_use]
    pub fn is_valid_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `name` may name a metric.
    #[must_use]
    pub fn is_valid_metric_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => super::labels::is_legacy_metric_name(name),
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets `target_label` to the expanded replacement when the source matches.
    Replace,
    /// Drops the set unless the source matches.
    Keep,
    /// Drops the set when the source matches.
    Drop,
    /// Drops the set unless the source equals the value of `target_label`.
    KeepEqual,
    /// Drops the set when the source equals the value of `target_label`.
    DropEqual,
    /// Sets `target_label` to the hash of the source modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to the expanded name.
    LabelMap,
    /// Deletes labels whose name matches.
    LabelDrop,
    /// Deletes labels whose name does not match.
    LabelKeep,
    /// Sets `target_label` to the source in lower case.
    Lowercase,
    /// Sets `target_label` to the source in upper case.
    Uppercase,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The name in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// Finds an action by its name in any letter case.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|action| text.eq_ignore_ascii_case(action.as_str()))
            .ok_or_else(|| format!("unknown relabel action {text:?}"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The separator between source values when none is given.
pub const DEFAULT_SEPARATOR: &str = ";";
/// The regular expression when none is given.
pub const DEFAULT_REGEX: &str = "(.*)";
/// The replacement when none is given.
pub const DEFAULT_REPLACEMENT: &str = "$1";

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct RelabelRule {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// What stands between them.
    pub separator: String,
    /// What the joined values, or the names of labels, must match as a whole.
    pub regex: AnchoredRegex,
    /// The modulus of `hashmod`.
    pub modulus: u64,
    /// The label to set; for `replace` a template.
    pub target_label: String,
    /// The template of the new value, for `labelmap` of the new name.
    pub replacement: String,
    /// What to do.
    pub action: Action,
    /// Which target names are valid; a `replace` to another name does nothing.
    pub scheme: NameScheme,
}

impl PartialEq for RelabelRule {
    fn eq(&self, other: &Self) -> bool {
        self.source_labels == other.source_labels
            && self.separator == other.separator
            && self.regex.pattern() == other.regex.pattern()
            && self.modulus == other.modulus
            && self.target_label == other.target_label
            && self.replacement == other.replacement
            && self.action == other.action
            && self.scheme == other.scheme
    }
}

/// One step of a traced relabelling.
#[derive(Debug, Clone, PartialEq)]
pub struct RelabelStep {
    /// Index of the rule.
    pub rule: usize,
    /// The labels after it.
    pub output: Labels,
    /// Whether the set is still kept; when not, this is the last step.
    pub keep: bool,
}

thread_local! {
    /// Where joined source values stand while a rule looks at them.
    static JOINED: Cell<String> = const { Cell::new(String::new()) };
}

fn has_variable(template: &str) -> bool {
    template.contains('$')
}

/// Whether `text` is a legacy label name in which `$name` and `${name}` may stand for parts.
fn is_legacy_name_template(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        if b == b'$' {
            let braced = bytes.get(i + 1) == Some(&b'{');
            let start = i + 1 + usize::from(braced);
            let len = bytes.iter().skip(start).take_while(|b| word(**b)).count();
            i = start + len;
            if len == 0 || (braced && bytes.get(i) != Some(&b'}')) {
                return false;
            }
            i += usize::from(braced);
        } else if word(b) && (i > 0 || !b.is_ascii_digit()) {
            i += 1;
        } else {
            return false;
        }
    }
    !bytes.is_empty()
}

impl RelabelRule {
    /// Whether the rule has the default regular expression.
    #[must_use]
    pub fn has_default_regex(&self) -> bool {
        self.regex.pattern() == DEFAULT_REGEX
    }

    /// Checks that the fields fit the action; the error is Prometheus's wording.
    pub fn validate(&self) -> Result<(), String> {
        use Action as A;
        let Self { action, target_label: target, replacement, scheme, .. } = self;
        if *action == A::HashMod && self.modulus == 0 {
            return Err("relabel configuration for hashmod requires non-zero modulus".into());
        }
        let has_target = matches!(
            action,
            A::Replace | A::HashMod | A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual
        );
        if has_target && target.is_empty() {
            return Err(format!("relabel configuration for {action} action requires 'target_label' value"));
        }
        let valid_template = |text: &str| match scheme {
            NameScheme::Utf8 => scheme.is_valid_label_name(text),
            NameScheme::Legacy => is_legacy_name_template(text),
        };
        let valid_target = match action {
            A::Replace if has_variable(target) => valid_template(target),
            _ => !has_target || scheme.is_valid_label_name(target),
        };
        if !valid_target {
            return Err(format!("{target:?} is invalid 'target_label' for {action} action"));
        }
        if matches!(action, A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual)
            && replacement != DEFAULT_REPLACEMENT
        {
            return Err(format!("'replacement' can not be set for {action} action"));
        }
        if *action == A::LabelMap && !valid_template(replacement) {
            return Err(format!("{replacement:?} is invalid 'replacement' for {action} action"));
        }
        let plain_rest =
            self.modulus == 0 && self.separator == DEFAULT_SEPARATOR && replacement == DEFAULT_REPLACEMENT;
        if matches!(action, A::KeepEqual | A::DropEqual) && !(plain_rest && self.has_default_regex()) {
            return Err(format!(
                "{action} action requires only 'source_labels' and `target_label`, and no other fields"
            ));
        }
        if matches!(action, A::LabelDrop | A::LabelKeep)
            && !(plain_rest && self.source_labels.is_empty() && target.is_empty())
        {
            return Err(format!("{action} action requires only 'regex', and no other fields"));
        }
        Ok(())
    }

    /// Calls `with` on the joined source values; several are joined in a buffer that each thread keeps.
    fn with_source<R>(&self, builder: &LabelsBuilder, with: impl FnOnce(&str) -> R) -> R {
        match self.source_labels.as_slice() {
            [] => with(""),
            [one] => with(builder.value(one)),
            [first, rest @ ..] => {
                // Taken out for the time of the call, so that a nested call finds an empty buffer and no lock.
                let mut joined = JOINED.take();
                joined.clear();
                joined.push_str(builder.value(first));
                for name in rest {
                    joined.push_str(&self.separator);
                    joined.push_str(builder.value(name));
                }
                let result = with(&joined);
                JOINED.set(joined);
                result
            }
        }
    }

    /// Applies the rule; `false` means that the set is dropped.
    #[must_use]
    pub fn apply(&self, builder: &mut LabelsBuilder) -> bool {
        let target = self.target_label.as_str();
        match self.action {
            Action::Keep => return self.with_source(builder, |source| self.regex.is_match(source)),
            Action::Drop => return !self.with_source(builder, |source| self.regex.is_match(source)),
            Action::KeepEqual => return self.with_source(builder, |source| source == builder.value(target)),
            Action::DropEqual => return self.with_source(builder, |source| source != builder.value(target)),
            Action::Replace => {
                if let Some((name, value)) =
                    self.with_source(builder, |source| self.replacement_of(source, builder))
                {
                    builder.set(&name, &value);
                }
            }
            Action::Lowercase | Action::Uppercase => {
                let changed = self.with_source(builder, |source| {
                    let mapped = if self.action == Action::Lowercase { lower(source) } else { upper(source) };
                    (mapped != builder.value(target)).then(|| mapped.into_owned())
                });
                if let Some(value) = changed {
                    builder.set(target, &value);
                }
            }
            Action::HashMod => {
                let hash = self.with_source(builder, |source| Md5::digest(source.as_bytes()));
                let tail = hash.iter().skip(8).fold(0u64, |n, byte| (n << 8) | u64::from(*byte));
                let bucket = tail.checked_rem(self.modulus).unwrap_or(0).to_string();
                builder.set(target, &bucket);
            }
            Action::LabelMap => {
                let renamed: Vec<(String, String)> = builder
                    .iter()
                    .filter(|l| self.regex.is_match(l.name))
                    .filter_map(|l| {
                        self.regex.expand(l.name, &self.replacement).map(|name| (name, l.value.to_owned()))
                    })
                    .collect();
                for (name, value) in renamed {
                    builder.set(&name, &value);
                }
            }
            Action::LabelDrop => builder.retain(|l| !self.regex.is_match(l.name)),
            Action::LabelKeep => builder.retain(|l| self.regex.is_match(l.name)),
        }
        true
    }

    /// Name and value that `replace` sets, `None` when the set stays as it is.
    fn replacement_of<'r>(
        &'r self,
        source: &str,
        builder: &LabelsBuilder,
    ) -> Option<(Cow<'r, str>, Cow<'r, str>)> {
        let (target, replacement) = (self.target_label.as_str(), self.replacement.as_str());
        let any = self.has_default_regex();
        // Cheap for the many rules that do not match: expanding needs room for the groups.
        if !any && !self.regex.is_match(source) {
            return None;
        }
        let name = if has_variable(target) {
            Cow::Owned(self.regex.expand(source, target)?)
        } else {
            Cow::Borrowed(target)
        };
        if !self.scheme.is_valid_label_name(&name) {
            return None;
        }
        let present = builder.value(&name);
        if !has_variable(replacement) {
            return (present != replacement).then_some((name, Cow::Borrowed(replacement)));
        }
        if any && replacement == DEFAULT_REPLACEMENT {
            return (present != source).then(|| (name, Cow::Owned(source.to_owned())));
        }
        let value = self.regex.expand(source, replacement)?;
        (present != value).then_some((name, Cow::Owned(value)))
    }
}

/// Lower case letter by letter, as Go's `strings.ToLower`: letters whose lower case is several letters stay.
fn lower(text: &str) -> Cow<'_, str> {
    map_letters(text, |c| {
        let mut mapped = c.to_lowercase();
        // `İ` has two letters in the full mapping; the single-letter mapping of Unicode is `i`.
        if c == 'İ' { 'i' } else { single(c, &mut mapped) }
    })
}

/// Upper case letter by letter, as Go's `strings.ToUpper`.
fn upper(text: &str) -> Cow<'_, str> {
    map_letters(text, |c| single_upper(c).unwrap_or_else(|| single(c, &mut c.to_uppercase())))
}

/// Letters with a single-letter upper case besides a longer one in the full mapping.
fn single_upper(c: char) -> Option<char> {
    // Greek with iota subscript: full mapping splits them, the simple mapping is the title-case letter.
    let code = c as u32;
    let mapped = match code {
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => code + 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => code + 9,
        _ => return None,
    };
    char::from_u32(mapped)
}

fn single(c: char, mapped: &mut impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

fn map_letters(text: &str, map: impl Fn(char) -> char) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_punctuation())
        || text.chars().all(|c| map(c) == c)
    {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(map).collect())
}

/// Applies the rules in order; `false` means that the set is dropped, and the builder is as it was then.
#[must_use]
pub fn process(builder: &mut LabelsBuilder, rules: &[RelabelRule]) -> bool {
    rules.iter().all(|rule| rule.apply(builder))
}

/// Applies the rules in order and keeps the result of each.
#[must_use]
pub fn process_steps(labels: &Labels, rules: &[RelabelRule]) -> Vec<RelabelStep> {
    let mut builder = LabelsBuilder::new(labels);
    let mut steps = Vec::with_capacity(rules.len());
    for (rule, compiled) in rules.iter().enumerate() {
        let keep = compiled.apply(&mut builder);
        let output = if keep { builder.build() } else { Labels::empty() };
        steps.push(RelabelStep { rule, output, keep });
        if !keep {
            break;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, sources: &[&str], target: &str) -> RelabelRule {
        RelabelRule {
            source_labels: sources.iter().map(|s| (*s).to_owned()).collect(),
            separator: DEFAULT_SEPARATOR.into(),
            regex: AnchoredRegex::new(DEFAULT_REGEX).expect("valid"),
            modulus: 8,
            target_label: target.into(),
            replacement: DEFAULT_REPLACEMENT.into(),
            action,
            scheme: NameScheme::Utf8,
        }
    }

    #[test]
    fn letter_case_is_mapped_letter_by_letter() {
        for (text, up, down) in [
            ("Straße", "STRAßE", "straße"),
            ("ǆ", "Ǆ", "ǆ"),
            ("İ", "İ", "i"),
            ("ᾳ", "ᾼ", "ᾳ"),
            ("ŉ", "ŉ", "ŉ"),
            ("a-1_B", "A-1_B", "a-1_b"),
            ("42", "42", "42"),
        ] {
            assert_eq!(upper(text), up, "{text}");
            assert_eq!(lower(text), down, "{text}");
        }
    }

    #[test]
    fn hashmod_takes_the_last_eight_bytes_of_md5() {
        // The MD5 of "a" ends in 31c399e269772661.
        let mut builder = LabelsBuilder::default();
        builder.set("x", "a");
        let mut hash = rule(Action::HashMod, &["x"], "shard");
        hash.modulus = u64::MAX;
        assert!(hash.apply(&mut builder));
        assert_eq!(builder.value("shard"), 0x31c3_99e2_6977_2661_u64.to_string());
    }

    #[test]
    fn steps_end_where_the_set_is_dropped() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2")]);
        let rules = [
            rule(Action::Replace, &["a", "b"], "c"),
            rule(Action::DropEqual, &["a"], "a"),
            rule(Action::Drop, &["a"], ""),
        ];
        let steps = process_steps(&labels, &rules);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].output.value("c"), "1;2");
        assert!(steps[0].keep && !steps[1].keep);
        assert!(process_steps(&labels, &[]).is_empty());
    }

    #[test]
    fn templates_of_legacy_names() {
        for (text, valid) in [
            ("a_$1", true),
            ("${name}_b", true),
            ("$1", true),
            ("${1}x${2}", true),
            ("1$1", false),
            ("a-$1", false),
            ("${}", false),
            ("${1", false),
            ("$", false),
            ("", false),
        ] {
            assert_eq!(is_legacy_name_template(text), valid, "{text}");
        }
    }
}
