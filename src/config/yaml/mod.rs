//! How does text become typed sections with positions? The event parser under `serde-saphyr` yields events with
//! marks; [`node`] composes them into a tree (aliases, merge keys, repeated keys, with limits on size and depth),
//! [`decode`] turns nodes into values and collects every error instead of stopping at the first, [`section`]
//! declares the fields of a mapping once for decoding, defaults and printing, and [`emit`] prints values the way
//! Prometheus prints its effective configuration.

/// Decoding of nodes into values.
pub mod decode;
/// Printing of values.
pub mod emit;
/// The tree of nodes.
pub mod node;
/// Declaration of mappings with known fields.
pub mod section;

pub use decode::{Context, FromYaml};
pub use emit::{ToYaml, Value};
pub use node::{Node, NodeKind, Position};
pub use section::Section;
