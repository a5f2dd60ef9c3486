//! Buffers that move from scrape to scrape, so that two thousand targets need as many as are scraped at a time.

use std::sync::Arc;

use parking_lot::Mutex;

use super::ingest::Scratch;
use crate::net::{BodyBuffer, BodyRoom};

/// Buffers kept for later.
const KEEP: usize = 16;
/// Room that a kept body buffer may hold, in bytes.
const KEEP_BYTES: usize = 1 << 20;
/// Memory for all bodies of targets without `body_size_limit` together, bytes. One alone can have half of it, which is
/// more than the exposition of a million series.
const ROOM: u64 = 256 << 20;

/// What one scrape needs.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) body: BodyBuffer,
    pub(super) scratch: Scratch,
}

/// Idle buffers.
#[derive(Debug)]
pub(super) struct BufferPool {
    idle: Mutex<Vec<Buffers>>,
    room: Arc<BodyRoom>,
}

impl Default for BufferPool {
    fn default() -> Self {
        Self { idle: Mutex::default(), room: BodyRoom::new(ROOM) }
    }
}

impl BufferPool {
    pub(super) fn take(&self) -> Buffers {
        let idle = self.idle.lock().pop();
        idle.unwrap_or_else(|| Buffers {
            body: BodyBuffer::within(Arc::clone(&self.room)),
            scratch: Scratch::default(),
        })
    }

    pub(super) fn give(&self, mut buffers: Buffers) {
        buffers.body.clear();
        buffers.body.shrink_to(KEEP_BYTES);
        let mut idle = self.idle.lock();
        if idle.len() < KEEP {
            idle.push(buffers);
        }
    }
}
