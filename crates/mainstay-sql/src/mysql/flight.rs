//! [`Flight`]: work on a connection that is never cut in the middle of the protocol.
//!
//! Whoever gives up, because its context is done or because its future is dropped, leaves the work to a task. The
//! task stops the statement on the server, waits for its end, and only then gives the connection back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;

use super::fault::INTERRUPTED;
use super::link::{Connector, Link};
use crate::pool::Pooled;

/// A connection out of the pool.
pub(super) type Loan = Pooled<Link>;

/// How many kills may be on their way, each on a connection beside the pool's.
const KILLS: usize = 4;

/// How long a kill may take before the connection it is meant for is closed.
const KILL: Duration = Duration::from_secs(5);

/// How long after a kill the next one is sent; then doubled. A statement that is undone takes a while to end.
const AFTER_KILL: Duration = Duration::from_millis(20);

/// How long a killed statement may take to end: to undo what it did, and to be read, since some megabytes of rows may
/// be on their way, which the server can't take back. Then the connection is killed: a new one is cheaper than that, at
/// once for a stream, but not in a transaction, which would be lost.
pub(super) const STATEMENT_END: Duration = Duration::from_millis(250);
pub(super) const STREAM_END: Duration = Duration::from_millis(5);
const SESSION_END: Duration = Duration::from_secs(5);

/// How long a killed connection keeps its place in the pool until it is gone.
const CLOSING: Duration = Duration::from_secs(1);

/// Stops statements on the server.
#[derive(Clone)]
pub(super) struct Killer {
    connector: Connector,
    kills: Arc<Kills>,
    /// Ends whatever still runs, when the patience of `close` is over.
    cut: CancellationToken,
    /// Work is left behind in `drop`, which may run where there is no runtime to be found.
    runtime: Handle,
}

struct Kills {
    places: Semaphore,
    /// Connections that have killed, for the next who do: a storm of cancels opens no more of them than there are places.
    spare: Mutex<Vec<Link>>,
}

/// Where the connection goes when its work was left behind, and how long that may take to end.
pub(super) enum After {
    Pool(Duration),
    Session(oneshot::Sender<Loan>),
}

/// One piece of work, which owns its connection.
pub(super) struct Flight<T: Send + 'static> {
    work: Option<BoxFuture<'static, (Loan, Result<T>)>>,
    started: bool,
    connection: u32,
    killer: Killer,
    after: After,
}

#[derive(Clone, Copy)]
enum Kill {
    Statement,
    Connection,
}

impl Killer {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            kills: Arc::new(Kills { places: Semaphore::new(KILLS), spare: Mutex::default() }),
            cut: CancellationToken::new(),
            runtime: Handle::current(),
        }
    }

    /// Every piece of work, now and later, ends with an error.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Closes the connections that are kept to kill with.
    pub(super) fn rest(&self) {
        self.kills.lock().clear();
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Kills what `connection` runs, or itself. Whether the server has done it in time.
    async fn kill(&self, what: Kill, connection: u32) -> bool {
        let word = match what {
            Kill::Statement => "QUERY",
            Kill::Connection => "CONNECTION",
        };
        let kill = async {
            // The semaphore is never closed; if it were, a kill without a place would do no harm.
            let _place = self.kills.places.acquire().await.ok();
            let spare = self.kills.lock().pop().filter(Link::is_fresh);
            let mut link = match spare {
                Some(link) => link,
                None => self.connector.connect().await?,
            };
            // The number is the server's own: nothing to bind, and KILL can't be prepared.
            link.script(&format!("KILL {word} {connection}")).await?;
            self.kills.lock().push(link); // before the place is free
            Ok::<_, Error>(())
        };
        matches!(tokio::time::timeout(KILL, kill).await, Ok(Ok(())))
    }
}

impl Kills {
    fn lock(&self) -> MutexGuard<'_, Vec<Link>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Flight<T> {
    pub(super) fn start<F>(loan: Loan, killer: &Killer, after: After, work: impl FnOnce(Loan) -> F) -> Self
    where
        F: Future<Output = (Loan, Result<T>)> + Send + 'static,
    {
        let connection = loan.id();
        Self { work: Some(Box::pin(work(loan))), started: false, connection, killer: killer.clone(), after }
    }

    /// The connection and what the work came to, or the cause of `ctx`, after which the work is left behind.
    pub(super) async fn finish(mut self, ctx: &Context) -> Result<(Loan, Result<T>)> {
        let Some(work) = &mut self.work else { return Err(Error::internal("a flight ends once")) };
        self.started = true;
        let landed = tokio::select! {
            biased;
            landed = work => landed,
            // Rows that keep coming use up the task's budget in every turn: the end needs none.
            cause = unconstrained(ctx.done()) => return Err(cause.into_error()),
            () = unconstrained(self.killer.cut.cancelled()) => return Err(Error::unavailable("the database is closed")),
        };
        self.work = None;
        Ok(landed)
    }
}

impl<T: Send + 'static> Drop for Flight<T> {
    fn drop(&mut self) {
        // Work that never began has nothing to stop; without an owner to go back to, its connection is clean.
        if let Some(work) = self.work.take()
            && (self.started || matches!(self.after, After::Session(_)))
        {
            let after = std::mem::replace(&mut self.after, After::Pool(STATEMENT_END));
            self.killer.spawn(settle(work, self.connection, self.killer.clone(), after));
        }
    }
}

/// Kills the statement, waits for its end and makes sure that no kill can hit what comes next.
async fn settle<T>(work: BoxFuture<'static, (Loan, Result<T>)>, connection: u32, killer: Killer, after: After) {
    let limit = match after {
        After::Pool(limit) => limit,
        After::Session(_) => SESSION_END,
    };
    let Some((mut loan, killed)) = killed(work, connection, &killer, limit).await else { return };
    // A kill that failed may still be on its way, and one that came late waits in the connection for its next
    // statement: a statement of ours takes it.
    if !killed || !absorbs_kill(&mut loan).await {
        loan.spoil();
    }
    match after {
        After::Pool(_) => drop(loan),
        After::Session(back) => drop(back.send(loan)),
    }
}

/// The connection after the end of its statement, and whether every kill has arrived. `None` if the statement didn't
/// end and its connection was killed.
async fn killed<T>(
    mut work: BoxFuture<'static, (Loan, Result<T>)>,
    connection: u32,
    killer: &Killer,
    limit: Duration,
) -> Option<(Loan, bool)> {
    let (mut patience, mut waited) = (AFTER_KILL.min(limit), Duration::ZERO);
    // Again and again: a kill that overtakes its statement, or comes while it is prepared, finds nothing to stop.
    while waited < limit {
        let mut landed = None;
        let kill = killer.kill(Kill::Statement, connection);
        tokio::pin!(kill);
        let killed = loop {
            tokio::select! {
                biased; // rows that are read and thrown away may not delay it
                killed = &mut kill => break killed,
                (loan, _) = &mut work, if landed.is_none() => landed = Some(loan),
            }
        };
        if let Some(loan) = landed {
            return Some((loan, killed));
        }
        if let Ok((loan, _)) = tokio::time::timeout(patience, &mut work).await {
            return Some((loan, killed));
        }
        if !killed {
            break;
        }
        waited += patience;
        patience *= 2;
    }
    // Closing it from here would leave the statement running: the server looks at its socket only between statements.
    let killed = killer.kill(Kill::Connection, connection).await;
    tracing::debug!(connection, killed, "closing a MySQL connection whose statement took too long to end");
    // It keeps its place in the pool until it is gone, or is dropped in the middle of its statement.
    if let Ok((mut loan, _)) = tokio::time::timeout(CLOSING, work).await {
        loan.spoil(); // it may have ended by itself a moment before
    }
    None
}

async fn absorbs_kill(loan: &mut Loan) -> bool {
    for _ in 0..2 {
        match tokio::time::timeout(KILL, loan.text("DO 0")).await {
            Ok(Ok(())) => return true,
            Ok(Err(mysql_async::Error::Server(error))) if error.code == INTERRUPTED => {}
            _ => return false,
        }
    }
    false
}
