//! Which formats are asked for, and which parser does an answer's `Content-Type` select?

use crate::config::ScrapeProtocol;

/// The parsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, any version.
    Text,
    /// OpenMetrics text, any version.
    OpenMetrics,
    /// Delimited protobuf.
    Protobuf,
}

/// The parser for a protocol.
#[must_use]
pub fn protocol_format(protocol: ScrapeProtocol) -> Format {
    match protocol {
        ScrapeProtocol::PrometheusProto => Format::Protobuf,
        ScrapeProtocol::PrometheusText0_0_4 | ScrapeProtocol::PrometheusText1_0_0 => Format::Text,
        ScrapeProtocol::OpenMetricsText0_0_1 | ScrapeProtocol::OpenMetricsText1_0_0 => Format::OpenMetrics,
    }
}

fn protocol_media_type(protocol: ScrapeProtocol) -> &'static str {
    match protocol {
        ScrapeProtocol::PrometheusProto => {
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
        }
        ScrapeProtocol::PrometheusText0_0_4 => "text/plain;version=0.0.4",
        ScrapeProtocol::PrometheusText1_0_0 => "text/plain;version=1.0.0",
        ScrapeProtocol::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
        ScrapeProtocol::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
    }
}

/// The `Accept` header for protocols in order of preference; `escaping` is the name of the escaping scheme.
#[must_use]
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut weight = 6usize;
    for protocol in protocols.iter().take(5) {
        out.push_str(protocol_media_type(*protocol));
        if matches!(protocol, ScrapeProtocol::PrometheusText1_0_0 | ScrapeProtocol::OpenMetricsText1_0_0) {
            let _ = write!(out, ";escaping={escaping}");
        }
        let _ = write!(out, ";q=0.{weight},");
        weight -= 1;
    }
    let _ = write!(out, "*/*;q=0.{weight}");
    out
}

/// The parser for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatChoice {
    /// `None`: the scrape fails.
    pub format: Option<Format>,
    /// What to log or answer when the header did not decide.
    pub warning: Option<String>,
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

/// Splits at `;` outside quotes.
fn parameters(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The media type in lower case, if the header is well formed (RFC 2045, RFC 2183 parameters).
fn media_type(header: &str) -> Result<String, &'static str> {
    let mut parts = parameters(header).into_iter();
    let media = parts.next().unwrap_or("").trim().to_ascii_lowercase();
    if media.is_empty() {
        return Err("mime: no media type");
    }
    let well_formed = match media.split_once('/') {
        Some((kind, subtype)) => is_token(kind) && is_token(subtype),
        None => is_token(&media),
    };
    if !well_formed {
        return Err("mime: expected token after slash");
    }
    let mut seen: Vec<String> = Vec::new();
    let rest: Vec<&str> = parts.collect();
    for (i, parameter) in rest.iter().enumerate() {
        let parameter = parameter.trim();
        if parameter.is_empty() && i + 1 == rest.len() {
            break;
        }
        let Some((name, value)) = parameter.split_once('=') else {
            return Err("mime: invalid media parameter");
        };
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim();
        let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        if !is_token(&name) || !(quoted || is_token(value)) {
            return Err("mime: invalid media parameter");
        }
        if seen.contains(&name) {
            return Err("mime: duplicate parameter name");
        }
        seen.push(name);
    }
    Ok(media)
}

/// The parser that a `Content-Type` header (empty if absent) selects, given the fallback of the scrape configuration.
#[must_use]
pub fn choose_format(content_type: &str, fallback: Option<ScrapeProtocol>) -> FormatChoice {
    let problem = if content_type.is_empty() {
        "non-compliant scrape target sending blank Content-Type".to_owned()
    } else {
        match media_type(content_type) {
            Ok(media) => match media.as_str() {
                "application/openmetrics-text" => {
                    return FormatChoice { format: Some(Format::OpenMetrics), warning: None };
                }
                "application/vnd.google.protobuf" => {
                    return FormatChoice { format: Some(Format::Protobuf), warning: None };
                }
                "text/plain" => return FormatChoice { format: Some(Format::Text), warning: None },
                other => format!("received unsupported Content-Type {other:?}"),
            },
            Err(why) => {
                format!("cannot parse Content-Type {:?}: {why}", super::excerpt(content_type.as_bytes()))
            }
        }
    };
    match fallback {
        Some(protocol) => FormatChoice {
            format: Some(protocol_format(protocol)),
            warning: Some(format!(
                "{problem}, using fallback_scrape_protocol {:?}",
                protocol_media_type(protocol)
            )),
        },
        None => FormatChoice {
            format: None,
            warning: Some(format!("{problem} and no fallback_scrape_protocol specified for target")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_as_prometheus_asks() {
        let protocols = [
            ScrapeProtocol::OpenMetricsText1_0_0,
            ScrapeProtocol::OpenMetricsText0_0_1,
            ScrapeProtocol::PrometheusText1_0_0,
            ScrapeProtocol::PrometheusText0_0_4,
        ];
        assert_eq!(
            accept_header(&protocols, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }
}
