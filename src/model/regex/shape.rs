//! Which patterns need no automaton? Most matchers are literals, alternations of literals, or a literal with
//! `.*` around it; those are recognised here on the parsed form.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Most texts that a small pattern such as `(a|b)[cd]` may be spelled out into.
const MAX_PRODUCT: usize = 256;
/// Most branches of an alternation that become a set.
const MAX_SET: usize = 100_000;

/// What a pattern that must match a whole text amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// One of these texts, sorted, each once.
    Literals(Vec<Box<str>>),
    /// Anything: `.*`.
    Any,
    /// Anything but the empty text: `.+`.
    NonEmpty,
    /// `literal.*`
    Prefix(Box<str>),
    /// `.*literal`
    Suffix(Box<str>),
    /// `.*literal.*`
    Contains(Box<str>),
    /// Something else, with the literal that every match begins with.
    Other(Box<str>),
}

pub(super) fn shape(hir: &Hir) -> Shape {
    if let Some(mut texts) = literals(hir) {
        texts.sort_unstable();
        texts.dedup();
        return Shape::Literals(texts.into_iter().map(Into::into).collect());
    }
    let parts: Vec<&Hir> = match bare(hir).kind() {
        HirKind::Concat(parts) => parts.iter().map(bare).collect(),
        _ => vec![bare(hir)],
    };
    let dots: Vec<Option<u32>> = parts.iter().map(|p| repeated_dot(p)).collect();
    match (parts.as_slice(), dots.as_slice()) {
        (_, [Some(0)]) => return Shape::Any,
        (_, [Some(1)]) => return Shape::NonEmpty,
        ([a, _], [None, Some(0)]) => {
            if let Some(text) = literal(a) {
                return Shape::Prefix(text.into());
            }
        }
        ([_, b], [Some(0), None]) => {
            if let Some(text) = literal(b) {
                return Shape::Suffix(text.into());
            }
        }
        ([_, b, _], [Some(0), None, Some(0)]) => {
            if let Some(text) = literal(b) {
                return Shape::Contains(text.into());
            }
        }
        _ => {}
    }
    let start = parts.first().and_then(|p| literal(p)).unwrap_or("");
    Shape::Other(start.into())
}

/// The pattern without capture groups around it.
fn bare(mut hir: &Hir) -> &Hir {
    while let HirKind::Capture(capture) = hir.kind() {
        hir = &capture.sub;
    }
    hir
}

fn literal(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// The least count of a repeated dot that matches everything, line feeds too.
fn repeated_dot(hir: &Hir) -> Option<u32> {
    let HirKind::Repetition(r) = hir.kind() else { return None };
    let HirKind::Class(Class::Unicode(class)) = bare(&r.sub).kind() else { return None };
    let everything = class.ranges().len() == 1
        && class.ranges()[0].start() == '\0'
        && class.ranges()[0].end() == char::MAX;
    (r.max.is_none() && r.min <= 1 && everything).then_some(r.min)
}

/// All texts that match, if they are finite and few.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(_) => Some(vec![literal(hir)?.to_owned()]),
        HirKind::Capture(capture) => literals(&capture.sub),
        HirKind::Class(Class::Unicode(class)) => {
            let size: usize = class.ranges().iter().map(|r| r.len()).sum();
            if size > MAX_PRODUCT {
                return None;
            }
            Some(class.iter().flat_map(|r| r.start()..=r.end()).map(String::from).collect())
        }
        HirKind::Repetition(r) if r.min == 0 && r.max == Some(1) => {
            let mut texts = literals(&r.sub)?;
            texts.push(String::new());
            Some(texts)
        }
        HirKind::Alternation(branches) => {
            let mut texts = Vec::new();
            for branch in branches {
                texts.extend(literals(branch)?);
                if texts.len() > MAX_SET {
                    return None;
                }
            }
            Some(texts)
        }
        HirKind::Concat(parts) => {
            let mut texts = vec![String::new()];
            for part in parts {
                let ends = literals(part)?;
                // A long list with a common start stays a list; only real products are kept small.
                if texts.len() > 1 && ends.len() > 1 && texts.len() * ends.len() > MAX_PRODUCT {
                    return None;
                }
                texts = texts.iter().flat_map(|t| ends.iter().map(move |e| format!("{t}{e}"))).collect();
            }
            Some(texts)
        }
        _ => None,
    }
}
