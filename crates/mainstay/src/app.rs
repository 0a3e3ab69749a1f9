//! [`App`]: the declaration of a service.

use std::sync::Arc;

use mainstay_core::{Component, Result};
use mainstay_events::{Consumer, Events};
use mainstay_http::Routes;
use mainstay_sql::Db;
use mainstay_sql::migrate::Migrations;
use mainstay_telemetry::{Health, Importance, Metrics};

use crate::configuration::{Configuration, NoSettings};

/// What a service is made of, declared by its `build` function.
///
/// Declaring connects to nothing and starts nothing: the same `build` serves `serve`, `routes`, `openapi`, `config`
/// and the tests. Parts start in the order they were declared and stop in the opposite one; the HTTP server starts
/// last and stops first.
pub struct App<S = NoSettings> {
    pub(crate) configuration: Configuration<S>,
    pub(crate) metrics: Metrics,
    pub(crate) database: Option<(Db, Migrations)>,
    pub(crate) events: Option<Events>,
    pub(crate) components: Vec<Arc<dyn Component>>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) routes: Routes,
}

/// What readiness depends on, kept until there is a [`Health`] to tell.
pub(crate) type Dependency = Box<dyn FnOnce(&Health) + Send>;

impl<S> App<S> {
    pub(crate) fn new(configuration: Configuration<S>) -> Self {
        Self {
            configuration,
            metrics: Metrics::new(),
            database: None,
            events: None,
            components: Vec::new(),
            dependencies: Vec::new(),
            routes: Routes::new(),
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
            return Err(mainstay_core::Error::internal("`App::database` was called twice; clone the first `Db`"));
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
    /// Settings that can't work. A second call: a service has its events once.
    pub fn events(&mut self, db: &Db) -> Result<Events> {
        if self.events.is_some() {
            return Err(mainstay_core::Error::internal("`App::events` was called twice; clone the first `Events`"));
        }
        let (settings, name) = (self.configuration.events.clone(), self.configuration.name);
        let mut events = Events::new(db, settings, name, &self.metrics)?;
        if !self.configuration.database.migrate_on_start {
            events = events.without_migration()?;
        }
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
