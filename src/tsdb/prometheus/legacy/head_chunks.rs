//! Which chunks did Prometheus's head move to files? Their layout is in `docs/format/prometheus-log.md`.

use crate::tsdb::block::SeriesColumns;
use crate::tsdb::block::bytes::{DecodeError, Input, Result};
use crate::tsdb::prometheus::decode_chunk;

const MAGIC: u32 = 0x0130_BC91;
const VERSION: u8 = 1;
const FILE_HEADER: usize = 8;
/// Set in the encoding of chunks of out-of-order samples.
const OUT_OF_ORDER: u8 = 0x80;

/// A chunk of a series.
#[derive(Debug, Clone, Copy)]
pub struct HeadChunk<'a> {
    /// Where it begins in its file.
    pub offset: usize,
    /// Prometheus's number of the series.
    pub series: u64,
    /// First timestamp, milliseconds.
    pub min_t_ms: i64,
    /// Last timestamp, milliseconds.
    pub max_t_ms: i64,
    /// Whether its samples came out of order.
    pub out_of_order: bool,
    encoding: u8,
    data: &'a [u8],
}

impl HeadChunk<'_> {
    /// Its samples.
    pub fn decode(&self) -> Result<SeriesColumns> {
        let mut columns = SeriesColumns::default();
        decode_chunk(self.encoding, self.data, &mut columns)?;
        Ok(columns)
    }
}

/// Iterates over the chunks of a file. Behind damage nothing more can be found: it is the last item.
#[derive(Debug)]
pub struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Chunks<'a> {
    /// Reads a file.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn chunk(&self) -> Result<(HeadChunk<'a>, usize)> {
        let whole = self.bytes.get(self.at..).unwrap_or_default();
        let mut input = Input::new(whole);
        let series = input.u64_be()?;
        let min_t_ms = input.u64_be()?.cast_signed();
        let max_t_ms = input.u64_be()?.cast_signed();
        let encoding = input.u8()?;
        let len = input.count(input.len())?;
        let data = input.bytes(len)?;
        let body = whole.get(..whole.len() - input.len()).unwrap_or_default();
        if crc32c::crc32c(body) != input.u32_be()? {
            return Err(DecodeError("checksum of a head chunk does not match"));
        }
        let out_of_order = encoding & OUT_OF_ORDER != 0;
        let encoding = encoding & !OUT_OF_ORDER;
        let offset = self.at;
        Ok((
            HeadChunk { offset, series, min_t_ms, max_t_ms, out_of_order, encoding, data },
            whole.len() - input.len(),
        ))
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = std::result::Result<HeadChunk<'a>, (usize, DecodeError)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == 0 {
            if self.bytes.is_empty() {
                return None;
            }
            let mut header = Input::new(self.bytes);
            if header.u32_be() != Ok(MAGIC) || header.u8() != Ok(VERSION) {
                self.at = self.bytes.len();
                return Some(Err((0, DecodeError("file does not begin as a file of head chunks"))));
            }
            self.at = FILE_HEADER;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        // Files are made larger than needed and end in zeros when Prometheus was killed.
        if rest.iter().all(|b| *b == 0) {
            return None;
        }
        let offset = self.at;
        match self.chunk() {
            Ok((chunk, len)) => {
                self.at += len;
                Some(Ok(chunk))
            }
            Err(error) => {
                self.at = self.bytes.len();
                Some(Err((offset, error)))
            }
        }
    }
}
