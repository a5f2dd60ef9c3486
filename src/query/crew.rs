//! Who helps a query when it has enough work for several cores? Threads that wait for that, one fewer than there are cores,
//! for all queries together. Nobody waits for help: who finds them all busy works alone.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use super::stack::LARGE_STACK;

/// How far threads that work for queries give way: a third of the processor time of other threads when there is not
/// enough for all.
const NICE: i32 = 5;

struct Crew {
    threads: ThreadPool,
    idle: AtomicUsize,
}

/// The threads belong to the process and end with it.
static CREW: LazyLock<Option<Crew>> = LazyLock::new(|| {
    // Who asks works too.
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    if count == 0 {
        return None;
    }
    let threads = ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|_| "query".into())
        // The nodes of a query lie as deep as it is high, and these threads descend into them.
        .stack_size(LARGE_STACK)
        .start_handler(|_| give_way())
        .build();
    let threads =
        threads.inspect_err(|error| tracing::warn!(%error, "each query has a single thread")).ok()?;
    Some(Crew { threads, idle: AtomicUsize::new(count) })
});

/// Lets scrapes, rules and health go before what this thread does from now on.
pub fn give_way() {
    // On Linux this is the thread's alone, and what it starts inherits it.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "threads for answers keep the priority of the process");
    }
}

/// Idle threads that were asked to help; they go back when this goes.
pub struct Helpers {
    crew: Option<&'static Crew>,
    count: usize,
}

impl Helpers {
    /// As many as are idle, at most `most`.
    #[must_use]
    pub fn ask(most: usize) -> Self {
        let crew = if most == 0 { None } else { CREW.as_ref() };
        let Some(crew) = crew else { return Self { crew: None, count: 0 } };
        let mut count = 0;
        let take = |idle: usize| {
            count = idle.min(most);
            Some(idle - count)
        };
        // The closure never refuses, so neither does the update.
        let _ = crew.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        Self { crew: Some(crew), count }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Gives each of them what `part` makes, does `lead` here, and returns when all are done.
    fn work<'a, R, P: FnOnce() + Send + 'a>(
        self,
        mut part: impl FnMut() -> P,
        lead: impl FnOnce() -> R,
    ) -> R {
        let Some(crew) = self.crew else { return lead() };
        crew.threads.in_place_scope(|scope| {
            for _ in 0..self.count {
                let part = part();
                scope.spawn(move |_| part());
            }
            lead()
        })
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        if let Some(crew) = self.crew {
            crew.idle.fetch_add(self.count, Ordering::AcqRel);
        }
    }
}

/// Computes the parts `0..count` together with the helpers and hands each to `consume` here, in order. `compute` gets
/// room that its thread uses again for the next part. Ends with the first error.
pub fn in_order<T: Send, S: Default, E: Send>(
    helpers: Helpers,
    count: usize,
    compute: impl Fn(usize, &mut S) -> Result<T, E> + Sync,
    mut consume: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let threads = helpers.count() + 1;
    let parts = &Parts { compute, count, next: AtomicUsize::new(0) };
    let (send, receive) = sync_channel(threads);
    let mut senders = vec![send; helpers.count()];
    let part = || {
        let send = senders.pop();
        move || send.iter().for_each(|send| parts.produce(send))
    };
    helpers.work(part, || {
        let mut ahead =
            Ahead { parts, receive, ready: BTreeMap::new(), most: 2 * threads, room: S::default() };
        for number in 0..count {
            // A helper that panicked ends this scope in panic too.
            let Some(part) = ahead.take(number) else { break };
            consume(number, part?)?;
        }
        Ok(())
    })
}

/// Parts that are given out one after the other to whoever has time.
struct Parts<F> {
    compute: F,
    count: usize,
    next: AtomicUsize,
}

impl<F> Parts<F> {
    /// The number of a part that nobody computes yet.
    fn claim(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.count).then_some(number)
    }

    fn produce<T, S: Default, E>(&self, send: &SyncSender<(usize, Result<T, E>)>)
    where
        F: Fn(usize, &mut S) -> Result<T, E>,
    {
        let mut room = S::default();
        while let Some(number) = self.claim() {
            let computed = (self.compute)(number, &mut room);
            let failed = computed.is_err();
            if send.send((number, computed)).is_err() || failed {
                return;
            }
        }
    }
}

/// The caller's side: parts that are finished but not consumed yet.
struct Ahead<'a, F, T, S, E> {
    parts: &'a Parts<F>,
    receive: Receiver<(usize, Result<T, E>)>,
    ready: BTreeMap<usize, T>,
    /// Parts to keep; beyond, the caller waits for the one it needs.
    most: usize,
    room: S,
}

impl<F: Fn(usize, &mut S) -> Result<T, E>, T, S, E> Ahead<'_, F, T, S, E> {
    /// Part `number`, computed here or by a thread; none if that thread panicked.
    fn take(&mut self, number: usize) -> Option<Result<T, E>> {
        loop {
            if let Some(part) = self.ready.remove(&number) {
                return Some(Ok(part));
            }
            // Parts are claimed in order: while others are ready, somebody has this one.
            let room = self.ready.len() < self.most;
            let (finished, part) = match self.receive.try_recv() {
                Ok(finished) => finished,
                Err(_) => match if room { self.parts.claim() } else { None } {
                    Some(mine) => (mine, (self.parts.compute)(mine, &mut self.room)),
                    None => self.receive.recv().ok()?,
                },
            };
            match part {
                Ok(part) => self.ready.insert(finished, part),
                Err(error) => return Some(Err(error)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_works_and_nobody_is_lost() {
        let done = AtomicUsize::new(0);
        for _ in 0..50 {
            let helpers = Helpers::ask(2);
            let count = helpers.count();
            let before = done.load(Ordering::SeqCst);
            let part = || {
                || {
                    done.fetch_add(1, Ordering::SeqCst);
                }
            };
            let answer = helpers.work(part, || 7);
            assert_eq!((answer, done.load(Ordering::SeqCst) - before), (7, count));
        }
    }

    #[test]
    fn parts_come_in_order_and_errors_end_it() {
        for count in [0, 1, 7, 1000] {
            let mut seen = Vec::new();
            let compute = |number: usize, room: &mut usize| {
                *room += 1;
                if number == 900 { Err("enough") } else { Ok(number * 3) }
            };
            let answer = in_order(Helpers::ask(2), count, compute, |number, part| {
                assert_eq!(part, number * 3);
                seen.push(number);
                Ok(())
            });
            assert_eq!(answer, if count == 1000 { Err("enough") } else { Ok(()) });
            assert!(seen.iter().copied().eq(0..seen.len()), "{seen:?}");
            assert!(count == 1000 || seen.len() == count);
        }
    }

    #[test]
    fn without_idle_threads_the_caller_works_alone() {
        let all = Helpers::ask(usize::MAX);
        let none = Helpers::ask(1);
        assert_eq!(none.count(), 0);
        assert_eq!(none.work(|| || unreachable!("nobody was asked"), || 1), 1);
        drop(all);
    }
}
