//! `debug`: what does a server say about itself, packed into one file for others to look at? Profiles are asked for
//! like promtool does; a server that has none says so.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::client::{Client, block_on, http_config};
use super::output::{say, tell};
use super::{code, text};

/// Profiles take half a minute.
const TIMEOUT: Duration = Duration::from_secs(60);
const BUNDLE: &str = "debug.tar.gz";
const METRICS: &[(&str, &str)] = &[("/metrics", "metrics.txt")];
const PROFILES: &[(&str, &str)] = &[
    ("/debug/pprof/profile?seconds=30", "cpu.pb"),
    ("/debug/pprof/block", "block.pb"),
    ("/debug/pprof/goroutine", "goroutine.pb"),
    ("/debug/pprof/heap", "heap.pb"),
    ("/debug/pprof/mutex", "mutex.pb"),
    ("/debug/pprof/threadcreate", "threadcreate.pb"),
    ("/debug/pprof/trace?seconds=30", "trace.pb"),
];

pub(super) fn command() -> Command {
    let one = |name: &'static str, about: &'static str| {
        let server = Arg::new("server").required(true).value_name("SERVER").help("URL of the server.");
        Command::new(name).about(about).arg(server).arg(http_config())
    };
    Command::new("debug")
        .about("Collect what a server says about itself in debug.tar.gz")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(one("metrics", "Its metrics"))
        .subcommand(one("pprof", "Its profiles, if it has any: Meerkat does not"))
        .subcommand(one("all", "Both, as far as it has them"))
}

pub(super) fn run(name: &str, matches: &ArgMatches) -> u8 {
    let files: Vec<_> = match name {
        "metrics" => METRICS.to_vec(),
        "pprof" => PROFILES.to_vec(),
        _ => [METRICS, PROFILES].concat(),
    };
    code(collect(matches, &files))
}

fn collect(matches: &ArgMatches, files: &[(&str, &str)]) -> Result<(), String> {
    let base = text(matches, "server").trim_end_matches('/');
    let client = Client::new(matches, TIMEOUT)?;
    let mut found = Vec::new();
    block_on(async {
        for (path, file) in files {
            say!("collecting: {base}{path}");
            match client.get_bytes(&format!("{base}{path}")).await {
                Ok((status, body)) if status.is_success() => found.push((*file, body)),
                Ok((status, _)) => tell!("  the server answered {status}"),
                Err(e) => return Err(format!("error collecting {base}{path}: {e}")),
            }
        }
        Ok(())
    })??;
    if found.is_empty() {
        return Err("the server has nothing of what was asked for".into());
    }
    let write = || -> io::Result<()> {
        let mut out = flate2::write::GzEncoder::new(File::create(BUNDLE)?, flate2::Compression::default());
        write_tar(&mut out, &found)?;
        out.finish()?.sync_all()
    };
    write().map_err(|e| format!("error writing {BUNDLE}: {e}"))?;
    say!("Compiling debug information complete, all files written in {BUNDLE:?}.");
    Ok(())
}

/// An archive of files (POSIX ustar).
fn write_tar(out: &mut impl Write, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    for (name, content) in files {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000600");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.write_all(&header)?;
        out.write_all(content)?;
        out.write_all(&[0; 512][..content.len().next_multiple_of(512) - content.len()])?;
    }
    out.write_all(&[0; 1024])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_blocks_and_sums() {
        let mut out = Vec::new();
        write_tar(&mut out, &[("a.txt", vec![b'x'; 600])]).expect("in memory");
        assert_eq!(out.len(), 512 + 1024 + 1024);
        assert_eq!((&out[..6], &out[124..136]), (&b"a.txt\0"[..], &b"00000001130\0"[..]));
        let told = u32::from_str_radix(std::str::from_utf8(&out[148..154]).expect("text"), 8);
        let blank = [b' '; 8];
        let sum: u32 = out[..148].iter().chain(&blank).chain(&out[156..512]).map(|b| u32::from(*b)).sum();
        assert_eq!(told, Ok(sum));
    }
}
