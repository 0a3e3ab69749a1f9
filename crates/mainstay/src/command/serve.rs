//! `serve`: the life of the service.

use std::io::IsTerminal;
use std::time::Duration;

use mainstay_core::{Context, Phase, Result};
use mainstay_http::Handover;
use mainstay_sql::DatabaseSettings;

use super::out;
use crate::activation::Activation;
use crate::app::App;
use crate::configuration::Configuration;
use crate::notify::{notify, watchdog};
use crate::service::Service;
use crate::signals;

/// Runs until a signal. `Ok(true)` is a clean end.
pub(crate) async fn serve<S>(mut app: App<S>, activation: Activation) -> Result<bool> {
    if std::io::stdout().is_terminal() {
        app.configuration.shutdown.settle = Duration::ZERO; // nobody balances load to a terminal
    }
    let whereabouts = Whereabouts::of(&app);
    if activation.http.is_some() {
        app.configuration.http.handover = Handover::Off; // the sockets pass from process to process by the manager
    }
    if let Some(socket) = &activation.admin {
        // Who may see what follows from where it really listens.
        app.configuration.admin.addr = socket.local_addr()?;
    }
    let service = Service::assemble(app).on(activation);
    signals::stop_on_signals(service.stopper())?;
    let (mut phase, addresses) = (service.phase(), service.addresses());
    tokio::spawn(async move {
        if phase.wait_for(|phase| *phase >= Phase::Ready).await.is_ok_and(|phase| *phase == Phase::Ready)
            && let Some((http, admin)) = addresses()
        {
            whereabouts.announce(&http.to_string(), &admin.to_string());
            notify("READY=1");
            tokio::spawn(watchdog());
            if phase.wait_for(|phase| *phase >= Phase::Draining).await.is_ok() {
                notify("STOPPING=1");
            }
        }
    });

    let report = service.run(&Context::background()).await;
    for line in report.to_string().lines() {
        tracing::warn!("{line}");
    }
    let clean = report.is_clean();
    match report.error {
        Some(error) => Err(error),
        None => {
            tracing::info!(clean, "stopped");
            Ok(clean)
        }
    }
}

/// Where to look, said once the service is ready.
struct Whereabouts {
    name: &'static str,
    pretty: bool,
    /// The database's URL, masked, and the file if it is one.
    database: Option<String>,
    /// The broker's URL, masked.
    events: Option<String>,
}

impl Whereabouts {
    fn of<S>(app: &App<S>) -> Self {
        let Configuration { name, log, database, events, .. } = &app.configuration;
        let database = app.database.as_ref().map(|_| describe(database));
        let url = events.external_broker().map_or("embedded".to_owned(), ToString::to_string);
        Self { name, pretty: log.format.is_pretty(), database, events: app.events.as_ref().map(|_| url) }
    }

    fn announce(&self, http: &str, admin: &str) {
        let [database, events] = [&self.database, &self.events].map(|told| told.as_deref().unwrap_or("none"));
        if !self.pretty {
            tracing::info!(service = self.name, http, admin, database, events, "ready");
            return;
        }
        let text = format!(
            "\n  {} is ready\n\n    service   http://{http}\n    admin     http://{admin}   (API explorer at /docs, \
             /metrics, /readyz)\n    database  {database}\n    events    {events}\n\n  Ctrl-C stops it in order.\n\n",
            self.name
        );
        // A terminal that is gone has nobody to read this.
        let _ = out(&text);
    }
}

fn describe(settings: &DatabaseSettings) -> String {
    match settings.sqlite_path() {
        // Told before the start, which makes the file and its folder where they are missing.
        Some(path) if path.exists() => format!("SQLite in {}", path.display()),
        Some(path) => format!("SQLite in {}, made just now", path.display()),
        None => settings.url.to_string(),
    }
}
