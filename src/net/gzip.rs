//! How does a gzip body become text, fast for those that say the truth about their length, and under a cap for all?

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use super::body::{Grow, STEP, check_size};
use super::error::NetError;

/// Room that a claimed length can ask for at once.
const CLAIM: usize = 4 << 20;
/// The decoders like some space behind the end.
const SPARE: usize = 512;
/// How each member begins.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The decoders, which are used again.
#[derive(Default)]
pub(super) struct Inflate {
    whole: Option<Box<libdeflater::Decompressor>>,
    steps: Option<Box<Decompress>>,
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflate")
    }
}

impl Inflate {
    /// Replaces the content of `out` by what all members of `input` hold; `grow` makes room in it.
    pub(super) fn gunzip(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        max_body: u64,
        grow: Grow<'_>,
    ) -> Result<(), NetError> {
        if self.at_once(input, out, max_body, grow)? {
            return Ok(());
        }
        out.clear();
        let steps = self.steps.get_or_insert_with(|| Box::new(Decompress::new(false)));
        gunzip_in_steps(steps, input, out, max_body, grow)
    }

    /// Decompresses a single member that is as long as it says; otherwise says that it did not.
    fn at_once(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        max_body: u64,
        grow: Grow<'_>,
    ) -> Result<bool, NetError> {
        let len = claimed_len(input);
        let is_alone = || memchr::memmem::find(input.get(1..).unwrap_or_default(), &MAGIC).is_none();
        if len == 0 || len >= CLAIM || check_size(len, max_body).is_err() || !is_alone() {
            return Ok(false);
        }
        let room = len + SPARE;
        if out.len() < room {
            grow(out, room - out.len())?;
            out.resize(room, 0);
        }
        let whole = self.whole.get_or_insert_with(|| Box::new(libdeflater::Decompressor::new()));
        // What is wrong with a bad body is found out by the other decoder.
        let is_whole = whole.gzip_decompress(input, &mut out[..room]) == Ok(len);
        out.truncate(if is_whole { len } else { 0 });
        Ok(is_whole)
    }
}

fn bad_gzip(reason: impl Into<String>) -> NetError {
    NetError::Decode { encoding: "gzip".into(), reason: reason.into() }
}

/// Length of a member's header (RFC 1952).
fn gzip_header(input: &[u8]) -> Option<usize> {
    let (&MAGIC, [flags, ..]) = input.split_first_chunk()? else { return None };
    if flags & 0xe0 != 0 {
        return None;
    }
    let mut at = 10;
    if flags & 4 != 0 {
        let len = input.get(at..at + 2)?;
        at += 2 + usize::from(u16::from_le_bytes([len[0], len[1]]));
    }
    for bit in [8, 16] {
        if flags & bit != 0 {
            at += memchr::memchr(0, input.get(at..)?)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at <= input.len()).then_some(at)
}

/// The length that the last member claims, as far as its input can justify it: deflate expands no more than 1,032 times.
fn claimed_len(input: &[u8]) -> usize {
    let claimed = input.last_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len) as usize);
    claimed.min(input.len().saturating_mul(1032)).min(CLAIM)
}

/// Decompresses all members of `input`, appending to `out`; `grow` makes room in it.
fn gunzip_in_steps(
    inflate: &mut Decompress,
    mut input: &[u8],
    out: &mut Vec<u8>,
    max_body: u64,
    grow: Grow<'_>,
) -> Result<(), NetError> {
    if input.is_empty() {
        return Err(bad_gzip("the body is empty"));
    }
    // When all of it fits at once, no window has to be kept.
    let mut step = claimed_len(input).saturating_add(SPARE).max(STEP);
    while !input.is_empty() {
        let header = gzip_header(input).ok_or_else(|| bad_gzip("invalid header"))?;
        input = &input[header..];
        inflate.reset(false);
        let start = out.len();
        loop {
            // One byte above the limit is enough to know that it is broken.
            let room = usize::try_from(max_body).unwrap_or(usize::MAX).saturating_sub(out.len()).min(step);
            step = STEP;
            if room == 0 {
                return Err(NetError::BodyTooLarge { limit: max_body });
            }
            grow(out, room)?;
            let (in_before, out_before) = (inflate.total_in(), out.len());
            let status = inflate
                .decompress_vec(input, out, FlushDecompress::Finish)
                .map_err(|e| bad_gzip(e.to_string()))?;
            let consumed = usize::try_from(inflate.total_in() - in_before).unwrap_or(input.len());
            input = input.get(consumed..).unwrap_or(&[]);
            check_size(out.len(), max_body)?;
            match status {
                Status::StreamEnd => break,
                _ if consumed == 0 && out.len() == out_before => {
                    return Err(bad_gzip("unexpected end of the body"));
                }
                _ => {}
            }
        }
        let Some((trailer, rest)) = input.split_first_chunk::<8>() else {
            return Err(bad_gzip("unexpected end of the body"));
        };
        let [a, b, c, d, e, f, g, h] = *trailer;
        let member = &out[start..];
        #[expect(clippy::cast_possible_truncation, reason = "the field is the length modulo 2^32")]
        let len = member.len() as u32;
        if u32::from_le_bytes([a, b, c, d]) != crc32fast::hash(member)
            || u32::from_le_bytes([e, f, g, h]) != len
        {
            return Err(bad_gzip("invalid checksum"));
        }
        input = rest;
    }
    Ok(())
}
