//! Which targets exist? Mechanisms watch files, endpoints and APIs; a [`DiscoveryManager`] runs them, shares equal
//! configurations, and publishes target groups by the name of the set (a job, an Alertmanager section).

mod file;
mod http;
mod manager;
mod refresh;

pub use manager::{DiscoveryManager, DiscoveryOptions, TargetSets};

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::target_group::TargetGroup;

#[derive(Default)]
struct Groups {
    by_source: BTreeMap<String, Arc<TargetGroup>>,
    /// Whether the mechanism has spoken at all.
    ready: bool,
    last_update_ms: i64,
}

/// Where a mechanism puts what it finds.
#[derive(Clone)]
pub struct Updates {
    groups: Arc<Mutex<Groups>>,
    dirty: Arc<Notify>,
    clock: Arc<dyn crate::model::clock::Clock>,
}

impl Updates {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<TargetGroup>>) -> bool) {
        let mut groups = self.groups.lock();
        let changed = change(&mut groups.by_source);
        groups.last_update_ms = self.clock.now_ms();
        let first = !std::mem::replace(&mut groups.ready, true);
        if changed || first {
            self.dirty.notify_one();
        }
    }

    /// Replaces the groups with these sources, keeps the others. A group without targets goes away.
    pub fn patch(&self, new: Vec<TargetGroup>) {
        self.change(|groups| {
            let mut changed = false;
            for group in new {
                changed |= put(groups, group);
            }
            changed
        });
    }

    /// Replaces everything.
    pub fn replace(&self, new: Vec<TargetGroup>) {
        self.change(|groups| {
            let keep: std::collections::HashSet<&str> = new.iter().map(|g| g.source.as_str()).collect();
            let before = groups.len();
            groups.retain(|source, _| keep.contains(source.as_str()));
            let mut changed = groups.len() != before;
            for group in new {
                changed |= put(groups, group);
            }
            changed
        });
    }
}

fn put(groups: &mut BTreeMap<String, Arc<TargetGroup>>, group: TargetGroup) -> bool {
    if group.targets.is_empty() {
        return groups.remove(&group.source).is_some();
    }
    if groups.get(&group.source).is_some_and(|old| **old == group) {
        return false;
    }
    groups.insert(group.source.clone(), Arc::new(group));
    true
}
