//! `push metrics`: how do samples in the text format get into a server that cannot scrape them? They are packed into
//! remote-write requests of version 1.0 (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).

use std::io::Read as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::client::{Client, block_on, header, http_config, pair};
use super::rules::duration_ms;
use super::{code, many, text, value};
use crate::cli::serve::EXIT_FAILURE;
use crate::model::LabelsBuilder;
use crate::model::metadata::{Exemplar, MetricType};
use crate::model::sample::HistogramValue;
use crate::scrape::exposition::{
    Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};

/// Most bytes of one input.
const MAX_INPUT_BYTES: u64 = 1 << 30;
/// Series in one request at most.
const SERIES_PER_REQUEST: usize = 2_000;

pub(super) fn command() -> Command {
    Command::new("metrics")
        .about("Send metrics in the text format by remote write")
        .after_help(
            "Samples without a time get the present one. Exit codes: 0 all was taken, 1 something was not.",
        )
        .arg(
            Arg::new("url")
                .required(true)
                .value_name("URL")
                .help("URL of the server, http://localhost:9090."),
        )
        .arg(
            Arg::new("file")
                .num_args(0..)
                .value_name("FILE")
                .help("Text files; standard input if there are none."),
        )
        .arg(
            Arg::new("label")
                .long("label")
                .value_name("NAME=VALUE")
                .action(ArgAction::Append)
                .default_value("job=promtool")
                .help("A label for all series; may be given several times."),
        )
        .arg(value("timeout", "How long a request may take.").default_value("30s"))
        .arg(value("remote-write.path", "Path of remote write below the URL.").default_value("api/v1/write"))
        .arg(header())
        .arg(http_config())
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let files = many(matches, "file");
    let inputs: Vec<Option<String>> =
        if files.is_empty() { vec![None] } else { files.into_iter().map(Some).collect() };
    let mut failed = false;
    for input in inputs {
        let name = input.clone().unwrap_or_else(|| "standard input".into());
        println!("Parsing {name}");
        if code(push(matches, input.as_deref()).map_err(|e| format!("  FAILED: {name}: {e}"))) == 0 {
            println!("  SUCCESS: metrics pushed to remote write");
        } else {
            failed = true;
        }
    }
    if failed { EXIT_FAILURE } else { 0 }
}

fn push(matches: &ArgMatches, file: Option<&str>) -> Result<(), String> {
    let mut body = Vec::new();
    let read = match file {
        None => std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut body),
        Some(path) => std::fs::File::open(path).and_then(|f| f.take(MAX_INPUT_BYTES).read_to_end(&mut body)),
    };
    read.map_err(|e| e.to_string())?;
    let given = many(matches, "label");
    let labels: Vec<(&str, &str)> = given.iter().map(|l| pair(l)).collect::<Result<_, _>>()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let mut packer = Packer {
        labels: &labels,
        now_ms: i64::try_from(now).unwrap_or(i64::MAX),
        series: Vec::new(),
        metadata: Vec::new(),
        fault: String::new(),
    };
    if let Err(e) = parse(Format::Text, &body, &ParseOptions::default(), &mut packer) {
        return Err(if packer.fault.is_empty() { e.to_string() } else { packer.fault });
    }
    let base = text(matches, "url").trim_end_matches('/');
    let url = format!("{base}/{}", text(matches, "remote-write.path").trim_start_matches('/'));
    let timeout_ms = duration_ms(matches, "timeout")?;
    let client = Client::new(matches, Duration::from_millis(timeout_ms.unsigned_abs()))?;
    let headers = [
        (CONTENT_TYPE, "application/x-protobuf"),
        (CONTENT_ENCODING, "snappy"),
        (HeaderName::from_static("x-prometheus-remote-write-version"), "0.1.0"),
    ];
    block_on(async {
        let mut metadata = std::mem::take(&mut packer.metadata);
        for series in packer.series.chunks(SERIES_PER_REQUEST) {
            let mut message = series.concat();
            message.append(&mut metadata);
            let packed = snap::raw::Encoder::new().compress_vec(&message).map_err(|e| e.to_string())?;
            let (status, answer) = client.send(&url, &headers, Some(Bytes::from(packed))).await?;
            if !status.is_success() {
                return Err(format!("the server answered {status}: {}", answer.trim_end()));
            }
        }
        Ok(())
    })?
}

/// Turns what is parsed into the fields of a `prometheus.WriteRequest`.
struct Packer<'a> {
    labels: &'a [(&'a str, &'a str)],
    now_ms: i64,
    /// One encoded `timeseries` field each.
    series: Vec<Vec<u8>>,
    /// Encoded `metadata` fields.
    metadata: Vec<u8>,
    fault: String,
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// A field that holds bytes: text or a message.
fn field(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Numbers of `MetricMetadata.MetricType`.
fn type_number(metric_type: MetricType) -> u64 {
    match metric_type {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

impl Sink for Packer<'_> {
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        let mut message = Vec::new();
        field(&mut message, 2, family.as_bytes());
        field(&mut message, 4, text.as_bytes());
        field(&mut self.metadata, 3, &message);
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        let mut message = vec![1 << 3];
        varint(&mut message, type_number(metric_type));
        field(&mut message, 2, family.as_bytes());
        field(&mut self.metadata, 3, &message);
        Ok(())
    }

    fn unit(&mut self, _family: &str, _unit: &str) -> Result<(), Stop> {
        Ok(())
    }

    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, _known: bool) -> Result<(), Stop> {
        let mut pairs = PairBuffer::default();
        if let Err(e) = series.labels(&mut pairs) {
            self.fault = e.to_string();
            return Err(Stop);
        }
        let mut builder = LabelsBuilder::new(&pairs.to_labels());
        for (name, value) in self.labels {
            builder.set(name, value);
        }
        let mut message = Vec::new();
        for label in builder.build().iter() {
            let mut pair = Vec::new();
            field(&mut pair, 1, label.name.as_bytes());
            field(&mut pair, 2, label.value.as_bytes());
            field(&mut message, 1, &pair);
        }
        let mut point = vec![1 << 3 | 1];
        point.extend_from_slice(&sample.value.to_le_bytes());
        point.push(2 << 3);
        varint(&mut point, sample.timestamp_ms.unwrap_or(self.now_ms) as u64);
        field(&mut message, 2, &point);
        let mut out = Vec::new();
        field(&mut out, 1, &message);
        self.series.push(out);
        Ok(())
    }

    fn native_exemplars(&mut self, _exemplars: &[Exemplar]) {}

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        self.fault = "the text format has no native histograms".into();
        Err(Stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_schema() {
        let mut out = Vec::new();
        field(&mut out, 1, &[7; 200]);
        assert_eq!(&out[..3], &[0x0a, 0xc8, 0x01]);
    }
}
