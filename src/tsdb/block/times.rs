//! How are timestamps stored once for all series that were scraped together? Each distinct column of a block has
//! a number; chunks refer to it, whole or to a slice of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::bytes::{DecodeError, Input, Result, put_varint, put_zigzag};
use super::format::{CHUNK_SAMPLES, TIME_PAGE_COLUMNS};
use super::ints;

/// Bytes of a directory entry: offset, length, checksum.
pub const DIRECTORY_ENTRY: usize = 16;
/// Timestamps kept for sharing while a block is written; older columns are no longer found.
const MEMORY: usize = 8 << 20;

/// Gives out column numbers while a block is written.
#[derive(Debug, Default)]
pub struct TimeWriter {
    by_hash: HashMap<u128, u32>,
    /// Columns by first and by last timestamp, to find slices.
    by_end: HashMap<(bool, i64), u32>,
    recent: HashMap<u32, Arc<[i64]>>,
    recent_len: usize,
    pending: Vec<u8>,
    pending_columns: usize,
    pages: Vec<u8>,
    directory: Vec<u8>,
    count: u32,
}

impl TimeWriter {
    /// The number of a column with exactly these timestamps, or of one that begins or ends with them and the
    /// slice.
    pub fn number(&mut self, timestamps: &[i64]) -> (u32, Option<(u32, u32)>) {
        let mut bytes = Vec::with_capacity(timestamps.len() * 8);
        timestamps.iter().for_each(|t| bytes.extend_from_slice(&t.to_le_bytes()));
        let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
        if let Some(number) = self.by_hash.get(&hash) {
            return (*number, None);
        }
        let len = timestamps.len();
        if let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) {
            for (at_end, t) in [(false, *first), (true, *last)] {
                let Some(number) = self.by_end.get(&(at_end, t)) else { continue };
                let Some(column) = self.recent.get(number).filter(|c| c.len() > len) else { continue };
                let from = if at_end { column.len() - len } else { 0 };
                if column[from..from + len] == *timestamps {
                    return (*number, Some((from as u32, len as u32)));
                }
            }
        }
        let number = self.count;
        self.count += 1;
        self.remember(number, hash, timestamps);
        let mut column = Vec::new();
        put_varint(&mut column, len as u64);
        let first = timestamps.first().copied().unwrap_or(0);
        put_zigzag(&mut column, first);
        put_zigzag(&mut column, timestamps.last().copied().unwrap_or(0).wrapping_sub(first));
        ints::encode(timestamps, &mut column);
        put_varint(&mut self.pending, column.len() as u64);
        self.pending.extend_from_slice(&column);
        self.pending_columns += 1;
        if self.pending_columns == TIME_PAGE_COLUMNS {
            self.close_page();
        }
        (number, None)
    }

    fn remember(&mut self, number: u32, hash: u128, timestamps: &[i64]) {
        if self.recent_len + timestamps.len() > MEMORY {
            self.recent.clear();
            self.by_end.clear();
            self.recent_len = 0;
        }
        // Sharing is a saving, not a promise: forget rather than grow without bound.
        if self.by_hash.len() > 1 << 20 {
            self.by_hash.clear();
        }
        self.by_hash.insert(hash, number);
        self.recent_len += timestamps.len();
        self.recent.insert(number, timestamps.into());
        if let (Some(first), Some(last)) = (timestamps.first(), timestamps.last()) {
            // The longest column of each end serves the most slices.
            for key in [(false, *first), (true, *last)] {
                let longer = self.by_end.get(&key).and_then(|n| self.recent.get(n));
                if longer.is_none_or(|c| c.len() <= timestamps.len()) {
                    self.by_end.insert(key, number);
                }
            }
        }
    }

    fn close_page(&mut self) {
        if self.pending_columns == 0 {
            return;
        }
        self.directory.extend_from_slice(&(self.pages.len() as u64).to_le_bytes());
        self.directory.extend_from_slice(&(self.pending.len() as u32).to_le_bytes());
        self.directory.extend_from_slice(&crc32fast::hash(&self.pending).to_le_bytes());
        self.pages.append(&mut self.pending);
        self.pending_columns = 0;
    }

    /// Number of columns, their pages and the directory.
    #[must_use]
    pub fn finish(mut self) -> (u32, Vec<u8>, Vec<u8>) {
        self.close_page();
        (self.count, self.pages, self.directory)
    }
}

/// Decodes column `number` of a block out of its parts.
pub fn read(pages: &[u8], directory: &[u8], number: u32) -> Result<Vec<i64>> {
    let (page, within) = (number as usize / TIME_PAGE_COLUMNS, number as usize % TIME_PAGE_COLUMNS);
    let entry = directory.get(page * DIRECTORY_ENTRY..).ok_or(DecodeError("unknown timestamp column"))?;
    let mut entry = Input::new(entry);
    let offset = usize::try_from(entry.u64()?).map_err(|_| DecodeError("timestamp page"))?;
    let (len, crc) = (entry.u32()? as usize, entry.u32()?);
    let page = offset.checked_add(len).and_then(|end| pages.get(offset..end));
    let page = page.ok_or(DecodeError("timestamp page lies outside its part"))?;
    if crc32fast::hash(page) != crc {
        return Err(DecodeError("checksum of a timestamp page does not match"));
    }
    let mut input = Input::new(page);
    for _ in 0..within {
        let len = input.count(page.len())?;
        input.bytes(len)?;
    }
    let len = input.count(page.len())?;
    let mut column = Input::new(input.bytes(len)?);
    let n = column.count(CHUNK_SAMPLES)?;
    let first = column.zigzag()?;
    let last = first.wrapping_add(column.zigzag()?);
    let mut out = Vec::new();
    ints::decode(&mut column, n, &mut out)?;
    let ascending = out.windows(2).all(|w| w[0] < w[1]);
    if !ascending || !column.is_empty() || out.first() != Some(&first) || out.last() != Some(&last) {
        return Err(DecodeError("timestamp column is not ascending"));
    }
    Ok(out)
}
