//! How do commands print? As `println!` and `eprintln!` do, but a reader who goes away (`| head -1`) ends nothing, and a
//! disk that is full makes the command fail instead of panic.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// The first thing that could not be printed, for a reason other than that nobody reads.
static FAULT: OnceLock<String> = OnceLock::new();

pub(super) fn print(text: Arguments<'_>) {
    if let Err(e) = writeln!(io::stdout().lock(), "{text}")
        && e.kind() != ErrorKind::BrokenPipe
    {
        FAULT.get_or_init(|| e.to_string());
    }
}

pub(super) fn complain(text: Arguments<'_>) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether all that was said is where it should be.
pub(super) fn all_printed() -> Result<(), String> {
    FAULT.get().map_or(Ok(()), |e| Err(format!("cannot write to standard output: {e}")))
}

/// A line on standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::commands::output::print(format_args!($($text)*)) };
}

/// A line on standard error.
macro_rules! tell {
    ($($text:tt)*) => { $crate::cli::commands::output::complain(format_args!($($text)*)) };
}

pub(super) use {say, tell};
