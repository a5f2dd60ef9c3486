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

use crate::model::sample::HistogramValue;

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

/// An XOR chunk of float samples, at most 65,535.
#[must_use]
pub fn encode_float_chunk(timestamps: &[i64], values: &[f64]) -> Vec<u8> {
    floats::encode_xor(timestamps, values)
}

/// Encoding and content of a chunk of the first histogram samples, at most `limit`, and how many of them it has: a
/// chunk ends where the layout changes or a counter was reset.
#[must_use]
pub fn encode_histogram_chunk(
    before: Option<&HistogramValue>,
    samples: &[(i64, HistogramValue)],
    limit: usize,
) -> (u8, Vec<u8>, usize) {
    let len = histograms::chunk_len(samples, limit.max(1));
    let Some((_, first)) = samples.first() else { return (ENC_FLOAT_HISTOGRAM, Vec::new(), 0) };
    let encoding = match first {
        HistogramValue::Integer(_) => ENC_HISTOGRAM,
        HistogramValue::Float(_) => ENC_FLOAT_HISTOGRAM,
    };
    (encoding, histograms::encode(&samples[..len], histograms::header_flags(before, first)), len)
}
