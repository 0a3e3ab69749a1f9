//! [`Metrics`]: the registry a service's parts add their metrics to and `/metrics` is rendered from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

mod durations;
mod exemplar;
mod process;
mod prometheus;
mod runtime;
mod series;
mod settings;

pub use durations::Durations;
pub use runtime::SchedulingDelay;
pub use series::Series;
pub use settings::MetricsSettings;

use exemplar::Exemplars;

/// The metrics of one service. A clone is the same registry; there is no global one, so that two services in one
/// process, as tests have them, never mix.
///
/// A metric of your own is one line where it is declared and one where it counts:
///
/// ```
/// # use mainstay_telemetry::Metrics;
/// # let metrics = Metrics::new(); // `app.metrics()` in a `build` function
/// let placed = metrics.counters("shop_orders_placed", "Orders placed", &["channel"]);
/// placed.with(&["web"]).inc();
/// assert!(metrics.render().contains(r#"shop_orders_placed_total{channel="web"} 1"#));
/// ```
///
/// The values of labels are words of a small set: kinds, outcomes, routes. A name of a customer is none. A family keeps
/// at most [`Series::LIMIT`] combinations all the same.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    exemplars: Exemplars,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number of things that happened. `_total` is appended to `name`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, None, Counter::default())
    }

    /// As [`Metrics::counter`], for each combination of labels.
    pub fn counters(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Series<Counter> {
        self.register(name, help, None, Series::new(labels))
    }

    /// A number of things that are.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, None, Gauge::default())
    }

    /// As [`Metrics::gauge`], for each combination of labels.
    pub fn gauges(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Series<Gauge> {
        self.register(name, help, None, Series::new(labels))
    }

    /// How long something took. `_seconds` is appended to `name`.
    pub fn durations(&self, name: &str, help: &str, labels: &'static [&'static str]) -> Series<Durations> {
        let series = self.register(name, help, Some(Unit::Seconds), Series::new(labels));
        self.0.exemplars.add(format!("{name}_seconds"), &series);
        series
    }

    /// Adds `metric` and hands it back; keep a clone to count with. The unit, if any, is appended to `name`, as
    /// Prometheus asks.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M {
        let mut registry = self.registry();
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
            None => registry.register(name, help, metric.clone()),
        }
        metric
    }

    /// Adds metrics that are read anew for each scrape.
    pub fn collect(&self, collector: impl Collector) {
        self.registry().register_collector(Box::new(collector));
    }

    /// Adds the metrics of the process and of the runtime that calls: processor time, memory, files, workers, tasks.
    pub fn watch_process(&self) {
        self.collect(process::Process::new());
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            self.collect(runtime::Runtime::new(&handle));
        }
    }

    /// All metrics in the OpenMetrics text format, with exemplars.
    pub fn render(&self) -> String {
        self.0.exemplars.write_into(self.encode())
    }

    /// All metrics in the text format of Prometheus, version 0.0.4, which knows no exemplars.
    pub fn render_prometheus(&self) -> String {
        prometheus::from_openmetrics(&self.encode())
    }

    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// The media type of [`Metrics::render_prometheus`].
    pub const PROMETHEUS_CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry()) {
            Ok(()) => out,
            Err(fmt::Error) => out, // writing to a `String` can't fail
        }
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests;
