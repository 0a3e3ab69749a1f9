//! `migrate`: the database's schema, by hand.

use std::path::Path;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::migrate::Migrator;

use super::Migrate;
use super::print::{out, table};
use crate::app::App;

pub(crate) async fn migrate<S>(app: &App<S>, command: Migrate) -> Result<()> {
    let Some((db, migrations)) = &app.database else {
        return Err(Error::failed_precondition("this service declares no database, so there is nothing to migrate"));
    };
    let ctx = Context::background();
    let connecting = ctx.with_timeout(app.configuration.shutdown.start);
    let origin = |error: Error| error.context(app.configuration.origin("database.url"));
    db.connect(&connecting).await.map_err(origin)?;
    let outcome = carry_out(&ctx, &Migrator::new(db, migrations.clone()), command).await;
    db.close(&ctx.with_timeout(app.configuration.shutdown.stop)).await;
    outcome
}

async fn carry_out(ctx: &Context, migrator: &Migrator, command: Migrate) -> Result<()> {
    match command {
        Migrate::Up { dry_run: true } => out(&migrator.plan(ctx).await?.to_string()),
        Migrate::Up { dry_run: false } => {
            let applied = migrator.up(ctx).await?;
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
            let rows: Vec<_> = migrator
                .status(ctx)
                .await?
                .into_iter()
                .map(|status| [format!("{:04}_{}", status.version, status.name), status.state.to_string()])
                .collect();
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
