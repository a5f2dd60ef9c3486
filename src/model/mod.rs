//! The vocabulary that every room shares. Nothing here does I/O or knows another room.

/// Clocks that tests can move.
pub mod clock;
/// Prometheus's duration grammar (`1h30m`) and RFC 3339 / Unix time parameters.
pub mod duration;
/// Native histograms and their arithmetic.
pub mod histogram;
/// Label sets, packed into one shared allocation.
pub mod labels;
/// Label matchers (`=`, `!=`, `=~`, `!~`).
pub mod matcher;
/// Exemplars and metric metadata.
pub mod metadata;
/// Go's number texts: shortest decimals, `%g`, API sample values.
pub mod number;
/// Go-dialect (RE2) regular expressions, anchored as Prometheus anchors them.
pub mod regex;
/// Relabelling rules and their application.
pub mod relabel;
/// Samples: floats and histograms with their timestamps; the stale marker.
pub mod sample;
/// Groups of discovered targets, as they leave discovery.
pub mod target_group;

pub use labels::{Label, Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use sample::{STALE_NAN_BITS, SampleBuffer, is_stale_nan, stale_nan};

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
