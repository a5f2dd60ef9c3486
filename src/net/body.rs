//! How is a body read without trusting its sender? Chunk by chunk into a reused buffer, then decompressed into
//! another one; the cap counts decompressed bytes and stops decompression, not only its result.

use std::sync::Arc;

use super::error::NetError;
use super::gzip::Inflate;
use super::room::{BodyRoom, Share};

/// What a body may have when the caller sets no limit: 256 MiB, several times the exposition of a million series in
/// its compact form, so that an endless body costs little more.
pub const DEFAULT_MAX_BODY: u64 = 256 << 20;
/// Largest window that a zstd frame may ask for: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Room that is added at a time while decompressing.
pub(super) const STEP: usize = 64 << 10;

/// Buffers that are used again from request to request.
#[derive(Debug)]
pub struct BodyBuffer {
    /// Bytes as they came.
    pub(super) wire: Vec<u8>,
    decoded: Vec<u8>,
    is_encoded: bool,
    inflate: Inflate,
    share: Share,
}

impl Default for BodyBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl BodyBuffer {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wire: Vec::new(),
            decoded: Vec::new(),
            is_encoded: false,
            inflate: Inflate::default(),
            share: Share::default(),
        }
    }

    /// Empty buffers that take their memory from `room` as long as the request sets no limit.
    #[must_use]
    pub fn within(room: Arc<BodyRoom>) -> Self {
        Self { share: Share::of(room), ..Self::new() }
    }

    /// The body, decompressed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        if self.is_encoded { &self.decoded } else { &self.wire }
    }

    /// Bytes that came over the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// Empties the buffers and keeps their room.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.is_encoded = false;
    }

    /// Gives back room beyond `keep` bytes, for buffers that once held an unusual body.
    pub fn shrink_to(&mut self, keep: usize) {
        self.wire.shrink_to(keep);
        if self.decoded.capacity() > keep {
            self.decoded = Vec::with_capacity(keep);
        }
        self.share.release();
    }

    /// Appends what came over the wire.
    pub(super) fn push_wire(&mut self, chunk: &[u8], limit: Limit) -> Result<(), NetError> {
        check_size(self.wire.len() + chunk.len(), limit.bytes)?;
        reserve(&mut self.wire, chunk.len(), 0, limit, &mut self.share)?;
        self.wire.extend_from_slice(chunk);
        Ok(())
    }

    /// Fills the buffer with a body as it came over the wire and decompresses it.
    pub fn load(&mut self, wire: &[u8], content_encoding: &str, max_body: u64) -> Result<(), NetError> {
        self.clear();
        self.wire.extend_from_slice(wire);
        self.decode(content_encoding, Limit { bytes: max_body, is_own: true })
    }

    /// Decompresses what came. A body that reaches the limit is refused.
    pub(super) fn decode(&mut self, content_encoding: &str, limit: Limit) -> Result<(), NetError> {
        let max_body = limit.bytes;
        let beside = self.wire.capacity();
        let share = &mut self.share;
        let mut grow = |out: &mut Vec<u8>, more| reserve(out, more, beside, limit, share);
        let (wire, decoded) = (&self.wire, &mut self.decoded);
        let result = match content_encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => return check_size(wire.len(), max_body),
            "gzip" | "x-gzip" => self.inflate.gunzip(wire, decoded, max_body, &mut grow),
            "zstd" => unzstd(wire, decoded, max_body, &mut grow),
            "snappy" => unsnappy(wire, decoded, max_body, &mut grow),
            other => Err(NetError::Decode {
                encoding: other.into(),
                reason: "the encoding is not supported".into(),
            }),
        };
        self.is_encoded = true;
        result
    }
}

/// What bounds a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// A body of so many bytes is refused.
    pub(super) bytes: u64,
    /// The request sets it. Otherwise the memory shared with others bounds the body too.
    pub(super) is_own: bool,
}

impl Limit {
    /// The limit that a request names, or the common one for 0.
    pub(super) fn of(max_body: u64) -> Self {
        match max_body {
            0 => Self { bytes: DEFAULT_MAX_BODY, is_own: false },
            bytes => Self { bytes, is_own: true },
        }
    }
}

/// Makes room in a buffer for so many more bytes.
pub(super) type Grow<'g> = &'g mut dyn FnMut(&mut Vec<u8>, usize) -> Result<(), NetError>;

/// Makes room for `more` bytes; a body without a limit of its own has to find it in what all share. `beside` is what
/// its other buffer holds.
fn reserve(
    buffer: &mut Vec<u8>,
    more: usize,
    beside: usize,
    limit: Limit,
    share: &mut Share,
) -> Result<(), NetError> {
    let (len, capacity) = (buffer.len(), buffer.capacity());
    if capacity - len >= more {
        return Ok(());
    }
    let wanted = (len + more).max(capacity + capacity / 2);
    if !limit.is_own {
        share.cover((wanted + beside) as u64)?;
    }
    buffer.reserve_exact(wanted - len);
    Ok(())
}

pub(super) fn check_size(len: usize, max_body: u64) -> Result<(), NetError> {
    if len as u64 >= max_body { Err(NetError::BodyTooLarge { limit: max_body }) } else { Ok(()) }
}

/// Snappy's block format, as the remote protocols use it.
fn unsnappy(input: &[u8], out: &mut Vec<u8>, max_body: u64, grow: Grow<'_>) -> Result<(), NetError> {
    let bad = |e: snap::Error| NetError::Decode { encoding: "snappy".into(), reason: e.to_string() };
    out.clear();
    let len = snap::raw::decompress_len(input).map_err(bad)?;
    check_size(len, max_body)?;
    grow(out, len)?;
    out.resize(len, 0);
    let written = snap::raw::Decoder::new().decompress(input, out).map_err(bad)?;
    out.truncate(written);
    Ok(())
}

fn unzstd(input: &[u8], out: &mut Vec<u8>, max_body: u64, grow: Grow<'_>) -> Result<(), NetError> {
    use std::io::Read as _;
    let bad = |e: std::io::Error| NetError::Decode { encoding: "zstd".into(), reason: e.to_string() };
    out.clear();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(bad)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
    loop {
        let left = max_body.saturating_sub(out.len() as u64).min(STEP as u64);
        grow(out, STEP)?;
        if decoder.by_ref().take(left).read_to_end(out).map_err(bad)? == 0 {
            break;
        }
    }
    check_size(out.len(), max_body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn members_follow_each_other_and_buffers_are_reused() {
        let mut buffer = BodyBuffer::new();
        let mut wire = gzip(b"hello ");
        wire.extend(gzip(&b"world".repeat(50_000)));
        for _ in 0..3 {
            buffer.load(&wire, "gzip", 1 << 20).expect("valid");
            assert_eq!(buffer.bytes().len(), 6 + 250_000);
            assert!(buffer.bytes().starts_with(b"hello world"));
            assert_eq!(buffer.wire_len(), wire.len());
        }
        buffer.load(b"plain", "", 6).expect("below the limit");
        assert_eq!(buffer.bytes(), b"plain");
        assert!(matches!(buffer.load(b"plain!", "", 6), Err(NetError::BodyTooLarge { limit: 6 })));
    }

    #[test]
    fn equal_members_are_both_taken_and_lengths_may_lie() {
        let mut buffer = BodyBuffer::new();
        let member = gzip(b"up 1\n");
        let wire = [&member[..], &member[..], &member[..]].concat();
        buffer.load(&wire, "gzip", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"up 1\nup 1\nup 1\n");
        let empty = gzip(b"");
        buffer.load(&[&member[..], &empty[..]].concat(), "gzip", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"up 1\n");
        buffer.load(&empty, "gzip", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"");
        let end = member.len() - 4;
        for claimed in [0u32, 1, 4, 6, 99, 1000, u32::MAX] {
            let mut wire = member.clone();
            wire[end..].copy_from_slice(&claimed.to_le_bytes());
            assert!(buffer.load(&wire, "gzip", 1 << 20).is_err(), "{claimed}");
        }
        // Too long for the limit by one, exactly, and not.
        for (limit, fits) in [(5, false), (6, true)] {
            assert_eq!(buffer.load(&member, "gzip", limit).is_ok(), fits, "{limit}");
        }
        buffer.load(&member, "gzip", 100).expect("valid after failures");
        assert_eq!(buffer.bytes(), b"up 1\n");
    }

    #[test]
    fn headers_with_all_fields_are_skipped() {
        let body = gzip(b"x y z");
        let mut wire = vec![0x1f, 0x8b, 8, 4 | 8 | 16 | 2, 0, 0, 0, 0, 0, 0, 3, 0, 1, 2, 3];
        wire.extend(b"name\0comment\0\xaa\xbb");
        wire.extend(&body[10..]);
        let mut buffer = BodyBuffer::new();
        buffer.load(&wire, "gzip", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"x y z");
    }

    #[test]
    fn bombs_stop_at_the_cap() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut buffer = BodyBuffer::new();
        let error = buffer.load(&bomb, "gzip", 1 << 20).expect_err("too large");
        assert!(matches!(error, NetError::BodyTooLarge { .. }));
        assert!(buffer.decoded.capacity() < 4 << 20, "{}", buffer.decoded.capacity());
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("in memory");
        let error = buffer.load(&bomb, "zstd", 1 << 20).expect_err("too large");
        assert!(matches!(error, NetError::BodyTooLarge { .. }));
        assert!(buffer.decoded.capacity() < 4 << 20, "{}", buffer.decoded.capacity());
    }

    #[test]
    fn damaged_bodies_are_errors() {
        let good = gzip(&b"metric 1\n".repeat(1000));
        let mut buffer = BodyBuffer::new();
        for cut in 0..good.len() {
            assert!(buffer.load(&good[..cut], "gzip", 1 << 20).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            // Only the fields without a checksum may change unnoticed: time, extra flags, system.
            if buffer.load(&bad, "gzip", 1 << 20).is_ok() {
                assert!((4..10).contains(&at), "a flip at {at} went unnoticed");
            }
        }
        let mut trailing = good.clone();
        trailing.extend(b"rubbish");
        assert!(buffer.load(&trailing, "gzip", 1 << 20).is_err());
        assert!(buffer.load(&good, "br", 1 << 20).is_err());
    }

    #[test]
    fn snappy_blocks_are_checked_before_they_are_unpacked() {
        let wire = snap::raw::Encoder::new().compress_vec(b"aaaaaaaaaaaaaaaaaaaa").expect("in memory");
        let mut buffer = BodyBuffer::new();
        buffer.load(&wire, "snappy", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"aaaaaaaaaaaaaaaaaaaa");
        assert!(matches!(buffer.load(&wire, "snappy", 20), Err(NetError::BodyTooLarge { limit: 20 })));
        assert!(buffer.load(&wire[..wire.len() - 1], "snappy", 100).is_err());
    }

    #[test]
    fn zstd_frames_follow_each_other() {
        let mut wire = zstd::bulk::compress(b"a b ", 1).expect("in memory");
        wire.extend(zstd::bulk::compress(b"c", 1).expect("in memory"));
        let mut buffer = BodyBuffer::new();
        buffer.load(&wire, "zstd", 100).expect("valid");
        assert_eq!(buffer.bytes(), b"a b c");
        assert!(buffer.load(&wire[..wire.len() - 1], "zstd", 100).is_err());
    }
}
