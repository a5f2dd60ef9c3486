//! What does a scraped body say? Parsers for the Prometheus text format, OpenMetrics and the protobuf format, all
//! pushing into one [`Sink`].
//!
//! The parsers walk bytes and never allocate per line. Text formats ask the sink first whether the line begins
//! with the series it expects next ([`Sink::expected`]); if so only the number is parsed. Otherwise the series text
//! is checked by the full grammar and handed over as a [`SeriesView`], which yields labels on demand. The lines of
//! metadata before a family are asked about in the same way ([`Sink::expected_metadata`]). None of the
//! parsers recurses, so no body can exhaust the stack.

mod around;
mod content_type;
mod labels;
mod messages;
mod nhcb;
mod number;
mod openmetrics;
mod protobuf;
mod series_text;
mod text;
#[cfg(test)]
mod twin;
mod wire;

pub use content_type::{Format, FormatChoice, accept_header, choose_format, protocol_format};
pub use labels::{LabelError, PairBuffer};
pub use nhcb::NhcbSink;
pub use number::parse_float;

use crate::model::metadata::{Exemplar, MetricType};
use crate::model::sample::HistogramValue;

/// How a body is to be read; all off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParseOptions {
    /// Add `__type__` and `__unit__` labels from metadata.
    pub type_and_unit_labels: bool,
    /// OpenMetrics: `_created` lines of counters, histograms and summaries become start timestamps.
    pub skip_created: bool,
    /// Turn classic histograms into native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Keep the classic series of a histogram that is also taken in its native form.
    pub always_scrape_classic_histograms: bool,
    /// Protobuf: take native histograms.
    pub scrape_native_histograms: bool,
}

/// The body does not follow its format, or the sink has had enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// What was expected and what was found; of a text format also the number of the line and how it begins.
    #[error("{0}")]
    Syntax(String),
    /// A sink method asked to stop; the sink knows why. In a text format it was at this place, such as
    /// `line 4: "a{b=\"c\"} 1"`.
    #[error("stopped")]
    Stopped(Option<String>),
}

impl ParseError {
    /// Adds where it happened: in the line of a text that starts at `line`.
    #[cold]
    fn placed(self, body: &[u8], line: usize) -> Self {
        let rest = body.get(line..).unwrap_or_default();
        if rest.is_empty() {
            return self;
        }
        let number = 1 + memchr::memchr_iter(b'\n', &body[..line]).count();
        let place = format!("line {number}: {:?}", shortened(rest, LINE_SHOWN));
        match self {
            ParseError::Syntax(why) => ParseError::Syntax(format!("{why} while parsing {place}")),
            ParseError::Stopped(_) => ParseError::Stopped(Some(place)),
        }
    }
}

/// Returned by a sink that wants no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop;

impl From<Stop> for ParseError {
    fn from(_: Stop) -> Self {
        ParseError::Stopped(None)
    }
}

/// The family that metadata lines last spoke of.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// Name with escapes resolved.
    pub name: String,
    /// Its type; unknown until a TYPE line says more.
    pub metric_type: MetricType,
    /// Its unit, often empty.
    pub unit: String,
}

/// Suffixes that a series name may add to the name of its family.
const FAMILY_SUFFIXES: [&[u8]; 8] =
    [b"_bucket", b"_count", b"_sum", b"_total", b"_created", b"_info", b"_gcount", b"_gsum"];

impl Family {
    /// Speaks of `name` from now on; forgets type and unit if that is another family, and says whether it is.
    fn enter(&mut self, name: &str) -> bool {
        if self.name == name {
            return false;
        }
        self.clear();
        self.name.push_str(name);
        true
    }

    /// Speaks of no family.
    fn clear(&mut self) {
        self.name.clear();
        self.metric_type = MetricType::Unknown;
        self.unit.clear();
    }

    /// Whether a series of this name belongs to the family.
    #[must_use]
    pub fn owns(&self, metric_name: &str) -> bool {
        metric_name
            .as_bytes()
            .strip_prefix(self.name.as_bytes())
            .is_some_and(|rest| !self.name.is_empty() && (rest.is_empty() || FAMILY_SUFFIXES.contains(&rest)))
    }

    /// A number that differs when the family changes the labels of the series that follow.
    fn context(&self, options: &ParseOptions) -> u64 {
        let changes = options.type_and_unit_labels
            || matches!(self.metric_type, MetricType::Histogram | MetricType::Summary);
        if !changes {
            return 0;
        }
        let mut hash = xxhash_rust::xxh3::Xxh3::with_seed(1 + self.metric_type as u64);
        hash.update(self.name.as_bytes());
        if options.type_and_unit_labels {
            hash.update(self.unit.as_bytes());
        }
        hash.digest()
    }
}

/// How the text of a [`SeriesView`] is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `name{label="value"}` with lenient blanks.
    Text,
    /// The same without blanks.
    OpenMetrics,
    /// Lengths and bytes, see [`labels::pack_pair`].
    Packed,
}

/// One series as the body names it. Its text identifies it, together with [`SeriesView::context`].
#[derive(Debug, Clone, Copy)]
pub struct SeriesView<'a> {
    text: &'a [u8],
    /// The same, where it is known to be UTF-8.
    valid: Option<&'a str>,
    form: Form,
    family: &'a Family,
    options: &'a ParseOptions,
    context: u64,
}

impl<'a> SeriesView<'a> {
    /// The bytes that name the series.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Differs when the same text means other labels because of metadata before it; mix it into hashes.
    #[must_use]
    pub fn context(&self) -> u64 {
        self.context
    }

    /// The family that metadata last spoke of; it need not be that of the series.
    #[must_use]
    pub fn family(&self) -> &'a Family {
        self.family
    }

    /// Replaces the content of `out` by the labels, sorted, without empty values; `le` and `quantile` normalised,
    /// type and unit labels added.
    ///
    /// # Errors
    ///
    /// A label occurs twice, or a quoted name is not UTF-8.
    pub fn labels(&self, out: &mut PairBuffer) -> Result<(), LabelError> {
        out.clear();
        match self.form {
            Form::Text => series_text::extract(self.text, self.valid, false, out)?,
            Form::OpenMetrics => series_text::extract(self.text, self.valid, true, out)?,
            Form::Packed => labels::unpack(self.text, out)?,
        }
        out.sort()?;
        let family = self.family;
        let matters = self.options.type_and_unit_labels
            || matches!(family.metric_type, MetricType::Histogram | MetricType::Summary);
        if !matters || family.name.is_empty() || !family.owns(out.get(crate::model::METRIC_NAME)) {
            return Ok(());
        }
        match family.metric_type {
            MetricType::Histogram => out.normalise_float("le"),
            MetricType::Summary => out.normalise_float("quantile"),
            _ => {}
        }
        if self.options.type_and_unit_labels {
            if family.metric_type != MetricType::Unknown {
                out.replace("__type__", family.metric_type.as_str());
            }
            if !family.unit.is_empty() {
                out.replace("__unit__", &family.unit);
            }
        }
        Ok(())
    }
}

/// What a line says besides the series.
#[derive(Debug, Clone, Copy)]
pub struct SampleView<'a> {
    /// The value; every NaN is the canonical one, never the staleness marker.
    pub value: f64,
    /// The explicit timestamp in milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Start timestamp in milliseconds, 0 = unknown.
    pub start_ms: i64,
    /// Exemplars in order.
    pub exemplars: &'a [Exemplar],
}

/// Takes what a body says, in order.
pub trait Sink {
    /// `rest` starts at a series of a text format. If it starts with the series that the sink expects next, the
    /// answer is the length of that series' text; the parser verifies that the text ends there.
    fn expected(&mut self, rest: &[u8], context: u64) -> Option<usize> {
        let _ = (rest, context);
        None
    }

    /// `rest` starts at a line of metadata of a text format. If it starts with lines handed to
    /// [`Sink::metadata_block`] before, of another family than the one that metadata spoke of last, and the sink has
    /// nothing to learn from them: their length and the family's type.
    fn expected_metadata(&mut self, rest: &[u8]) -> Option<(usize, MetricType)> {
        let _ = rest;
        None
    }

    /// The lines behind the calls just made, which say all there is about `family`, with their line feeds.
    fn metadata_block(&mut self, lines: &[u8], family: &Family) {
        let _ = (lines, family);
    }

    /// A HELP text.
    fn help(&mut self, family: &str, text: &str) -> Result<(), Stop> {
        let _ = (family, text);
        Ok(())
    }

    /// A TYPE.
    fn metric_type(&mut self, family: &str, metric_type: MetricType) -> Result<(), Stop> {
        let _ = (family, metric_type);
        Ok(())
    }

    /// A UNIT.
    fn unit(&mut self, family: &str, unit: &str) -> Result<(), Stop> {
        let _ = (family, unit);
        Ok(())
    }

    /// A float sample. `known` repeats that [`Sink::expected`] just recognised the series.
    fn series(&mut self, series: &SeriesView<'_>, sample: &SampleView<'_>, known: bool) -> Result<(), Stop>;

    /// The exemplars of the native form of the classic histogram whose series follow; a converter prefers them.
    fn native_exemplars(&mut self, exemplars: &[Exemplar]) {
        let _ = exemplars;
    }

    /// A native histogram sample; `sample.value` means nothing.
    fn histogram(
        &mut self,
        series: &SeriesView<'_>,
        histogram: HistogramValue,
        sample: &SampleView<'_>,
    ) -> Result<(), Stop>;
}

/// Parses a whole body.
///
/// # Errors
///
/// [`ParseError::Syntax`] at the first fault; what came before has been pushed already and must be thrown away by the
/// caller.
pub fn parse<S: Sink>(
    format: Format,
    body: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ParseError> {
    if options.convert_classic_histograms_to_nhcb {
        let mut converting = NhcbSink::new(sink, format == Format::Protobuf, *options);
        parse_plain(format, body, options, &mut converting)?;
        return converting.finish().map_err(ParseError::from);
    }
    parse_plain(format, body, options, sink)
}

fn parse_plain<S: Sink>(
    format: Format,
    body: &[u8],
    options: &ParseOptions,
    sink: &mut S,
) -> Result<(), ParseError> {
    let mut line = 0;
    match format {
        Format::Text => text::parse(body, options, sink, &mut line).map_err(|e| e.placed(body, line)),
        Format::OpenMetrics => {
            openmetrics::parse(body, options, sink, &mut line).map_err(|e| e.placed(body, line))
        }
        Format::Protobuf => protobuf::parse(body, options, sink),
    }
}

/// How much of a bad line an error shows, in bytes.
const LINE_SHOWN: usize = 256;

/// How much of anything else an error shows, in bytes.
const TOKEN_SHOWN: usize = 64;

/// An excerpt of hostile bytes that is safe to print.
fn excerpt(bytes: &[u8]) -> String {
    shortened(bytes, TOKEN_SHOWN)
}

/// The rest of the line, cut after `limit` bytes.
fn shortened(bytes: &[u8], limit: usize) -> String {
    let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
    let shown = String::from_utf8_lossy(&line[..line.len().min(limit)]).into_owned();
    if line.len() > limit { shown + "…" } else { shown }
}

/// The error for something unexpected at `at`.
#[cold]
fn unexpected(what: &str, body: &[u8], at: usize) -> ParseError {
    let found = match body.get(at) {
        None => "end of the body".to_owned(),
        Some(b'\n') => "end of the line".to_owned(),
        Some(_) => format!("{:?}", excerpt(&body[at..])),
    };
    ParseError::Syntax(format!("expected {what}, got {found}"))
}

/// Resolves `\\` and `\n`, and `\"` too where `quotes`; other pairs stay.
fn unescape(raw: &str, quotes: bool, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        match rest.as_bytes().get(at + 1) {
            Some(b'\\') => out.push('\\'),
            Some(b'n') => out.push('\n'),
            Some(b'"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 2..];
    }
    out.push_str(rest);
}
