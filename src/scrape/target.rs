//! What is a target? A discovered address after relabelling: its labels, its URL, and how it is scraped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ScrapeConfig;
use crate::model::duration::parse_duration_ms;
use crate::model::relabel;
use crate::model::{Labels, LabelsBuilder};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const UNIX_SOCKET: &str = "__unix_socket__";
const NHCB: &str = "__convert_classic_histograms_to_nhcb__";
const CLASSIC: &str = "__always_scrape_classic_histograms__";
const NATIVE: &str = "__scrape_native_histograms__";

/// One thing to scrape.
#[derive(Debug, Clone)]
pub struct Target {
    /// Labels as discovered, with the defaults of the job, before relabelling.
    pub discovered: Labels,
    /// Labels that go onto series.
    pub labels: Labels,
    /// Where its metrics are.
    pub url: String,
    /// How often it is scraped.
    pub interval: Duration,
    /// How long a scrape may take.
    pub timeout: Duration,
    /// Connect to this socket instead of the address.
    pub unix_socket: Option<String>,
    /// Whether native histograms are taken.
    pub scrape_native_histograms: bool,
    /// Whether classic histograms become native ones.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Whether classic histograms are kept beside native ones.
    pub always_scrape_classic_histograms: bool,
    /// Tells targets apart: all labels and the URL.
    pub identity: u64,
    /// Like `identity`, over what series can tell apart: public labels and URL.
    pub series_identity: u64,
}

/// What relabelling made of one discovered target.
#[derive(Debug)]
pub enum Populated {
    /// To be scraped.
    Keep(Arc<Target>),
    /// Dropped by a rule; the labels are those before relabelling.
    Drop(Labels),
}

/// Labels as discovered, with the job's defaults where discovery says nothing.
#[must_use]
pub fn discovered_labels(
    job: &ScrapeConfig,
    target: &BTreeMap<String, String>,
    group: &BTreeMap<String, String>,
) -> LabelsBuilder {
    let mut builder = LabelsBuilder::default();
    for (name, value) in group.iter().chain(target) {
        if !value.is_empty() || target.contains_key(name) {
            builder.set(name, value);
        }
    }
    let flag = |on: bool| if on { "true" } else { "false" }.to_owned();
    let defaults = [
        ("job", job.job_name.clone()),
        (INTERVAL, job.scrape_interval.to_string()),
        (TIMEOUT, job.scrape_timeout.to_string()),
        (METRICS_PATH, job.metrics_path.clone()),
        (SCHEME, job.scheme.clone()),
        (NATIVE, flag(job.scrape_native_histograms)),
        (NHCB, flag(job.convert_classic_histograms_to_nhcb)),
        (CLASSIC, flag(job.always_scrape_classic_histograms)),
    ];
    for (name, value) in defaults {
        if builder.value(name).is_empty() {
            builder.set(name, &value);
        }
    }
    for (name, values) in &job.params {
        let label = format!("{PARAM_PREFIX}{name}");
        if let Some(first) = values.first()
            && builder.value(&label).is_empty()
        {
            builder.set(&label, first);
        }
    }
    builder
}

fn duration(builder: &LabelsBuilder, label: &str, what: &str) -> Result<Duration, String> {
    let text = builder.value(label);
    let ms = parse_duration_ms(text).map_err(|e| format!("error parsing {what}: {e}"))?;
    match u64::try_from(ms) {
        Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{what} cannot be 0")),
    }
}

fn boolean(builder: &LabelsBuilder, label: &str) -> Result<bool, String> {
    match builder.value(label) {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("error parsing label {label}: {other:?} is not a boolean")),
    }
}

/// Applies the job's rules to one discovered target.
///
/// # Errors
///
/// The target cannot be scraped: no or a bad address, a bad interval or timeout.
pub fn populate(
    job: &ScrapeConfig,
    target: &BTreeMap<String, String>,
    group: &BTreeMap<String, String>,
) -> Result<Populated, String> {
    let mut builder = discovered_labels(job, target, group);
    let discovered = builder.build();
    if !relabel::process(&mut builder, &job.relabel_configs) {
        return Ok(Populated::Drop(discovered));
    }
    let address = builder.value(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".into());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    let interval = duration(&builder, INTERVAL, "scrape interval")?;
    let timeout = duration(&builder, TIMEOUT, "scrape timeout")?;
    if timeout > interval {
        let (timeout, interval) = (builder.value(TIMEOUT), builder.value(INTERVAL));
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({timeout:?} > {interval:?})"
        ));
    }
    let scrape_native_histograms = boolean(&builder, NATIVE)?;
    let convert_classic_histograms_to_nhcb = boolean(&builder, NHCB)?;
    let always_scrape_classic_histograms = boolean(&builder, CLASSIC)?;
    builder.retain(|l| !l.name.starts_with(META_PREFIX));
    if builder.value("instance").is_empty() {
        builder.set("instance", &address);
    }
    let all = builder.build();
    let url = target_url(job, &all);
    let labels = all.filter(|l| !l.name.starts_with("__"));
    let mix = |labels: &Labels| {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(labels.as_packed().as_bytes());
        hash.update(&[0xff]);
        hash.update(url.as_bytes());
        hash.digest()
    };
    let unix_socket = all.get(UNIX_SOCKET).map(str::to_owned);
    let (identity, series_identity) = (mix(&all), mix(&labels));
    Ok(Populated::Keep(Arc::new(Target {
        discovered,
        labels,
        url,
        interval,
        timeout,
        unix_socket,
        scrape_native_histograms,
        convert_classic_histograms_to_nhcb,
        always_scrape_classic_histograms,
        identity,
        series_identity,
    })))
}

/// Percent-encodes a path as Go's `URL.EscapedPath` does for characters that may not stand there.
fn put_path(path: &str, out: &mut String) {
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*".contains(&byte);
        if plain {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn target_url(job: &ScrapeConfig, labels: &Labels) -> String {
    let mut params: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, values) in &job.params {
        params.insert(name, values.iter().map(String::as_str).collect());
    }
    for label in labels.iter() {
        if let Some(name) = label.name.strip_prefix(PARAM_PREFIX) {
            let values = params.entry(name).or_default();
            match values.first_mut() {
                Some(first) => *first = label.value,
                None => values.push(label.value),
            }
        }
    }
    let path = labels.value(METRICS_PATH);
    let mut url = format!("{}://{}", labels.value(SCHEME), labels.value(ADDRESS));
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    put_path(path, &mut url);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, values) in params {
        for value in values {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if !query.is_empty() {
        url.push('?');
        url.push_str(&query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn job(yaml: &str) -> ScrapeConfig {
        let text = format!("scrape_configs:\n- job_name: web\n  params: {{module: [a, b]}}\n{yaml}");
        let options = crate::config::LoadOptions::default();
        let mut config =
            crate::config::Config::parse(&text, std::path::Path::new("/x/prometheus.yml"), &options)
                .expect("valid");
        config.scrape_configs.remove(0)
    }

    #[test]
    fn labels_and_url_follow_the_rules() {
        let job = job("  relabel_configs:\n  - {source_labels: [__meta_zone], target_label: zone}\n\
                       \u{20} - {target_label: __param_module, replacement: c}\n");
        let target = map(&[("__address__", "host:1"), ("__meta_zone", "eu"), ("__metrics_path__", "/m x")]);
        let Ok(Populated::Keep(target)) = populate(&job, &target, &map(&[("team", "a"), ("zone", "us")]))
        else {
            panic!("kept");
        };
        assert_eq!(target.labels.to_string(), r#"{instance="host:1", job="web", team="a", zone="eu"}"#);
        assert_eq!(target.url, "http://host:1/m%20x?module=c&module=b");
        assert_eq!(target.interval, Duration::from_secs(60));
        assert_eq!(target.discovered.value("__meta_zone"), "eu");
    }

    #[test]
    fn impossible_targets_say_why() {
        for (labels, want) in [
            (vec![], "no address"),
            (vec![("__address__", "http://x")], "is not a valid hostname"),
            (vec![("__address__", "x"), ("__scrape_interval__", "0s")], "scrape interval cannot be 0"),
            (vec![("__address__", "x"), ("__scrape_timeout__", "2m")], "scrape timeout cannot be greater"),
            (vec![("__address__", "x"), ("__scrape_native_histograms__", "maybe")], "is not a boolean"),
        ] {
            let error = populate(&job(""), &map(&labels), &map(&[])).expect_err("cannot be scraped");
            assert!(error.contains(want), "{error}");
        }
    }
}
