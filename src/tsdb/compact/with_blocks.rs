//! How do queries see the head and the blocks at once?

use std::sync::Arc;

use super::block_set::BlockSet;
use crate::tsdb::door::{Querier, Queryable, StorageError};
use crate::tsdb::merge::MergedQuerier;

/// The head with the blocks behind it.
#[derive(Debug)]
pub struct WithBlocks<H> {
    head: Arc<H>,
    blocks: Arc<BlockSet>,
}

impl<H> WithBlocks<H> {
    /// Both as one.
    #[must_use]
    pub fn new(head: Arc<H>, blocks: Arc<BlockSet>) -> Self {
        Self { head, blocks }
    }
}

impl<H: Queryable> Queryable for WithBlocks<H> {
    /// The view of the head is opened before the list of blocks is taken: a block is published before the head
    /// forgets its range, so samples are in one of the two, or in both, but never in neither.
    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        let head = self.head.querier(min_t_ms, max_t_ms)?;
        let mut sources = self.blocks.queriers(min_t_ms, max_t_ms);
        if sources.is_empty() {
            return Ok(head);
        }
        sources.push(head);
        Ok(Box::new(MergedQuerier::new(sources)))
    }
}
