//! Batches as bytes: the payload of one frame. Encoder and decoder keep, for one segment, which series have which
//! local number and what each source sent last.

use std::ops::Range;

use super::super::Map;
use super::super::chunk::Damaged;
use super::super::chunk::bytes::{Cursor, put_ivarint, put_text, put_uvarint};
use super::super::chunk::histogram::{put_histogram, take_histogram};
use super::column::{Chain, Scratch, put_section, take_section};
use super::{LogBatch, LogDelete, LogExemplar, LogFloat, LogHistogram, SeriesNames};
use crate::model::Labels;
use crate::model::metadata::{Metadata, MetricType};

/// Most labels of one series that are read back.
const MAX_LABELS: usize = 1 << 16;

/// Which parts a batch has, as bits of a byte.
mod part {
    pub const SERIES: u8 = 1;
    pub const FLOATS: u8 = 2;
    pub const OUT_OF_ORDER: u8 = 4;
    pub const HISTOGRAMS: u8 = 8;
    pub const EXEMPLARS: u8 = 16;
    pub const METADATA: u8 = 32;
    pub const DELETES: u8 = 64;
}

/// Texts of one frame by number.
#[derive(Default)]
pub struct TextWriter {
    numbers: Map<Box<str>, u64>,
}

impl TextWriter {
    fn put(&mut self, out: &mut Vec<u8>, text: &str) {
        if let Some(number) = self.numbers.get(text) {
            return put_uvarint(out, *number);
        }
        put_uvarint(out, 0);
        put_text(out, text);
        self.numbers.insert(text.into(), self.numbers.len() as u64 + 1);
    }

    /// Appends a label set.
    pub fn put_labels(&mut self, out: &mut Vec<u8>, labels: &Labels) {
        put_uvarint(out, labels.len() as u64);
        for label in labels.iter() {
            self.put(out, label.name);
            self.put(out, label.value);
        }
    }
}

/// Reads what [`TextWriter`] wrote.
#[derive(Default)]
pub struct TextReader<'a> {
    texts: Vec<&'a str>,
}

impl<'a> TextReader<'a> {
    /// Where the next text stands among all.
    fn number(&mut self, cursor: &mut Cursor<'a>) -> Result<usize, Damaged> {
        match cursor.uvarint()? {
            0 => {
                self.texts.push(cursor.text()?);
                Ok(self.texts.len() - 1)
            }
            k => {
                let at = usize::try_from(k - 1).unwrap_or(usize::MAX);
                if at < self.texts.len() { Ok(at) } else { Err(Damaged("a text number is not known")) }
            }
        }
    }

    fn take(&mut self, cursor: &mut Cursor<'a>) -> Result<&'a str, Damaged> {
        let number = self.number(cursor)?;
        Ok(self.texts[number])
    }

    /// The series that a record defines.
    fn take_definitions(&mut self, cursor: &mut Cursor<'a>) -> Result<Definitions, Damaged> {
        let mut all = Definitions::default();
        let first = cursor.uvarint32()?;
        let mut before = 0..0;
        for i in 0..cursor.count(2)? {
            let local = first.checked_add(i as u32).ok_or(Damaged("too many series"))?;
            let id = cursor.uvarint()?;
            let n = cursor.count(2)?;
            if n > MAX_LABELS {
                return Err(Damaged("too many labels"));
            }
            let begin = all.numbers.len();
            // Neighbours mostly have the same names, whose order was looked at already.
            let mut alike = true;
            for at in 0..2 * n {
                let number = self.number(cursor)?;
                if at % 2 == 1 {
                    if self.texts[number].is_empty() {
                        return Err(Damaged("labels are not sorted"));
                    }
                } else {
                    let known = before.start + at;
                    alike = alike && known < before.end && all.numbers[known] as usize == number;
                    let last = at.checked_sub(2).map(|last| all.numbers[begin + last] as usize);
                    if !alike && last.is_some_and(|last| self.texts[last] >= self.texts[number]) {
                        return Err(Damaged("labels are not sorted"));
                    }
                }
                all.numbers.push(number as u32);
            }
            before = begin..all.numbers.len();
            all.series.push(Definition { local, id, numbers: before.clone() });
        }
        for text in &self.texts {
            all.texts.push_str(text);
            all.ends.push(all.texts.len());
        }
        Ok(all)
    }

    /// A label set; repairs nothing: names must be strictly ascending.
    pub fn take_labels(&mut self, cursor: &mut Cursor<'a>) -> Result<Labels, Damaged> {
        let n = cursor.count(2)?;
        if n > MAX_LABELS {
            return Err(Damaged("too many labels"));
        }
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(n);
        for _ in 0..n {
            let pair = (self.take(cursor)?, self.take(cursor)?);
            if pair.1.is_empty() || pairs.last().is_some_and(|last| last.0 >= pair.0) {
                return Err(Damaged("labels are not sorted"));
            }
            pairs.push(pair);
        }
        Ok(Labels::from_sorted(pairs))
    }
}

/// Appends metadata of one family.
pub fn put_metadata(out: &mut Vec<u8>, name: &str, metadata: &Metadata) {
    put_text(out, name);
    out.push(match metadata.metric_type {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    });
    put_text(out, &metadata.unit);
    put_text(out, &metadata.help);
}

/// Reads what [`put_metadata`] wrote. Types of a later version read as unknown.
pub fn take_metadata(cursor: &mut Cursor<'_>) -> Result<(String, Metadata), Damaged> {
    let name = cursor.text()?.to_owned();
    let metric_type = match cursor.byte()? {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    };
    let (unit, help) = (cursor.text()?.to_owned(), cursor.text()?.to_owned());
    Ok((name, Metadata { metric_type, unit, help }))
}

/// Encodes the batches of one segment.
#[derive(Default)]
pub struct BatchEncoder {
    /// Local number by slot, 0 = not in this segment yet.
    local: Vec<u32>,
    /// Local numbers given so far.
    given: u32,
    /// Numbers of sources within the segment, from 1.
    sources: Map<u64, u64>,
    chains: Map<u64, Chain>,
    /// Sequence number of the batch before.
    sequence: u64,
    /// Reused: samples with local numbers.
    samples: Vec<LogFloat>,
    /// Reused by sections.
    scratch: Scratch,
}

impl BatchEncoder {
    /// A new segment begins: nothing is known there.
    pub fn reset(&mut self) {
        self.local.clear();
        self.given = 0;
        self.sources.clear();
        self.chains.clear();
        self.sequence = 0;
    }

    /// The slot gets another series (or none).
    pub fn forget(&mut self, slot: u32) {
        if let Some(local) = self.local.get_mut(slot as usize) {
            *local = 0;
        }
    }

    fn local(&mut self, slot: u32, fresh: &mut Vec<u32>) -> u32 {
        let at = slot as usize;
        if at >= self.local.len() {
            self.local.resize(at + 1, 0);
        }
        if self.local[at] == 0 {
            self.given += 1;
            self.local[at] = self.given;
            fresh.push(slot);
        }
        self.local[at]
    }

    /// Appends the payload of a batch. The encoder must be reset if the payload does not reach the segment.
    pub fn put(&mut self, out: &mut Vec<u8>, sequence: u64, batch: &LogBatch, names: &dyn SeriesNames) {
        put_uvarint(out, sequence.wrapping_sub(self.sequence));
        self.sequence = sequence;
        let next = self.sources.len() as u64 + 1;
        let source = (batch.source != 0).then(|| *self.sources.entry(batch.source).or_insert(next));
        put_uvarint(out, source.unwrap_or(0));
        let first = self.given + 1;
        let mut fresh = Vec::new();
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        samples
            .extend(batch.floats.iter().map(|s| LogFloat { series: self.local(s.series, &mut fresh), ..*s }));
        let slots = batch.out_of_order.iter().map(|s| s.series);
        let slots = slots.chain(batch.histograms.iter().map(|s| s.series));
        let slots = slots.chain(batch.exemplars.iter().map(|s| s.series));
        for slot in slots.chain(batch.deletes.iter().map(|s| s.series)) {
            self.local(slot, &mut fresh);
        }
        let flag = |there: bool, bit: u8| if there { bit } else { 0 };
        out.push(
            flag(!fresh.is_empty(), part::SERIES)
                | flag(!samples.is_empty(), part::FLOATS)
                | flag(!batch.out_of_order.is_empty(), part::OUT_OF_ORDER)
                | flag(!batch.histograms.is_empty(), part::HISTOGRAMS)
                | flag(!batch.exemplars.is_empty(), part::EXEMPLARS)
                | flag(!batch.metadata.is_empty(), part::METADATA)
                | flag(!batch.deletes.is_empty(), part::DELETES),
        );
        let mut texts = TextWriter::default();
        if !fresh.is_empty() {
            put_uvarint(out, u64::from(first));
            put_uvarint(out, fresh.len() as u64);
        }
        for slot in fresh {
            let (id, labels) = names.identity(slot).unwrap_or_default();
            put_uvarint(out, id);
            texts.put_labels(out, &labels);
        }
        self.put_rest(out, batch, &mut texts);
        if !samples.is_empty() {
            let chain = source.map(|source| self.chains.entry(source).or_default());
            put_section(out, &mut self.scratch, chain, &samples);
        }
        self.samples = samples;
    }

    fn put_rest(&self, out: &mut Vec<u8>, batch: &LogBatch, texts: &mut TextWriter) {
        let local = |slot: u32| u64::from(self.local.get(slot as usize).copied().unwrap_or(0));
        // What there is none of is named by no part.
        let count = |out: &mut Vec<u8>, n: usize| {
            if n > 0 {
                put_uvarint(out, n as u64);
            }
        };
        count(out, batch.out_of_order.len());
        for sample in &batch.out_of_order {
            put_uvarint(out, local(sample.series));
            put_ivarint(out, sample.t_ms);
            put_ivarint(out, sample.start_ms);
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        count(out, batch.histograms.len());
        for sample in &batch.histograms {
            put_uvarint(out, local(sample.series));
            put_ivarint(out, sample.t_ms);
            put_ivarint(out, sample.start_ms);
            out.push(u8::from(sample.out_of_order));
            put_histogram(out, &sample.value);
        }
        count(out, batch.exemplars.len());
        for exemplar in &batch.exemplars {
            put_uvarint(out, local(exemplar.series));
            put_ivarint(out, exemplar.t_ms);
            out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
            texts.put_labels(out, &exemplar.labels);
        }
        count(out, batch.metadata.len());
        for (name, metadata) in &batch.metadata {
            put_metadata(out, name, metadata);
        }
        count(out, batch.deletes.len());
        for delete in &batch.deletes {
            put_uvarint(out, local(delete.series));
            put_ivarint(out, delete.min_t_ms);
            put_ivarint(out, delete.max_t_ms);
        }
    }
}

/// A series that a record defines.
#[derive(Debug)]
pub struct Definition {
    /// Local number.
    pub local: u32,
    /// Persistent id.
    pub id: u64,
    /// Where the numbers of its names and values stand.
    numbers: Range<usize>,
}

/// The series that a record defines. Whoever knows a series by its id need not have its labels put together.
#[derive(Debug, Default)]
pub struct Definitions {
    texts: String,
    /// Where each text ends.
    ends: Vec<usize>,
    numbers: Vec<u32>,
    /// The series.
    pub series: Vec<Definition>,
}

impl Definitions {
    fn text(&self, number: u32) -> &str {
        let at = number as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[begin..self.ends[at]]
    }

    /// The labels of one of them.
    #[must_use]
    pub fn labels(&self, definition: &Definition) -> Labels {
        let numbers = self.numbers[definition.numbers.clone()].chunks_exact(2);
        Labels::from_sorted(numbers.map(|pair| (self.text(pair[0]), self.text(pair[1]))))
    }
}

/// A batch as it was read; series are local numbers.
#[derive(Debug, Default)]
pub struct ReadBatch {
    /// Sequence number.
    pub sequence: u64,
    /// Series that are defined here.
    pub series: Definitions,
    /// What happened.
    pub batch: LogBatch,
    /// The float section could not be read, for this reason.
    pub lost: Option<Damaged>,
}

/// Decodes the batches of one segment.
#[derive(Default)]
pub struct BatchDecoder {
    chains: Map<u64, Chain>,
    sequence: u64,
}

impl BatchDecoder {
    /// Reads one payload.
    pub fn take(&mut self, payload: &[u8]) -> Result<ReadBatch, Damaged> {
        let mut cursor = Cursor::new(payload);
        self.sequence = self.sequence.wrapping_add(cursor.uvarint()?);
        let mut read = ReadBatch { sequence: self.sequence, ..ReadBatch::default() };
        read.batch.source = cursor.uvarint()?;
        let parts = cursor.byte()?;
        let count = |cursor: &mut Cursor<'_>, bit: u8, least: usize| {
            if parts & bit == 0 { Ok(0) } else { cursor.count(least) }
        };
        let mut texts = TextReader::default();
        if parts & part::SERIES != 0 {
            read.series = texts.take_definitions(&mut cursor)?;
        }
        let batch = &mut read.batch;
        for _ in 0..count(&mut cursor, part::OUT_OF_ORDER, 11)? {
            batch.out_of_order.push(LogFloat {
                series: cursor.uvarint32()?,
                t_ms: cursor.ivarint()?,
                start_ms: cursor.ivarint()?,
                value: f64::from_bits(cursor.u64_le()?),
            });
        }
        for _ in 0..count(&mut cursor, part::HISTOGRAMS, 5)? {
            batch.histograms.push(LogHistogram {
                series: cursor.uvarint32()?,
                t_ms: cursor.ivarint()?,
                start_ms: cursor.ivarint()?,
                out_of_order: cursor.byte()? != 0,
                value: take_histogram(&mut cursor)?,
            });
        }
        for _ in 0..count(&mut cursor, part::EXEMPLARS, 11)? {
            batch.exemplars.push(LogExemplar {
                series: cursor.uvarint32()?,
                t_ms: cursor.ivarint()?,
                value: f64::from_bits(cursor.u64_le()?),
                labels: texts.take_labels(&mut cursor)?,
            });
        }
        for _ in 0..count(&mut cursor, part::METADATA, 4)? {
            batch.metadata.push(take_metadata(&mut cursor)?);
        }
        for _ in 0..count(&mut cursor, part::DELETES, 3)? {
            batch.deletes.push(LogDelete {
                series: cursor.uvarint32()?,
                min_t_ms: cursor.ivarint()?,
                max_t_ms: cursor.ivarint()?,
            });
        }
        if parts & part::FLOATS != 0 {
            let source = batch.source;
            let chain = (source != 0).then(|| self.chains.entry(source).or_default());
            match take_section(cursor.rest(), chain) {
                Ok(samples) => batch.floats = samples,
                Err(damage) => read.lost = Some(damage),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::STALE_NAN_BITS;
    use proptest::prelude::*;

    struct Names;

    impl SeriesNames for Names {
        fn identity(&self, slot: u32) -> Option<(u64, Labels)> {
            Some((
                u64::from(slot) + 1000,
                Labels::from_pairs([("__name__", format!("m{slot}")), ("job", "x".into())]),
            ))
        }
    }

    fn samples() -> impl Strategy<Value = Vec<(u32, i64, i64, f64)>> {
        let value = prop_oneof![
            3 => (0u32..4).prop_map(f64::from),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(f64::from_bits(STALE_NAN_BITS)),
            1 => Just(-0.0),
            1 => any::<i64>().prop_map(|v| v as f64),
            3 => (-5000i32..5000, 0i32..5).prop_map(|(v, places)| f64::from(v) / 10f64.powi(places)),
        ];
        let item = (
            0u32..12,
            prop_oneof![3 => Just(0i64), 1 => -5i64..5],
            prop_oneof![3 => Just(0i64), 1 => 1i64..5],
            value,
        );
        prop::collection::vec(item, 0..12)
    }

    proptest! {
        #[test]
        fn gives_back_each_batch(batches in prop::collection::vec((0u64..3, samples()), 1..60)) {
            let (mut encoder, mut decoder) = (BatchEncoder::default(), BatchDecoder::default());
            let mut slots: Map<u32, u32> = Map::default();
            for (i, (source, samples)) in batches.iter().enumerate() {
                let floats: Vec<LogFloat> = samples.iter()
                    .map(|(series, dt, start_ms, value)| LogFloat { series: *series, t_ms: i as i64 * 1000 + dt, start_ms: *start_ms, value: *value })
                    .collect();
                let batch = LogBatch { source: *source, out_of_order: floats.clone(), floats, ..LogBatch::default() };
                let mut payload = Vec::new();
                encoder.put(&mut payload, i as u64, &batch, &Names);
                let read = decoder.take(&payload).unwrap();
                prop_assert_eq!(read.lost, None);
                for series in &read.series.series {
                    let slot = (series.id - 1000) as u32;
                    prop_assert_eq!(read.series.labels(series), Names.identity(slot).unwrap().1);
                    slots.insert(series.local, slot);
                }
                for (got, want) in [(&read.batch.floats, &batch.floats), (&read.batch.out_of_order, &batch.out_of_order)] {
                    prop_assert_eq!(got.len(), want.len());
                    for (got, want) in got.iter().zip(want) {
                        prop_assert_eq!(slots[&got.series], want.series);
                        prop_assert_eq!((got.t_ms, got.start_ms, got.value.to_bits()), (want.t_ms, want.start_ms, want.value.to_bits()));
                    }
                }
            }
        }

        #[test]
        fn damage_never_panics(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = BatchDecoder::default();
            let _ = decoder.take(&payload);
            let _ = decoder.take(&payload);
        }
    }

    #[test]
    fn a_lost_record_hides_no_more_than_the_rest_of_its_chain() {
        let (mut encoder, mut decoder) = (BatchEncoder::default(), BatchDecoder::default());
        let mut lost = 0;
        for i in 0..100u32 {
            let floats = vec![LogFloat { series: 1, t_ms: i64::from(i), start_ms: 0, value: f64::from(i) }];
            let mut payload = Vec::new();
            encoder.put(
                &mut payload,
                u64::from(i),
                &LogBatch { source: 7, floats, ..LogBatch::default() },
                &Names,
            );
            if i == 3 {
                continue;
            }
            let read = decoder.take(&payload).unwrap();
            match read.lost {
                Some(_) => lost += 1,
                None => assert_eq!(read.batch.floats[0].value, f64::from(i)),
            }
        }
        assert_eq!(lost, 28);
    }
}
