//! What was deleted from a block? Time ranges with matchers, honoured by every reader from the moment they are
//! written. Bytes: `docs/format/tombstones.md`.

use crate::model::{Labels, MatchOp, Matcher};
use crate::tsdb::StorageError;
use crate::tsdb::vfs::Place;

use super::bytes::{DecodeError, Input, Result as Decode, put_varint, put_zigzag};

/// Name of the file.
pub const TOMBSTONES_FILE: &str = "deletions.mkt";
const MAGIC: &[u8; 8] = b"MKTDELET";
const VERSION: u8 = 1;
const MAX_FILE: u64 = 64 << 20;

/// One deletion.
#[derive(Debug, Clone, PartialEq)]
pub struct Tombstone {
    /// First hidden timestamp.
    pub min_t_ms: i64,
    /// Last hidden timestamp.
    pub max_t_ms: i64,
    /// Series that satisfy all of these are meant.
    pub matchers: Vec<Matcher>,
}

/// The deletions of a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tombstones {
    entries: Vec<Tombstone>,
}

impl Tombstones {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of deletions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// All deletions.
    pub fn iter(&self) -> impl Iterator<Item = &Tombstone> {
        self.entries.iter()
    }

    /// Adds a deletion; one that is there already is not repeated.
    pub fn add(&mut self, min_t_ms: i64, max_t_ms: i64, matchers: &[Matcher]) {
        let entry = Tombstone { min_t_ms, max_t_ms, matchers: matchers.to_vec() };
        if min_t_ms <= max_t_ms && !self.entries.contains(&entry) {
            self.entries.push(entry);
        }
    }

    /// The hidden ranges of a series, both ends included, in no order.
    #[must_use]
    pub fn ranges(&self, labels: &Labels) -> Vec<(i64, i64)> {
        self.entries
            .iter()
            .filter(|e| e.matchers.iter().all(|m| m.matches(labels.value(&m.name))))
            .map(|e| (e.min_t_ms, e.max_t_ms))
            .collect()
    }

    /// Reads the file of a block directory; no file, no deletions.
    pub fn read(dir: &Place) -> Result<Self, StorageError> {
        let path = dir.join(TOMBSTONES_FILE);
        let Some(bytes) = path.read_small(MAX_FILE)? else { return Ok(Self::default()) };
        Self::decode(&bytes).map_err(|e| StorageError::Corrupt {
            path: path.display().to_string(),
            offset: 0,
            message: e.to_string(),
        })
    }

    /// Writes the file of a block directory, durably and at once.
    pub fn write(&self, dir: &Place) -> Result<(), StorageError> {
        dir.join(TOMBSTONES_FILE).write_atomically(&self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        put_varint(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            put_zigzag(&mut out, entry.min_t_ms);
            put_zigzag(&mut out, entry.max_t_ms);
            put_varint(&mut out, entry.matchers.len() as u64);
            for matcher in &entry.matchers {
                out.push(match matcher.op {
                    MatchOp::Equal => 0,
                    MatchOp::NotEqual => 1,
                    MatchOp::Regex => 2,
                    MatchOp::NotRegex => 3,
                });
                for text in [&matcher.name, &matcher.value] {
                    put_varint(&mut out, text.len() as u64);
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Decode<Self> {
        let body_len = bytes.len().checked_sub(4).ok_or(DecodeError("file is too short"))?;
        let (body, crc) = bytes.split_at(body_len);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(DecodeError("checksum does not match"));
        }
        let mut input = Input::new(body);
        if input.bytes(8)? != MAGIC || input.u8()? != VERSION {
            return Err(DecodeError("not a file of deletions, or of a newer version"));
        }
        let mut this = Self::default();
        for _ in 0..input.count(body_len)? {
            let (min_t_ms, max_t_ms) = (input.zigzag()?, input.zigzag()?);
            let mut matchers = Vec::new();
            for _ in 0..input.count(body_len)? {
                let op = match input.u8()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(DecodeError("unknown kind of matcher")),
                };
                let mut text = || -> Decode<&str> {
                    let len = input.count(body_len)?;
                    std::str::from_utf8(input.bytes(len)?).map_err(|_| DecodeError("text is not UTF-8"))
                };
                let (name, value) = (text()?, text()?);
                matchers.push(
                    Matcher::new(name, op, value)
                        .map_err(|_| DecodeError("a stored pattern does not compile"))?,
                );
            }
            this.entries.push(Tombstone { min_t_ms, max_t_ms, matchers });
        }
        if !input.is_empty() {
            return Err(DecodeError("file is longer than it should be"));
        }
        Ok(this)
    }
}
