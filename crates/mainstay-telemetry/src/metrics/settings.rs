//! The section `metrics`.

use std::time::Duration;

use mainstay_core::settings::duration;
use serde::{Deserialize, Serialize};

/// The section `metrics`. They are at `/metrics` on the admin port whatever it says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct MetricsSettings {
    /// How often they are also exported by OTLP, under the same names, to the collector of `trace.endpoint`: a minute is
    /// usual, a second the least. 0 is never.
    #[serde(with = "duration")]
    pub export: Duration,
}
