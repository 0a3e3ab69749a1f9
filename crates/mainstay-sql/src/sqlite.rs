//! SQLite: a writer of its own, readers of their own, and a guest thread for each stream or read-only transaction.
//!
//! rusqlite's calls block, and a connection belongs to one thread at a time, so each thread here owns a connection
//! and callers send it jobs. A database in memory is private to its connection: there the writer does everything.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc as sync_mpsc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::driver::{Answer, Begin, Call, Dialect, Driver, PoolStats, Rows, Session};
use crate::metrics::SqlMetrics;
use crate::settings::{DatabaseSettings, SqliteFile};

mod cell;
mod clock;
mod connection;
mod fault;
mod file;
mod patience;
mod queue;
mod session;
mod stream;
mod ticket;
mod worker;

use clock::Stopwatch;
use connection::{Opening, Role};
use queue::{Line, Queue};
use session::session;
use stream::{StreamJob, serve_stream};
use ticket::{Ticket, wait};
use worker::{Alive, House, Job, Lane, Routed, RunJob, start_guest, start_lane};

/// How many texts that change something are remembered, so that they go to the writer at once.
const KNOWN_WRITES: usize = 4_096;

/// How long `close` waits for threads that were told to stop, after its context was done.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A SQLite database, opened.
pub(crate) struct Sqlite {
    house: Arc<House>,
    writer: Arc<Queue<Job>>,
    /// `None` in memory.
    readers: Option<Arc<Queue<Job>>>,
    reader_count: u32,
    guests: Arc<Semaphore>,
    guest_count: u32,
    acquire_timeout: Duration,
    writes: RwLock<HashSet<Cow<'static, str>>>,
    alive: std::sync::Mutex<Option<Alive>>,
    all_gone: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Sqlite {
    /// Makes the folder of the file, opens the database with its threads, and turns the write-ahead log on.
    ///
    /// Cancel safe: threads that were started end when the future is dropped.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition), with the path and what to do, when the
    /// file can't be opened or written.
    pub(crate) async fn connect(
        ctx: &Context,
        file: &SqliteFile,
        settings: &DatabaseSettings,
        metrics: &SqlMetrics,
    ) -> Result<Self> {
        file::prepare(file)?;
        let house = Arc::new(House {
            opening: Opening {
                file: file.clone(),
                statement_cache: settings.statement_cache,
                lock_timeout: settings.acquire_timeout,
            },
            idle_limit: settings.sqlite_idle_transaction,
            metrics: metrics.clone(),
            killed: Arc::new(AtomicBool::new(false)),
            open: AtomicU32::new(0),
            in_use: AtomicU32::new(0),
        });
        let (all, all_gone) = mpsc::channel(1);
        let (beside_writer, others) = sync_mpsc::channel();
        let alive = Alive { _all: all.clone(), _beside_writer: Some(beside_writer) };
        let on_disk = *file != SqliteFile::Memory;
        let reader_count = if on_disk { settings.sqlite_readers.clamp(1, 64) } else { 0 };
        let guest_count = settings.max_connections.max(1);
        // Built before the threads: if the future is dropped here, the drop of `Sqlite` ends those already there.
        let sqlite = Self {
            house: house.clone(),
            writer: Arc::new(Queue::new()),
            readers: on_disk.then(|| Arc::new(Queue::new())),
            reader_count: u32::try_from(reader_count).unwrap_or(u32::MAX),
            guests: Arc::new(Semaphore::new(guest_count as usize)),
            guest_count,
            acquire_timeout: settings.acquire_timeout,
            writes: RwLock::default(),
            alive: std::sync::Mutex::new(Some(alive.clone())),
            all_gone: tokio::sync::Mutex::new(all_gone),
        };
        // The writer first: it makes the file.
        let writer = Lane {
            role: Role::Writer,
            queue: sqlite.writer.clone(),
            alive: Alive { _all: all, _beside_writer: None },
            others: Some(others),
        };
        ctx.run(start_lane(house.clone(), writer)).await??;
        if let Some(readers) = &sqlite.readers {
            for _ in 0..reader_count {
                let reader = Lane { role: Role::Reader, queue: readers.clone(), alive: alive.clone(), others: None };
                ctx.run(start_lane(house.clone(), reader)).await??;
            }
        }
        Ok(sqlite)
    }

    async fn route(&self, ctx: &Context, call: Call) -> Result<Answer> {
        ctx.check()?;
        let mut call = call;
        if let Some(readers) = &self.readers
            && (call.read || !self.is_known_write(&call.sql))
        {
            match self.run_on(ctx, readers, call).await? {
                Routed::Answer(answer) => return Ok(answer),
                Routed::Writes(back) => {
                    self.remember_write(back.sql.clone());
                    call = back;
                }
            }
        }
        match self.run_on(ctx, &self.writer, call).await? {
            Routed::Answer(answer) => Ok(answer),
            Routed::Writes(_) => Err(Error::internal("the writer refused to write")),
        }
    }

    async fn run_on(&self, ctx: &Context, queue: &Queue<Job>, call: Call) -> Result<Routed> {
        let ticket = Arc::new(Ticket::default());
        let (reply, answer) = oneshot::channel();
        let job = RunJob { call, ticket: ticket.clone(), queued: Stopwatch::start(), reply };
        queue.push(Line::Foreground, Job::Run(job)).map_err(|_| closed())?;
        wait(ctx, ticket, answer, Some(self.acquire_timeout)).await?
    }

    async fn stream_rows(&self, ctx: &Context, call: Call) -> Result<Rows> {
        ctx.check()?;
        if !self.is_known_write(&call.sql) {
            let ticket = Arc::new(Ticket::default());
            let (started, start) = oneshot::channel();
            let on_disk = self.readers.is_some();
            let place = if on_disk { Some(self.guest(ctx).await?) } else { None };
            let (outlet, inlet) = stream::channel(on_disk);
            let job = StreamJob { call, ticket: ticket.clone(), started, outlet };
            if on_disk {
                self.start_stream(job, place)?;
            } else {
                self.writer.push(Line::Foreground, Job::Stream(job)).map_err(|_| closed())?;
            }
            // The stream owns the ticket from here: it is made before the wait, so that leaving gives the job up.
            let rows = inlet.into_rows(ctx, ticket.clone());
            match ctx.run(start).await?.map_err(|_| ticket::gone())?? {
                None => return Ok(rows),
                Some(back) => {
                    self.remember_write(back.sql.clone());
                    return Ok(ready(self.route(ctx, back).await?));
                }
            }
        }
        Ok(ready(self.route(ctx, call).await?))
    }

    fn start_stream(&self, job: StreamJob, place: Option<OwnedSemaphorePermit>) -> Result<()> {
        let file = self.house.opening.file.clone();
        start_guest(self.house.clone(), Role::Reader, self.alive()?, move |_, opened| {
            let _place = place;
            match opened {
                Ok(connection) => serve_stream(&connection, Role::Reader, job),
                Err(fault) => drop(job.started.send(Err(file::explain(&file, fault)))),
            }
        })
    }

    async fn open_session(&self, ctx: &Context, begin: Option<Begin>) -> Result<Box<dyn Session>> {
        ctx.check()?;
        let ticket = Arc::new(Ticket::default());
        // Writers take their turns on the writer. Who only reads, or isn't in a transaction, gets a connection of
        // its own and is in nobody's way.
        let guest = self.readers.is_some() && begin.is_none_or(|begin| begin.read_only);
        if !guest {
            let (job, ready, session) = session(begin, ticket.clone(), None);
            let background = begin.is_some_and(|begin| begin.background);
            let line = if background { Line::Background } else { Line::Foreground };
            self.writer.push(line, Job::Session(job)).map_err(|_| closed())?;
            wait(ctx, ticket, ready, Some(self.acquire_timeout)).await??;
            return Ok(Box::new(session));
        }
        let place = self.guest(ctx).await?;
        let (job, ready, session) = session(begin, ticket.clone(), Some(place));
        let role = if begin.is_some() { Role::Reader } else { Role::Writer };
        let file = self.house.opening.file.clone();
        start_guest(self.house.clone(), role, self.alive()?, move |house, opened| match opened {
            Ok(connection) => session::serve_session(house, &connection, job),
            Err(fault) => drop(job.ready.send(Err(file::explain(&file, fault)))),
        })?;
        wait(ctx, ticket, ready, None).await??;
        Ok(Box::new(session))
    }

    /// A place for a guest.
    async fn guest(&self, ctx: &Context) -> Result<OwnedSemaphorePermit> {
        let place = tokio::time::timeout(self.acquire_timeout, self.guests.clone().acquire_owned());
        match ctx.run(place).await? {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(Error::unavailable("the database is busy, try again").context(format!(
                "all {} streams and read-only transactions stayed open for the acquire timeout of {:?}",
                self.guest_count, self.acquire_timeout
            ))),
        }
    }

    fn alive(&self) -> Result<Alive> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }

    fn is_known_write(&self, sql: &str) -> bool {
        self.readers.is_none() || self.writes.read().unwrap_or_else(PoisonError::into_inner).contains(sql)
    }

    fn remember_write(&self, sql: Cow<'static, str>) {
        let mut writes = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        // Texts that are built at run time may never come again: they may not push the others out.
        if writes.len() < KNOWN_WRITES {
            writes.insert(sql);
        }
    }

    /// Takes no more work. Threads end when what they have is done.
    fn stop(&self) {
        self.writer.close();
        if let Some(readers) = &self.readers {
            readers.close();
        }
        self.guests.close();
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Driver for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn run<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.route(ctx, call))
    }

    fn stream<'a>(&'a self, ctx: &'a Context, call: Call) -> BoxFuture<'a, Result<Rows>> {
        Box::pin(self.stream_rows(ctx, call))
    }

    fn begin<'a>(&'a self, ctx: &'a Context, begin: Begin) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(self.open_session(ctx, Some(begin)))
    }

    fn session<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        Box::pin(self.open_session(ctx, None))
    }

    fn stats(&self) -> PoolStats {
        let waiting = self.writer.len() + self.readers.as_ref().map_or(0, |readers| readers.len());
        PoolStats {
            max: 1 + self.reader_count + self.guest_count,
            open: self.house.open.load(Ordering::Relaxed),
            in_use: self.house.in_use.load(Ordering::Relaxed),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        }
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.stop();
            let mut all_gone = self.all_gone.lock().await;
            if ctx.run(all_gone.recv()).await.is_err() {
                self.house.killed.store(true, Ordering::Release);
                if tokio::time::timeout(STOP_GRACE, all_gone.recv()).await.is_err() {
                    tracing::warn!("SQLite threads are still busy after they were told to stop");
                }
            }
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer that is there already, as a stream.
fn ready(answer: Answer) -> Rows {
    futures_util::stream::iter(answer.rows.into_iter().map(Ok)).boxed()
}

fn closed() -> Error {
    Error::unavailable("the database is closed")
}

#[cfg(test)]
mod tests;
