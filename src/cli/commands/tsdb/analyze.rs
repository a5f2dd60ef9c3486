//! `tsdb analyze`: which labels and metrics cost how much? The first part is promtool's, bytes and encodings are ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use super::super::output::say;
use super::super::{code, switch, text};
use super::{open, path_argument};
use crate::cli::flags::format_bytes;
use crate::model::Matcher;
use crate::model::duration::format_duration_ms;
use crate::tsdb::compact::AnyBlock;
use crate::tsdb::readonly::ReadOnlyDb;
use crate::tsdb::survey::{SeriesSurvey, survey_block, survey_head};

/// Name under which the head is asked for.
const HEAD: &str = "head";

pub(super) fn command() -> Command {
    Command::new("analyze")
        .about("Cardinality and churn of labels, bytes of metrics, encodings of one block")
        .after_help("Works beside a running server.")
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .default_value("20")
                .value_parser(clap::value_parser!(usize))
                .help("How many items to show in each list."),
        )
        .arg(switch("extended", "Print how full chunks are."))
        .arg(Arg::new("match").long("match").value_name("SELECTOR").help("Series selector to analyze."))
        .arg(path_argument())
        .arg(
            Arg::new("block")
                .value_name("BLOCK")
                .help("ULID of the block, or head; the newest block if missing, the head if there is none."),
        )
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(analyze(matches))
}

#[derive(Default)]
struct Metric {
    series: u64,
    samples: u64,
    bytes: u64,
}

#[derive(Default)]
struct Found {
    series: u64,
    entries: u64,
    /// Uncovered milliseconds by label name and by pair.
    name_gaps: BTreeMap<String, f64>,
    pairs: HashMap<String, (f64, u64)>,
    values: BTreeMap<String, BTreeSet<String>>,
    metrics: BTreeMap<String, Metric>,
    /// Chunks, samples and bytes by encoding.
    codecs: BTreeMap<&'static str, (u64, u64, u64)>,
    /// Chunks by number of samples, in powers of two.
    fullness: BTreeMap<u32, u64>,
}

impl Found {
    fn add(&mut self, span_ms: f64, survey: &SeriesSurvey) {
        self.series += 1;
        let gap = (span_ms - (survey.max_t_ms - survey.min_t_ms) as f64).max(0.0);
        for label in survey.labels.iter() {
            self.entries += 1;
            *self.name_gaps.entry(label.name.to_owned()).or_default() += gap;
            let pair = self.pairs.entry(format!("{}={}", label.name, label.value)).or_default();
            *pair = (pair.0 + gap, pair.1 + 1);
            let values = self.values.entry(label.name.to_owned()).or_default();
            if !values.contains(label.value) {
                values.insert(label.value.to_owned());
            }
        }
        let metric = self.metrics.entry(survey.labels.metric_name().to_owned()).or_default();
        metric.series += 1;
        for chunk in &survey.chunks {
            metric.samples += chunk.samples;
            metric.bytes += chunk.bytes;
            let codec = self.codecs.entry(chunk.codec).or_default();
            *codec = (codec.0 + 1, codec.1 + chunk.samples, codec.2 + chunk.bytes);
            *self.fullness.entry(chunk.samples.max(1).next_power_of_two().trailing_zeros()).or_default() += 1;
        }
    }
}

enum Subject<'a> {
    Block(&'a AnyBlock),
    Head,
}

fn subject<'a>(db: &'a ReadOnlyDb, wanted: &str) -> Result<Subject<'a>, String> {
    match wanted {
        HEAD => Ok(Subject::Head),
        "" => Ok(db.blocks().last().map_or(Subject::Head, Subject::Block)),
        ulid => {
            let block = db.blocks().iter().find(|b| b.meta().ulid.to_string() == ulid);
            block.map(Subject::Block).ok_or_else(|| format!("block {ulid} not found"))
        }
    }
}

fn print_list(title: &str, limit: usize, items: impl Iterator<Item = (String, u64)>) {
    let mut items: Vec<(String, u64)> = items.collect();
    items.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    say!("\n{title}:");
    for (name, number) in items.iter().take(limit) {
        say!("{number} {name}");
    }
}

fn analyze(matches: &ArgMatches) -> Result<(), String> {
    let limit = matches.get_one::<usize>("limit").copied().unwrap_or(20);
    let selector = text(matches, "match");
    let matchers: Vec<Matcher> = if selector.is_empty() {
        Vec::new()
    } else {
        crate::query::parse::parse_metric_selector(selector).map_err(|e| e.to_string())?
    };
    let db = open(Path::new(text(matches, "path")))?;
    let subject = subject(&db, text(matches, "block"))?;
    let (name, min, max) = match &subject {
        Subject::Block(block) => {
            (block.meta().ulid.to_string(), block.meta().min_time, block.meta().max_time)
        }
        Subject::Head => {
            let range = db.head_range().ok_or("there are no blocks, and the head is empty")?;
            (HEAD.to_owned(), range.min_t_ms, range.max_t_ms + 1)
        }
    };
    let (mut found, mut total) = (Found::default(), 0u64);
    let span_ms = (max - min) as f64;
    let mut each = |survey: &SeriesSurvey| {
        total += 1;
        if matchers.iter().all(|m| m.matches(survey.labels.value(&m.name))) {
            found.add(span_ms, survey);
        }
    };
    let warnings = match &subject {
        Subject::Block(block) => survey_block(block, &mut each),
        Subject::Head => db.head_range().map_or(Ok(Vec::new()), |range| survey_head(&db, range, &mut each)),
    };
    let warnings = warnings.map_err(|e| e.to_string())?;
    say!("Block ID: {name}");
    say!("Duration: {}", format_duration_ms(max - min));
    say!("Total Series: {total}");
    if !selector.is_empty() {
        say!("Matcher: {selector}");
        say!("Matched series: {}", found.series);
    }
    print(&found, span_ms, limit);
    if matches.get_flag("extended") {
        say!("\nChunks by number of samples:");
        for (power, chunks) in &found.fullness {
            say!("up to {}: {chunks}", 1u64 << power);
        }
    }
    if let Subject::Block(block) = subject {
        print_size(block);
    }
    if warnings.is_empty() { db.whole() } else { Err(warnings.join("\n")) }
}

fn print(found: &Found, span_ms: f64, limit: usize) {
    say!("Label names: {}", found.values.len());
    say!("Postings (unique label pairs): {}", found.pairs.len());
    say!("Postings entries (total label pairs): {}", found.entries);
    let share = |gap: f64| (gap / span_ms) as u64;
    let pairs = || found.pairs.iter();
    print_list(
        "Label pairs most involved in churning",
        limit,
        pairs().map(|(k, (gap, _))| (k.clone(), share(*gap))),
    );
    let names = found.name_gaps.iter();
    print_list(
        "Label names most involved in churning",
        limit,
        names.map(|(k, gap)| (k.clone(), share(*gap))),
    );
    print_list("Most common label pairs", limit, pairs().map(|(k, (_, count))| (k.clone(), *count)));
    let values = || found.values.iter();
    let length = |values: &BTreeSet<String>| values.iter().map(|v| v.len() as u64).sum();
    let lengths = values().map(|(k, v)| (k.clone(), length(v)));
    print_list("Label names with highest cumulative label value length", limit, lengths);
    print_list("Highest cardinality labels", limit, values().map(|(k, v)| (k.clone(), v.len() as u64)));
    let metrics = || found.metrics.iter();
    print_list("Highest cardinality metric names", limit, metrics().map(|(k, m)| (k.clone(), m.series)));
    let bytes: u64 = metrics().map(|(_, m)| m.bytes).sum();
    if bytes > 0 {
        let per = |m: &Metric| m.bytes as f64 / m.samples.max(1) as f64;
        let rows = metrics()
            .map(|(k, m)| (format!("{k} ({} samples, {:.3} bytes per sample)", m.samples, per(m)), m.bytes));
        print_list("Metric names with most bytes of samples", limit, rows);
    }
    say!("\nEncodings (chunks, samples, bytes, bytes per sample):");
    for (codec, (chunks, samples, bytes)) in &found.codecs {
        say!("{codec}: {chunks} {samples} {bytes} {:.3}", *bytes as f64 / (*samples).max(1) as f64);
    }
}

fn print_size(block: &AnyBlock) {
    let (bytes, samples) = (block.size_bytes(), block.meta().stats.num_samples);
    let per = bytes as f64 / samples.max(1) as f64;
    say!(
        "\nSize: {} for {samples} samples, {per:.3} bytes per sample with index and timestamps",
        format_bytes(bytes)
    );
}
