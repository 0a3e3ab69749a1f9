//! [`Logs`]: what a service under test has logged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// One log line, taken apart.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Its level.
    pub level: Level,
    /// Where it comes from, as `mainstay::access`.
    pub target: String,
    /// Its text.
    pub message: String,
    /// Its other fields, as text; among them `trace_id`, `span_id`, `request_id` and `principal` of its context.
    pub fields: BTreeMap<String, String>,
}

/// Lines in the order they were logged. A clone sees the same lines, also later ones.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<LogLine>>>);

impl Logs {
    /// All lines so far.
    pub fn lines(&self) -> Vec<LogLine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines so far that come from `target`.
    pub fn with_target(&self, target: &str) -> impl Iterator<Item = LogLine> {
        self.lines().into_iter().filter(move |line| line.target == target)
    }

    /// Whether `text` stands in the message or a field of any line so far.
    pub fn contain(&self, text: &str) -> bool {
        self.lines()
            .iter()
            .any(|line| line.message.contains(text) || line.fields.values().any(|field| field.contains(text)))
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

/// Collects events into [`Logs`].
pub(crate) struct Collector(pub(crate) Logs);

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = LogLine {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut Fields(&mut line));
        mainstay_core::Context::current(|ctx| identify(&mut line, ctx));
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The identity that the service's own logger adds, under the same names.
fn identify(line: &mut LogLine, ctx: Option<&mainstay_core::Context>) {
    let Some(ctx) = ctx else { return };
    let trace = ctx.trace();
    let identity = [
        ("trace_id", trace.map(|trace| format!("{:032x}", trace.trace_id))),
        ("span_id", trace.map(|trace| format!("{:016x}", trace.span_id))),
        ("request_id", ctx.request_id().map(ToString::to_string)),
        ("principal", ctx.principal().map(|principal| principal.subject.clone())),
    ];
    for (name, value) in identity {
        if let Some(value) = value {
            line.fields.entry(name.to_owned()).or_insert(value);
        }
    }
}

struct Fields<'a>(&'a mut LogLine);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.0.message = text,
            name => {
                self.0.fields.insert(name.to_owned(), text);
            }
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
