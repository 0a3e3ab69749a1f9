//! [`Context`]: the deadline, the cancellation and the identity of one piece of work.

use std::any::{Any, TypeId};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{Code, Error, Result};

mod current;
mod identity;

pub use current::Scoped;
pub use identity::{Principal, RequestId, Trace};

/// What every operation is told about the work it belongs to: how long it may take, whether anyone still waits for
/// it, and whose it is.
///
/// A `Context` is the explicit first argument of everything that waits. It never changes: `with_…` makes a child
/// that sees all its parent sees. A child's deadline is never later than its parent's, and cancelling a parent
/// cancels its children, never the other way round. A clone is one reference count.
///
/// ```
/// # use std::time::Duration;
/// # use mainstay_core::{Cause, Code, Context};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let ctx = Context::background().with_timeout(Duration::from_millis(5));
/// let error = ctx.run(std::future::pending::<()>()).await.unwrap_err();
/// assert_eq!(error.code(), Code::DeadlineExceeded);
/// assert_eq!(ctx.cause(), Some(Cause::DeadlineExceeded));
/// # }
/// ```
#[derive(Clone)]
pub struct Context(Arc<Node>);

struct Node {
    parent: Option<Context>,
    deadline: Option<Instant>,
    scope: Arc<Scope>,
    value: Option<(TypeId, Box<dyn Any + Send + Sync>)>,
}

/// A set of contexts that are cancelled together.
struct Scope {
    parent: Option<Arc<Scope>>,
    token: CancellationToken,
    cause: OnceLock<Cause>,
}

/// Why a [`Context`] is done.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// The code that made the context called [`Canceler::cancel`].
    Canceled,
    /// The client of the request left.
    ClientGone,
    /// The deadline passed.
    DeadlineExceeded,
    /// The service is stopping and the work overstayed its drain budget.
    ShuttingDown,
}

impl Context {
    /// A context that is never done: the root of a program, a test or a job that answers to nobody.
    pub fn background() -> Self {
        let scope = Scope { parent: None, token: CancellationToken::new(), cause: OnceLock::new() };
        Self(Arc::new(Node { parent: None, deadline: None, scope: Arc::new(scope), value: None }))
    }

    /// A child that is done at most `timeout` from now.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.with_deadline(deadline),
            None => self.clone(), // further away than the clock can count: no limit
        }
    }

    /// A child that is done at `deadline`, or at its parent's deadline if that is earlier.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        let deadline = self.0.deadline.map_or(deadline, |mine| mine.min(deadline));
        self.child(Some(deadline), self.0.scope.clone(), None)
    }

    /// A child that can be cancelled on its own, and the handle that does it.
    ///
    /// Dropping the [`Canceler`] does not cancel; [`Canceler::cancel_on_drop`] makes a guard that does.
    #[must_use]
    pub fn with_cancel(&self) -> (Self, Canceler) {
        let scope = Arc::new(Scope {
            parent: Some(self.0.scope.clone()),
            token: self.0.scope.token.child_token(),
            cause: OnceLock::new(),
        });
        (self.child(self.0.deadline, scope.clone(), None), Canceler(scope))
    }

    /// A child that carries `value`; [`Context::value`] finds it by its type. A second value of a type hides the first.
    ///
    /// Values are for what crosses an API without being its business (who asks, for which tenant), not for
    /// parameters.
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Self {
        self.child(self.0.deadline, self.0.scope.clone(), Some((TypeId::of::<T>(), Box::new(value))))
    }

    /// A context with the same values and deadline that no longer hears its parents' cancellation.
    ///
    /// For work that outlives the request that caused it, as a detached handler does.
    #[must_use]
    pub fn detached(&self) -> Self {
        let scope = Scope { parent: None, token: CancellationToken::new(), cause: OnceLock::new() };
        self.child(self.0.deadline, Arc::new(scope), None)
    }

    /// The nearest value of type `T`, or `None`.
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let wanted = TypeId::of::<T>();
        let mut node = Some(self);
        while let Some(Context(this)) = node {
            if let Some((id, value)) = &this.value
                && *id == wanted
            {
                return value.downcast_ref();
            }
            node = this.parent.as_ref();
        }
        None
    }

    /// When this work has to be finished; `None` means never.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// How much time is left: `None` without a deadline, zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Why this context is done, or `None` while it is not.
    ///
    /// An explicit cancellation wins over a deadline that has passed since.
    pub fn cause(&self) -> Option<Cause> {
        self.0.scope.cause().or_else(|| {
            let passed = self.0.deadline.is_some_and(|deadline| deadline <= Instant::now());
            passed.then_some(Cause::DeadlineExceeded)
        })
    }

    /// Whether this context is done.
    pub fn is_done(&self) -> bool {
        self.cause().is_some()
    }

    /// `Ok` while the work may go on, the cause as an [`Error`] once it may not: the guard at the top of a loop.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`], [`Code::Cancelled`] or [`Code::Unavailable`] by [`Cause::into_error`].
    pub fn check(&self) -> Result<()> {
        self.cause().map_or(Ok(()), |cause| Err(cause.into_error()))
    }

    /// Waits until this context is done and says why. Never returns on a context that has no end.
    ///
    /// Cancel safe: dropping the future forgets nothing.
    pub async fn done(&self) -> Cause {
        let cancelled = self.cancelled();
        match self.0.deadline {
            None => cancelled.await,
            Some(deadline) => {
                tokio::select! {
                    biased;
                    () = cancelled => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
            }
        }
        self.cause().unwrap_or(Cause::Canceled)
    }

    /// Runs `future` until it is ready or this context is done, whichever comes first. A future that is cut is dropped.
    ///
    /// # Errors
    /// The cause, by [`Cause::into_error`]. A context that is done already never polls the future.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output> {
        self.check()?;
        tokio::select! {
            biased;
            output = future => Ok(output),
            cause = self.done() => Err(cause.into_error()),
        }
    }

    fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.0.scope.token.cancelled()
    }

    fn child(
        &self,
        deadline: Option<Instant>,
        scope: Arc<Scope>,
        value: Option<(TypeId, Box<dyn Any + Send + Sync>)>,
    ) -> Self {
        Self(Arc::new(Node { parent: Some(self.clone()), deadline, scope, value }))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("remaining", &self.remaining())
            .field("cause", &self.cause())
            .field("request_id", &self.request_id())
            .finish_non_exhaustive()
    }
}

impl Scope {
    fn cause(&self) -> Option<Cause> {
        if !self.token.is_cancelled() {
            return None;
        }
        let mut scope = Some(self);
        while let Some(this) = scope {
            if let Some(cause) = this.cause.get() {
                return Some(*cause);
            }
            scope = this.parent.as_deref();
        }
        Some(Cause::Canceled)
    }
}

/// Cancels the [`Context`] it was made with, and every child of that.
#[derive(Clone)]
pub struct Canceler(Arc<Scope>);

impl Canceler {
    /// Cancels with [`Cause::Canceled`].
    pub fn cancel(&self) {
        self.cancel_because(Cause::Canceled);
    }

    /// Cancels with `cause`. The first cause stays; later calls change nothing.
    pub fn cancel_because(&self, cause: Cause) {
        // The cause is set before the token wakes anyone, so that whoever wakes can read it.
        let _ = self.0.cause.set(cause);
        self.0.token.cancel();
    }

    /// A guard that cancels with `cause` when it is dropped.
    pub fn cancel_on_drop(self, cause: Cause) -> impl Drop + Send + Sync {
        struct Guard(Canceler, Cause);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.cancel_because(self.1);
            }
        }
        Guard(self, cause)
    }
}

impl fmt::Debug for Canceler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Canceler").field(&self.0.cause()).finish()
    }
}

impl Cause {
    /// The [`Error`] that tells a caller about this cause.
    #[track_caller]
    pub fn into_error(self) -> Error {
        match self {
            Cause::Canceled => Error::new(Code::Cancelled, "the operation was cancelled"),
            Cause::ClientGone => Error::new(Code::Cancelled, "the client left"),
            Cause::DeadlineExceeded => Error::new(Code::DeadlineExceeded, "the deadline passed"),
            Cause::ShuttingDown => Error::new(Code::Unavailable, "the service is shutting down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_child_can_shorten_a_deadline_and_never_lengthen_it() {
        let parent = Context::background().with_timeout(Duration::from_secs(1));
        let longer = parent.with_timeout(Duration::from_secs(5));
        let shorter = parent.with_timeout(Duration::from_millis(10));
        assert_eq!(longer.deadline(), parent.deadline());
        assert_eq!(shorter.remaining(), Some(Duration::from_millis(10)));
        assert_eq!(shorter.done().await, Cause::DeadlineExceeded);
        assert_eq!(parent.cause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_reaches_children_and_never_parents() {
        let root = Context::background();
        let (middle, cancel) = root.with_cancel();
        let (leaf, _leaf_cancel) = middle.with_value("tenant").with_cancel();
        cancel.cancel_because(Cause::ClientGone);
        cancel.cancel();
        assert_eq!(leaf.done().await, Cause::ClientGone);
        assert_eq!(root.cause(), None);
        assert_eq!(leaf.run(async { 1 }).await.unwrap_err().code(), Code::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_detached_context_keeps_values_and_deadline_only() {
        let (ctx, cancel) = Context::background().with_timeout(Duration::from_secs(2)).with_value(7_u8).with_cancel();
        let detached = ctx.detached();
        cancel.cancel();
        assert_eq!(detached.cause(), None);
        assert_eq!(detached.value::<u8>(), Some(&7));
        assert_eq!(detached.done().await, Cause::DeadlineExceeded);
    }

    #[test]
    fn the_nearest_value_hides_the_others() {
        let ctx = Context::background().with_value(1_u32).with_value("x").with_value(2_u32);
        assert_eq!(ctx.value::<u32>(), Some(&2));
        assert_eq!(ctx.value::<u64>(), None);
    }

    #[test]
    fn a_guard_cancels_when_dropped() {
        let (ctx, cancel) = Context::background().with_cancel();
        drop(cancel.cancel_on_drop(Cause::ShuttingDown));
        assert_eq!(ctx.check().unwrap_err().code(), Code::Unavailable);
    }
}
