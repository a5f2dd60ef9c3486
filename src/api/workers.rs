//! Where do answers come about that may take long? In threads of their own that give way to everything else: health,
//! metrics, scrapes and rules go on at once while each of them is busy.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Each connection of the default limit may hold one while its answer is read slowly, and as many are left.
const MAX_THREADS: usize = 1024;

/// The threads belong to the process and end with it.
static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let threads = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MAX_THREADS)
        .thread_name("answer")
        .on_thread_start(crate::query::crew::give_way)
        .build();
    threads.inspect_err(|error| tracing::warn!(%error, "answers share the threads of everything else")).ok()
});

/// Runs `work` in one of the threads.
pub fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match &*THREADS {
        Some(threads) => threads.spawn_blocking(work),
        None => tokio::task::spawn_blocking(work),
    }
}
