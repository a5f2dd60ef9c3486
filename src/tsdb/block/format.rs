//! Where does what lie in a block file? Magic numbers, the footer and the directories; `docs/format/block.md` is
//! the description of record.

use super::bytes::{DecodeError, Input, Result};

/// Name of the file that holds samples and index.
pub const BLOCK_FILE: &str = "block.mkt";
/// First bytes of the file.
pub const HEAD_MAGIC: &[u8; 8] = b"MKTBLOCK";
/// Last bytes of the file.
pub const FOOT_MAGIC: &[u8; 8] = b"MKTFOOT1";
/// Version of the format that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// Bytes before the first page.
pub const HEADER_LEN: usize = 16;
/// Bytes after the footer: its length, its checksum, the magic.
pub const TRAILER_LEN: usize = 16;
/// Series in one page at most.
pub const PAGE_SERIES: usize = 32;
/// Sample bytes after which a page is closed.
pub const PAGE_BYTES: usize = 32 << 10;
/// Timestamp columns in one page.
pub const TIME_PAGE_COLUMNS: usize = 64;
/// Samples in one chunk at most.
pub const CHUNK_SAMPLES: usize = 2048;
/// Largest series page after decompression.
pub const MAX_PAGE: usize = 1 << 28;

/// The parts of the file, in the order of the footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Chunk payloads.
    Data = 0,
    /// Timestamp columns.
    Times = 1,
    /// Labels and chunk references of the series.
    Series = 2,
    /// Directory of the pages of series and data.
    Pages = 3,
    /// Directory of the pages of timestamp columns.
    TimePages = 4,
    /// Strings.
    Symbols = 5,
    /// Posting lists.
    Postings = 6,
    /// Values of each label name.
    Values = 7,
    /// Label names.
    Names = 8,
}

/// Number of parts.
pub const PARTS: usize = 9;
/// Names of the parts, for messages and reports.
pub const PART_NAMES: [&str; PARTS] = [
    "samples",
    "timestamps",
    "series",
    "page directory",
    "timestamp directory",
    "symbols",
    "postings",
    "label values",
    "label names",
];

/// Place and checksum of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// CRC-32 (IEEE) of the part.
    pub crc: u32,
}

/// What the end of the file says about the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footer {
    /// Number of series.
    pub series: u32,
    /// Number of timestamp columns.
    pub time_columns: u32,
    /// Number of chunks.
    pub chunks: u64,
    /// Number of float samples.
    pub float_samples: u64,
    /// Number of histogram samples.
    pub histogram_samples: u64,
    /// First timestamp.
    pub min_t_ms: i64,
    /// Last timestamp.
    pub max_t_ms: i64,
    /// The parts.
    pub parts: [Extent; PARTS],
}

impl Footer {
    /// Appends footer and trailer.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&self.series.to_le_bytes());
        body.extend_from_slice(&self.time_columns.to_le_bytes());
        for n in [self.chunks, self.float_samples, self.histogram_samples] {
            body.extend_from_slice(&n.to_le_bytes());
        }
        body.extend_from_slice(&self.min_t_ms.to_le_bytes());
        body.extend_from_slice(&self.max_t_ms.to_le_bytes());
        for part in &self.parts {
            body.extend_from_slice(&part.offset.to_le_bytes());
            body.extend_from_slice(&part.len.to_le_bytes());
            body.extend_from_slice(&part.crc.to_le_bytes());
        }
        out.extend_from_slice(&body);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(FOOT_MAGIC);
    }

    /// Reads the footer of a whole file and checks that all parts lie inside it.
    pub fn read(file: &[u8]) -> Result<Self> {
        let header = file.get(..HEADER_LEN).ok_or(DecodeError("file is shorter than its header"))?;
        let mut input = Input::new(header);
        if input.bytes(8)? != HEAD_MAGIC {
            return Err(DecodeError("file does not begin as a block"));
        }
        if input.u32()? != VERSION || input.u32()? != 0 {
            return Err(DecodeError("block has a version that this program does not read"));
        }
        let trailer_at =
            file.len().checked_sub(TRAILER_LEN).ok_or(DecodeError("file is shorter than its trailer"))?;
        let mut trailer = Input::new(file.get(trailer_at..).unwrap_or_default());
        let (len, crc) = (trailer.u32()? as usize, trailer.u32()?);
        if trailer.bytes(8)? != FOOT_MAGIC {
            return Err(DecodeError("file does not end as a block"));
        }
        let start = trailer_at.checked_sub(len).ok_or(DecodeError("footer is longer than the file"))?;
        let body = file.get(start..trailer_at).unwrap_or_default();
        if crc32fast::hash(body) != crc {
            return Err(DecodeError("checksum of the footer does not match"));
        }
        let mut input = Input::new(body);
        if input.u32()? != VERSION {
            return Err(DecodeError("block has a version that this program does not read"));
        }
        let mut this = Self {
            series: input.u32()?,
            time_columns: input.u32()?,
            chunks: input.u64()?,
            float_samples: input.u64()?,
            histogram_samples: input.u64()?,
            min_t_ms: input.i64()?,
            max_t_ms: input.i64()?,
            parts: Default::default(),
        };
        for part in &mut this.parts {
            *part = Extent { offset: input.u64()?, len: input.u64()?, crc: input.u32()? };
            let end = part.offset.checked_add(part.len).ok_or(DecodeError("part lies outside the file"))?;
            if end > start as u64 {
                return Err(DecodeError("part lies outside the file"));
            }
        }
        if !input.is_empty() {
            return Err(DecodeError("footer is longer than it should be"));
        }
        Ok(this)
    }
}

/// A page of series and its samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageEntry {
    /// Number of the first series.
    pub first_series: u32,
    /// The series, relative to their part.
    pub series: Extent,
    /// The samples, relative to their part.
    pub data: Extent,
    /// First timestamp of the samples.
    pub min_t_ms: i64,
    /// Last timestamp of the samples.
    pub max_t_ms: i64,
}

/// Bytes of a page entry.
pub const PAGE_ENTRY_LEN: usize = 52;

impl PageEntry {
    /// Appends the entry.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first_series.to_le_bytes());
        for extent in [&self.series, &self.data] {
            out.extend_from_slice(&extent.offset.to_le_bytes());
            out.extend_from_slice(&(extent.len as u32).to_le_bytes());
            out.extend_from_slice(&extent.crc.to_le_bytes());
        }
        out.extend_from_slice(&self.min_t_ms.to_le_bytes());
        out.extend_from_slice(&self.max_t_ms.to_le_bytes());
    }

    /// Reads the entry at the cursor.
    pub fn read(input: &mut Input<'_>) -> Result<Self> {
        let first_series = input.u32()?;
        let mut extent = || -> Result<Extent> {
            Ok(Extent { offset: input.u64()?, len: u64::from(input.u32()?), crc: input.u32()? })
        };
        let (series, data) = (extent()?, extent()?);
        Ok(Self { first_series, series, data, min_t_ms: input.i64()?, max_t_ms: input.i64()? })
    }
}

/// A reference to the samples of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// What is in it.
    pub kind: ChunkKind,
    /// Whether start timestamps follow the values.
    pub has_starts: bool,
    /// Number of its timestamp column.
    pub time_column: u32,
    /// Part of the column: first sample and number of samples; `None` = all of it.
    pub slice: Option<(u32, u32)>,
    /// Payload within its page: first byte.
    pub offset: u32,
    /// Payload bytes.
    pub len: u32,
}

/// Kind of the samples of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Floats.
    Float = 0,
    /// Histograms with integer counts.
    IntegerHistogram = 1,
    /// Histograms with float counts.
    FloatHistogram = 2,
}

impl ChunkKind {
    /// From its code.
    pub fn from_code(code: u64) -> Result<Self> {
        Ok(match code {
            0 => Self::Float,
            1 => Self::IntegerHistogram,
            2 => Self::FloatHistogram,
            _ => return Err(DecodeError("unknown kind of chunk")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_returns_and_refuses_damage() {
        let mut footer =
            Footer { series: 7, min_t_ms: -5, max_t_ms: 99, chunks: 1 << 40, ..Footer::default() };
        footer.parts[2] = Extent { offset: 16, len: 10, crc: 77 };
        let mut file = Vec::new();
        file.extend_from_slice(HEAD_MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&[0; 10]);
        footer.write(&mut file);
        assert_eq!(Footer::read(&file), Ok(footer));
        for len in 0..file.len() {
            assert!(Footer::read(&file[..len]).is_err());
        }
        for at in (0..16).chain(26..file.len()) {
            let mut broken = file.clone();
            broken[at] ^= 4;
            assert!(Footer::read(&broken).is_err(), "byte {at}");
        }
    }
}
