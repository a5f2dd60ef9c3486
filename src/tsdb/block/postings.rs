//! Which series have a label pair? Ascending series numbers in blocks of 128 bit-packed differences with a skip
//! entry each, read in place. Bytes: `docs/format/block-index.md`.

use bitpacking::{BitPacker, BitPacker4x};

use super::bytes::{DecodeError, Input, Result, put_varint};

const BLOCK: usize = BitPacker4x::BLOCK_LEN;
const SKIP_BYTES: usize = 8;

/// Appends a list with its checksum.
pub fn encode(ids: &[u32], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    put_varint(&mut body, ids.len() as u64);
    let packer = BitPacker4x::new();
    let (mut skips, mut blocks) = (Vec::new(), Vec::new());
    let mut last = 0;
    let mut packed = [0u8; BLOCK * 4];
    let full = ids.chunks_exact(BLOCK);
    let tail = full.remainder();
    for block in full {
        let width = packer.num_bits_sorted(last, block);
        let len = packer.compress_sorted(last, block, &mut packed, width);
        last = block[BLOCK - 1];
        // Blocks take whole multiples of 16 bytes: the offset is counted in them, beside six bits of width.
        let place = (blocks.len() as u32 / 16) << 6 | u32::from(width);
        skips.extend_from_slice(&last.to_le_bytes());
        skips.extend_from_slice(&place.to_le_bytes());
        blocks.extend_from_slice(&packed[..len]);
    }
    body.extend_from_slice(&skips);
    put_varint(&mut body, blocks.len() as u64);
    body.extend_from_slice(&blocks);
    for &id in tail {
        put_varint(&mut body, u64::from(id - last));
        last = id;
    }
    put_varint(out, body.len() as u64);
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// A list, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Postings<'a> {
    count: usize,
    skips: &'a [u8],
    blocks: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Postings<'a> {
    /// Opens the list at the start of `bytes` after checking its checksum.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let mut input = Input::new(bytes);
        let len = input.count(bytes.len())?;
        let crc = input.u32()?;
        let body = input.bytes(len)?;
        if crc32fast::hash(body) != crc {
            return Err(DecodeError("checksum of a posting list does not match"));
        }
        let mut input = Input::new(body);
        let count = input.count(u32::MAX as usize)?;
        let skips = input.bytes(count / BLOCK * SKIP_BYTES)?;
        let blocks = input.count(input.len())?;
        let blocks = input.bytes(blocks)?;
        Ok(Self { count, skips, blocks, tail: input.rest() })
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn full_blocks(&self) -> usize {
        self.count / BLOCK
    }

    /// Last number of a block and its place.
    fn skip(&self, block: usize) -> Result<(u32, u32)> {
        let mut input =
            Input::new(self.skips.get(block * SKIP_BYTES..).ok_or(DecodeError("posting block is missing"))?);
        Ok((input.u32()?, input.u32()?))
    }

    fn block(&self, block: usize, out: &mut [u32; BLOCK]) -> Result<()> {
        let (_, place) = self.skip(block)?;
        let before = if block == 0 { 0 } else { self.skip(block - 1)?.0 };
        let (offset, width) = ((place >> 6) as usize * 16, place & 63);
        if width > 32 {
            return Err(DecodeError("posting block is too wide"));
        }
        let packed = self.blocks.get(offset..offset + width as usize * 16);
        let packed = packed.ok_or(DecodeError("posting block lies outside its list"))?;
        BitPacker4x::new().decompress_sorted(before, packed, out, width as u8);
        Ok(())
    }

    fn tail(&self, mut each: impl FnMut(u32)) -> Result<()> {
        let full = self.full_blocks();
        let mut last = if full == 0 { 0 } else { self.skip(full - 1)?.0 };
        let mut input = Input::new(self.tail);
        for _ in 0..self.count % BLOCK {
            last = last.checked_add(input.varint32()?).ok_or(DecodeError("posting is above 32 bits"))?;
            each(last);
        }
        Ok(())
    }

    /// Appends all numbers to `out`.
    pub fn read(&self, out: &mut Vec<u32>) -> Result<()> {
        let mut block = [0u32; BLOCK];
        for i in 0..self.full_blocks() {
            self.block(i, &mut block)?;
            out.extend_from_slice(&block);
        }
        self.tail(|id| out.push(id))
    }

    /// Keeps those of the ascending `ids` that are in the list; blocks without a candidate are not decoded.
    pub fn intersect(&self, ids: &mut Vec<u32>) -> Result<()> {
        let full = self.full_blocks();
        let mut block = [0u32; BLOCK];
        let mut kept = 0;
        let mut at = 0;
        let mut loaded = 0;
        while loaded < full && at < ids.len() {
            // First block whose last number is not below the candidate.
            let (mut low, mut high) = (loaded, full);
            while low < high {
                let middle = usize::midpoint(low, high);
                if self.skip(middle)?.0 < ids[at] { low = middle + 1 } else { high = middle }
            }
            if low == full {
                break;
            }
            let last = self.skip(low)?.0;
            self.block(low, &mut block)?;
            let mut inside = 0;
            while at < ids.len() && ids[at] <= last {
                while inside < BLOCK && block[inside] < ids[at] {
                    inside += 1;
                }
                if inside < BLOCK && block[inside] == ids[at] {
                    ids[kept] = ids[at];
                    kept += 1;
                }
                at += 1;
            }
            loaded = low + 1;
        }
        if at < ids.len() {
            let mut tail = Vec::with_capacity(BLOCK);
            self.tail(|id| tail.push(id))?;
            while at < ids.len() {
                if tail.binary_search(&ids[at]).is_ok() {
                    ids[kept] = ids[at];
                    kept += 1;
                }
                at += 1;
            }
        }
        ids.truncate(kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_return_and_intersect(mut ids in prop::collection::vec(0u32..3000, 0..900),
                                      mut probe in prop::collection::vec(0u32..3000, 0..300), spread in 1u32..100_000) {
            for list in [&mut ids, &mut probe] {
                list.sort_unstable();
                list.dedup();
                list.iter_mut().for_each(|id| *id *= spread);
            }
            let mut out = Vec::new();
            encode(&ids, &mut out);
            let postings = Postings::open(&out).unwrap();
            let mut back = Vec::new();
            postings.read(&mut back).unwrap();
            prop_assert_eq!(&back, &ids);
            let want: Vec<u32> = probe.iter().copied().filter(|p| ids.binary_search(p).is_ok()).collect();
            postings.intersect(&mut probe).unwrap();
            prop_assert_eq!(probe, want);
        }
    }
}
