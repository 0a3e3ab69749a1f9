//! [`Metrics`]: the registry a service's parts add their metrics to and `/metrics` is rendered from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::registry::{Metric, Registry, Unit};

/// The metrics of one service. A clone is the same registry; there is no global one, so that two services in one
/// process, as tests have them, never mix.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `metric` and hands it back; keep a clone to count with. The unit, if any, is appended to `name`, as
    /// Prometheus asks.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
            None => registry.register(name, help, metric.clone()),
        }
        metric
    }

    /// All metrics in the OpenMetrics text format, whose media type is [`Metrics::CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut out = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            Err(fmt::Error) => out, // writing to a `String` can't fail
        }
    }

    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
