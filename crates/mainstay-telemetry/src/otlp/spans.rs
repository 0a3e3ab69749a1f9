//! A span as OTLP's `Span`.

use super::attribute;
use crate::proto::Proto;
use crate::trace::{FinishedSpan, SpanKind};

pub(super) fn write(out: &mut Proto, span: &FinishedSpan) {
    let (began, ended) = span.times();
    out.bytes(1, &span.trace_id.to_be_bytes());
    out.bytes(2, &span.span_id.to_be_bytes());
    if span.parent_id != 0 {
        out.bytes(4, &span.parent_id.to_be_bytes());
    }
    out.text(5, &span.name);
    out.int(
        6,
        match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
    );
    out.fixed64(7, began);
    out.fixed64(8, ended);
    for (name, value) in &span.attributes {
        attribute(out, 9, name, value);
    }
    for (trace_id, span_id) in &span.links {
        out.message(13, |link| {
            link.bytes(1, &trace_id.to_be_bytes());
            link.bytes(2, &span_id.to_be_bytes());
        });
    }
    if let Some(error) = span.error {
        out.message(15, |status| {
            status.text(2, error);
            status.int(3, 2);
        });
    }
}
