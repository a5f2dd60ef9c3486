//! Which series belong together? Keys of groups and match groups, computed once for each series.

use std::sync::Arc;

use hashbrown::HashMap;

use super::column::Meta;
use super::context::{Context, Pace};
use crate::model::{Label, Labels, METRIC_NAME};
use crate::query::QueryError;

/// Whether a label goes away together with the metric name.
#[inline]
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == METRIC_NAME || name == "__type__" || name == "__unit__"
}

/// The labels without name, type and unit.
#[must_use]
pub fn drop_reserved(labels: &Labels) -> Labels {
    if labels.iter().any(|l| is_reserved(l.name)) {
        labels.filter(|l| !is_reserved(l.name))
    } else {
        labels.clone()
    }
}

impl Meta {
    /// The labels as the next operator sees them: the name is gone unless its removal is delayed.
    #[must_use]
    pub fn seen(&self, delayed: bool) -> Labels {
        if self.drop_name && !delayed { drop_reserved(&self.labels) } else { self.labels.clone() }
    }

    /// The labels one by one, as the next operator sees them.
    pub fn iter_seen(&self, delayed: bool) -> impl Iterator<Item = Label<'_>> {
        let hide = self.drop_name && !delayed;
        self.labels.iter().filter(move |l| !hide || !is_reserved(l.name))
    }

    /// The same with the name dropped: at once, or noted for the end.
    #[must_use]
    pub fn with_seen(&self, delayed: bool) -> Meta {
        Meta { labels: self.seen(delayed), drop_name: self.drop_name && delayed }
    }
}

/// Which labels make the key.
#[derive(Debug, Clone)]
pub struct KeyRule {
    /// Sorted names.
    pub names: Vec<Arc<str>>,
    /// All labels but these, rather than only these.
    pub exclude: bool,
    /// With `exclude`: name, type and unit do not count either.
    pub without_reserved: bool,
}

impl KeyRule {
    /// Whether a label is part of the key.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        let listed = self.names.binary_search_by(|n| (**n).cmp(name)).is_ok();
        if self.exclude { !(listed || (self.without_reserved && is_reserved(name))) } else { listed }
    }

    /// The key labels of a series.
    #[must_use]
    pub fn labels(&self, meta: &Meta, delayed: bool) -> Labels {
        let kept = meta.iter_seen(delayed).filter(|l| self.keeps(l.name));
        Labels::from_sorted(kept.map(|l| (l.name, l.value)))
    }
}

/// Dense numbers for keys, in order of first appearance.
#[derive(Debug)]
pub struct Groups {
    rule: KeyRule,
    delayed: bool,
    ids: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    key: Vec<u8>,
}

impl Groups {
    /// No groups yet.
    #[must_use]
    pub fn new(rule: KeyRule, delayed: bool) -> Self {
        Self { rule, delayed, ids: HashMap::default(), key: Vec::new() }
    }

    /// The number of a series' group, and whether it is new.
    pub fn id(&mut self, meta: &Meta) -> (u32, bool) {
        self.key.clear();
        for label in meta.iter_seen(self.delayed) {
            if self.rule.keeps(label.name) {
                for text in [label.name, label.value] {
                    self.key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                    self.key.extend_from_slice(text.as_bytes());
                }
            }
        }
        if let Some(id) = self.ids.get(&self.key[..]) {
            return (*id, false);
        }
        let id = self.ids.len() as u32;
        self.ids.insert(self.key.as_slice().into(), id);
        (id, true)
    }

    /// The numbers of the groups of all series.
    pub fn ids(&mut self, ctx: &Context, metas: &[Meta]) -> Result<Vec<u32>, QueryError> {
        let mut pace = Pace::default();
        let id = |meta| {
            pace.step(ctx, 256)?;
            Ok(self.id(meta).0)
        };
        metas.iter().map(id).collect()
    }

    /// Number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &KeyRule {
        &self.rule
    }
}
