//! `tsdb import` and `tsdb create-blocks-from openmetrics`: how does history get into a data directory?

use std::io::Read;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::super::client::pair;
use super::super::output::tell;
use super::super::progress::Progress;
use super::super::rules::duration_ms;
use super::super::{code, many, switch, text};
use super::list::print_table;
use super::open;
use crate::cli::flags::format_bytes;
use crate::model::sample::{HistogramValue, Value};
use crate::model::{Labels, LabelsBuilder};
use crate::scrape::exposition::{
    Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};
use crate::tsdb::block::BlockMeta;
use crate::tsdb::exchange::gather::{Gather, SHORTEST_MS, block_length, block_length_for_span};
use crate::tsdb::exchange::publish::Staging;
use crate::tsdb::exchange::{BlockFormat, ExportOptions, export};
use crate::tsdb::vfs::{FileBytes, RealVfs, Vfs as _};

/// Most bytes of a pipe.
const MAX_INPUT_BYTES: u64 = 16 << 30;

fn label_argument() -> Arg {
    Arg::new("label")
        .long("label")
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .help("Label to add to all series of OpenMetrics text; can be repeated.")
}

fn quiet() -> Arg {
    switch("quiet", "Do not list the blocks.").short('q')
}

fn people() -> Arg {
    switch("human-readable", "Print times and sizes for people.").short('r')
}

pub(super) fn command() -> Command {
    Command::new("import")
        .about("Write native blocks from OpenMetrics text, or from data directories or blocks of Prometheus")
        .after_help(
            "A SOURCE is a file of OpenMetrics text in which each sample has a timestamp and which ends with # EOF, \
             a data directory of Prometheus or Meerkat (its log included), or one block. All blocks appear together \
             or not at all. The directory may belong to a running Meerkat, which shows the blocks within a minute. \
             Importing the same data twice does no harm. Of a damaged directory what can be read is imported, the \
             rest is named, and the exit code is 1.",
        )
        .arg(
            Arg::new("storage.tsdb.path")
                .long("storage.tsdb.path")
                .value_name("DIR")
                .default_value("data/")
                .help("The data directory to import into."),
        )
        .arg(label_argument())
        .arg(people())
        .arg(quiet())
        .arg(
            Arg::new("source")
                .required(true)
                .action(ArgAction::Append)
                .value_name("SOURCE")
                .help("Files, directories, or - for OpenMetrics text from standard input."),
        )
}

pub(super) fn create_command() -> Command {
    Command::new("create-blocks-from")
        .about("Write blocks from other data")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(super::super::backfill::rules_command())
        .subcommand(
            Command::new("openmetrics")
                .about("Write blocks of Prometheus from OpenMetrics text, as promtool does")
                .arg(label_argument())
                .arg(people())
                .arg(quiet())
                .arg(
                    Arg::new("format")
                        .long("format")
                        .value_parser(["prometheus", "native"])
                        .default_value("prometheus")
                        .help("Format of the blocks; Meerkat serves both."),
                )
                .arg(
                    Arg::new("max-block-duration")
                        .long("max-block-duration")
                        .value_name("DURATION")
                        .default_value("2h")
                        .help("Longest block."),
                )
                .arg(
                    Arg::new("input")
                        .required(true)
                        .value_name("FILE")
                        .help("OpenMetrics text, or - for standard input."),
                )
                .arg(
                    Arg::new("output").default_value("data/").value_name("DIR").help("Where the blocks go."),
                ),
        )
}

/// A running server of another kind would not understand what appears in its directory.
fn check_target(dir: &Path) -> Result<(), String> {
    let lock = dir.join("lock");
    let running =
        lock.exists() && RealVfs.lock(&lock).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    if running && !dir.join("meerkat.json").exists() {
        return Err(format!(
            "{} is locked: another program than Meerkat runs on this data directory; stop it first",
            lock.display()
        ));
    }
    Ok(())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(import(matches))
}

fn import(matches: &ArgMatches) -> Result<(), String> {
    let dir = Path::new(text(matches, "storage.tsdb.path"));
    let labels = many(matches, "label");
    check_target(dir)?;
    let staging = Staging::create(dir).map_err(|e| e.to_string())?;
    let (mut blocks, mut damaged) = (Vec::new(), Vec::new());
    for source in many(matches, "source") {
        let made = if Path::new(&source).is_dir() {
            if !labels.is_empty() {
                return Err(format!("{source}: --label is for OpenMetrics text"));
            }
            import_directory(Path::new(&source), staging.path()).map(|(made, left_out)| {
                if left_out > 0 {
                    damaged.push(format!("{source} ({left_out} places)"));
                }
                made
            })
        } else {
            import_text(&source, &labels, staging.path(), BlockFormat::Native, None)
        };
        blocks.extend(made.map_err(|e| format!("{source}: {e}"))?);
    }
    if blocks.is_empty() {
        let why = if damaged.is_empty() { "have no samples" } else { "have no samples that can be read" };
        return Err(format!("nothing to import: the sources {why}"));
    }
    staging.publish().map_err(|e| e.to_string())?;
    if !matches.get_flag("quiet") {
        print_table(dir, blocks, matches.get_flag("human-readable"));
    }
    if damaged.is_empty() {
        return Ok(());
    }
    Err(format!(
        "imported without what was left out of {}, named above: if there is a sound copy, import that too, which does \
         no harm; `meerkat tsdb verify` names all damage of a source",
        damaged.join(", ")
    ))
}

/// The blocks that were written, and how much had to be left out.
fn import_directory(from: &Path, to: &Path) -> Result<(Vec<BlockMeta>, usize), String> {
    let db = open(from)?;
    let options = ExportOptions {
        format: BlockFormat::Native,
        min_t_ms: i64::MIN,
        max_t_ms: i64::MAX - 1,
        matchers: Vec::new(),
        block_range_ms: SHORTEST_MS,
    };
    let progress = Progress::new("Importing");
    let report = export(&db, to, &options, &|block, blocks, series| {
        progress.show(
            block as u64,
            blocks as u64,
            &format!("block {} of {blocks}, series {series}", block + 1),
        );
    });
    drop(progress);
    let report = report.map_err(|e| e.to_string())?;
    for warning in &report.warnings {
        tell!("warning: {warning}");
    }
    Ok((report.blocks, db.left_out.len() + report.warnings.len()))
}

pub(super) fn run_create(matches: &ArgMatches) -> u8 {
    code(create(matches))
}

fn create(matches: &ArgMatches) -> Result<(), String> {
    let format =
        if text(matches, "format") == "native" { BlockFormat::Native } else { BlockFormat::Prometheus };
    let longest = duration_ms(matches, "max-block-duration")?;
    let dir = Path::new(text(matches, "output"));
    let staging = Staging::create(dir).map_err(|e| e.to_string())?;
    let source = text(matches, "input");
    let labels = many(matches, "label");
    let blocks = import_text(source, &labels, staging.path(), format, Some(block_length(longest)))
        .map_err(|e| format!("{source}: {e}"))?;
    staging.publish().map_err(|e| e.to_string())?;
    if !matches.get_flag("quiet") {
        print_table(dir, blocks, matches.get_flag("human-readable"));
    }
    Ok(())
}

/// Reads the text twice: for the span of time, which decides the length of blocks, and for the samples.
fn import_text(
    source: &str,
    labels: &[String],
    to: &Path,
    format: BlockFormat,
    length_ms: Option<i64>,
) -> Result<Vec<BlockMeta>, String> {
    let labels: Vec<(&str, &str)> = labels.iter().map(|l| pair(l)).collect::<Result<_, _>>()?;
    let body = &read_source(source, to)?[..];
    let progress = Progress::new("Importing");
    let mut span = Span { range: None, fault: String::new() };
    read_text(body, &mut span)?;
    let Some((min, max)) = span.range else { return Ok(Vec::new()) };
    let length = length_ms.unwrap_or_else(|| block_length_for_span(min, max));
    let temporary = to.join(format!("runs-{}", fastrand::u64(..)));
    let gather = Gather::new(&temporary, length).map_err(|e| e.to_string())?;
    let mut taker = Taker {
        labels: &labels,
        gather,
        pairs: PairBuffer::default(),
        progress: &progress,
        fault: String::new(),
    };
    read_text(body, &mut taker)?;
    let tell = |block: usize, blocks: usize| {
        progress.show(block as u64, blocks as u64, &format!("block {} of {blocks}", block + 1));
    };
    taker.gather.finish(to, format, &tell).map_err(|e| e.to_string())
}

/// The text of a source. It is read twice, so what is no file goes to one first, below `to`: a pipe may hold more than
/// there is memory.
fn read_source(source: &str, to: &Path) -> Result<FileBytes, String> {
    let fail = |e: std::io::Error| format!("cannot be read: {e}");
    if source == "-" {
        return spooled(&mut std::io::stdin().lock(), to, MAX_INPUT_BYTES);
    }
    let kind = std::fs::metadata(source).map_err(fail)?.file_type();
    if kind.is_file() {
        return RealVfs.sealed(Path::new(source), true).map_err(fail);
    }
    if !kind.is_fifo() {
        return Err("is neither a file nor a pipe nor a directory".into());
    }
    spooled(&mut std::fs::File::open(source).map_err(fail)?, to, MAX_INPUT_BYTES)
}

fn spooled(input: &mut dyn Read, to: &Path, most: u64) -> Result<FileBytes, String> {
    let path = to.join(format!("input-{}", fastrand::u64(..)));
    let mut copy = || {
        let mut file = std::fs::File::create_new(&path)?;
        std::io::copy(&mut input.take(most + 1), &mut file)
    };
    let copied = copy().map_err(|e| format!("cannot be copied to {}: {e}", path.display()))?;
    let bytes = RealVfs.sealed(&path, true).map_err(|e| format!("cannot be read: {e}"))?;
    // The map holds what is in it.
    std::fs::remove_file(&path).map_err(|e| format!("{} cannot be removed: {e}", path.display()))?;
    if copied > most {
        return Err(format!(
            "more than {} come from a pipe: write it to a file and import that",
            format_bytes(most)
        ));
    }
    Ok(bytes)
}

/// A sink that knows why it stopped.
trait Explains: Sink {
    fn fault(&self) -> &str;
}

fn read_text<S: Explains>(body: &[u8], sink: &mut S) -> Result<(), String> {
    parse(Format::OpenMetrics, body, &ParseOptions::default(), sink)
        .map_err(|e| if sink.fault().is_empty() { e.to_string() } else { sink.fault().to_owned() })
}

/// Learns the span of time.
struct Span {
    range: Option<(i64, i64)>,
    fault: String,
}

impl Explains for Span {
    fn fault(&self) -> &str {
        &self.fault
    }
}

impl Sink for Span {
    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        let Some(t) = sample.timestamp_ms else {
            let name = String::from_utf8_lossy(series.text()).into_owned();
            self.fault = format!("expected timestamp for series {name}, got none");
            return Err(Stop);
        };
        let (min, max) = self.range.unwrap_or((t, t));
        self.range = Some((min.min(t), max.max(t)));
        Ok(())
    }

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// Takes the samples.
struct Taker<'a> {
    labels: &'a [(&'a str, &'a str)],
    gather: Gather,
    pairs: PairBuffer,
    progress: &'a Progress,
    fault: String,
}

impl Taker<'_> {
    fn take(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, value: Value) -> Result<(), String> {
        series.labels(&mut self.pairs).map_err(|e| e.to_string())?;
        let labels: Labels = if self.labels.is_empty() {
            self.pairs.to_labels()
        } else {
            let mut builder = LabelsBuilder::new(&self.pairs.to_labels());
            for (name, value) in self.labels {
                builder.set(name, value);
            }
            builder.build()
        };
        let t_ms = sample.timestamp_ms.unwrap_or(0);
        self.gather.add(&labels, t_ms, sample.start_ms, value).map_err(|e| e.to_string())?;
        if self.gather.total.is_multiple_of(1 << 14) {
            self.progress.show(0, 0, &format!("{} samples read", self.gather.total));
        }
        Ok(())
    }
}

impl Explains for Taker<'_> {
    fn fault(&self) -> &str {
        &self.fault
    }
}

impl Sink for Taker<'_> {
    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, _: bool) -> Result<(), Stop> {
        self.take(series, sample, Value::Float(sample.value)).map_err(|fault| {
            self.fault = fault;
            Stop
        })
    }

    fn histogram(
        &mut self,
        series: &SeriesView<'_>,
        h: HistogramValue,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop> {
        self.take(series, sample, Value::Histogram(h)).map_err(|fault| {
            self.fault = fault;
            Stop
        })
    }
}
