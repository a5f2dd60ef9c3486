//! Answers to remote read: which form does the client take, and what may it ask for? External labels are taken off
//! matchers and put on results, so that a server is read as its remote-write peers know it.

use super::messages::{ReadQuery, ReadRequest, ResponseType, chunks, put_frame, put_series};
use crate::model::matcher::MatchOp;
use crate::model::{Labels, LabelsBuilder, Matcher, SampleBuffer};
use crate::remote::wire_out::{bytes, signed};
use crate::remote::write_encode::put_labels;
use crate::tsdb::{Querier, Queryable, StorageError};

/// `--storage.remote.read-*`
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Most samples of an answer that is not streamed, 0 = any.
    pub samples: usize,
    /// Most requests at a time, 0 = any.
    pub concurrent: usize,
    /// Bytes of a frame.
    pub frame_bytes: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { samples: 50_000_000, concurrent: 10, frame_bytes: 1 << 20 }
    }
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client asked for too much.
    #[error("exceeded sample limit ({0})")]
    TooManySamples(usize),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The client is gone.
    #[error("the client left")]
    Gone,
}

/// The first form that the client names and this server knows.
pub fn negotiate(request: &ReadRequest) -> Result<ResponseType, String> {
    if request.accepted.is_empty() {
        return Ok(ResponseType::Samples);
    }
    let known = request.accepted.iter().find_map(|number| match number {
        0 => Some(ResponseType::Samples),
        1 => Some(ResponseType::StreamedChunks),
        _ => None,
    });
    known.ok_or_else(|| {
        format!(
            "server does not support any of the requested response types: {:?}; supported: map[SAMPLES:{{}} STREAMED_XOR_CHUNKS:{{}}]",
            request.accepted
        )
    })
}

fn without_external(matchers: &[Matcher], external: &Labels) -> Vec<Matcher> {
    let one = |m: &Matcher| {
        let is_own = m.op == MatchOp::Equal && external.get(&m.name) == Some(&*m.value);
        if is_own { Matcher::equal(&m.name, "") } else { m.clone() }
    };
    matchers.iter().map(one).collect()
}

fn with_external(labels: &Labels, external: &Labels) -> Labels {
    let mut builder = LabelsBuilder::new(labels);
    for label in external.iter() {
        if labels.get(label.name).is_none() {
            builder.set(label.name, label.value);
        }
    }
    builder.build()
}

fn each_series(
    storage: &dyn Queryable,
    query: &ReadQuery,
    external: &Labels,
    mut each: impl FnMut(&Labels, &SampleBuffer) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let querier: Box<dyn Querier> = storage.querier(query.start_ms, query.end_ms)?;
    let set = querier.select(&query.hints, &without_external(&query.matchers, external))?;
    let mut buffer = SampleBuffer::default();
    for i in 0..set.len() {
        set.samples(i, query.start_ms, query.end_ms, &mut buffer)?;
        if !buffer.is_empty() {
            each(&with_external(&set.labels(i), external), &buffer)?;
        }
    }
    Ok(())
}

/// The whole answer with samples, not compressed.
pub fn samples(
    storage: &dyn Queryable,
    request: &ReadRequest,
    external: &Labels,
    limits: ReadLimits,
) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    for query in &request.queries {
        let (mut result, mut count) = (Vec::new(), 0);
        each_series(storage, query, external, |labels, buffer| {
            count += buffer.len();
            if limits.samples > 0 && count > limits.samples {
                return Err(ReadError::TooManySamples(limits.samples));
            }
            put_series(&mut result, labels, buffer);
            Ok(())
        })?;
        bytes(&mut out, 1, &result);
    }
    Ok(out)
}

/// Hands the answer frame by frame to `send`, which says whether the client is still there.
pub fn stream(
    storage: &dyn Queryable,
    request: &ReadRequest,
    external: &Labels,
    limits: ReadLimits,
    send: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), ReadError> {
    for (index, query) in request.queries.iter().enumerate() {
        each_series(storage, query, external, |labels, buffer| {
            let mut encoded = Vec::new();
            put_labels(&mut encoded, labels);
            let mut series = encoded.clone();
            let all = chunks(buffer);
            let last = all.len().saturating_sub(1);
            for (i, chunk) in all.iter().enumerate() {
                bytes(&mut series, 2, chunk);
                if series.len() < limits.frame_bytes && i < last {
                    continue;
                }
                let (mut message, mut frame) = (Vec::new(), Vec::new());
                bytes(&mut message, 1, &series);
                signed(&mut message, 2, i64::try_from(index).unwrap_or(i64::MAX));
                put_frame(&mut frame, &message);
                if !send(&frame) {
                    return Err(ReadError::Gone);
                }
                series.clear();
                series.extend_from_slice(&encoded);
            }
            Ok(())
        })?;
    }
    Ok(())
}
