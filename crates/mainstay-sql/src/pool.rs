//! [`Pool`]: a bounded set of connections to a server, shared by the drivers of PostgreSQL and MySQL.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use crate::driver::PoolStats;
use crate::metrics::SqlMetrics;
use crate::settings::DatabaseSettings;

/// What a pool holds. Dropping it closes it.
pub(crate) trait Connection: Send + 'static {
    /// Whether the next user may have it: open, and nothing left over from the last one.
    fn is_reusable(&self) -> bool;
}

/// At most `max_connections` connections, opened as they are needed, the last used handed out first.
///
/// A caller who gives up while a connection is being opened for it doesn't waste it: it is opened to the end and kept.
pub(crate) struct Pool<C: Connection>(Arc<Shared<C>>);

/// A connection on loan; dropping it gives it back.
pub(crate) struct Pooled<C: Connection> {
    entry: Option<Entry<C>>, // `None` only after `discard`
    loan: Loan<C>,
}

type Open<C> = dyn Fn() -> BoxFuture<'static, Result<C>> + Send + Sync;

struct Shared<C> {
    open: Box<Open<C>>,
    /// One permit for each connection in use or being opened; the idle ones hold none. A connection goes to `idle`
    /// before its permit is free, and is opened only by who found `idle` empty: so there are never more than `max`.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Entry<C>>>,
    max: u32,
    acquire_timeout: Duration,
    max_lifetime: Duration,
    in_use: AtomicU32,
    waiting: AtomicU32,
    closed: AtomicBool,
    returned: Notify,
    metrics: SqlMetrics,
}

struct Entry<C> {
    connection: C,
    opened: Instant,
}

/// The place of a connection in use.
struct Loan<C> {
    shared: Arc<Shared<C>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<C: Connection> Pool<C> {
    /// A pool that opens connections with `open`, which bounds its own time.
    pub(crate) fn new(
        settings: &DatabaseSettings,
        metrics: &SqlMetrics,
        open: impl Fn() -> BoxFuture<'static, Result<C>> + Send + Sync + 'static,
    ) -> Self {
        let max = settings.max_connections.max(1);
        metrics.max.set(i64::from(max));
        Self(Arc::new(Shared {
            open: Box::new(open),
            permits: Arc::new(Semaphore::new(max as usize)),
            idle: Mutex::new(Vec::new()),
            max,
            acquire_timeout: settings.acquire_timeout,
            max_lifetime: settings.max_lifetime,
            in_use: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            returned: Notify::new(),
            metrics: metrics.clone(),
        }))
    }

    /// A connection: an idle one, or a new one, or the next that comes back. Callers are served in order.
    ///
    /// Cancel safe: a future that is dropped leaves its place in the queue.
    ///
    /// # Errors
    /// The cause of `ctx`; [`Code::Unavailable`](mainstay_core::Code::Unavailable) when none came free within the
    /// acquire timeout or the pool is closed; what opening a connection says.
    pub(crate) async fn acquire(&self, ctx: &Context) -> Result<Pooled<C>> {
        let shared = &self.0;
        let start = Instant::now();
        let limit = start + shared.acquire_timeout;
        let loan = self.loan(ctx, limit).await?;
        shared.metrics.wait.observe(start.elapsed());
        while let Some(entry) = shared.pop_idle() {
            if entry.connection.is_reusable() && entry.opened.elapsed() < shared.max_lifetime {
                return Ok(Pooled { entry: Some(entry), loan });
            }
        }
        // Opened by a task, so that a caller who leaves doesn't throw away a connection that is half open: the task
        // ends with it in the pool.
        let opening = tokio::spawn(async move {
            let connection = (loan.shared.open)().await?;
            Ok(Pooled { entry: Some(Entry { connection, opened: Instant::now() }), loan })
        });
        match ctx.run(timeout_at(limit, opening)).await? {
            Ok(Ok(opened)) => opened,
            Ok(Err(panic)) => Err(Error::from_any(panic).context("opening a connection")),
            Err(_) => Err(shared.timed_out("opening a connection took longer")),
        }
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let shared = &self.0;
        let in_use = shared.in_use.load(Ordering::Relaxed);
        let idle = u32::try_from(shared.lock_idle().len()).unwrap_or(u32::MAX);
        PoolStats {
            max: shared.max,
            open: in_use.saturating_add(idle).min(shared.max),
            in_use,
            waiting: shared.waiting.load(Ordering::Relaxed),
        }
    }

    /// Refuses new callers, waits until all connections came back or `ctx` is done, and closes the idle ones. One
    /// that comes back later is closed then. Returns whether all came back.
    pub(crate) async fn close(&self, ctx: &Context) -> bool {
        let shared = &self.0;
        shared.closed.store(true, Ordering::SeqCst);
        shared.permits.close();
        let all_back = loop {
            let returned = shared.returned.notified();
            tokio::pin!(returned);
            returned.as_mut().enable(); // before the look, so that a return in between isn't missed
            if shared.in_use.load(Ordering::SeqCst) == 0 {
                break true;
            }
            if ctx.run(returned).await.is_err() {
                break false;
            }
        };
        while shared.pop_idle().is_some() {}
        all_back
    }

    async fn loan(&self, ctx: &Context, limit: Instant) -> Result<Loan<C>> {
        ctx.check()?;
        let shared = &self.0;
        let permit = match shared.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(closed()),
            Err(TryAcquireError::NoPermits) => {
                let _waiting = Waiting::new(&shared.waiting);
                match ctx.run(timeout_at(limit, shared.permits.clone().acquire_owned())).await? {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(closed()),
                    Err(_) => return Err(shared.timed_out("all connections stayed in use")),
                }
            }
        };
        shared.in_use.fetch_add(1, Ordering::SeqCst);
        shared.metrics.used.inc();
        Ok(Loan { shared: shared.clone(), permit: Some(permit) })
    }
}

impl<C: Connection> Pooled<C> {
    /// Closes the connection instead of giving it back.
    pub(crate) fn discard(mut self) {
        self.entry = None;
    }
}

impl<C: Connection> Deref for Pooled<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.entry.as_ref().expect("only `discard`, which consumes, takes the entry").connection
    }
}

impl<C: Connection> DerefMut for Pooled<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.entry.as_mut().expect("only `discard`, which consumes, takes the entry").connection
    }
}

impl<C: Connection> Drop for Pooled<C> {
    fn drop(&mut self) {
        // The loan, dropped after this, frees the permit.
        if let Some(entry) = self.entry.take()
            && entry.connection.is_reusable()
        {
            self.loan.shared.push_idle(entry);
        }
    }
}

impl<C> Drop for Loan<C> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.shared.metrics.used.dec();
        self.shared.in_use.fetch_sub(1, Ordering::SeqCst);
        self.shared.returned.notify_waiters();
    }
}

impl<C> Shared<C> {
    fn push_idle(&self, entry: Entry<C>) {
        let mut idle = self.lock_idle();
        // Read under the lock: `close` sets the flag before it empties the list under the same lock.
        if !self.closed.load(Ordering::SeqCst) {
            self.metrics.idle.inc();
            idle.push(entry);
        }
    }

    fn pop_idle(&self) -> Option<Entry<C>> {
        let entry = self.lock_idle().pop();
        if entry.is_some() {
            self.metrics.idle.dec();
        }
        entry
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Entry<C>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed_out(&self, why: &str) -> Error {
        self.metrics.acquire_timeouts.inc();
        Error::unavailable("the database is busy, try again").context(format!(
            "no connection within the acquire timeout of {:?}: {why} ({} of {} in use, {} more callers waiting)",
            self.acquire_timeout,
            self.in_use.load(Ordering::Relaxed),
            self.max,
            self.waiting.load(Ordering::Relaxed),
        ))
    }
}

/// Counts a waiting caller while it lives.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn closed() -> Error {
    Error::unavailable("the database is closed")
}

#[cfg(test)]
mod tests {
    use mainstay_core::Code;
    use mainstay_telemetry::Metrics;

    use super::*;

    /// A connection that knows its number and counts those that are open.
    struct Fake {
        number: u32,
        reusable: bool,
        open: Arc<AtomicU32>,
    }

    impl Connection for Fake {
        fn is_reusable(&self) -> bool {
            self.reusable
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A pool of two whose connections take a second to open, and how many are open.
    fn pool() -> (Pool<Fake>, Arc<AtomicU32>) {
        let (numbers, open) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let count = open.clone();
        let settings = DatabaseSettings { max_connections: 2, ..DatabaseSettings::default() };
        let pool = Pool::new(&settings, &SqlMetrics::new(&Metrics::new()), move || {
            let (number, open) = (numbers.fetch_add(1, Ordering::SeqCst), count.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                open.fetch_add(1, Ordering::SeqCst);
                Ok(Fake { number, reusable: true, open })
            })
        });
        (pool, open)
    }

    fn ctx() -> Context {
        Context::background()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_used_is_handed_out_first() {
        let (pool, _) = pool();
        let (first, second) = (pool.acquire(&ctx()).await.unwrap(), pool.acquire(&ctx()).await.unwrap());
        drop(first);
        drop(second);
        assert_eq!(pool.acquire(&ctx()).await.unwrap().number, 1);
        let PoolStats { max, open, in_use, waiting } = pool.stats();
        assert_eq!((max, open, in_use, waiting), (2, 2, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_does_not_waste_the_connection_it_asked_for() {
        let (pool, open) = pool();
        let impatient = ctx().with_timeout(Duration::from_millis(10));
        assert_eq!(pool.acquire(&impatient).await.err().unwrap().code(), Code::DeadlineExceeded);
        let kept = pool.acquire(&ctx().with_timeout(Duration::from_secs(2))).await.unwrap();
        drop(kept);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((pool.stats().in_use, pool.stats().open), (0, 2));
        assert_eq!(open.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pool_says_so_in_time_and_serves_in_order() {
        let (pool, open) = pool();
        let (first, _second) = (pool.acquire(&ctx()).await.unwrap(), pool.acquire(&ctx()).await.unwrap());
        let error = pool.acquire(&ctx()).await.err().unwrap();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.report().to_string().contains("2 of 2 in use"), "{error:?}");
        let (one_background, two_background) = (ctx(), ctx());
        let mut one = std::pin::pin!(pool.acquire(&one_background));
        let mut two = std::pin::pin!(pool.acquire(&two_background));
        assert!(futures_util::poll!(one.as_mut()).is_pending() && futures_util::poll!(two.as_mut()).is_pending());
        assert_eq!(pool.stats().waiting, 2);
        drop(first);
        assert!(futures_util::poll!(two.as_mut()).is_pending());
        assert_eq!(one.await.unwrap().number, 0);
        assert!(open.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_broken_or_discarded_is_closed() {
        let (pool, open) = pool();
        pool.acquire(&ctx()).await.unwrap().discard();
        assert_eq!(open.load(Ordering::SeqCst), 0);
        pool.acquire(&ctx()).await.unwrap().reusable = false;
        assert_eq!(open.load(Ordering::SeqCst), 0);
        assert_eq!(pool.acquire(&ctx()).await.unwrap().number, 2);
        assert_eq!(pool.acquire(&ctx()).await.unwrap().number, 2);
        tokio::time::sleep(DatabaseSettings::default().max_lifetime).await;
        assert_eq!(pool.acquire(&ctx()).await.unwrap().number, 3);
        assert_eq!(open.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_what_is_out_and_refuses_the_rest() {
        let (pool, open) = pool();
        let (out, idle) = (pool.acquire(&ctx()).await.unwrap(), pool.acquire(&ctx()).await.unwrap());
        drop(idle);
        let patience = ctx().with_timeout(Duration::from_secs(1));
        assert!(!pool.close(&patience).await);
        assert_eq!(pool.acquire(&ctx()).await.err().unwrap().code(), Code::Unavailable);
        assert_eq!(open.load(Ordering::SeqCst), 1);
        drop(out);
        assert_eq!(open.load(Ordering::SeqCst), 0);
        assert!(pool.close(&ctx()).await);
    }
}
