//! Logs: one line per event on standard output, JSON for machines or pretty for a terminal.

use std::io::IsTerminal;

use mainstay_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The section `log`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct LogSettings {
    /// What is logged, in the words of `RUST_LOG`: a level, or `target=level` parts with commas.
    pub filter: String,
    /// `json`, `pretty`, or `auto`: pretty on a terminal and JSON elsewhere.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For eyes.
    Pretty,
}

impl LogFormat {
    /// Whether lines are pretty, with `auto` resolved by what standard output is.
    pub fn is_pretty(self) -> bool {
        match self {
            LogFormat::Auto => std::io::stdout().is_terminal(),
            LogFormat::Json => false,
            LogFormat::Pretty => true,
        }
    }
}

/// Installs the process's logger.
///
/// A process has one logger; where one is installed already, as in tests, it stays and this does nothing.
///
/// # Errors
/// [`Code::InvalidArgument`] for a filter that can't be read.
pub fn start_logging(settings: &LogSettings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| {
        let message = format!(
            "log.filter: can't read `{}`: {error}; expected a level (error, warn, info, debug, trace) or parts such as \
             info,my_crate=debug",
            settings.filter
        );
        Error::new(Code::InvalidArgument, message)
    })?;
    let lines = if settings.format.is_pretty() {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        fmt::layer().with_ansi(colours).with_target(false).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    // An error means that a logger is installed already.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_says_what_was_expected() {
        let settings = LogSettings { filter: "mainstay=loud".to_owned(), ..LogSettings::default() };
        let error = start_logging(&settings).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("mainstay=loud") && error.message().contains("debug"), "{error}");
    }
}
