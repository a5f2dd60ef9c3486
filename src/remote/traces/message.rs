//! Spans as messages of OpenTelemetry. Field numbers are those of `opentelemetry-proto` 1.x.

use crate::remote::wire_out::{bytes, fixed64, signed, text, unsigned};
use crate::telemetry::spans::{Attribute, FinishedSpan, SpanKind};

fn message(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    fill(&mut content);
    bytes(out, number, &content);
}

fn attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &Attribute) {
    message(out, number, |pair| {
        text(pair, 1, key);
        // A oneof: its member is written even when it is empty.
        message(pair, 2, |any| match value {
            Attribute::Text(v) => bytes(any, 1, v.as_bytes()),
            Attribute::Int(0) => any.extend([3 << 3, 0]),
            Attribute::Int(v) => signed(any, 3, *v),
        });
    });
}

fn span(out: &mut Vec<u8>, span: &FinishedSpan) {
    bytes(out, 1, &span.trace_id.to_be_bytes());
    bytes(out, 2, &span.span_id.to_be_bytes());
    if span.parent_id != 0 {
        bytes(out, 4, &span.parent_id.to_be_bytes());
    }
    text(out, 5, &span.name);
    let kind = match span.kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    };
    unsigned(out, 6, kind);
    fixed64(out, 7, span.start_ns);
    fixed64(out, 8, span.end_ns);
    for (key, value) in &span.attributes {
        attribute(out, 9, key, value);
    }
    if let Some(why) = &span.failure {
        message(out, 15, |status| {
            text(status, 2, why);
            unsigned(status, 3, 2);
        });
    }
}

/// An `ExportTraceServiceRequest` with spans of one process, which its resource describes.
#[must_use]
pub fn request(spans: &[FinishedSpan], resource: &[(&str, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(spans.len() * 256);
    message(&mut out, 1, |resource_spans| {
        message(resource_spans, 1, |described| {
            for (key, value) in resource {
                attribute(described, 1, key, &Attribute::Text(value.clone()));
            }
        });
        message(resource_spans, 2, |scope_spans| {
            message(scope_spans, 1, |scope| text(scope, 1, "meerkat"));
            for finished in spans {
                message(scope_spans, 2, |one| span(one, finished));
            }
        });
    });
    out
}
