//! [`Incoming`] and [`Outgoing`]: the messages of a streaming call.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Stream, StreamExt};
use mainstay_core::{Context, Error, Result};
use tonic::codec::Streaming;

use crate::ending::ending;
use crate::status;

/// The messages that come in, one by one: the client is slowed down to the pace at which they are taken.
///
/// It ends after the last one. An error is its end too: the deadline passed, the other side left or says so, a message
/// can't be read, or the server is stopping (`UNAVAILABLE`). Dropping it cancels the call.
#[must_use = "messages are lost unless they are taken"]
pub struct Incoming<T> {
    messages: Streaming<T>,
    /// How a failure is told: a request's is its client's, an answer's is its server's.
    read: fn(&tonic::Status) -> Error,
    end: Option<BoxFuture<'static, Error>>,
}

impl<T> Incoming<T> {
    /// Of a request that belongs to `ctx`.
    pub(crate) fn of_request(ctx: &Context, messages: Streaming<T>) -> Self {
        Self { messages, read: status::of_request, end: Some(ending(ctx)) }
    }

    /// Of the answer to a call that belongs to `ctx`.
    pub(crate) fn of_answer(ctx: &Context, messages: Streaming<T>) -> Self {
        let ctx = ctx.clone();
        let end = Box::pin(async move { ctx.done().await.into_error() });
        Self { messages, read: status::of_answer, end: Some(end) }
    }

    /// The next message; `None` after the last. Cancel safe: a message is returned or still there.
    ///
    /// # Errors
    /// What ended the stream.
    pub async fn message(&mut self) -> Result<Option<T>> {
        self.next().await.transpose()
    }
}

impl<T> Stream for Incoming<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        let read = this.read;
        let Some(end) = &mut this.end else { return Poll::Ready(None) };
        let next = match end.as_mut().poll(cx) {
            Poll::Ready(error) => Some(Err(error)),
            Poll::Pending => match Pin::new(&mut this.messages).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => next.map(|message| message.map_err(|status| read(&status))),
            },
        };
        if !matches!(next, Some(Ok(_))) {
            this.end = None;
        }
        Poll::Ready(next)
    }
}

impl<T> fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// The messages that go out. They are asked for one by one, as the client takes them; an error ends the call with its
/// status.
#[must_use = "a stream does nothing until it is answered"]
pub struct Outgoing<T>(pub(crate) BoxStream<'static, Result<T>>);

impl<T> Outgoing<T> {
    /// Sends what `messages` gives.
    pub fn new(messages: impl Stream<Item = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(messages))
    }
}

impl<T> fmt::Debug for Outgoing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}
