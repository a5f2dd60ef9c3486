//! How is a block written that Prometheus, Thanos and Mimir read? Index version 2, XOR chunks of 120 samples,
//! histogram chunks, no native parts.

use std::collections::BTreeMap;
use std::path::Path;

use crate::model::Labels;
use crate::model::sample::HistogramValue;
use crate::tsdb::StorageError;
use crate::tsdb::block::bytes::{put_varint, put_zigzag};
use crate::tsdb::block::{BlockMeta, Cancelled, SeriesColumns, SeriesSource, writer::TEMP_SUFFIX};
use crate::tsdb::vfs::Place;
use crate::tsdb::vfs::place::NewFile;

use super::index::{ChunkMeta, MAGIC};
use super::reader::{PrometheusBlock, encode_tombstones};
use super::{ENC_FLOAT_HISTOGRAM, ENC_HISTOGRAM, ENC_XOR, floats, histograms};

const CHUNK_SAMPLES: usize = 120;
const SEGMENT_BYTES: u64 = 512 << 20;

/// Writes chunk segments.
struct Segments {
    dir: Place,
    number: u64,
    file: Option<NewFile>,
    offset: u64,
}

impl Segments {
    fn path(&self) -> Place {
        self.dir.join(format!("{:06}", self.number))
    }

    fn close(&mut self) -> Result<(), StorageError> {
        self.file.take().map_or(Ok(()), NewFile::finish)
    }

    fn add(&mut self, encoding: u8, data: &[u8]) -> Result<u64, StorageError> {
        if self.file.is_none() || self.offset + data.len() as u64 + 16 > SEGMENT_BYTES {
            self.close()?;
            self.number += 1;
            self.file = Some(self.path().create()?);
            self.offset = 0;
            self.put(&[0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0])?;
        }
        let reference = (self.number - 1) << 32 | self.offset;
        let mut bytes = Vec::with_capacity(data.len() + 16);
        put_varint(&mut bytes, data.len() as u64);
        let body_at = bytes.len();
        bytes.push(encoding);
        bytes.extend_from_slice(data);
        let crc = crc32c::crc32c(&bytes[body_at..]);
        bytes.extend_from_slice(&crc.to_be_bytes());
        self.put(&bytes)?;
        Ok(reference)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if let Some(file) = &mut self.file {
            file.put(bytes)?;
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Chunks of a series, ordered by first timestamp as the index needs them.
fn write_chunks(columns: &SeriesColumns, segments: &mut Segments) -> Result<Vec<ChunkMeta>, StorageError> {
    let mut pending: Vec<(i64, i64, u8, Vec<u8>)> = Vec::new();
    // Kinds take turns in time: a chunk ends where the other kind has a sample.
    let (mut i, mut j) = (0, 0);
    let mut before: Option<&HistogramValue> = None;
    while i < columns.timestamps.len() || j < columns.histograms.len() {
        let (t, h) = (columns.timestamps.get(i).copied(), columns.histograms.get(j).map(|(t, _)| *t));
        if t.is_some_and(|t| h.is_none_or(|h| t < h)) {
            let rest = &columns.timestamps[i..];
            let len = rest.iter().take(CHUNK_SAMPLES).take_while(|t| h.is_none_or(|h| **t < h)).count();
            let (times, values) = (&columns.timestamps[i..i + len], &columns.values[i..i + len]);
            pending.push((times[0], times[len - 1], ENC_XOR, floats::encode_xor(times, values)));
            i += len;
            before = None;
        } else {
            let rest = &columns.histograms[j..];
            let room = rest.iter().take(CHUNK_SAMPLES).take_while(|(h, _)| t.is_none_or(|t| *h < t)).count();
            let len = histograms::chunk_len(&rest[..room.max(1)], CHUNK_SAMPLES);
            let samples = &rest[..len];
            let encoding = match samples[0].1 {
                HistogramValue::Integer(_) => ENC_HISTOGRAM,
                HistogramValue::Float(_) => ENC_FLOAT_HISTOGRAM,
            };
            let flags = histograms::header_flags(before, &samples[0].1);
            let data = histograms::encode(samples, flags);
            pending.push((samples[0].0, samples[len - 1].0, encoding, data));
            before = samples.last().map(|(_, h)| h);
            j += len;
        }
    }
    let mut metas = Vec::with_capacity(pending.len());
    for (min_t_ms, max_t_ms, encoding, data) in pending {
        metas.push(ChunkMeta { min_t_ms, max_t_ms, reference: segments.add(encoding, &data)? });
    }
    Ok(metas)
}

fn put_section(out: &mut Vec<u8>, content: &[u8], path: &Path) -> Result<(), StorageError> {
    let len = u32::try_from(content.len()).map_err(|_| StorageError::Corrupt {
        path: path.display().to_string(),
        offset: out.len() as u64,
        message: "a section of the index would exceed 4 GiB".into(),
    })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
    Ok(())
}

/// Builds the index file.
fn build_index(series: &[(Labels, Vec<ChunkMeta>)], path: &Path) -> Result<Vec<u8>, StorageError> {
    let mut symbols: BTreeMap<&str, u64> = BTreeMap::from([("", 0)]);
    for label in series.iter().flat_map(|(labels, _)| labels.iter()) {
        symbols.insert(label.name, 0);
        symbols.insert(label.value, 0);
    }
    symbols.values_mut().zip(0..).for_each(|(number, i)| *number = i);
    let mut out = MAGIC.to_be_bytes().to_vec();
    out.push(2);
    let symbols_at = out.len() as u64;
    let mut content = (symbols.len() as u32).to_be_bytes().to_vec();
    for symbol in symbols.keys() {
        put_varint(&mut content, symbol.len() as u64);
        content.extend_from_slice(symbol.as_bytes());
    }
    put_section(&mut out, &content, path)?;

    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::from([(("", ""), Vec::new())]);
    let mut series_at = None;
    for (labels, chunks) in series {
        out.resize(out.len().next_multiple_of(16), 0);
        let id = (out.len() / 16) as u32;
        series_at.get_or_insert(out.len() as u64);
        let mut entry = Vec::new();
        put_varint(&mut entry, labels.len() as u64);
        postings.entry(("", "")).or_default().push(id);
        for label in labels.iter() {
            put_varint(&mut entry, symbols.get(label.name).copied().unwrap_or(0));
            put_varint(&mut entry, symbols.get(label.value).copied().unwrap_or(0));
            postings.entry((label.name, label.value)).or_default().push(id);
        }
        put_varint(&mut entry, chunks.len() as u64);
        let mut last: Option<&ChunkMeta> = None;
        for chunk in chunks {
            match last {
                None => put_zigzag(&mut entry, chunk.min_t_ms),
                Some(last) => put_varint(&mut entry, (chunk.min_t_ms - last.max_t_ms).cast_unsigned()),
            }
            put_varint(&mut entry, (chunk.max_t_ms - chunk.min_t_ms).cast_unsigned());
            match last {
                None => put_varint(&mut entry, chunk.reference),
                Some(last) => {
                    put_zigzag(&mut entry, chunk.reference.wrapping_sub(last.reference).cast_signed());
                }
            }
            last = Some(chunk);
        }
        put_varint(&mut out, entry.len() as u64);
        out.extend_from_slice(&entry);
        out.extend_from_slice(&crc32c::crc32c(&entry).to_be_bytes());
    }
    let series_at = series_at.unwrap_or(out.len() as u64);

    let label_indices_at = out.len() as u64;
    let postings_at = out.len().next_multiple_of(4) as u64;
    let mut table = (postings.len() as u32).to_be_bytes().to_vec();
    for ((name, value), ids) in &postings {
        out.resize(out.len().next_multiple_of(4), 0);
        let at = out.len() as u64;
        let mut content = (ids.len() as u32).to_be_bytes().to_vec();
        ids.iter().for_each(|id| content.extend_from_slice(&id.to_be_bytes()));
        put_section(&mut out, &content, path)?;
        put_varint(&mut table, 2);
        for text in [name, value] {
            put_varint(&mut table, text.len() as u64);
            table.extend_from_slice(text.as_bytes());
        }
        put_varint(&mut table, at);
    }
    // Label indices are no longer read by anyone; an empty table stands for them.
    let label_table_at = out.len() as u64;
    put_section(&mut out, &0u32.to_be_bytes(), path)?;
    let table_at = out.len() as u64;
    put_section(&mut out, &table, path)?;
    let mut toc = Vec::new();
    for at in [symbols_at, series_at, label_indices_at, label_table_at, postings_at, table_at] {
        toc.extend_from_slice(&at.to_be_bytes());
    }
    let crc = crc32c::crc32c(&toc);
    out.extend_from_slice(&toc);
    out.extend_from_slice(&crc.to_be_bytes());
    Ok(out)
}

/// Writes one block in Prometheus's format below `dir`, synced and read back; otherwise like
/// [`crate::tsdb::block::write_block`]. The index is built in memory: O(series + chunks), not O(samples). Start
/// timestamps cannot be expressed and are left out.
pub fn write_prometheus_block(
    dir: impl Into<Place>,
    mut meta: BlockMeta,
    source: &mut dyn SeriesSource,
    cancelled: Cancelled<'_>,
) -> Result<Option<(Place, BlockMeta)>, StorageError> {
    let dir = dir.into();
    let temp = dir.join(format!("{}{TEMP_SUFFIX}", meta.ulid));
    let guard = temp.temporary_dir()?;
    let chunks_dir = temp.join("chunks");
    chunks_dir.create_dir_all()?;
    let mut segments = Segments { dir: chunks_dir.clone(), number: 0, file: None, offset: 0 };
    let mut series: Vec<(Labels, Vec<ChunkMeta>)> = Vec::new();
    let mut columns = SeriesColumns::default();
    meta.format = String::new();
    meta.format_version = 0;
    meta.stats = crate::tsdb::block::meta::BlockStats::default();
    while let Some(labels) = source.next_series(&mut columns)? {
        if cancelled() {
            return Err(StorageError::Canceled);
        }
        let Some((first, last)) = columns.range() else { continue };
        meta.min_time = meta.min_time.min(first);
        meta.max_time = meta.max_time.max(last.saturating_add(1));
        let chunks = write_chunks(&columns, &mut segments)?;
        meta.stats.num_series += 1;
        meta.stats.num_chunks += chunks.len() as u64;
        meta.stats.num_float_samples += columns.timestamps.len() as u64;
        meta.stats.num_histogram_samples += columns.histograms.len() as u64;
        series.push((labels, chunks));
    }
    if series.is_empty() {
        return Ok(None);
    }
    meta.stats.num_samples = meta.stats.num_float_samples + meta.stats.num_histogram_samples;
    segments.close()?;
    chunks_dir.sync_dir()?;
    let index_path = temp.join("index");
    index_path.write_atomically(&build_index(&series, &index_path)?)?;
    drop(series);
    temp.join("tombstones").write_atomically(&encode_tombstones(&BTreeMap::new()))?;
    // Last: its presence says that the block is whole.
    meta.write(&temp)?;
    read_back(&temp, meta.stats.num_series)?;
    let finished = dir.join(meta.ulid.to_string());
    temp.rename(&finished)?;
    guard.keep();
    dir.sync_dir()?;
    Ok(Some((finished, meta)))
}

fn read_back(dir: &Place, want: u64) -> Result<(), StorageError> {
    let mut source = super::PrometheusSource::new(PrometheusBlock::open(dir)?);
    let (mut columns, mut count) = (SeriesColumns::default(), 0);
    while source.next_series(&mut columns)?.is_some() {
        count += 1;
    }
    if count != want || !source.warnings.is_empty() {
        return Err(StorageError::Corrupt {
            path: dir.display().to_string(),
            offset: 0,
            message: format!("block did not survive its writing: {:?}", source.warnings.first()),
        });
    }
    Ok(())
}
