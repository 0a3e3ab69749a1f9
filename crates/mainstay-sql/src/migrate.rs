//! Migrations: numbered SQL files, embedded in the binary and applied once.
//!
//! ```text
//! migrations/0001_create_orders.up.sql        for every database
//! migrations/0001_create_orders.down.sql      how to take it back (optional)
//! migrations/mysql/0001_create_orders.up.sql  wins over the common file on MySQL; also `postgres/`, `sqlite/`
//! ```
//!
//! [`migrations!`](crate::migrations!) embeds the folder and [`Migrator`] applies it. What is guaranteed:
//!
//! - **Once.** However many processes start together, one migrates and the others wait for it: an advisory lock on
//!   PostgreSQL, `GET_LOCK` on MySQL, the write lock on SQLite. Each lives on the migrating connection, so it is gone
//!   when that process dies.
//! - **Whole, where the database can.** On PostgreSQL and SQLite a migration and the record of it are one transaction.
//!   MySQL commits at every DDL statement: there, and under `-- mainstay: no transaction`, the number of statements
//!   done is recorded after each one, and the next run goes on at the statement that failed. A process killed between
//!   a DDL statement and the record of it leaves that one statement to check by hand; [`Migrator::status`] names it.
//! - **Unchanged.** An applied file that was edited, or a new one numbered below an applied one, is refused by name.
//!   Line endings don't count as an edit.
//! - **Readable failure.** A migration that fails leaves its statement's number and the database's error in
//!   [`Migrator::status`]; the next run, with the file repaired, goes on.
//!
//! A file may begin with `-- mainstay: no transaction`, for what a database refuses inside one, such as PostgreSQL's
//! `CREATE INDEX CONCURRENTLY` or SQLite's `VACUUM`. On SQLite nothing keeps a second process from running such a
//! migration at the same time.
//!
//! A body of several statements (trigger, procedure) stands in `BEGIN … END`; there is no `DELIMITER`.

use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_telemetry::trace::{self, SpanKind, Tracer};

use crate::db::Db;

mod connection;
mod create;
mod lint;
mod migration;
mod plan;
mod record;
mod run;
mod status;

pub use create::create;
pub use migration::{Direction, Migration, Migrations, Script};
pub use plan::{Plan, Planned};
pub use status::{State, Status};

use connection::Connection;
use record::Table;

/// Embeds a folder of migrations, named relative to the crate's `Cargo.toml`, as a constant
/// [`Migrations`](crate::migrate::Migrations).
///
/// A file with a malformed name, two files for one version, or a `.down.sql` alone don't compile. A change of a file is
/// seen by cargo; a *new* file is seen only with this line in `build.rs`:
/// `println!("cargo::rerun-if-changed=migrations");`.
///
/// ```
/// use mainstay_sql::migrate::Migrations;
///
/// const MIGRATIONS: Migrations = mainstay_sql::migrations!("tests/migrations");
/// assert_eq!(MIGRATIONS.iter().count(), 2);
/// ```
///
/// ```compile_fail
/// mainstay_sql::migrations!("no/such/folder");
/// ```
#[macro_export]
macro_rules! migrations {
    ($folder:literal) => {
        $crate::__private::embed_migrations!($crate, $folder)
    };
}

/// Applies [`Migrations`] to a database, takes them back, and tells how it stands.
///
/// ```
/// use mainstay_core::Context;
/// use mainstay_sql::Db;
/// use mainstay_sql::migrate::{Migrator, State};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> mainstay_core::Result<()> {
/// # if cfg!(not(feature = "sqlite")) { return Ok(()) }
/// let (ctx, db) = (Context::background(), Db::memory());
/// let migrator = Migrator::new(&db, mainstay_sql::migrations!("tests/migrations"));
///
/// println!("{}", migrator.plan(&ctx).await?); // what would run, and changes nothing
/// assert_eq!(migrator.up(&ctx).await?.len(), 2);
/// assert!(matches!(migrator.status(&ctx).await?[0].state, State::Applied { .. }));
/// assert_eq!(migrator.down(&ctx, 1).await?[0].version, 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Migrator {
    db: Db,
    migrations: Migrations,
    table: &'static str,
}

/// A migration that was run, up or down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// How long its statements took.
    pub took: Duration,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {:.1?}", migration::label(self.version, &self.name), self.took)
    }
}

/// The table of records, unless [`Migrator::in_table`] says otherwise.
const TABLE: &str = "mainstay_migrations";

impl Migrator {
    /// A migrator of `db`, which it uses on a connection of its own.
    pub fn new(db: &Db, migrations: Migrations) -> Self {
        Self { db: db.clone(), migrations, table: TABLE }
    }

    /// Keeps the records in `table`, a plain name of letters, digits and `_`, instead of `mainstay_migrations`: for a
    /// library that has tables, and numbers, of its own beside the service's.
    #[must_use]
    pub fn in_table(mut self, table: &'static str) -> Self {
        self.table = table;
        self
    }

    /// Applies all pending migrations in order, and returns them.
    ///
    /// Waits, until `ctx` is done, for another process that is migrating. Statements that block others while they run
    /// are logged as warnings. Dropping the future rolls the migration in hand back, as far as the database can.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition), before anything is changed: an applied
    /// migration was edited, a pending one is older than an applied one, one is half reverted or has no script for
    /// this database. A failed statement's own code, with the migration and the number of the statement in the message.
    pub async fn up(&self, ctx: &Context) -> Result<Vec<Applied>> {
        self.up_to(ctx, i64::MAX).await
    }

    /// As [`Migrator::up`], and stops behind `version`.
    ///
    /// # Errors
    /// As [`Migrator::up`].
    pub async fn up_to(&self, ctx: &Context, version: i64) -> Result<Vec<Applied>> {
        let mut connection = self.connection(ctx).await?;
        connection.lock(ctx).await?;
        let mut span = Tracer::of(ctx)
            .and_then(|tracer| tracer.begin(ctx, ctx.trace(), SpanKind::Internal, || "migrate up".into()));
        let result = run::up(trace::context(&span, ctx), &mut connection, &self.migrations, version).await;
        if let Some(span) = &mut span {
            span.set("mainstay.migrations", result.as_ref().map_or(0, Vec::len).cast_signed() as i64);
            span.outcome(&result);
        }
        connection.unlock().await;
        result
    }

    /// Takes the newest `steps` applied migrations back, newest first, and returns them. It never migrates up.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition), before that migration is touched: it has
    /// no down script, is unknown to this binary or half applied. A failed statement's own code.
    pub async fn down(&self, ctx: &Context, steps: usize) -> Result<Vec<Applied>> {
        let mut connection = self.connection(ctx).await?;
        connection.lock(ctx).await?;
        let result = run::down(ctx, &mut connection, &self.migrations, steps).await;
        connection.unlock().await;
        result
    }

    /// How each migration, known to this binary or only to the database, stands; by version. It changes nothing.
    ///
    /// # Errors
    /// Those of reading the records.
    pub async fn status(&self, ctx: &Context) -> Result<Vec<Status>> {
        let mut connection = self.connection(ctx).await?;
        let records = connection.records(ctx).await?;
        Ok(status::of(&self.migrations, connection.dialect(), &records))
    }

    /// What [`Migrator::up`] would run, with warnings about statements that block others; `Display` prints it as SQL.
    /// It changes nothing.
    ///
    /// # Errors
    /// What [`Migrator::up`] would refuse; those of reading the records.
    pub async fn plan(&self, ctx: &Context) -> Result<Plan> {
        let mut connection = self.connection(ctx).await?;
        let records = connection.records(ctx).await?;
        Plan::new(&self.migrations, connection.dialect(), &records)
    }

    async fn connection(&self, ctx: &Context) -> Result<Connection> {
        let driver = self.db.driver(ctx).await?;
        let table = Table::new(self.table, driver.dialect())?;
        Ok(Connection::new(driver.session(ctx).await?, table))
    }
}
