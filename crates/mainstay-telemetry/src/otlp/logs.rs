//! A log line as a `LogRecord`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_core::Context;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::proto::Proto;

/// The line of `event`, logged in `context`, with the identity that its line on standard output has.
pub(super) fn write(out: &mut Proto, event: &Event<'_>, context: Option<&Context>) {
    let metadata = event.metadata();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    out.fixed64(1, now);
    out.int(2, severity(*metadata.level()));
    out.text(3, metadata.level().as_str());
    let mut fields = Fields { out };
    event.record(&mut fields);
    fields.text("target", metadata.target());
    if let Some(context) = context {
        if let Some(id) = context.request_id() {
            fields.text("request_id", id.as_str());
        }
        if let Some(principal) = context.principal() {
            fields.text("principal", &principal.subject);
        }
        if let Some(trace) = context.trace() {
            out.bytes(9, &trace.trace_id.to_be_bytes());
            out.bytes(10, &trace.span_id.to_be_bytes());
        }
    }
    out.fixed64(11, now);
}

fn severity(level: Level) -> u64 {
    match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    }
}

/// The message is the body, every other field an attribute.
struct Fields<'a> {
    out: &'a mut Proto,
}

impl Fields<'_> {
    fn value(&mut self, name: &str, write: impl FnOnce(&mut Proto)) {
        if name == "message" {
            return self.out.message(5, write);
        }
        self.out.message(6, |pair| {
            pair.text(1, name);
            pair.message(2, write);
        });
    }

    fn text(&mut self, name: &str, value: &str) {
        self.value(name, |any| any.text(1, value));
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field.name(), |any| any.int(2, value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field.name(), |any| any.int(3, value.cast_unsigned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // OTLP has signed numbers only.
        self.value(field.name(), |any| any.int(3, value.min(i64::MAX as u64)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field.name(), |any| any.fixed64(4, value.to_bits()));
    }
}
