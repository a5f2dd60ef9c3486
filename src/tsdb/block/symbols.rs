//! How are the strings of a block stored? Sorted, front-coded in groups of 16, numbered in their order: so a
//! label value is a number, and numbers compare like the strings. Bytes: `docs/format/block-index.md`.

use std::ops::Range;

use super::bytes::{DecodeError, Input, Result, put_varint};

const GROUP: usize = 16;
/// Longest string, bytes.
pub const MAX_SYMBOL: usize = 1 << 28;

/// Builds the section from strictly sorted strings.
#[must_use]
pub fn encode<'a>(sorted: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let (mut blob, mut offsets) = (Vec::new(), Vec::new());
    let mut last: &[u8] = &[];
    let mut count = 0u32;
    for (i, text) in sorted.enumerate() {
        let bytes = text.as_bytes();
        if i % GROUP == 0 {
            offsets.push(blob.len() as u64);
            last = &[];
        }
        let shared = last.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        put_varint(&mut blob, shared as u64);
        put_varint(&mut blob, (bytes.len() - shared) as u64);
        blob.extend_from_slice(&bytes[shared..]);
        last = bytes;
        count += 1;
    }
    let mut out = count.to_le_bytes().to_vec();
    for offset in offsets {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    out.extend_from_slice(&blob);
    out
}

/// The section, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Symbols<'a> {
    count: u32,
    offsets: &'a [u8],
    blob: &'a [u8],
}

impl<'a> Symbols<'a> {
    /// Opens a section whose checksum was verified.
    pub fn open(section: &'a [u8]) -> Result<Self> {
        let mut input = Input::new(section);
        let count = input.u32()?;
        let groups = (count as usize).div_ceil(GROUP);
        let offsets = input.bytes(groups * 8)?;
        Ok(Self { count, offsets, blob: input.rest() })
    }

    /// Number of strings.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn group(&self, group: usize) -> Result<Input<'a>> {
        let at = self.offsets.get(group * 8..).and_then(|o| o.first_chunk::<8>());
        let at = at.ok_or(DecodeError("unknown symbol"))?;
        let at = usize::try_from(u64::from_le_bytes(*at)).map_err(|_| DecodeError("symbol offset"))?;
        self.blob.get(at..).map(Input::new).ok_or(DecodeError("symbol offset lies outside its section"))
    }

    fn step(input: &mut Input<'a>, text: &mut Vec<u8>) -> Result<()> {
        let shared = input.count(text.len())?;
        let added = input.count(MAX_SYMBOL)?;
        text.truncate(shared);
        text.extend_from_slice(input.bytes(added)?);
        Ok(())
    }

    /// The string of a number.
    pub fn get(&self, id: u32) -> Result<String> {
        if id >= self.count {
            return Err(DecodeError("unknown symbol"));
        }
        let mut input = self.group(id as usize / GROUP)?;
        let mut text = Vec::new();
        for _ in 0..=(id as usize % GROUP) {
            Self::step(&mut input, &mut text)?;
        }
        String::from_utf8(text).map_err(|_| DecodeError("symbol is not UTF-8"))
    }

    /// Runs `each` over the strings of a range of numbers until it answers false.
    pub fn scan(&self, ids: Range<u32>, mut each: impl FnMut(u32, &str) -> bool) -> Result<()> {
        let mut id = ids.start;
        let mut text = Vec::new();
        let mut input = Input::new(&[]);
        while id < ids.end.min(self.count) {
            let within = id as usize % GROUP;
            if within == 0 || id == ids.start {
                input = self.group(id as usize / GROUP)?;
                text.clear();
                for _ in 0..within {
                    Self::step(&mut input, &mut text)?;
                }
            }
            Self::step(&mut input, &mut text)?;
            let text = std::str::from_utf8(&text).map_err(|_| DecodeError("symbol is not UTF-8"))?;
            if !each(id, text) {
                return Ok(());
            }
            id += 1;
        }
        Ok(())
    }

    /// The number of the first string that is not below `text`.
    pub fn lower_bound(&self, text: &str) -> Result<u32> {
        // The group whose first string is the last one not above `text`.
        let (mut low, mut high) = (0usize, (self.count as usize).div_ceil(GROUP));
        while low < high {
            let middle = usize::midpoint(low, high);
            let mut first = Vec::new();
            Self::step(&mut self.group(middle)?, &mut first)?;
            if first.as_slice() < text.as_bytes() { low = middle + 1 } else { high = middle }
        }
        let start = low.saturating_sub(1) * GROUP;
        let mut found = self.count.min((low * GROUP) as u32);
        self.scan(start as u32..found, |id, symbol| {
            let below = symbol < text;
            if !below {
                found = id;
            }
            below
        })?;
        Ok(found)
    }

    /// The number of a string.
    pub fn find(&self, text: &str) -> Result<Option<u32>> {
        let id = self.lower_bound(text)?;
        Ok(if id < self.count && self.get(id)? == text { Some(id) } else { None })
    }

    /// The numbers of the strings that begin with `prefix`.
    pub fn with_prefix(&self, prefix: &str) -> Result<Range<u32>> {
        let start = self.lower_bound(prefix)?;
        let mut above = prefix.to_owned();
        // The smallest string above all that share the prefix: its last character raised by one.
        while let Some(last) = above.pop() {
            let next = (last as u32 + 1..=0x10_ffff).find_map(char::from_u32);
            if let Some(next) = next {
                above.push(next);
                return Ok(start..self.lower_bound(&above)?);
            }
        }
        Ok(start..self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list(mut texts in prop::collection::vec("[a-c]{0,4}|\\PC{0,3}", 0..120),
                                      probes in prop::collection::vec("[a-c]{0,4}|\\PC{0,2}", 1..20)) {
            texts.sort();
            texts.dedup();
            let section = encode(texts.iter().map(String::as_str));
            let symbols = Symbols::open(&section).unwrap();
            prop_assert_eq!(symbols.len() as usize, texts.len());
            for (i, text) in texts.iter().enumerate() {
                prop_assert_eq!(&symbols.get(i as u32).unwrap(), text);
                prop_assert_eq!(symbols.find(text).unwrap(), Some(i as u32));
            }
            for probe in &probes {
                let at = texts.partition_point(|t| t < probe);
                prop_assert_eq!(symbols.lower_bound(probe).unwrap() as usize, at);
                let with: Vec<&String> = texts.iter().filter(|t| t.starts_with(probe.as_str())).collect();
                let range = symbols.with_prefix(probe).unwrap();
                prop_assert_eq!(range.len(), with.len());
            }
        }
    }
}
