//! Rows on their way from a thread to a caller, in chunks and in bounded memory.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc as sync_mpsc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use mainstay_core::{Code, Context, Error, Result};
use tokio::sync::{mpsc, oneshot};

use super::clock::Stopwatch;
use super::connection::{Connection, Role};
use super::queue::LOOK;
use super::ticket::{CancelOnDrop, Current, Ticket, gone};
use crate::driver::{Call, Rows};
use crate::row::Row;

/// How many chunks may be on their way that the caller hasn't taken.
const AHEAD: usize = 2;

/// A database in memory is read at once; an answer of more rows than this would need its memory twice.
const MEMORY_ROWS: usize = 1_000_000;

/// A statement whose rows are streamed.
pub(super) struct StreamJob {
    pub(super) call: Call,
    pub(super) ticket: Arc<Ticket>,
    /// `Ok(Some(call))` when the statement changes something and has to run on the writer.
    pub(super) started: oneshot::Sender<Result<Option<Call>>>,
    pub(super) outlet: Outlet,
}

enum Message {
    Rows(Vec<Row>),
    End(Result<()>),
}

/// The thread's end.
pub(super) struct Outlet {
    messages: mpsc::UnboundedSender<Message>,
    /// One for each chunk that was taken. `None` where the thread may not wait for the caller.
    credits: Option<sync_mpsc::Receiver<()>>,
    ahead: usize,
    rows_sent: usize,
}

/// The caller's end.
pub(super) struct Inlet {
    messages: mpsc::UnboundedReceiver<Message>,
    credits: Option<sync_mpsc::Sender<()>>,
    rows: std::vec::IntoIter<Row>,
    ended: bool,
}

/// Why a thread stopped handing out rows before the last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// Nobody takes them any more.
    Unwanted,
    /// The caller took none for longer than it may.
    Idle,
    /// More rows than the memory bound allows.
    TooMany,
}

impl Stop {
    pub(super) fn into_error(self) -> Error {
        match self {
            Stop::Unwanted => Error::new(Code::Cancelled, "the stream was cancelled"),
            Stop::Idle => Error::aborted("the transaction took too long and was rolled back")
                .context("no row was taken from its stream for the time that a SQLite transaction may be idle"),
            Stop::TooMany => {
                Error::resource_exhausted(format!("a stream from a database in memory ends after {MEMORY_ROWS} rows"))
            }
        }
    }
}

/// Both ends. `waits` says whether the thread waits for the caller to take chunks.
pub(super) fn channel(waits: bool) -> (Outlet, Inlet) {
    let (message_sender, messages) = mpsc::unbounded_channel();
    let (credit_sender, credits) = sync_mpsc::channel();
    let outlet = Outlet { messages: message_sender, credits: waits.then_some(credits), ahead: 0, rows_sent: 0 };
    let inlet = Inlet { messages, credits: waits.then_some(credit_sender), rows: Vec::new().into_iter(), ended: false };
    (outlet, inlet)
}

impl Outlet {
    /// Sends one chunk, after waiting until the caller has taken enough of those before, for at most `patience`.
    pub(super) fn send(&mut self, current: &Current, patience: Option<Duration>, rows: Vec<Row>) -> Result<(), Stop> {
        self.rows_sent += rows.len();
        match &self.credits {
            None if self.rows_sent > MEMORY_ROWS => return Err(Stop::TooMany),
            None => {}
            Some(credits) => {
                let since = Stopwatch::start();
                while self.ahead >= AHEAD {
                    match credits.recv_timeout(LOOK) {
                        Ok(()) => self.ahead -= 1,
                        Err(sync_mpsc::RecvTimeoutError::Disconnected) => return Err(Stop::Unwanted),
                        Err(sync_mpsc::RecvTimeoutError::Timeout) if current.must_stop() => return Err(Stop::Unwanted),
                        Err(sync_mpsc::RecvTimeoutError::Timeout) => {
                            if patience.is_some_and(|patience| since.elapsed() >= patience) {
                                return Err(Stop::Idle);
                            }
                        }
                    }
                }
                self.ahead += 1;
            }
        }
        self.messages.send(Message::Rows(rows)).map_err(|_| Stop::Unwanted)
    }

    pub(super) fn end(self, result: Result<()>) {
        let _ = self.messages.send(Message::End(result)); // whoever left doesn't want to know
    }
}

impl Inlet {
    /// The next row; `None` after the last one or after an error.
    pub(super) async fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            if self.ended {
                return None;
            }
            match self.messages.recv().await {
                Some(Message::Rows(rows)) => {
                    if let Some(credits) = &self.credits {
                        let _ = credits.send(()); // a thread that has ended needs none
                    }
                    self.rows = rows.into_iter();
                }
                Some(Message::End(result)) => {
                    self.ended = true;
                    return result.err().map(Err);
                }
                None => {
                    self.ended = true;
                    return Some(Err(gone()));
                }
            }
        }
    }

    /// As the stream that the caller gets. It ends with the cause of `ctx` when that is done, polled or not.
    pub(super) fn into_rows(self, ctx: &Context, ticket: Arc<Ticket>) -> Rows {
        let guard = CancelOnDrop(ticket.clone());
        let (open, mut closed) = oneshot::channel::<()>();
        let watched = ctx.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = &mut closed => {}
                _ = watched.done() => ticket.cancel(),
            }
        });
        let state = (self, ctx.clone(), (guard, open));
        stream::unfold(state, |(mut inlet, ctx, guard)| async move {
            if inlet.ended && inlet.rows.len() == 0 {
                return None;
            }
            let next = tokio::select! {
                biased;
                next = inlet.next() => next,
                cause = ctx.done() => Some(Err(cause.into_error())),
            };
            let item = match next? {
                Ok(row) => Ok(row),
                Err(error) => {
                    inlet.ended = true;
                    inlet.rows = Vec::new().into_iter();
                    // The statement was stopped because `ctx` was done: that is the cause to tell.
                    Err(ctx.cause().map_or(error, |cause| cause.into_error()))
                }
            };
            Some((item, (inlet, ctx, guard)))
        })
        .fuse()
        .boxed()
    }
}

/// Runs `job` on this thread.
pub(super) fn serve_stream(connection: &Connection, role: Role, job: StreamJob) {
    let StreamJob { call, ticket, started, mut outlet } = job;
    if !ticket.start() {
        return;
    }
    let started = Cell::new(Some(started));
    let start = |answer| {
        if let Some(started) = started.take() {
            let _ = started.send(answer); // whoever left has cancelled the ticket too
        }
    };
    let mut stop = None;
    let ended = connection.chunks(
        &ticket,
        &call,
        role,
        || start(Ok(None)),
        |rows| match outlet.send(connection.current(), None, rows) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                stop = Some(why);
                ControlFlow::Break(())
            }
        },
    );
    match ended {
        Ok(None) => start(Ok(Some(call))),
        Ok(Some(())) => outlet.end(stop.map_or(Ok(()), |stop| Err(stop.into_error()))),
        Err(error) => match started.take() {
            Some(started) => drop(started.send(Err(error))), // the same
            None => outlet.end(Err(error)),
        },
    }
}
