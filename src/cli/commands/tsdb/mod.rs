//! `tsdb`: what is in a data directory, is it sound, and how does data get in and out? Names and flags of promtool
//! where it has the command. All but `import` and `bench` only read, and work beside a server that runs.

mod analyze;
mod bench;
mod dump;
mod export;
mod import;
mod list;
mod verify;

use std::io::ErrorKind;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::output::tell;
use super::{backfill, text};
use crate::cli::flags::EXIT_USAGE;
use crate::cli::serve::EXIT_FAILURE;
use crate::model::Matcher;
use crate::tsdb::readonly::{ReadOnlyDb, holds_data};
use crate::tsdb::verify::{Damage, verify_logs};

pub(super) fn command() -> Command {
    Command::new("tsdb")
        .about("Look into data directories, check them, and move data in and out")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list::command(), analyze::command(), verify::command()])
        .subcommands([dump::command(), dump::open_metrics_command(), export::command()])
        .subcommands([import::command(), import::create_command(), bench::command()])
}

/// Runs the command of this name.
pub(super) fn run(name: &str, matches: &ArgMatches) -> u8 {
    match name {
        "list" => list::run(matches),
        "analyze" => analyze::run(matches),
        "verify" => verify::run(matches),
        "dump" => dump::run(matches),
        "dump-openmetrics" => dump::run_open_metrics(matches),
        "export" => export::run(matches),
        "import" => import::run(matches),
        "create-blocks-from" => match matches.subcommand() {
            Some(("openmetrics", m)) => import::run_create(m),
            Some(("rules", m)) => backfill::run_rules(m),
            _ => EXIT_USAGE,
        },
        "bench" => match matches.subcommand() {
            Some(("write", m)) => bench::run(m),
            _ => EXIT_USAGE,
        },
        _ => EXIT_FAILURE,
    }
}

fn path_argument() -> Arg {
    Arg::new("path").default_value("data/").value_name("PATH").help("The data directory.")
}

fn time_argument(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("TIME").allow_hyphen_values(true).help(help)
}

fn time_arguments() -> [Arg; 2] {
    [
        time_argument("min-time", "First timestamp: milliseconds, or RFC 3339."),
        time_argument("max-time", "Last timestamp: milliseconds, or RFC 3339."),
    ]
}

fn match_argument() -> Arg {
    Arg::new("match")
        .long("match")
        .value_name("SELECTOR")
        .action(ArgAction::Append)
        .help("Series selector; can be repeated.")
}

/// `--min-time` and `--max-time`, milliseconds, both included.
fn time_range(matches: &ArgMatches) -> Result<(i64, i64), String> {
    let time = |name: &str, default: i64| -> Result<i64, String> {
        match text(matches, name) {
            "" => Ok(default),
            given => given.parse().or_else(|_| {
                let time: Result<jiff::Timestamp, _> = given.parse();
                time.map(jiff::Timestamp::as_millisecond)
                    .map_err(|_| format!("--{name}: {given:?} is neither milliseconds nor RFC 3339"))
            }),
        }
    };
    Ok((time("min-time", i64::MIN)?, time("max-time", i64::MAX - 1)?))
}

/// `--match`, one set for each.
fn matcher_sets(matches: &ArgMatches) -> Result<Vec<Vec<Matcher>>, String> {
    super::many(matches, "match")
        .iter()
        .map(|text| {
            crate::query::parse::parse_metric_selector(text).map_err(|e| format!("--match {text:?}: {e}"))
        })
        .collect()
}

/// Most damaged places of a log that are named; `tsdb verify` names all.
const MAX_NAMED: usize = 20;

/// A directory, and what of it could not be read.
struct Opened {
    db: ReadOnlyDb,
    left_out: Vec<String>,
}

impl std::ops::Deref for Opened {
    type Target = ReadOnlyDb;

    fn deref(&self) -> &ReadOnlyDb {
        &self.db
    }
}

impl Opened {
    /// What is left of a damaged directory is worth having, but not all there was.
    fn whole(&self) -> Result<(), String> {
        if self.left_out.is_empty() {
            return Ok(());
        }
        Err("not everything could be read; `meerkat tsdb verify` names the damaged places".into())
    }
}

/// Opens a directory for reading and says on standard error what could not be read.
fn open(path: &Path) -> Result<Opened, String> {
    let db = if path.join("meta.json").exists() {
        ReadOnlyDb::of_block(path)
    } else {
        check_directory(path)?;
        ReadOnlyDb::open(path)
    };
    let db = db.map_err(|e| e.to_string())?;
    let mut left_out: Vec<String> = db.unreadable.iter().map(|(path, reason)| named(path, reason)).collect();
    let lost = db.recovery.damaged + db.recovery.unusable;
    if lost > 0 {
        let damage = verify_logs(path, &mut |_, _| {}).map_err(|e| e.to_string())?.damage;
        left_out.extend(damage.iter().take(MAX_NAMED).map(damage_line));
        // A directory that changes may be sound by now, and what follows a lost record may be sound and yet unusable.
        if damage.is_empty() || damage.len() > MAX_NAMED {
            left_out.push(format!("{}: {lost} damaged places of the log", path.display()));
        }
    }
    if db.unnamed > 0 {
        left_out.push(format!(
            "{}: {} samples or chunks in the log of Prometheus whose series no record names",
            path.display(),
            db.unnamed
        ));
    }
    for what in &left_out {
        tell!("warning: left out: {what}");
    }
    Ok(Opened { db, left_out })
}

/// The reason, with the path in front unless it is in it.
fn named(path: &Path, reason: &str) -> String {
    let path = path.display().to_string();
    if reason.contains(&path) { reason.to_owned() } else { format!("{path}: {reason}") }
}

fn damage_line(damage: &Damage) -> String {
    let place = damage.offset.map(|offset| format!(" at byte {offset}")).unwrap_or_default();
    format!("{}{place}: {}", damage.path.display(), damage.what)
}

/// Whoever names the wrong directory should not be told that all is well there.
fn check_directory(path: &Path) -> Result<(), String> {
    const REMEDY: &str = "name the directory that --storage.tsdb.path names";
    let reason = match std::fs::read_dir(path).map(drop) {
        Ok(()) => match holds_data(path) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(format!("{} has neither blocks nor a log: {REMEDY}", path.display())),
            Err(error) => return Err(error.to_string()),
        },
        Err(error) => error,
    };
    let remedy = match reason.kind() {
        ErrorKind::PermissionDenied => "run this as the user that the server runs as",
        _ => REMEDY,
    };
    Err(format!("{}: {reason}: {remedy}", path.display()))
}
