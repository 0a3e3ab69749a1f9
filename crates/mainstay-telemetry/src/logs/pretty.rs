//! [`Pretty`]: log lines for eyes, with the identity of the context they are logged in.

use std::fmt;
use std::sync::Arc;

use mainstay_core::Context;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::registry::LookupSpan;

use super::known::Known;
use super::repeats::{LEFT_OUT, LeftOut, Repeats};

/// How an event becomes a line, and what was left out since the last one another.
pub(super) struct Pretty(pub(super) Arc<Repeats>);

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Written here and not logged: while a thread logs, tracing throws away what it logs besides.
        self.0.in_passing(|left_out| {
            let _ = tell(&mut writer, &left_out);
        });
        let mut line = String::with_capacity(256);
        let ansi = writer.has_ansi_escapes();
        let format = format::Format::default().with_target(false).with_ansi(ansi);
        format.format_event(ctx, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end())?;
        let mut known = Known::default();
        event.record(&mut known);
        Context::current(|context| identity(context, &known, |name, value| write!(writer, " {name}={value}")))?;
        writer.write_char('\n')
    }
}

fn tell(writer: &mut Writer<'_>, left_out: &LeftOut<'_>) -> fmt::Result {
    let LeftOut { lines, of, level, place, limit } = left_out;
    SystemTime.format_time(writer)?;
    writeln!(writer, "  WARN {LEFT_OUT} left_out={lines} of={of} of_level={level} place={place} limit={limit}")
}

impl Visit for Known {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.note(field.name());
    }
}

fn identity(
    context: Option<&Context>,
    known: &Known,
    mut add: impl FnMut(&str, fmt::Arguments<'_>) -> fmt::Result,
) -> fmt::Result {
    let Some(context) = context else { return Ok(()) };
    if let Some(trace) = context.trace() {
        if !known.trace {
            add("trace_id", format_args!("{:032x}", trace.trace_id))?;
        }
        if !known.span {
            add("span_id", format_args!("{:016x}", trace.span_id))?;
        }
    }
    if let (Some(id), false) = (context.request_id(), known.request) {
        add("request_id", format_args!("{}", id.as_str()))?;
    }
    if let (Some(principal), false) = (context.principal(), known.principal) {
        add("principal", format_args!("{}", principal.subject))?;
    }
    Ok(())
}
