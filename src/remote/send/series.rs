//! What becomes of a series on its way out? External labels are added, rules applied, the outcome remembered for as
//! long as the log mentions the series.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::relabel::{RelabelRule, process};
use crate::model::{Labels, LabelsBuilder};
use crate::remote::receive::MessageVersion;
use crate::remote::write_encode::Identity;

type Map = HashMap<u128, Outgoing, foldhash::fast::RandomState>;

/// A series on its way out; `None` if the rules drop it.
pub type Outgoing = Option<Arc<Identity>>;

/// The series of the log.
pub struct SeriesMap {
    external: Labels,
    rules: Vec<RelabelRule>,
    version: MessageVersion,
    /// By number within the segment; numbers start at 1.
    numbers: Vec<Option<Outgoing>>,
    segment: u32,
    /// Outcomes by hash of the labels: of this segment, and of the one before.
    recent: Map,
    older: Map,
}

impl SeriesMap {
    /// An empty map.
    #[must_use]
    pub fn new(external: Labels, rules: Vec<RelabelRule>, version: MessageVersion) -> Self {
        Self {
            external,
            rules,
            version,
            numbers: Vec::new(),
            segment: 0,
            recent: Map::default(),
            older: Map::default(),
        }
    }

    /// Numbers mean something else from here on.
    pub fn enter(&mut self, segment: u32) {
        if segment != self.segment {
            self.segment = segment;
            self.numbers.clear();
            self.older = std::mem::take(&mut self.recent);
        }
    }

    /// Notes a series that the segment mentions for the first time.
    pub fn define(&mut self, number: u32, labels: &Labels) {
        let hash = xxhash_rust::xxh3::xxh3_128(labels.as_packed().as_bytes());
        let outcome = match self.recent.get(&hash) {
            Some(known) => known.clone(),
            None => {
                let outcome = self.older.remove(&hash).unwrap_or_else(|| self.outcome(labels));
                self.recent.insert(hash, outcome.clone());
                outcome
            }
        };
        let at = number as usize;
        // Numbers are dense; a huge one comes from damage that passed its checksum.
        if at < self.numbers.len() + (1 << 24) {
            if at >= self.numbers.len() {
                self.numbers.resize(at + 1, None);
            }
            self.numbers[at] = Some(outcome);
        }
    }

    fn outcome(&self, labels: &Labels) -> Outgoing {
        let mut builder = LabelsBuilder::new(labels);
        for label in self.external.iter() {
            if builder.value(label.name).is_empty() {
                builder.set(label.name, label.value);
            }
        }
        if !process(&mut builder, &self.rules) {
            return None;
        }
        let labels = builder.build();
        if labels.is_empty() { None } else { Some(Arc::new(Identity::new(self.version, &labels))) }
    }

    /// The series of a number; the outer `None` means that the log never named it.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Outgoing> {
        self.numbers.get(number as usize)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relabel::parse_rules;
    use crate::model::relabel::NameScheme;

    #[test]
    fn outcomes_outlive_a_segment() {
        let rules = "[{source_labels: [drop], regex: x, action: drop}]";
        let rules = parse_rules(rules, NameScheme::Utf8).expect("valid");
        let external = Labels::from_pairs([("dc", "1"), ("job", "external")]);
        let mut map = SeriesMap::new(external, rules, MessageVersion::V2);
        let kept = Labels::from_pairs([("__name__", "a"), ("job", "j")]);
        map.enter(1);
        map.define(1, &kept);
        map.define(2, &Labels::from_pairs([("__name__", "b"), ("drop", "x")]));
        let first = map.get(1).expect("named").clone().expect("kept");
        let Identity::V2(labels) = &*first else { panic!("the other version") };
        assert_eq!(labels.to_string(), r#"{__name__="a", dc="1", job="j"}"#);
        assert!(map.get(2).expect("named").is_none());
        map.enter(2);
        assert!(map.get(1).is_none());
        map.define(7, &kept);
        assert!(Arc::ptr_eq(map.get(7).expect("named").as_ref().expect("kept"), &first));
        map.enter(3);
        map.enter(4);
        map.define(1, &kept);
        assert!(!Arc::ptr_eq(map.get(1).expect("named").as_ref().expect("kept"), &first));
    }
}
