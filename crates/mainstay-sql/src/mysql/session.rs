//! A transaction or a session: a connection held by one caller.

use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{mpsc, oneshot};

use super::fault::{error_of, fault_of, leaves_usable};
use super::flight::{After, Flight, Killer, Loan};
use super::link::Link;
use crate::driver::{Answer, Call, Session};
use crate::fault::{CommitUnknown, DatabaseError, DatabaseErrorKind};
use crate::row::Row;

/// How many rows may be on their way to a closure.
const AHEAD: usize = 32;

/// How long a rollback in the background may take before its connection is closed instead.
const ROLLBACK: Duration = Duration::from_secs(5);

pub(super) struct MysqlSession {
    slot: Slot,
    killer: Killer,
    /// Whether `begin` succeeded. Before it, and in a session without a transaction, nobody knows what the session
    /// holds (locks, settings, half a beginning), and the connection ends with it.
    transaction: bool,
    lost: Option<Lost>,
}

enum Slot {
    Here(Loan),
    /// A statement was given up; its connection comes when it has ended.
    Settling(oneshot::Receiver<Loan>),
    Gone,
}

/// Why the transaction doesn't stand any more.
#[derive(Clone, Debug)]
enum Lost {
    RolledBack(Option<DatabaseError>),
    /// Data definition commits on MySQL.
    Committed,
}

impl MysqlSession {
    /// A session without a transaction.
    pub(super) fn new(loan: Loan, killer: Killer) -> Self {
        Self { slot: Slot::Here(loan), killer, transaction: false, lost: None }
    }

    /// Makes it one with a transaction.
    pub(super) async fn begin(&mut self, ctx: &Context, sql: &'static str) -> Result<()> {
        self.script(ctx, sql).await?;
        self.transaction = true;
        Ok(())
    }

    /// Does `work` on the connection. Given up, it leaves the connection settling.
    async fn work<T, F>(&mut self, ctx: &Context, work: impl FnOnce(Loan) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = (Loan, Result<T>)> + Send + 'static,
    {
        let flight = self.start(ctx, work).await?;
        let (loan, result) = flight.finish(ctx).await?;
        self.landed(loan, result)
    }

    async fn start<T, F>(&mut self, ctx: &Context, work: impl FnOnce(Loan) -> F) -> Result<Flight<T>>
    where
        T: Send + 'static,
        F: Future<Output = (Loan, Result<T>)> + Send + 'static,
    {
        ctx.check()?;
        ctx.run(self.settle()).await?;
        self.alive()?;
        let (back, settled) = oneshot::channel();
        match std::mem::replace(&mut self.slot, Slot::Settling(settled)) {
            Slot::Here(loan) => Ok(Flight::start(loan, &self.killer, After::Session(back), work)),
            other => {
                self.slot = other;
                Err(lost_connection())
            }
        }
    }

    fn landed<T>(&mut self, loan: Loan, result: Result<T>) -> Result<T> {
        if self.transaction {
            match &result {
                Ok(_) if !loan.in_transaction() => self.lost = Some(Lost::Committed),
                Ok(_) => {}
                Err(error) => self.lost = ends_transaction(error).map(|fault| Lost::RolledBack(Some(fault))),
            }
        }
        self.slot = Slot::Here(loan);
        result
    }

    /// Waits for a statement that was given up. Cancel safe.
    async fn settle(&mut self) {
        let Slot::Settling(settled) = &mut self.slot else { return };
        match settled.await {
            Ok(loan) => {
                // What settled it ended with a statement without error, so the server has just said how things stand.
                if self.transaction && self.lost.is_none() && !loan.in_transaction() {
                    self.lost = Some(Lost::RolledBack(None));
                }
                self.slot = Slot::Here(loan);
            }
            Err(_) => self.slot = Slot::Gone,
        }
    }

    fn alive(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some(Lost::RolledBack(fault)) => {
                let error = Error::aborted("the transaction was rolled back")
                    .context("MySQL rolled the transaction back when an earlier statement failed");
                Err(match fault {
                    Some(fault) => error.with_source(fault.clone()),
                    None => error,
                })
            }
            Some(Lost::Committed) => Err(Error::internal(
                "MySQL committed the transaction by itself, as it does at CREATE, ALTER, DROP and other definitions: \
                 run them outside of transactions, or last",
            )),
        }
    }

    async fn take(&mut self) -> Option<Loan> {
        self.settle().await;
        match std::mem::replace(&mut self.slot, Slot::Gone) {
            Slot::Here(loan) => Some(loan),
            _ => None,
        }
    }

    async fn each_row(
        &mut self,
        ctx: &Context,
        call: Call,
        each: &mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
    ) -> Result<()> {
        let (sender, mut rows) = mpsc::channel(AHEAD);
        let flight = self
            .start(ctx, move |mut loan: Loan| async move {
                // A send fails when the closure has stopped the rows; the kill that follows ends the statement.
                let mut send = |row| {
                    let sender = sender.clone();
                    async move { sender.send(row).await.is_ok() }
                };
                let result = loan.each(&call, &mut send).await;
                (loan, result)
            })
            .await?;
        let flight = flight.finish(ctx);
        tokio::pin!(flight);
        let mut landed = None;
        // Dropped with the flight still in the air, this leaves the connection settling.
        let stopped = loop {
            let row = tokio::select! {
                biased;
                row = rows.recv() => row,
                end = &mut flight, if landed.is_none() => {
                    landed = Some(end?);
                    continue;
                }
            };
            let Some(row) = row else { break false };
            if !each(row).await? {
                break true;
            }
        };
        let (loan, result) = match landed {
            Some(landed) => landed,
            None if stopped => return Ok(()),
            None => flight.await?,
        };
        self.landed(loan, result).map(drop)
    }
}

impl Session for MysqlSession {
    fn run<'a>(&'a mut self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.work(ctx, move |mut loan| async move {
            let result = loan.run(&call).await;
            (loan, result)
        }))
    }

    fn each<'a>(
        &'a mut self,
        ctx: &'a Context,
        call: Call,
        each: &'a mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.each_row(ctx, call, each))
    }

    fn script<'a>(&'a mut self, ctx: &'a Context, sql: &'a str) -> BoxFuture<'a, Result<()>> {
        let sql = sql.to_owned();
        Box::pin(self.work(ctx, move |mut loan| async move {
            let result = loan.script(&sql).await;
            (loan, result)
        }))
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let Some(mut loan) = self.take().await else { return Err(lost_connection()) };
            let result = match &self.lost {
                None => commit(&mut loan).await,
                Some(Lost::Committed) => Ok(()),
                Some(Lost::RolledBack(_)) => self.alive(),
            };
            if result.is_err() {
                loan = rolled_back(loan).await;
            }
            self.give_back(loan);
            result
        })
    }

    fn rollback(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            // Without a connection there is no transaction either.
            if let Some(loan) = self.take().await {
                let loan = rolled_back(loan).await;
                self.give_back(loan);
            }
            Ok(())
        })
    }
}

impl MysqlSession {
    fn give_back(&self, loan: Loan) {
        if self.transaction { drop(loan) } else { loan.discard() }
    }
}

impl Drop for MysqlSession {
    fn drop(&mut self) {
        let slot = std::mem::replace(&mut self.slot, Slot::Gone);
        let transaction = self.transaction;
        if matches!(slot, Slot::Gone) {
            return;
        }
        self.killer.spawn(async move {
            let loan = match slot {
                Slot::Here(loan) => loan,
                Slot::Settling(settled) => match settled.await {
                    Ok(loan) => loan,
                    Err(_) => return,
                },
                Slot::Gone => return,
            };
            if transaction { drop(rolled_back(loan).await) } else { loan.discard() }
        });
    }
}

/// Rolls back, or closes the connection, which does the same.
async fn rolled_back(mut loan: Loan) -> Loan {
    if !matches!(tokio::time::timeout(ROLLBACK, loan.text("ROLLBACK")).await, Ok(Ok(()))) {
        loan.spoil();
    }
    loan
}

async fn commit(link: &mut Link) -> Result<()> {
    match link.text("COMMIT").await {
        Ok(()) => Ok(()),
        // The server answered, and the answer is no.
        Err(error) if leaves_usable(&error) => Err(error_of(error)),
        Err(error) => {
            let error = fault_of(error);
            tracing::error!(%error, "the outcome of a COMMIT is unknown");
            Err(Error::unavailable("the database can't be reached").with_source(CommitUnknown))
        }
    }
}

/// The fault of an error after which the transaction is over. MySQL rolls all of it back at a deadlock and only the
/// statement when it gave up waiting for a lock; both end it here, so that running it again means the same.
fn ends_transaction(error: &Error) -> Option<DatabaseError> {
    use DatabaseErrorKind as Kind;
    let fault = error.downcast_ref::<DatabaseError>()?;
    matches!(fault.kind, Kind::Deadlock | Kind::Serialization | Kind::ConnectionLost).then(|| fault.clone())
}

fn lost_connection() -> Error {
    Error::unavailable("the database can't be reached").context("the connection of this transaction was lost")
}
