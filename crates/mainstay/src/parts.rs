//! The framework's own components that no other crate has: the database with its migrations.

use mainstay_core::{BoxFuture, Component, Context, Result};
use mainstay_sql::Db;
use mainstay_sql::migrate::{Migrations, Migrator};

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
