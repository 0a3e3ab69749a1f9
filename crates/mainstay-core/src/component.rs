//! [`Component`]: the contract between a long-lived part of a service and the lifecycle that starts and stops it.

use futures_util::future::BoxFuture;

use crate::{Context, Result};

/// A part of a service that lives as long as the service does: a pool, a server, a consumer.
///
/// The lifecycle calls `start` on every component in the order of registration, then runs all of them together, and
/// calls `stop` in the opposite order: what was started last, and may use all before it, stops first.
pub trait Component: Send + Sync + 'static {
    /// The name in logs, errors and the shutdown report, as `http` or `database`.
    fn name(&self) -> &str;

    /// Acquires what the component needs: connects, binds, loads. It is ready for work when this returns `Ok`.
    ///
    /// A failure with [`Code::Unavailable`](crate::Code::Unavailable), or with [`Code::Aborted`](crate::Code::Aborted)
    /// because somebody else was in its way, is tried again, with growing pauses, until the start budget in `ctx` is
    /// used up; any other failure ends the start at once. A start that failed, or was dropped by the end of its budget,
    /// leaves nothing behind that a second `start` would trip over.
    fn start<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        let _ = ctx;
        Box::pin(async { Ok(()) })
    }

    /// Does the component's own work, if it has any, until `stop` has ended it.
    ///
    /// Returning before `stop` was called, with or without an error, ends the whole service: a service that has lost
    /// a part doesn't limp on. `ctx` is done only when the service may wait no longer.
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        let _ = ctx;
        Box::pin(std::future::pending())
    }

    /// Takes no new work, finishes what is in hand, releases what was acquired.
    ///
    /// `ctx` carries this phase's budget; when it is done, `stop` cuts what is left and returns. It is called once,
    /// also when `start` failed half way through the list, and only on components whose `start` returned `Ok`.
    ///
    /// Returns the names of what was cut, each a line of the shutdown report; empty means that nothing was lost.
    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        let _ = ctx;
        Box::pin(async { Vec::new() })
    }
}
