//! `test rules`: do rules do what their unit tests say?

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::output::{say, tell};
use super::{features, has_feature, many, parse_options, switch, text};
use crate::alert::unit_test::{DiffStyle, TestResult, UnitTestOptions, run_tests};
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
        .arg(switch("diff", "Show failures line by line as a unified diff, coloured in a terminal."))
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
        diff: matches.get_flag("diff").then(diff_style),
    };
    let mut code = 0;
    let mut report = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for path in many(matches, "file") {
        say!("Unit Testing:  {path}");
        if matches.get_flag("debug") {
            describe(Path::new(&path), options.ignore_unknown_fields);
        }
        let begun = Instant::now();
        let results = run_tests(Path::new(&path), &options);
        add_suite(&mut report, &path, &results, begun.elapsed().as_secs_f64());
        let failures: Vec<String> = match results {
            Ok(results) => results.into_iter().flat_map(|result| result.failures).collect(),
            Err(error) => vec![error],
        };
        if failures.is_empty() {
            say!("  SUCCESS");
        } else {
            code = EXIT_FAILURE;
            tell!("  FAILED:");
            for failure in failures {
                tell!("{failure}");
            }
        }
        say!("");
    }
    report.push_str("</testsuites>\n");
    let file = text(matches, "junit");
    if !file.is_empty()
        && let Err(e) = std::fs::write(file, report)
    {
        tell!("cannot write {file}: {e}");
        code = EXIT_FAILURE;
    }
    code
}

/// Colours go to people only, and not to those who do not want them (<https://no-color.org>).
fn diff_style() -> DiffStyle {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && std::io::stderr().is_terminal() { DiffStyle::Coloured } else { DiffStyle::Plain }
}

/// One file of tests in the JUnit format.
fn add_suite(report: &mut String, path: &str, results: &Result<Vec<TestResult>, String>, seconds: f64) {
    let broken;
    let (cases, errors): (&[TestResult], &[TestResult]) = match results {
        Ok(results) => (results, &[]),
        Err(error) => {
            broken = [TestResult { name: path.to_owned(), failures: vec![error.clone()] }];
            (&[], &broken)
        }
    };
    let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
    report.push_str(&format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"{}\" time=\"{seconds:.3}\">\n",
        escape(path),
        cases.len() + errors.len(),
        errors.len()
    ));
    for (list, kind) in [(cases, "failure"), (errors, "error")] {
        for case in list {
            report.push_str(&format!("    <testcase name=\"{}\">\n", escape(&case.name)));
            for failure in &case.failures {
                report.push_str(&format!("      <{kind}>{}</{kind}>\n", escape(failure)));
            }
            report.push_str("    </testcase>\n");
        }
    }
    report.push_str("  </testsuite>\n");
}

/// Text for XML; characters that it cannot hold become the replacement character.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn describe(path: &Path, ignore_unknown_fields: bool) {
    // Faults are reported by the run itself.
    let Ok(file) = RuleTestFile::load(path, ignore_unknown_fields) else { return };
    for (i, test) in file.tests.iter().enumerate() {
        say!(
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
