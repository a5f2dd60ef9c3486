//! How do other servers' protocols map to ours? Remote write in both versions, received; their wire format is read
//! in place, without copies, and checked against limits before anything is allocated.

/// The receiver of remote write.
pub mod receive;
/// Known series of remote writers.
pub mod series_cache;
/// Protobuf fields.
pub mod wire;
/// The messages of remote write.
pub mod write_messages;
