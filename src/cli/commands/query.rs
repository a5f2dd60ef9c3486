//! `query`: what does a server answer? Asked through its HTTP API and printed as lines or as JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use url::form_urlencoded;

use super::client::{Client, block_on, header, http_config};
use super::output::{say, tell};
use super::{code, histograms, many, text, value};
use crate::model::labels::quoted;

/// How long a server may take for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Points of a range query without `--step`.
const DEFAULT_POINTS: f64 = 250.0;

pub(super) fn command() -> Command {
    let server = || {
        Arg::new("server")
            .required(true)
            .value_name("SERVER")
            .help("URL of the server, http://localhost:9090.")
    };
    let expr = || Arg::new("expr").required(true).value_name("EXPR").help("PromQL.");
    let output = || {
        Arg::new("format")
            .short('o')
            .long("format")
            .value_parser(["promql", "json"])
            .default_value("promql")
            .help("How to print.")
    };
    let matchers = || {
        Arg::new("match")
            .long("match")
            .value_name("SELECTOR")
            .action(ArgAction::Append)
            .help("Series selector.")
    };
    let time = |name: &'static str, help: &'static str| value(name, help).allow_hyphen_values(true);
    let base = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(output()).arg(header()).arg(http_config()).arg(server())
    };
    Command::new("query")
        .about("Ask a server")
        .after_help("Times are Unix seconds or RFC 3339.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            base("instant", "Evaluate at one time").arg(expr()).arg(time("time", "When; now by default.")),
        )
        .subcommand(
            base("range", "Evaluate over a range")
                .arg(expr())
                .arg(time("start", "First time; five minutes before the end by default."))
                .arg(time("end", "Last time; now by default."))
                .arg(value("step", "Distance of the points, a duration.")),
        )
        .subcommand(
            base("explain", "Evaluate and show the plan with series, samples and time of each part")
                .arg(expr())
                .arg(time("time", "When; now by default.").conflicts_with_all(["start", "end", "step"]))
                .arg(time("start", "First time of a range; five minutes before the end by default."))
                .arg(time("end", "Last time of a range; now by default."))
                .arg(value("step", "Distance of the points of a range, a duration.")),
        )
        .subcommand(
            base("series", "List series")
                .arg(matchers().required(true))
                .arg(time("start", "From when."))
                .arg(time("end", "Until when.")),
        )
        .subcommand(
            base("labels", "List the values of a label")
                .arg(Arg::new("name").required(true).value_name("NAME").help("The label."))
                .arg(matchers())
                .arg(time("start", "From when."))
                .arg(time("end", "Until when.")),
        )
        .subcommand(histograms::command())
}

pub(super) fn run(name: &str, matches: &ArgMatches) -> u8 {
    if name == "analyze" {
        return histograms::run(matches);
    }
    code(ask(name, matches).map(|(data, warnings)| {
        warn(&warnings);
        if text(matches, "format") == "json" {
            say!("{data}");
        } else if name == "explain" {
            print_plan(&data);
        } else {
            print_data(&data);
        }
    }))
}

pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        tell!("warning: {warning}");
    }
}

pub(super) fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

pub(super) fn seconds(matches: &ArgMatches, name: &str) -> Result<Option<f64>, String> {
    let given = text(matches, name);
    if given.is_empty() {
        return Ok(None);
    }
    let number = given.parse::<f64>().ok().filter(|s| s.is_finite());
    let date = || given.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond() as f64 / 1000.0);
    let error = || format!("--{name}: {given:?} is neither Unix seconds nor an RFC 3339 time");
    number.or_else(date).map(Some).ok_or_else(error)
}

/// Adds `start`, `end` and `step`.
fn append_range(
    matches: &ArgMatches,
    form: &mut form_urlencoded::Serializer<'_, String>,
) -> Result<(), String> {
    let end = seconds(matches, "end")?.unwrap_or_else(now_seconds);
    let start = seconds(matches, "start")?.unwrap_or(end - 300.0);
    if end < start {
        return Err("--end is before --start".into());
    }
    let step = match text(matches, "step") {
        "" => ((end - start) / DEFAULT_POINTS).floor().max(1.0).to_string(),
        step => step.to_owned(),
    };
    form.append_pair("start", &start.to_string());
    form.append_pair("end", &end.to_string());
    form.append_pair("step", &step);
    Ok(())
}

/// `server` with a scheme and without a slash at its end.
pub(super) fn server_url(matches: &ArgMatches) -> String {
    let server = text(matches, "server").trim_end_matches('/');
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// What the API answered, data and warnings, or what is wrong with the answer.
type Answered = Result<(Value, Vec<String>), String>;

fn ask(name: &str, matches: &ArgMatches) -> Answered {
    let server = server_url(matches);
    let mut form = form_urlencoded::Serializer::new(String::new());
    let path = match name {
        "instant" => {
            form.append_pair("query", text(matches, "expr"));
            if let Some(time) = seconds(matches, "time")? {
                form.append_pair("time", &time.to_string());
            }
            "/api/v1/query".to_owned()
        }
        "range" => {
            form.append_pair("query", text(matches, "expr"));
            append_range(matches, &mut form)?;
            "/api/v1/query_range".to_owned()
        }
        "explain" => {
            form.append_pair("query", text(matches, "expr"));
            if ["start", "end", "step"].iter().any(|name| !text(matches, name).is_empty()) {
                append_range(matches, &mut form)?;
            } else if let Some(time) = seconds(matches, "time")? {
                form.append_pair("time", &time.to_string());
            }
            "/api/v1/explain".to_owned()
        }
        _ => {
            for matcher in many(matches, "match") {
                form.append_pair("match[]", &matcher);
            }
            for bound in ["start", "end"] {
                if let Some(time) = seconds(matches, bound)? {
                    form.append_pair(bound, &time.to_string());
                }
            }
            if name == "series" {
                "/api/v1/series".to_owned()
            } else {
                let label: String =
                    form_urlencoded::byte_serialize(text(matches, "name").as_bytes()).collect();
                format!("/api/v1/label/{label}/values")
            }
        }
    };
    let form = form.finish();
    let client = Client::new(matches, ANSWER_TIMEOUT)?;
    // Label values have no form of their own to post to.
    if name == "labels" {
        understand(block_on(client.send(&format!("{server}{path}?{form}"), &[], None))?)
    } else {
        block_on(post(&client, &format!("{server}{path}"), form))?
    }
}

/// Posts a form to the API.
pub(super) async fn post(client: &Client, url: &str, form: String) -> Answered {
    let kind = [(CONTENT_TYPE, "application/x-www-form-urlencoded")];
    understand(client.send(url, &kind, Some(Bytes::from(form))).await)
}

fn understand(answer: Result<(StatusCode, String), String>) -> Answered {
    let (status, body) = answer.map_err(|e| format!("query error: {e}"))?;
    let answer: Value = serde_json::from_str(&body)
        .map_err(|_| format!("query error: status {status}: {}", body.trim_end()))?;
    if answer["status"] != "success" {
        let word = |field: &str| answer[field].as_str().unwrap_or("unknown").to_owned();
        return Err(format!("query error: {}: {}", word("errorType"), word("error")));
    }
    let notes = ["warnings", "infos"].into_iter().filter_map(|k| answer[k].as_array());
    let notes = notes.flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let data = &answer["data"];
    Ok((data.get("result").unwrap_or(data).clone(), notes))
}

/// A label set as PromQL writes it, the metric name in front.
pub(super) fn metric(labels: &Value) -> String {
    let mut out = labels["__name__"].as_str().unwrap_or_default().to_owned();
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| format!("{name}={}", quoted(value.as_str().unwrap_or_default())))
        .collect();
    if !pairs.is_empty() || out.is_empty() {
        out.push_str(&format!("{{{}}}", pairs.join(", ")));
    }
    out
}

/// `value @[time]` from a pair of the API.
fn point(pair: &Value) -> String {
    let value = match &pair[1] {
        Value::String(number) => number.clone(),
        histogram => histogram.to_string(),
    };
    format!("{value} @[{}]", pair[0])
}

fn print_data(data: &Value) {
    let Some(items) = data.as_array() else { return say!("{data}") };
    // A scalar or a string is a pair whose first item is a time.
    if let [Value::Number(_), Value::String(_)] = items.as_slice() {
        return say!("{}", point(data));
    }
    for item in items {
        if let Some(text) = item.as_str() {
            say!("{text}");
        } else if item.get("metric").is_none() {
            say!("{}", metric(item));
        } else {
            let name = metric(&item["metric"]);
            for field in ["value", "histogram"] {
                if let Some(pair) = item.get(field) {
                    say!("{name} => {}", point(pair));
                }
            }
            let points: Vec<String> = ["values", "histograms"]
                .into_iter()
                .filter_map(|field| item[field].as_array())
                .flatten()
                .map(point)
                .collect();
            if !points.is_empty() {
                say!("{name} =>\n{}", points.join("\n"));
            }
        }
    }
}

/// Longest text of a part that is shown.
const PART_COLUMNS: usize = 60;

/// The plan as a tree: what, its text, series, samples, milliseconds with and without the parts below.
fn print_plan(data: &Value) {
    let mut rows = vec![["SERIES", "SAMPLES", "MS", "OWN MS", "PART"].map(str::to_owned)];
    plan_rows(&data["plan"], 0, &mut rows);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for [series, samples, ms, own, part] in &rows {
        say!(
            "{series:>0$}  {samples:>1$}  {ms:>2$}  {own:>3$}  {part}",
            widths[0],
            widths[1],
            widths[2],
            widths[3]
        );
    }
    let samples = &data["stats"]["samples"];
    let number = |name: &str| samples[name].as_u64().unwrap_or(0);
    let total = data["stats"]["timings"]["execTotalTime"].as_f64().unwrap_or(0.0);
    say!(
        "total {:.3} ms, {} samples read, at most {} held, {} bytes",
        total * 1000.0,
        number("samplesRead"),
        number("peakSamples"),
        number("peakBytes")
    );
}

fn plan_rows(node: &Value, level: usize, rows: &mut Vec<[String; 5]>) {
    let word = |field: &str| node[field].as_str().unwrap_or_default();
    let mut text: String = word("text").split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = text.char_indices().nth(PART_COLUMNS) {
        text.truncate(cut);
        text.push('…');
    }
    let title = [word("kind"), word("name"), if node["constant"] == true { "(once)" } else { "" }];
    let title = title.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ");
    let ms = |field: &str| format!("{:.3}", node[field].as_f64().unwrap_or(0.0) * 1000.0);
    let count = |field: &str| node[field].as_u64().unwrap_or(0).to_string();
    rows.push([
        count("series"),
        count("samples"),
        ms("seconds"),
        ms("ownSeconds"),
        format!("{}{title}: {text}", "  ".repeat(level)),
    ]);
    for child in node["children"].as_array().into_iter().flatten() {
        plan_rows(child, level + 1, rows);
    }
}
