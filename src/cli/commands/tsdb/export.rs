//! `tsdb export`: everything that a data directory holds, as blocks of Prometheus or as OpenMetrics text.

use std::fs;
use std::io::BufWriter;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use super::super::progress::Progress;
use super::super::{code, text};
use super::dump::{Form, write_series};
use super::list::print_table;
use super::{match_argument, matcher_sets, open, path_argument, time_arguments, time_range};
use crate::tsdb::exchange::gather::SHORTEST_MS;
use crate::tsdb::exchange::{BlockFormat, ExportOptions, export};
use crate::tsdb::readonly::ReadOnlyDb;

pub(super) fn command() -> Command {
    Command::new("export")
        .about("Write blocks of Prometheus (or OpenMetrics text) with everything, the head included")
        .after_help(
            "The result of --format=prometheus is a data directory that Prometheus, Thanos and Mimir take. Blocks do \
             not overlap; what is still in the head is cut into blocks of two hours. Works beside a running server \
             and sees what was committed when it began.",
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_parser(["prometheus", "native", "openmetrics"])
                .default_value("prometheus")
                .help("Blocks of Prometheus, Meerkat's own blocks, or OpenMetrics text (without native histograms)."),
        )
        .arg(
            Arg::new("output")
                .long("output")
                .short('o')
                .required(true)
                .value_name("PATH")
                .help("Directory for blocks, missing or empty; file for text, - for standard output."),
        )
        .args(time_arguments())
        .arg(match_argument())
        .arg(path_argument())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(export_all(matches))
}

fn export_all(matches: &ArgMatches) -> Result<(), String> {
    let (range, mut sets) = (time_range(matches)?, matcher_sets(matches)?);
    let output = text(matches, "output");
    let format = match text(matches, "format") {
        "openmetrics" => {
            let db = open(Path::new(text(matches, "path")))?;
            export_text(&db, range, &sets, output)?;
            return db.whole();
        }
        "native" => BlockFormat::Native,
        _ => BlockFormat::Prometheus,
    };
    if sets.len() > 1 {
        return Err("--match can be given once when blocks are written".into());
    }
    let to = Path::new(output);
    let fail = |e: std::io::Error| format!("cannot write to {}: {e}", to.display());
    fs::create_dir_all(to).map_err(fail)?;
    if fs::read_dir(to).map_err(fail)?.next().is_some() {
        return Err(format!("{} is not empty: name a directory for the export alone", to.display()));
    }
    let db = open(Path::new(text(matches, "path")))?;
    let options = ExportOptions {
        format,
        min_t_ms: range.0,
        max_t_ms: range.1,
        matchers: sets.pop().unwrap_or_default(),
        block_range_ms: SHORTEST_MS,
    };
    let progress = Progress::new("Exporting");
    let report = export(&db, to, &options, &|block, blocks, series| {
        progress.show(
            block as u64,
            blocks as u64,
            &format!("block {} of {blocks}, series {series}", block + 1),
        );
    });
    drop(progress);
    let report = report.map_err(|e| e.to_string())?;
    print_table(to, report.blocks, false);
    if report.warnings.is_empty() { db.whole() } else { Err(report.warnings.join("\n")) }
}

fn export_text(
    db: &ReadOnlyDb,
    range: (i64, i64),
    sets: &[Vec<crate::model::Matcher>],
    output: &str,
) -> Result<(), String> {
    if output == "-" {
        let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        return write_series(db, range, sets, Form::OpenMetrics, &mut out);
    }
    let fail = |e: std::io::Error| format!("cannot write {output}: {e}");
    let file = fs::File::create_new(output).map_err(fail)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    write_series(db, range, sets, Form::OpenMetrics, &mut out)?;
    out.into_inner().map_err(|e| fail(e.into_error()))?.sync_all().map_err(fail)
}
