//! Computes all columns of a node and hands them over in the order of the series.
//!
//! When there is enough work, threads compute blocks of columns ahead; the caller computes too while it has nothing to
//! fold. The fold itself stays in one thread and in order, so that floating-point sums do not depend on timing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use parking_lot::Mutex;

use super::column::{Axis, Column};
use super::context::Context;
use super::node::{Node, Scratch};
use crate::query::QueryError;
use crate::query::stack::LARGE_STACK;

/// Values in one block, about: blocks are computed ahead, and what they hold is memory.
const BLOCK_VALUES: usize = 32 << 10;
/// Most columns in one block.
const BLOCK: usize = 32;
/// Below this many visited samples threads cost more than they gain.
const WORTH_THREADS: usize = 400_000;

/// Calls `consume` with every series number and its column, in order. The column may be taken out.
pub fn each_column(
    ctx: &Context,
    node: &dyn Node,
    axis: Axis,
    mut consume: impl FnMut(usize, &mut Column) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let series = node.metas().len();
    let work = series.saturating_mul(node.cost().max(axis.n));
    let size = (BLOCK_VALUES / axis.n.max(1)).clamp(1, BLOCK);
    let threads = ctx.threads().min(series / size);
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
    let blocks = Blocks {
        ctx,
        node,
        size,
        count: series.div_ceil(size),
        next: AtomicUsize::new(0),
        spare: Mutex::default(),
    };
    let blocks = &blocks;
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(threads);
        for _ in 1..threads {
            let send = send.clone();
            // Nodes lie as deep as the query is high, and these threads descend into them.
            let thread = std::thread::Builder::new().name("query".into()).stack_size(LARGE_STACK);
            thread
                .spawn_scoped(scope, move || blocks.produce(&send))
                .map_err(|e| QueryError::Execution(format!("starting a thread for the query: {e}")))?;
        }
        drop(send);
        let mut ahead =
            Ahead { blocks, receive, ready: BTreeMap::new(), most: 2 * threads, scratch: Scratch::default() };
        for number in 0..blocks.count {
            let mut columns = ahead.take(number)?;
            for (k, column) in columns.iter_mut().enumerate() {
                consume(number * size + k, column)?;
            }
            blocks.spare.lock().push(columns);
        }
        Ok(())
    })
}

type Columns = Vec<Column>;
/// A finished block and its number.
type Finished = (usize, Result<Columns, QueryError>);

/// The blocks of a node, given out one after the other to whoever has time.
struct Blocks<'a> {
    ctx: &'a Context,
    node: &'a dyn Node,
    /// Columns in one.
    size: usize,
    count: usize,
    next: AtomicUsize,
    /// Columns to use again.
    spare: Mutex<Vec<Columns>>,
}

impl Blocks<'_> {
    /// The number of a block that nobody computes yet.
    fn claim(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.count).then_some(number)
    }

    fn compute(&self, number: usize, scratch: &mut Scratch) -> Result<Columns, QueryError> {
        let series = self.node.metas().len();
        let range = number * self.size..((number + 1) * self.size).min(series);
        let mut columns = self.spare.lock().pop().unwrap_or_default();
        columns.resize_with(range.len(), Column::default);
        for (column, i) in columns.iter_mut().zip(range) {
            self.ctx.check()?;
            self.node.fill(i, scratch, column)?;
        }
        Ok(columns)
    }

    fn produce(&self, send: &SyncSender<Finished>) {
        let mut scratch = Scratch::default();
        while let Some(number) = self.claim() {
            let columns = self.compute(number, &mut scratch);
            let failed = columns.is_err();
            if send.send((number, columns)).is_err() || failed {
                return;
            }
        }
    }
}

/// The caller's side: blocks that are finished but not folded yet.
struct Ahead<'a> {
    blocks: &'a Blocks<'a>,
    receive: Receiver<Finished>,
    ready: BTreeMap<usize, Columns>,
    /// Blocks to keep; beyond, the caller waits for the one it needs.
    most: usize,
    scratch: Scratch,
}

impl Ahead<'_> {
    /// Block `number`, computed here or by a thread.
    fn take(&mut self, number: usize) -> Result<Columns, QueryError> {
        loop {
            if let Some(columns) = self.ready.remove(&number) {
                return Ok(columns);
            }
            let (finished, columns) = match self.receive.try_recv() {
                Ok(finished) => finished,
                Err(TryRecvError::Empty) if self.ready.len() >= self.most => self.wait()?,
                // Disconnected threads have taken the last block or failed; what they took has come.
                Err(_) => match self.blocks.claim() {
                    Some(mine) => (mine, self.blocks.compute(mine, &mut self.scratch)),
                    None => self.wait()?,
                },
            };
            self.ready.insert(finished, columns?);
        }
    }

    fn wait(&self) -> Result<Finished, QueryError> {
        self.receive.recv().map_err(|_| QueryError::Execution("a query thread ended early".into()))
    }
}
