//! [`Configuration`]: everything a service is told, with where each word of it came from.

use std::path::PathBuf;
use std::time::Duration;

use mainstay_admin::AdminSettings;
use mainstay_core::SecretUrl;
use mainstay_core::settings::{self, Loader, Setting};
use mainstay_core::{Budgets, Error, Result};
use mainstay_events::EventsSettings;
use mainstay_http::HttpSettings;
use mainstay_sql::DatabaseSettings;
use mainstay_telemetry::trace::TraceSettings;
use mainstay_telemetry::{LogSettings, MetricsSettings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::brokers;

/// The settings of a service that has none of its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct NoSettings {}

/// The section `shutdown`: how long starting and stopping may take.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct ShutdownSettings {
    /// For everything that starts, with its retries, before the start is given up.
    #[serde(with = "settings::duration")]
    pub start: Duration,
    /// Between "not ready" and refusing connections: longer than the readiness period of the load balancer. On a
    /// terminal it is 0, whatever is set.
    #[serde(with = "settings::duration")]
    pub settle: Duration,
    /// For finishing what is in hand and closing everything. With `settle` it stays below the 30 s that Kubernetes
    /// waits before it kills.
    #[serde(with = "settings::duration")]
    pub stop: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { start: seconds(60), settle: seconds(3), stop: seconds(25) }
    }
}

impl From<ShutdownSettings> for Budgets {
    fn from(settings: ShutdownSettings) -> Self {
        Self { start: settings.start, settle: settings.settle, stop: settings.stop }
    }
}

/// Everything a service named `name` is told: the framework's sections and the service's own settings `S`.
#[derive(Clone, Debug)]
pub struct Configuration<S> {
    /// The service's name; its environment variables begin with it.
    pub name: &'static str,
    /// The section `http`.
    pub http: HttpSettings,
    /// The section `grpc`.
    #[cfg(feature = "grpc")]
    pub grpc: mainstay_grpc::GrpcSettings,
    /// The section `admin`.
    pub admin: AdminSettings,
    /// The section `database`.
    pub database: DatabaseSettings,
    /// The section `events`.
    pub events: EventsSettings,
    /// The section `log`.
    pub log: LogSettings,
    /// The section `trace`.
    pub trace: TraceSettings,
    /// The section `metrics`.
    pub metrics: MetricsSettings,
    /// The section `shutdown`.
    pub shutdown: ShutdownSettings,
    /// Everything else.
    pub own: S,
    /// Every key with its value and source, for the command `config`.
    pub effective: Vec<Setting>,
}

impl<S: Default + Serialize + DeserializeOwned> Configuration<S> {
    /// Reads the configuration of the process: `config.yaml` (or `file`), `config.<env>.yaml`, the environment.
    ///
    /// # Errors
    /// A message of one screen: each wrong key, where its value came from, what was expected.
    pub fn load(name: &'static str, file: Option<PathBuf>) -> Result<Self> {
        Self::from_loader(name, Loader::new(name).config_file(file))
    }

    /// As [`Configuration::load`], from a loader whose files and environment you chose.
    ///
    /// # Errors
    /// As [`Configuration::load`].
    pub fn from_loader(name: &'static str, loader: Loader) -> Result<Self> {
        let mut sources = loader
            .default_value("database.url", format!("sqlite://data/{name}.db"))
            .alias("DATABASE_URL", "database.url")
            .alias("RUST_LOG", "log.filter")
            .alias("OTEL_EXPORTER_OTLP_ENDPOINT", "trace.endpoint")
            .alias("OTEL_EXPORTER_OTLP_HEADERS", "trace.headers")
            .alias("EVENTS_URL", "events.url")
            .alias("CACHE_URL", "cache.url")
            .load()?;
        // To tell of all mistakes at once, the results are looked at only when every section was read.
        let (http, admin) = (sources.section("http"), sources.section("admin"));
        let (database, log, shutdown) =
            (sources.section("database"), sources.section("log"), sources.section("shutdown"));
        #[cfg(feature = "grpc")]
        let grpc = sources.section("grpc");
        let (events, trace, metrics) =
            (sources.section("events"), sources.section("trace"), sources.section("metrics"));
        let later: Result<Later> = sources.section("cache");
        let own = sources.rest();
        let mut effective = sources.finish()?;
        refuse_what_comes_later(later, &mut effective)?;
        let configuration = Self {
            name,
            http: http?,
            #[cfg(feature = "grpc")]
            grpc: grpc?,
            admin: admin?,
            database: database?,
            events: events?,
            log: log?,
            trace: trace?,
            metrics: metrics?,
            shutdown: shutdown?,
            own: own?,
            effective,
        };
        configuration.validated()
    }

    fn validated(self) -> Result<Self> {
        let at = |error: Error| error.context(self.origin("events.url"));
        self.events.validate()?;
        if let Some(url) = self.events.external_broker() {
            brokers::named(url).map_err(at)?;
        }
        self.trace.validate()?;
        for (key, wanted) in [("log.export", self.log.export), ("metrics.export", !self.metrics.export.is_zero())] {
            if wanted && self.trace.endpoint.trim().is_empty() {
                let message =
                    "expected a collector to export to: set trace.endpoint too (and trace.sample to 0 for no traces)";
                return Err(Error::invalid_argument(format!("{}: {message}", self.origin(key))));
            }
        }
        let ShutdownSettings { start, stop, .. } = self.shutdown;
        for (key, duration) in [("shutdown.start", start), ("shutdown.stop", stop)] {
            if duration.is_zero() {
                return Err(Error::invalid_argument(format!("{key}: expected a duration above 0")));
            }
        }
        Ok(self)
    }
}

impl<S> Configuration<S> {
    /// The key with where its value came from, for errors about that value: `database.url (config.yaml:3:8)`.
    pub(crate) fn origin(&self, key: &str) -> String {
        match self.effective.iter().find(|setting| setting.key == key) {
            Some(setting) => format!("{key} ({})", setting.source),
            None => key.to_owned(),
        }
    }
}

/// A section that a later version will know.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Later {
    url: SecretUrl,
}

/// Saying nothing would let a service run on something else than its operator asked for.
fn refuse_what_comes_later(section: Result<Later>, effective: &mut Vec<Setting>) -> Result<()> {
    let key = "cache.url";
    if !section?.url.expose().is_empty() {
        let source = effective.iter().find(|setting| setting.key == key).map(|setting| setting.source.to_string());
        let source = source.unwrap_or_default();
        return Err(Error::invalid_argument(format!("{key} ({source}): not supported yet by this version; remove it")));
    }
    effective.retain(|setting| setting.key != key);
    Ok(())
}
