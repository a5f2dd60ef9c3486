//! What does each series of a native block cost? Timestamps are shared between series, so only values count.

use crate::tsdb::StorageError;
use crate::tsdb::survey::{ChunkSurvey, SeriesSurvey};

use super::bytes::DecodeError;
use super::format::{ChunkKind, ChunkRef, Part};
use super::list::SeriesList;
use super::reader::Block;
use super::values::Codec;

fn codec_name(kind: ChunkKind, payload: &[u8]) -> &'static str {
    match (kind, payload.first().map(|head| head & 0x0f)) {
        (ChunkKind::IntegerHistogram, _) => "histogram",
        (ChunkKind::FloatHistogram, _) => "float histogram",
        (ChunkKind::Float, Some(code)) => match Codec::ALL.into_iter().find(|c| *c as u8 == code) {
            Some(Codec::Xor) => "xor",
            Some(Codec::Decimal) => "decimal",
            Some(Codec::DecimalUlp) => "decimal and ulp",
            Some(Codec::Bits) => "bit patterns",
            Some(Codec::Dictionary) => "dictionary",
            None => "unknown",
        },
        (ChunkKind::Float, None) => "empty",
    }
}

impl Block {
    /// Hands out one entry for each series of a page.
    pub fn survey_page(&self, page: u32, each: &mut dyn FnMut(&SeriesSurvey)) -> Result<(), StorageError> {
        let mut series = SeriesList::default();
        self.list_page(page, None, &mut series)?;
        let data = self.data_page(page)?;
        for i in 0..series.len() {
            let mut survey = SeriesSurvey {
                labels: series.labels(i),
                min_t_ms: i64::MAX,
                max_t_ms: i64::MIN,
                chunks: Vec::with_capacity(series.chunks(i).len()),
            };
            for chunk in series.chunks(i) {
                self.survey_chunk(chunk, data, &mut survey)?;
            }
            if !survey.chunks.is_empty() {
                each(&survey);
            }
        }
        Ok(())
    }

    fn survey_chunk(
        &self,
        chunk: &ChunkRef,
        data: &[u8],
        out: &mut SeriesSurvey,
    ) -> Result<(), StorageError> {
        let bad = |text| self.corrupt(Part::Data, DecodeError(text));
        let column = self.column(chunk.time_column)?;
        let times = match chunk.slice {
            None => Some(&column[..]),
            Some((from, len)) => column.get(from as usize..(from as usize).saturating_add(len as usize)),
        };
        let times = times.ok_or_else(|| bad("chunk refers to timestamps that do not exist"))?;
        let (from, len) = (chunk.offset as usize, chunk.len as usize);
        let payload = data.get(from..from + len).ok_or_else(|| bad("chunk lies outside its page"))?;
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
        out.min_t_ms = out.min_t_ms.min(*first);
        out.max_t_ms = out.max_t_ms.max(*last);
        out.chunks.push(ChunkSurvey {
            codec: codec_name(chunk.kind, payload),
            samples: times.len() as u64,
            bytes: u64::from(chunk.len),
        });
        Ok(())
    }
}
