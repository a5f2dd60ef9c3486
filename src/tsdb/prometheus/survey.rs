//! What does each series of a Prometheus block cost, and is every byte of its chunk files sound?

use crate::tsdb::block::bytes::{DecodeError, Input};
use crate::tsdb::door::StorageError;
use crate::tsdb::survey::{ChunkSurvey, SeriesSurvey};

use super::reader::{CHUNKS_MAGIC, PrometheusBlock};
use super::{ENC_FLOAT_HISTOGRAM, ENC_HISTOGRAM, ENC_XOR, ENC_XOR2};

/// Bytes of a chunk besides its data: length (two bytes of varint, nearly always), encoding, checksum.
const FRAME_BYTES: u64 = 7;

fn codec_name(encoding: u8) -> &'static str {
    match encoding {
        ENC_XOR => "xor",
        ENC_XOR2 => "xor2",
        ENC_HISTOGRAM => "histogram",
        ENC_FLOAT_HISTOGRAM => "float histogram",
        _ => "unknown",
    }
}

impl PrometheusBlock {
    /// Hands out one entry for each series; returns what could not be read.
    pub fn survey(&self, each: &mut dyn FnMut(&SeriesSurvey)) -> Result<Vec<String>, StorageError> {
        let mut warnings = Vec::new();
        for id in self.select_ids(&[])? {
            let (labels, metas) = match self.series(id) {
                Ok(found) => found,
                Err(error) => {
                    warnings.push(format!("a series was left out: {error}"));
                    continue;
                }
            };
            let (Some(first), Some(last)) =
                (metas.iter().map(|c| c.min_t_ms).min(), metas.iter().map(|c| c.max_t_ms).max())
            else {
                continue;
            };
            let mut survey = SeriesSurvey {
                labels,
                min_t_ms: first,
                max_t_ms: last,
                chunks: Vec::with_capacity(metas.len()),
            };
            for meta in &metas {
                match self.chunk(meta.reference) {
                    Ok((encoding, data)) => {
                        let count = data.first_chunk::<2>().map_or(0, |n| u16::from_be_bytes(*n));
                        survey.chunks.push(ChunkSurvey {
                            codec: codec_name(encoding),
                            samples: u64::from(count),
                            bytes: data.len() as u64 + FRAME_BYTES,
                        });
                    }
                    Err(error) => {
                        let dir = self.dir().path().display();
                        warnings.push(format!("a chunk of {} in {dir} was left out: {error}", survey.labels));
                    }
                }
            }
            each(&survey);
        }
        Ok(warnings)
    }

    /// Reads the chunk files from start to end and compares every checksum; returns number of segment, offset and
    /// fault of what does not fit. Behind a broken length nothing more of a segment can be found.
    pub(in crate::tsdb) fn verify_segments(&self) -> Vec<(usize, u64, DecodeError)> {
        let mut faults = Vec::new();
        for (number, segment) in (1..).zip(&self.segments) {
            let file = &segment[..];
            if Input::new(file).u32_be() != Ok(CHUNKS_MAGIC) || file.get(4) != Some(&1) {
                faults.push((number, 0, DecodeError("file does not begin as a chunk segment")));
                continue;
            }
            let mut at = 8;
            while at < file.len() {
                let mut input = Input::new(file.get(at..).unwrap_or_default());
                let whole = (|| {
                    let len = input.count(input.len())?;
                    let body = input.bytes(len + 1)?;
                    Ok((crc32c::crc32c(body), input.u32_be()?))
                })();
                match whole {
                    Ok((have, want)) => {
                        if have != want {
                            let what = DecodeError("checksum of a chunk does not match");
                            faults.push((number, at as u64, what));
                        }
                        at = file.len() - input.len();
                    }
                    Err(error) => {
                        faults.push((number, at as u64, error));
                        break;
                    }
                }
            }
        }
        faults
    }
}
