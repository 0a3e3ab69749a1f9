//! [`Server`]: the HTTP server as a component of the service.

use std::fmt;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::{BoxFuture, Component, Context, Error, Result};
use mainstay_telemetry::trace::Tracer;
use mainstay_telemetry::{InHand, Metrics};
use tokio::net::TcpListener;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::accept::{accept, bind};
use crate::connection::Connections;
use crate::drain::Lifeline;
use crate::pipeline::Pipeline;
use crate::routes::Built;
use crate::tls::{Tls, Watch};
use crate::{Handover, HttpSettings, Routes};

/// An HTTP/1 and HTTP/2 server for [`Routes`] or a plain axum `Router`.
///
/// `start` reads the certificate, if there is one, and binds the address, `run` accepts connections, `stop` drains: it
/// stops accepting, closes idle connections, tells busy ones to end (`Connection: close`, GOAWAY), tells streams by
/// [`Draining`](crate::Draining), and waits for requests and detached handlers until its context is done. What is left
/// then is cut and reported by name, as `POST /v1/orders (request 0192…, 2.1 s)`.
///
/// ```
/// use mainstay_core::{Component, Context};
/// use mainstay_http::{HttpSettings, Routes, Server, routing::get};
/// use mainstay_telemetry::Metrics;
///
/// # #[tokio::main] async fn main() -> mainstay_core::Result<()> {
/// async fn hello() -> &'static str {
///     "hello"
/// }
/// let settings = HttpSettings { addr: ([127, 0, 0, 1], 0).into(), ..HttpSettings::default() };
/// let server = Server::new("http", settings, Routes::new().route("/", get(hello)), &Metrics::new());
/// server.start(&Context::background()).await?;
/// println!("listening on {}", server.local_addr().unwrap());
/// # Ok(())
/// # }
/// ```
pub struct Server {
    name: String,
    addr: SocketAddr,
    handover: Handover,
    hint: String,
    lifeline: Lifeline,
    connections: Result<Arc<Connections>, String>,
    listening: Mutex<Listening>,
}

#[derive(Default)]
struct Listening {
    /// What to listen on instead of binding the address.
    handed_over: Option<StdListener>,
    /// Bound by `start`, taken by `run`. The token keeps `stop` from finishing before `run` has emptied the queue.
    listener: Option<(TcpListener, TaskTrackerToken)>,
    addr: Option<SocketAddr>,
    tls: Option<(Tls, Watch)>,
    /// What a successor gets a duplicate of, for as long as connections are accepted.
    lent: Option<OwnedFd>,
}

impl Server {
    /// A server that listens nowhere yet. `metrics` get its request metrics.
    ///
    /// Routes that can't be served are an error of `start`.
    pub fn new(name: impl Into<String>, settings: HttpSettings, routes: impl Into<Routes>, metrics: &Metrics) -> Self {
        let (addr, handover, lifeline) = (settings.addr, settings.handover, Lifeline::new());
        let connections = routes.into().build().map(|Built { router, options, dialect }| {
            let pipeline = Pipeline::new(settings.clone(), lifeline.clone(), (options, dialect), metrics);
            Arc::new(Connections::new(router.layer(pipeline), settings, lifeline.clone()))
        });
        let connections = connections.map_err(|error| error.message().to_owned());
        let (name, hint, listening) = (name.into(), String::new(), Mutex::default());
        Self { name, addr, handover, hint, lifeline, connections, listening }
    }

    /// Adds to the error of a port in use how to choose another, as `set SHOP_HTTP__ADDR`.
    #[must_use]
    pub fn with_address_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Has `tracer` record the requests. They carry it on, so that what they cause is recorded too.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        self.lifeline.trace(tracer);
        self
    }

    /// Notes the requests in `register` for as long as they go on.
    #[must_use]
    pub fn with_register(self, register: InHand) -> Self {
        self.lifeline.note_in(register);
        self
    }

    /// Listens on a socket that someone else has bound (socket activation, a hand-over), instead of the address of the
    /// settings.
    #[must_use]
    pub fn with_listener(self, listener: StdListener) -> Self {
        self.adopt(listener);
        self
    }

    /// As [`with_listener`](Server::with_listener), for a server that is shared already. Before `start`.
    pub fn adopt(&self, listener: StdListener) {
        self.lock().handed_over = Some(listener);
    }

    /// A duplicate of the listening socket, to hand to a successor; `None` before `start` and once the server drains.
    ///
    /// Connections go to whoever accepts first. Keep no duplicate: the port stays open for as long as one exists.
    pub fn lend(&self) -> Option<StdListener> {
        let duplicate = self.lock().lent.as_ref()?.try_clone().ok()?;
        Some(StdListener::from(duplicate))
    }

    /// Begins to drain without waiting for it: accepts no more, tells clients to leave. `stop` waits and cuts. Ask the
    /// lifecycle to stop first: `run` ends here.
    pub fn drain(&self) {
        self.lock().lent = None; // or the port would stay open behind the accept loop's back
        self.lifeline.draining().cancel();
    }

    /// The address it listens on, once `start` has succeeded: tells the port when the settings say 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.lock().addr
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(&self) -> Result<()> {
        let connections = match &self.connections {
            Ok(connections) => connections,
            Err(mistake) => return Err(Error::failed_precondition(mistake.clone())),
        };
        // Before the address is bound: a service that can't speak to its clients doesn't keep them waiting.
        let tls = match &connections.limits().tls {
            Some(settings) => Some(Tls::load(settings).await?),
            None => None,
        };
        let mut listening = self.lock();
        listening.tls = tls;
        let listener = match listening.handed_over.take() {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)?
            }
            None => bind(self.addr, self.handover == Handover::Reuseport, &self.hint)?,
        };
        let addr = listener.local_addr()?;
        listening.addr = Some(addr);
        listening.lent = Some(listener.as_fd().try_clone_to_owned()?);
        listening.listener = Some((listener, self.lifeline.tasks().token()));
        tracing::info!(target: "mainstay::http", server = self.name, %addr, "listening");
        Ok(())
    }
}

impl Component for Server {
    fn name(&self) -> &str {
        &self.name
    }

    fn start<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.listen())
    }

    fn run<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let (taken, tls) = {
                let mut listening = self.lock();
                (listening.listener.take(), listening.tls.take())
            };
            match (taken, &self.connections) {
                (Some((listener, token)), Ok(connections)) => {
                    match tls {
                        None => accept(listener, connections.clone(), None).await,
                        Some((tls, watch)) => {
                            let tls = Arc::new(tls);
                            tokio::select! {
                                () = accept(listener, connections.clone(), Some(tls.clone())) => {}
                                () = tls.watch(watch) => {}
                            }
                        }
                    }
                    drop(token);
                    Ok(())
                }
                _ if self.lifeline.draining().is_cancelled() => Ok(()), // stopped before it ran
                _ => Err(Error::failed_precondition(format!("the server {} runs once, after start", self.name))),
            }
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async {
            drop(self.lock().listener.take());
            self.drain();
            self.lifeline.end(ctx).await
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("addr", &self.local_addr()).finish_non_exhaustive()
    }
}
