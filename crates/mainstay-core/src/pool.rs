//! [`WorkerPool`]: background jobs with a bound on how many run and how many wait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{Cause, Component, Context, Error, Result, task};

/// How long a drain that has run out of time waits for cut jobs to reach their next `await`. Well-behaved jobs need
/// microseconds; one that computes or blocks is left to the end of the process.
const CUT_GRACE: Duration = Duration::from_millis(100);

/// Runs jobs in the background, in the order in which they came: at most `workers` at once, and at most `queue` more
/// wait. Who submits another one waits, which is what keeps memory and latency bounded.
///
/// Clones are handles to the same pool, which lives on one runtime. As a [`Component`] it drains at shutdown; without that, dropping the last
/// handle drops all jobs, each at its next `await`.
///
/// ```
/// # use mainstay_core::{Context, Result, WorkerPool};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let ctx = Context::background();
/// let pool = WorkerPool::new("thumbnails", 4, 100);
/// let job = pool.submit(&ctx, |_ctx| async { Ok(6 * 7) }).await?;
/// assert_eq!(job.await?, 42);
/// assert!(pool.drain(&ctx).await.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WorkerPool(Arc<Owner>);

/// The handles' side: the workers don't hold it, so that its end is seen.
struct Owner(Arc<Pool>);

struct Pool {
    name: String,
    workers: usize,
    /// One permit for every job in hand, running or waiting.
    room: Arc<Semaphore>,
    cut: CancellationToken,
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Default)]
struct State {
    closed: bool,
    queue: VecDeque<Job>,
    /// How many workers there are: they come with work and go without.
    working: usize,
    /// Where each job in hand was submitted.
    in_hand: BTreeMap<u64, &'static Location<'static>>,
    next_id: u64,
    /// The jobs that ended with an error because of the cut.
    cut: Vec<String>,
}

struct Job {
    id: u64,
    /// Ends with what tells the submitter.
    run: BoxFuture<'static, Deliver>,
    room: OwnedSemaphorePermit,
}

type Deliver = Box<dyn FnOnce() + Send>;

/// The result of a submitted job, to be awaited. Dropping it lets the job run on.
#[derive(Debug)]
#[must_use = "without it nobody hears of the job's errors; drop it explicitly if that is meant"]
pub struct JobHandle<T>(oneshot::Receiver<Result<T>>);

impl WorkerPool {
    /// A pool of `workers` (0 counts as 1) with room for `queue` waiting jobs. `name` is for errors and reports.
    pub fn new(name: impl Into<String>, workers: usize, queue: usize) -> Self {
        let workers = workers.max(1);
        let room = workers.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Owner(Arc::new(Pool {
            name: name.into(),
            workers,
            room: Arc::new(Semaphore::new(room)),
            cut: CancellationToken::new(),
            state: Mutex::default(),
            idle: Notify::new(),
        }))))
    }

    /// Hands over a job, waiting until there is room. The job's result comes through the [`JobHandle`].
    ///
    /// The job runs under a child of `ctx` and ends with it, also while it waits; a job that has to outlive the request
    /// that submits it gets [`Context::detached`]. A panic is the job's error and no harm to the worker.
    ///
    /// Cancel safe: a future that is dropped before it is ready has submitted nothing.
    ///
    /// # Errors
    /// The cause if `ctx` is done first, [`Code::Unavailable`](crate::Code::Unavailable) if the pool is closed.
    #[track_caller]
    pub fn submit<F, Fut, T>(&self, ctx: &Context, job: F) -> impl Future<Output = Result<JobHandle<T>>> + Send
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let location = Location::caller();
        async move {
            let room = ctx.run(self.pool().room.clone().acquire_owned()).await?;
            self.accept(ctx, location, room.map_err(|_| self.closed())?, job)
        }
    }

    /// As [`WorkerPool::submit`], but never waits.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`](crate::Code::ResourceExhausted) if there is no room now, and those of `submit`.
    #[track_caller]
    pub fn try_submit<F, Fut, T>(&self, ctx: &Context, job: F) -> Result<JobHandle<T>>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let location = Location::caller();
        ctx.check()?;
        let room = self.pool().room.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => {
                Error::resource_exhausted("too many background jobs are waiting").context(self.pool().name.clone())
            }
            TryAcquireError::Closed => self.closed(),
        })?;
        self.accept(ctx, location, room, job)
    }

    /// Takes no more jobs and waits until those in hand have ended, running or waiting, or until `ctx` is done. Then the
    /// rest is cut: each job is dropped at its next `await` and its submitter gets an error.
    ///
    /// Returns what was cut, a line for each job with the place where it was submitted.
    pub async fn drain(&self, ctx: &Context) -> Vec<String> {
        let pool = self.pool();
        pool.close();
        if ctx.run(pool.idle()).await.is_ok() {
            return Vec::new();
        }
        pool.cut.cancel();
        let _ = tokio::time::timeout(CUT_GRACE, pool.idle()).await;
        let mut state = pool.state();
        let mut cut = std::mem::take(&mut state.cut);
        cut.extend(state.in_hand.values().map(|location| pool.job_name(location)));
        cut
    }

    fn accept<F, Fut, T>(
        &self,
        ctx: &Context,
        location: &'static Location<'static>,
        room: OwnedSemaphorePermit,
        job: F,
    ) -> Result<JobHandle<T>>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let runtime = Handle::try_current().map_err(|_| {
            Error::internal(format!("{}: a job was submitted outside a tokio runtime", self.pool().name))
        })?;
        let (ctx, pool) = (ctx.clone(), self.pool());
        let (sender, receiver) = oneshot::channel();
        let mut state = pool.state();
        if state.closed {
            return Err(self.closed());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.in_hand.insert(id, location);
        let owned = pool.clone();
        let run = async move {
            let result = owned.run(&ctx, location, job).await;
            let deliver = move || drop(sender.send(result)); // nobody has to wait for it
            Box::new(deliver) as Deliver
        };
        state.queue.push_back(Job { id, run: Box::pin(run.in_current_span()), room });
        if state.working < pool.workers {
            state.working += 1;
            runtime.spawn(pool.clone().work());
        }
        Ok(JobHandle(receiver))
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.0.0
    }

    fn closed(&self) -> Error {
        Cause::ShuttingDown.into_error().context(format!("the worker pool {} takes no more jobs", self.pool().name))
    }
}

impl Pool {
    /// The life of a worker: job after job, until there is none.
    async fn work(self: Arc<Self>) {
        while let Some(job) = self.next() {
            let Job { id, run, room } = job;
            let deliver = run.await; // catches panics itself
            self.state().in_hand.remove(&id);
            drop(room);
            deliver(); // last, so that a submitter who has the result finds the room free
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        let job = state.queue.pop_front();
        if job.is_none() {
            state.working -= 1;
            if state.working == 0 {
                self.idle.notify_waiters();
            }
        }
        job
    }

    async fn run<F, Fut, T>(&self, ctx: &Context, location: &'static Location<'static>, job: F) -> Result<T>
    where
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let (ctx, canceler) = ctx.with_cancel();
        let _cancel_on_drop = canceler.clone().cancel_on_drop(Cause::Canceled);
        let mut running = std::pin::pin!(task::run(&ctx, &self.name, location, job));
        tokio::select! {
            biased;
            result = &mut running => return result,
            () = self.cut.cancelled() => canceler.cancel_because(Cause::ShuttingDown),
        }
        // The context is done, so that this is ready after one last look at the job.
        let result = running.await;
        if result.is_err() {
            let name = self.job_name(location);
            self.state().cut.push(name);
        }
        result
    }

    /// Waits until no job is in hand.
    async fn idle(&self) {
        loop {
            let idle = self.idle.notified(); // made before the look, so that a change after it is not missed
            if self.state().working == 0 {
                return;
            }
            idle.await;
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.room.close();
    }

    fn job_name(&self, location: &Location<'_>) -> String {
        format!("{}: a job submitted at {location}", self.name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
        self.0.cut.cancel();
    }
}

impl Component for WorkerPool {
    fn name(&self) -> &str {
        &self.pool().name
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(self.drain(ctx))
    }
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        // A job that is gone without a result went with its runtime.
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or_else(|_| Err(Cause::ShuttingDown.into_error())))
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, workers, in_hand) = (&self.pool().name, self.pool().workers, self.pool().state().in_hand.len());
        write!(f, "WorkerPool({name}: {workers} workers, {in_hand} jobs in hand)")
    }
}
