//! Which targets exist? Mechanisms watch files, endpoints and APIs; a [`DiscoveryManager`] runs them, shares equal
//! configurations, and publishes target groups by the name of the set (a job, an Alertmanager section).

mod aws;
mod azure;
#[cfg(test)]
mod cases;
mod consul;
mod digitalocean;
mod dns;
mod dns_message;
mod docker;
mod ec2;
mod ecs;
mod elasticache;
mod eureka;
mod fields;
mod file;
mod gce;
mod hetzner;
mod http;
mod ionos;
mod kubernetes;
mod kubernetes_objects;
mod kubernetes_targets;
mod kubernetes_watch;
mod kuma;
mod linode;
mod manager;
mod marathon;
mod msk;
mod nomad;
mod openstack;
mod outscale;
mod ovhcloud;
mod puppetdb;
mod rds;
mod refresh;
mod rest;
mod scaleway;
mod serverset;
mod stackit;
mod swarm;
#[cfg(test)]
mod tests;
mod triton;
mod uyuni;
mod vultr;
mod zookeeper;

pub use manager::{DiscoveryManager, DiscoveryOptions, TargetSets};

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::target_group::TargetGroup;

/// Joins list-valued metadata as Prometheus does: between and around the values.
pub(super) fn surrounded<'a>(values: impl IntoIterator<Item = &'a str>, separator: &str) -> String {
    let mut out = separator.to_owned();
    for value in values {
        out.push_str(value);
        out.push_str(separator);
    }
    out
}

/// A label name from a foreign one: every character outside `[a-zA-Z0-9_]` becomes `_`.
pub(super) fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// `host:port`, with brackets around IPv6 addresses.
pub(super) fn join_host_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// JSON of other systems writes `null` for what is empty.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// The labels of one target.
type LabelMap = BTreeMap<String, String>;

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
