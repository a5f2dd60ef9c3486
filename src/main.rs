//! The `meerkat` binary: everything is in the library.

use std::process::ExitCode;

/// Memory that was given back.
#[cfg(feature = "mimalloc")]
mod allocator;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "mimalloc")]
    allocator::set_up();
    meerkat::cli::run(std::env::args_os())
}
