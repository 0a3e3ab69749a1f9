//! How a server ends: [`Draining`], which requests hear, and [`Lifeline`], which the server pulls.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mainstay_core::{Canceler, Cause, Context};
use mainstay_telemetry::InHand;
use mainstay_telemetry::trace::Tracer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells a long response that the server has begun to stop, so that it can end politely.
///
/// A request that answers in its time needs none of this: the server waits for it. A stream without an end
/// (server-sent events, a WebSocket) would use up the whole drain and be cut. It travels as a value of the request's
/// [`Context`].
///
/// ```
/// # async fn stream(ctx: mainstay_core::Context) {
/// if let Some(draining) = mainstay_http::Draining::of(&ctx) {
///     draining.wait().await; // then say goodbye
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Draining(CancellationToken);

impl Draining {
    /// The token of the server that `ctx` came from; `None` outside a request.
    pub fn of(ctx: &Context) -> Option<Self> {
        ctx.value::<Self>().cloned()
    }

    /// Whether the server has begun to stop.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the server begins to stop. Cancel safe.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// What holds the work of one server together, and ends it in steps: drain, wait, cut.
#[derive(Clone)]
pub(crate) struct Lifeline(Arc<Inner>);

struct Inner {
    root: Context,
    tracer: OnceLock<Tracer>,
    in_hand: OnceLock<InHand>,
    cut: Canceler,
    draining: CancellationToken,
    tasks: TaskTracker,
    requests: AtomicUsize,
    casualties: Mutex<Vec<String>>,
}

/// How long tasks may take to notice that they were cut. A task that yields at all needs microseconds.
const CUT_GRACE: Duration = Duration::from_millis(250);

impl Lifeline {
    pub(crate) fn new() -> Self {
        let draining = CancellationToken::new();
        let (root, cut) = Context::background().with_value(Draining(draining.clone())).with_cancel();
        let (tasks, requests, casualties) = (TaskTracker::new(), AtomicUsize::new(0), Mutex::default());
        let (tracer, in_hand) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { root, tracer, in_hand, cut, draining, tasks, requests, casualties }))
    }

    /// The parent of every request's context; done with [`Cause::ShuttingDown`] when the server cuts.
    pub(crate) fn root(&self) -> &Context {
        &self.0.root
    }

    /// What decides about the traces of requests; none unless [`Lifeline::trace`] was called.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.0.tracer.get()
    }

    /// A second call changes nothing.
    pub(crate) fn trace(&self, tracer: Tracer) {
        let _ = self.0.tracer.set(tracer);
    }

    /// Where requests are noted; nowhere unless [`Lifeline::note_in`] was called.
    pub(crate) fn in_hand(&self) -> Option<&InHand> {
        self.0.in_hand.get()
    }

    /// A second call changes nothing.
    pub(crate) fn note_in(&self, register: InHand) {
        let _ = self.0.in_hand.set(register);
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    /// The tasks a drain waits for: connections, HTTP/2 streams, detached handlers.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.root.is_done()
    }

    /// Spawns `future` into the drain. It is dropped where it stands when the server cuts.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let root = self.0.root.clone();
        self.0.tasks.spawn(async move {
            // An error says that the server cut; whatever was in `future` has reported itself from its drop.
            let _ = root.run(future).await;
        });
    }

    pub(crate) fn request_began(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request that was cut tells its name.
    pub(crate) fn report(&self, name: String) {
        self.0.casualties.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    /// Waits for what is in hand until `ctx` is done, then cuts the rest and returns its names, sorted.
    pub(crate) async fn end(&self, ctx: &Context) -> Vec<String> {
        self.0.draining.cancel();
        self.0.tasks.close();
        if ctx.run(self.0.tasks.wait()).await.is_ok() {
            return Vec::new();
        }
        self.0.cut.cancel_because(Cause::ShuttingDown);
        let all_noticed = tokio::time::timeout(CUT_GRACE, self.0.tasks.wait()).await.is_ok();
        let mut names = std::mem::take(&mut *self.0.casualties.lock().unwrap_or_else(PoisonError::into_inner));
        names.sort_unstable();
        let stuck = self.0.requests.load(Ordering::Relaxed);
        if !all_noticed && stuck > 0 {
            names.push(format!("{stuck} requests whose handlers don't yield: look for blocking calls in async code"));
        } else if !all_noticed {
            names.push("connections that were upgraded and not closed by their owner".to_owned());
        }
        names
    }
}
