//! [`WebSocketUpgrade`] and [`WebSocket`]: WebSockets that take part in the drain.

use std::fmt;
use std::future::Future;

use axum::extract::FromRequestParts;
use axum::extract::ws;
pub use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, close_code};
use axum::response::Response;
use http::request::Parts;
use mainstay_core::{Code, Context, Error, Result};
use tokio::time::Instant;

use crate::describe::Operation;
use crate::drain::Lifeline;
use crate::{Describe, Draining};

/// The request of a client that wants a WebSocket; an argument of a handler of `get`.
///
/// The handler answers with [`on_upgrade`](Self::on_upgrade) at once; what runs then is bounded by no request timeout.
/// When the server begins to drain, the client is told by a Close frame of code 1001, and reconnects to another process.
/// A WebSocket that is still there when the drain's time is up is cut and reported, as
/// `WebSocket /v1/feed (request 0192…, 8.4 s)`. A message may be as large as a request's body.
///
/// ```
/// use axum::response::Response;
/// use mainstay_core::Context;
/// use mainstay_http::{Routes, routing::get, ws::{WebSocket, WebSocketUpgrade}};
///
/// async fn echo(upgrade: WebSocketUpgrade) -> Response {
///     upgrade.on_upgrade(|_ctx: Context, mut socket: WebSocket| async move {
///         while let Some(Ok(message)) = socket.recv().await {
///             if socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     })
/// }
/// let routes: Routes = Routes::new().route("/echo", get(echo));
/// ```
#[derive(Debug)]
pub struct WebSocketUpgrade {
    upgrade: ws::WebSocketUpgrade,
    origin: Origin,
}

/// An open WebSocket. Pings are answered and a Close is returned by [`recv`](Self::recv) on its own.
#[derive(Debug)]
pub struct WebSocket {
    socket: ws::WebSocket,
    draining: Option<Draining>,
}

/// Where a WebSocket comes from: the request, as the pipeline knows it.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The request's context without its deadline, which is for the answer.
    pub(crate) context: Context,
    pub(crate) lifeline: Lifeline,
    pub(crate) route: String,
    pub(crate) request_id: String,
    pub(crate) largest_message: usize,
}

impl WebSocketUpgrade {
    /// Answers 101 and runs `serve` on the open WebSocket.
    ///
    /// The context has no deadline and ends when the server cuts; `serve` is dropped then, where it waits.
    pub fn on_upgrade<F, S>(self, serve: S) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
        S: FnOnce(Context, WebSocket) -> F + Send + 'static,
    {
        let origin = self.origin;
        // From now on the drain waits, also while the client takes its 101.
        let token = origin.lifeline.tasks().token();
        let upgrade = self.upgrade.max_message_size(origin.largest_message).max_frame_size(origin.largest_message);
        upgrade.on_upgrade(move |socket| async move {
            let Origin { context, lifeline, .. } = origin.clone();
            let socket = WebSocket { socket, draining: Draining::of(&context) };
            let mut guest = Guest { origin, began: Instant::now(), ended: false };
            guest.ended = lifeline.root().run(serve(context, socket)).await.is_ok();
            drop(guest);
            drop(token); // after the report
        })
    }

    /// Chooses the first of `known` subprotocols that the client asks for too.
    #[must_use]
    pub fn protocols(mut self, known: impl IntoIterator<Item = &'static str>) -> Self {
        self.upgrade = self.upgrade.protocols(known);
        self
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let upgrade = ws::WebSocketUpgrade::from_request_parts(parts, state).await;
        let upgrade = upgrade.map_err(|rejection| Error::invalid_argument(rejection.body_text()))?;
        let origin = parts.extensions.remove::<Origin>().ok_or_else(|| {
            Error::internal("a WebSocket outside a mainstay_http::Server: nobody would end it with the service")
        })?;
        Ok(Self { upgrade, origin })
    }
}

impl Describe for WebSocketUpgrade {
    fn request(operation: &mut Operation) {
        operation.answers_empty(101);
    }
}

impl WebSocket {
    /// The next message; `None` once the WebSocket is closed. An error is its end too.
    ///
    /// When the server begins to drain it sends the Close, and goes on returning what the client sent before its own.
    /// Cancel safe: a message is returned or still there.
    pub async fn recv(&mut self) -> Option<Result<Message>> {
        if let Some(draining) = &self.draining {
            tokio::select! {
                biased; // or a client that never pauses would never be told
                () = draining.wait() => {}
                message = self.socket.recv() => return message.map(|message| message.map_err(broken)),
            }
            self.say_goodbye().await;
        }
        self.socket.recv().await.map(|message| message.map_err(broken))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: the client is gone, or the server drains; then the client has been told.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        if self.draining.as_ref().is_some_and(Draining::has_begun) {
            self.say_goodbye().await;
        }
        self.socket.send(message).await.map_err(broken)
    }

    async fn say_goodbye(&mut self) {
        self.draining = None; // once
        let reason = Utf8Bytes::from_static("the server is stopping: connect again");
        // A client that is gone needs no word.
        let _ = self.socket.send(Message::Close(Some(CloseFrame { code: close_code::AWAY, reason }))).await;
    }
}

fn broken(error: axum::Error) -> Error {
    Error::new(Code::Unavailable, "the WebSocket is closed").with_source(error)
}

/// Reports a WebSocket that was cut.
struct Guest {
    origin: Origin,
    began: Instant,
    ended: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.ended && self.origin.lifeline.is_cut() {
            let Origin { route, request_id, .. } = &self.origin;
            let seconds = self.began.elapsed().as_secs_f64();
            self.origin.lifeline.report(format!("WebSocket {route} (request {request_id}, {seconds:.1} s)"));
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("route", &self.route).field("request", &self.request_id).finish_non_exhaustive()
    }
}
