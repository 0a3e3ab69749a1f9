//! Panics of code that isn't ours.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use mainstay_core::{Error, Result};

/// Waits for `work`, a panic of which becomes an error with the panic's own words. The caller sees to it that what the
/// panic left half done is not used again.
pub(crate) async fn caught<T>(whose: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panicked(whose, &*panic)))
}

fn panicked(whose: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::internal(format!("{whose} panicked: {text}"))
}
