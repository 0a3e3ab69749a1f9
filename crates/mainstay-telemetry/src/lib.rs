//! Sight into a running service: logs, metrics and health.

mod health;
mod logs;
mod metrics;

pub use health::{Check, Health, HealthReport, Importance};
pub use logs::{LogFormat, LogSettings, start_logging};
pub use metrics::Metrics;
/// The metric types to register with [`Metrics`].
pub use prometheus_client;
