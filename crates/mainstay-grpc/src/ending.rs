//! How a stream of messages ends before its time: by its deadline, with its client, or with the server.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame};
use mainstay_core::{Context, Error};
use mainstay_http::Draining;

use crate::dialect::trailers;

/// When a client whose stream the server ended may call again: another replica, or this one's successor, is there.
const CALL_AGAIN: Duration = Duration::from_millis(100);

/// Waits until the stream has to end, and says why.
pub(crate) fn ending(ctx: &Context) -> BoxFuture<'static, Error> {
    let ctx = ctx.clone();
    Box::pin(async move {
        match Draining::of(&ctx) {
            None => ctx.done().await.into_error(),
            Some(draining) => tokio::select! {
                biased;
                cause = ctx.done() => cause.into_error(),
                () = draining.wait() => {
                    Error::unavailable("the service is shutting down: call again").retry_after(CALL_AGAIN)
                }
            },
        }
    })
}

/// The body of a streamed answer, which ends with a status whatever happens to it.
pub(crate) struct Ending<B> {
    /// Dropped with the end: whoever makes the messages may stop.
    body: Option<B>,
    end: BoxFuture<'static, Error>,
    ctx: Context,
}

impl<B> Ending<B> {
    pub(crate) fn new(ctx: &Context, body: B) -> Self {
        Self { body: Some(body), end: ending(ctx), ctx: ctx.clone() }
    }

    fn finish(&mut self, error: &Error) -> Option<Result<Frame<Bytes>, B::Error>>
    where
        B: Body,
    {
        self.body = None;
        Some(Ok(Frame::trailers(trailers(error))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Ending<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(error) = this.end.as_mut().poll(cx) {
            return Poll::Ready(this.finish(&error));
        }
        let polled = this.ctx.enter(|| catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))));
        match polled {
            Ok(polled) => polled,
            Err(panic) => {
                let error = Error::internal(format!("panic in the stream of a call: {}", text(&*panic)));
                this.ctx.enter(|| tell(&error));
                Poll::Ready(this.finish(&error))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// Logs the private chain of what ended a stream.
pub(crate) fn tell(error: &Error) {
    let (code, chain, location) = (error.code().name(), error.report(), error.location());
    if error.code().is_server_fault() {
        tracing::error!(target: "mainstay::grpc", code, error = %chain, %location, "stream failed");
    } else {
        tracing::debug!(target: "mainstay::grpc", code, error = %chain, %location, "stream refused");
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
