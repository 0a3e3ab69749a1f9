//! Traces: which spans are built, and where they go.
//!
//! A span costs something, so that one is built only if somebody wants it: an exporter for the traces that are sampled,
//! the buffer of slow and failed ones, or a test. Where nobody does, [`span`] is one look into the context.
//!
//! A part of the framework that does something worth a span begins it from its context, works under the span's own, and
//! lets it go:
//!
//! ```
//! # use mainstay_core::Context;
//! use mainstay_telemetry::trace::{self, SpanKind};
//!
//! # async fn ask(_: &Context) {}
//! async fn load(ctx: &Context) {
//!     let span = trace::span(ctx, SpanKind::Client, || "GET".into());
//!     let ctx = trace::context(&span, ctx);
//!     ask(&ctx).await;
//! } // the span ends here
//! ```

mod buffer;
mod random;
mod settings;
mod span;
mod text;
mod tracer;

pub use buffer::KeptTrace;
pub use settings::TraceSettings;
pub use span::{Attribute, FinishedSpan, Span, SpanKind};
pub use text::Text;
pub use tracer::{Tracer, context, span};

#[cfg(test)]
mod tests;
