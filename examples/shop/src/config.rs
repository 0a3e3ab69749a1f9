//! The shop's own settings, beside those of the framework.

use serde::{Deserialize, Serialize};

/// Everything in `config.yaml` that Mainstay does not know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Settings {
    /// How long lists are.
    pub paging: Paging,
}

/// The section `paging`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct Paging {
    /// Items per page when a request names no limit.
    pub default_limit: u32,
    /// The largest limit a request may name.
    pub max_limit: u32,
}

impl Default for Paging {
    fn default() -> Self {
        Self { default_limit: 50, max_limit: 200 }
    }
}
