//! The framework's own components that no other crate has: the database with its migrations, and what telemetry does now and then.

use std::time::Duration;

use mainstay_core::{BoxFuture, Component, Context, Result};
use mainstay_sql::Db;
use mainstay_sql::migrate::{Migrations, Migrator};
use mainstay_telemetry::{Health, LogControl, Metrics, SchedulingDelay};

/// The database as a component: connects, migrates, closes.
pub(crate) struct DatabasePart {
    db: Db,
    migrations: Migrations,
    migrate: bool,
    /// The setting that says where the database is, and its source, for the error that it isn't there.
    origin: String,
}

impl DatabasePart {
    pub(crate) fn new(db: Db, migrations: Migrations, migrate: bool, origin: String) -> Self {
        Self { db, migrations, migrate, origin }
    }
}

impl Component for DatabasePart {
    fn name(&self) -> &str {
        "database"
    }

    fn start<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.db.connect(ctx).await.map_err(|error| error.context(self.origin.clone()))?;
            if self.migrate {
                Migrator::new(&self.db, self.migrations.clone()).up(ctx).await?;
            }
            Ok(())
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            self.db.close(ctx).await;
            Vec::new()
        })
    }
}

/// What is looked at now and then: how long a task waits for a worker, and which log lines were left out, also after a storm
/// that has ended.
pub(crate) struct Telling {
    logs: LogControl,
    delay: SchedulingDelay,
}

impl Telling {
    pub(crate) fn new(logs: LogControl, metrics: &Metrics) -> Self {
        Self { logs, delay: SchedulingDelay::register(metrics) }
    }
}

/// Twelve looks between two scrapes, so that a quantile of the delay means something; 4 tasks a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_A_SECOND: u64 = 4;

impl Component for Telling {
    fn name(&self) -> &str {
        "telemetry"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            for look in 1_u64.. {
                if ctx.run(tokio::time::sleep(LOOK_EVERY)).await.is_err() {
                    break;
                }
                self.delay.measure().await;
                if look % LOOKS_A_SECOND == 0 {
                    self.logs.tell_of_repeats();
                }
            }
            Ok(())
        })
    }

    fn stop<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            self.logs.tell_of_repeats();
            Vec::new()
        })
    }
}

/// Knows what is down before anybody asks.
pub(crate) struct Watching {
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
}

impl Component for Watching {
    fn name(&self) -> &str {
        "health"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            self.health.watch(ctx, &self.metrics).await;
            Ok(())
        })
    }
}
