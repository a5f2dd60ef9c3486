//! Frames: how does a reader find the next whole record after damage, and know that it is whole?

use std::cell::RefCell;

use super::super::chunk::Damaged;
use super::super::chunk::bytes::{Cursor, put_uvarint};

/// First bytes of each frame.
pub const MAGIC: [u8; 4] = [0xd7, b'M', b'K', b'r'];
/// Bytes before the payload.
pub const HEADER: usize = 13;
/// Longest payload, stored or raw, in bytes.
pub const MAX_PAYLOAD: usize = 256 << 20;
const COMPRESSED: u8 = 0x80;
/// Below this many bytes a compressor wins too little for its time: what repeats from scrape to scrape is not in a payload
/// anyway, and the rest shrinks by a tenth at most.
const WORTH_COMPRESSING: usize = 1024;
const LEVEL: i32 = 1;
/// Room that a buffer keeps for the next frame, bytes.
pub const KEEP: usize = 1 << 20;

/// Kinds of frames.
pub mod kind {
    /// A batch. 1 was its first layout, which no release has written.
    pub const BATCH: u8 = 2;
    /// Start of a checkpoint.
    pub const START: u8 = 16;
    /// A group of series of a checkpoint.
    pub const SERIES: u8 = 17;
    /// Metadata of a checkpoint.
    pub const METADATA: u8 = 18;
    /// Exemplars of a checkpoint.
    pub const EXEMPLARS: u8 = 19;
    /// Deletions of a checkpoint.
    pub const DELETIONS: u8 = 20;
    /// End of a checkpoint.
    pub const END: u8 = 31;
}

fn checksum(salt: u32, kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Builds frames; keeps a compressor and its buffers.
pub struct FrameWriter {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl FrameWriter {
    /// `compress`: whether to try zstd on payloads.
    #[must_use]
    pub fn new(compress: bool) -> Self {
        let compressor = if compress { zstd::bulk::Compressor::new(LEVEL).ok() } else { None };
        Self { compressor, packed: Vec::new() }
    }

    /// Appends one frame to `out`.
    pub fn put(&mut self, out: &mut Vec<u8>, salt: u32, kind: u8, payload: &[u8]) -> Result<(), Damaged> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Damaged("the record is larger than 256 MiB"));
        }
        let is_packed = self.pack(payload);
        let stored_kind = if is_packed { kind | COMPRESSED } else { kind };
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.push(stored_kind);
        out.extend_from_slice(&[0; 8]);
        if is_packed {
            put_uvarint(out, payload.len() as u64);
            out.extend_from_slice(&self.packed);
        } else {
            out.extend_from_slice(payload);
        }
        let (header, stored) = out[start..].split_at_mut(HEADER);
        header[5..9].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        header[9..].copy_from_slice(&checksum(salt, stored_kind, stored).to_le_bytes());
        Ok(())
    }

    /// Compresses a payload into `packed`, and says whether that is worth it.
    fn pack(&mut self, payload: &[u8]) -> bool {
        let Some(compressor) = self.compressor.as_mut().filter(|_| payload.len() >= WORTH_COMPRESSING) else {
            return false;
        };
        self.packed.clear();
        self.packed.shrink_to(KEEP);
        // With less room than the payload takes it fails, which is as good as a bad result.
        self.packed.reserve(payload.len());
        compressor.compress_to_buffer(payload, &mut self.packed).is_ok()
            && self.packed.len() + 4 < payload.len()
    }
}

/// One thing found in a file.
#[derive(Debug)]
pub enum Found {
    /// A whole frame: kind without the compression bit, and its raw payload.
    Frame {
        /// Kind.
        kind: u8,
        /// Raw payload.
        payload: Vec<u8>,
        /// Offset of the frame in the file.
        offset: usize,
    },
    /// Bytes that belong to no whole frame.
    Damage {
        /// Offset of the first damaged byte.
        offset: usize,
        /// Number of damaged bytes.
        len: usize,
        /// Whether they reach to the end of the file.
        at_end: bool,
    },
}

/// Iterates over the frames of a file, over damage too.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    salt: u32,
    at: usize,
}

impl<'a> Frames<'a> {
    /// Reads `bytes` from `from` on.
    #[must_use]
    pub fn new(bytes: &'a [u8], salt: u32, from: usize) -> Self {
        Self { bytes, salt, at: from.min(bytes.len()) }
    }

    /// Where the payload of the frame at an offset lies, if that is whole and not compressed.
    #[must_use]
    pub fn payload_at(&self, at: usize) -> Option<std::ops::Range<usize>> {
        let (kind, payload) = self.whole(at)?;
        (kind & COMPRESSED == 0).then(|| at + HEADER..at + HEADER + payload.len())
    }

    /// The frame at an offset, as stored, if it is whole.
    fn whole(&self, at: usize) -> Option<(u8, &'a [u8])> {
        let mut cursor = Cursor::new(self.bytes.get(at..)?);
        if cursor.take(4).ok()? != MAGIC {
            return None;
        }
        let kind = cursor.byte().ok()?;
        let len = cursor.u32_le().ok()? as usize;
        let crc = cursor.u32_le().ok()?;
        if len > MAX_PAYLOAD {
            return None;
        }
        let payload = cursor.take(len).ok()?;
        (checksum(self.salt, kind, payload) == crc).then_some((kind, payload))
    }
}

/// What lies at the start of some bytes.
#[derive(Debug)]
pub enum At {
    /// A whole frame.
    Whole {
        /// Kind.
        kind: u8,
        /// Raw payload.
        payload: Vec<u8>,
        /// Bytes of the frame as stored.
        len: usize,
    },
    /// The beginning of a frame, or nothing.
    Incomplete,
    /// Something else.
    Damaged,
}

/// Reads the frame at the start of `bytes`.
#[must_use]
pub fn frame_at(bytes: &[u8], salt: u32) -> At {
    let begun = bytes.len().min(MAGIC.len());
    if bytes[..begun] != MAGIC[..begun] {
        return At::Damaged;
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else { return At::Incomplete };
    let stored = u32::from_le_bytes([header[5], header[6], header[7], header[8]]) as usize;
    if stored > MAX_PAYLOAD {
        return At::Damaged;
    }
    let len = HEADER + stored;
    if bytes.len() < len {
        return At::Incomplete;
    }
    let whole = Frames::new(&bytes[..len], salt, 0).whole(0);
    match whole.map(|(kind, stored)| (kind & !COMPRESSED, unpack(kind, stored))) {
        Some((kind, Ok(payload))) => At::Whole { kind, payload, len },
        _ => At::Damaged,
    }
}

thread_local! {
    /// Making one costs more than unpacking a record.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn unpack(kind: u8, stored: &[u8]) -> Result<Vec<u8>, Damaged> {
    if kind & COMPRESSED == 0 {
        return Ok(stored.to_vec());
    }
    let mut cursor = Cursor::new(stored);
    let len = cursor.uvarint()?;
    if len > MAX_PAYLOAD as u64 {
        return Err(Damaged("the record is larger than 256 MiB"));
    }
    let unpacked = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = zstd::bulk::Decompressor::new().ok();
        }
        decompressor.as_mut().map(|d| d.decompress(cursor.rest(), len as usize))
    });
    let raw = unpacked.and_then(Result::ok).ok_or(Damaged("zstd"))?;
    if raw.len() as u64 != len { Err(Damaged("zstd gave another length")) } else { Ok(raw) }
}

/// A whole frame as it is stored, or what is in its place.
#[derive(Debug, Clone, Copy)]
pub enum Raw<'a> {
    /// A whole frame.
    Frame(RawFrame<'a>),
    /// Bytes that belong to no whole frame, as in [`Found::Damage`].
    Damage {
        /// Offset of the first damaged byte.
        offset: usize,
        /// Number of damaged bytes.
        len: usize,
        /// Whether they reach to the end of the file.
        at_end: bool,
    },
}

/// A whole frame that is not unpacked yet.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame<'a> {
    stored_kind: u8,
    stored: &'a [u8],
    /// Offset of the frame in the file.
    pub offset: usize,
}

impl<'a> RawFrame<'a> {
    /// Kind without the compression bit.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.stored_kind & !COMPRESSED
    }

    /// The payload, copied only if it is compressed.
    pub fn payload(&self) -> Result<std::borrow::Cow<'a, [u8]>, Damaged> {
        if self.stored_kind & COMPRESSED == 0 {
            return Ok(self.stored.into());
        }
        unpack(self.stored_kind, self.stored).map(Into::into)
    }
}

impl<'a> Frames<'a> {
    /// The next frame without unpacking it.
    pub fn next_raw(&mut self) -> Option<Raw<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        if let Some((stored_kind, stored)) = self.whole(start) {
            self.at = start + HEADER + stored.len();
            return Some(Raw::Frame(RawFrame { stored_kind, stored, offset: start }));
        }
        let next = memchr::memmem::find_iter(&self.bytes[start + 1..], &MAGIC)
            .map(|i| start + 1 + i)
            .find(|at| self.whole(*at).is_some());
        self.at = next.unwrap_or(self.bytes.len());
        Some(Raw::Damage { offset: start, len: self.at - start, at_end: next.is_none() })
    }
}

impl Iterator for Frames<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        Some(match self.next_raw()? {
            Raw::Frame(frame) => match unpack(frame.stored_kind, frame.stored) {
                Ok(payload) => Found::Frame { kind: frame.kind(), payload, offset: frame.offset },
                Err(_) => Found::Damage { offset: frame.offset, len: self.at - frame.offset, at_end: false },
            },
            Raw::Damage { offset, len, at_end } => Found::Damage { offset, len, at_end },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut writer = FrameWriter::new(true);
        let payloads: Vec<Vec<u8>> =
            vec![b"one".to_vec(), vec![7; 300], Vec::new(), (0..200).collect(), MAGIC.to_vec()];
        let mut out = Vec::new();
        for payload in &payloads {
            writer.put(&mut out, 42, kind::BATCH, payload).unwrap();
        }
        (out, payloads)
    }

    fn read(bytes: &[u8], salt: u32) -> (Vec<Vec<u8>>, usize) {
        let (mut frames, mut damage) = (Vec::new(), 0);
        for found in Frames::new(bytes, salt, 0) {
            match found {
                Found::Frame { payload, .. } => frames.push(payload),
                Found::Damage { .. } => damage += 1,
            }
        }
        (frames, damage)
    }

    #[test]
    fn every_flipped_bit_costs_one_frame() {
        let (bytes, payloads) = sample();
        assert_eq!(read(&bytes, 42), (payloads.clone(), 0));
        assert_eq!(read(&bytes, 43).0.len(), 0);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (frames, damage) = read(&damaged, 42);
            assert_eq!((frames.len(), damage), (payloads.len() - 1, 1), "bit {bit}");
            assert!(frames.iter().all(|f| payloads.contains(f)), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_keeps_the_frames_before_it() {
        let (bytes, payloads) = sample();
        for len in 0..bytes.len() {
            let (frames, _) = read(&bytes[..len], 42);
            assert_eq!(frames[..], payloads[..frames.len()]);
        }
    }
}
