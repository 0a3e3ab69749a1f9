//! [`Ticket`]: one job's way to be given up, before it runs or while it runs.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use tokio::sync::oneshot;

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// Shared by the caller, who may give the job up, and the thread, which asks before it starts and while it runs.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    /// Called by the thread: whether the job may start. A job that was given up never does.
    pub(super) fn start(&self) -> bool {
        self.0.compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives the job up, whatever it does.
    pub(super) fn cancel(&self) {
        self.0.store(CANCELLED, Ordering::Release);
    }

    /// Gives the job up if it hasn't started. Whether it was given up.
    fn abandon(&self) -> bool {
        self.0.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the caller has left.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }
}

/// Gives the job up when it is dropped; after the job's end that changes nothing.
pub(super) struct CancelOnDrop(pub(super) Arc<Ticket>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The answer to a job, or the cause of `ctx`, whichever is first. A caller who leaves gives the job up.
///
/// `queue_limit` bounds the time until the job starts, not the job.
pub(super) async fn wait<T>(
    ctx: &Context,
    ticket: Arc<Ticket>,
    mut reply: oneshot::Receiver<T>,
    queue_limit: Option<Duration>,
) -> Result<T> {
    let guard = CancelOnDrop(ticket);
    let done = ctx.done();
    tokio::pin!(done);
    if let Some(limit) = queue_limit {
        tokio::select! {
            biased;
            answer = &mut reply => return answer.map_err(|_| gone()),
            cause = &mut done => return Err(cause.into_error()),
            () = tokio::time::sleep(limit) => {}
        }
        if guard.0.abandon() {
            return Err(Error::unavailable("the database is busy, try again").context(format!(
                "the statement's turn didn't come within the acquire timeout of {limit:?}: others kept SQLite busy"
            )));
        }
    }
    tokio::select! {
        biased;
        answer = reply => answer.map_err(|_| gone()),
        cause = done => Err(cause.into_error()),
    }
}

/// What a thread that ended in the middle of a job leaves behind.
pub(super) fn gone() -> Error {
    Error::unavailable("the database is closed").context("the SQLite thread ended before it answered")
}

/// Where a connection's handlers find the job it works on.
#[derive(Clone, Debug)]
pub(super) struct Current {
    ticket: Arc<Mutex<Option<Arc<Ticket>>>>,
    killed: Arc<AtomicBool>,
}

impl Current {
    /// `killed` stops every job of the database, at the end of `close`.
    pub(super) fn new(killed: Arc<AtomicBool>) -> Self {
        Self { ticket: Arc::default(), killed }
    }

    /// Runs `work` with `ticket` as the job that the handlers ask.
    pub(super) fn with<T>(&self, ticket: &Arc<Ticket>, work: impl FnOnce() -> T) -> T {
        self.set(Some(ticket.clone()));
        let output = work();
        self.set(None);
        output
    }

    /// Whether the work in hand has to stop.
    pub(super) fn must_stop(&self) -> bool {
        if self.killed.load(Ordering::Acquire) {
            return true;
        }
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|ticket| ticket.is_cancelled())
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    fn set(&self, ticket: Option<Arc<Ticket>>) {
        *self.ticket.lock().unwrap_or_else(PoisonError::into_inner) = ticket;
    }
}
