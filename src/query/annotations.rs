//! Warnings and infos that accompany a result, with the place in the query they are about.

/// Annotations of one query, each text once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Problems that may make the result wrong; each text begins `PromQL warning: ` where PromQL raised it.
    pub warnings: Vec<String>,
    /// Remarks of lower weight; each text begins `PromQL info: `.
    pub infos: Vec<String>,
}
