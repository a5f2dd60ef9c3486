//! The messages of remote read: requests with queries, answers with samples, frames with chunks. Field numbers are
//! those of the published schemas.

use std::sync::Arc;

use crate::model::histogram::FloatHistogram;
use crate::model::matcher::MatchOp;
use crate::model::sample::HistogramValue;
use crate::model::{Labels, Matcher, SampleBuffer};
use crate::remote::wire::{Fields, WireError, take_varint};
use crate::remote::wire_out::{bytes, packed, signed, text, unsigned, varint};
use crate::remote::write_encode::{put_histogram, put_labels, put_sample};
use crate::remote::write_messages::{self, MAX_LABELS};
use crate::tsdb::SelectHints;
use crate::tsdb::block::SeriesColumns;
use crate::tsdb::prometheus::{ENC_XOR, decode_chunk, encode_float_chunk, encode_histogram_chunk};

/// Samples of one chunk.
const CHUNK_SAMPLES: usize = 120;
/// Queries of one request.
const MAX_QUERIES: usize = 1000;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseType {
    /// One message with samples.
    Samples,
    /// Frames with chunks.
    StreamedChunks,
}

/// One query.
#[derive(Debug, Clone)]
pub struct ReadQuery {
    /// First timestamp.
    pub start_ms: i64,
    /// Last timestamp.
    pub end_ms: i64,
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// What the samples are for.
    pub hints: SelectHints,
}

/// A request.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// Queries.
    pub queries: Vec<ReadQuery>,
    /// Forms of answers that the client takes, in its order.
    pub accepted: Vec<u64>,
}

fn op_number(op: MatchOp) -> u64 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    }
}

/// Encodes a request that prefers streamed chunks.
#[must_use]
pub fn encode_request(query: &ReadQuery) -> Vec<u8> {
    let (mut out, mut message, mut inner) = (Vec::new(), Vec::new(), Vec::new());
    signed(&mut message, 1, query.start_ms);
    signed(&mut message, 2, query.end_ms);
    for matcher in &query.matchers {
        inner.clear();
        unsigned(&mut inner, 1, op_number(matcher.op));
        text(&mut inner, 2, &matcher.name);
        text(&mut inner, 3, &matcher.value);
        bytes(&mut message, 3, &inner);
    }
    inner.clear();
    signed(&mut inner, 1, query.hints.step_ms);
    text(&mut inner, 2, query.hints.function.as_deref().unwrap_or(""));
    signed(&mut inner, 3, query.hints.start_ms);
    signed(&mut inner, 4, query.hints.end_ms);
    signed(&mut inner, 7, query.hints.range_ms);
    bytes(&mut message, 4, &inner);
    bytes(&mut out, 1, &message);
    packed(&mut out, 2, [1, 0]);
    out
}

fn matcher(message: &[u8]) -> Result<Result<Matcher, String>, WireError> {
    let (mut op, mut name, mut value) = (0, "", "");
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        match field.number {
            1 => op = field.unsigned()?,
            2 => name = field.text()?,
            3 => value = field.text()?,
            _ => {}
        }
    }
    let op = match op {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return Ok(Err("invalid matcher type".into())),
    };
    Ok(Matcher::new(name, op, value).map_err(|e| e.to_string()))
}

/// Reads a request; the error is a text for the client.
pub fn decode_request(message: &[u8]) -> Result<ReadRequest, String> {
    let mut out = ReadRequest::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(|e| e.to_string())? {
        match field.number {
            1 => {
                if out.queries.len() >= MAX_QUERIES {
                    return Err(format!("a request has more than {MAX_QUERIES} queries"));
                }
                let message = field.bytes().map_err(|e| e.to_string())?;
                out.queries.push(decode_query(message)?);
            }
            2 => {
                let accepted = &mut out.accepted;
                let pushed = field.each_varint(|v| {
                    if accepted.len() < 16 {
                        accepted.push(v);
                    }
                    Ok(())
                });
                pushed.map_err(|e| e.to_string())?;
            }
            _ => {}
        }
    }
    Ok(out)
}

fn decode_query(message: &[u8]) -> Result<ReadQuery, String> {
    let wire = |e: WireError| e.to_string();
    let mut query = ReadQuery { start_ms: 0, end_ms: 0, matchers: Vec::new(), hints: SelectHints::default() };
    let mut hinted = false;
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(wire)? {
        match field.number {
            1 => query.start_ms = field.signed().map_err(wire)?,
            2 => query.end_ms = field.signed().map_err(wire)?,
            3 => {
                if query.matchers.len() >= MAX_LABELS {
                    return Err(format!("a query has more than {MAX_LABELS} matchers"));
                }
                query.matchers.push(matcher(field.bytes().map_err(wire)?).map_err(wire)??);
            }
            4 => {
                hinted = true;
                let mut hints = Fields::new(field.bytes().map_err(wire)?);
                while let Some(field) = hints.next_field().map_err(wire)? {
                    match field.number {
                        1 => query.hints.step_ms = field.signed().map_err(wire)?,
                        3 => query.hints.start_ms = field.signed().map_err(wire)?,
                        4 => query.hints.end_ms = field.signed().map_err(wire)?,
                        7 => query.hints.range_ms = field.signed().map_err(wire)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if !hinted || query.hints.end_ms == 0 {
        query.hints.start_ms = query.start_ms;
        query.hints.end_ms = query.end_ms;
    }
    Ok(query)
}

/// Appends a `TimeSeries` to a `QueryResult`.
pub fn put_series(out: &mut Vec<u8>, labels: &Labels, samples: &SampleBuffer) {
    let (mut series, mut inner) = (Vec::new(), Vec::new());
    put_labels(&mut series, labels);
    for (t_ms, value) in samples.timestamps.iter().zip(&samples.values) {
        inner.clear();
        put_sample(&mut inner, *value, *t_ms, 0);
        bytes(&mut series, 2, &inner);
    }
    for (t_ms, histogram) in &samples.histograms {
        inner.clear();
        put_histogram(&mut inner, &HistogramValue::Float(Arc::clone(histogram)), *t_ms, 0);
        bytes(&mut series, 4, &inner);
    }
    bytes(out, 1, &series);
}

/// The samples of a series as encoded `Chunk` messages, in order of time.
#[must_use]
pub fn chunks(samples: &SampleBuffer) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let (mut f, mut h) = (0, 0);
    let histograms: Vec<(i64, HistogramValue)> =
        samples.histograms.iter().map(|(t, h)| (*t, HistogramValue::Float(Arc::clone(h)))).collect();
    while f < samples.timestamps.len() || h < histograms.len() {
        let next_float = samples.timestamps.get(f).copied().unwrap_or(i64::MAX);
        let next_histogram = histograms.get(h).map_or(i64::MAX, |(t, _)| *t);
        let (range, encoding, data);
        if f < samples.timestamps.len() && next_float < next_histogram {
            let rest = &samples.timestamps[f..];
            let n = rest.iter().take(CHUNK_SAMPLES).take_while(|t| **t < next_histogram).count();
            range = (rest[0], rest[n - 1]);
            encoding = ENC_XOR;
            data = encode_float_chunk(&rest[..n], &samples.values[f..f + n]);
            f += n;
        } else {
            let rest = &histograms[h..];
            let most = rest.iter().take(CHUNK_SAMPLES).take_while(|(t, _)| *t < next_float).count();
            let before = h.checked_sub(1).map(|i| &histograms[i].1);
            let (chunk_encoding, content, n) = encode_histogram_chunk(before, rest, most);
            range = (rest[0].0, rest[n - 1].0);
            (encoding, data) = (chunk_encoding, content);
            h += n;
        }
        let mut message = Vec::with_capacity(data.len() + 24);
        signed(&mut message, 1, range.0);
        signed(&mut message, 2, range.1);
        unsigned(&mut message, 3, u64::from(encoding));
        bytes(&mut message, 4, &data);
        out.push(message);
    }
    out
}

/// Appends a frame: length, CRC-32C, content.
pub fn put_frame(out: &mut Vec<u8>, content: &[u8]) {
    varint(out, content.len() as u64);
    out.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
    out.extend_from_slice(content);
}

/// Takes the next frame off a stream; `None` at its end.
pub fn take_frame<'a>(rest: &mut &'a [u8], limit: u64) -> Result<Option<&'a [u8]>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    let len = take_varint(rest).map_err(|e| e.to_string())?;
    if len > limit {
        return Err(format!(
            "chunkedReader: message size exceeded the limit {limit} bytes; got: {len} bytes"
        ));
    }
    let (crc, tail) = rest.split_first_chunk::<4>().ok_or("the stream ends inside a frame")?;
    let len = usize::try_from(len).map_err(|_| "the frame is too long")?;
    let (content, tail) = tail.split_at_checked(len).ok_or("the stream ends inside a frame")?;
    if crc32c::crc32c(content) != u32::from_be_bytes(*crc) {
        return Err("chunkedReader: corrupted frame; checksum mismatch".into());
    }
    *rest = tail;
    Ok(Some(content))
}

/// A series of an answer.
pub type Answered = (Labels, SeriesColumns);

fn labels_of(pairs: &[(&[u8], &[u8])]) -> Result<Labels, String> {
    let mut texts = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let text = |t| std::str::from_utf8(t).map_err(|_| "a label is not UTF-8".to_owned());
        texts.push((text(name)?, text(value)?));
    }
    Ok(Labels::from_pairs(texts))
}

/// Reads the result of the only query of an answer with samples.
pub fn decode_samples(message: &[u8], out: &mut Vec<Answered>) -> Result<(), String> {
    let wire = |e: WireError| e.to_string();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(wire)? {
        if field.number != 1 {
            continue;
        }
        let mut results = Fields::new(field.bytes().map_err(wire)?);
        while let Some(field) = results.next_field().map_err(wire)? {
            if field.number == 1 {
                out.push(decode_series(field.bytes().map_err(wire)?)?);
            }
        }
    }
    Ok(())
}

fn decode_series(message: &[u8]) -> Result<Answered, String> {
    let wire = |e: WireError| e.to_string();
    let (mut pairs, mut columns) = (Vec::new(), SeriesColumns::default());
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(wire)? {
        match field.number {
            1 => pairs.push(write_messages::label(field.bytes().map_err(wire)?).map_err(wire)?),
            2 => {
                let sample = write_messages::sample(field.bytes().map_err(wire)?).map_err(wire)?;
                columns.push_float(sample.t_ms, 0, sample.value);
            }
            4 => {
                let sample = write_messages::histogram(field.bytes().map_err(wire)?).map_err(wire)?;
                columns.push_histogram(sample.t_ms, 0, sample.value);
            }
            _ => {}
        }
    }
    let ascending = columns.timestamps.windows(2).all(|w| w[0] < w[1])
        && columns.histograms.windows(2).all(|w| w[0].0 < w[1].0);
    if !ascending {
        return Err("samples of a series are not in order".into());
    }
    Ok((labels_of(&pairs)?, columns))
}

/// Reads one frame. The chunks of a series may be spread over frames that follow each other.
pub fn decode_frame(message: &[u8], out: &mut Vec<Answered>) -> Result<(), String> {
    let wire = |e: WireError| e.to_string();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field().map_err(wire)? {
        if field.number != 1 {
            continue;
        }
        let (mut pairs, mut columns) = (Vec::new(), SeriesColumns::default());
        let mut series = Fields::new(field.bytes().map_err(wire)?);
        while let Some(field) = series.next_field().map_err(wire)? {
            match field.number {
                1 => pairs.push(write_messages::label(field.bytes().map_err(wire)?).map_err(wire)?),
                2 => {
                    let (mut encoding, mut data) = (0, &[][..]);
                    let mut chunk = Fields::new(field.bytes().map_err(wire)?);
                    while let Some(field) = chunk.next_field().map_err(wire)? {
                        match field.number {
                            3 => encoding = field.unsigned().map_err(wire)?,
                            4 => data = field.bytes().map_err(wire)?,
                            _ => {}
                        }
                    }
                    let encoding = u8::try_from(encoding).unwrap_or(u8::MAX);
                    decode_chunk(encoding, data, &mut columns).map_err(|e| e.0.to_owned())?;
                }
                _ => {}
            }
        }
        let labels = labels_of(&pairs)?;
        match out.last_mut().filter(|(last, _)| *last == labels) {
            Some((_, known)) => known.merge(&columns),
            None => out.push((labels, columns)),
        }
    }
    Ok(())
}

/// Columns as queries take them, cut to a range.
pub fn fill(columns: &SeriesColumns, min_t_ms: i64, max_t_ms: i64, out: &mut SampleBuffer) {
    out.clear();
    for (t_ms, value) in columns.timestamps.iter().zip(&columns.values) {
        if (min_t_ms..=max_t_ms).contains(t_ms) {
            out.push_float(*t_ms, *value);
        }
    }
    for (t_ms, value) in &columns.histograms {
        if (min_t_ms..=max_t_ms).contains(t_ms) {
            let float: Arc<FloatHistogram> = value.to_float();
            out.push_histogram(*t_ms, 0, float);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::STALE_NAN_BITS;

    fn buffer() -> SampleBuffer {
        let mut buffer = SampleBuffer::default();
        for t in 0..500 {
            if t % 130 > 120 {
                let h = FloatHistogram { count: t as f64, sum: 1.0, ..FloatHistogram::default() };
                buffer.push_histogram(t, 0, Arc::new(h));
            } else {
                let value = if t == 77 { f64::from_bits(STALE_NAN_BITS) } else { t as f64 / 3.0 };
                buffer.push_float(t, value);
            }
        }
        buffer
    }

    fn same(columns: &SeriesColumns, buffer: &SampleBuffer) {
        let mut back = SampleBuffer::default();
        fill(columns, i64::MIN, i64::MAX, &mut back);
        assert_eq!(back.timestamps, buffer.timestamps);
        let bits = |b: &SampleBuffer| b.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(buffer));
        let counts = |b: &SampleBuffer| b.histograms.iter().map(|(t, h)| (*t, h.count)).collect::<Vec<_>>();
        assert_eq!(counts(&back), counts(buffer));
    }

    #[test]
    fn both_forms_of_answers_come_back() {
        let (labels, buffer) = (Labels::from_pairs([("__name__", "a"), ("b", "c")]), buffer());
        let (mut result, mut message) = (Vec::new(), Vec::new());
        put_series(&mut result, &labels, &buffer);
        bytes(&mut message, 1, &result);
        let mut back = Vec::new();
        decode_samples(&message, &mut back).expect("readable");
        assert_eq!(back[0].0, labels);
        same(&back[0].1, &buffer);

        let mut stream = Vec::new();
        let all = chunks(&buffer);
        assert!(all.len() > 7, "floats and histograms lie in chunks apart");
        for part in all.chunks(3) {
            let (mut frame, mut series) = (Vec::new(), Vec::new());
            put_labels(&mut series, &labels);
            part.iter().for_each(|chunk| bytes(&mut series, 2, chunk));
            bytes(&mut frame, 1, &series);
            put_frame(&mut stream, &frame);
        }
        let (mut rest, mut back) = (&stream[..], Vec::new());
        while let Some(frame) = take_frame(&mut rest, 1 << 20).expect("whole") {
            decode_frame(frame, &mut back).expect("readable");
        }
        assert_eq!(back.len(), 1);
        same(&back[0].1, &buffer);
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x10;
            let (mut rest, mut whole) = (&damaged[..], true);
            while whole {
                match take_frame(&mut rest, 1 << 20) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a flip at {at} went unnoticed"),
                    Err(_) => whole = false,
                }
            }
        }
    }

    #[test]
    fn requests_come_back() {
        let matchers =
            vec![Matcher::equal("a", "b"), Matcher::new("c", MatchOp::NotRegex, "d.*").expect("valid")];
        let hints = SelectHints { start_ms: 5, end_ms: 9, step_ms: 3, range_ms: 4, ..SelectHints::default() };
        let query = ReadQuery { start_ms: -7, end_ms: 10, matchers: matchers.clone(), hints };
        let back = decode_request(&encode_request(&query)).expect("readable");
        assert_eq!(back.accepted, [1, 0]);
        let back = &back.queries[0];
        assert_eq!((back.start_ms, back.end_ms), (-7, 10));
        assert_eq!((back.hints.start_ms, back.hints.end_ms, back.hints.step_ms), (5, 9, 3));
        assert_eq!(format!("{:?}", back.matchers), format!("{matchers:?}"));
    }
}
