//! How do the samples of one chunk become bytes and back?

use crate::model::sample::HistogramValue;

use super::bytes::{DecodeError, Input, Result};
use super::format::ChunkKind;
use super::{histograms, ints, values};

/// Encodes a chunk of floats; `starts` is empty or as long as `values`. Returns the codec of the values.
pub fn encode_floats(samples: &[f64], starts: &[i64], out: &mut Vec<u8>) -> values::Codec {
    let codec = values::encode(samples, out);
    ints::encode(starts, out);
    codec
}

/// Encodes a chunk of histograms of one kind; `starts` is empty or as long as `samples`.
pub fn encode_histograms(
    samples: &[(i64, HistogramValue)],
    starts: &[i64],
    integers: bool,
    out: &mut Vec<u8>,
) {
    histograms::encode(samples, integers, out);
    ints::encode(starts, out);
}

/// The decoded content of a chunk, without timestamps.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Values of a float chunk.
    pub values: Vec<f64>,
    /// Histograms of a histogram chunk.
    pub histograms: Vec<HistogramValue>,
    /// Start timestamps; empty when none is known.
    pub starts: Vec<i64>,
}

impl Decoded {
    /// Replaces the content by that of a payload of `n` floats without start timestamps, of which only the staleness
    /// markers count: the others become 0.
    pub fn read_presence(&mut self, payload: &[u8], n: usize) -> Result<()> {
        self.histograms.clear();
        self.starts.clear();
        values::decode_presence(&mut Input::new(payload), n, &mut self.values)
    }

    /// Replaces the content by that of a payload of `n` samples, which must be consumed entirely.
    pub fn read(&mut self, payload: &[u8], kind: ChunkKind, has_starts: bool, n: usize) -> Result<()> {
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
        let mut input = Input::new(payload);
        match kind {
            ChunkKind::Float => values::decode(&mut input, n, &mut self.values)?,
            ChunkKind::IntegerHistogram => self.histograms = histograms::decode(&mut input, n, true)?,
            ChunkKind::FloatHistogram => self.histograms = histograms::decode(&mut input, n, false)?,
        }
        if has_starts {
            ints::decode(&mut input, n, &mut self.starts)?;
        }
        if !input.is_empty() {
            return Err(DecodeError("chunk is longer than its samples"));
        }
        Ok(())
    }
}
