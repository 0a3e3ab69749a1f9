//! [`Span`]: a piece of work of a trace, while it goes on and once it has ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainstay_core::{Context, Error, Trace};
use tokio::time::Instant;

use super::random;
use super::text::Text;
use super::tracer::Recording;

/// What a span is to whoever is on its other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanKind {
    /// Work inside of the service.
    Internal,
    /// A request that was received.
    Server,
    /// A request that was sent.
    Client,
    /// A message that was published.
    Producer,
    /// A message that was received.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Text.
    Text(Text),
    /// A whole number.
    Int(i64),
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Attribute {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Attribute {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct FinishedSpan {
    /// The trace it belongs to.
    pub trace_id: u128,
    /// Its own id.
    pub span_id: u64,
    /// The id of the span it is a part of; 0 for the first of a trace.
    pub parent_id: u64,
    /// What it is called.
    pub name: Text,
    /// What it is to the other side.
    pub kind: SpanKind,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What is said about it, by the names of the OpenTelemetry conventions.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Spans of which it is no part and that it comes from.
    pub links: Vec<(u128, u64)>,
    /// Why it failed, or `None`. A code and no message: what a message says may be a secret.
    pub error: Option<&'static str>,
}

impl FinishedSpan {
    /// The attribute `name`, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| match value {
            Attribute::Text(text) => text.to_string(),
            Attribute::Int(number) => number.to_string(),
        })
    }

    /// Nanoseconds since 1970 at its beginning and its end.
    pub(crate) fn times(&self) -> (u64, u64) {
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        (nanos(began), nanos(began + self.took))
    }
}

/// A span that goes on until it is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    recording: Recording,
    ctx: Context,
    began: Instant,
    /// How long it took, where that has been measured already.
    lasted: Option<Duration>,
    /// Whether what it is the root of has ended with it.
    root: bool,
    span: Option<FinishedSpan>,
}

impl Span {
    /// Begins a part of `parent`'s trace. `ctx` is who the span's own context is a child of.
    pub(super) fn begin(
        recording: Recording,
        ctx: &Context,
        parent: &Trace,
        (kind, name): (SpanKind, Text),
        root: bool,
    ) -> Self {
        let trace = Trace { span_id: random::span_id(), ..parent.clone() };
        let span = FinishedSpan {
            trace_id: trace.trace_id,
            span_id: trace.span_id,
            parent_id: parent.span_id,
            name,
            kind,
            began: UNIX_EPOCH, // until it ends
            took: Duration::ZERO,
            attributes: Vec::with_capacity(8), // a request has five, a statement three, an event seven
            links: Vec::new(),
            error: None,
        };
        let ctx = ctx.with_trace(trace);
        let ctx = if root { ctx.with_value(recording.clone()) } else { ctx };
        Self { recording, ctx, began: Instant::now(), lasted: None, root, span: Some(span) }
    }

    /// The context of what the span is made of: calls under it are its children.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Says `value` of it, under a name of the OpenTelemetry conventions.
    pub fn set(&mut self, name: &'static str, value: impl Into<Attribute>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// Gives it another name, for what is known only at its end.
    pub fn rename(&mut self, name: impl Into<Text>) {
        if let Some(span) = &mut self.span {
            span.name = name.into();
        }
    }

    /// Says that it comes from `trace` without being a part of that.
    pub fn link(&mut self, trace: &Trace) {
        if let Some(span) = &mut self.span {
            span.links.push((trace.trace_id, trace.span_id));
        }
    }

    /// Says that it began earlier, `ago` before now.
    pub fn backdate(&mut self, ago: Duration) {
        self.began = Instant::now().checked_sub(ago).unwrap_or(self.began);
    }

    /// Says that it took `duration`, for what is measured anyway, and ends it.
    pub fn end_after(mut self, duration: Duration) {
        self.lasted = Some(duration);
    }

    /// Says that it has failed with `kind`, a word of a small set.
    pub fn fail(&mut self, kind: &'static str) {
        if let Some(span) = &mut self.span {
            span.error = Some(kind);
            span.attributes.push(("error.type", kind.into()));
        }
    }

    /// Says that it has failed, if `result` is an error.
    pub fn outcome<T>(&mut self, result: &Result<T, Error>) {
        if let Err(error) = result {
            self.fail(error.code().name());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.took = self.lasted.unwrap_or_else(|| self.began.elapsed());
            let now = SystemTime::now();
            span.began = now.checked_sub(span.took).unwrap_or(now);
            self.recording.finish(span, self.root);
        }
    }
}
