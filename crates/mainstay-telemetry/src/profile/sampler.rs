//! The CPU profile: signals by processor time, counted by the stack that they interrupt.

use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result};
use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::format;

/// Looks per second of processor time: not 100, so that work that is done every 10 ms isn't seen always or never.
pub(super) const FREQUENCY: i32 = 99;

pub(super) async fn cpu(ctx: &Context, length: Duration) -> Result<Vec<u8>> {
    // Beginning and ending read the program's symbols, which takes long enough to be kept off the workers.
    let profiler = apart(begin).await?;
    ctx.run(tokio::time::sleep(length)).await?;
    apart(move || {
        let report = profiler.report().build().map_err(failed)?;
        drop(profiler);
        format::encode(&report, length)
    })
    .await
}

fn begin() -> Result<ProfilerGuard<'static>> {
    ProfilerGuardBuilder::default().frequency(FREQUENCY).build().map_err(failed)
}

fn failed(error: pprof::Error) -> Error {
    let (code, message) = match &error {
        pprof::Error::Running => (
            Code::FailedPrecondition,
            "another CPU profile is being taken, and a process has one at a time: come again when it has ended",
        ),
        _ => (
            Code::Unavailable,
            "the profiler couldn't be started: it needs a temporary folder that it may write to (TMPDIR), and the process \
             a restart after it was given one",
        ),
    };
    Error::new(code, message).with_source(error)
}

async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::from_any)?
}
