//! What a collector is sent by OTLP: spans, log lines and metrics in protobuf, written by hand. The messages of a protocol
//! that only ever grows are less than the code that would be generated for them, and cost no allocation per field.
//!
//! The numbers are those of `opentelemetry/proto/{trace,logs,metrics}/v1`, version 1.

use mainstay_core::Context;
use tracing::Event;

use crate::proto::{Open, Proto, bytes_size, varint_size};

mod logs;
mod metrics;
mod spans;

pub(crate) use metrics::Points;

use crate::trace::{Attribute, FinishedSpan};

/// Spans as a parcel carries them.
pub(crate) fn spans(out: &mut Proto, spans: &[FinishedSpan]) {
    spans.iter().for_each(|span| out.message(2, |out| spans::write(out, span)));
}

/// A log line as a parcel carries it.
pub(crate) fn line(out: &mut Proto, event: &Event<'_>, context: Option<&Context>) {
    out.message(2, |out| logs::write(out, event, context));
}

/// An `ExportMetricsServiceRequest` with what `/metrics` shows.
pub(crate) fn metrics(service: &str, points: &Points<'_>) -> Vec<u8> {
    let (mut out, frame) = frame(service, points.size());
    points.write(&mut out);
    frame.close(out.into_bytes())
}

/// What an `ExportTraceServiceRequest`, an `ExportLogsServiceRequest` and one of metrics begin with, which is the same: one
/// resource, which is this process, with one scope, which is this framework. Spans, lines or metrics follow, of `size` bytes.
pub(crate) fn frame(service: &str, size: usize) -> (Proto, Frame) {
    let mut out = Proto::with_capacity(size + 256);
    let of_resource = out.open(1);
    out.message(1, |resource| {
        let process = i64::from(std::process::id());
        attribute(resource, 1, "service.name", &service.to_owned().into());
        attribute(resource, 1, "process.pid", &Attribute::Int(process));
        attribute(resource, 1, "telemetry.sdk.name", &"mainstay".into());
        attribute(resource, 1, "telemetry.sdk.language", &"rust".into());
        attribute(resource, 1, "telemetry.sdk.version", &env!("CARGO_PKG_VERSION").into());
    });
    let of_scope = out.open(2);
    out.message(1, |scope| {
        scope.text(1, "mainstay");
        scope.text(2, env!("CARGO_PKG_VERSION"));
    });
    (out, Frame { of_resource, of_scope })
}

/// A request to a collector that is being written.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    of_resource: Open,
    of_scope: Open,
}

impl Frame {
    /// The request, whole.
    pub(crate) fn close(self, mut bytes: Vec<u8>) -> Vec<u8> {
        self.of_scope.close(&mut bytes);
        self.of_resource.close(&mut bytes);
        bytes
    }
}

fn attribute(out: &mut Proto, field: u32, name: &str, value: &Attribute) {
    // Half a span is attributes, and most of them are short: every key and every length in it is one byte.
    if let Attribute::Text(text) = value
        && field < 16
        && name.len() + text.len() < 120
    {
        let (name_size, text_size) = (name.len() as u8, text.len() as u8);
        out.raw(&[(field << 3 | 2) as u8, name_size + text_size + 6, 1 << 3 | 2, name_size]);
        out.raw(name.as_bytes());
        out.raw(&[2 << 3 | 2, text_size + 2, 1 << 3 | 2, text_size]);
        return out.raw(text.as_bytes());
    }
    let any = match value {
        Attribute::Text(text) => bytes_size(text.len()),
        Attribute::Int(number) => 1 + varint_size(number.cast_unsigned()),
    };
    out.head(field, bytes_size(name.len()) + bytes_size(any));
    out.text(1, name);
    out.head(2, any);
    match value {
        Attribute::Text(text) => out.text(1, text),
        Attribute::Int(number) => out.int(3, number.cast_unsigned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a message that is made of bytes alone, as a reader sees them.
    fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
        fn varint(message: &mut &[u8]) -> u64 {
            let size = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let (bytes, rest) = message.split_at(size);
            *message = rest;
            bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        let mut found = Vec::new();
        while !message.is_empty() {
            let (key, length) = (varint(&mut message), varint(&mut message) as usize);
            assert_eq!(key & 7, 2, "a field of another type");
            let (value, rest) = message.split_at(length);
            message = rest;
            found.push((key >> 3, value));
        }
        found
    }

    #[test]
    fn an_attribute_of_any_length_is_read_back() {
        for length in (0..300).chain([16_383, 16_384, 70_000]) {
            for (field, name) in [(1, "url.path"), (9, "n"), (16, "url.path")] {
                let text = "x".repeat(length);
                let mut out = Proto::with_capacity(0);
                attribute(&mut out, field, name, &text.clone().into());
                let bytes = out.into_bytes();
                let [(number, pair)] = fields(&bytes)[..] else { panic!("{length}: not one attribute") };
                let [(1, key), (2, any)] = fields(pair)[..] else { panic!("{length}: not a key and a value") };
                assert_eq!((number, key), (u64::from(field), name.as_bytes()), "{length}");
                assert_eq!(fields(any), [(1, text.as_bytes())], "{length}");
            }
        }
    }
}
