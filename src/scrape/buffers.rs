//! Buffers that move from scrape to scrape, so that two thousand targets need as many as are scraped at a time.

use parking_lot::Mutex;

use super::ingest::Scratch;
use crate::net::BodyBuffer;

/// Buffers kept for later.
const KEEP: usize = 16;
/// Room that a kept body buffer may hold, in bytes.
const KEEP_BYTES: usize = 1 << 20;

/// What one scrape needs.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) body: BodyBuffer,
    pub(super) scratch: Scratch,
}

/// Idle buffers.
#[derive(Debug, Default)]
pub(super) struct BufferPool(Mutex<Vec<Buffers>>);

impl BufferPool {
    pub(super) fn take(&self) -> Buffers {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(super) fn give(&self, mut buffers: Buffers) {
        buffers.body.clear();
        buffers.body.shrink_to(KEEP_BYTES);
        let mut idle = self.0.lock();
        if idle.len() < KEEP {
            idle.push(buffers);
        }
    }
}
