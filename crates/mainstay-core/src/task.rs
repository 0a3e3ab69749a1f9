//! What all spawned work has in common: a panic in it is an error for whoever waits.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location};

use futures_util::FutureExt;

use crate::{Context, Error, Result};

/// Runs `work` under `ctx` and turns a panic, also one from a destructor, into an error.
///
/// What `work` logs carries the identity of `ctx`. Nothing of `work` is left when this returns: the future is dropped
/// first. `work` isn't called at all once `ctx` is done.
pub(crate) async fn run<F, Fut, T>(ctx: &Context, what: &str, started_at: &Location<'_>, work: F) -> Result<T>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    // The state that a panic may leave half changed is the work's own, and it is dropped here.
    let guarded = AssertUnwindSafe(ctx.run(ctx.scope(async { work(ctx.clone()).await }))).catch_unwind();
    guarded.await.unwrap_or_else(|panic| Err(panicked(format_args!("{what} started at {started_at}"), &*panic)))?
}

/// The error that tells of a panic: what panicked, and the panic's own words.
pub(crate) fn panicked(what: impl Display, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::internal(format!("{what} panicked: {text}"))
}
