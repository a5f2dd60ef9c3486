//! The commands beside serving: what does promtool do for Prometheus, and how is it asked for here? Each module
//! describes its command lines and runs them; names, flags and exit codes are promtool's.

mod backfill;
mod check;
mod client;
mod debug;
mod discovery;
mod histograms;
mod metrics;
mod output;
mod progress;
mod promql;
mod push;
mod query;
mod rules;
mod tsdb;
mod unit_tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use self::output::{say, tell};
use super::flags::{EXIT_USAGE, version_text};
use super::serve::EXIT_FAILURE;
use crate::query::parse::ParseOptions;

/// Nothing is wrong but style, and `--lint-fatal` was given.
const EXIT_LINT: u8 = 3;

/// Features of PromQL that `--enable-feature` can name.
const FEATURES: [&str; 4] = [
    "promql-experimental-functions",
    "promql-delayed-name-removal",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
];

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn value(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("VALUE").help(help)
}

fn features() -> Arg {
    Arg::new("enable-feature")
        .long("enable-feature")
        .value_name("FEATURE")
        .value_delimiter(',')
        .action(ArgAction::Append)
        .help(format!("Features of PromQL to allow: {}.", FEATURES.join(", ")))
}

fn experimental() -> Arg {
    switch("experimental", "Allow experimental commands.").global(true)
}

fn many(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn has_feature(matches: &ArgMatches, name: &str) -> bool {
    many(matches, "enable-feature").iter().any(|f| f == name)
}

fn parse_options(matches: &ArgMatches) -> ParseOptions {
    for unknown in many(matches, "enable-feature").iter().filter(|f| !FEATURES.contains(&f.as_str())) {
        tell!("  WARNING: unknown option for --enable-feature: {unknown}");
    }
    ParseOptions {
        experimental_functions: has_feature(matches, "promql-experimental-functions"),
        extended_range_selectors: has_feature(matches, "promql-extended-range-selectors"),
        fill_modifiers: has_feature(matches, "promql-binop-fill-modifiers"),
    }
}

/// All commands.
#[must_use]
pub fn all() -> Vec<Command> {
    let check = Command::new("check")
        .about("Check configuration files, rules, metrics, or whether a server is well")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([check::config(), check::web_config(), rules::command(), metrics::command()])
        .subcommands([client::healthy(), client::ready(), discovery::command()]);
    let test = Command::new("test")
        .about("Unit tests")
        .arg(
            Arg::new("junit")
                .long("junit")
                .value_name("FILE")
                .global(true)
                .help("Write the results to this file in the JUnit format too."),
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(unit_tests::command());
    let push = Command::new("push")
        .about("Send samples to a server")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(push::command());
    vec![check, test, query::command(), push, tsdb::command(), debug::command(), promql::command()]
}

/// The command line of `promtool`, also `meerkat promtool`.
#[must_use]
pub fn promtool() -> Command {
    Command::new("promtool")
        .about("Tools for a monitoring server: the commands of promtool")
        .subcommand_required(true)
        .arg_required_else_help(true)
        // promtool takes these before and behind its commands.
        .arg(experimental())
        .arg(features().global(true))
        .subcommands(all())
}

/// Runs the program under the name `promtool`; `arguments` start with the name.
pub fn run_as_promtool(arguments: Vec<OsString>) -> ExitCode {
    if arguments.get(1).is_some_and(|a| a == "--version") {
        say!("{}", version_text());
        return ExitCode::SUCCESS;
    }
    match promtool().try_get_matches_from(arguments) {
        Ok(matches) => ExitCode::from(run(&matches)),
        Err(e) => {
            // Printing can only fail when nobody reads it.
            let _ = e.print();
            ExitCode::from(if e.use_stderr() { EXIT_USAGE } else { 0 })
        }
    }
}

/// Runs a command; the exit code.
#[must_use]
pub fn run(matches: &ArgMatches) -> u8 {
    let Some((group, inner)) = matches.subcommand() else { return EXIT_USAGE };
    if group == "promtool" {
        return run(inner);
    }
    let Some((name, m)) = inner.subcommand() else { return EXIT_USAGE };
    let exit = match (group, name) {
        ("check", "config") => check::run_config(m),
        ("check", "web-config") => check::run_web_config(m),
        ("check", "rules") => rules::run(m),
        ("check", "metrics") => metrics::run(m),
        ("check", "healthy") => client::probe(m, "-/healthy"),
        ("check", "ready") => client::probe(m, "-/ready"),
        ("check", "service-discovery") => discovery::run(m),
        ("test", "rules") => unit_tests::run(m),
        ("query", _) => query::run(name, m),
        ("push", "metrics") => push::run(m),
        ("debug", _) => debug::run(name, m),
        ("promql", _) => promql::run(name, m),
        ("tsdb", _) => tsdb::run(name, m),
        _ => EXIT_FAILURE,
    };
    if exit == 0 { code(output::all_printed()) } else { exit }
}

/// The exit code for a result; the reason of a failure is printed.
fn code(result: Result<(), String>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(e) => {
            tell!("{e}");
            EXIT_FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_lines_are_sound() {
        super::promtool().debug_assert();
    }
}
