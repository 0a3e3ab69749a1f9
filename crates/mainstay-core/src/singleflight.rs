//! [`Singleflight`]: concurrent calls for the same key share one execution.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::Instrument;

use crate::{Canceler, Cause, Context, Error, Result, task};

/// Lets one caller's work answer all who ask for the same key meanwhile: a thousand misses of one cache key become one
/// query.
///
/// The work belongs to all its callers and to none. It runs as a task of its own, under a context with the request id
/// and the trace of the caller that started it, but without its deadline, cancellation, principal or values; each
/// caller waits under its own context. So a caller that leaves fails nobody else; when the last one has left, the work
/// is dropped at its next `await`, and the next caller starts anew. What the answer depends on, such as a tenant, belongs into the key.
///
/// Results are not kept: a call after the end starts anew.
///
/// ```
/// # use mainstay_core::{Context, Result, Singleflight};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let prices: Singleflight<u32, u64> = Singleflight::new();
/// let price = prices.run(&Context::background(), 7, |_ctx| async { Ok(995) }).await?;
/// assert_eq!(price, 995);
/// # Ok(()) }
/// ```
pub struct Singleflight<K, V> {
    flights: Flights<K, V>,
}

type Flights<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;
type Outcome<V> = Option<Result<V, Arc<Error>>>;

struct Flight<V> {
    outcome: watch::Receiver<Outcome<V>>,
    callers: usize,
    canceler: Canceler,
}

impl<K, V> Singleflight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Without any work under way.
    pub fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Joins the work under way for `key`, or starts `work`, and waits for its result.
    ///
    /// Cancel safe: a caller that drops the future has left.
    ///
    /// # Errors
    /// The work's error, the same for all: code, message and details are the original's, and it is the source, so that
    /// [`Error::is`] finds what it carries. A panic is an error for all. The cause, if `ctx` is done first.
    #[track_caller]
    pub fn run<F, Fut>(&self, ctx: &Context, key: K, work: F) -> impl Future<Output = Result<V>> + Send
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V>> + Send + 'static,
    {
        let location = Location::caller();
        async move {
            ctx.check()?;
            let (mut outcome, _seat) = self.board(ctx, key, location, work);
            let landed = ctx.run(outcome.wait_for(Option::is_some)).await?;
            match landed.as_deref() {
                Ok(Some(Ok(value))) => Ok(value.clone()),
                Ok(Some(Err(error))) => Err(share(error)),
                // The task is gone without an outcome: its runtime was shut down.
                Ok(None) | Err(_) => Err(Cause::ShuttingDown.into_error()),
            }
        }
    }

    fn board<F, Fut>(
        &self,
        ctx: &Context,
        key: K,
        location: &'static Location<'static>,
        work: F,
    ) -> (watch::Receiver<Outcome<V>>, Seat<K, V>)
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V>> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get_mut(&key) {
            flight.callers += 1;
            let outcome = flight.outcome.clone();
            return (outcome.clone(), Seat { flights: self.flights.clone(), key, outcome });
        }
        let (sender, outcome) = watch::channel(None);
        let (work_ctx, canceler) = identity_of(ctx).with_cancel();
        flights.insert(key.clone(), Flight { outcome: outcome.clone(), callers: 1, canceler: canceler.clone() });
        let landing = Landing { flights: self.flights.clone(), key: key.clone(), outcome: outcome.clone() };
        let task = async move {
            let landing = landing;
            let _cancel_on_drop = canceler.cancel_on_drop(Cause::Canceled);
            let result = task::run(&work_ctx, "shared work", location, work).await;
            drop(landing); // first, so that who comes after the outcome starts anew
            let _ = sender.send(Some(result.map_err(Arc::new))); // the last caller may have left
        };
        drop(flights); // a runtime that is shutting down drops the task, and the landing with it, within `spawn`
        tokio::spawn(task.in_current_span());
        (outcome.clone(), Seat { flights: self.flights.clone(), key, outcome })
    }
}

impl<K, V> Default for Singleflight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

/// Whoever holds a clone shares the work.
impl<K, V> Clone for Singleflight<K, V> {
    fn clone(&self) -> Self {
        Self { flights: self.flights.clone() }
    }
}

impl<K, V> fmt::Debug for Singleflight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Singleflight({} under way)", lock(&self.flights).len())
    }
}

/// A caller on a flight.
struct Seat<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    key: K,
    outcome: watch::Receiver<Outcome<V>>,
}

/// The last caller to leave ends the work.
impl<K: Eq + Hash, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        // Under this key there may be a later flight by now.
        let Some(flight) = flights.get_mut(&self.key).filter(|flight| flight.outcome.same_channel(&self.outcome))
        else {
            return;
        };
        flight.callers -= 1;
        if flight.callers == 0
            && let Some(flight) = flights.remove(&self.key)
        {
            // Under the lock, so that never two runs of a key are wanted at once.
            flight.canceler.cancel();
        }
    }
}

/// The end of a flight, in whatever way it comes.
struct Landing<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    key: K,
    outcome: watch::Receiver<Outcome<V>>,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        if flights.get(&self.key).is_some_and(|flight| flight.outcome.same_channel(&self.outcome)) {
            flights.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of a caller's context the shared work may carry: enough to find it in logs and traces.
fn identity_of(ctx: &Context) -> Context {
    let mut identity = Context::background();
    if let Some(id) = ctx.request_id() {
        identity = identity.with_request_id(id.clone());
    }
    if let Some(trace) = ctx.trace() {
        identity = identity.with_trace(trace.clone());
    }
    identity
}

/// A copy for one of several callers.
fn share(error: &Arc<Error>) -> Error {
    let mut copy = Error::new(error.code(), error.message().to_owned()).with_source(Shared(error.clone()));
    for detail in error.details() {
        copy = copy.with_detail(detail.clone());
    }
    match error.retry_delay() {
        Some(delay) => copy.retry_after(delay),
        None => copy,
    }
}

#[derive(Debug)]
struct Shared(Arc<Error>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in work shared with other callers")
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
