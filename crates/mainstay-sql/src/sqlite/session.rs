//! A transaction or a session: a caller that holds a thread for several statements.

use std::ops::ControlFlow;
use std::sync::mpsc::{self as sync_mpsc, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::clock::Stopwatch;
use super::connection::{Connection, Ran, Role};
use super::queue::LOOK;
use super::stream::{Inlet, Outlet, Stop, channel};
use super::ticket::{CancelOnDrop, Ticket, gone, wait};
use super::worker::House;
use crate::driver::{Answer, Begin, Call, Session};
use crate::fault::{CommitUnknown, DatabaseError};
use crate::row::Row;

/// A session that waits for its thread.
pub(super) struct SessionJob {
    /// `None` is a session without a transaction.
    pub(super) begin: Option<Begin>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) queued: Stopwatch,
    pub(super) ready: oneshot::Sender<Result<()>>,
    pub(super) commands: sync_mpsc::Receiver<Command>,
    pub(super) ended: Arc<OnceLock<Ended>>,
}

pub(super) enum Command {
    Run { call: Call, ticket: Arc<Ticket>, reply: oneshot::Sender<Result<Answer>> },
    Each { call: Call, ticket: Arc<Ticket>, outlet: Outlet },
    Script { sql: String, ticket: Arc<Ticket>, reply: oneshot::Sender<Result<()>> },
    Commit { reply: oneshot::Sender<Result<()>> },
    Rollback { reply: oneshot::Sender<Result<()>> },
}

/// Why a session ended before its caller ended it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    Idle { limit: Duration, read_only: bool },
    Closed,
}

/// The caller's side.
pub(super) struct SqliteSession {
    commands: sync_mpsc::Sender<Command>,
    ended: Arc<OnceLock<Ended>>,
    /// The place among the guests; `None` on a lane.
    _place: Option<OwnedSemaphorePermit>,
}

/// The job for the thread, and the session that talks to it once `ready` came.
pub(super) fn session(
    begin: Option<Begin>,
    ticket: Arc<Ticket>,
    place: Option<OwnedSemaphorePermit>,
) -> (SessionJob, oneshot::Receiver<Result<()>>, SqliteSession) {
    let (ready, opened) = oneshot::channel();
    let (sender, commands) = sync_mpsc::channel();
    let ended = Arc::new(OnceLock::new());
    let session = SqliteSession { commands: sender, ended: ended.clone(), _place: place };
    (SessionJob { begin, ticket, queued: Stopwatch::start(), ready, commands, ended }, opened, session)
}

impl SqliteSession {
    fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| self.why_ended())
    }

    async fn ask<T>(
        &self,
        ctx: &Context,
        command: impl FnOnce(Arc<Ticket>, oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        ctx.check()?;
        let ticket = Arc::new(Ticket::default());
        let (reply, answer) = oneshot::channel();
        self.send(command(ticket.clone(), reply))?;
        wait(ctx, ticket, answer, None).await.unwrap_or_else(|error| {
            // A thread that ended this session said why before it dropped the question.
            Err(if self.ended.get().is_some() && !ctx.is_done() { self.why_ended() } else { error })
        })
    }

    /// The same for what has no deadline: the end of a transaction.
    async fn finish(&self, command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command) -> Option<Result<()>> {
        let (reply, answer) = oneshot::channel();
        if let Err(error) = self.send(command(reply)) {
            return Some(Err(error));
        }
        match answer.await {
            Ok(result) => Some(result),
            Err(_) => self.ended.get().map(|_| Err(self.why_ended())),
        }
    }

    fn why_ended(&self) -> Error {
        match self.ended.get() {
            Some(Ended::Idle { limit, read_only }) => {
                let harm = if *read_only {
                    "it kept the SQLite file's log from being cut back"
                } else {
                    "all writers of the SQLite file waited for it"
                };
                Error::aborted("the transaction took too long and was rolled back").context(format!(
                    "it ran no statement for {limit:?} while {harm}: do slow work before or after the transaction, or \
                     raise `sqlite_idle_transaction`"
                ))
            }
            Some(Ended::Closed) => Error::unavailable("the database is closed"),
            None => gone(),
        }
    }

    async fn each_row(
        &self,
        ctx: &Context,
        call: Call,
        each: &mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
    ) -> Result<()> {
        ctx.check()?;
        let ticket = Arc::new(Ticket::default());
        let _guard = CancelOnDrop(ticket.clone());
        let (outlet, mut inlet): (_, Inlet) = channel(true);
        self.send(Command::Each { call, ticket, outlet })?;
        let rows = async {
            while let Some(row) = inlet.next().await {
                if !each(row?).await? {
                    break;
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            result = rows => result,
            cause = ctx.done() => Err(cause.into_error()),
        }
    }
}

impl Session for SqliteSession {
    fn run<'a>(&'a mut self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.ask(ctx, move |ticket, reply| Command::Run { call, ticket, reply }))
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
        Box::pin(self.ask(ctx, move |ticket, reply| Command::Script { sql: sql.to_owned(), ticket, reply }))
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let committed = self.finish(|reply| Command::Commit { reply }).await;
            committed.unwrap_or_else(|| Err(gone().with_source(CommitUnknown)))
        })
    }

    fn rollback(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            // A thread that is gone took its connection with it, and the connection the transaction.
            self.finish(|reply| Command::Rollback { reply }).await.unwrap_or(Ok(()))
        })
    }
}

/// Serves one session on this thread until it is committed, rolled back, dropped, idle for too long or stopped.
///
/// Here several transactions will share one durable commit; the types above don't need to change for it.
pub(super) fn serve_session(house: &House, connection: &Connection, job: SessionJob) {
    let SessionJob { begin, ticket, queued, ready, commands, ended } = job;
    if !ticket.start() {
        return;
    }
    house.metrics.wait.observe(queued.elapsed());
    if let Some(begin) = begin
        && let Err(error) = connection.begin(&ticket, begin)
    {
        let _ = ready.send(Err(error)); // whoever left doesn't want to know
        return;
    }
    if ready.send(Ok(())).is_ok() {
        let read_only = begin.is_some_and(|begin| begin.read_only);
        let idle_limit = house.idle_limit;
        let mut open = Open { connection, transaction: begin.is_some(), read_only, idle_limit, lost: None };
        if let ControlFlow::Break(Some(why)) = open.serve(&commands) {
            let _ = ended.set(why); // before `commands` closes, so that whoever finds it closed finds the reason
        }
    }
    // Nothing is open after a commit or a rollback; after everything else this is the rollback.
    if let Err(error) = connection.rollback() {
        tracing::error!(error = %error.report(), "rolling back a SQLite transaction failed");
    }
}

/// A session in progress.
struct Open<'a> {
    connection: &'a Connection,
    transaction: bool,
    read_only: bool,
    idle_limit: Duration,
    /// Set when SQLite ended the transaction by itself, as it does when a write is interrupted or the disk is full.
    lost: Option<Lost>,
}

#[derive(Clone)]
struct Lost(Option<DatabaseError>);

impl Open<'_> {
    fn idle(&self) -> Ended {
        Ended::Idle { limit: self.idle_limit, read_only: self.read_only }
    }

    fn serve(&mut self, commands: &sync_mpsc::Receiver<Command>) -> ControlFlow<Option<Ended>> {
        let mut idle_since = Stopwatch::start();
        loop {
            match commands.recv_timeout(LOOK.min(self.idle_limit)) {
                Ok(command) => {
                    self.obey(command)?;
                    idle_since = Stopwatch::start();
                }
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(None),
                Err(RecvTimeoutError::Timeout) if self.connection.current().is_killed() => {
                    return ControlFlow::Break(Some(Ended::Closed));
                }
                Err(RecvTimeoutError::Timeout) => {
                    // A session outside a transaction stands in nobody's way.
                    if !self.connection.is_autocommit() && idle_since.elapsed() >= self.idle_limit {
                        return ControlFlow::Break(Some(self.idle()));
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) -> ControlFlow<Option<Ended>> {
        match command {
            Command::Run { call, ticket, reply } => {
                let _ = reply.send(self.run(&ticket, &call)); // here and below: whoever left doesn't want to know
            }
            Command::Script { sql, ticket, reply } => {
                let _ = reply.send(self.guarded(&ticket, |connection| connection.script(&ticket, &sql)));
            }
            Command::Each { call, ticket, outlet } => return self.each(&ticket, &call, outlet),
            Command::Commit { reply } => {
                let _ = reply.send(self.alive().and_then(|()| self.connection.commit()));
                return ControlFlow::Break(None);
            }
            Command::Rollback { reply } => {
                let _ = reply.send(self.connection.rollback());
                return ControlFlow::Break(None);
            }
        }
        ControlFlow::Continue(())
    }

    fn run(&mut self, ticket: &Arc<Ticket>, call: &Call) -> Result<Answer> {
        match self.guarded(ticket, |connection| connection.run(ticket, call, Role::Writer))? {
            Ran::Answer(answer) => Ok(answer),
            Ran::Writes => Err(Error::internal("a session refused to write")),
        }
    }

    fn each(&mut self, ticket: &Arc<Ticket>, call: &Call, mut outlet: Outlet) -> ControlFlow<Option<Ended>> {
        let (mut stop, patience) = (None, self.idle_limit);
        let result = self.guarded(ticket, |connection| {
            connection.chunks(
                ticket,
                call,
                Role::Writer,
                || {},
                |rows| match outlet.send(connection.current(), Some(patience), rows) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(why) => {
                        stop = Some(why);
                        ControlFlow::Break(())
                    }
                },
            )
        });
        outlet.end(match stop {
            Some(stop) if result.is_ok() => Err(stop.into_error()),
            _ => result.map(|_| ()),
        });
        match stop {
            Some(Stop::Idle) => ControlFlow::Break(Some(self.idle())),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Runs `work` if the transaction still stands, and looks afterwards whether it does.
    fn guarded<T>(&mut self, ticket: &Ticket, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.alive()?;
        if !ticket.start() {
            return Err(Error::aborted("the statement was given up before it ran"));
        }
        let result = work(self.connection);
        if self.transaction && self.connection.is_autocommit() {
            let fault = result.as_ref().err().and_then(|error| error.downcast_ref::<DatabaseError>().cloned());
            self.lost = Some(Lost(fault));
        }
        result
    }

    fn alive(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some(Lost(fault)) => {
                let error = Error::aborted("the transaction was rolled back")
                    .context("SQLite rolled the transaction back when an earlier statement failed");
                Err(match fault {
                    Some(fault) => error.with_source(fault.clone()),
                    None => error,
                })
            }
        }
    }
}
