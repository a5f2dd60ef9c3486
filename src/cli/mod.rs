//! Commands: how is a process started, wired, reloaded and stopped?
//!
//! Without a command the server runs, with Prometheus's flags, so that the binary can take Prometheus's place.

/// Files of alert state.
pub mod alert_files;
/// Commands beside serving.
pub mod commands;
/// The table of flags.
pub mod flag_table;
/// Command lines.
pub mod flags;
/// Log lines.
pub mod logging;
/// Delivery of alerts to discovered Alertmanagers.
pub mod notify;
/// What flags mean to each room.
pub mod options;
/// The running configuration.
pub mod running;
/// Metrics of the process.
pub mod self_metrics;
/// The server process.
pub mod serve;
/// Rooms behind the API's traits.
pub mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

/// Version of Prometheus whose behaviour and API are offered.
pub const PROMETHEUS_VERSION: &str = "3.14.0";

/// Runs the program with these arguments, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().map(std::path::Path::new).and_then(std::path::Path::file_stem);
    if name.is_some_and(|name| name == "promtool") {
        return commands::run_as_promtool(arguments);
    }
    if let [_, promtool, version] = arguments.as_slice()
        && promtool == "promtool"
        && version == "--version"
    {
        return commands::run_as_promtool(arguments[1..].to_vec());
    }
    let flags = match flags::parse(arguments) {
        Ok(flags::Parsed::Serve(flags)) => flags,
        Ok(flags::Parsed::Command(matches)) => return ExitCode::from(commands::run(&matches)),
        Ok(flags::Parsed::Printed) => return ExitCode::SUCCESS,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(serve::run(flags))
}
