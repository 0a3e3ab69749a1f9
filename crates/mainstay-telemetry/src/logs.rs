//! Logs: one line per event on standard output, JSON for machines or pretty for a terminal.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::exported::Exported;
use self::json::JsonLines;
use self::pretty::Pretty;
use self::repeats::{Repeats, Unrepeated};
use crate::export::Queue;

mod exported;
mod json;
mod known;
mod pretty;
mod repeats;

/// The section `log`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct LogSettings {
    /// What is logged, in the words of `RUST_LOG`: a level, or `target=level` parts with commas. What RabbitMQ's client says of
    /// its channels, which is an error of the service only where the service says so, is left out unless a part names `lapin`.
    pub filter: String,
    /// `json`, `pretty`, or `auto`: pretty on a terminal and JSON elsewhere.
    pub format: LogFormat,
    /// How many lines a second one place in the code may log; 0 is no limit. What is above is counted, and the count is
    /// logged: an error storm fills no disk.
    pub repeats: u32,
    /// Whether lines are also exported by OTLP, to the collector of `trace.endpoint`. What is logged while there is no
    /// exporter yet, or none any more, is on standard output only.
    pub export: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Auto, repeats: 1000, export: false }
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

/// The logger of a process, to change what it logs while it runs. A clone is the same logger.
#[derive(Clone, Default)]
pub struct LogControl(Option<Arc<Control>>);

struct Control {
    filter: Mutex<String>,
    reload: reload::Handle<EnvFilter, Registry>,
    repeats: Arc<Repeats>,
    exported: Exported,
}

impl LogControl {
    /// What is logged now, in the words of `RUST_LOG`; `None` where the process has a logger that isn't ours, as in tests.
    pub fn filter(&self) -> Option<String> {
        Some(self.0.as_ref()?.filter.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Logs by `filter` from now on, until the process ends, and returns the filter before.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a filter that can't be read; [`Code::Unimplemented`] where the logger isn't ours.
    pub fn set_filter(&self, filter: &str) -> Result<String> {
        let Some(control) = &self.0 else {
            let message =
                "this process has a logger that Mainstay didn't install: change what it logs where it is made";
            return Err(Error::new(Code::Unimplemented, message));
        };
        let parsed = parse(filter.trim())?;
        let mut current = control.filter.lock().unwrap_or_else(PoisonError::into_inner);
        control.reload.reload(parsed).map_err(Error::from_any)?;
        Ok(std::mem::replace(&mut current, filter.trim().to_owned()))
    }

    /// Hands every line to `queue` too, from now on; a second call changes nothing.
    pub(crate) fn export_to(&self, queue: Queue) {
        if let Some(control) = &self.0 {
            control.exported.begin(queue);
        }
    }

    /// Logs how many lines were left out since the last such line, where any were. A service calls it every few seconds
    /// and at its end, so that also a storm that ends suddenly is told of.
    pub fn tell_of_repeats(&self) {
        if let Some(control) = &self.0 {
            control.repeats.tell();
        }
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&self.filter()).finish()
    }
}

/// Installs the process's logger.
///
/// Every line carries `trace_id`, `span_id`, `request_id` and `principal` of the
/// [`Context`](mainstay_core::Context::scope) that it is logged in, as far as that has them.
///
/// A process has one logger; where one is installed already, as in tests, it stays and this does nothing.
///
/// # Errors
/// [`Code::InvalidArgument`] for a filter that can't be read.
pub fn start_logging(settings: &LogSettings) -> Result<LogControl> {
    let (subscriber, control) = logger(settings, std::io::stdout)?;
    // An error means that a logger is installed already.
    let installed = subscriber.try_init().is_ok();
    Ok(if installed { control } else { LogControl::default() })
}

/// A logger that writes to `writer`, for a test or a program that installs it itself.
///
/// # Errors
/// [`Code::InvalidArgument`] for a filter that can't be read.
pub fn logger<W>(
    settings: &LogSettings,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + for<'a> tracing_subscriber::registry::LookupSpan<'a> + use<W>, LogControl)>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = parse(&settings.filter).map_err(|error| error.context("log.filter"))?;
    let (filter, reload) = reload::Layer::new(filter);
    let repeats = Arc::new(Repeats::new(settings.repeats));
    let lines = if settings.format.is_pretty() {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
        lines.event_format(Pretty(repeats.clone())).boxed()
    } else {
        JsonLines { writer, repeats: repeats.clone() }.boxed()
    };
    let (unrepeated, exported) = (Unrepeated(repeats.clone()), Exported::default());
    let control = Control { filter: Mutex::new(settings.filter.clone()), reload, repeats, exported: exported.clone() };
    Ok((
        tracing_subscriber::registry().with(filter).with(unrepeated).with(lines).with(exported),
        LogControl(Some(Arc::new(control))),
    ))
}

/// RabbitMQ's client logs as an error what its caller is told and expects, as the answer to "is this queue there?".
const TOLD_TWICE: &str = "lapin";

fn parse(filter: &str) -> Result<EnvFilter> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        let message = format!(
            "log.filter: can't read `{filter}`: {error}; expected a level (error, warn, info, debug, trace) or parts such \
             as info,my_crate=debug"
        );
        Error::new(Code::InvalidArgument, message)
    })?;
    match format!("{TOLD_TWICE}::channel=off").parse() {
        Ok(off) if !filter.contains(TOLD_TWICE) => Ok(parsed.add_directive(off)),
        _ => Ok(parsed),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::Lines as Captured;
