//! MySQL and MariaDB: prepared statements over pooled connections, stopped on the server by `KILL QUERY`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::driver::{Answer, Begin, Call, Dialect, Driver, Isolation, PoolStats, Rows, Session};
use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::metrics::SqlMetrics;
use crate::pool::Pool;
use crate::row::Row;
use crate::settings::{DatabaseSettings, Server};

mod cell;
mod fault;
mod flight;
mod link;
mod session;

use flight::{After, Flight, Killer, Loan, STATEMENT_END, STREAM_END};
use link::{Connector, Link};
use session::MysqlSession;

/// How many rows of a stream may be on their way that the caller hasn't taken.
const AHEAD: usize = 32;

/// How long `close` waits for statements that were killed, after its context was done.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A MySQL or MariaDB server, connected.
pub(crate) struct Mysql {
    pool: Pool<Link>,
    killer: Killer,
    /// Streams hold a connection for as long as their callers please: some stay free of them.
    streams: Arc<Semaphore>,
    acquire_timeout: Duration,
    /// How long a killed statement may take to end before its connection is killed.
    statement_end: Duration,
}

enum Item {
    Row(Row),
    End(Result<()>),
}

impl Mysql {
    /// Makes the first connection.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition) for a user or a database that the server
    /// refuses; [`Code::Unavailable`](mainstay_core::Code::Unavailable) when it can't be reached.
    pub(crate) async fn connect(
        ctx: &Context,
        server: &Server,
        settings: &DatabaseSettings,
        metrics: &SqlMetrics,
    ) -> Result<Self> {
        let connector = Connector::new(server, settings)?;
        let killer = Killer::new(connector.clone());
        let pool = Pool::new(settings, metrics, move || {
            let connector = connector.clone();
            Box::pin(async move { connector.connect().await })
        });
        let streams = (settings.max_connections / 2).max(1) as usize;
        let mysql = Self {
            pool,
            killer,
            streams: Arc::new(Semaphore::new(streams)),
            acquire_timeout: settings.acquire_timeout,
            statement_end: STATEMENT_END,
        };
        drop(mysql.acquire(ctx).await?);
        Ok(mysql)
    }

    /// A connection that stands. One that lay idle for a while may have been closed by the server in silence.
    async fn acquire(&self, ctx: &Context) -> Result<Loan> {
        loop {
            let mut loan = self.pool.acquire(ctx).await?;
            if loan.is_fresh() {
                return Ok(loan);
            }
            // Left in the middle of the ping, by whatever cause, the connection is busy and so never reused.
            match ctx.run(loan.ping()).await? {
                Ok(()) => return Ok(loan),
                Err(_) => loan.discard(),
            }
        }
    }

    async fn run_once(&self, ctx: &Context, call: Call) -> Result<Answer> {
        let loan = self.acquire(ctx).await?;
        ctx.check()?;
        let flight = Flight::start(loan, &self.killer, After::Pool(self.statement_end), move |mut loan| async move {
            let result = loan.run(&call).await;
            (loan, result)
        });
        let (loan, result) = flight.finish(ctx).await?;
        drop(loan);
        result
    }

    async fn run_call(&self, ctx: &Context, call: Call) -> Result<Answer> {
        if !call.read {
            return self.run_once(ctx, call).await;
        }
        match self.run_once(ctx, call.clone()).await {
            // The server closed the connection while nobody looked. A read may run twice.
            Err(error) if is_lost(&error) => self.run_once(ctx, call).await,
            result => result,
        }
    }

    async fn stream_rows(&self, ctx: &Context, call: Call) -> Result<Rows> {
        let place = tokio::time::timeout(self.acquire_timeout, self.streams.clone().acquire_owned());
        let place = ctx.run(place).await?.map_err(|_| {
            Error::unavailable("the database is busy, try again").context(format!(
                "all streams stayed open for the acquire timeout of {:?}: half of `max_connections` may be streams",
                self.acquire_timeout
            ))
        })?;
        let place = place.map_err(|_| Error::unavailable("the database is closed"))?;
        let loan = self.acquire(ctx).await?;
        let (sender, items) = mpsc::channel(AHEAD);
        let (killer, stop) = (self.killer.clone(), ctx.clone());
        self.killer.spawn(async move { feed(&stop, loan, &killer, call, sender, place).await });
        Ok(rows_of(ctx.clone(), items))
    }

    async fn start_transaction(&self, ctx: &Context, begin: Begin) -> Result<Box<dyn Session>> {
        let loan = self.acquire(ctx).await?;
        let mut session = MysqlSession::new(loan, self.killer.clone());
        session.begin(ctx, begin_sql(begin)).await?;
        Ok(Box::new(session))
    }
}

impl Driver for Mysql {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn run<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.run_call(ctx, call))
    }

    fn stream<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Rows>> {
        Box::pin(self.stream_rows(ctx, call))
    }

    fn begin<'a>(&'a self, ctx: &'a Context, begin: Begin) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(self.start_transaction(ctx, begin))
    }

    fn session<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let loan = self.acquire(ctx).await?;
            Ok(Box::new(MysqlSession::new(loan, self.killer.clone())) as Box<dyn Session>)
        })
    }

    fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.streams.close();
            if !self.pool.close(ctx).await {
                self.killer.cut();
                self.pool.close(&Context::background().with_timeout(STOP_GRACE)).await;
            }
            self.killer.rest();
        })
    }
}

/// Runs a stream's statement and sends its rows, until the last one, or until nobody wants them any more.
async fn feed(
    ctx: &Context,
    loan: Loan,
    killer: &Killer,
    call: Call,
    sender: mpsc::Sender<Item>,
    place: OwnedSemaphorePermit,
) {
    let rows = sender.clone();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let _stop = stop.drop_guard();
    let flight = Flight::start(loan, killer, After::Pool(STREAM_END), move |mut loan| async move {
        let mut send = |row| {
            let (rows, stopped) = (rows.clone(), stopped.clone());
            async move {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => false,
                    sent = rows.send(Item::Row(row)) => sent.is_ok(),
                }
            }
        };
        let result = loan.each(&call, &mut send).await;
        (loan, result)
    });
    let end = tokio::select! {
        biased;
        () = sender.closed() => return,
        end = flight.finish(ctx) => end,
    };
    let end = end.and_then(|(loan, result)| {
        drop(loan); // before the end is sent, which waits for the caller
        result.map(drop)
    });
    drop(place);
    let _ = sender.send(Item::End(end)).await; // whoever left doesn't want to know
}

/// The caller's end of a stream.
fn rows_of(ctx: Context, items: mpsc::Receiver<Item>) -> Rows {
    stream::unfold(Some((ctx, items)), |state| async move {
        let (ctx, mut items) = state?;
        let item = tokio::select! {
            biased;
            item = items.recv() => item,
            cause = ctx.done() => Some(Item::End(Err(cause.into_error()))),
        };
        match item {
            Some(Item::Row(row)) => Some((Ok(row), Some((ctx, items)))),
            Some(Item::End(Ok(()))) => None,
            Some(Item::End(Err(error))) => Some((Err(error), None)),
            None => Some((Err(Error::unavailable("the database is closed")), None)),
        }
    })
    .fuse()
    .boxed()
}

/// One text, so that it is one round trip and nothing comes between.
fn begin_sql(begin: Begin) -> &'static str {
    match (begin.isolation, begin.read_only) {
        (None, false) => "START TRANSACTION",
        (None, true) => "START TRANSACTION READ ONLY",
        (Some(Isolation::ReadCommitted), false) => "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION",
        (Some(Isolation::ReadCommitted), true) => {
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ ONLY"
        }
        (Some(Isolation::RepeatableRead), false) => {
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION"
        }
        (Some(Isolation::RepeatableRead), true) => {
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION READ ONLY"
        }
        (Some(Isolation::Serializable), false) => "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; START TRANSACTION",
        (Some(Isolation::Serializable), true) => {
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; START TRANSACTION READ ONLY"
        }
    }
}

fn is_lost(error: &Error) -> bool {
    let fault = error.downcast_ref::<DatabaseError>();
    fault.is_some_and(|fault| fault.kind == DatabaseErrorKind::ConnectionLost)
}

#[cfg(feature = "testing")]
pub(crate) mod tests;
