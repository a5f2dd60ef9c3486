//! How much memory may this process use, how much does it use, and what must give way when that is too much?
//!
//! What counts is memory that only this process can give back: anonymous pages and swap. Mapped files are left out,
//! the kernel drops them by itself. Nobody has to watch in the background: whoever asks for the pressure looks again
//! when the last look is old. What queries say they take counts at once, or several could take all that is left
//! between two looks.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Counter, Registry};

/// Part of the memory of the machine, or of its control group, that is used unless told otherwise, percent.
const DEFAULT_PERCENT: u64 = 80;
/// A look is good for this long.
const FRESH: Duration = Duration::from_millis(100);
/// And for this part of it while queries hold much.
const FRESH_PART: u32 = 10;
/// Percent of the limit from which on new series are refused, and below which they are taken again.
const SERIES: (u64, u64) = (90, 85);
/// Percent of the limit from which on heavy queries are ended, and below which they may run again.
const QUERIES: (u64, u64) = (100, 95);
/// A query is heavy if it holds more than this part of the limit.
const HEAVY_PART: u64 = 64;

/// What has to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    None,
    /// New series.
    Series,
    /// New series and heavy queries.
    Queries,
}

type Probe = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// The memory limit of the process.
pub struct MemoryBudget {
    /// 0 = no limit.
    limit: u64,
    probe: Probe,
    fresh: Duration,
    begun: Instant,
    /// When the last look was, nanoseconds after `begun`; 0 = never.
    looked: AtomicU64,
    used: AtomicU64,
    /// What is held by those who say so, now and at the last look.
    held: AtomicU64,
    held_then: AtomicU64,
    /// What somebody is about to allocate: no look shows it yet.
    promised: AtomicU64,
    level: AtomicU8,
    /// Queries that were ended for others' sake.
    pub queries_shed: Counter,
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBudget").field("limit", &self.limit).field("used", &self.used).finish()
    }
}

impl MemoryBudget {
    /// A limit in bytes for this process, 0 = none.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Self::with_probe(limit, FRESH, Box::new(own_memory))
    }

    /// No limit.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new(0)
    }

    /// A limit for whatever `probe` measures, looked at again after `fresh`.
    #[must_use]
    pub fn with_probe(limit: u64, fresh: Duration, probe: Probe) -> Arc<Self> {
        Arc::new(Self {
            limit,
            probe,
            fresh,
            begun: Instant::now(),
            looked: AtomicU64::new(0),
            used: AtomicU64::new(0),
            held: AtomicU64::new(0),
            held_then: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            level: AtomicU8::new(0),
            queries_shed: Counter::default(),
        })
    }

    /// The limit, bytes; 0 = none.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes used at the last look, what was taken since, and what is about to be.
    #[must_use]
    pub fn used(&self) -> u64 {
        let since = self.held.load(Ordering::Relaxed).saturating_sub(self.held_then.load(Ordering::Relaxed));
        self.used.load(Ordering::Relaxed) + since + self.promised.load(Ordering::Relaxed)
    }

    /// Somebody is about to hold so many bytes.
    pub fn take(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Somebody holds so many bytes less.
    pub fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Promises so many bytes to somebody who is about to allocate them, unless that is much and too much; the error says
    /// so. They count as long as the room is kept, so keep it until they are allocated.
    pub fn room(&self, bytes: u64) -> Result<Room<'_>, String> {
        self.promised.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { budget: self, bytes };
        if self.is_heavy(bytes) && self.pressure() == Pressure::Queries {
            self.queries_shed.inc();
            return Err(format!(
                "the selected series take {bytes} bytes, and the server would use {} of {} bytes of memory (--storage.memory-limit); try again later or select less",
                self.used(),
                self.limit
            ));
        }
        Ok(room)
    }

    /// Whether a query that holds so many bytes is heavy.
    #[must_use]
    pub fn is_heavy(&self, bytes: u64) -> bool {
        bytes > self.limit / HEAVY_PART
    }

    /// What has to give way now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        if self.limit == 0 {
            return Pressure::None;
        }
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        let last = self.looked.load(Ordering::Relaxed);
        let much = self.is_heavy(self.held.load(Ordering::Relaxed));
        let fresh = if much { self.fresh / FRESH_PART } else { self.fresh };
        let due = last == 0 || now.saturating_sub(last) >= fresh.as_nanos() as u64;
        // One of those who find it due looks, the others go on with what is known.
        if due && self.looked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
        let percent = (u128::from(self.used()) * 100 / u128::from(self.limit)) as u64;
        let before = self.level.load(Ordering::Relaxed);
        let stays = |level: u8, (on, off): (u64, u64)| percent >= if before >= level { off } else { on };
        let level = if stays(2, QUERIES) { 2 } else { u8::from(stays(1, SERIES)) };
        self.level.store(level, Ordering::Relaxed);
        match level {
            0 => Pressure::None,
            1 => Pressure::Series,
            _ => Pressure::Queries,
        }
    }

    fn look(&self) {
        let Some(used) = (self.probe)() else { return };
        self.used.store(used, Ordering::Relaxed);
        self.held_then.store(self.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Shows the limit, the use and the pressure at `/metrics`.
    pub fn register(self: &Arc<Self>, registry: &Registry) {
        let limit = registry.gauge(
            "meerkat_memory_limit_bytes",
            "Memory that the process may use (--storage.memory-limit), 0 = no limit.",
            &[],
        );
        let used =
            registry.gauge("meerkat_memory_used_bytes", "Memory that only this process can give back.", &[]);
        let pressure = registry.gauge(
            "meerkat_memory_pressure",
            "What gives way to the memory limit: 0 nothing, 1 new series, 2 new series and heavy queries.",
            &[],
        );
        let shed = registry.counter(
            "meerkat_memory_queries_shed_total",
            "Heavy queries that were ended because the process used more than its memory limit.",
            &[],
        );
        limit.set(self.limit as f64);
        let budget = Arc::downgrade(self);
        registry.on_collect(move || {
            let Some(budget) = budget.upgrade() else { return };
            pressure.set(f64::from(budget.pressure() as u8));
            let now = if budget.limit == 0 { (budget.probe)() } else { None };
            used.set(now.unwrap_or_else(|| budget.used()) as f64);
            shed.set_total(budget.queries_shed.get());
        });
    }
}

/// Bytes that somebody takes until it is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.budget.promised.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Anonymous and swapped-out memory of this process, bytes.
fn own_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((kilobytes("RssAnon:")? + kilobytes("VmSwap:").unwrap_or(0)) * 1024)
}

/// The limit that holds when none is given: a part of what the control group or the machine has; 0 if unknown.
#[must_use]
pub fn default_limit() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_group = group_limit(Path::new("/sys/fs/cgroup"), &groups);
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    let machine = machine.map(|kilobytes| kilobytes * 1024);
    let least = of_group.into_iter().chain(machine).min().unwrap_or(0);
    least / 100 * DEFAULT_PERCENT
}

/// The least memory limit of a process's control groups and of those around them, versions 1 and 2.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // Inside a container the path may be that of the host; then the root is what is left.
        let own = mount.join(path.trim_start_matches('/'));
        for folder in own.ancestors().take_while(|folder| folder.starts_with(&mount)) {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>().ok());
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn pressure_rises_and_falls_with_some_slack() {
        let used = Arc::new(AtomicU64::new(0));
        let probe = Arc::clone(&used);
        let budget = MemoryBudget::with_probe(
            1000,
            Duration::ZERO,
            Box::new(move || Some(probe.load(Ordering::Relaxed))),
        );
        let at = |bytes| {
            used.store(bytes, Ordering::Relaxed);
            budget.pressure()
        };
        let steps = [
            (100, Pressure::None),
            (899, Pressure::None),
            (900, Pressure::Series),
            (999, Pressure::Series),
            (1000, Pressure::Queries),
            (960, Pressure::Queries),
            (949, Pressure::Series),
            (860, Pressure::Series),
            (849, Pressure::None),
            (880, Pressure::None),
            (5000, Pressure::Queries),
            (0, Pressure::None),
        ];
        for (bytes, want) in steps {
            assert_eq!(at(bytes), want, "{bytes}");
        }
        assert_eq!(MemoryBudget::unlimited().pressure(), Pressure::None);
    }

    #[test]
    fn what_is_taken_counts_before_it_is_seen() {
        let hour = Duration::from_secs(3600);
        let budget = MemoryBudget::with_probe(1000, hour, Box::new(|| Some(600)));
        assert_eq!(budget.pressure(), Pressure::None);
        let first = budget.room(300).expect("there is room");
        assert_eq!((budget.used(), budget.pressure()), (900, Pressure::Series));
        let error = budget.room(300).expect_err("there is not");
        assert!(error.contains("1200 of 1000 bytes"), "{error}");
        assert_eq!((budget.used(), budget.queries_shed.get() as u64), (900, 1));
        drop(budget.room(10).expect("little is always there"));
        drop(first);
        assert_eq!((budget.used(), budget.pressure()), (600, Pressure::None));
        drop(MemoryBudget::unlimited().room(1 << 60).expect("without a limit there is room"));
    }

    /// A look between the promise and the allocation sees nothing of it.
    #[test]
    fn what_is_promised_counts_whenever_somebody_looks() {
        let budget = MemoryBudget::with_probe(1000, Duration::ZERO, Box::new(|| Some(600)));
        let first = budget.room(300).expect("there is room");
        assert_eq!((budget.pressure(), budget.used()), (Pressure::Series, 900));
        budget.room(300).expect_err("there is not");
        drop(first);
        drop(budget.room(300).expect("there is room again"));
        assert_eq!(budget.used(), 600);
    }

    #[test]
    fn finds_the_limits_of_control_groups() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("memory.max", "max\n");
        write("a/memory.max", "5000\n");
        write("a/b/memory.max", "max\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/x/memory.limit_in_bytes", "700\n");
        let limit = |groups: &str| group_limit(root.path(), groups);
        assert_eq!(limit("0::/a/b\n"), Some(5000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("0::/unknown/of/host\n"), None);
        assert_eq!(limit("4:cpu:/docker/x\n7:memory:/docker/x\n"), Some(700));
        assert_eq!(limit("7:cpuset,memory:/elsewhere\n"), Some(9_223_372_036_854_771_712));
        assert_eq!(limit(""), None);
        assert!(default_limit() > 0, "this machine has memory");
    }
}
