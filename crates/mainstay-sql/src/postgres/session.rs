//! [`PgSession`]: a connection held by one owner, usually inside a transaction.

use futures_util::StreamExt;
use mainstay_core::{BoxFuture, Context, Error, Result};

use super::cleanup::Lease;
use super::fault;
use crate::driver::{Answer, Begin, Call, Isolation, Session};
use crate::fault::{CommitUnknown, DatabaseError, DatabaseErrorKind};
use crate::row::Row;

pub(super) struct PgSession {
    lease: Lease,
    /// The error that put the transaction into the state in which PostgreSQL answers COMMIT with a silent rollback.
    failure: Option<DatabaseError>,
    doubt: Doubt,
}

/// What isn't known about the last statement.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Doubt {
    Nothing,
    /// Its rows were left unread: it may have failed later.
    Stream,
    /// It was given up: it may have happened or not.
    Statement,
}

impl PgSession {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, failure: None, doubt: Doubt::Nothing }
    }

    pub(super) async fn begin(&mut self, ctx: &Context, begin: Begin) -> Result<()> {
        self.lease.connection().in_transaction(true);
        self.script(ctx, &begin_sql(begin)).await
    }

    /// Runs `work` under `ctx` and keeps what it means for the transaction. `doubt` is what remains if it is given up.
    async fn guarded<T>(
        &mut self,
        ctx: &Context,
        doubt: Doubt,
        work: impl AsyncFnOnce(&mut Lease) -> Result<T>,
    ) -> Result<T> {
        if self.doubt == Doubt::Statement {
            return Err(Error::aborted("the transaction was cut off")
                .context("a statement of this transaction was cancelled, so it can only be rolled back"));
        }
        let before = std::mem::replace(&mut self.doubt, doubt);
        let result = ctx.run(work(&mut self.lease)).await?;
        match &result {
            Ok(_) => {
                self.doubt = Doubt::Nothing;
                self.failure = None;
            }
            Err(error) => {
                self.doubt = before;
                if let Some(fault) = fault::of(error) {
                    self.failure = Some(fault.clone());
                }
            }
        }
        result
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let ctx = Context::background();
        if self.doubt == Doubt::Stream {
            // Fails if the statement that wasn't read to its end did.
            self.script(&ctx, "SELECT 1").await?;
        }
        if let Some(failure) = self.failure.take() {
            self.lease.clean().await;
            return Err(failure.into_error().context("committing a transaction in which a statement had failed"));
        }
        match self.script(&ctx, "COMMIT").await {
            Ok(()) => {
                self.lease.connection().in_transaction(false);
                Ok(())
            }
            Err(error) if fault::of(&error).is_some_and(|fault| fault.kind == DatabaseErrorKind::ConnectionLost) => {
                Err(Error::unavailable("the outcome of the change is unknown")
                    .with_source(Unknown(error, CommitUnknown)))
            }
            Err(error) => {
                self.lease.clean().await;
                Err(error)
            }
        }
    }
}

impl Session for PgSession {
    fn run<'a>(&'a mut self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let result = self.guarded(ctx, Doubt::Statement, async |lease| lease.run(&call).await).await;
            result.map_err(conflict_if_stale)
        })
    }

    fn each<'a>(
        &'a mut self,
        ctx: &'a Context,
        call: Call,
        each: &'a mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let reading = async |lease: &mut Lease| {
                let mut rows = lease.rows(&call).await?;
                while let Some(row) = rows.next().await {
                    match each(row?).await {
                        Ok(true) => {}
                        Ok(false) => return Ok((false, Ok(()))),
                        Err(error) => return Ok((false, Err(error))),
                    }
                }
                lease.connection().settled();
                Ok((true, Ok(())))
            };
            let (to_the_end, result) = self.guarded(ctx, Doubt::Stream, reading).await.map_err(conflict_if_stale)?;
            if !to_the_end {
                // What is left is read and thrown away before the next statement is answered: cancelling it would end
                // the transaction.
                self.doubt = Doubt::Stream;
            }
            result
        })
    }

    fn script<'a>(&'a mut self, ctx: &'a Context, sql: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(
            self.guarded(ctx, Doubt::Statement, async move |lease: &mut Lease| lease.connection().script(sql).await),
        )
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(self.finish())
    }

    fn rollback(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            self.lease.clean().await;
            Ok(())
        })
    }
}

fn begin_sql(begin: Begin) -> String {
    let mut sql = "BEGIN".to_owned();
    if let Some(isolation) = begin.isolation {
        sql.push_str(match isolation {
            Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
        });
    }
    if begin.read_only {
        sql.push_str(" READ ONLY");
    }
    sql
}

/// Inside a transaction a stale plan can't be tried again alone, but the transaction can.
fn conflict_if_stale(error: Error) -> Error {
    match fault::of(&error) {
        Some(fault) if fault::is_stale_plan(fault) => {
            DatabaseError { kind: DatabaseErrorKind::Serialization, ..fault.clone() }.into_error()
        }
        _ => error,
    }
}

/// A lost commit: both what broke and [`CommitUnknown`] are found in the chain.
#[derive(Debug)]
struct Unknown(Error, CommitUnknown);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.0.report(), self.1)
    }
}

impl std::error::Error for Unknown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.1)
    }
}
