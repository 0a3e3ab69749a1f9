//! [`Lifecycle`]: starts the components of a service, keeps them running, stops them in order and reports what it cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::{Canceler, Cause, Code, Component, Context, Error, Result, task};

mod report;
mod roster;
mod start;

pub use report::{Phase, Report, Stopped};
pub use roster::{Roster, Standing};

/// How long starting and stopping may take.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// For all starts together, with their retries.
    pub start: Duration,
    /// Between "not ready" and the first stop, so that load balancers notice before connections are refused.
    pub settle: Duration,
    /// For all stops together. Every component that has still to stop keeps a second of it, so that a drain that
    /// overstays can't keep the pools from closing.
    pub stop: Duration,
}

/// The ordered life of a service: start → ready → draining → stopped.
///
/// ```
/// # use mainstay_core::{Budgets, Context, Lifecycle};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let budgets = Budgets { start: Duration::from_secs(60), settle: Duration::ZERO, stop: Duration::from_secs(25) };
/// let lifecycle = Lifecycle::new(budgets);
/// lifecycle.stopper().stop();
/// let report = lifecycle.run(&Context::background()).await;
/// assert!(report.is_clean());
/// # }
/// ```
pub struct Lifecycle {
    budgets: Budgets,
    components: Vec<Arc<dyn Component>>,
    roster: Roster,
    phase: watch::Sender<Phase>,
    stopper: Stopper,
    stops: mpsc::UnboundedReceiver<Stop>,
}

/// Asks a [`Lifecycle`] to stop: once politely, a second time at once.
#[derive(Clone, Debug)]
pub struct Stopper(mpsc::UnboundedSender<Stop>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stop {
    Asked,
    Replaced,
}

impl Stopper {
    /// The first call begins the ordered stop, the second ends it where it is.
    pub fn stop(&self) {
        // A lifecycle that is gone has nothing left to stop.
        let _ = self.0.send(Stop::Asked);
    }

    /// Begins the ordered stop of a service whose successor already answers: nothing has to notice, so that the settle
    /// delay is left out. It doesn't count as a call of [`Stopper::stop`], and does nothing to a stop that has begun.
    pub fn replaced(&self) {
        let _ = self.0.send(Stop::Replaced);
    }
}

impl Lifecycle {
    /// A lifecycle without components.
    pub fn new(budgets: Budgets) -> Self {
        let (sender, stops) = mpsc::unbounded_channel();
        let (phase, _) = watch::channel(Phase::Starting);
        Self { budgets, components: Vec::new(), roster: Roster::default(), phase, stopper: Stopper(sender), stops }
    }

    /// Adds a component. It starts after, and stops before, all that were added earlier.
    pub fn add(&mut self, component: Arc<dyn Component>) {
        self.roster.add(&*component);
        self.components.push(component);
    }

    /// Where the service stands: what readiness is answered from.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Which component does what, to look at while this runs.
    pub fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// The handle for signal handlers and tests.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Starts all components, runs until a stop is asked for or a component ends, then stops all that started.
    ///
    /// Not cancel safe: dropping the future abandons the components without stopping them.
    pub async fn run(mut self, ctx: &Context) -> Report {
        let (ctx, cancel) = ctx.with_cancel();
        let mut report = Report::default();
        let mut running = Running { tasks: JoinSet::new(), cancel };

        let mut started = 0;
        tokio::select! {
            biased;
            _ = self.stops.recv() => report.cancelled = true, // dropping a start that is under way releases it
            outcome = start_all((&self.components, &self.roster), &ctx, self.budgets.start, &mut started) => report.error = outcome.err(),
        }
        let components: Vec<_> = self.components[..started].to_vec();

        let was_ready = report.error.is_none() && !report.cancelled;
        let mut replaced = false;
        if was_ready {
            for component in &components {
                running.spawn(component.clone(), &ctx);
            }
            self.phase.send_replace(Phase::Ready);
            tokio::select! {
                biased;
                stop = self.stops.recv() => {
                    replaced = stop == Some(Stop::Replaced);
                    tracing::info!("stopping: {}", if replaced { "another process has taken over" } else { "asked to" });
                }
                error = running.first_end() => {
                    tracing::error!(error = %error.report(), "stopping: a component ended");
                    report.error = Some(error);
                }
            }
        }

        self.phase.send_replace(Phase::Draining);
        tokio::select! {
            biased;
            () = hurry(&mut self.stops, !replaced) => report.hurried = true,
            stopped = stop_all((&components, &self.roster), &ctx, self.budgets, was_ready && !replaced) => report.stopped = stopped,
        }
        running.end().await;
        self.phase.send_replace(Phase::Stopped);
        report
    }
}

/// Waits for what ends a stop at once: someone asks, and the stop had not begun by itself because of a successor.
async fn hurry(stops: &mut mpsc::UnboundedReceiver<Stop>, mut asked: bool) {
    while let Some(stop) = stops.recv().await {
        if stop == Stop::Asked && std::mem::replace(&mut asked, true) {
            return;
        }
    }
    std::future::pending().await
}

/// Starts in order; `started` counts those that returned `Ok`, also when this future is dropped half way.
async fn start_all(
    (components, roster): (&[Arc<dyn Component>], &Roster),
    ctx: &Context,
    budget: Duration,
    started: &mut usize,
) -> Result<()> {
    let ctx = ctx.with_timeout(budget);
    for component in components {
        roster.note(*started, "starting");
        start::with_retry(&**component, &ctx).await?;
        roster.note(*started, "running");
        tracing::debug!(component = component.name(), "started");
        *started += 1;
    }
    Ok(())
}

/// The `run` futures, each a task of its own.
struct Running {
    tasks: JoinSet<(String, Result<()>)>,
    cancel: Canceler,
}

impl Running {
    fn spawn(&mut self, component: Arc<dyn Component>, ctx: &Context) {
        let ctx = ctx.clone();
        self.tasks.spawn(async move {
            let outcome = component.run(&ctx).await;
            (component.name().to_owned(), outcome)
        });
    }

    /// Waits for the first component that ends by itself, which none does in a healthy service.
    async fn first_end(&mut self) -> Error {
        match self.tasks.join_next().await {
            None => std::future::pending().await, // a service without components waits for its stop
            Some(Ok((name, Ok(())))) => Error::internal(format!("{name} ended though nobody stopped it")),
            Some(Ok((name, Err(error)))) => error.context(format!("running {name}")),
            Some(Err(error)) => lost(error),
        }
    }

    async fn end(mut self) {
        self.cancel.cancel_because(Cause::ShuttingDown);
        self.tasks.shutdown().await;
    }
}

fn lost(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => task::panicked("a component", &*panic),
        Err(error) => Error::internal("a component was aborted").with_source(error),
    }
}

async fn stop_all(
    (components, roster): (&[Arc<dyn Component>], &Roster),
    ctx: &Context,
    budgets: Budgets,
    settle: bool,
) -> Vec<Stopped> {
    const RESERVE: Duration = Duration::from_secs(1);
    if settle && !budgets.settle.is_zero() {
        tracing::info!(settle = ?budgets.settle, "not ready: waiting for load balancers to notice");
        tokio::time::sleep(budgets.settle).await;
    }
    let deadline = Instant::now() + budgets.stop;
    let mut stopped = Vec::with_capacity(components.len());
    for (left, component) in components.iter().enumerate().rev() {
        let reserved = RESERVE.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX)).min(budgets.stop / 2);
        let ctx = ctx.with_deadline(deadline - reserved);
        let began = Instant::now();
        roster.note(left, "stopping");
        let cut = component.stop(&ctx).await;
        roster.note(left, "stopped");
        for name in &cut {
            tracing::warn!(component = component.name(), cut = %name, "cut");
        }
        stopped.push(Stopped { component: component.name().to_owned(), took: began.elapsed(), cut });
    }
    stopped
}

/// The codes a start may be tried again for: what it needs isn't there, or somebody else was in its way.
const RETRIED: [Code; 2] = [Code::Unavailable, Code::Aborted];

#[cfg(test)]
mod tests;
