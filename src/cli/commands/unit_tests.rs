//! `test rules`: do rules do what their unit tests say?

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{features, has_feature, many, parse_options, switch};
use crate::alert::unit_test::{UnitTestOptions, run_file};
use crate::cli::serve::EXIT_FAILURE;
use crate::config::rule_tests::RuleTestFile;

pub(super) fn command() -> Command {
    Command::new("rules")
        .about("Run unit tests of rules")
        .after_help("Exit codes: 0 all tests passed, 1 one of them failed or a file is faulty.")
        .arg(Arg::new("file").required(true).num_args(1..).value_name("FILE").help("Files of unit tests."))
        .arg(
            Arg::new("run")
                .long("run")
                .value_name("REGEX")
                .action(ArgAction::Append)
                .help("Run only test groups whose name matches; may be given several times."),
        )
        .arg(switch("diff", "Accepted for compatibility: failures always show what differs."))
        .arg(switch("debug", "Print the test groups of each file before they run."))
        .arg(switch("ignore-unknown-fields", "Accept fields that nobody knows."))
        .arg(features())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let options = UnitTestOptions {
        run: many(matches, "run"),
        ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
        parse: parse_options(matches),
        delayed_name_removal: has_feature(matches, "promql-delayed-name-removal"),
    };
    let mut code = 0;
    for path in many(matches, "file") {
        println!("Unit Testing:  {path}");
        if matches.get_flag("debug") {
            describe(Path::new(&path), options.ignore_unknown_fields);
        }
        let failures = run_file(Path::new(&path), &options);
        if failures.is_empty() {
            println!("  SUCCESS");
        } else {
            code = EXIT_FAILURE;
            eprintln!("  FAILED:");
            for failure in failures {
                eprintln!("{failure}");
            }
        }
        println!();
    }
    code
}

fn describe(path: &Path, ignore_unknown_fields: bool) {
    // Faults are reported by the run itself.
    let Ok(file) = RuleTestFile::load(path, ignore_unknown_fields) else { return };
    for (i, test) in file.tests.iter().enumerate() {
        println!(
            "  DEBUG: test group {} {:?} in line {}: a sample every {}, an evaluation every {}, {} input series, {} \
             alert cases, {} expression cases",
            i + 1,
            test.name,
            test.at.line,
            test.interval,
            file.evaluation_interval,
            test.input_series.len(),
            test.alert_rule_test.len(),
            test.promql_expr_test.len()
        );
    }
}
