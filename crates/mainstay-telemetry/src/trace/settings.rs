//! The section `trace`.

use std::time::Duration;

use mainstay_core::settings::duration;
use mainstay_core::{Error, Result, Secret};
use serde::{Deserialize, Serialize};

/// The section `trace`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct TraceSettings {
    /// Where an OpenTelemetry collector takes OTLP over HTTP, as `http://collector:4318`; `/v1/traces` is appended. Empty:
    /// nothing is exported. `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too.
    pub endpoint: String,
    /// Headers for the collector, as `name=value,name=value`.
    pub headers: Secret,
    /// Which part of the traces that begin here is exported, from 0 to 1. One that a caller began is exported if the caller
    /// says that it is.
    pub sample: f64,
    /// How many failed or slow requests and events are kept in memory with all their spans, sampled or not, for
    /// `/debug/traces` on the admin port. 0 keeps none, and builds no span for it.
    pub keep: usize,
    /// What counts as slow there.
    #[serde(with = "duration")]
    pub slow: Duration,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { endpoint: String::new(), headers: Secret::default(), sample: 1.0, keep: 0, slow: Duration::from_secs(1) }
    }
}

impl TraceSettings {
    /// Checks what no type can.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) that names the key and what was expected.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.sample) {
            let message = format!("trace.sample: expected a number from 0 to 1, got {}", self.sample);
            return Err(Error::invalid_argument(message));
        }
        let endpoint = self.endpoint.trim();
        if !endpoint.is_empty() && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            let message = format!("trace.endpoint: expected a URL as `http://collector:4318`, got `{endpoint}`");
            return Err(Error::invalid_argument(message));
        }
        Ok(())
    }
}
