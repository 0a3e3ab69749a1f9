//! [`Service`]: a built app that is ready to live.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_admin::Admin;
use mainstay_core::{Context, Lifecycle, Phase, Report, Result, Stopper};
use mainstay_http::{HttpSettings, Server};
use mainstay_telemetry::trace::Tracer;
use mainstay_telemetry::{Health, InHand, Metrics};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::activation::Activation;
use crate::admin_port::AdminPort;
use crate::app::App;
use crate::configuration::Configuration;
use crate::handover::Handover;
use crate::parts::{DatabasePart, Telling, Watching};

/// A service that was built and can be run, once.
///
/// [`run`](crate::run) does this for a program; tests and programs with a `main` of their own do it themselves.
pub struct Service {
    lifecycle: Lifecycle,
    handover: Option<Handover>,
    http: Arc<Server>,
    admin: Arc<Server>,
    admin_port: Arc<AdminPort>,
    metrics: Metrics,
    tracer: Tracer,
    in_hand: InHand,
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
        #[cfg(feature = "grpc")]
        let mut app = app;
        #[cfg(feature = "grpc")]
        let grpc = std::mem::take(&mut app.grpc);
        let App { configuration, metrics, logs, database, components, dependencies, routes, .. } = app;
        let mut lifecycle = Lifecycle::new(configuration.shutdown.into());
        metrics.watch_process();
        let (tracer, exporter) = Tracer::new(configuration.name, &configuration.trace, &metrics, || {
            crate::export::to_collector(&configuration.trace)
        });
        let health = Health::new(lifecycle.phase());
        for depend in dependencies {
            depend(&health);
        }

        #[cfg(feature = "grpc")]
        let (calls, routes) = crate::calls::place(grpc, &configuration, &health, &metrics, &tracer, routes);

        warn_of_exposure(&configuration);
        let in_hand = InHand::default();
        let admin = Admin {
            service: configuration.name.to_owned(),
            settings: configuration.admin.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            logs: logs.clone(),
            components: lifecycle.roster(),
            in_hand: in_hand.clone(),
            tracer: tracer.clone(),
            openapi: crate::command::openapi(&configuration, &routes),
        };
        // The admin port answers from the first moment to the last: it starts first and stops last.
        let handover = configuration.http.handover;
        let mut admin_settings = HttpSettings { addr: configuration.admin.addr, handover, ..HttpSettings::default() };
        // A profile takes as long as was asked for, and some seconds to be written down.
        admin_settings.request_timeout += mainstay_telemetry::profile::LONGEST;
        let admin = Server::new("admin", admin_settings, admin.into_router(), &Metrics::new())
            .with_address_hint(address_hint(configuration.name, "ADMIN", configuration.admin.addr));
        let http = Server::new("http", configuration.http.clone(), routes, &metrics).with_tracer(tracer.clone());
        let http = http.with_register(in_hand.clone());
        let http = http.with_address_hint(address_hint(configuration.name, "HTTP", configuration.http.addr));
        let (admin, http) = (Arc::new(admin), Arc::new(http));
        let servers = vec![(configuration.http.addr, http.clone()), (configuration.admin.addr, admin.clone())];
        #[cfg(feature = "grpc")]
        let servers = servers
            .into_iter()
            .chain(calls.clone().zip(configuration.grpc.addr).map(|(calls, addr)| (addr, calls)))
            .collect();
        let admin_port = Arc::new(AdminPort::new(admin.clone()));
        if handover == mainstay_http::Handover::Reuseport {
            admin_port.be_patient();
        }
        let handover = hand_over(&configuration, servers, &lifecycle);

        lifecycle.add(admin_port.clone());
        lifecycle.add(Arc::new(Telling::new(logs.clone(), &metrics)));
        if let Some(mut exporter) = exporter {
            if configuration.log.export {
                exporter = exporter.with_logs(&logs, &metrics);
            }
            if !configuration.metrics.export.is_zero() {
                exporter = exporter.with_metrics(&metrics, configuration.metrics.export);
            }
            lifecycle.add(Arc::new(exporter));
        }
        if let Some((db, migrations)) = database {
            let migrate = configuration.database.migrate_on_start;
            lifecycle.add(Arc::new(DatabasePart::new(db, migrations, migrate, configuration.origin("database.url"))));
        }
        for component in components {
            lifecycle.add(component);
        }
        // Started when everything that it looks at has started.
        lifecycle.add(Arc::new(Watching { health, metrics: metrics.clone() }));
        #[cfg(feature = "grpc")]
        if let Some(calls) = calls {
            lifecycle.add(calls);
        }
        lifecycle.add(http.clone());
        if let Some(handover) = &handover {
            lifecycle.add(Arc::new(handover.answering()));
        }
        Self { lifecycle, handover, http, admin, admin_port, metrics, tracer, in_hand }
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

    /// What decides about the service's traces.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
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
        if let Some(handover) = &self.handover
            && handover.take_over().await
        {
            self.admin_port.be_patient();
        }
        self.lifecycle.run(&self.in_hand.carry(&self.tracer.carry(ctx))).await
    }
}

/// The hand-over, where it is wanted and possible: nobody can look for a port that the kernel chooses.
fn hand_over<S>(
    configuration: &Configuration<S>,
    servers: Vec<(SocketAddr, Arc<Server>)>,
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

/// An admin port that others can reach and nobody can open is as safe as one on loopback, and less useful than meant.
fn warn_of_exposure<S>(configuration: &Configuration<S>) {
    let admin = &configuration.admin;
    if admin.is_exposed() && !admin.has_token() {
        let variable = format!("{}_ADMIN__TOKEN", configuration.name.to_uppercase().replace('-', "_"));
        tracing::warn!(
            addr = %admin.addr,
            "the admin port listens off loopback without a token: only /livez, /readyz, /startupz and /metrics will \
             answer; set admin.token ({variable}) to open the rest, or admin.addr to a loopback address"
        );
    }
}

/// How to have the next free-looking port instead of a taken one.
fn address_hint(name: &str, section: &str, addr: SocketAddr) -> String {
    let mut other = addr;
    other.set_port(addr.port().checked_add(1).unwrap_or(1024));
    let prefix = name.to_uppercase().replace('-', "_");
    format!("{prefix}_{section}__ADDR={other} cargo run")
}
