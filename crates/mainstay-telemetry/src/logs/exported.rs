//! [`Exported`]: log lines on their way to a collector.

use std::sync::{Arc, OnceLock};

use mainstay_core::Context;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{self, Layer};

use crate::export::{Queue, THREAD};
use crate::otlp;

/// Copies lines into the exporter's queue, once there is one; until then it costs a look. A clone is the same.
#[derive(Clone, Default)]
pub(super) struct Exported(Arc<OnceLock<Queue>>);

impl Exported {
    pub(super) fn begin(&self, queue: Queue) {
        let _ = self.0.set(queue);
    }
}

impl<S: Subscriber> Layer<S> for Exported {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let Some(queue) = self.0.get() else { return };
        if std::thread::current().name() != Some(THREAD) {
            queue.push(1, |out| Context::current(|context| otlp::line(out, event, context)));
        }
    }
}
