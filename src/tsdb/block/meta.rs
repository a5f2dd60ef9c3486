//! What does `meta.json` say? Prometheus's fields, so that its tools can list our blocks, and our format version.

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::tsdb::StorageError;
use crate::tsdb::vfs::Place;

use super::format::{Footer, VERSION};

/// Name of the file.
pub const META_FILE: &str = "meta.json";
/// Value of `format` in native blocks.
pub const BLOCK_FORMAT: &str = "meerkat";
const MAX_META: u64 = 16 << 20;
/// Field with the checksum of the others, in native blocks.
const CHECKSUM: &str = "meerkatChecksum";

/// Counts of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of both kinds.
    pub num_samples: u64,
    /// Float samples.
    pub num_float_samples: u64,
    /// Histogram samples.
    pub num_histogram_samples: u64,
    /// Series.
    pub num_series: u64,
    /// Chunks.
    pub num_chunks: u64,
    /// Deletions.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A block that another one was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockDesc {
    /// Its identity.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First timestamp.
    pub min_time: i64,
    /// End of its range, exclusive.
    pub max_time: i64,
}

/// Where a block comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compaction {
    /// 1 = flushed from the head.
    pub level: u32,
    /// Level-1 blocks whose samples are in it.
    #[serde(with = "ulid_texts")]
    pub sources: Vec<Ulid>,
    /// Blocks that were merged into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockDesc>,
    /// A compaction of it failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// All its data was deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deletable: bool,
    /// Prometheus's hints, `from-out-of-order` among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            level: 1,
            sources: Vec::new(),
            parents: Vec::new(),
            failed: false,
            deletable: false,
            hints: Vec::new(),
        }
    }
}

/// The content of `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// Identity; its time part says when the block was made.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First timestamp of the range, milliseconds.
    pub min_time: i64,
    /// End of the range, exclusive, milliseconds.
    pub max_time: i64,
    /// Counts.
    #[serde(default)]
    pub stats: BlockStats,
    /// Where it comes from.
    #[serde(default)]
    pub compaction: Compaction,
    /// Prometheus's version of this file, 1.
    pub version: u32,
    /// `meerkat` for native blocks, empty for Prometheus's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub format: String,
    /// Version of the native format.
    #[serde(default, skip_serializing_if = "is_zero32")]
    pub format_version: u32,
    /// Fields of other programs (Thanos), kept as they are.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero32(n: &u32) -> bool {
    *n == 0
}

impl BlockMeta {
    /// The meta data of a level-1 block with the range `[min_time, max_time)`.
    #[must_use]
    pub fn new(ulid: Ulid, min_time: i64, max_time: i64) -> Self {
        Self {
            ulid,
            min_time,
            max_time,
            stats: BlockStats::default(),
            compaction: Compaction { sources: vec![ulid], ..Compaction::default() },
            version: 1,
            format: String::new(),
            format_version: 0,
            other: serde_json::Map::new(),
        }
    }

    /// Sets what the footer of a native block says.
    pub(super) fn describe(&mut self, footer: &Footer) {
        self.version = 1;
        self.format = BLOCK_FORMAT.to_owned();
        self.format_version = VERSION;
        self.min_time = self.min_time.min(footer.min_t_ms);
        self.max_time = self.max_time.max(footer.max_t_ms.saturating_add(1));
        self.stats.num_series = u64::from(footer.series);
        self.stats.num_chunks = footer.chunks;
        self.stats.num_float_samples = footer.float_samples;
        self.stats.num_histogram_samples = footer.histogram_samples;
        self.stats.num_samples = footer.float_samples + footer.histogram_samples;
    }

    /// Whether the block is in the native format.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.format == BLOCK_FORMAT
    }

    /// Reads the file of a block directory.
    pub fn read(dir: impl Into<Place>) -> Result<Self, StorageError> {
        let path = dir.into().join(META_FILE);
        let corrupt =
            |message: String| StorageError::Corrupt { path: path.display().to_string(), offset: 0, message };
        let bytes = path.read_small(MAX_META)?.ok_or_else(|| corrupt("the file is missing".into()))?;
        let mut meta: Self = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if let Some(checksum) = meta.other.remove(CHECKSUM)
            && checksum.as_u64() != meta.checksum().map(u64::from)
        {
            return Err(corrupt("checksum does not match".into()));
        }
        if meta.version != 1 {
            return Err(corrupt(format!("unexpected meta file version {}", meta.version)));
        }
        if meta.min_time > meta.max_time {
            return Err(corrupt("range ends before it begins".into()));
        }
        Ok(meta)
    }

    /// CRC-32 of all fields as compact JSON.
    fn checksum(&self) -> Option<u32> {
        serde_json::to_vec(self).ok().map(|text| crc32fast::hash(&text))
    }

    /// Writes the file of a block directory, durably.
    pub fn write(&self, dir: impl Into<Place>) -> Result<(), StorageError> {
        let path = dir.into().join(META_FILE);
        let mut meta = self.clone();
        if let Some(checksum) = self.checksum().filter(|_| self.is_native()) {
            meta.other.insert(CHECKSUM.into(), checksum.into());
        }
        let mut text = serde_json::to_vec_pretty(&meta).map_err(|e| StorageError::Corrupt {
            path: path.display().to_string(),
            offset: 0,
            message: e.to_string(),
        })?;
        text.push(b'\n');
        path.write_atomically(&text)
    }
}

mod ulid_text {
    use super::{Deserialize, Ulid};
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ulid: &Ulid, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&ulid.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ulid, D::Error> {
        let text = String::deserialize(from)?;
        Ulid::from_string(&text).map_err(|e| D::Error::custom(format!("{text:?} is not a ULID: {e}")))
    }
}

mod ulid_texts {
    use super::{Deserialize, Ulid};
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(ulids: &[Ulid], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ulids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Option::<Vec<String>>::deserialize(from)?.unwrap_or_default();
        let parse = |text: &String| {
            Ulid::from_string(text).map_err(|e| D::Error::custom(format!("{text:?} is not a ULID: {e}")))
        };
        texts.iter().map(parse).collect()
    }
}

/// A new ULID for a block made at `now_ms`.
#[must_use]
pub fn new_ulid(now_ms: i64) -> Ulid {
    Ulid::from_parts(now_ms.max(0).cast_unsigned(), fastrand::u128(..))
}
