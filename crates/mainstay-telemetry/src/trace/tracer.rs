//! [`Tracer`]: decides which traces are recorded, and hands what was recorded to those who want it.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mainstay_core::{Context, Trace};

use super::buffer::{Buffer, KeptTrace};
use super::random;
use super::settings::TraceSettings;
use super::span::{FinishedSpan, Span, SpanKind};
use super::text::Text;
use crate::export::{Exporter, Queue};
use crate::otlp;
use crate::{Metrics, Send};

/// Spans that one request or event may have: a loop over statements fills no memory. Further ones are counted as dropped.
const SPANS_AT_ONCE: usize = 1_000;

/// Decides about the traces of one service. A clone is the same tracer.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    /// Traces whose id is below this are exported.
    threshold: u64,
    queue: Option<Queue>,
    buffer: Option<Buffer>,
    /// For tests.
    collected: OnceLock<Mutex<Vec<FinishedSpan>>>,
}

impl Tracer {
    /// A tracer by `settings`, and the exporter to run if they name a collector, which is given to `send` in the form of
    /// OTLP's protobuf.
    pub fn new(
        service: &str,
        settings: &TraceSettings,
        metrics: &Metrics,
        send: impl FnOnce() -> Send,
    ) -> (Self, Option<Exporter>) {
        let exporter = (!settings.endpoint.trim().is_empty()).then(|| Exporter::new(service, metrics, send()));
        let buffer = (settings.keep > 0).then(|| Buffer::new(settings.keep, settings.slow));
        let inner = Inner {
            threshold: threshold(settings.sample),
            queue: exporter.as_ref().map(Exporter::queue),
            buffer,
            collected: OnceLock::new(),
        };
        (Self(Arc::new(inner)), exporter)
    }

    /// A tracer that records nothing.
    pub fn off() -> Self {
        let (threshold, collected) = (0, OnceLock::new());
        Self(Arc::new(Inner { threshold, queue: None, buffer: None, collected }))
    }

    /// The tracer that `ctx` carries, if it carries one; see [`Tracer::carry`].
    pub fn of(ctx: &Context) -> Option<&Self> {
        ctx.value::<Self>()
    }

    /// A child of `ctx` that carries this tracer to the parts of the service that begin traces of their own.
    #[must_use]
    pub fn carry(&self, ctx: &Context) -> Context {
        ctx.with_value(self.clone())
    }

    /// Begins this service's part of a trace. `from` is the caller's or the publisher's span, which becomes the parent;
    /// without one a new trace begins.
    ///
    /// Returns `None` when nobody wants the spans. Then the trace goes on as it came.
    pub fn begin(
        &self,
        ctx: &Context,
        from: Option<&Trace>,
        kind: SpanKind,
        name: impl FnOnce() -> Text,
    ) -> Option<Span> {
        let inner = &*self.0;
        if inner.queue.is_none() && inner.buffer.is_none() && inner.collected.get().is_none() {
            return None;
        }
        let parent = match from {
            Some(from) => Cow::Borrowed(from),
            None => Cow::Owned(self.root()),
        };
        let sampled = parent.flags & 1 == 1;
        let wanted = (sampled && inner.queue.is_some()) || inner.buffer.is_some() || inner.collected.get().is_some();
        if !wanted {
            return None;
        }
        let recorded = Recorded { tracer: self.clone(), sampled, spans: Mutex::new(Some(Vec::new())) };
        Some(Span::begin(Recording(Arc::new(recorded)), ctx, &parent, (kind, name()), true))
    }

    /// Decides about a trace that begins here: sets the flag that says to everybody after that it is recorded.
    pub fn sample(&self, trace: &mut Trace) {
        // The low half of the id is random also where the high half is a time, as some systems have it.
        let recorded = self.0.queue.is_some() && (trace.trace_id as u64) <= self.0.threshold && self.0.threshold > 0;
        trace.flags = if recorded { trace.flags | 1 } else { trace.flags & !1 };
    }

    /// Keeps every span from now on, for a test; [`Tracer::collected`] shows them.
    pub fn collect(&self) {
        self.0.collected.get_or_init(Mutex::default);
    }

    /// The spans that have ended since [`Tracer::collect`].
    pub fn collected(&self) -> Vec<FinishedSpan> {
        let collected = self.0.collected.get();
        collected.map(|spans| spans.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// The failed and slow ones, newest first; see [`TraceSettings::keep`].
    pub fn kept(&self) -> Vec<KeptTrace> {
        self.0.buffer.as_ref().map(Buffer::newest_first).unwrap_or_default()
    }

    /// A trace of which the span that begins is the first: nobody's child.
    fn root(&self) -> Trace {
        let mut trace = Trace { trace_id: random::trace_id(), span_id: 0, flags: 0, state: None, baggage: None };
        self.sample(&mut trace);
        trace
    }

    fn deliver(&self, spans: &[FinishedSpan], sampled: bool, root: Option<Duration>) {
        if let Some(collected) = self.0.collected.get() {
            collected.lock().unwrap_or_else(PoisonError::into_inner).extend(spans.iter().cloned());
        }
        if let (Some(buffer), Some(took)) = (&self.0.buffer, root) {
            buffer.offer(spans, took);
        }
        if let (Some(queue), true) = (&self.0.queue, sampled) {
            queue.push(spans.len(), |out| otlp::spans(out, spans));
        }
    }
}

/// The highest id that is sampled at `ratio`; 0 is none.
fn threshold(ratio: f64) -> u64 {
    // Saturates at both ends, so that 1 is all.
    (ratio * u64::MAX as f64) as u64
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("exports", &self.0.queue.is_some()).finish_non_exhaustive()
    }
}

/// The spans of one request or event, until it ends: they are handed on together. Carried by the context.
#[derive(Clone)]
pub(super) struct Recording(Arc<Recorded>);

struct Recorded {
    tracer: Tracer,
    sampled: bool,
    /// `None` once the root has ended. What outlives it, as a detached handler's commit, is handed on by itself.
    spans: Mutex<Option<Vec<FinishedSpan>>>,
}

impl Recording {
    pub(super) fn finish(&self, span: FinishedSpan, root: bool) {
        let recorded = &*self.0;
        let took = span.took;
        let mut open = recorded.spans.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *open, root) {
            (Some(spans), false) if spans.len() >= SPANS_AT_ONCE => {
                if let Some(queue) = &recorded.tracer.0.queue {
                    queue.dropped(1);
                }
            }
            (Some(spans), false) => spans.push(span),
            (_, root) => {
                let mut spans = if root { open.take().unwrap_or_default() } else { Vec::new() };
                drop(open);
                let took = root.then_some(took);
                if spans.is_empty() {
                    return recorded.tracer.deliver(std::slice::from_ref(&span), recorded.sampled, took);
                }
                spans.push(span);
                recorded.tracer.deliver(&spans, recorded.sampled, took);
            }
        }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("sampled", &self.0.sampled).finish_non_exhaustive()
    }
}

/// Begins a span of what `ctx` is a part of, if that is recorded. It ends when it is dropped.
pub fn span(ctx: &Context, kind: SpanKind, name: impl FnOnce() -> Text) -> Option<Span> {
    let recording = ctx.value::<Recording>()?;
    let parent = ctx.trace()?;
    Some(Span::begin(recording.clone(), ctx, parent, (kind, name()), false))
}

/// The context to work in: the span's own where there is one, and otherwise `ctx`.
pub fn context<'a>(span: &'a Option<Span>, ctx: &'a Context) -> &'a Context {
    span.as_ref().map_or(ctx, Span::context)
}
