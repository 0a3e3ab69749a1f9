//! One connection: HTTP/1 or HTTP/2 over a stream, its timers and its part in the drain.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::future::RouteFuture;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mainstay_core::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tower::Service;

use self::activity::{Activity, Verdict, tick};
use self::io::Io;
use crate::HttpSettings;
use crate::drain::Lifeline;

mod activity;
mod io;

/// How long a peer gets to take the goodbye of an idle connection: GOAWAY, close_notify.
const GOODBYE_GRACE: Duration = Duration::from_secs(1);

/// What every connection of a server shares.
pub(crate) struct Connections {
    builder: auto::Builder<DrainedExecutor>,
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
        let mut builder = auto::Builder::new(DrainedExecutor(lifeline.clone()));
        let (head_bytes, head_count) = parser_limits(&limits);
        builder
            .http1()
            .timer(TokioTimer::new())
            // Ours: the parser's timer starts at the end of the last response, so that it would cut idle connections,
            // and it costs an allocation per request.
            .header_read_timeout(None)
            .max_buf_size(head_bytes)
            .half_close(limits.allow_half_close);
        if let Some(count) = head_count {
            builder.http1().max_headers(count);
        }
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.max_concurrent_streams)
            .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(limits.http2_keep_alive_interval).filter(|interval| !interval.is_zero()))
            .keep_alive_timeout(limits.http2_keep_alive_interval.max(Duration::from_secs(1)));
        Self { builder, router, limits, lifeline }
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
        let io = TokioIo::new(Io::new(stream, connection.clone(), permit, self.lifeline.tasks().token()));
        let entrance = Entrance { router: self.router.clone(), connection: connection.clone() };
        let http = pin!(self.builder.serve_connection_with_upgrades(io, entrance));
        self.watch(http, &connection).await;
    }

    async fn watch<S>(&self, mut http: std::pin::Pin<&mut Http<'_, S>>, connection: &Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { activity, .. } = connection;
        let mut timer = pin!(sleep_until(Instant::now() + tick(&self.limits)));
        let mut draining = pin!(self.lifeline.draining().cancelled());
        let mut draining_since = None;
        let mut said_goodbye = false;
        let mut watched_head = None;
        let ended = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = http.as_mut().poll(cx) {
                    return Poll::Ready(result.map_err(|error| error.to_string()));
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
                if draining_since.is_none() && draining.as_mut().poll(cx).is_ready() {
                    draining_since = Some(Instant::now());
                    timer.as_mut().reset(Instant::now());
                }
                // HTTP/1 has no goodbye that is safe: the pipeline puts `Connection: close` on every answer from now on,
                // and the verdict ends the connections on which nobody asks any more.
                if draining_since.is_some() && !said_goodbye && activity.is_http2() {
                    said_goodbye = true;
                    http.as_mut().graceful_shutdown();
                    continue;
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match activity.verdict(&self.limits, draining_since) {
                    Verdict::Again(moment) => timer.as_mut().reset(moment),
                    Verdict::Stalled(why) => return Poll::Ready(Err(why.to_owned())),
                    // Not dropped: HTTP/2 says GOAWAY, TLS says close_notify, and a request that comes just now is
                    // still answered.
                    Verdict::Idle if !said_goodbye => {
                        said_goodbye = true;
                        http.as_mut().graceful_shutdown();
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

type Http<'a, S> = auto::UpgradeableConnection<'a, TokioIo<Io<S>>, Entrance, DrainedExecutor>;

/// The parser's own limits: four times ours, so that a request that is only somewhat too large reaches the pipeline
/// and is answered with a problem. Beyond, the parser answers 431 without a body and closes.
fn parser_limits(limits: &HttpSettings) -> (usize, Option<usize>) {
    const PARSER_HEADERS: usize = 100; // the parser's default; more of them cost it two allocations per request
    const SMALLEST_BUFFER: usize = 64 * 1024; // also what bodies are read with
    let bytes = limits.max_header_bytes.as_usize().saturating_mul(4).max(SMALLEST_BUFFER);
    let count = (limits.max_header_count >= PARSER_HEADERS).then(|| limits.max_header_count.saturating_mul(2));
    (bytes, count)
}

/// Where requests leave the connection and enter the router.
struct Entrance {
    router: Router,
    connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.connection.peer));
        request.extensions_mut().insert(self.connection.clone());
        self.router.clone().call(request)
    }
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
