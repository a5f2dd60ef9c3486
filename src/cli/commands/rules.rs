//! `check rules`: do rule files hold valid rules, and does one rule do the work of another?

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use super::output::{say, tell};
use super::{EXIT_LINT, features, many, parse_options, switch, text};
use crate::alert::lint::{missing_labels, unused_for};
use crate::alert::load::{RuleFileOptions, check_rule_text, load_rule_file};
use crate::cli::serve::EXIT_FAILURE;
use crate::config::RuleFile;

/// Most bytes of rules that are read from standard input.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// What is complained about besides faults.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lint {
    pub duplicate_rules: bool,
    pub missing_labels: bool,
    pub unused_for: bool,
    pub long_intervals: bool,
    pub fatal: bool,
}

impl Lint {
    pub fn arguments(options: &'static [&'static str], default: &'static str) -> [Arg; 2] {
        let lint = Arg::new("lint")
            .long("lint")
            .value_name("LINTS")
            .value_delimiter(',')
            .default_value(default)
            .value_parser(clap::builder::PossibleValuesParser::new(options))
            .help("What to complain about besides faults.");
        [lint, switch("lint-fatal", "Exit with 3 if a lint complains and nothing worse happened.")]
    }

    pub fn of(matches: &ArgMatches) -> Self {
        let chosen = many(matches, "lint");
        let has = |name: &str| chosen.iter().any(|c| c == name || c == "all");
        Self {
            duplicate_rules: has("duplicate-rules"),
            missing_labels: has("missing-labels"),
            unused_for: has("unused-for"),
            long_intervals: has("too-long-scrape-interval"),
            fatal: matches.get_flag("lint-fatal"),
        }
    }
}

/// What came out of the checks so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    pub faulty: bool,
    pub linted: bool,
}

impl Outcome {
    pub fn code(self, lint: Lint) -> u8 {
        if self.faulty {
            EXIT_FAILURE
        } else if self.linted && lint.fatal {
            EXIT_LINT
        } else {
            0
        }
    }
}

pub(super) fn command() -> Command {
    Command::new("rules")
        .about("Check rule files")
        .after_help(
            "Exit codes: 0 all is well, 1 a file is faulty, 3 a lint complained and --lint-fatal was given.",
        )
        .arg(
            Arg::new("file")
                .num_args(0..)
                .value_name("FILE")
                .help("Rule files; standard input if there are none."),
        )
        .args(Lint::arguments(
            &["all", "duplicate-rules", "missing-labels", "unused-for", "none"],
            "duplicate-rules",
        ))
        .arg(switch("ignore-unknown-fields", "Accept fields that nobody knows."))
        .arg(features())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let lint = Lint::of(matches);
    let options = RuleFileOptions {
        parse: parse_options(matches),
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
        ..RuleFileOptions::default()
    };
    let mut outcome = Outcome::default();
    let files = many(matches, "file");
    if files.is_empty() {
        say!("Checking standard input");
        let mut input = String::new();
        let loaded = match std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_string(&mut input) {
            Ok(_) => {
                check_rule_text(&input, Path::new("standard input"), &options).map_err(|e| e.to_string())
            }
            Err(e) => Err(format!("reading standard input: {e}")),
        };
        report(loaded, &options, lint, &mut outcome);
    }
    for path in files {
        check(&path, &options, lint, &mut outcome);
    }
    outcome.code(lint)
}

/// Checks one file and prints what came out.
pub(super) fn check(path: &str, options: &RuleFileOptions, lint: Lint, outcome: &mut Outcome) {
    say!("Checking {path}");
    report(load_rule_file(Path::new(path), options).map_err(|e| e.to_string()), options, lint, outcome);
}

fn report(loaded: Result<RuleFile, String>, options: &RuleFileOptions, lint: Lint, outcome: &mut Outcome) {
    match loaded {
        Err(e) => {
            outcome.faulty = true;
            tell!("  FAILED:\n{e}");
        }
        Ok(file) => {
            for warning in &file.warnings {
                say!("  WARNING: {warning}");
            }
            let mut doubts = Vec::new();
            if lint.missing_labels {
                doubts.append(&mut missing_labels(&file, &options.parse));
            }
            if lint.unused_for {
                doubts.append(&mut unused_for(&file));
            }
            for doubt in doubts {
                outcome.linted = true;
                tell!("lint error {doubt}");
            }
            let duplicates = if lint.duplicate_rules { duplicates(&file) } else { Vec::new() };
            if duplicates.is_empty() {
                let rules: usize = file.groups.iter().map(|g| g.rules.len()).sum();
                say!("  SUCCESS: {rules} rules found");
            } else {
                outcome.linted = true;
                tell!("  FAILED:\nlint error {} duplicate rule(s) found.", duplicates.len());
                for (name, labels) in duplicates {
                    tell!("Metric: {name}\nLabel(s):");
                    for (name, value) in labels {
                        tell!("\t{name}: {value}");
                    }
                }
                tell!("Might cause inconsistency while recording expressions");
            }
        }
    }
    say!("");
}

/// Names and labels that more than one rule of the file writes, each once.
fn duplicates(file: &RuleFile) -> Vec<(String, BTreeMap<String, String>)> {
    let mut counts: BTreeMap<(String, BTreeMap<String, String>), usize> = BTreeMap::new();
    for group in &file.groups {
        for rule in &group.rules {
            let mut labels = group.labels.clone();
            labels.extend(rule.labels.clone());
            *counts.entry((rule.name().to_owned(), labels)).or_default() += 1;
        }
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(rule, _)| rule).collect()
}

/// The duration flag `name`, milliseconds.
pub(super) fn duration_ms(matches: &ArgMatches, name: &str) -> Result<i64, String> {
    crate::model::duration::parse_duration_ms(text(matches, name)).map_err(|e| format!("--{name}: {e}"))
}
