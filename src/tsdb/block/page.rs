//! How are the labels and chunk references of up to 32 neighbouring series stored? As differences to the series
//! before, then compressed if that helps. Bytes: `docs/format/block-index.md`.

use std::cell::RefCell;

use super::bytes::{DecodeError, Input, Result, put_varint, put_zigzag, unzigzag, varint_len, zigzag};
use super::format::{ChunkKind, ChunkRef, MAX_PAGE, PAGE_SERIES};

/// Marks a reference to postings as being the only series itself.
pub const INLINE_POSTING: u32 = 1 << 31;
/// Most labels of a series.
pub const MAX_LABELS: usize = 1 << 16;
/// Most chunks of a series.
pub const MAX_CHUNKS: usize = 1 << 24;
const ZSTD_LEVEL: i32 = 6;

/// Appends chunk references in a plain form, for the time until symbols are known.
pub fn put_chunks(chunks: &[ChunkRef], out: &mut Vec<u8>) {
    let mut column = 0;
    let mut offset = chunks.first().map_or(0, |c| c.offset);
    put_varint(out, u64::from(offset));
    write_chunks(chunks, &mut column, &mut offset, out);
}

/// Inverse of [`put_chunks`].
pub fn take_chunks(input: &mut Input<'_>, out: &mut Vec<ChunkRef>) -> Result<()> {
    let mut offset = input.varint32()?;
    read_chunks(input, &mut 0, &mut offset, out)
}

fn write_chunks(chunks: &[ChunkRef], column: &mut u32, offset: &mut u32, out: &mut Vec<u8>) {
    put_varint(out, chunks.len() as u64);
    for chunk in chunks {
        debug_assert_eq!(chunk.offset, *offset, "chunks of a page lie one after the other");
        let step = zigzag(i64::from(chunk.time_column) - i64::from(*column));
        let flags =
            chunk.kind as u64 | u64::from(chunk.has_starts) << 2 | u64::from(chunk.slice.is_some()) << 3;
        put_varint(out, step << 4 | flags);
        if let Some((from, len)) = chunk.slice {
            put_varint(out, u64::from(from));
            put_varint(out, u64::from(len));
        }
        put_varint(out, u64::from(chunk.len));
        *column = chunk.time_column;
        *offset += chunk.len;
    }
}

fn read_chunks(
    input: &mut Input<'_>,
    column: &mut u32,
    offset: &mut u32,
    out: &mut Vec<ChunkRef>,
) -> Result<()> {
    for _ in 0..input.count(MAX_CHUNKS)? {
        let head = input.varint()?;
        let next = i64::from(*column) + unzigzag(head >> 4);
        *column = u32::try_from(next).map_err(|_| DecodeError("timestamp column number"))?;
        let slice = if head & 8 != 0 { Some((input.varint32()?, input.varint32()?)) } else { None };
        let len = input.varint32()?;
        let kind = ChunkKind::from_code(head & 3)?;
        out.push(ChunkRef {
            kind,
            has_starts: head & 4 != 0,
            time_column: *column,
            slice,
            offset: *offset,
            len,
        });
        *offset = offset.checked_add(len).ok_or(DecodeError("chunk lies outside its page"))?;
    }
    Ok(())
}

thread_local! {
    /// Making a context costs more than unpacking a page.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Replaces the content of `out`, which may become longer than `len` if the page lies.
fn decompress(packed: &[u8], len: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
    out.clear();
    out.reserve(len);
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(zstd::bulk::Decompressor::new()?),
        };
        unpacker.decompress_to_buffer(packed, out).map(|_| ())
    })
}

/// Builds a page.
#[derive(Debug, Default)]
pub struct PageEncoder {
    labels: Vec<(u32, u32)>,
    column: u32,
    offset: u32,
    out: Vec<u8>,
}

impl PageEncoder {
    /// Adds the next series: pairs of name and value symbols, and its chunks.
    pub fn add(&mut self, labels: &[(u32, u32)], chunks: &[ChunkRef]) {
        let same_names = !labels.is_empty()
            && self.labels.len() == labels.len()
            && self.labels.iter().zip(labels).all(|(a, b)| a.0 == b.0);
        if same_names {
            self.out.push(0);
            for group in self.labels.chunks(8).zip(labels.chunks(8)) {
                let changed = group.0.iter().zip(group.1).enumerate();
                self.out.push(changed.fold(0, |bits, (i, (a, b))| bits | u8::from(a.1 != b.1) << i));
            }
            for (before, now) in self.labels.iter().zip(labels).filter(|(a, b)| a.1 != b.1) {
                put_zigzag(&mut self.out, i64::from(now.1) - i64::from(before.1));
            }
        } else {
            put_varint(&mut self.out, labels.len() as u64 + 1);
            for (name, value) in labels {
                put_varint(&mut self.out, u64::from(*name));
                put_varint(&mut self.out, u64::from(*value));
            }
        }
        self.labels.clear();
        self.labels.extend_from_slice(labels);
        write_chunks(chunks, &mut self.column, &mut self.offset, &mut self.out);
    }

    /// The bytes of the page.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let packed = zstd::bulk::compress(&self.out, ZSTD_LEVEL).ok();
        let packed = packed.filter(|p| p.len() + varint_len(self.out.len() as u64) < self.out.len());
        let mut out = Vec::new();
        match packed {
            Some(packed) => {
                out.push(1);
                put_varint(&mut out, self.out.len() as u64);
                out.extend_from_slice(&packed);
            }
            None => {
                out.push(0);
                out.extend_from_slice(&self.out);
            }
        }
        out
    }
}

/// The series of a page, in lists that are used again for the next page.
#[derive(Debug, Default)]
pub struct Page {
    labels: Vec<(u32, u32)>,
    chunks: Vec<ChunkRef>,
    /// Where the labels and the chunks of each series end.
    ends: Vec<(usize, usize)>,
    plain: Vec<u8>,
}

impl Page {
    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, i: usize) -> (usize, usize) {
        i.checked_sub(1).map_or((0, 0), |before| self.ends[before])
    }

    /// Symbols of names and values of a series.
    #[must_use]
    pub fn labels(&self, i: usize) -> &[(u32, u32)] {
        &self.labels[self.start(i).0..self.ends[i].0]
    }

    /// Chunks of a series, floats before histograms, each kind in order of time.
    #[must_use]
    pub fn chunks(&self, i: usize) -> &[ChunkRef] {
        &self.chunks[self.start(i).1..self.ends[i].1]
    }

    /// Replaces the content by a page whose checksum was verified.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<()> {
        self.labels.clear();
        self.chunks.clear();
        self.ends.clear();
        let mut input = Input::new(bytes);
        match input.u8()? {
            0 => self.decode_plain(input),
            1 => {
                let len = input.count(MAX_PAGE)?;
                let mut plain = std::mem::take(&mut self.plain);
                let unpacked = decompress(input.rest(), len, &mut plain);
                let result = match unpacked {
                    Ok(()) if plain.len() <= len => self.decode_plain(Input::new(&plain)),
                    _ => Err(DecodeError("series page does not decompress")),
                };
                self.plain = plain;
                result
            }
            _ => Err(DecodeError("unknown compression of a series page")),
        }
    }

    fn decode_plain(&mut self, mut input: Input<'_>) -> Result<()> {
        let (mut column, mut offset) = (0, 0);
        while !input.is_empty() {
            if self.ends.len() == PAGE_SERIES {
                return Err(DecodeError("more than 32 series in one page"));
            }
            let at = self.labels.len();
            match input.count(MAX_LABELS)? {
                0 => {
                    let before =
                        self.len().checked_sub(1).ok_or(DecodeError("page begins with a difference"))?;
                    self.labels.extend_from_within(self.start(before).0..self.ends[before].0);
                    let bits = input.bytes((self.labels.len() - at).div_ceil(8))?;
                    for (i, (_, value)) in self.labels[at..].iter_mut().enumerate() {
                        if bits.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1) {
                            let changed = i64::from(*value).checked_add(input.zigzag()?);
                            *value = changed
                                .and_then(|v| u32::try_from(v).ok())
                                .ok_or(DecodeError("symbol number out of range"))?;
                        }
                    }
                }
                n => {
                    for _ in 1..n {
                        self.labels.push((input.varint32()?, input.varint32()?));
                    }
                }
            }
            read_chunks(&mut input, &mut column, &mut offset, &mut self.chunks)?;
            self.ends.push((self.labels.len(), self.chunks.len()));
        }
        Ok(())
    }
}
