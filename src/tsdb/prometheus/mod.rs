//! How are Prometheus's own blocks read and written? Index versions 1 and 2, chunk encodings XOR, XOR2, histogram and
//! float histogram, tombstones: an existing data directory is used as it is, and `export` and snapshots can write it
//! again. Checksums are CRC-32C throughout.

/// Bit streams, most significant bit first.
mod bits;
/// Float chunks.
mod floats;
/// Histogram chunks.
mod histograms;
/// The index file.
mod index;
/// What is not in blocks: the write-ahead log and head chunks.
pub(in crate::tsdb) mod legacy;
/// Records in segments of the log.
pub(in crate::tsdb) mod log;
/// Opening and querying.
mod reader;
/// What series cost, and whether all bytes are sound.
mod survey;
/// Writing.
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{PrometheusBlock, PrometheusQuerier, PrometheusSource};
pub use writer::write_prometheus_block;

/// Encoding byte of XOR chunks.
pub const ENC_XOR: u8 = 1;
/// Encoding byte of integer histogram chunks.
pub const ENC_HISTOGRAM: u8 = 2;
/// Encoding byte of float histogram chunks.
pub const ENC_FLOAT_HISTOGRAM: u8 = 3;
/// Encoding byte of XOR2 chunks.
pub const ENC_XOR2: u8 = 4;

use super::block::SeriesColumns;
use super::block::bytes::{DecodeError, Result};

/// Appends the samples of a chunk to `out`. Anything that is not a whole, ascending chunk is an error and leaves
/// `out` as it was.
pub fn decode_chunk(encoding: u8, data: &[u8], out: &mut SeriesColumns) -> Result<()> {
    let mut chunk = SeriesColumns::default();
    match encoding {
        ENC_XOR => floats::decode_xor(data, &mut chunk)?,
        ENC_XOR2 => floats::decode_xor2(data, &mut chunk)?,
        ENC_HISTOGRAM => histograms::decode(data, true, &mut chunk)?,
        ENC_FLOAT_HISTOGRAM => histograms::decode(data, false, &mut chunk)?,
        _ => return Err(DecodeError("chunk has an encoding that this program does not read")),
    }
    let ascending = chunk.timestamps.windows(2).all(|w| w[0] < w[1])
        && chunk.histograms.windows(2).all(|w| w[0].0 < w[1].0);
    if !ascending {
        return Err(DecodeError("timestamps of a chunk do not ascend"));
    }
    // Chunks of one series may overlap in blocks that hold out-of-order samples.
    out.merge(&chunk);
    Ok(())
}
