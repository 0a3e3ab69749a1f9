//! One connection: HTTP/1 or HTTP/2 over a stream, its timers and its part in the drain.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use mainstay_core::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use self::activity::{Activity, Verdict, tick};
use self::io::Io;
use self::protocol::Protocol;
use crate::HttpSettings;
use crate::drain::Lifeline;

mod activity;
mod entrance;
mod io;
mod protocol;

/// How long a peer gets to take the goodbye of an idle connection: GOAWAY, close_notify.
const GOODBYE_GRACE: Duration = Duration::from_secs(1);

/// What every connection of a server shares.
pub(crate) struct Connections {
    http1: http1::Builder,
    http2: http2::Builder<DrainedExecutor>,
    router: Router,
    limits: HttpSettings,
    lifeline: Lifeline,
}

/// One connection, as its requests see it.
pub(crate) struct Connection {
    pub(crate) context: Context,
    peer: SocketAddr,
    activity: Activity,
}

impl Connection {
    pub(crate) fn request_began(&self) {
        self.activity.request_began();
    }

    pub(crate) fn request_ended(&self) {
        self.activity.request_ended();
    }
}

impl Connections {
    pub(crate) fn new(router: Router, limits: HttpSettings, lifeline: Lifeline) -> Self {
        let (head_bytes, head_count) = parser_limits(&limits);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // Ours: the parser's timer starts at the end of the last response, so that it would cut idle connections,
            // and it costs an allocation per request.
            .header_read_timeout(None)
            .max_buf_size(head_bytes)
            .half_close(limits.allow_half_close);
        if let Some(count) = head_count {
            http1.max_headers(count);
        }
        let mut http2 = http2::Builder::new(DrainedExecutor(lifeline.clone()));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(limits.http2_keep_alive_interval).filter(|interval| !interval.is_zero()))
            .keep_alive_timeout(limits.http2_keep_alive_interval.max(Duration::from_secs(1)));
        Self { http1, http2, router, limits, lifeline }
    }

    pub(crate) fn limits(&self) -> &HttpSettings {
        &self.limits
    }

    pub(crate) fn lifeline(&self) -> &Lifeline {
        &self.lifeline
    }

    /// Serves `stream` until it ends, stalls, idles, drains or is cut.
    pub(crate) async fn serve<S>(&self, stream: S, peer: SocketAddr, permit: Option<OwnedSemaphorePermit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // One scope per connection: requests would otherwise all lock the server's root to hear of a cut.
        let (context, _) = self.lifeline.root().with_cancel();
        let connection = Arc::new(Connection { context, peer, activity: Activity::new() });
        let io = Io::new(stream, connection.clone(), permit, self.lifeline.tasks().token());
        self.watch(Protocol::new(self, io), &connection).await;
    }

    async fn watch<S>(&self, mut protocol: Protocol<'_, S>, connection: &Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { activity, .. } = connection;
        let mut timer = pin!(sleep_until(Instant::now() + tick(&self.limits)));
        let mut draining = pin!(self.lifeline.draining().cancelled());
        let mut draining_since = None;
        let mut said_goodbye = false;
        let mut watched_head = None;
        let mut watched_pause = None;
        let ended = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = protocol.poll(cx) {
                    return Poll::Ready(result);
                }
                // Still here after a poll: a head that has begun and not ended is a rare one, so that the timer is
                // touched for those only and not once per request.
                let head = activity.head_deadline(&self.limits);
                if let Some(deadline) = head
                    && head != watched_head
                {
                    watched_head = head;
                    timer.as_mut().reset(deadline);
                }
                // A pause that has begun, once: moving a timer to a later moment takes no lock.
                let pause = activity.pause_mark();
                if pause != watched_pause && draining_since.is_none() {
                    watched_pause = pause;
                    if let Some(mark) = pause {
                        timer.as_mut().reset(activity.rest_moment(mark));
                    }
                }
                if draining_since.is_none() && draining.as_mut().poll(cx).is_ready() {
                    draining_since = Some(Instant::now());
                    timer.as_mut().reset(Instant::now());
                }
                // HTTP/1 has no goodbye that is safe: the pipeline puts `Connection: close` on every answer from now on,
                // and the verdict ends the connections on which nobody asks any more.
                if draining_since.is_some() && !said_goodbye && activity.is_http2() {
                    said_goodbye = true;
                    protocol.graceful_shutdown();
                    continue;
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match activity.verdict(&self.limits, draining_since) {
                    Verdict::Again(moment) => {
                        timer.as_mut().reset(moment);
                        if draining_since.is_none() && activity.may_rest() {
                            protocol.rest(activity, cx);
                        }
                    }
                    Verdict::Stalled(why) => return Poll::Ready(Err(why.to_owned())),
                    Verdict::Old => {
                        timer.as_mut().reset(Instant::now() + tick(&self.limits).min(self.limits.http2_max_age_grace));
                        if !said_goodbye {
                            said_goodbye = true;
                            protocol.graceful_shutdown();
                        }
                    }
                    // Not dropped: HTTP/2 says GOAWAY, TLS says close_notify, and a request that comes just now is
                    // still answered.
                    Verdict::Idle if !said_goodbye => {
                        said_goodbye = true;
                        protocol.graceful_shutdown();
                        timer.as_mut().reset(Instant::now() + GOODBYE_GRACE);
                    }
                    Verdict::Idle => return Poll::Ready(Ok(())),
                }
            }
        });
        if let Err(reason) = ended.await {
            tracing::debug!(target: "mainstay::http", peer = %connection.peer, reason, "connection cut");
        }
    }
}

/// The parser's own limits: four times ours, so that a request that is only somewhat too large reaches the pipeline
/// and is answered with a problem. Beyond, the parser answers 431 without a body and closes.
fn parser_limits(limits: &HttpSettings) -> (usize, Option<usize>) {
    const PARSER_HEADERS: usize = 100; // the parser's default; more of them cost it two allocations per request
    const SMALLEST_BUFFER: usize = 64 * 1024; // also what bodies are read with
    let bytes = limits.max_header_bytes.as_usize().saturating_mul(4).max(SMALLEST_BUFFER);
    let count = (limits.max_header_count >= PARSER_HEADERS).then(|| limits.max_header_count.saturating_mul(2));
    (bytes, count)
}

/// Runs HTTP/2 streams inside the drain.
#[derive(Clone)]
struct DrainedExecutor(Lifeline);

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for DrainedExecutor {
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            future.await;
        });
    }
}
