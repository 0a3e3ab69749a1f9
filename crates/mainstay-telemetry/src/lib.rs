//! Sight into a running service: logs, metrics, traces, profiles and health.

mod export;
mod health;
mod in_hand;
mod logs;
mod metrics;
mod otlp;
pub mod profile;
mod proto;
pub mod trace;

pub use export::{Exporter, Send};
pub use health::{Check, Health, HealthReport, Importance};
pub use in_hand::{InHand, Piecework};
pub use logs::{LogControl, LogFormat, LogSettings, logger, start_logging};
pub use metrics::{Durations, Metrics, MetricsSettings, SchedulingDelay, Series};
/// The metric types to register with [`Metrics`].
pub use prometheus_client;

#[cfg(feature = "heap")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
