//! `push metrics`: how do samples in the text format get into a server that cannot scrape them? They are packed into
//! remote-write requests (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::client::{Client, block_on, header, http_config, pair};
use super::output::say;
use super::rules::duration_ms;
use super::{code, many, text, value};
use crate::cli::serve::EXIT_FAILURE;
use crate::model::LabelsBuilder;
use crate::model::metadata::{Exemplar, Metadata, MetricType};
use crate::model::sample::HistogramValue;
use crate::remote::receive::MessageVersion;
use crate::remote::send::families::{Families, MetadataSource};
use crate::remote::write_encode::{Content, Entry, Identity, metadata_1, version_1, version_2};
use crate::scrape::exposition::{
    Format, PairBuffer, ParseOptions, SampleView, SeriesView, Sink, Stop, parse,
};

/// Most bytes of one input.
const MAX_INPUT_BYTES: u64 = 1 << 30;
/// Series in one request at most.
const SERIES_PER_REQUEST: usize = 2_000;
const V1_NAME: &str = "prometheus.WriteRequest";
const V2_NAME: &str = "io.prometheus.write.v2.Request";

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
        .arg(
            Arg::new("protobuf_message")
                .long("protobuf_message")
                .value_name("NAME")
                .value_parser([V1_NAME, V2_NAME])
                .default_value(V1_NAME)
                .help("The message to send: that of remote write 1.0 or 2.0."),
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
        say!("Parsing {name}");
        if code(push(matches, input.as_deref()).map_err(|e| format!("  FAILED: {name}: {e}"))) == 0 {
            say!("  SUCCESS: metrics pushed to remote write");
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
    let (version, content_type, number) = match text(matches, "protobuf_message") {
        V2_NAME => {
            (MessageVersion::V2, "application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0")
        }
        _ => (MessageVersion::V1, "application/x-protobuf", "0.1.0"),
    };
    let mut packer = Packer {
        labels: &labels,
        version,
        now_ms: i64::try_from(now).unwrap_or(i64::MAX),
        entries: Vec::new(),
        families: Described::default(),
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
        (CONTENT_TYPE, content_type),
        (CONTENT_ENCODING, "snappy"),
        (HeaderName::from_static("x-prometheus-remote-write-version"), number),
    ];
    block_on(async {
        let mut metadata = metadata_1(&packer.families.families());
        let families = Families::default();
        families.refresh(&packer.families);
        for entries in packer.entries.chunks(SERIES_PER_REQUEST) {
            let message = match version {
                MessageVersion::V1 => {
                    let mut message = version_1(entries.iter());
                    message.append(&mut metadata);
                    message
                }
                MessageVersion::V2 => version_2(entries, &families),
            };
            let packed = snap::raw::Encoder::new().compress_vec(&message).map_err(|e| e.to_string())?;
            let (status, answer) = client.send(&url, &headers, Some(Bytes::from(packed))).await?;
            if !status.is_success() {
                return Err(format!("the server answered {status}: {}", answer.trim_end()));
            }
        }
        Ok(())
    })?
}

/// What the input says about its families.
#[derive(Default)]
struct Described(BTreeMap<String, Metadata>);

impl Described {
    fn of(&mut self, family: &str) -> &mut Metadata {
        self.0.entry(family.to_owned()).or_default()
    }
}

impl MetadataSource for Described {
    fn families(&self) -> Vec<(String, Metadata)> {
        self.0.iter().map(|(name, metadata)| (name.clone(), metadata.clone())).collect()
    }
}

/// Turns what is parsed into what is sent.
struct Packer<'a> {
    labels: &'a [(&'a str, &'a str)],
    version: MessageVersion,
    now_ms: i64,
    entries: Vec<Entry>,
    families: Described,
    fault: String,
}

impl Sink for Packer<'_> {
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        self.families.of(family).help = text.into();
        Ok(())
    }

    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        self.families.of(family).metric_type = metric_type;
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
        self.entries.push(Entry {
            series: Arc::new(Identity::new(self.version, &builder.build())),
            t_ms: sample.timestamp_ms.unwrap_or(self.now_ms),
            start_ms: 0,
            content: Content::Float(sample.value),
        });
        Ok(())
    }

    fn native_exemplars(&mut self, _exemplars: &[Exemplar]) {}

    fn histogram(&mut self, _: &SeriesView<'_>, _: HistogramValue, _: &SampleView<'_>) -> Result<(), Stop> {
        self.fault = "the text format has no native histograms".into();
        Err(Stop)
    }
}
