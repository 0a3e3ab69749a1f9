//! Fan-out and fan-in: a bounded number of tasks behind a stream, and several streams as one.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::{Cause, Context, Result, task};

/// Works on the items with at most `limit` tasks at once (0 counts as 1), and yields the results in the order of the
/// items.
///
/// The next item is taken only when there is room, and a result that waits for an earlier one takes room too: never
/// more than `limit` items are between the iterator and the caller, also when the first is the slowest. Nothing is
/// started before the stream is polled; what was started goes on between polls.
///
/// An error or a panic is that item's result; the others go on until the caller drops the stream, which ends all tasks
/// at their next `await`. When `ctx` is done, what was started and the next item yield the cause, and the stream ends.
///
/// ```
/// # use futures_util::TryStreamExt;
/// # use mainstay_core::{Context, Result, fan_out};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let squares = fan_out(&Context::background(), 1..=4_u32, 2, |_ctx, n| async move { Ok(n * n) });
/// assert_eq!(squares.try_collect::<Vec<_>>().await?, [1, 4, 9, 16]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn fan_out<I, F, Fut, T>(ctx: &Context, items: I, limit: usize, work: F) -> BoxStream<'static, Result<T>>
where
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static>,
    F: Fn(Context, I::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    stream::iter(start(ctx.clone(), items.into_iter(), work)).buffered(limit.max(1)).boxed()
}

/// As [`fan_out`], but yields each result as soon as it is there.
#[track_caller]
pub fn fan_out_unordered<I, F, Fut, T>(ctx: &Context, items: I, limit: usize, work: F) -> BoxStream<'static, Result<T>>
where
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static>,
    F: Fn(Context, I::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    stream::iter(start(ctx.clone(), items.into_iter(), work)).buffer_unordered(limit.max(1)).boxed()
}

/// Yields what any of the streams yields, until all have ended. No stream can keep the others waiting: one that has
/// yielded goes to the back of the queue.
pub fn fan_in<S>(streams: impl IntoIterator<Item = S>) -> BoxStream<'static, S::Item>
where
    S: Stream + Send + 'static,
    S::Item: 'static,
{
    stream::select_all(streams.into_iter().map(Box::pin)).boxed()
}

/// Starts a task per item, each when it is asked for.
#[track_caller]
fn start<Items, F, Fut, T>(
    ctx: Context,
    mut items: Items,
    work: F,
) -> impl Iterator<Item = impl Future<Output = Result<T>> + Send> + Send
where
    Items: Iterator<Item: Send + 'static> + Send,
    F: Fn(Context, Items::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let location = Location::caller();
    let (ctx, canceler) = ctx.with_cancel();
    let cancel_on_drop = canceler.cancel_on_drop(Cause::Canceled);
    let (work, mut ended) = (Arc::new(work), false);
    std::iter::from_fn(move || {
        let _owned = &cancel_on_drop; // lives as long as the stream
        if ended {
            return None;
        }
        let item = items.next()?;
        ended = ctx.is_done(); // the last task does nothing but tell the cause
        let (ctx, work) = (ctx.clone(), work.clone());
        let task = async move { task::run(&ctx, "a fan-out task", location, |ctx| work(ctx, item)).await };
        let task = AbortOnDropHandle::new(tokio::spawn(task.in_current_span()));
        // Only a runtime that shuts down ends a task that neither panics nor is dropped.
        Some(async move { task.await.unwrap_or_else(|_| Err(Cause::ShuttingDown.into_error())) })
    })
}
