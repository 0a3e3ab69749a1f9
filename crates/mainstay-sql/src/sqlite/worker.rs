//! The threads that own connections: lanes, which serve a queue, and guests, which serve one stream or one session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc as sync_mpsc;
use std::thread;
use std::time::Duration;

use mainstay_core::{Error, Result};
use tokio::sync::{mpsc, oneshot};

use super::clock::{Stopwatch, pause};
use super::connection::{Connection, Opening, Ran, Role};
use super::file::explain;
use super::queue::{Queue, Waiting};
use super::session::{SessionJob, serve_session};
use super::stream::{StreamJob, serve_stream};
use super::ticket::{Current, Ticket};
use crate::driver::{Answer, Call};
use crate::fault::DatabaseError;
use crate::metrics::SqlMetrics;
use crate::settings::SqliteFile;

/// A writer that never rests takes a pause this often, and this long: longer than a second process waits between two
/// tries for the lock, which it would otherwise hardly ever find free.
const HOT: Duration = Duration::from_millis(100);
const BREATH: Duration = Duration::from_millis(2);

/// One piece of work for a lane.
pub(super) enum Job {
    Run(RunJob),
    /// A transaction or a session: the lane serves nobody else until it ends.
    Session(SessionJob),
    /// Only in memory, where there is no second connection: the whole answer is read at once.
    Stream(StreamJob),
}

impl Waiting for Job {
    fn is_given_up(&self) -> bool {
        let ticket = match self {
            Job::Run(job) => &job.ticket,
            Job::Session(job) => &job.ticket,
            Job::Stream(job) => &job.ticket,
        };
        ticket.is_cancelled()
    }
}

/// A single statement that commits by itself.
pub(super) struct RunJob {
    pub(super) call: Call,
    pub(super) ticket: Arc<Ticket>,
    pub(super) queued: Stopwatch,
    pub(super) reply: oneshot::Sender<Result<Routed>>,
}

/// What became of a call on the lane that it was tried on.
pub(super) enum Routed {
    Answer(Answer),
    /// A reader was asked to change something: the call comes back for the writer.
    Writes(Call),
}

/// What all threads of a database share.
pub(super) struct House {
    pub(super) opening: Opening,
    pub(super) idle_limit: Duration,
    pub(super) metrics: SqlMetrics,
    /// Stops whatever still runs, at the end of `close`.
    pub(super) killed: Arc<AtomicBool>,
    pub(super) open: AtomicU32,
    pub(super) in_use: AtomicU32,
}

/// A thread holds one as long as it lives.
#[derive(Clone)]
pub(super) struct Alive {
    /// `close` waits until all are dropped.
    pub(super) _all: mpsc::Sender<()>,
    /// The writer waits until all are dropped: the connection that closes last puts the log into the file and removes
    /// it, and only one that may write can do that.
    pub(super) _beside_writer: Option<sync_mpsc::Sender<()>>,
}

/// What a lane is made of.
pub(super) struct Lane {
    pub(super) role: Role,
    pub(super) queue: Arc<Queue<Job>>,
    pub(super) alive: Alive,
    /// For the writer, which ends when this is disconnected.
    pub(super) others: Option<sync_mpsc::Receiver<()>>,
}

/// Starts a thread that serves a queue over a connection of its own, and waits until that is open.
pub(super) async fn start_lane(house: Arc<House>, lane: Lane) -> Result<()> {
    let Lane { role, queue, alive, others } = lane;
    let (ready, opened) = oneshot::channel();
    let file = house.opening.file.clone();
    let name = if role == Role::Writer { "sqlite-writer" } else { "sqlite-reader" };
    spawn(name, house, role, alive, move |house, opened| {
        let connection = match opened {
            Ok(connection) => connection,
            Err(fault) => return drop(ready.send(Err(fault))),
        };
        // A panic in here would leave callers waiting for ever: whatever ends the thread empties the queue.
        let _clear = ClearOnDrop(queue.clone());
        if ready.send(Ok(())).is_ok() {
            serve_lane(house, &connection, role, &queue);
        }
        if let Some(others) = others {
            let _ = others.recv(); // nothing is ever sent: it returns when the last of them has ended
        }
    })?;
    match opened.await {
        Ok(opened) => opened.map_err(|fault| explain(&file, fault)),
        Err(_) => Err(super::ticket::gone()),
    }
}

/// Starts a thread that opens a connection, does `work` with it, and ends.
pub(super) fn start_guest(
    house: Arc<House>,
    role: Role,
    alive: Alive,
    work: impl FnOnce(&House, Result<Connection, DatabaseError>) + Send + 'static,
) -> Result<()> {
    spawn("sqlite-guest", house, role, alive, work)
}

fn spawn(
    name: &str,
    house: Arc<House>,
    role: Role,
    alive: Alive,
    work: impl FnOnce(&House, Result<Connection, DatabaseError>) + Send + 'static,
) -> Result<()> {
    let thread = move || {
        let _alive = alive;
        let opened = Connection::open(&house.opening, role, Current::new(house.killed.clone()));
        let _open = opened.is_ok().then(|| Counted::new(&house.open));
        work(&house, opened);
    };
    match thread::Builder::new().name(name.to_owned()).spawn(thread) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::resource_exhausted("the service has no thread left for SQLite").with_source(error)),
    }
}

fn serve_lane(house: &House, connection: &Connection, role: Role, queue: &Queue<Job>) {
    // A database in memory has no other process.
    let shared = role == Role::Writer && house.opening.file != SqliteFile::Memory;
    let mut hot_since = Stopwatch::start();
    loop {
        let waiting = Stopwatch::start();
        let Some(job) = queue.pop() else { return };
        // Moments between two jobs are no rest: a single caller who begins again as soon as it has its answer leaves the
        // lock free for less than the others need to find it so.
        if waiting.elapsed() >= BREATH {
            hot_since = Stopwatch::start();
        } else if shared && hot_since.elapsed() >= HOT {
            pause(BREATH);
            hot_since = Stopwatch::start();
        }
        let _busy = Counted::new(&house.in_use);
        match job {
            Job::Run(job) => serve_run(house, connection, role, job),
            Job::Session(job) => serve_session(house, connection, job),
            Job::Stream(job) => serve_stream(connection, role, job),
        }
    }
}

fn serve_run(house: &House, connection: &Connection, role: Role, job: RunJob) {
    if !job.ticket.start() {
        return;
    }
    house.metrics.wait.observe(job.queued.elapsed());
    let ran = connection.run(&job.ticket, &job.call, role).map(|ran| match ran {
        Ran::Answer(answer) => Routed::Answer(answer),
        Ran::Writes => Routed::Writes(job.call),
    });
    // Whoever left doesn't want to know.
    let _ = job.reply.send(ran);
}

/// Counts while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct ClearOnDrop(Arc<Queue<Job>>);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.clear();
    }
}
