//! `check config` and `check web-config`: would the server start with these files, and all that they name?

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};

use super::output::{say, tell};
use super::rules::{self, Lint, Outcome, duration_ms};
use super::{features, many, parse_options, switch, value};
use crate::alert::load::RuleFileOptions;
use crate::cli::serve::EXIT_FAILURE;
use crate::config::{
    Config, FilePath, HttpClientConfig, LoadOptions, SdConfig, SdConfigs, WebConfig, expand_pattern,
};
use crate::model::duration::format_duration_ms;

fn files(help: &'static str) -> Arg {
    Arg::new("file").required(true).num_args(1..).value_name("FILE").help(help)
}

pub(super) fn config() -> Command {
    Command::new("config")
        .about("Check configuration files and the files they name")
        .after_help(
            "Every fault is printed with file, line and column. Exit codes: 0 all is well, 1 something is faulty, 3 a \
             lint complained and --lint-fatal was given.",
        )
        .arg(files("Configuration files."))
        .arg(switch("syntax-only", "Look at the syntax only, not at rule files and other files that are named."))
        .arg(switch("agent", "Check for the agent, which has no rules."))
        .args(Lint::arguments(
            &["all", "duplicate-rules", "none", "too-long-scrape-interval"],
            "duplicate-rules",
        ))
        .arg(
            value("query.lookback-delta", "How far back the server's queries look; for too-long-scrape-interval.")
                .default_value("5m"),
        )
        .arg(switch("ignore-unknown-fields", "Accept fields of rule files that nobody knows."))
        .arg(features())
}

pub(super) fn web_config() -> Command {
    Command::new("web-config").about("Check web configuration files").arg(files("Web configuration files."))
}

pub(super) fn run_web_config(matches: &ArgMatches) -> u8 {
    let mut code = 0;
    for path in many(matches, "file") {
        match WebConfig::load(Path::new(&path)) {
            Ok(_) => say!("{path} SUCCESS"),
            Err(e) => {
                tell!("{path} FAILED: {e}");
                code = EXIT_FAILURE;
            }
        }
    }
    code
}

struct Check {
    lint: Lint,
    lookback_ms: i64,
    agent: bool,
    syntax_only: bool,
    rules: RuleFileOptions,
}

pub(super) fn run_config(matches: &ArgMatches) -> u8 {
    let lookback_ms = match duration_ms(matches, "query.lookback-delta") {
        Ok(ms) => ms,
        Err(e) => {
            tell!("{e}");
            return crate::cli::flags::EXIT_USAGE;
        }
    };
    let check = Check {
        lint: Lint::of(matches),
        lookback_ms,
        agent: matches.get_flag("agent"),
        syntax_only: matches.get_flag("syntax-only"),
        rules: RuleFileOptions {
            parse: parse_options(matches),
            ignore_unknown_fields: matches.get_flag("ignore-unknown-fields"),
            ..RuleFileOptions::default()
        },
    };
    let mut outcome = Outcome::default();
    for path in many(matches, "file") {
        check.file(&path, &mut outcome);
    }
    outcome.code(check.lint)
}

impl Check {
    fn file(&self, path: &str, outcome: &mut Outcome) {
        say!("Checking {path}");
        let options = LoadOptions { agent: self.agent, ..LoadOptions::default() };
        let config = match Config::load(Path::new(path), &options) {
            Ok(config) => config,
            Err(e) => {
                tell!("  FAILED: {e}");
                say!("");
                outcome.faulty = true;
                return;
            }
        };
        for warning in &config.warnings {
            say!("  WARNING: {warning}");
        }
        let mut missing = Vec::new();
        let rule_files = if self.syntax_only { Vec::new() } else { self.named_files(&config, &mut missing) };
        for fault in &missing {
            tell!("  FAILED: {fault}");
        }
        if missing.is_empty() {
            if !rule_files.is_empty() {
                say!("  SUCCESS: {} rule files found", rule_files.len());
            }
            say!(" SUCCESS: {path} is valid prometheus config file syntax");
        }
        outcome.faulty |= !missing.is_empty();
        if self.lint.long_intervals {
            for job in config.scrape_configs.iter().filter(|j| j.scrape_interval.0 >= self.lookback_ms) {
                outcome.linted = true;
                tell!(
                    "  FAILED: lint error the scrape interval of job {:?} is too long: {} is not below the look-back \
                     of {}, so its series come and go",
                    job.job_name,
                    job.scrape_interval,
                    format_duration_ms(self.lookback_ms)
                );
            }
        }
        say!("");
        let options = RuleFileOptions { scheme: config.global.metric_name_validation_scheme, ..self.rules };
        for file in rule_files {
            rules::check(&file, &options, self.lint, outcome);
        }
    }

    /// The rule files; what is missing of all files that are named goes to `missing`.
    fn named_files(&self, config: &Config, missing: &mut Vec<String>) -> Vec<String> {
        let mut rule_files = BTreeSet::new();
        for pattern in &config.rule_files {
            let found = expand_pattern(&pattern.0);
            if found.is_empty() && !pattern.0.contains('*') {
                missing.push(format!("{:?} does not point to an existing file", pattern.0));
            }
            rule_files.extend(found);
        }
        for job in &config.scrape_configs {
            let what = format!("scrape job {:?}", job.job_name);
            client_files(&job.http, &what, missing);
            discovery_files(&job.sd, &what, missing);
        }
        for (i, section) in config.alerting.alertmanagers.iter().enumerate() {
            let what = format!("alertmanager {i}");
            client_files(&section.http, &what, missing);
            discovery_files(&section.sd, &what, missing);
        }
        rule_files.into_iter().collect()
    }
}

fn client_files(http: &HttpClientConfig, what: &str, missing: &mut Vec<String>) {
    let mut need = |file: &FilePath, field: &str| {
        if !file.0.is_empty()
            && let Err(e) = std::fs::File::open(&file.0)
        {
            missing.push(format!("{what}: {field} {:?}: {e}", file.0));
        }
    };
    if let Some(auth) = &http.authorization {
        need(&auth.credentials_file, "credentials_file");
    }
    if let Some(basic) = &http.basic_auth {
        need(&basic.username_file, "username_file");
        need(&basic.password_file, "password_file");
    }
    need(&http.bearer_token_file, "bearer_token_file");
    need(&http.tls_config.ca_file, "ca_file");
    need(&http.tls_config.cert_file, "cert_file");
    need(&http.tls_config.key_file, "key_file");
}

/// Files of targets that do not exist yet are normal; they are only mentioned.
fn discovery_files(sd: &SdConfigs, what: &str, missing: &mut Vec<String>) {
    for sd in &sd.0 {
        let SdConfig::File(file) = sd else { continue };
        for pattern in &file.files {
            let found = expand_pattern(&pattern.0);
            if found.is_empty() {
                say!("  WARNING: file {:?} for file_sd in {what} does not exist", pattern.0);
            }
            for path in found {
                if let Err(e) = std::fs::File::open(&path) {
                    missing.push(format!("{what}: {path:?}: {e}"));
                }
            }
        }
    }
}
