//! [`Group`]: concurrent tasks that end before their scope does.

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use crate::{Canceler, Cause, Context, Error, Result, task};

/// Tasks that belong together: the first error ends all of them, and [`Group::wait`] returns when the last has ended.
///
/// What Go does with an errgroup, with results. Tasks run on the runtime's threads, in parallel, under a [`Context`] of
/// their own that is done when the first of them fails, when the parent is done, or when the group is gone. A task need
/// not watch it: it is dropped at its next `await`, so that what has to happen in any case belongs into a destructor.
///
/// Nothing outlives its scope. After `wait` or [`Group::cancel`] has returned, every task has ended and has been
/// dropped. Dropping the group (or the future of `wait`) can't wait: no task is polled again, but one that is being
/// polled on another thread right then goes on to its next `await`. A task that blocks without an `await` can be ended
/// by nobody; such work belongs on `spawn_blocking`.
///
/// ```
/// # use mainstay_core::{Context, Group, Result};
/// # async fn price(ctx: &Context, sku: u32) -> Result<u32> { ctx.check()?; Ok(sku * 10) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let ctx = Context::background();
/// let mut group = Group::new(&ctx).limit(4);
/// for sku in 1..=3 {
///     group.spawn(move |ctx| async move { price(&ctx, sku).await }).await;
/// }
/// assert_eq!(group.wait().await?, [10, 20, 30]); // in the order of `spawn`
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Group<T = ()> {
    ctx: Context,
    canceler: Canceler,
    slots: Option<Arc<Semaphore>>,
    failure: Failure,
    tasks: JoinSet<Option<(usize, T)>>,
    results: Vec<Option<T>>,
}

/// The first error of a group.
#[derive(Clone, Debug, Default)]
struct Failure(Arc<Mutex<Option<Error>>>);

impl<T: Send + 'static> Group<T> {
    /// An empty group whose tasks run under a child of `ctx`.
    pub fn new(ctx: &Context) -> Self {
        let (ctx, canceler) = ctx.with_cancel();
        Self { ctx, canceler, slots: None, failure: Failure::default(), tasks: JoinSet::new(), results: Vec::new() }
    }

    /// Lets at most `tasks` run at once; 0 counts as 1. To be called before the first `spawn`.
    #[must_use]
    pub fn limit(mut self, tasks: usize) -> Self {
        self.slots = Some(Arc::new(Semaphore::new(tasks.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// The context of the tasks.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Starts a task. With a [`limit`](Group::limit), waits first until fewer than that run.
    ///
    /// Returns whether it was started: `false` once the group's context is done, because a task has failed or the
    /// parent is done. A loop over many items can end then; [`Group::wait`] says why.
    ///
    /// A panic in the task is an error that names the place of this call and carries the panic's message.
    ///
    /// Cancel safe: dropping the future starts nothing.
    #[track_caller]
    pub fn spawn<F, Fut>(&mut self, work: F) -> impl Future<Output = bool>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let location = Location::caller();
        async move {
            let slot = match &self.slots {
                Some(slots) => self.ctx.run(slots.clone().acquire_owned()).await.map(Result::ok),
                None => self.ctx.check().map(|()| None),
            };
            // The slot may be that of the task whose failure has just ended the group.
            let slot = match slot.and_then(|slot| self.ctx.check().map(|()| slot)) {
                Ok(slot) => slot,
                Err(error) => {
                    self.failure.set(error);
                    return false;
                }
            };
            // The results of a long loop are kept, not the finished tasks.
            while let Some(joined) = self.tasks.try_join_next() {
                self.keep(joined);
            }
            let index = self.results.len();
            self.results.push(None);
            let (ctx, canceler, failure) = (self.ctx.clone(), self.canceler.clone(), self.failure.clone());
            let task = async move {
                let _slot = slot; // given back last, when nothing of the work is left
                match task::run(&ctx, "a task", location, work).await {
                    Ok(value) => Some((index, value)),
                    Err(error) => {
                        // In this order, so that a sibling's complaint about the cancellation comes second.
                        failure.set(error);
                        canceler.cancel();
                        None
                    }
                }
            };
            self.tasks.spawn(task.in_current_span());
            true
        }
    }

    /// Waits until every task has ended, and returns their results in the order of `spawn`.
    ///
    /// Dropping the future drops the group, and with it every task.
    ///
    /// # Errors
    /// The first error of a task, a panic being one, or the cause if the parent context was done before all was done.
    pub async fn wait(mut self) -> Result<Vec<T>> {
        self.join().await;
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.results).into_iter().flatten().collect()),
        }
    }

    /// Ends all tasks and waits until they have ended, whatever their results are.
    pub async fn cancel(mut self) {
        self.canceler.cancel();
        self.join().await;
    }

    async fn join(&mut self) {
        while let Some(joined) = self.tasks.join_next().await {
            self.keep(joined);
        }
    }

    fn keep(&mut self, joined: Result<Option<(usize, T)>, JoinError>) {
        match joined {
            Ok(Some((index, value))) => self.results[index] = Some(value),
            Ok(None) => {} // recorded by the task
            // The runtime is shutting down: tasks catch their own panics, and nobody else ends one but by dropping us.
            Err(_) => {
                self.failure.set(Cause::ShuttingDown.into_error());
                self.canceler.cancel();
            }
        }
    }
}

/// Cancels the context, for whatever else was started under it; the tasks are dropped with their `JoinSet`.
impl<T> Drop for Group<T> {
    fn drop(&mut self) {
        self.canceler.cancel();
    }
}

impl Failure {
    fn set(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
