//! Computes all columns of a node and hands them over in the order of the series.
//!
//! When there is enough work, threads compute blocks of columns ahead while the caller folds them; the fold
//! itself stays in one thread and in order, so that floating-point sums do not depend on timing.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::column::{Axis, Column};
use super::context::Context;
use super::node::{Node, Scratch};
use crate::query::QueryError;
use crate::query::stack::LARGE_STACK;

/// Columns in one block.
const BLOCK: usize = 32;
/// Below this many visited samples threads cost more than they gain.
const WORTH_THREADS: usize = 200_000;

/// Calls `consume` with every series number and its column, in order. The column may be taken out.
pub fn each_column(
    ctx: &Context,
    node: &dyn Node,
    axis: Axis,
    mut consume: impl FnMut(usize, &mut Column) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let series = node.metas().len();
    let work = series.saturating_mul(node.cost().max(axis.n));
    let threads = ctx.threads().min(series / BLOCK);
    if threads < 2 || work < WORTH_THREADS {
        let mut scratch = Scratch::default();
        let mut column = Column::default();
        for i in 0..series {
            ctx.check()?;
            node.fill(i, &mut scratch, &mut column)?;
            consume(i, &mut column)?;
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let mut lanes: Vec<Lane> = Vec::with_capacity(threads);
        for lane in 0..threads {
            let (send, receive) = sync_channel::<Result<Vec<Column>, QueryError>>(2);
            let (give_back, recycled) = channel();
            // Nodes lie as deep as the query is high, and these threads descend into them.
            let thread = std::thread::Builder::new().name("query".into()).stack_size(LARGE_STACK);
            thread
                .spawn_scoped(scope, move || produce(ctx, node, lane, threads, &send, &recycled))
                .map_err(|e| QueryError::Execution(format!("starting a thread for the query: {e}")))?;
            lanes.push(Lane { receive, give_back });
        }
        for block in 0..series.div_ceil(BLOCK) {
            let lane = &lanes[block % threads];
            let Ok(columns) = lane.receive.recv() else {
                return Err(QueryError::Execution("a query thread ended early".into()));
            };
            let mut columns = columns?;
            for (k, column) in columns.iter_mut().enumerate() {
                consume(block * BLOCK + k, column)?;
            }
            // The thread may have finished its last block already.
            let _ = lane.give_back.send(columns);
        }
        Ok(())
    })
}

struct Lane {
    receive: Receiver<Result<Vec<Column>, QueryError>>,
    give_back: std::sync::mpsc::Sender<Vec<Column>>,
}

fn produce(
    ctx: &Context,
    node: &dyn Node,
    lane: usize,
    lanes: usize,
    send: &SyncSender<Result<Vec<Column>, QueryError>>,
    recycled: &Receiver<Vec<Column>>,
) {
    let series = node.metas().len();
    let mut scratch = Scratch::default();
    for block in (lane..series.div_ceil(BLOCK)).step_by(lanes) {
        let range = block * BLOCK..((block + 1) * BLOCK).min(series);
        let mut columns = recycled.try_recv().unwrap_or_default();
        columns.resize_with(range.len(), Column::default);
        let mut result = Ok(());
        for (column, i) in columns.iter_mut().zip(range) {
            result = ctx.check().and_then(|()| node.fill(i, &mut scratch, column));
            if result.is_err() {
                break;
            }
        }
        let failed = result.is_err();
        if send.send(result.map(|()| columns)).is_err() || failed {
            return;
        }
    }
}
