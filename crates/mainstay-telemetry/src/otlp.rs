//! What a collector is sent by OTLP: spans, log lines and metrics in protobuf, written by hand. The messages of a protocol
//! that only ever grows are less than the code that would be generated for them, and cost no allocation per field.
//!
//! The numbers are those of `opentelemetry/proto/{trace,logs,metrics}/v1`, version 1.

use mainstay_core::Context;
use tracing::Event;

use crate::proto::Proto;

mod logs;
mod metrics;
mod spans;

pub(crate) use metrics::Points;

use crate::trace::{Attribute, FinishedSpan};

/// Spans as a parcel carries them.
pub(crate) fn spans(spans: &[FinishedSpan]) -> Vec<u8> {
    let mut out = Proto::with_capacity(spans.len() * 512);
    spans.iter().for_each(|span| out.message(2, |out| spans::write(out, span)));
    out.into_bytes()
}

/// A log line as a parcel carries it.
pub(crate) fn line(event: &Event<'_>, context: Option<&Context>) -> Vec<u8> {
    let mut out = Proto::with_capacity(512);
    out.message(2, |out| logs::write(out, event, context));
    out.into_bytes()
}

/// An `ExportTraceServiceRequest` or `ExportLogsServiceRequest`: up to the spans and the lines they are the same.
pub(crate) fn parcel(service: &str, bytes: &[u8]) -> Vec<u8> {
    request(service, bytes.len(), |scope| scope.raw(bytes))
}

/// An `ExportMetricsServiceRequest` with what `/metrics` shows.
pub(crate) fn metrics(service: &str, points: &Points<'_>) -> Vec<u8> {
    request(service, points.size(), |scope| points.write(scope))
}

/// The frame that all three have: one resource, which is this process, with one scope, which is this framework.
fn request(service: &str, size: usize, write: impl FnOnce(&mut Proto)) -> Vec<u8> {
    let mut out = Proto::with_capacity(size + 256);
    out.message(1, |of_resource| {
        of_resource.message(1, |resource| {
            let process = i64::from(std::process::id());
            attribute(resource, 1, "service.name", &Attribute::Text(service.to_owned().into()));
            attribute(resource, 1, "process.pid", &Attribute::Int(process));
            attribute(resource, 1, "telemetry.sdk.name", &"mainstay".into());
            attribute(resource, 1, "telemetry.sdk.language", &"rust".into());
            attribute(resource, 1, "telemetry.sdk.version", &env!("CARGO_PKG_VERSION").into());
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.text(1, "mainstay");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            write(of_scope);
        });
    });
    out.into_bytes()
}

fn attribute(out: &mut Proto, field: u32, name: &str, value: &Attribute) {
    out.message(field, |pair| {
        pair.text(1, name);
        pair.message(2, |any| match value {
            Attribute::Text(text) => any.text(1, text),
            Attribute::Int(number) => any.int(3, number.cast_unsigned()),
        });
    });
}
