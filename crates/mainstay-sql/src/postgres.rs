//! PostgreSQL, over `tokio-postgres`: one connection for each statement, transaction or stream at a time.
//!
//! A connection is never shared, so a slow statement delays nobody else. Declared reads are told apart already
//! ([`Call::read`]); a pipelined lane for them belongs here, behind the same [`Driver`].

use std::sync::Arc;

use futures_util::StreamExt;
use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::driver::{Answer, Begin, Call, Dialect, Driver, PoolStats, Rows, Session};
use crate::fault::{DatabaseError, DatabaseErrorKind};
use crate::metrics::SqlMetrics;
use crate::pool::Pool;
use crate::row::Row;
use crate::settings::{DatabaseSettings, Server};

mod cleanup;
mod connect;
mod connection;
mod decode;
mod encode;
mod fault;
mod numeric;
mod session;
mod tls;
mod verify;

use cleanup::{Janitor, Lease};
use connect::Connector;
use connection::PgConnection;
use session::PgSession;

/// Rows of a stream that may wait for their reader; behind them the socket's own flow control holds the server.
const STREAM_BUFFER: usize = 32;

/// A PostgreSQL server, connected.
pub(crate) struct Postgres {
    pool: Pool<PgConnection>,
    janitor: Janitor,
}

impl Postgres {
    /// Connects once, to find out now whether the address, the user and the database are right.
    ///
    /// # Errors
    /// Those of [`Db::connect`](crate::Db::connect).
    pub(crate) async fn connect(
        ctx: &Context,
        server: &Server,
        settings: &DatabaseSettings,
        metrics: &SqlMetrics,
    ) -> Result<Self> {
        let janitor = Janitor::new();
        let connector = Arc::new(Connector::new(settings, server, janitor.cut())?);
        let pool = Pool::new(settings, metrics, move || {
            let connector = connector.clone();
            Box::pin(async move { connector.connect().await })
        });
        let postgres = Self { pool, janitor };
        drop(postgres.lease(ctx).await?);
        Ok(postgres)
    }

    async fn lease(&self, ctx: &Context) -> Result<Lease> {
        Ok(self.janitor.lease(self.pool.acquire(ctx).await?))
    }
}

impl Driver for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn run<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let mut again = Again::new(&call);
            loop {
                let mut lease = self.lease(ctx).await?;
                match ctx.run(lease.run(&call)).await? {
                    Err(error) if again.once(&error) => {}
                    result => return result,
                }
            }
        })
    }

    fn stream<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Rows>> {
        Box::pin(async move {
            let mut again = Again::new(&call);
            let (lease, rows) = loop {
                let mut lease = self.lease(ctx).await?;
                match ctx.run(lease.rows(&call)).await? {
                    Ok(rows) => break (lease, rows),
                    Err(error) if again.once(&error) => {}
                    Err(error) => return Err(error),
                }
            };
            let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
            // A task, so that the deadline frees the connection also while nobody polls the stream.
            let pump = self.janitor.spawn(pump(ctx.clone(), self.janitor.cut(), lease, rows, sender));
            Ok(received(receiver, pump))
        })
    }

    fn begin<'a>(&'a self, ctx: &'a Context, begin: Begin) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let mut again = Again { read: true, tried: false }; // nothing is lost with a BEGIN
            loop {
                let mut session = PgSession::new(self.lease(ctx).await?);
                match session.begin(ctx, begin).await {
                    Ok(()) => return Ok(Box::new(session) as Box<dyn Session>),
                    Err(error) if again.once(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn session<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(async move {
            let mut lease = self.lease(ctx).await?;
            lease.connection().not_reusable(); // locks and settings of the session die with it
            Ok(Box::new(PgSession::new(lease)) as Box<dyn Session>)
        })
    }

    fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.pool.close(ctx).await;
            self.janitor.close().await;
        })
    }
}

/// Whether a statement outside a transaction may be sent a second time.
struct Again {
    read: bool,
    tried: bool,
}

impl Again {
    fn new(call: &Call) -> Self {
        Self { read: call.read, tried: false }
    }

    /// A plan that a migration made stale fails before it does anything, so any statement may go again. After a broken
    /// connection only a declared read may.
    fn once(&mut self, error: &Error) -> bool {
        let first = !std::mem::replace(&mut self.tried, true);
        let fault = error.downcast_ref::<DatabaseError>();
        first
            && fault.is_some_and(|fault| {
                fault::is_stale_plan(fault) || (self.read && fault.kind == DatabaseErrorKind::ConnectionLost)
            })
    }
}

/// Moves rows to the reader until they end, the reader is gone, `ctx` is done or the driver is closed. Dropping the
/// lease before the end cancels the statement.
async fn pump(
    ctx: Context,
    cut: CancellationToken,
    mut lease: Lease,
    mut rows: connection::Decoded,
    reader: mpsc::Sender<Row>,
) -> Result<()> {
    let moving = async {
        while let Some(row) = rows.next().await {
            if reader.send(row?).await.is_err() {
                return Ok(());
            }
        }
        lease.connection().settled();
        Ok(())
    };
    tokio::select! {
        result = ctx.run(moving) => result?,
        () = reader.closed() => Ok(()), // noticed also while the server is silent
        () = cut.cancelled() => Err(Error::unavailable("the database is closed")),
    }
}

/// The rows that arrive, and after them the error that ended them, if one did.
fn received(receiver: mpsc::Receiver<Row>, pump: tokio::task::JoinHandle<Result<()>>) -> Rows {
    let rows = futures_util::stream::unfold(Some((receiver, pump)), |state| async {
        let (mut receiver, pump) = state?;
        match receiver.recv().await {
            Some(row) => Some((Ok(row), Some((receiver, pump)))),
            None => match pump.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some((Err(error), None)),
                Err(panic) => Some((Err(Error::from_any(panic).context("streaming rows")), None)),
            },
        }
    });
    rows.boxed()
}
