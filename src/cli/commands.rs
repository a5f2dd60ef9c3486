//! The commands beside serving: check a configuration, ask a server whether it is well.

use std::path::Path;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};

use super::serve::EXIT_FAILURE;
use crate::alert::load::{RuleFileOptions, load_rule_file};
use crate::config::{Config, LoadOptions, WebConfig, expand_pattern};

/// Longest answer that is read from a server, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

fn url_argument() -> Arg {
    Arg::new("url").long("url").default_value("http://localhost:9090").help("The server to ask.")
}

fn files(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).num_args(1..).value_name("FILE").help(help)
}

/// `meerkat check …`
#[must_use]
pub fn check() -> Command {
    Command::new("check")
        .about("Check configuration files, or whether a server is well")
        .subcommand_required(true)
        .subcommand(
            Command::new("config")
                .about("Check configuration files and the rule files they name")
                .arg(files("file", "Configuration files."))
                .arg(
                    Arg::new("syntax-only")
                        .long("syntax-only")
                        .action(clap::ArgAction::SetTrue)
                        .help("Do not look at rule files."),
                )
                .arg(
                    Arg::new("agent")
                        .long("agent")
                        .action(clap::ArgAction::SetTrue)
                        .help("Check for the agent."),
                ),
        )
        .subcommand(Command::new("rules").about("Check rule files").arg(files("file", "Rule files.")))
        .subcommand(
            Command::new("web-config")
                .about("Check web configuration files")
                .arg(files("file", "Web configuration files.")),
        )
        .subcommand(Command::new("healthy").about("Ask whether a server lives").arg(url_argument()))
        .subcommand(Command::new("ready").about("Ask whether a server takes queries").arg(url_argument()))
}

/// Runs a command; the exit code.
#[must_use]
pub fn run(matches: &ArgMatches) -> u8 {
    match matches.subcommand() {
        Some(("check", check)) => match check.subcommand() {
            Some(("config", m)) => {
                let agent = m.get_flag("agent");
                let syntax_only = m.get_flag("syntax-only");
                each_file(m, |path| check_config(path, agent, syntax_only))
            }
            Some(("rules", m)) => each_file(m, check_rules),
            Some(("web-config", m)) => each_file(m, |path| {
                WebConfig::load(Path::new(path)).map_err(|e| e.to_string())?;
                println!("{path} SUCCESS");
                Ok(())
            }),
            Some(("healthy", m)) => probe(m, "-/healthy"),
            Some(("ready", m)) => probe(m, "-/ready"),
            _ => EXIT_FAILURE,
        },
        _ => EXIT_FAILURE,
    }
}

fn each_file(matches: &ArgMatches, check: impl Fn(&str) -> Result<(), String>) -> u8 {
    let mut code = 0;
    for path in matches.get_many::<String>("file").into_iter().flatten() {
        if let Err(e) = check(path) {
            eprintln!("  FAILED: {e}");
            code = EXIT_FAILURE;
        }
        println!();
    }
    code
}

fn check_config(path: &str, agent: bool, syntax_only: bool) -> Result<(), String> {
    println!("Checking {path}");
    let options = LoadOptions { agent, ..LoadOptions::default() };
    let config = Config::load(Path::new(path), &options).map_err(|e| e.to_string())?;
    for warning in &config.warnings {
        println!("  WARNING: {warning}");
    }
    if syntax_only {
        println!(" SUCCESS: {path} is valid prometheus config file syntax");
        return Ok(());
    }
    let rule_files: Vec<String> = config.rule_files.iter().flat_map(|p| expand_pattern(&p.0)).collect();
    if !rule_files.is_empty() {
        println!("  SUCCESS: {} rule files found", rule_files.len());
    }
    println!(" SUCCESS: {path} is valid prometheus config file syntax");
    let mut faults = Vec::new();
    for file in rule_files {
        println!();
        if let Err(e) = check_rules(&file) {
            faults.push(e);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn check_rules(path: &str) -> Result<(), String> {
    println!("Checking {path}");
    let file = load_rule_file(Path::new(path), &RuleFileOptions::default()).map_err(|e| e.to_string())?;
    let rules: usize = file.groups.iter().map(|g| g.rules.len()).sum();
    println!("  SUCCESS: {rules} rules found");
    Ok(())
}

fn probe(matches: &ArgMatches, path: &str) -> u8 {
    let base = matches.get_one::<String>("url").map_or("", String::as_str);
    let url = format!("{}/{path}", base.trim_end_matches('/'));
    crate::net::tls::install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("cannot start: {e}");
            return EXIT_FAILURE;
        }
    };
    match runtime.block_on(fetch(&url)) {
        Ok(answer) => {
            print!("  SUCCESS: {answer}");
            0
        }
        Err(e) => {
            eprintln!("  FAILED: {url}: {e}");
            EXIT_FAILURE
        }
    }
}

async fn fetch(url: &str) -> Result<String, String> {
    use crate::net::{BodyBuffer, ClientOptions, HttpClient, Request};
    let client =
        HttpClient::from_config(&crate::config::HttpClientConfig::default(), ClientOptions::default())
            .map_err(|e| e.to_string())?;
    let mut body = BodyBuffer::new();
    let request = Request { max_body: MAX_ANSWER_BYTES as u64, ..Request::get(url, ANSWER_TIMEOUT) };
    let fetched = client.fetch(request, &mut body).await.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(body.bytes()).into_owned();
    if fetched.status.is_success() { Ok(text) } else { Err(format!("status {}: {text}", fetched.status)) }
}
