//! [`Handling`]: the future of one request, from its handler to its answer, and what becomes of it when it is dropped.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use mainstay_core::{Canceler, Cause, Error};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer;
use super::body::track;
use super::record::{Outcome, Record};
use crate::Problem;

pin_project! {
    #[project = Projection]
    /// Answers within the deadline, or with the reason why not.
    ///
    /// hyper drops it when the client leaves. A safe method's handler is dropped with it; any other is spawned from
    /// the drop and runs on, so that the policy costs nothing until a client leaves.
    pub(crate) struct Handling<F>
    where
        F: Future<Output = Result<Response, Infallible>>,
        F: Unpin,
        F: Send,
        F: 'static,
    {
        work: Option<Work<F>>,
        // Made when the handler first has to wait: many never do.
        #[pin]
        timer: Option<Sleep>,
    }

    impl<F> PinnedDrop for Handling<F>
    where
        F: Future<Output = Result<Response, Infallible>>,
        F: Unpin,
        F: Send,
        F: 'static,
    {
        fn drop(this: Pin<&mut Self>) {
            if let Some(work) = this.project().work.take() {
                work.client_left();
            }
        }
    }
}

/// A request that has no answer yet.
pub(super) struct Work<F> {
    pub(super) stage: Stage<F>,
    pub(super) canceler: Canceler,
    pub(super) deadline: Option<Instant>,
    pub(super) detaches: bool,
    pub(super) record: Record,
}

pub(super) enum Stage<F> {
    Handler(F),
    /// Refused before the handler.
    Refused(Problem),
    /// Its answer has been taken; never polled again.
    Done,
}

impl<F> Handling<F>
where
    F: Future<Output = Result<Response, Infallible>> + Send + Unpin + 'static,
{
    pub(super) fn new(work: Work<F>) -> Self {
        Self { work: Some(work), timer: None }
    }
}

impl<F> Future for Handling<F>
where
    F: Future<Output = Result<Response, Infallible>> + Send + Unpin + 'static,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(work) = this.work else { return Poll::Pending };
        let entered = work.record.context().clone();
        entered.enter(|| Self::answer(this, cx))
    }
}

impl<F> Handling<F>
where
    F: Future<Output = Result<Response, Infallible>> + Send + Unpin + 'static,
{
    fn answer(mut this: Projection<'_, F>, cx: &mut Context<'_>) -> Poll<Result<Response, Infallible>> {
        let Some(work) = this.work else { return Poll::Pending };
        let mut answered = work.poll(cx);
        if answered.is_pending()
            && let Some(deadline) = work.deadline
        {
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(deadline)));
            }
            if let Some(timer) = this.timer.as_pin_mut()
                && timer.poll(cx).is_ready()
            {
                work.stage = Stage::Done; // drops the handler before its client reads that it was given up
                answered = Poll::Ready(Cause::DeadlineExceeded.into_error().into_response());
            }
        }
        match (answered, this.work.take()) {
            (Poll::Ready(response), Some(Work { record, canceler, .. })) => {
                let response = answer::complete(response, &record);
                Poll::Ready(Ok(track(response, record, canceler)))
            }
            (_, unfinished) => {
                *this.work = unfinished;
                Poll::Pending
            }
        }
    }
}

impl<F> Work<F>
where
    F: Future<Output = Result<Response, Infallible>> + Send + Unpin + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        match &mut self.stage {
            Stage::Done => Poll::Pending,
            Stage::Refused(_) => match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Refused(problem) => Poll::Ready(problem.into_response()),
                Stage::Handler(_) | Stage::Done => Poll::Pending,
            },
            Stage::Handler(handler) => match catch_unwind(AssertUnwindSafe(|| Pin::new(handler).poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(Ok(response))) => Poll::Ready(response),
                Err(panic) => {
                    self.stage = Stage::Done;
                    Poll::Ready(Error::internal(format!("panic in the handler: {}", text(&*panic))).into_response())
                }
            },
        }
    }

    /// The future was dropped without an answer: the client has left, or the server cuts.
    fn client_left(mut self) {
        let lifeline = self.record.lifeline().clone();
        let waits_for_nobody = matches!(self.stage, Stage::Refused(_) | Stage::Done);
        // In a runtime that is gone a spawn would panic.
        let can_spawn = tokio::runtime::Handle::try_current().is_ok();
        if self.detaches && !waits_for_nobody && can_spawn && !lifeline.is_cut() {
            self.record.leave_connection();
            self.record.log_detached();
            let ctx = self.record.context().clone();
            lifeline.spawn(async move { ctx.scope(self.run_on()).await });
        } else {
            let cause = lifeline.root().cause().unwrap_or(Cause::ClientGone);
            self.canceler.cancel_because(cause);
        }
    }

    /// Runs the handler to its end or its deadline for nobody but its effect.
    async fn run_on(mut self) {
        let deadline = self.deadline;
        let handler = std::future::poll_fn(|cx| self.poll(cx));
        let response = match deadline {
            None => handler.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, handler).await {
                Ok(response) => response,
                Err(_) => Cause::DeadlineExceeded.into_error().into_response(),
            },
        };
        self.stage = Stage::Done; // at its deadline the handler is still there, and shall see why it ends
        let response = answer::complete(response, &self.record);
        self.record.status = response.status();
        self.record.outcome = Outcome::Detached;
        // Nobody reads the body: whatever produces it may stop.
        self.canceler.cancel_because(Cause::ClientGone);
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
