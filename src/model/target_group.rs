//! What does discovery hand out? Groups of targets, each replaced as a whole by its source.

use std::collections::BTreeMap;

/// Targets that one source (a file, a Kubernetes object, a static entry) describes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetGroup {
    /// Identity within the discovery mechanism; a later group with the same source replaces this one.
    pub source: String,
    /// One label map for each target, `__address__` included.
    pub targets: Vec<BTreeMap<String, String>>,
    /// Labels common to all targets of the group; a target's own label wins.
    pub labels: BTreeMap<String, String>,
}
