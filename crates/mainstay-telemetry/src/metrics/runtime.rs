//! The runtime: its workers, its tasks, and how long a task that is ready waits for a worker.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::time::Instant;

use super::durations::Durations;
use super::{Metrics, Series};

pub(super) struct Runtime(RuntimeMetrics);

impl Runtime {
    pub(super) fn new(handle: &Handle) -> Self {
        Self(handle.metrics())
    }
}

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.0.num_workers();
        let busy: Duration = (0..workers).map(|worker| self.0.worker_total_busy_duration(worker)).sum();
        encoder
            .encode_descriptor(
                "runtime_busy",
                "Time that workers ran tasks",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&busy.as_secs_f64(), None)?;
        for (name, help, value) in [
            ("runtime_workers", "Threads that run tasks", workers),
            ("runtime_alive_tasks", "Tasks that have not ended", self.0.num_alive_tasks()),
            ("runtime_global_queue_depth", "Tasks that wait for any worker", self.0.global_queue_depth()),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as i64))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// `runtime_scheduling_delay_seconds`: how long a task that is ready waits until it runs. What every request waits for
/// before its first instruction, and the first sign of handlers that burn processor time or block.
#[derive(Clone, Debug)]
pub struct SchedulingDelay(Series<Durations>);

impl SchedulingDelay {
    /// Adds the metric.
    pub fn register(metrics: &Metrics) -> Self {
        Self(metrics.durations("runtime_scheduling_delay", "Time that a ready task waited for a worker", &[]))
    }

    /// Measures it once.
    pub async fn measure(&self) {
        let ready = Instant::now();
        let durations = self.0.with(&[]);
        let _ = tokio::spawn(async move { durations.observe(ready.elapsed()) }).await;
    }
}
