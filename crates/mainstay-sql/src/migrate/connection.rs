//! [`Connection`]: the one connection that migrates, with the lock that keeps other processes from doing the same.

use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result};

use super::migration::checksum;
use super::record::{Record, Table, call};
use crate::driver::{Answer, Call, Dialect, Session};
use crate::row::Row;

/// A session and the table of records in it. Dropped, it loses its lock and rolls back what is open.
pub(super) struct Connection {
    session: Box<dyn Session>,
    table: Table,
}

/// How often a process that waits looks whether the lock is free. It asks instead of queueing in the database, because
/// there a waiting statement would hold up `CREATE INDEX CONCURRENTLY` for ever.
const POLL: Duration = Duration::from_millis(100);

/// How long cleaning up may take when the context of the work is done already.
const CLEAN_UP: Duration = Duration::from_secs(5);

impl Connection {
    pub(super) fn new(session: Box<dyn Session>, table: Table) -> Self {
        Self { session, table }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.table.dialect
    }

    /// Waits for the lock. SQLite has none that outlives a transaction: there [`Connection::begin`] takes it.
    pub(super) async fn lock(&mut self, ctx: &Context) -> Result<()> {
        let Some(lock) = self.lock_call(ctx, "SELECT pg_try_advisory_lock($1)", "SELECT GET_LOCK($1, 0)").await? else {
            return Ok(());
        };
        let mut told = false;
        loop {
            let taken: Option<bool> = first(self.session.run(ctx, lock.clone()).await?)?;
            if taken == Some(true) {
                return Ok(());
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(table = self.table.name, "waiting for another process that migrates the database");
            }
            ctx.run(tokio::time::sleep(POLL))
                .await
                .map_err(|error| error.context("waiting for another process that migrates the database"))?;
        }
    }

    /// Frees the lock. Should that fail, it goes with the connection, which is dropped next.
    pub(super) async fn unlock(&mut self) {
        let ctx = &clean_up();
        let unlock = self.lock_call(ctx, "SELECT pg_advisory_unlock($1)", "SELECT RELEASE_LOCK($1)").await;
        if let Ok(Some(unlock)) = unlock {
            let _ = self.session.run(ctx, unlock).await;
        }
    }

    /// Makes the table, if it isn't there.
    pub(super) async fn create_table(&mut self, ctx: &Context) -> Result<()> {
        if !self.has_table(ctx).await? {
            let create = self.table.create();
            self.patiently(ctx, &create).await?;
        }
        Ok(())
    }

    /// By version; none where there is no table yet.
    pub(super) async fn records(&mut self, ctx: &Context) -> Result<Vec<Record>> {
        if !self.has_table(ctx).await? {
            return Ok(Vec::new());
        }
        let answer = self.session.run(ctx, self.table.read()).await?;
        answer.rows.into_iter().map(|mut row| Record::from_row(&mut row)).collect()
    }

    /// The way that is the same on all databases: an upsert isn't.
    pub(super) async fn save(&mut self, ctx: &Context, record: &Record) -> Result<()> {
        let changed = self.session.run(ctx, self.table.update(record)).await?.affected;
        if changed == 0 {
            self.session.run(ctx, self.table.insert(record)).await?;
        }
        Ok(())
    }

    /// Saves what has to be known even though `ctx` may be done.
    pub(super) async fn save_failure(&mut self, record: &Record) {
        if let Err(error) = self.save(&clean_up(), record).await {
            tracing::warn!(version = record.version, error = %error.report(), "a failed migration couldn't be recorded");
        }
    }

    pub(super) async fn delete(&mut self, ctx: &Context, version: i64) -> Result<()> {
        self.session.run(ctx, self.table.delete(version)).await.map(drop)
    }

    pub(super) async fn execute(&mut self, ctx: &Context, statement: &str) -> Result<()> {
        self.session.script(ctx, statement).await
    }

    pub(super) async fn begin(&mut self, ctx: &Context) -> Result<()> {
        match self.table.dialect {
            Dialect::Mysql => self.execute(ctx, "START TRANSACTION").await,
            Dialect::Postgres => self.execute(ctx, "BEGIN").await,
            Dialect::Sqlite => self.patiently(ctx, "BEGIN IMMEDIATE").await,
        }
    }

    pub(super) async fn commit(&mut self, ctx: &Context) -> Result<()> {
        self.execute(ctx, "COMMIT").await
    }

    /// Should it fail, the transaction goes with the connection.
    pub(super) async fn roll_back(&mut self) {
        let _ = self.execute(&clean_up(), "ROLLBACK").await;
    }

    async fn has_table(&mut self, ctx: &Context) -> Result<bool> {
        let tables: i64 = first(self.session.run(ctx, self.table.exists()).await?)?;
        Ok(tables > 0)
    }

    /// Runs what another writer of a SQLite file may hold up, until `ctx` is done.
    async fn patiently(&mut self, ctx: &Context, sql: &str) -> Result<()> {
        loop {
            match self.session.script(ctx, sql).await {
                Err(error) if error.code() == Code::Aborted => {}
                result => return result,
            }
            ctx.run(tokio::time::sleep(POLL)).await?;
        }
    }

    async fn lock_call(&mut self, ctx: &Context, postgres: &'static str, mysql: &'static str) -> Result<Option<Call>> {
        match self.table.dialect {
            Dialect::Mysql => {
                // These locks are the server's, not the database's, and their names have at most 64 characters.
                let database: Option<String> = first(self.session.run(ctx, call("SELECT DATABASE()", vec![])).await?)?;
                let digest = checksum([database.unwrap_or_default().as_str(), self.table.name]);
                let name = format!("mainstay:{}", digest.get(..40).unwrap_or(&digest));
                Ok(Some(call(mysql, vec![name.into()])))
            }
            Dialect::Postgres => {
                let digest = checksum([self.table.name]);
                let key = digest.get(..15).and_then(|hex| i64::from_str_radix(hex, 16).ok()).unwrap_or_default();
                Ok(Some(call(postgres, vec![key.into()])))
            }
            Dialect::Sqlite => Ok(None),
        }
    }
}

fn clean_up() -> Context {
    Context::background().with_timeout(CLEAN_UP)
}

fn first<T: crate::value::FromValue>(answer: Answer) -> Result<T> {
    let mut row: Row = answer.rows.into_iter().next().ok_or_else(|| Error::internal("an answer without a row"))?;
    row.take_at(0)
}
