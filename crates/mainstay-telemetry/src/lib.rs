//! Sight into a running service: logs, metrics and health.

mod metrics;

pub use metrics::Metrics;
/// The metric types to register with [`Metrics`].
pub use prometheus_client;
