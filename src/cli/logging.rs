//! What do log lines look like? As Prometheus's: `time=… level=INFO source=… msg="…" key=value`, or JSON objects with
//! the same keys, on standard error.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as subscriber_fmt};

/// How lines are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Logfmt,
    /// One object a line.
    Json,
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else if !field.name().starts_with("log.") {
            self.others.push((field.name(), value));
        }
    }
}

/// A value of a logfmt line: quoted where it is not one plain word. Control characters are escaped, so that outside
/// text cannot forge lines.
fn logfmt_value(value: &str, out: &mut String) {
    let plain = !value.is_empty()
        && value.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '"' | '=' | '\\'));
    if plain {
        out.push_str(value);
    } else {
        // Writing to a String cannot fail.
        let _ = crate::model::labels::write_quoted(out, value);
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        let level = metadata.level().as_str();
        let file = metadata.file().unwrap_or("").rsplit('/').next().unwrap_or("");
        let source = format!("{file}:{}", metadata.line().unwrap_or(0));
        let mut line = String::with_capacity(128);
        match self {
            Format::Logfmt => {
                let _ = write!(line, "time={time} level={level} source={source} msg=");
                let _ = crate::model::labels::write_quoted(&mut line, &fields.message);
                for (name, value) in &fields.others {
                    let _ = write!(line, " {name}=");
                    logfmt_value(value, &mut line);
                }
            }
            Format::Json => {
                let mut out = Vec::with_capacity(128);
                let mut object = crate::api::json::Object::open(&mut out);
                object
                    .text("time", &time)
                    .text("level", level)
                    .text("source", &source)
                    .text("msg", &fields.message);
                for (name, value) in &fields.others {
                    object.text(name, value);
                }
                object.close();
                line = String::from_utf8_lossy(&out).into_owned();
            }
        }
        writeln!(writer, "{line}")
    }
}

/// Starts logging; call once.
pub fn init(level: &str, format: Format) {
    // Libraries below are quiet unless asked for loudly: their info is our debug.
    let directives = match level {
        "debug" => "debug,hyper=info,h2=info,rustls=info,reqwest=info,hyper_util=info".to_owned(),
        level => format!("{level},hyper=warn,h2=warn,rustls=warn,reqwest=warn,hyper_util=warn"),
    };
    let filter = EnvFilter::new(directives);
    let layer = subscriber_fmt::layer().event_format(format).with_writer(std::io::stderr).with_ansi(false);
    // A second call (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

#[cfg(test)]
mod tests {
    use super::logfmt_value;

    #[test]
    fn values_cannot_forge_lines() {
        for (value, want) in [
            ("plain", "plain"),
            ("two words", "\"two words\""),
            ("", "\"\""),
            ("a\nlevel=ERROR", "\"a\\nlevel=ERROR\""),
        ] {
            let mut out = String::new();
            logfmt_value(value, &mut out);
            assert_eq!(out, want);
        }
    }
}
