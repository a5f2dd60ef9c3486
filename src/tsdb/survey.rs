//! What does each series cost? One line per series of a block or of the head: how many samples, over which time, in
//! how many bytes, with which encoding. Reads directories and headers, and decodes as little as possible.

use std::sync::Arc;

use super::block::Block;
use super::compact::AnyBlock;
use super::door::StorageError;
use super::head::flush::{FlushRange, RawSamples};
use super::readonly::ReadOnlyDb;
use crate::model::Labels;

/// A chunk as a survey sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSurvey {
    /// Name of the encoding.
    pub codec: &'static str,
    /// Number of samples.
    pub samples: u64,
    /// Bytes on disk, without shared timestamps.
    pub bytes: u64,
}

/// A series as a survey sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesSurvey {
    /// Its labels.
    pub labels: Labels,
    /// First timestamp, milliseconds.
    pub min_t_ms: i64,
    /// Last timestamp, milliseconds.
    pub max_t_ms: i64,
    /// Its chunks; one without bytes for the head.
    pub chunks: Vec<ChunkSurvey>,
}

/// Hands out one entry for each series of a block; returns what could not be read.
pub fn survey_block(
    block: &AnyBlock,
    each: &mut dyn FnMut(&SeriesSurvey),
) -> Result<Vec<String>, StorageError> {
    match block {
        AnyBlock::Native(block) => survey_native(block, each),
        AnyBlock::Prometheus(block) => block.survey(each),
    }
}

fn survey_native(
    block: &Arc<Block>,
    each: &mut dyn FnMut(&SeriesSurvey),
) -> Result<Vec<String>, StorageError> {
    let mut warnings = Vec::new();
    for page in 0..block.page_count() {
        if let Err(error) = block.survey_page(page, each) {
            warnings.push(error.to_string());
        }
    }
    Ok(warnings)
}

/// The same for the samples of the head in a range; their bytes are not known.
pub fn survey_head(
    db: &ReadOnlyDb,
    range: FlushRange,
    each: &mut dyn FnMut(&SeriesSurvey),
) -> Result<Vec<String>, StorageError> {
    let view = db.head_view(range);
    let (mut raw, mut warnings) = (RawSamples::default(), Vec::new());
    for i in 0..view.len() {
        let labels = view.labels(i);
        if let Err(error) = view.samples(i, &mut raw) {
            warnings.push(format!("samples of {labels} were left out: {error}"));
            continue;
        }
        let times = || raw.timestamps.iter().copied().chain(raw.histograms.iter().map(|(t, ..)| *t));
        let (Some(min_t_ms), Some(max_t_ms)) = (times().min(), times().max()) else { continue };
        let chunks = vec![ChunkSurvey { codec: "head", samples: raw.len() as u64, bytes: 0 }];
        each(&SeriesSurvey { labels, min_t_ms, max_t_ms, chunks });
    }
    Ok(warnings)
}
