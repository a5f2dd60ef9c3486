//! `tsdb verify`: is every byte of a data directory sound?

use std::path::Path;

use clap::{ArgMatches, Command};

use super::super::output::{say, tell};
use super::super::progress::Progress;
use super::super::text;
use super::list::folder_bytes;
use super::{check_directory, damage_line, path_argument};
use crate::cli::serve::EXIT_FAILURE;
use crate::tsdb::verify::{Report, verify, verify_block};

pub(super) fn command() -> Command {
    Command::new("verify")
        .about("Read every byte of log, head chunks and blocks and name what is damaged")
        .after_help(
            "Compares all checksums, decodes all samples, and compares the index of each block with its series. \
             Changes nothing and works beside a running server. Exit code 1 if something is damaged. PATH can also be \
             a single block.",
        )
        .arg(path_argument())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let path = Path::new(text(matches, "path"));
    let progress = Progress::new("Verifying");
    let all = folder_bytes(path);
    let mut tell = |now: &Path, read: u64| progress.show(read, all, &now.display().to_string());
    let report = if path.join("meta.json").exists() {
        Ok(verify_block(path, &mut tell))
    } else {
        check_directory(path).and_then(|()| verify(path, &mut tell).map_err(|e| e.to_string()))
    };
    drop(progress);
    match report {
        Ok(report) => print(path, &report),
        Err(error) => {
            tell!("cannot verify {}: {error}", path.display());
            EXIT_FAILURE
        }
    }
}

fn print(path: &Path, report: &Report) -> u8 {
    for note in &report.notes {
        say!("note: {note}");
    }
    for damage in &report.damage {
        say!("DAMAGED {}", damage_line(damage));
    }
    let (files, bytes, samples) = (report.files, report.bytes, report.samples);
    if report.damage.is_empty() {
        say!("SUCCESS: {}: {files} files, {bytes} bytes, {samples} samples are sound", path.display());
        return 0;
    }
    say!(
        "FAILED: {}: {} damaged places in {files} files, {bytes} bytes; {samples} samples could be read. The server \
         starts all the same and leaves out what is damaged; `meerkat tsdb export --format=native` writes what can be \
         read to a new directory",
        path.display(),
        report.damage.len()
    );
    EXIT_FAILURE
}
