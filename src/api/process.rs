//! What does this process use? Read from `/proc`, for `/metrics` and the runtime page; zeros where there is none.

use std::fs;

/// Figures of the running process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFigures {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Virtual memory, bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most file descriptors that may be open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Start, Unix seconds.
    pub start_seconds: f64,
    /// Most virtual memory, bytes; the largest number if there is no limit.
    pub virtual_max_bytes: u64,
    /// Bytes received over all network devices of this process's namespace.
    pub received_bytes: u64,
    /// Bytes sent likewise.
    pub sent_bytes: u64,
}

/// Reads the figures.
#[must_use]
pub fn read() -> ProcessFigures {
    let mut figures = ProcessFigures::default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program name is in parentheses and may hold anything; fields are counted after it.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let page = rustix::param::page_size() as u64;
    figures.cpu_seconds = (number(11) + number(12)) as f64 / ticks;
    figures.threads = number(17);
    figures.virtual_bytes = number(20);
    figures.resident_bytes = number(21) * page;
    figures.start_seconds = boot_seconds() as f64 + number(19) as f64 / ticks;
    figures.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    figures.max_fds = limit.current.unwrap_or(0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::As);
    figures.virtual_max_bytes = limit.current.unwrap_or(u64::MAX);
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    for counts in devices.lines().filter_map(|line| line.split_once(':').map(|(_, counts)| counts)) {
        let column =
            |i: usize| counts.split_ascii_whitespace().nth(i).and_then(|n| n.parse().ok()).unwrap_or(0);
        figures.received_bytes = figures.received_bytes.saturating_add(column(0));
        figures.sent_bytes = figures.sent_bytes.saturating_add(column(8));
    }
    figures
}

fn boot_seconds() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// The machine's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
