//! `tsdb list`: which blocks does a data directory hold?

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use ulid::Ulid;

use super::super::output::say;
use super::super::{code, switch, text};
use super::{check_directory, path_argument};
use crate::cli::flags::format_bytes;
use crate::tsdb::block::BlockMeta;

pub(super) fn command() -> Command {
    Command::new("list")
        .about("List blocks, of Meerkat's and of Prometheus's format")
        .arg(path_argument())
        .arg(switch("human-readable", "Print times and sizes for people.").short('r'))
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(print_blocks(Path::new(text(matches, "path")), matches.get_flag("human-readable")))
}

pub(super) fn folder_bytes(path: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

fn print_blocks(path: &Path, for_people: bool) -> Result<(), String> {
    check_directory(path)?;
    let fail = |e: std::io::Error| format!("cannot list {}: {e}", path.display());
    let (mut metas, mut damaged) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let folder = entry.map_err(fail)?.path();
        let is_block =
            folder.file_name().and_then(|n| n.to_str()).is_some_and(|n| Ulid::from_string(n).is_ok());
        if is_block || folder.join("meta.json").exists() {
            match BlockMeta::read(folder.as_path()) {
                Ok(meta) => metas.push(meta),
                Err(error) => damaged.push(error.to_string()),
            }
        }
    }
    print_table(path, metas, for_people);
    if damaged.is_empty() { Ok(()) } else { Err(damaged.join("\n")) }
}

/// Prints blocks that lie below `path` as promtool does.
pub(super) fn print_table(path: &Path, metas: Vec<BlockMeta>, for_people: bool) {
    let mut blocks: Vec<(BlockMeta, u64)> = metas
        .into_iter()
        .map(|meta| {
            let bytes = folder_bytes(&path.join(meta.ulid.to_string()));
            (meta, bytes)
        })
        .collect();
    blocks.sort_by_key(|(meta, _)| (meta.min_time, meta.ulid));
    let time = |ms: i64| match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) if for_people => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        _ => ms.to_string(),
    };
    say!(
        "{:<28}{:<32}{:<32}{:<16}{:<14}{:<12}{:<12}SIZE",
        "BLOCK ULID",
        "MIN TIME",
        "MAX TIME",
        "DURATION",
        "NUM SAMPLES",
        "NUM CHUNKS",
        "NUM SERIES"
    );
    for (meta, bytes) in blocks {
        let duration_ms = meta.max_time.saturating_sub(meta.min_time);
        let duration = if for_people {
            crate::model::duration::format_duration_ms(duration_ms)
        } else {
            duration_ms.to_string()
        };
        let size = if for_people { format_bytes(bytes) } else { bytes.to_string() };
        say!(
            "{:<28}{:<32}{:<32}{:<16}{:<14}{:<12}{:<12}{size}",
            meta.ulid.to_string(),
            time(meta.min_time),
            time(meta.max_time),
            duration,
            meta.stats.num_samples,
            meta.stats.num_chunks,
            meta.stats.num_series,
        );
    }
}
