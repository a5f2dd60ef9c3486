//! `query analyze`: how many buckets of histograms are in use? The number of populated ones at each sample of a time
//! frame, by series and over all of them. What is printed is promtool's, but classic histograms come in the order of
//! the answer.

use std::collections::BTreeSet;
use std::fmt;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use url::form_urlencoded;

use super::client::{Client, block_on, header, http_config};
use super::output::say;
use super::query::{ANSWER_TIMEOUT, metric, now_seconds, post, seconds, server_url, warn};
use super::rules::duration_ms;
use super::{code, many, text, value};

const HEADER: &str = "\
Bucket stats for each histogram series over time
------------------------------------------------
First the min, avg, and max number of populated buckets, followed by the total
number of buckets (only if different from the max number of populated buckets
which is typical for classic but not native histograms).
";
const FOOTER: &str = "
Aggregated bucket stats
-----------------------
Each line shows min/avg/max over the series above.";

pub(super) fn command() -> Command {
    Command::new("analyze")
        .about("Count the buckets that histograms use")
        .arg(value("server", "URL of the server, http://localhost:9090.").required(true))
        .arg(value("type", "What to analyze: histogram.").required(true))
        .arg(value("duration", "Time frame.").default_value("1h"))
        .arg(value("time", "End of the time frame; now by default.").allow_hyphen_values(true))
        .arg(
            Arg::new("match")
                .long("match")
                .value_name("SELECTOR")
                .action(ArgAction::Append)
                .required(true)
                .help(
                    "Selector of native histograms, or of the _bucket series of classic ones; may be given several times.",
                ),
        )
        .arg(header())
        .arg(http_config())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    code(block_on(analyze(matches)).flatten())
}

async fn analyze(matches: &ArgMatches) -> Result<(), String> {
    let kind = text(matches, "type");
    if kind != "histogram" {
        return Err(format!("analyze type is {kind}, must be 'histogram'"));
    }
    duration_ms(matches, "duration")?;
    let time = seconds(matches, "time")?.unwrap_or_else(now_seconds).to_string();
    let client = Client::new(matches, ANSWER_TIMEOUT)?;
    let url = format!("{}/api/v1/query", server_url(matches));
    say!("{HEADER}");
    let (mut native, mut classic) = (Aggregate::default(), Aggregate::default());
    for selector in many(matches, "match") {
        let query = format!("{selector}[{}]", text(matches, "duration"));
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", &query)
            .append_pair("time", &time)
            .finish();
        let (series, warnings) = post(&client, &url, form).await?;
        warn(&warnings);
        let series = series.as_array().map(Vec::as_slice).unwrap_or_default();
        for one in series.iter().filter(|one| one.get("values").is_none()) {
            if let Some(usage) = Usage::of_native(one) {
                say!("- {} (native): {usage}", metric(&one["metric"]));
                native.add(&usage);
            }
        }
        for (name, buckets) in classic_histograms(series) {
            if let Some(usage) = Usage::of_classic(buckets)? {
                say!("- {name} (classic): {usage}");
                classic.add(&usage);
            }
        }
    }
    say!("{FOOTER}");
    for (what, aggregate) in [("Native", native), ("Classic", classic)] {
        if !aggregate.0.is_empty() {
            say!("\n{what} {aggregate}");
        }
    }
    Ok(())
}

/// The `_bucket` series of an answer by histogram, under their name without `le`.
fn classic_histograms(series: &[Value]) -> Vec<(String, Vec<&Value>)> {
    let mut found: Vec<(String, Vec<&Value>)> = Vec::new();
    for one in series.iter().filter(|one| one.get("values").is_some()) {
        let mut labels = one["metric"].clone();
        let name = labels["__name__"].as_str().unwrap_or_default().to_owned();
        let le = labels.as_object_mut().and_then(|labels| labels.remove("le"));
        if le.is_none() || !name.ends_with("_bucket") {
            continue;
        }
        let mut key = metric(&labels);
        if key == name {
            key.push_str("{}");
        }
        match found.iter_mut().find(|(known, _)| *known == key) {
            Some((_, buckets)) => buckets.push(one),
            None => found.push((key, vec![one])),
        }
    }
    found
}

/// Populated buckets of one histogram over its samples.
#[derive(Debug, PartialEq)]
struct Usage {
    min: usize,
    avg: f64,
    max: usize,
    /// Different buckets that there were.
    total: usize,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:.3}/{}", self.min, self.avg, self.max)?;
        if self.max == self.total { Ok(()) } else { write!(f, "/{}", self.total) }
    }
}

impl Usage {
    fn of(populated: &[usize], total: usize) -> Option<Self> {
        let (min, max) = (*populated.iter().min()?, *populated.iter().max()?);
        let avg = populated.iter().sum::<usize>() as f64 / populated.len() as f64;
        Some(Self { min, avg, max, total })
    }

    /// `None` with fewer than two samples.
    fn of_native(series: &Value) -> Option<Self> {
        let samples = series["histograms"].as_array().filter(|samples| samples.len() > 1)?;
        let mut bounds = BTreeSet::new();
        let mut populated = Vec::with_capacity(samples.len());
        for sample in samples {
            let buckets = sample[1]["buckets"].as_array().map(Vec::as_slice).unwrap_or_default();
            bounds.extend(buckets.iter().map(|b| (b[0].as_i64(), b[1].as_str(), b[2].as_str())));
            populated.push(buckets.len());
        }
        Self::of(&populated, bounds.len())
    }

    /// `None` with fewer than two samples. From a time at which a bucket has no sample, buckets from there on count as
    /// empty.
    fn of_classic(mut buckets: Vec<&Value>) -> Result<Option<Self>, String> {
        let times = buckets.first().map_or(0, |first| samples(first).len());
        if times < 2 {
            return Ok(None);
        }
        let bound = |bucket: &Value| {
            bucket["metric"]["le"].as_str().and_then(|le| le.parse::<f64>().ok()).unwrap_or(0.0)
        };
        buckets.sort_by(|a, b| bound(a).total_cmp(&bound(b)));
        let mut populated = Vec::with_capacity(times);
        for time in 0..times {
            let (mut count, mut below) = (0, None);
            for bucket in &buckets {
                let Some(sample) = samples(bucket).get(time) else { break };
                let cumulative = sample[1].as_str().and_then(|v| v.parse::<f64>().ok()).unwrap_or_default();
                let own = match below {
                    None => cumulative,
                    Some((at, _)) if at != &sample[0] => {
                        return Err("matrix result is not time aligned".to_owned());
                    }
                    Some((_, lower)) => cumulative - lower,
                };
                // Less than a whole observation is none.
                count += usize::from(own.trunc() != 0.0);
                below = Some((&sample[0], cumulative));
            }
            populated.push(count);
        }
        Ok(Self::of(&populated, buckets.len()))
    }
}

fn samples(series: &Value) -> &[Value] {
    series["values"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Histograms of one kind together: what [`Usage`] has of each, averages cut off behind the point.
#[derive(Debug, Default)]
struct Aggregate(Vec<[usize; 4]>);

impl Aggregate {
    fn add(&mut self, usage: &Usage) {
        self.0.push([usage.min, usage.avg as usize, usage.max, usage.total]);
    }

    fn column(&self, at: usize) -> String {
        let values = || self.0.iter().map(|row| row[at]);
        let avg = values().sum::<usize>() as f64 / self.0.len() as f64;
        let (min, max) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
        format!("{min}/{avg:.3}/{max}")
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "histogram series ({} in total):", self.0.len())?;
        let names = ["min populated", "avg populated", "max populated", "total"];
        let columns: [String; 4] = std::array::from_fn(|at| self.column(at));
        let shown = if columns[2] == columns[3] { 3 } else { 4 };
        for (name, column) in names.iter().zip(&columns).take(shown) {
            write!(f, "\n- {name}: {column}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bucket(le: &str, counts: &[&str]) -> Value {
        let values: Vec<Value> = counts.iter().enumerate().map(|(at, count)| json!([at, count])).collect();
        json!({"metric": {"__name__": "a_bucket", "le": le}, "values": values})
    }

    fn classic(buckets: &[Value]) -> Result<Option<String>, String> {
        Usage::of_classic(buckets.iter().collect()).map(|usage| usage.map(|usage| usage.to_string()))
    }

    #[test]
    fn buckets_in_use_are_counted() {
        let shown = |text: &str| Ok(Some(text.to_owned()));
        let infinite = || bucket("+Inf", &["3", "4", "6"]);
        let both = [infinite(), bucket("10.0", &["3", "3", "3"]), bucket("2.0", &["0", "0", "1"])];
        assert_eq!(classic(&both), shown("1/2.000/3"));
        assert_eq!(classic(&[infinite(), bucket("1", &["3", "4", "6"])]), shown("1/1.000/1/2"));
        // The second bucket began late, the third has nothing.
        let late = [infinite(), bucket("1", &["1", "2"]), bucket("2", &["1", "2", "3"])];
        assert_eq!(classic(&late), shown("0/1.333/2/3"));
        assert_eq!(classic(&[bucket("+Inf", &["1"])]), Ok(None));
        assert_eq!(classic(&[infinite(), bucket("1", &["0.5", "0", "0"])]), shown("1/1.000/1/2"));
        let mut shifted = bucket("1", &["1", "1", "1"]);
        shifted["values"][1][0] = json!(1.5);
        assert_eq!(classic(&[infinite(), shifted]), Err("matrix result is not time aligned".into()));
    }

    #[test]
    fn buckets_of_native_histograms_are_told_by_their_bounds() {
        let sample = |bounds: &[(&str, &str)]| {
            let buckets: Vec<Value> = bounds.iter().map(|(from, to)| json!([0, from, to, "1"])).collect();
            json!([0, {"count": "9", "sum": "9", "buckets": buckets}])
        };
        let series = json!({"histograms": [sample(&[("1", "2")]), sample(&[("2", "4"), ("4", "8")])]});
        let usage = Usage::of_native(&series).map(|usage| usage.to_string());
        assert_eq!(usage.as_deref(), Some("1/1.500/2/3"));
        assert_eq!(Usage::of_native(&json!({"histograms": [sample(&[])]})), None);
    }
}
