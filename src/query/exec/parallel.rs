//! Computes all columns of a node and hands them over in the order of the series.
//!
//! When there is enough work, threads compute blocks of columns ahead; the caller computes too while it has nothing to
//! fold. The fold itself stays in one thread and in order, so that floating-point sums do not depend on timing.

use parking_lot::Mutex;

use super::column::{Axis, Column};
use super::context::Context;
use super::node::{Node, Scratch};
use crate::query::QueryError;
use crate::query::crew::{Helpers, in_order};

/// Values in one block, about: blocks are computed ahead, and what they hold is memory.
const BLOCK_VALUES: usize = 32 << 10;
/// Most columns in one block.
const BLOCK: usize = 32;
/// Below this many visited samples threads cost more than they gain.
const WORTH_THREADS: usize = 60_000;

/// Calls `consume` with every series number and its column, in order. The column may be taken out.
pub fn each_column(
    ctx: &Context,
    node: &dyn Node,
    axis: Axis,
    mut consume: impl FnMut(usize, &mut Column) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let series = node.metas().len();
    let work = series.saturating_mul(node.cost().max(axis.n));
    let most = if work < WORTH_THREADS { 1 } else { ctx.threads().min(series) };
    let helpers = Helpers::ask(most - usize::from(most > 0));
    if helpers.count() == 0 {
        let mut scratch = Scratch::default();
        let mut column = Column::default();
        for i in 0..series {
            ctx.check()?;
            node.fill(i, &mut scratch, &mut column)?;
            consume(i, &mut column)?;
        }
        return Ok(());
    }
    let size = (BLOCK_VALUES / axis.n.max(1)).min(series / (2 * helpers.count() + 2)).clamp(1, BLOCK);
    // Columns to use again.
    let spare: Mutex<Vec<Vec<Column>>> = Mutex::default();
    let compute = |number: usize, scratch: &mut Scratch| {
        let range = number * size..((number + 1) * size).min(series);
        let mut columns = spare.lock().pop().unwrap_or_default();
        columns.resize_with(range.len(), Column::default);
        for (column, i) in columns.iter_mut().zip(range) {
            ctx.check()?;
            node.fill(i, scratch, column)?;
        }
        Ok(columns)
    };
    in_order(helpers, series.div_ceil(size), compute, |number, mut columns| {
        for (k, column) in columns.iter_mut().enumerate() {
            consume(number * size + k, column)?;
        }
        spare.lock().push(columns);
        Ok(())
    })
}
