//! [`App`]: the declaration of a service.

use std::sync::Arc;

use mainstay_core::{Component, Error, Result};
use mainstay_events::broker::Broker;
use mainstay_events::{Consumer, Events};
use mainstay_http::{RouteInfo, Routes};
use mainstay_sql::Db;
use mainstay_sql::migrate::Migrations;
use mainstay_telemetry::{Health, Importance, LogControl, Metrics};

use crate::brokers;
use crate::configuration::{Configuration, NoSettings};

/// What a service is made of, declared by its `build` function.
///
/// Declaring connects to nothing and starts nothing: the same `build` serves `serve`, `routes`, `openapi`, `config`
/// and the tests. Parts start in the order they were declared and stop in the opposite one; the HTTP server starts
/// last and stops first.
pub struct App<S = NoSettings> {
    pub(crate) configuration: Configuration<S>,
    pub(crate) metrics: Metrics,
    pub(crate) logs: LogControl,
    pub(crate) database: Option<(Db, Migrations)>,
    pub(crate) events: Option<Events>,
    pub(crate) components: Vec<Arc<dyn Component>>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) routes: Routes,
    #[cfg(feature = "grpc")]
    pub(crate) grpc: mainstay_grpc::Grpc,
}

/// What readiness depends on, kept until there is a [`Health`] to tell.
pub(crate) type Dependency = Box<dyn FnOnce(&Health) + Send>;

impl<S> App<S> {
    pub(crate) fn new(configuration: Configuration<S>) -> Self {
        Self {
            configuration,
            metrics: Metrics::new(),
            logs: LogControl::default(),
            database: None,
            events: None,
            components: Vec::new(),
            dependencies: Vec::new(),
            routes: Routes::new(),
            #[cfg(feature = "grpc")]
            grpc: mainstay_grpc::Grpc::new(),
        }
    }

    /// The service's own settings.
    pub fn settings(&self) -> &S {
        &self.configuration.own
    }

    /// The registry for the service's own metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The service's database, by the section `database`: SQLite in `data/<name>.db` unless a URL says otherwise.
    ///
    /// It connects when the service starts. `serve` applies `migrations` then, unless `database.migrate_on_start` is
    /// off; readiness depends on it.
    ///
    /// # Errors
    /// A URL that can't be read, or a database whose cargo feature is off. A second call: a service has one database.
    pub fn database(&mut self, migrations: Migrations) -> Result<Db> {
        if self.database.is_some() {
            return Err(Error::internal("`App::database` was called twice; clone the first `Db`"));
        }
        let db = Db::new(&self.configuration.database, &self.metrics)
            .map_err(|error| error.context(self.configuration.origin("database.url")))?;
        self.database = Some((db.clone(), migrations));
        let probe = db.clone();
        self.depend("database", Importance::Critical, move |ctx| {
            let db = probe.clone();
            async move { db.ping(&ctx).await }
        });
        Ok(db)
    }

    /// The service's events, in its database, by the section `events`: the embedded broker unless a URL says otherwise.
    ///
    /// Transactions of `db` can publish from now on; see [`Publish`](mainstay_events::Publish). Consumers start after the
    /// database and stop before it, and after everything that is declared later.
    ///
    /// # Errors
    /// Settings that can't work; a broker whose cargo feature (`nats`, `rabbitmq`, `kafka`) is off. A second call: a service
    /// has its events once.
    pub fn events(&mut self, db: &Db) -> Result<Events> {
        let broker = match self.configuration.events.external_broker() {
            Some(url) => Some(brokers::named(url).map_err(|error| error.context(self.origin_of_broker()))?),
            None => None,
        };
        self.declare_events(db, broker)
    }

    /// As [`App::events`], through a broker of your own, which `events.url` knows nothing of.
    ///
    /// # Errors
    /// As [`App::events`]; `events.url` names another one.
    pub fn events_through(&mut self, db: &Db, broker: impl Broker) -> Result<Events> {
        if self.configuration.events.external_broker().is_some() {
            let wrong = Error::invalid_argument("this service brings a broker of its own; remove the setting");
            return Err(wrong.context(self.origin_of_broker()));
        }
        self.declare_events(db, Some(Arc::new(broker)))
    }

    fn origin_of_broker(&self) -> String {
        self.configuration.origin("events.url")
    }

    fn declare_events(&mut self, db: &Db, broker: Option<Arc<dyn Broker>>) -> Result<Events> {
        if self.events.is_some() {
            return Err(Error::internal("`App::events` was called twice; clone the first `Events`"));
        }
        let (settings, name) = (self.configuration.events.clone(), self.configuration.name);
        let mut events = Events::new(db, settings, name, &self.metrics)?;
        if !self.configuration.database.migrate_on_start {
            events = events.without_migration()?;
        }
        if let Some(broker) = broker {
            events = events.through(broker)?;
        }
        let probe = events.clone();
        self.depend("events", Importance::Optional, move |_| std::future::ready(probe.check_route()));
        self.events = Some(events.clone());
        self.component(events.clone());
        Ok(events)
    }

    /// Adds a consumer to the service's events.
    ///
    /// # Errors
    /// A mistake in the program: see [`Events::consume`].
    pub fn consume(&mut self, events: &Events, consumer: impl Consumer) -> Result<()> {
        events.consume(consumer)
    }

    /// Adds routes to the service's port.
    pub fn http<R: Into<Routes>>(&mut self, routes: R) {
        self.routes = std::mem::take(&mut self.routes).merge(routes.into());
    }

    /// Adds a gRPC service, as `OrdersServer::new(…)` of generated code makes it, to the service's port, or to the port of
    /// `grpc.addr`. Health and reflection come with the first one.
    #[cfg(feature = "grpc")]
    pub fn grpc(&mut self, service: mainstay_grpc::Service) {
        self.grpc = std::mem::take(&mut self.grpc).service(service);
    }

    /// Every route, as `routes` lists them.
    pub(crate) fn all_routes(&self) -> Vec<RouteInfo> {
        #[cfg_attr(not(feature = "grpc"), expect(unused_mut, reason = "only gRPC adds to them"))]
        let mut routes = self.routes.routes();
        #[cfg(feature = "grpc")]
        routes.extend(self.grpc.methods());
        routes
    }

    /// Adds a part of your own to the service's life.
    pub fn component(&mut self, component: impl Component) {
        self.components.push(Arc::new(component));
    }

    /// Makes readiness depend on `probe`, which is asked at most once a second and has half a second to answer.
    pub fn depend<F>(
        &mut self,
        name: impl Into<String>,
        importance: Importance,
        probe: impl Fn(mainstay_core::Context) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let name = name.into();
        self.dependencies.push(Box::new(move |health| health.depend(name, importance, probe)));
    }
}
