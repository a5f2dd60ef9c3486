//! How do other servers' protocols map to ours? Remote write in both versions, received ([`receive`]) and sent
//! ([`send`]); the wire format is read in place, without copies, and checked against limits before anything is
//! allocated.

/// Metrics of OpenTelemetry.
pub mod otlp;
/// Remote read in both directions.
pub mod read;
/// The receiver of remote write.
pub mod receive;
/// The sender of remote write.
pub mod send;
/// Known series of remote writers.
pub mod series_cache;
/// Spans on their way to a collector.
pub mod traces;
/// Protobuf fields, reading.
pub mod wire;
/// Protobuf fields, writing.
pub mod wire_out;
/// Messages of remote write, writing.
pub mod write_encode;
/// Messages of remote write, reading.
pub mod write_messages;
