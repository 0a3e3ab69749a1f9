//! [`Known`]: what an event says itself of whom it belongs to.

/// The keys of an identity that the event has itself; the rest comes from the context.
#[derive(Default)]
pub(super) struct Known {
    pub(super) trace: bool,
    pub(super) span: bool,
    pub(super) request: bool,
    pub(super) principal: bool,
}

impl Known {
    pub(super) fn note(&mut self, name: &str) {
        match name {
            "trace_id" => self.trace = true,
            "span_id" => self.span = true,
            "request_id" => self.request = true,
            "principal" => self.principal = true,
            _ => {}
        }
    }
}
