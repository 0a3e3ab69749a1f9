//! [`Tx`]: an open transaction, and the loop that begins, repeats, commits and rolls back.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_telemetry::trace::{self, SpanKind};
use tokio::time::Instant;

use crate::db::{Database, Db};
use crate::driver::{Begin, Isolation, Session};
use crate::fault::{CommitUnknown, DatabaseError, DatabaseErrorKind};

mod hook;
mod scope;

use hook::{After, Ending};
pub use hook::{CommitHook, Committed, Deferred};
pub(crate) use scope::Handle;
use scope::{Open, SavepointGuard};

/// Attempts of a transaction whose context has no deadline.
const MAX_ATTEMPTS: u32 = 100;

/// How long a commit that was sent is waited for after the context is done. The answer is nearly always on its way,
/// and "committed" is worth more to the caller than a punctual "unknown".
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// How long a commit keeps its connection. It has no deadline but this one, and in a network that swallows packets
/// neither an answer nor an error ever comes.
const COMMIT_LIMIT: Duration = Duration::from_secs(30);

/// An open transaction: derefs to [`Db`], so whatever takes a `&Db` works in and out of a transaction.
///
/// It is a cheap handle. It ends when the future of [`Db::transaction`] ends or is dropped; a clone kept longer gets
/// errors. Statements of one transaction run one after another, also when they are awaited together.
#[derive(Clone, Debug)]
pub struct Tx(Db);

/// How a transaction begins; the default is the database's own.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct TxOptions {
    begin: Begin,
}

impl TxOptions {
    /// The database's own isolation level, for reading and writing.
    pub const fn new() -> Self {
        Self { begin: Begin { isolation: None, read_only: false, background: false } }
    }

    /// Sets the isolation level. SQLite is serializable whatever is asked for.
    pub const fn isolation(mut self, isolation: Isolation) -> Self {
        self.begin.isolation = Some(isolation);
        self
    }

    /// Lets the database refuse writes. On SQLite such a transaction doesn't wait for writers.
    pub const fn read_only(mut self) -> Self {
        self.begin.read_only = true;
        self
    }

    /// Takes turns with other transactions of its kind: on SQLite, where all writers wait for one thread, it and the
    /// others are served alternately, so that a backlog of background work delays a request by one transaction at most,
    /// and requests delay the background by no more. Elsewhere, and on a nested transaction, it changes nothing.
    pub const fn background(mut self) -> Self {
        self.begin.background = true;
        self
    }
}

impl Tx {
    /// Keeps `item` for the [`CommitHook`] of the database, which is handed it right before COMMIT, unless the
    /// transaction, or the savepoint that this handle belongs to, is rolled back.
    ///
    /// # Errors
    /// [`Code::Internal`](mainstay_core::Code::Internal): the transaction has ended, its hook has been called, or a nested
    /// one is open.
    pub fn defer(&self, item: Deferred) -> Result<()> {
        self.0.handle().defer(item)
    }

    /// Has `run` called once the transaction is committed, also when nobody waits for that any more: to wake who waits for
    /// what was written, or to forget what was remembered of it. When the transaction, or the savepoint that this handle
    /// belongs to, is rolled back, `run` is dropped.
    ///
    /// It must not block. It is also called when the outcome of the COMMIT is unknown, and not at all when the process ends
    /// in between, so it may do only what is harmless without the commit and what can be missed; an event is neither.
    ///
    /// # Errors
    /// As [`Tx::defer`].
    pub fn after_commit(&self, run: impl FnOnce() + Send + 'static) -> Result<()> {
        self.defer(Box::new(After(Box::new(run))))
    }

    /// The context that the transaction was opened with.
    pub fn context(&self) -> &Context {
        self.0.handle().context()
    }
}

impl Deref for Tx {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.0
    }
}

tokio::task_local! {
    /// The databases with a transaction open around the code that runs.
    static INSIDE: Vec<Arc<Database>>;
}

/// Refuses the pool's own handle where a transaction of the same pool is open: on SQLite it would wait for itself, and
/// elsewhere the statement would silently not belong to the transaction.
pub(crate) fn refuse_pool_inside(database: &Arc<Database>) -> Result<()> {
    let inside = INSIDE.try_with(|open| open.iter().any(|open| Arc::ptr_eq(open, database)));
    if inside.unwrap_or(false) {
        return Err(Error::internal(
            "the pool's `Db` was used inside an open transaction of the same database: use the `Tx` that the closure \
             is given, or `tokio::spawn` what must not belong to the transaction",
        ));
    }
    Ok(())
}

/// [`Db::transaction`] on a pool.
pub(crate) async fn outermost<T, F, Fut>(
    database: &Arc<Database>,
    ctx: &Context,
    options: TxOptions,
    mut work: F,
) -> Result<T>
where
    F: FnMut(Tx) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    refuse_pool_inside(database)?;
    let driver = database.driver(ctx).await?;
    let mut attempt = 1;
    loop {
        let session = spanned(database, ctx, "BEGIN", driver.begin(ctx, options.begin)).await?;
        let error = match attempt_once(database, ctx, session, &mut work).await {
            Ok(value) => return Ok(value),
            Err(error) if !lost_a_conflict(&error) => return Err(error),
            Err(error) => error,
        };
        if ctx.deadline().is_none() && attempt >= MAX_ATTEMPTS {
            return Err(error.context(format!("gave up after {attempt} attempts of the transaction")));
        }
        let pause = tokio::time::sleep(backoff(attempt));
        if let Err(done) = ctx.run(pause).await {
            return Err(done.with_source(error).context(format!("after {attempt} attempts of the transaction")));
        }
        tracing::debug!(target: "mainstay::sql", attempt, "transaction runs again after a conflict");
        attempt += 1;
    }
}

/// [`Db::transaction`] on a transaction: a savepoint.
pub(crate) async fn nested<T, F, Fut>(outer: &Handle, ctx: &Context, options: TxOptions, mut work: F) -> Result<T>
where
    F: FnMut(Tx) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    if options.begin.isolation.is_some() || options.begin.read_only {
        return Err(Error::internal("a nested transaction has the options of the outer one: give them there"));
    }
    let savepoint: SavepointGuard = outer.savepoint(ctx).await?;
    // An error drops the guard, and with it all that was done since.
    let value = ctx.run(async { work(Tx(Db::in_transaction(savepoint.handle()))).await }).await??;
    savepoint.release(ctx).await?;
    Ok(value)
}

async fn attempt_once<T, F, Fut>(
    database: &Arc<Database>,
    ctx: &Context,
    session: Box<dyn Session>,
    work: &mut F,
) -> Result<T>
where
    F: FnMut(Tx) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let open = Open::new(database, ctx, session);
    let mut inside = INSIDE.try_with(Clone::clone).unwrap_or_default();
    inside.push(database.clone());
    let tx = Tx(Db::in_transaction(open.handle()));
    let mut hook = None;
    let outcome = ctx.run(INSIDE.scope(inside, async {
        let value = work(tx).await?;
        hook = before_commit(database, ctx, &open).await?;
        Ok(value)
    }));
    match outcome.await.flatten() {
        Ok(value) => {
            let session = open.finish(ctx).await?;
            spanned(database, ctx, "COMMIT", commit(ctx, session, hook)).await?;
            Ok(value)
        }
        Err(error) => {
            // Waited for, so that the caller's next statement finds its locks free. Once `ctx` is done, that goes on
            // in the background.
            if let Some(session) = open.abandon()
                && let Ok(Err(rollback)) = ctx.run(spanned(database, ctx, "ROLLBACK", session.rollback())).await
            {
                tracing::debug!(target: "mainstay::sql", error = %rollback.report(), "rolling back");
            }
            Err(error)
        }
    }
}

/// Waits for `work` in a span of its own: what a transaction waits for its turn, and for the disk, is in none of its
/// statements.
async fn spanned<T>(
    database: &Database,
    ctx: &Context,
    operation: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut span = trace::span(ctx, SpanKind::Client, || operation.into());
    if let Some(span) = &mut span {
        span.set("db.system.name", database.dialect().system());
        span.set("db.operation.name", operation);
    }
    let result = work.await;
    if let Some(span) = &mut span {
        span.outcome(&result);
    }
    result
}

/// Hands what was deferred to the database's hook, and returns what is to be told of the commit, if anything is.
async fn before_commit(database: &Arc<Database>, ctx: &Context, open: &Open) -> Result<Option<Arc<dyn CommitHook>>> {
    let (mut items, mut after) = (Vec::new(), Vec::new());
    for item in open.take_deferred() {
        match item.downcast::<After>() {
            Ok(item) => after.push(*item),
            Err(item) => items.push(item),
        }
    }
    let mut hook = None;
    if !items.is_empty() {
        let found = database.commit_hook().ok_or_else(|| {
            Error::internal("something was deferred to the end of a transaction of a database without a commit hook")
        })?;
        let tx = Tx(Db::in_transaction(open.handle()));
        found.before_commit(ctx, &tx, items).await?;
        hook = Some(found);
    }
    if after.is_empty() {
        return Ok(hook);
    }
    Ok(Some(Arc::new(Ending::new(hook, after))))
}

/// Commits in a task of its own, so that a commit that was sent is finished whoever still waits for it.
async fn commit(ctx: &Context, session: Box<dyn Session>, hook: Option<Arc<dyn CommitHook>>) -> Result<()> {
    ctx.check()?;
    let identity = ctx.clone();
    let committing = async move {
        let committed = tokio::time::timeout(COMMIT_LIMIT, session.commit()).await.unwrap_or_else(|_| {
            tracing::error!(target: "mainstay::sql", limit = ?COMMIT_LIMIT, "the outcome of a COMMIT is unknown");
            Err(Error::unavailable("the outcome of the change is unknown").with_source(CommitUnknown))
        });
        match (&committed, hook) {
            (Ok(()), Some(hook)) => after_commit(&*hook, Committed::Yes),
            (Err(error), Some(hook)) if error.is::<CommitUnknown>() => after_commit(&*hook, Committed::Unknown),
            _ => {}
        }
        committed
    };
    let mut committing = tokio::spawn(async move { identity.scope(committing).await });
    let joined = match ctx.run(&mut committing).await {
        Ok(joined) => joined,
        Err(done) => match tokio::time::timeout_at(Instant::now() + COMMIT_GRACE, committing).await {
            Ok(joined) => joined,
            Err(_) => return Err(done.with_source(CommitUnknown)),
        },
    };
    joined.unwrap_or_else(|panic| Err(Error::from_any(panic).context(CommitUnknown.to_string())))
}

/// Tells the hook. What is committed is so whatever the hook makes of it: its panic is not the transaction's.
fn after_commit(hook: &dyn CommitHook, committed: Committed) {
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hook.after_commit(committed)));
    if told.is_err() {
        tracing::error!(target: "mainstay::sql", ?committed, "the commit hook panicked after a COMMIT");
    }
}

fn lost_a_conflict(error: &Error) -> bool {
    let conflict = error
        .downcast_ref::<DatabaseError>()
        .is_some_and(|error| matches!(error.kind, DatabaseErrorKind::Serialization | DatabaseErrorKind::Deadlock));
    conflict && !error.is::<CommitUnknown>()
}

/// A random pause up to a limit that doubles from 2 ms to 256 ms: those who collided don't meet again.
fn backoff(attempt: u32) -> Duration {
    let limit = 2_000_u64 << attempt.saturating_sub(1).min(7);
    // Version 4 UUIDs are the one source of randomness that this crate depends on anyway; their last 62 bits are it.
    let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
    Duration::from_micros((random & 0xffff_ffff) % limit)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::StreamExt;
    use mainstay_core::{BoxFuture, Code};

    use super::*;
    use crate::driver::{Answer, Call, Dialect, Driver, PoolStats, Rows};
    use crate::row::Row;

    #[test]
    fn pauses_grow_to_a_limit_and_are_random() {
        for (attempt, limit) in [(1, 2), (2, 4), (8, 256), (u32::MAX, 256)] {
            assert!(backoff(attempt) < Duration::from_millis(limit));
        }
        assert!((0..20).any(|_| backoff(8) != backoff(8)));
    }

    #[test]
    fn only_conflicts_told_by_the_database_are_tried_again() {
        let conflict = || DatabaseError::new(DatabaseErrorKind::Deadlock, "40P01", "deadlock detected").into_error();
        assert!(lost_a_conflict(&conflict().context("saving")));
        assert!(!lost_a_conflict(&Error::aborted("the caller's own")));
        let unknown = Error::unavailable("lost").with_source(CommitUnknown);
        assert!(!lost_a_conflict(&unknown));
    }

    fn conflict() -> Error {
        let told = DatabaseError::new(DatabaseErrorKind::Serialization, "40001", "could not serialize access");
        told.into_error().context("a repository's own words")
    }

    /// A database that does nothing, and whose commits answer as they are told.
    struct Fake {
        commit: fn() -> BoxFuture<'static, Result<()>>,
    }

    impl Fake {
        fn db(commit: fn() -> BoxFuture<'static, Result<()>>) -> Db {
            Db::with_driver(Arc::new(Fake { commit }))
        }
    }

    impl Driver for Fake {
        fn dialect(&self) -> Dialect {
            Dialect::Sqlite
        }

        fn run<'a>(&'a self, _: &'a Context, _: Call) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(async { Ok(Answer::default()) })
        }

        fn stream<'a>(&'a self, _: &'a Context, _: Call) -> BoxFuture<'a, Result<Rows>> {
            Box::pin(async { Ok(futures_util::stream::empty().boxed()) })
        }

        fn begin<'a>(&'a self, ctx: &'a Context, _: Begin) -> BoxFuture<'a, Result<Box<dyn Session>>> {
            self.session(ctx)
        }

        fn session<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<Box<dyn Session>>> {
            let session = Fake { commit: self.commit };
            Box::pin(async { Ok(Box::new(session) as Box<dyn Session>) })
        }

        fn stats(&self) -> PoolStats {
            PoolStats::default()
        }

        fn close<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    impl Session for Fake {
        fn run<'a>(&'a mut self, _: &'a Context, _: Call) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(async { Ok(Answer::default()) })
        }

        fn each<'a>(
            &'a mut self,
            _: &'a Context,
            _: Call,
            _: &'a mut (dyn FnMut(Row) -> BoxFuture<'static, Result<bool>> + Send),
        ) -> BoxFuture<'a, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn script<'a>(&'a mut self, _: &'a Context, _: &'a str) -> BoxFuture<'a, Result<()>> {
            Box::pin(async { Ok(()) })
        }

        fn commit(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
            (self.commit)()
        }

        fn rollback(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_attempts() {
        let ctx = Context::background().with_timeout(Duration::from_secs(60));
        let mut attempts = 0;
        let work = |_| {
            attempts += 1;
            async { Err::<(), _>(conflict()) }
        };
        let error = Fake::db(|| Box::pin(async { Ok(()) })).transaction(&ctx, work).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert!(error.is::<DatabaseError>(), "the last conflict is kept: {error:?}");
        assert!(attempts > MAX_ATTEMPTS, "a deadline is the only limit, if there is one: {attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_the_attempts_are_counted() {
        let mut attempts = 0;
        let work = |_| {
            attempts += 1;
            async { Ok(()) }
        };
        let db = Fake::db(|| Box::pin(async { Err(conflict()) })); // a conflict told at the commit counts as well
        let error = db.transaction(&Context::background(), work).await.unwrap_err();
        assert_eq!((attempts, error.code()), (MAX_ATTEMPTS, Code::Aborted));
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_hangs_is_given_up_as_unknown() {
        let ctx = Context::background().with_timeout(Duration::from_secs(1));
        let start = Instant::now();
        let db = Fake::db(|| Box::pin(std::future::pending()));
        let error = db.transaction(&ctx, |_| async { Ok(()) }).await.unwrap_err();
        assert!(error.is::<CommitUnknown>(), "{error:?}");
        assert_eq!(error.code(), Code::DeadlineExceeded);
        assert_eq!(start.elapsed(), Duration::from_secs(1) + COMMIT_GRACE); // of paused time
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_hangs_ends_also_without_a_deadline() {
        let db = Fake::db(|| Box::pin(std::future::pending()));
        let ctx = Context::background();
        let start = Instant::now();
        let error = db.transaction(&ctx, |_| async { Ok(()) }).await.unwrap_err();
        assert!(error.is::<CommitUnknown>(), "{error:?}");
        assert_eq!(start.elapsed(), COMMIT_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_was_sent_is_finished_though_nobody_waits() {
        static COMMITTED: AtomicBool = AtomicBool::new(false);
        let db = Fake::db(|| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                COMMITTED.store(true, Ordering::SeqCst);
                Ok(())
            })
        });
        let ctx = Context::background();
        let impatient = db.transaction(&ctx, |_| async { Ok(()) });
        assert!(tokio::time::timeout(Duration::from_secs(1), impatient).await.is_err());
        assert!(!COMMITTED.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(COMMITTED.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_hook_that_panics_afterwards_undoes_nothing() {
        struct Panics(AtomicBool);
        impl CommitHook for Panics {
            fn before_commit<'a>(&'a self, _: &'a Context, _: &'a Tx, _: Vec<Deferred>) -> BoxFuture<'a, Result<()>> {
                Box::pin(async { Ok(()) })
            }

            fn after_commit(&self, committed: Committed) {
                self.0.store(committed == Committed::Yes, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("as a panic does, without its noise"));
            }
        }
        let (db, hook) = (Fake::db(|| Box::pin(async { Ok(()) })), Arc::new(Panics(AtomicBool::new(false))));
        db.set_commit_hook(hook.clone()).unwrap();
        db.transaction(&Context::background(), |tx| async move { tx.defer(Box::new(1)) }).await.unwrap();
        assert!(hook.0.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_context_that_is_done_commits_nothing() {
        let (ctx, cancel) = Context::background().with_cancel();
        let db = Fake::db(|| unreachable!("it must not commit"));
        let done = db.transaction(&ctx, |_| {
            cancel.cancel();
            async { Ok(()) }
        });
        assert_eq!(done.await.unwrap_err().code(), Code::Cancelled);
    }
}
