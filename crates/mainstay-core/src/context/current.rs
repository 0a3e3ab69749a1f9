//! The context of the code that runs now, for what writes logs: a log line has no argument to be handed one.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task;

use pin_project_lite::pin_project;

use super::Context;

thread_local! {
    static CURRENT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

impl Context {
    /// Runs `future` so that its log lines carry this context's trace, request id and principal.
    ///
    /// The server does so for every handler, [`Group`](crate::Group) for every task and the consumers of events for every
    /// event. Code of your own does it where it knows more than they did, as after it has established who asks, and
    /// around what it spawns itself:
    ///
    /// ```
    /// # use mainstay_core::Context;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let ctx = Context::background();
    /// let task = tokio::spawn({ let ctx = ctx.clone(); async move { ctx.scope(async { /* logs */ }).await } });
    /// # task.await.unwrap();
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped { context: self.clone(), future }
    }

    /// Calls `work` as part of this context: its log lines carry the context's trace, request id and principal.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = Entered::new(self.clone());
        work()
    }

    /// Shows `look` the context that the running code is a part of, if it is of any. It is for logs and the like:
    /// whatever waits takes its context as an argument.
    pub fn current<R>(look: impl FnOnce(Option<&Context>) -> R) -> R {
        // A log line written while a thread ends, or while the slot is being changed, belongs to nobody.
        let context = CURRENT.try_with(|current| current.try_borrow().ok().and_then(|current| current.clone()));
        look(context.ok().flatten().as_ref())
    }
}

/// Puts the context before back when it is dropped, also by a panic.
struct Entered(Option<Context>);

impl Entered {
    fn new(context: Context) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(context))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = CURRENT.try_with(|current| current.replace(self.0.take()));
    }
}

pin_project! {
    /// What [`Context::scope`] makes.
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Scoped<F> {
        context: Context,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::new(this.context.clone());
        this.future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Group, RequestId};

    fn current() -> Option<String> {
        Context::current(|ctx| ctx?.request_id().map(ToString::to_string))
    }

    fn request(id: &str) -> Context {
        Context::background().with_request_id(RequestId::parse(id).unwrap())
    }

    #[tokio::test]
    async fn two_tasks_on_one_thread_keep_their_own() {
        let one = |id: &'static str| async move {
            let look = async move {
                for _ in 0..3 {
                    assert_eq!(current().as_deref(), Some(id));
                    tokio::task::yield_now().await;
                }
            };
            request(id).scope(look).await;
        };
        tokio::join!(one("a"), one("b"));
        assert_eq!(current(), None);
    }

    #[tokio::test]
    async fn the_tasks_of_a_group_are_in_its_context() {
        let mut group = Group::new(&request("a"));
        group.spawn(|_| async { Ok(current()) }).await;
        assert_eq!(group.wait().await.unwrap(), [Some("a".to_owned())]);
    }

    #[test]
    fn a_panic_puts_back_what_was_before() {
        request("outer").enter(|| {
            let inner = || request("inner").enter(|| std::panic::resume_unwind(Box::new(())));
            assert!(std::panic::catch_unwind(inner).is_err());
            assert_eq!(current().as_deref(), Some("outer"));
        });
    }
}
