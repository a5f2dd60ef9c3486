//! How is a command line read? clap does the reading; the table says what there is. Every flag also has an
//! environment variable, `MEERKAT_` and its name in capitals, which the command line overrides.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flag_table::{FEATURES, FLAGS, Flag, Kind, Mode};
use crate::model::duration::{format_duration_ms, parse_duration_ms};

/// Bad command line or configuration.
pub const EXIT_USAGE: u8 = 2;
/// A flag of the other mode.
pub const EXIT_MODE: u8 = 3;

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Run the server.
    Serve(Flags),
    /// Run another command.
    Command(ArgMatches),
    /// Help or version were printed.
    Printed,
}

/// The flags of the server, checked.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, Vec<String>>,
    given: BTreeSet<&'static str>,
}

/// A size in bytes from Prometheus's base-2 notation: `512MB`, `1.5GiB`, `0`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" if number == "0" => 0,
        "B" => 0,
        "KB" | "KIB" => 10,
        "MB" | "MIB" => 20,
        "GB" | "GIB" => 30,
        "TB" | "TIB" => 40,
        "PB" | "PIB" => 50,
        "EB" | "EIB" => 60,
        _ => return Err(format!("{text:?} is not a size: use a number with B, KB, MB, GB, TB, PB or EB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a size"))?;
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(bytes as u64)
}

/// Prints a size as Prometheus does: `512MiB`, `1GiB512MiB`.
#[must_use]
pub fn format_bytes(mut bytes: u64) -> String {
    if bytes == 0 {
        return "0B".into();
    }
    let mut out = String::new();
    for (shift, unit) in
        [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")]
    {
        let count = bytes >> shift;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            bytes -= count << shift;
        }
    }
    out
}

fn check(flag: &Flag, value: &str) -> Result<String, String> {
    match flag.kind {
        Kind::Text | Kind::List | Kind::OneOf(_) => Ok(value.to_owned()),
        Kind::Bool => match value {
            "true" | "false" => Ok(value.to_owned()),
            _ => Err("expected true or false".into()),
        },
        Kind::Duration => parse_duration_ms(value).map(format_duration_ms),
        Kind::Bytes => parse_bytes(value).map(format_bytes),
        Kind::Int => {
            value.parse::<i64>().map(|n| n.to_string()).map_err(|_| "expected a whole number".to_owned())
        }
        Kind::Float => {
            value.parse::<f64>().map(|n| n.to_string()).map_err(|_| "expected a number".to_owned())
        }
    }
}

fn environment_name(flag: &str) -> String {
    format!("MEERKAT_{}", flag.to_ascii_uppercase().replace(['.', '-'], "_"))
}

fn negative(name: &str) -> String {
    format!("no-{name}")
}

fn arguments() -> Vec<Arg> {
    let mut out = Vec::new();
    for flag in FLAGS {
        let default = if flag.default.is_empty() || flag.kind == Kind::Bool {
            String::new()
        } else {
            format!(" [default: {}]", flag.default)
        };
        let mode = match flag.mode {
            Mode::Any => "",
            Mode::Server => " Server only.",
            Mode::Agent => " Agent only.",
        };
        let mut arg = Arg::new(flag.name)
            .long(flag.name)
            .help(format!("{}{mode}{default}", flag.help))
            .help_heading(flag.group)
            .hide(flag.hidden)
            .env(environment_name(flag.name))
            .hide_env(true)
            .action(ArgAction::Append)
            .value_parser(move |value: &str| check(flag, value));
        arg = match flag.kind {
            Kind::Bool => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .hide_possible_values(true),
            Kind::OneOf(options) => {
                arg.num_args(1).value_parser(clap::builder::PossibleValuesParser::new(options))
            }
            _ => arg.num_args(1).value_name("VALUE").allow_hyphen_values(true),
        };
        out.push(arg);
        if flag.kind == Kind::Bool {
            let name = negative(flag.name);
            out.push(Arg::new(name.clone()).long(name).action(ArgAction::Count).hide(true));
        }
    }
    out
}

/// The whole command line.
#[must_use]
pub fn command() -> Command {
    Command::new("meerkat")
        .about("A time-series monitoring database: give it a Prometheus configuration, or nothing at all.")
        .after_help(
            "Without a command the server runs. Each flag can also be set through the environment: MEERKAT_ and \
             its name in capitals, with underscores (MEERKAT_STORAGE_TSDB_PATH).",
        )
        .version(super::PROMETHEUS_VERSION)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommands(super::commands::all())
        .subcommand(super::commands::promtool())
        .args_conflicts_with_subcommands(true)
        .max_term_width(110)
        .args(arguments())
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print what this program is, and stop.")
                .help_heading("Process"),
        )
}

/// Reads a command line. The error is the exit code; its reason has been printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, u8> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(e) => {
            // Printing can only fail when nobody reads it.
            let _ = e.print();
            return if e.use_stderr() { Err(EXIT_USAGE) } else { Ok(Parsed::Printed) };
        }
    };
    if matches.get_flag("version") {
        println!("{}", version_text());
        return Ok(Parsed::Printed);
    }
    if matches.subcommand_name().is_some() {
        return Ok(Parsed::Command(matches));
    }
    let flags = Flags::from_matches(&matches);
    if flags.bool("write-documentation") {
        println!("{}", documentation());
        return Ok(Parsed::Printed);
    }
    let mut flags = flags;
    if flags.feature("agent") {
        flags.set("agent", "true".into());
    }
    flags.check_mode()?;
    Ok(Parsed::Serve(flags))
}

/// The text of `--version`, in Prometheus's form.
#[must_use]
pub fn version_text() -> String {
    let build = super::serve::build_info();
    format!(
        "meerkat, version {} (branch: {}, revision: {}; compatible with prometheus {})\n  build user:       {}\n  \
         build date:       {}\n  compiler:         {}\n  platform:         {}/{}\n  tags:             {}",
        build.own_version,
        build.branch,
        build.revision,
        build.version,
        build.user,
        build.date,
        build.compiler,
        std::env::consts::OS,
        std::env::consts::ARCH,
        if cfg!(feature = "mimalloc") { "mimalloc" } else { "none" },
    )
}

/// All visible flags as a Markdown table.
#[must_use]
pub fn documentation() -> String {
    let mut out = String::from("| Flag | Description | Default |\n| --- | --- | --- |\n");
    for flag in FLAGS.iter().filter(|f| !f.hidden) {
        out.push_str(&format!("| `--{}` | {} | `{}` |\n", flag.name, flag.help, flag.default));
    }
    out
}

impl Flags {
    fn from_matches(matches: &ArgMatches) -> Self {
        let mut flags = Self::default();
        for flag in FLAGS {
            let mut values: Vec<String> =
                matches.get_many::<String>(flag.name).into_iter().flatten().cloned().collect();
            if flag.kind == Kind::Bool && matches.get_count(&negative(flag.name)) > 0 {
                values = vec!["false".into()];
            }
            if values.is_empty() {
                let default = if flag.kind == Kind::List {
                    flag.default.split(',').collect()
                } else {
                    vec![flag.default]
                };
                let default = default.into_iter().filter(|v| !v.is_empty());
                // Printed as given values are.
                values = default.map(|v| check(flag, v).unwrap_or_else(|_| v.to_owned())).collect();
            } else {
                flags.given.insert(flag.name);
            }
            if flag.kind == Kind::List && flag.name != "web.listen-address" {
                values = values
                    .iter()
                    .flat_map(|v| v.split(','))
                    .map(str::trim)
                    .filter(|v| !v.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            flags.values.insert(flag.name, values);
        }
        flags
    }

    fn check_mode(&self) -> Result<(), u8> {
        let agent = self.bool("agent");
        let (wrong, mode) = if agent { (Mode::Server, "agent") } else { (Mode::Agent, "server") };
        let bad: Vec<&str> =
            FLAGS.iter().filter(|f| f.mode == wrong && self.given.contains(f.name)).map(|f| f.name).collect();
        if bad.is_empty() {
            return Ok(());
        }
        eprintln!("The following flag(s) can not be used in {mode} mode: {bad:?}");
        Err(EXIT_MODE)
    }

    /// Whether the flag was given, on the command line or through the environment.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// The values of a list.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        debug_assert!(FLAGS.iter().any(|f| f.name == name), "no flag {name}");
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a flag, the last one if given several times, empty for none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.list(name).last().map_or("", String::as_str)
    }

    /// A switch.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// A duration in milliseconds, 0 for none.
    #[must_use]
    pub fn duration_ms(&self, name: &str) -> i64 {
        parse_duration_ms(self.text(name)).unwrap_or(0)
    }

    /// A size in bytes, 0 for none.
    #[must_use]
    pub fn bytes(&self, name: &str) -> u64 {
        let text = self.text(name);
        // Printed sizes join several units; the given ones have one.
        let mut total = 0u64;
        let mut rest = text;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let unit_end = rest[number_end..]
                .find(|c: char| c.is_ascii_digit())
                .map_or(rest.len(), |at| number_end + at);
            total = total.saturating_add(parse_bytes(&rest[..unit_end]).unwrap_or(0));
            rest = &rest[unit_end..];
        }
        total
    }

    /// A whole number, never negative.
    #[must_use]
    pub fn number(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or(0)
    }

    /// Whether `--enable-feature` names this feature.
    #[must_use]
    pub fn feature(&self, name: &str) -> bool {
        self.list("enable-feature").iter().any(|f| f == name)
    }

    /// Names of features that do not exist.
    pub fn unknown_features(&self) -> impl Iterator<Item = &str> {
        self.list("enable-feature")
            .iter()
            .map(String::as_str)
            .filter(|f| *f != "agent" && !FEATURES.contains(f))
    }

    /// Flags that were given although they have no effect.
    pub fn given_no_ops(&self) -> impl Iterator<Item = &'static str> + '_ {
        FLAGS.iter().filter(|f| f.no_op && self.given.contains(f.name)).map(|f| f.name)
    }

    /// All flags with their values, as `/api/v1/status/flags` shows them.
    #[must_use]
    pub fn as_map(&self) -> BTreeMap<String, String> {
        let shown = FLAGS.iter().filter(|f| f.name != "write-documentation");
        shown
            .map(|flag| {
                let value = self.list(flag.name).join(",");
                let value = match (flag.kind, value.is_empty()) {
                    (Kind::Duration, true) => "0s".to_owned(),
                    (Kind::Bytes, true) => "0B".to_owned(),
                    _ => value,
                };
                (flag.name.to_owned(), value)
            })
            .collect()
    }

    /// Fills in defaults that depend on other flags, so that `/api/v1/status/flags` shows what holds.
    pub fn settle(&mut self) {
        const DAY_MS: i64 = 86_400_000;
        if !self.is_given("storage.tsdb.retention.time") && !self.is_given("storage.tsdb.retention.size") {
            self.set("storage.tsdb.retention.time", format_duration_ms(15 * DAY_MS));
        }
        if !self.is_given("storage.tsdb.max-block-duration") {
            let longest = match self.duration_ms("storage.tsdb.retention.time") {
                0 => 31 * DAY_MS,
                retention => (retention / 10).min(31 * DAY_MS),
            };
            self.set("storage.tsdb.max-block-duration", format_duration_ms(longest));
        }
        if !self.is_given("web.route-prefix") {
            let path = url::Url::parse(self.text("web.external-url"))
                .map_or_else(|_| "/".into(), |url| format!("/{}", url.path().trim_matches('/')));
            self.set("web.route-prefix", path);
        }
    }

    /// Sets a value that the process worked out itself.
    pub fn set(&mut self, name: &'static str, value: String) {
        self.values.insert(name, vec![value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Result<Flags, u8> {
        let all = std::iter::once("meerkat").chain(arguments.iter().copied()).map(OsString::from);
        match parse(all)? {
            Parsed::Serve(flags) => Ok(flags),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_table_is_sound() {
        command().debug_assert();
        for flag in FLAGS {
            if !flag.default.is_empty() {
                assert!(check(flag, flag.default).is_ok(), "default of {}", flag.name);
            }
        }
    }

    #[test]
    fn reads_prometheus_command_lines() {
        let flags = serve(&[
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path",
            "/prometheus",
            "--storage.tsdb.retention.time=15d",
            "--storage.tsdb.retention.size=512MB",
            "--web.enable-lifecycle",
            "--no-storage.tsdb.wal-compression",
            "--web.listen-address=:9090",
            "--web.listen-address=:9091",
            "--enable-feature=search-api,promql-per-step-stats",
            "--query.timeout=90s",
        ])
        .expect("accepted");
        assert_eq!(flags.text("storage.tsdb.path"), "/prometheus");
        assert_eq!(flags.duration_ms("storage.tsdb.retention.time"), 15 * 86_400_000);
        assert_eq!(flags.bytes("storage.tsdb.retention.size"), 512 << 20);
        assert!(flags.bool("web.enable-lifecycle") && !flags.bool("storage.tsdb.wal-compression"));
        assert_eq!(flags.list("web.listen-address"), [":9090", ":9091"]);
        assert!(flags.feature("search-api") && flags.feature("promql-per-step-stats"));
        let mut flags = flags;
        flags.settle();
        let map = flags.as_map();
        assert_eq!(map["storage.tsdb.max-block-duration"], "1d12h");
        assert_eq!(map["web.route-prefix"], "/");
        assert_eq!(map["query.timeout"], "1m30s");
        assert_eq!(map["storage.tsdb.min-block-duration"], "2h");
        assert_eq!(map["web.enable-admin-api"], "false");
        assert_eq!(map["storage.tsdb.retention.size"], "512MiB");
    }

    #[test]
    fn wrong_command_lines_have_prometheus_exit_codes() {
        assert_eq!(serve(&["--no-such-flag"]).unwrap_err(), EXIT_USAGE);
        assert_eq!(serve(&["--query.timeout=soon"]).unwrap_err(), EXIT_USAGE);
        assert_eq!(serve(&["--log.level=loud"]).unwrap_err(), EXIT_USAGE);
        assert_eq!(serve(&["--storage.agent.path=x"]).unwrap_err(), EXIT_MODE);
        assert_eq!(serve(&["--agent", "--storage.tsdb.path=x"]).unwrap_err(), EXIT_MODE);
        assert!(serve(&["--agent", "--storage.agent.path=x"]).is_ok());
    }

    #[test]
    fn sizes_print_and_read_back() {
        for (text, bytes, printed) in
            [("0", 0, "0B"), ("512MB", 512 << 20, "512MiB"), ("1.5GB", 3 << 29, "1GiB512MiB")]
        {
            assert_eq!(parse_bytes(text), Ok(bytes));
            assert_eq!(format_bytes(bytes), printed);
        }
        assert!(parse_bytes("512").is_err() && parse_bytes("x").is_err() && parse_bytes("99999EB").is_err());
    }
}
