//! How are records taken out of Prometheus's write-ahead log? Segments are cut into pages of 32 KiB, records into
//! fragments that never cross a page; the layout is in `docs/format/prometheus-log.md`. Damage costs what is between
//! it and the next whole fragment.

use std::io::Read as _;

use crate::tsdb::block::bytes::DecodeError;

const PAGE: usize = 32 << 10;
const HEADER: usize = 7;
const KIND: u8 = 0b0000_0111;
const SNAPPY: u8 = 0b0000_1000;
const ZSTD: u8 = 0b0001_0000;
/// Longest record, stored or unpacked.
const MAX_RECORD: usize = 256 << 20;

/// One thing found in a segment.
#[derive(Debug)]
pub enum Found {
    /// A whole record, unpacked.
    Record {
        /// Its bytes; the first one is its type.
        bytes: Vec<u8>,
        /// Where its first fragment begins.
        offset: usize,
    },
    /// Bytes that belong to no whole record.
    Damage {
        /// Where they begin.
        offset: usize,
        /// How many there are.
        len: usize,
        /// Whether they reach to the end of the segment.
        at_end: bool,
    },
}

enum Fragment<'a> {
    /// Nothing up to the end of the page.
    Padding,
    Data {
        flags: u8,
        data: &'a [u8],
    },
    Bad,
}

/// Iterates over the records of a segment, over damage too.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Fragments of a record that is not complete: flags of the first one, its offset, data so far.
    open: Option<(u8, usize, Vec<u8>)>,
    /// A record to hand out after damage was reported.
    waiting: Option<Found>,
}

impl<'a> Records<'a> {
    /// Reads a segment.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, open: None, waiting: None }
    }

    fn fragment(&self, at: usize) -> Fragment<'a> {
        let end = ((at / PAGE + 1) * PAGE).min(self.bytes.len());
        let page = self.bytes.get(at..end).unwrap_or_default();
        // Too little for a header, or no type: the rest of a page is zeros.
        if page.iter().all(|b| *b == 0) {
            return Fragment::Padding;
        }
        let Some((header, rest)) = page.split_first_chunk::<HEADER>() else { return Fragment::Bad };
        let [flags, len_high, len_low, crc @ ..] = *header;
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        match rest.get(..len) {
            Some(data) if is_flags(flags) && crc32c::crc32c(data) == u32::from_be_bytes(crc) => {
                Fragment::Data { flags, data }
            }
            _ => Fragment::Bad,
        }
    }

    fn next_page(&self, at: usize) -> usize {
        ((at / PAGE + 1) * PAGE).min(self.bytes.len())
    }

    /// Where reading can go on behind damage: where whole fragments follow one another up to the end of the page, else
    /// on the next page. Bytes inside a record that look like a fragment do not lead there.
    fn behind(&self, at: usize) -> usize {
        let next = self.next_page(at);
        let leads_on = |from: usize| {
            let mut place = from;
            while place < next {
                match self.fragment(place) {
                    Fragment::Data { data, .. } => place += HEADER + data.len(),
                    Fragment::Padding => return place > from,
                    Fragment::Bad => return false,
                }
            }
            true
        };
        (at + 1..next).find(|from| leads_on(*from)).unwrap_or(next)
    }

    fn damage(&self, offset: usize, end: usize) -> Found {
        Found::Damage { offset, len: end - offset, at_end: end >= self.bytes.len() }
    }
}

/// Whether a byte says what a fragment is: one of four kinds, at most one compression.
fn is_flags(flags: u8) -> bool {
    (1..=4).contains(&(flags & KIND)) && matches!(flags & !KIND, 0 | SNAPPY | ZSTD)
}

/// Unpacks a record.
fn unpack(flags: u8, stored: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    let too_long = DecodeError("record is larger than 256 MiB");
    if flags & SNAPPY != 0 {
        let bad = |_| DecodeError("record is not snappy");
        if snap::raw::decompress_len(&stored).map_err(bad)? > MAX_RECORD {
            return Err(too_long);
        }
        return snap::raw::Decoder::new().decompress_vec(&stored).map_err(bad);
    }
    if flags & ZSTD != 0 {
        let bad = |_| DecodeError("record is not zstd");
        let decoder = zstd::stream::read::Decoder::new(&stored[..]).map_err(bad)?;
        let mut out = Vec::new();
        decoder.take(MAX_RECORD as u64 + 1).read_to_end(&mut out).map_err(bad)?;
        return if out.len() > MAX_RECORD { Err(too_long) } else { Ok(out) };
    }
    Ok(stored)
}

impl Iterator for Records<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if let Some(found) = self.waiting.take() {
            return Some(found);
        }
        while self.at < self.bytes.len() {
            let at = self.at;
            let (flags, data) = match self.fragment(at) {
                Fragment::Padding => {
                    self.at = self.next_page(at);
                    continue;
                }
                Fragment::Bad => {
                    let mut end = self.behind(at);
                    // One report for all that lies between two whole fragments.
                    while end < self.bytes.len() && matches!(self.fragment(end), Fragment::Bad) {
                        end = self.behind(end);
                    }
                    self.at = end;
                    let begin = self.open.take().map_or(at, |(_, begin, _)| begin);
                    return Some(self.damage(begin, end));
                }
                Fragment::Data { flags, data } => (flags, data),
            };
            self.at = at + HEADER + data.len();
            // First and full fragments end what was open; middle and last ones need something open.
            let begins = matches!(flags & KIND, 1 | 2);
            let lost = if begins { self.open.take() } else { None };
            if begins {
                self.open = Some((flags, at, data.to_vec()));
            } else if let Some((_, _, bytes)) = &mut self.open {
                bytes.extend_from_slice(data);
                if bytes.len() > MAX_RECORD {
                    let begin = self.open.take().map_or(at, |(_, begin, _)| begin);
                    return Some(self.damage(begin, self.at));
                }
            } else {
                return Some(self.damage(at, self.at));
            }
            let whole = if matches!(flags & KIND, 1 | 4) { self.open.take() } else { None };
            let found = whole.map(|(flags, offset, bytes)| match unpack(flags, bytes) {
                Ok(bytes) => Found::Record { bytes, offset },
                Err(_) => self.damage(offset, self.at),
            });
            if let Some((_, begin, _)) = lost {
                self.waiting = found;
                return Some(self.damage(begin, at));
            }
            if found.is_some() {
                return found;
            }
        }
        self.open.take().map(|(_, begin, _)| self.damage(begin, self.bytes.len()))
    }
}

#[cfg(test)]
pub(in crate::tsdb) mod tests {
    use super::*;

    /// Writes a segment as Prometheus does.
    #[derive(Default)]
    pub(in crate::tsdb) struct SegmentWriter {
        pub(in crate::tsdb) bytes: Vec<u8>,
    }

    impl SegmentWriter {
        pub(in crate::tsdb) fn put(&mut self, record: &[u8], compression: u8) {
            let packed = match compression {
                SNAPPY => snap::raw::Encoder::new().compress_vec(record).unwrap(),
                ZSTD => zstd::bulk::compress(record, 1).unwrap(),
                _ => record.to_vec(),
            };
            let mut rest = &packed[..];
            for part in 0.. {
                let room = PAGE - self.bytes.len() % PAGE;
                if room < HEADER {
                    self.bytes.resize(self.bytes.len() + room, 0);
                    continue;
                }
                let (data, later) = rest.split_at(rest.len().min(room - HEADER));
                let first = part == 0 || rest.len() == packed.len();
                let kind = match (first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                self.bytes.push(kind | compression);
                self.bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
                self.bytes.extend_from_slice(&crc32c::crc32c(data).to_be_bytes());
                self.bytes.extend_from_slice(data);
                rest = later;
                if rest.is_empty() {
                    return;
                }
            }
        }
    }

    fn records() -> Vec<Vec<u8>> {
        let mut rng = fastrand::Rng::with_seed(3);
        let lens = [1usize, 40, 30_000, 5, 70_000, 32_761, 9, 100];
        lens.iter().enumerate().map(|(i, n)| (0..*n).map(|_| rng.u8(..) / 16 + i as u8).collect()).collect()
    }

    fn segment() -> Vec<u8> {
        let mut writer = SegmentWriter::default();
        for (i, record) in records().iter().enumerate() {
            writer.put(record, [0, SNAPPY, ZSTD][i % 3]);
        }
        writer.bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut found, mut damage) = (Vec::new(), 0);
        for one in Records::new(bytes) {
            match one {
                Found::Record { bytes, .. } => found.push(bytes),
                Found::Damage { len, .. } => {
                    assert!(len > 0);
                    damage += 1;
                }
            }
        }
        (found, damage)
    }

    #[test]
    fn records_return_over_pages_and_compressions() {
        assert_eq!(read(&segment()), (records(), 0));
        assert_eq!(read(&[]), (Vec::new(), 0));
        assert_eq!(read(&[0; 100]), (Vec::new(), 0));
    }

    #[test]
    fn every_truncation_keeps_what_is_before_it() {
        let (bytes, all) = (segment(), records());
        for len in (0..bytes.len()).step_by(997).chain(bytes.len() - 200..bytes.len()) {
            let (found, damage) = read(&bytes[..len]);
            assert_eq!(found[..], all[..found.len()], "{len}");
            assert!(damage <= 1);
        }
    }

    #[test]
    fn damage_costs_little_and_is_named() {
        let (bytes, all) = (segment(), records());
        for at in (0..bytes.len()).step_by(1009) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x55;
            let (found, damage) = read(&broken);
            assert!(found.iter().all(|f| all.contains(f)), "{at}: a record that was never written");
            assert!(found.len() == all.len() || damage > 0, "{at}: lost and not named");
            assert!(found.len() + 5 >= all.len(), "{at}: {} of {}", found.len(), all.len());
        }
    }
}
