//! [`Service`]: a built app that is ready to live.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_admin::Admin;
use mainstay_core::{Context, Lifecycle, Phase, Report, Result, Stopper};
use mainstay_http::{HttpSettings, Server};
use mainstay_telemetry::{Health, Metrics};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::activation::Activation;
use crate::app::App;
use crate::configuration::Configuration;
use crate::handover::Handover;
use crate::parts::DatabasePart;

/// A service that was built and can be run, once.
///
/// [`run`](crate::run) does this for a program; tests and programs with a `main` of their own do it themselves.
pub struct Service {
    lifecycle: Lifecycle,
    handover: Option<Handover>,
    http: Arc<Server>,
    admin: Arc<Server>,
    metrics: Metrics,
}

impl Service {
    /// Builds a service from its configuration.
    ///
    /// # Errors
    /// What `build` refused.
    pub fn new<S>(configuration: Configuration<S>, build: impl FnOnce(&mut App<S>) -> Result<()>) -> Result<Self>
    where
        S: Default + Serialize + DeserializeOwned,
    {
        let mut app = App::new(configuration);
        build(&mut app)?;
        Ok(Self::assemble(app))
    }

    pub(crate) fn assemble<S>(app: App<S>) -> Self {
        let App { configuration, metrics, database, components, dependencies, routes, .. } = app;
        let mut lifecycle = Lifecycle::new(configuration.shutdown.into());
        let health = Health::new(lifecycle.phase());
        for depend in dependencies {
            depend(&health);
        }

        let admin = Admin {
            service: configuration.name.to_owned(),
            health,
            metrics: metrics.clone(),
            openapi: crate::command::openapi(&configuration, &routes),
        };
        // The admin port answers from the first moment to the last: it starts first and stops last.
        let handover = configuration.http.handover;
        let admin_settings = HttpSettings { addr: configuration.admin.addr, handover, ..HttpSettings::default() };
        let admin = Server::new("admin", admin_settings, admin.into_router(), &Metrics::new())
            .with_address_hint(address_hint(configuration.name, "ADMIN", configuration.admin.addr));
        let http = Server::new("http", configuration.http.clone(), routes, &metrics).with_address_hint(address_hint(
            configuration.name,
            "HTTP",
            configuration.http.addr,
        ));
        let (admin, http) = (Arc::new(admin), Arc::new(http));
        let servers = [(configuration.http.addr, http.clone()), (configuration.admin.addr, admin.clone())];
        let handover = hand_over(&configuration, servers, &lifecycle);

        lifecycle.add(admin.clone());
        if let Some((db, migrations)) = database {
            let migrate = configuration.database.migrate_on_start;
            lifecycle.add(Arc::new(DatabasePart::new(db, migrations, migrate, configuration.origin("database.url"))));
        }
        for component in components {
            lifecycle.add(component);
        }
        lifecycle.add(http.clone());
        if let Some(handover) = &handover {
            lifecycle.add(Arc::new(handover.answering()));
        }
        Self { lifecycle, handover, http, admin, metrics }
    }

    /// Listens on the sockets of a service manager where there are any.
    pub(crate) fn on(self, sockets: Activation) -> Self {
        for (server, socket) in [(&self.http, sockets.http), (&self.admin, sockets.admin)] {
            if let Some(socket) = socket {
                server.adopt(socket);
            }
        }
        self
    }

    /// Asks the service to stop.
    pub fn stopper(&self) -> Stopper {
        self.lifecycle.stopper()
    }

    /// Where the service stands.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.lifecycle.phase()
    }

    /// The service's metrics.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The handles that know the bound addresses, once the service is ready: the service's port and the admin port.
    pub fn addresses(&self) -> impl Fn() -> Option<(SocketAddr, SocketAddr)> + Send + Sync + 'static {
        let (http, admin) = (self.http.clone(), self.admin.clone());
        move || Some((http.local_addr()?, admin.local_addr()?))
    }

    /// Starts everything, runs until it is asked to stop, stops everything in order. Where another process of the
    /// service listens on its address, it takes over from that one; see [`Handover`](mainstay_http::Handover).
    ///
    /// Not cancel safe: see [`Lifecycle::run`].
    pub async fn run(self, ctx: &Context) -> Report {
        if let Some(handover) = &self.handover {
            handover.take_over().await;
        }
        self.lifecycle.run(ctx).await
    }
}

/// The hand-over, where it is wanted and possible: nobody can look for a port that the kernel chooses.
fn hand_over<S>(
    configuration: &Configuration<S>,
    servers: [(SocketAddr, Arc<Server>); 2],
    lifecycle: &Lifecycle,
) -> Option<Handover> {
    let HttpSettings { addr, handover, .. } = &configuration.http;
    if *handover != mainstay_http::Handover::Socket || addr.port() == 0 {
        return None;
    }
    Handover::new(configuration.name, servers, lifecycle.phase(), lifecycle.stopper())
        .inspect_err(|error| tracing::warn!(error = %error.report(), "no other process can take over from this one"))
        .ok()
}

/// How to have the next free-looking port instead of a taken one.
fn address_hint(name: &str, section: &str, addr: SocketAddr) -> String {
    let mut other = addr;
    other.set_port(addr.port().checked_add(1).unwrap_or(1024));
    let prefix = name.to_uppercase().replace('-', "_");
    format!("{prefix}_{section}__ADDR={other} cargo run")
}
