//! What is a vector-valued expression while it runs? A [`Node`]: the labels of its series first, then for each
//! series a column of step values on demand.
//!
//! Nodes whose series depend on one input series each (selectors, range functions, arithmetic with scalars)
//! compute a column when asked and hold nothing; the others (aggregations, joins) compute when they are built
//! and keep their columns in a [`Materialised`].

use std::sync::Arc;

use super::column::{Column, Meta};
use super::context::Context;
use crate::model::{Labels, SampleBuffer};
use crate::query::QueryError;

/// Buffers that one thread reuses from series to series.
#[derive(Debug, Default)]
pub struct Scratch {
    buffers: Vec<SampleBuffer>,
    columns: Vec<Column>,
    /// Room for sorting.
    pub floats: Vec<f64>,
}

impl Scratch {
    /// A sample buffer; hand it back with [`Scratch::give_buffer`].
    pub fn take_buffer(&mut self) -> SampleBuffer {
        self.buffers.pop().unwrap_or_default()
    }

    /// Takes a sample buffer back.
    pub fn give_buffer(&mut self, mut buffer: SampleBuffer) {
        buffer.clear();
        self.buffers.push(buffer);
    }

    /// A column; hand it back with [`Scratch::give_column`].
    pub fn take_column(&mut self) -> Column {
        self.columns.pop().unwrap_or_default()
    }

    /// Takes a column back.
    pub fn give_column(&mut self, mut column: Column) {
        column.histograms.clear();
        self.columns.push(column);
    }
}

/// A vector-valued expression.
pub trait Node: Send + Sync {
    /// The series, some of which may turn out to be empty.
    fn metas(&self) -> &[Meta];

    /// Computes the column of series `i`; `out` comes with any content.
    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError>;

    /// Rough cost of one column, in visited samples; decides about threads.
    fn cost(&self) -> usize;

    /// Whether the order of the series is part of the result (`sort`, `topk` of an instant query).
    fn ordered(&self) -> bool {
        false
    }
}

/// A node on the heap.
pub type BoxNode = Box<dyn Node>;

/// Columns that were computed already.
pub struct Materialised {
    metas: Vec<Meta>,
    columns: Vec<Column>,
    ordered: bool,
    /// Gives the memory back when the node goes.
    _held: Held,
}

/// Memory that is charged to the query as long as this lives.
pub struct Held {
    ctx: Arc<Context>,
    bytes: usize,
    samples: usize,
    /// Bytes of label sets that are not charged yet.
    labels: usize,
}

impl Held {
    /// Charges nothing yet.
    #[must_use]
    pub fn new(ctx: &Arc<Context>) -> Self {
        Self { ctx: Arc::clone(ctx), bytes: 0, samples: 0, labels: 0 }
    }

    /// Charges a label set that was just made, and an entry about it. Fails as [`Held::grow`] does, or when the query
    /// should stop; label sets come by the hundred thousand, so it looks now and then.
    pub fn labels(&mut self, labels: &Labels) -> Result<(), QueryError> {
        const AT_ONCE: usize = 64 << 10;
        self.labels += labels.heap_bytes() + 2 * size_of::<Meta>();
        if self.labels < AT_ONCE {
            return Ok(());
        }
        self.ctx.check()?;
        let bytes = std::mem::take(&mut self.labels);
        self.grow(bytes, 0)
    }

    /// Charges more, or fails with the limit that is passed.
    pub fn grow(&mut self, bytes: usize, samples: usize) -> Result<(), QueryError> {
        self.bytes += bytes;
        self.samples += samples;
        self.ctx.hold(bytes, samples)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ctx.release(self.bytes, self.samples);
    }
}

impl Materialised {
    /// Wraps finished columns, one for each meta.
    #[must_use]
    pub fn new(metas: Vec<Meta>, columns: Vec<Column>, held: Held) -> Self {
        debug_assert_eq!(metas.len(), columns.len());
        Self { metas, columns, ordered: false, _held: held }
    }

    /// Says that the order matters.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.ordered = true;
        self
    }
}

impl Node for Materialised {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, _: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        out.values.clone_from(&self.columns[i].values);
        out.histograms.clone_from(&self.columns[i].histograms);
        Ok(())
    }

    fn cost(&self) -> usize {
        1
    }

    fn ordered(&self) -> bool {
        self.ordered
    }
}
