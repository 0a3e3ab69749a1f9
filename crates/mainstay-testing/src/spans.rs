//! [`Spans`]: what a service under test has recorded of its traces.

use mainstay::telemetry::trace::FinishedSpan;

/// The spans that had ended when it was made, each with its attributes.
#[derive(Clone, Debug)]
pub struct Spans(pub(crate) Vec<FinishedSpan>);

impl Spans {
    /// All of them, those of one request or event together.
    pub fn all(&self) -> &[FinishedSpan] {
        &self.0
    }

    /// Those called `name`, as `GET /v1/orders/{id}`.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FinishedSpan> {
        self.0.iter().filter(move |span| span.name == name)
    }

    /// The parts of `span`.
    pub fn children<'a>(&'a self, span: &'a FinishedSpan) -> impl Iterator<Item = &'a FinishedSpan> {
        let mine = |child: &FinishedSpan| child.trace_id == span.trace_id && child.parent_id == span.span_id;
        self.0.iter().filter(move |child| mine(child))
    }
}
