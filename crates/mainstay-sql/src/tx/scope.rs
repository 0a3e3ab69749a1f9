//! Who may use a transaction's one connection, and when: [`Open`] owns it, [`Handle`]s borrow it in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::hook::Deferred;
use crate::db::Database;
use crate::driver::{Answer, Call, Rows, Session};
use crate::row::Row;

/// Rows of a stream that may wait for their reader.
const STREAM_BUFFER: usize = 32;

/// An open transaction. Dropping it ends the transaction for every handle and rolls it back.
pub(super) struct Open(Arc<Shared>);

/// The transaction, or one nested in it, as its statements see it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    scope: u32,
}

/// A nested transaction. Dropping it undoes what was done inside, before the next statement of the outer one.
pub(super) struct SavepointGuard {
    shared: Arc<Shared>,
    scope: u32,
}

struct Shared {
    database: Arc<Database>,
    /// Of whoever opened the transaction.
    ctx: Context,
    /// Held by whoever uses the session, so that statements that are awaited together run one after another.
    turn: Arc<Semaphore>,
    /// Cuts statements that handles in other tasks still run when the transaction ends.
    ended: CancellationToken,
    slot: Mutex<Slot>,
}

struct Slot {
    /// `None` while it is lent, and after the end.
    session: Option<Box<dyn Session>>,
    ended: bool,
    streaming: bool,
    /// The scopes that are open, outermost first: 0 is the transaction, the others are its savepoints. Only handles of
    /// the last may run statements, for what the outer ones did would be undone with the inner.
    scopes: Vec<u32>,
    last_scope: u32,
    /// The savepoint to go back to before anything else.
    undo: Option<u32>,
    /// What waits for the commit, each with the scope that deferred it.
    deferred: Vec<(u32, Deferred)>,
    /// Whether that was handed over, so that what came now would be lost.
    sealed: bool,
}

/// The session on loan to one statement.
struct Lease {
    shared: Arc<Shared>,
    session: Option<Box<dyn Session>>, // `None` only after `take`
    _turn: OwnedSemaphorePermit,
}

impl Open {
    pub(super) fn new(database: &Arc<Database>, ctx: &Context, session: Box<dyn Session>) -> Self {
        let slot = Slot {
            session: Some(session),
            ended: false,
            streaming: false,
            scopes: vec![0],
            last_scope: 0,
            undo: None,
            deferred: Vec::new(),
            sealed: false,
        };
        Self(Arc::new(Shared {
            database: database.clone(),
            ctx: ctx.clone(),
            turn: Arc::new(Semaphore::new(1)),
            ended: CancellationToken::new(),
            slot: Mutex::new(slot),
        }))
    }

    pub(super) fn handle(&self) -> Handle {
        Handle { shared: self.0.clone(), scope: 0 }
    }

    /// What was deferred and not undone, in order. Nothing more can be deferred.
    pub(super) fn take_deferred(&self) -> Vec<Deferred> {
        let deferred = {
            let mut slot = self.0.lock();
            slot.sealed = true;
            std::mem::take(&mut slot.deferred)
        };
        deferred.into_iter().map(|(_, item)| item).collect()
    }

    /// Waits for the statement in hand and ends the transaction for all handles; the session is to be committed.
    pub(super) async fn finish(self, ctx: &Context) -> Result<Box<dyn Session>> {
        let lease = self.0.lease(ctx, 0).await?;
        self.0.end();
        Ok(lease.take())
    }

    /// Ends the transaction for all handles; the session, unless a statement has it, is to be rolled back.
    pub(super) fn abandon(self) -> Option<Box<dyn Session>> {
        self.0.end()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.0.end());
    }
}

impl Handle {
    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.shared.database
    }

    /// The context that the transaction was opened with.
    pub(crate) fn context(&self) -> &Context {
        &self.shared.ctx
    }

    pub(crate) fn defer(&self, item: Deferred) -> Result<()> {
        let mut slot = self.shared.lock();
        slot.admit_scope(self.scope)?; // a stream doesn't matter: this needs no connection
        if slot.sealed {
            return Err(Error::internal(
                "something was deferred to the end of a transaction that is at its end: its hook has been called",
            ));
        }
        slot.deferred.push((self.scope, item));
        Ok(())
    }

    pub(crate) async fn run(&self, ctx: &Context, call: Call) -> Result<Answer> {
        let mut lease = self.shared.lease(ctx, self.scope).await?;
        self.shared.unless_ended(lease.session().run(ctx, call)).await
    }

    /// Nothing runs before the stream is polled, and it runs inside the poll: a transaction belongs to its task.
    pub(crate) fn stream(&self, ctx: Context, call: Call) -> Rows {
        let (shared, scope) = (self.shared.clone(), self.scope);
        let (rows, mut arrived) = mpsc::channel::<Row>(STREAM_BUFFER);
        let statement = async move {
            let mut lease = shared.lease(&ctx, scope).await?;
            let _streaming = Streaming::new(&shared);
            let mut each = |row| -> BoxFuture<'static, Result<bool>> {
                let rows = rows.clone();
                async move { Ok(rows.send(row).await.is_ok()) }.boxed()
            };
            shared.unless_ended(lease.session().each(&ctx, call, &mut each)).await
        };
        let mut statement = Some(statement.boxed());
        let mut failure = None;
        poll_fn(move |cx| {
            use std::task::Poll::{Pending, Ready};
            loop {
                // The channel ends when the statement did, which drops its sender, and all rows were taken.
                match arrived.poll_recv(cx) {
                    Ready(Some(row)) => return Ready(Some(Ok(row))),
                    Ready(None) => return Ready(failure.take().map(Err)),
                    Pending => {}
                }
                let Some(running) = &mut statement else { return Pending };
                let buffered = arrived.len();
                match running.poll_unpin(cx) {
                    Ready(result) => {
                        statement = None;
                        failure = result.err();
                    }
                    Pending if arrived.len() == buffered => return Pending,
                    Pending => {}
                }
            }
        })
        .boxed()
    }

    pub(super) async fn savepoint(&self, ctx: &Context) -> Result<SavepointGuard> {
        let mut lease = self.shared.lease(ctx, self.scope).await?;
        let scope = {
            let mut slot = self.shared.lock();
            slot.last_scope += 1;
            slot.last_scope
        };
        let sql = format!("SAVEPOINT mainstay_{scope}");
        self.shared.unless_ended(lease.session().script(ctx, &sql)).await?;
        self.shared.lock().scopes.push(scope);
        Ok(SavepointGuard { shared: self.shared.clone(), scope })
    }
}

impl SavepointGuard {
    pub(super) fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone(), scope: self.scope }
    }

    pub(super) async fn release(self, ctx: &Context) -> Result<()> {
        let mut lease = self.shared.lease(ctx, self.scope).await?;
        let sql = format!("RELEASE SAVEPOINT mainstay_{}", self.scope);
        self.shared.unless_ended(lease.session().script(ctx, &sql)).await?;
        // Taken off the list here, so that the guard, when it is dropped now, finds nothing to undo.
        self.shared.lock().scopes.retain(|scope| *scope < self.scope);
        Ok(())
    }
}

impl Drop for SavepointGuard {
    fn drop(&mut self) {
        let mut slot = self.shared.lock();
        if slot.scopes.contains(&self.scope) {
            slot.scopes.retain(|scope| *scope < self.scope);
            // Scopes are numbered as they are opened and only the last one defers, so these are all that came since,
            // also from scopes inside that were released.
            slot.deferred.retain(|(scope, _)| *scope < self.scope);
            slot.undo = Some(slot.undo.map_or(self.scope, |undo| undo.min(self.scope)));
        }
    }
}

impl Shared {
    /// The session, when it is this scope's turn.
    async fn lease(self: &Arc<Self>, ctx: &Context, scope: u32) -> Result<Lease> {
        self.lock().admit(scope)?;
        let waiting = ctx.run(self.turn.clone().acquire_owned());
        let turn = self.unless_ended(async { waiting.await?.map_err(|_| ended()) }).await?;
        let (session, undo) = {
            let mut slot = self.lock();
            slot.admit(scope)?; // things may have changed while it waited
            (slot.session.take().ok_or_else(ended)?, slot.undo)
        };
        let mut lease = Lease { shared: self.clone(), session: Some(session), _turn: turn };
        if let Some(savepoint) = undo {
            let sql = format!("ROLLBACK TO SAVEPOINT mainstay_{savepoint}; RELEASE SAVEPOINT mainstay_{savepoint}");
            self.unless_ended(lease.session().script(ctx, &sql)).await?;
            self.lock().undo = None;
        }
        Ok(lease)
    }

    fn end(&self) -> Option<Box<dyn Session>> {
        let session = {
            let mut slot = self.lock();
            slot.ended = true;
            slot.session.take()
        };
        self.ended.cancel();
        session
    }

    async fn unless_ended<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.ended.cancelled() => Err(ended()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Whether a statement of this scope may run.
    fn admit(&self, scope: u32) -> Result<()> {
        self.admit_scope(scope)?;
        if self.streaming {
            return Err(Error::internal(
                "a stream of this transaction is still open, and its connection can do one thing at a time: collect \
                 the rows with `all`, or drop the stream, before the next statement",
            ));
        }
        Ok(())
    }

    fn admit_scope(&self, scope: u32) -> Result<()> {
        if self.ended || !self.scopes.contains(&scope) {
            return Err(ended());
        }
        if self.scopes.last() != Some(&scope) {
            return Err(Error::internal(
                "a nested transaction is open: use the `Tx` that its closure is given until it has ended",
            ));
        }
        Ok(())
    }
}

impl Lease {
    fn session(&mut self) -> &mut dyn Session {
        &mut **self.session.as_mut().expect("only `take`, which consumes, takes the session")
    }

    fn take(mut self) -> Box<dyn Session> {
        self.session.take().expect("only `take`, which consumes, takes the session")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let mut slot = self.shared.lock();
            if slot.ended {
                drop(slot);
                drop(session); // rolls back
            } else {
                slot.session = Some(session);
            }
        }
    }
}

/// Marks the transaction while one of its streams is open.
struct Streaming<'a>(&'a Shared);

impl<'a> Streaming<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.lock().streaming = true;
        Self(shared)
    }
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.lock().streaming = false;
    }
}

fn ended() -> Error {
    Error::internal("the transaction has ended: a `Tx` can't be used after the closure it was given to")
}
