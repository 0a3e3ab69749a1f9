//! [`Exporter`]: sends spans, log lines and metrics to a collector, from a thread of its own, so that neither a slow collector
//! nor the work of encoding takes a worker of the service from a request.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mainstay_core::{BoxFuture, Component, Context, Error, Result};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::otlp::{self, Frame, Points};
use crate::proto::Proto;
use crate::{LogControl, Metrics};

/// Sends one request to the collector, to the path that is appended to its address.
pub type Send = Box<dyn Fn(&'static str, Bytes) -> BoxFuture<'static, Result<()>> + std::marker::Send + Sync>;

/// Bytes of spans, and of log lines, that wait at most: more than a second of 50,000 requests each. What comes when they are
/// that many is dropped and counted, for requests matter more than what is told about them.
const WAITING: usize = 16 * 1024 * 1024;

/// What makes one request to the collector, in spans or lines and in bytes, and how long what is less waits for more.
const AT_ONCE: usize = 2_048;
const BYTES_AT_ONCE: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_millis(1_000);

/// Pauses while the collector doesn't answer.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the last requests to the collector may take at the end of the service, whatever its budget is.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What a thread keeps to write the next spans and lines in.
const LARGEST_SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the thread is called. What it logs itself isn't exported: that would make more of it with every request.
pub(crate) const THREAD: &str = "telemetry";

/// Spans or log lines on their way to the exporter, written as they are sent: by the thread that made them, whose cache has them
/// and whose memory they are. To hand them over one by one costs both threads more than to write them. A clone is the same.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Waiting>);

struct Waiting {
    service: String,
    parcels: Mutex<VecDeque<Parcel>>,
    bytes: AtomicUsize,
    /// How many the last parcel had that was taken: the next ones get room for as many at once.
    usual: AtomicUsize,
    wake: Arc<Wake>,
    dropped: Counter,
    exported: Counter,
}

/// One request to the collector, as it grows. Only the last one that waits isn't full.
struct Parcel {
    items: usize,
    frame: Frame,
    request: Proto,
    /// Of the items, without what is around them.
    bytes: usize,
}

impl Parcel {
    /// An empty one with room for `size` bytes.
    fn new(service: &str, size: usize) -> Self {
        let (request, frame) = otlp::frame(service, size);
        Self { items: 0, frame, request, bytes: 0 }
    }

    fn add(&mut self, items: usize, written: &[u8]) {
        self.request.raw(written);
        self.items += items;
        self.bytes += written.len();
    }

    fn is_full(&self) -> bool {
        self.items >= AT_ONCE || self.bytes >= BYTES_AT_ONCE
    }

    fn into_request(self) -> Vec<u8> {
        self.frame.close(self.request.into_bytes())
    }
}

/// What the thread waits for.
#[derive(Default)]
struct Wake {
    /// Told when a parcel is full.
    enough: Notify,
    ending: AtomicBool,
}

impl Queue {
    fn new(service: &str, wake: &Arc<Wake>, dropped: Counter, exported: Counter) -> Self {
        let (service, parcels, wake) = (service.to_owned(), Mutex::default(), wake.clone());
        let (bytes, usual) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Waiting { service, parcels, bytes, usual, wake, dropped, exported }))
    }

    /// Adds `items` as `write` writes them, which is asked only if there is room.
    pub(crate) fn push(&self, items: usize, write: impl FnOnce(&mut Proto)) {
        if self.0.bytes.load(Relaxed) >= WAITING {
            return self.dropped(items);
        }
        // Taken and not borrowed: what is written may log a line itself. A thread that ends has none any more.
        let mut written = Proto::reusing(SCRATCH.try_with(Cell::take).unwrap_or_default());
        write(&mut written);
        let written = written.into_bytes();
        self.0.bytes.fetch_add(written.len(), Relaxed);
        let mut parcels = self.parcels();
        let parcel = match parcels.back_mut() {
            Some(last) if !last.is_full() => last,
            _ => {
                let usual = self.0.usual.load(Relaxed);
                parcels.push_back_mut(Parcel::new(&self.0.service, usual + usual / 16))
            }
        };
        parcel.add(items, &written);
        let is_full = parcel.is_full();
        drop(parcels);
        if is_full {
            self.0.wake.enough.notify_one();
        }
        if written.capacity() <= LARGEST_SCRATCH {
            let _ = SCRATCH.try_with(|scratch| scratch.set(written));
        }
    }

    pub(crate) fn dropped(&self, number: usize) {
        self.0.dropped.inc_by(number as u64);
    }

    /// The oldest parcel. One that isn't full stays, unless `any` will do.
    fn take(&self, any: bool) -> Option<Parcel> {
        let parcel = self.parcels().pop_front_if(|parcel| any || parcel.is_full())?;
        self.0.bytes.fetch_sub(parcel.bytes, Relaxed);
        self.0.usual.store(parcel.bytes, Relaxed);
        Some(parcel)
    }

    /// Sends the parcels that are full; if `all`, what waits besides, once. To go on until nothing waits would send
    /// ever smaller requests for as long as something comes.
    async fn drain(&self, link: &mut Link, path: &'static str, mut all: bool) {
        while let Some(parcel) = self.take(all) {
            all = link.is_ending() || all && parcel.is_full();
            let items = parcel.items;
            if link.deliver(path, parcel.into_request()).await {
                self.0.exported.inc_by(items as u64);
            } else {
                self.dropped(items);
            }
        }
    }

    fn parcels(&self) -> MutexGuard<'_, VecDeque<Parcel>> {
        self.0.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exporter as a part of the service: it is started before what makes spans and stopped after it.
pub struct Exporter {
    wake: Arc<Wake>,
    spans: Queue,
    work: Mutex<Work>,
}

enum Work {
    New(Box<Export>),
    Running(oneshot::Receiver<()>),
    Over,
}

/// What the thread works with.
struct Export {
    service: String,
    link: Link,
    spans: Queue,
    lines: Option<Queue>,
    metrics: Option<(Metrics, Duration)>,
    began: SystemTime,
}

impl Exporter {
    pub(crate) fn new(service: &str, metrics: &Metrics, send: Send) -> Self {
        let wake = Arc::new(Wake::default());
        let dropped = metrics.counter("trace_spans_dropped", "Spans that were not exported, for want of room");
        let exported = metrics.counter("trace_spans_exported", "Spans that the collector has taken");
        let spans = Queue::new(service, &wake, dropped, exported);
        let link = Link { send, pause: SHORTEST_PAUSE, down: HashSet::new(), wake: wake.clone() };
        let (service, began) = (service.to_owned(), SystemTime::now());
        let export = Export { service, link, spans: spans.clone(), lines: None, metrics: None, began };
        Self { wake, spans, work: Mutex::new(Work::New(Box::new(export))) }
    }

    /// Exports the lines of `logs` too, from now on. A logger that isn't ours has none to give.
    #[must_use]
    pub fn with_logs(self, logs: &LogControl, metrics: &Metrics) -> Self {
        let dropped = metrics.counter("log_lines_dropped", "Log lines that were not exported, for want of room");
        let exported = metrics.counter("log_lines_exported", "Log lines that the collector has taken");
        if let Work::New(export) = &mut *self.work() {
            let lines = Queue::new(&export.service, &self.wake, dropped, exported);
            logs.export_to(lines.clone());
            export.lines = Some(lines);
        }
        self
    }

    /// Exports `metrics` too, each `interval`, which is at least a second, and once at the end.
    #[must_use]
    pub fn with_metrics(self, metrics: &Metrics, interval: Duration) -> Self {
        if let Work::New(export) = &mut *self.work() {
            export.metrics = Some((metrics.clone(), interval));
        }
        self
    }

    pub(crate) fn queue(&self) -> Queue {
        self.spans.clone()
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component for Exporter {
    fn name(&self) -> &str {
        "export"
    }

    fn start<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let mut work = self.work();
            if let Work::New(export) = std::mem::replace(&mut *work, Work::Over) {
                let (over, ended) = oneshot::channel();
                // The thread logs where the service does, also in a test.
                let dispatch = tracing::dispatcher::get_default(Clone::clone);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime =
                    runtime.map_err(|error| Error::from_any(error).context("starting the export of telemetry"))?;
                let life = move || {
                    let _over = over; // dropped last: it says that all is done
                    tracing::dispatcher::with_default(&dispatch, || runtime.block_on(export.run()));
                };
                std::thread::Builder::new()
                    .name(THREAD.to_owned())
                    .spawn(life)
                    .map_err(|error| Error::from_any(error).context("starting the export of telemetry"))?;
                *work = Work::Running(ended);
            }
            Ok(())
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            let running = std::mem::replace(&mut *self.work(), Work::Over);
            self.wake.ending.store(true, Relaxed);
            self.wake.enough.notify_one();
            if let Work::Running(ended) = running {
                let _ = ctx.run(timeout(LAST_WORDS, ended)).await;
            }
            // What the collector didn't take is no work of the service that was cut.
            Vec::new()
        })
    }
}

impl Export {
    /// Sends until the service ends, and then what is left.
    async fn run(mut self: Box<Self>) {
        let (mut told, mut swept) = (Instant::now(), Instant::now());
        loop {
            let ending = self.link.is_ending();
            if !ending {
                let _ = timeout_at(swept + PATIENCE, self.link.wake.enough.notified()).await;
            }
            let all = ending || swept.elapsed() >= PATIENCE;
            if all {
                swept = Instant::now();
            }
            let (service, link) = (&self.service, &mut self.link);
            self.spans.drain(link, "/v1/traces", all).await;
            if let Some(lines) = &self.lines {
                lines.drain(link, "/v1/logs", all).await;
            }
            if let Some((metrics, interval)) = &self.metrics
                && (ending || told.elapsed() >= *interval)
            {
                told = Instant::now();
                let text = metrics.render();
                // Not delivered, they come again with the next ones, which count on.
                link.deliver("/v1/metrics", otlp::metrics(service, &Points::new(&text, self.began))).await;
            }
            if ending {
                return;
            }
        }
    }
}

/// The way to the collector, and whether it works.
struct Link {
    send: Send,
    pause: Duration,
    /// Where the last request was not taken.
    down: HashSet<&'static str>,
    wake: Arc<Wake>,
}

impl Link {
    fn is_ending(&self) -> bool {
        self.wake.ending.load(Relaxed)
    }

    /// Tries until the collector has taken it, or has refused it for good, or the service ends.
    async fn deliver(&mut self, path: &'static str, request: Vec<u8>) -> bool {
        let request = Bytes::from(request);
        loop {
            let error = match (self.send)(path, request.clone()).await {
                Ok(()) => {
                    if self.down.remove(path) {
                        tracing::info!(target: "mainstay::trace", path, "the collector takes telemetry again");
                    }
                    self.pause = SHORTEST_PAUSE;
                    return true;
                }
                Err(error) => error,
            };
            if self.down.insert(path) {
                tracing::warn!(
                    target: "mainstay::trace", error = %error.report(), path,
                    "telemetry can't be exported now: it waits, and is dropped when there is too much (trace.endpoint)"
                );
            }
            if self.is_ending() || !worth_another_try(&error) {
                return false;
            }
            self.wait().await;
        }
    }

    /// Sleeps, unless the service ends.
    async fn wait(&mut self) {
        let until = Instant::now() + self.pause;
        while Instant::now() < until && !self.is_ending() {
            tokio::select! {
                () = self.wake.enough.notified() => {}
                () = sleep(until - Instant::now()) => {}
            }
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the collector may take later what it doesn't take now.
fn worth_another_try(error: &Error) -> bool {
    use mainstay_core::Code;
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("waiting_bytes", &self.spans.0.bytes.load(Relaxed)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_while_a_request_is_sent_waits_until_it_is_worth_one() {
        let (wake, sent) = (Arc::<Wake>::default(), Arc::new(AtomicUsize::new(0)));
        let queue = Queue::new("shop", &wake, Counter::default(), Counter::default());
        // A busy service: while the collector takes a request, the next line is written.
        let (asked, busy) = (sent.clone(), queue.clone());
        let send: Send = Box::new(move |_, _| {
            if asked.fetch_add(1, Relaxed) < 10 {
                busy.push(1, |out| out.raw(&[0; 10]));
            }
            Box::pin(async { Ok(()) })
        });
        let mut link = Link { send, pause: SHORTEST_PAUSE, down: HashSet::new(), wake: wake.clone() };
        queue.push(1, |out| out.raw(&[0; 10]));
        queue.drain(&mut link, "/v1/logs", false).await;
        assert_eq!(sent.load(Relaxed), 0, "one line is none");
        queue.drain(&mut link, "/v1/logs", true).await;
        assert_eq!(sent.load(Relaxed), 1, "its time has come, not that of the next one");
        queue.push(AT_ONCE, |out| out.raw(&[0; 10]));
        queue.push(1, |out| out.raw(&[0; BYTES_AT_ONCE]));
        queue.push(1, |out| out.raw(&[0; 10]));
        queue.drain(&mut link, "/v1/logs", false).await;
        assert_eq!(sent.load(Relaxed), 3, "by number and by size");
        wake.ending.store(true, Relaxed);
        queue.drain(&mut link, "/v1/logs", true).await;
        assert_eq!((sent.load(Relaxed), queue.0.exported.get()), (11, AT_ONCE as u64 + 13), "all there is");
    }
}
