//! `migrate`: the database's schema, by hand.

use std::path::Path;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::Db;
use mainstay_sql::migrate::{Migrator, Status};

use super::Migrate;
use super::print::{out, table};
use crate::app::App;

pub(crate) async fn migrate<S>(app: &App<S>, command: Migrate) -> Result<()> {
    let Some((db, migrations)) = &app.database else {
        return Err(Error::failed_precondition("this service declares no database, so there is nothing to migrate"));
    };
    let ctx = Context::background();
    let events = app.events.as_ref().map(mainstay_events::Events::migrator);
    connected(app, db, carry_out(&ctx, &Migrator::new(db, migrations.clone()), events.as_ref(), command)).await
}

/// Does `work` between connecting to the service's database and closing it.
pub(crate) async fn connected<S>(app: &App<S>, db: &Db, work: impl Future<Output = Result<()>>) -> Result<()> {
    let ctx = Context::background();
    let origin = |error: Error| error.context(app.configuration.origin("database.url"));
    db.connect(&ctx.with_timeout(app.configuration.shutdown.start)).await.map_err(origin)?;
    let outcome = work.await;
    db.close(&ctx.with_timeout(app.configuration.shutdown.stop)).await;
    outcome
}

/// `events` changes the framework's own tables: up with the service's, and never down, for what they hold is events.
async fn carry_out(ctx: &Context, migrator: &Migrator, events: Option<&Migrator>, command: Migrate) -> Result<()> {
    match command {
        Migrate::Up { dry_run: true } => {
            if let Some(events) = events {
                out(&events.plan(ctx).await?.to_string())?;
            }
            out(&migrator.plan(ctx).await?.to_string())
        }
        Migrate::Up { dry_run: false } => {
            let mut applied = match events {
                Some(events) => events.up(ctx).await?,
                None => Vec::new(),
            };
            applied.extend(migrator.up(ctx).await?);
            for migration in &applied {
                out(&format!("applied {migration}\n"))?;
            }
            if applied.is_empty() { out("nothing to apply\n") } else { Ok(()) }
        }
        Migrate::Down { steps } => {
            let reverted = migrator.down(ctx, steps).await?;
            for migration in &reverted {
                out(&format!("reverted {migration}\n"))?;
            }
            if reverted.is_empty() { out("nothing to revert\n") } else { Ok(()) }
        }
        Migrate::Status => {
            let row = |status: Status| [format!("{:04}_{}", status.version, status.name), status.state.to_string()];
            let mut rows: Vec<_> = migrator.status(ctx).await?.into_iter().map(row).collect();
            if let Some(events) = events {
                rows.extend(events.status(ctx).await?.into_iter().map(row));
            }
            out(&table(&rows))
        }
        Migrate::New { .. } => Ok(()), // needs no database: see `create`
    }
}

/// Writes the files of a new migration.
pub(crate) fn create(dir: &Path, name: &str) -> Result<()> {
    for path in mainstay_sql::migrate::create(dir, name)? {
        out(&format!("{}\n", path.display()))?;
    }
    Ok(())
}
