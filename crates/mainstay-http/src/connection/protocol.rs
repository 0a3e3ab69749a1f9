//! [`Protocol`]: what speaks HTTP on a connection, and is there only while it has something to say.
//!
//! hyper's HTTP/1 connection keeps a buffer of 8 KiB to read with and one to write with while it waits for a request.
//! Ten thousand idle clients would hold 160 MiB of them. So a connection that pauses gives its parser back and waits as
//! a bare stream, and so does a new one until its first byte.
//!
//! HTTP/2 doesn't rest: its state (windows, header tables, pings) has to outlive the pauses.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, mem};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::activity::Activity;
use super::entrance::Entrance;
use super::io::Io;
use super::{Connections, DrainedExecutor};

/// The protocol's side of one connection. Boxed where it is large, so that a resting connection is a small one.
pub(super) struct Protocol<'a, S> {
    connections: &'a Connections,
    stage: Stage<S>,
}

enum Stage<S> {
    /// Nobody asks for anything: HTTP/1 between two requests, and every connection until its protocol is known.
    Resting(Io<S>),
    Http1(Box<Http1<S>>),
    Http2(Box<Http2<S>>),
    /// Says the stream's own goodbye.
    Closing(Io<S>),
    Ended,
}

type Http1<S> = http1::UpgradeableConnection<TokioIo<Io<S>>, Entrance>;
type Http2<S> = http2::Connection<TokioIo<Io<S>>, Entrance, DrainedExecutor>;

impl<'a, S> Protocol<'a, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(connections: &'a Connections, io: Io<S>) -> Self {
        Self { connections, stage: Stage::Resting(io) }
    }

    /// Serves until the connection ends; an error is what broke it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            match &mut self.stage {
                Stage::Resting(io) => {
                    let next = ready!(wake(io, cx)).map_err(|error| error.to_string())?;
                    let Stage::Resting(io) = mem::replace(&mut self.stage, Stage::Ended) else { continue };
                    self.stage = match next {
                        Next::Http1 => Stage::Http1(Box::new(self.http1(io))),
                        Next::Http2 => Stage::Http2(Box::new(self.http2(io))),
                        Next::Close => Stage::Closing(io),
                    };
                }
                Stage::Http1(http) => return Pin::new(&mut **http).poll(cx).map_err(|error| error.to_string()),
                Stage::Http2(http) => return Pin::new(&mut **http).poll(cx).map_err(|error| error.to_string()),
                Stage::Closing(io) => return Pin::new(io).poll_shutdown(cx).map_err(|error| error.to_string()),
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes no further requests; to be polled until it has ended.
    pub(super) fn graceful_shutdown(&mut self) {
        match &mut self.stage {
            Stage::Resting(_) => {
                if let Stage::Resting(io) = mem::replace(&mut self.stage, Stage::Ended) {
                    self.stage = Stage::Closing(io);
                }
            }
            Stage::Http1(http) => Pin::new(&mut **http).graceful_shutdown(),
            Stage::Http2(http) => Pin::new(&mut **http).graceful_shutdown(),
            Stage::Closing(_) | Stage::Ended => {}
        }
    }

    /// Gives the HTTP/1 parser back. For a connection that [may rest](Activity::may_rest).
    ///
    /// hyper has the last word: asked to end, an idle connection has flushed everything and ends with this one poll. Any
    /// other stays, and closes after the request that it knows of and we don't.
    pub(super) fn rest(&mut self, activity: &Activity, cx: &mut Context<'_>) {
        let Stage::Http1(http) = &mut self.stage else { return };
        activity.going_to_rest(true);
        Pin::new(&mut **http).graceful_shutdown();
        let ended = Pin::new(&mut **http).poll(cx);
        activity.going_to_rest(false);
        if !matches!(ended, Poll::Ready(Ok(()))) {
            return;
        }
        let Stage::Http1(http) = mem::replace(&mut self.stage, Stage::Ended) else { return };
        if let Some(parts) = http.into_parts() {
            let mut io = parts.io.into_inner();
            if !parts.read_buf.is_empty() {
                activity.head_began(); // of a request that came with the one before
                io.unread(parts.read_buf);
            }
            self.stage = Stage::Resting(io);
        }
    }

    fn http1(&self, io: Io<S>) -> Http1<S> {
        let entrance = self.entrance(&io);
        self.connections.http1.serve_connection(TokioIo::new(io), entrance).with_upgrades()
    }

    fn http2(&self, io: Io<S>) -> Http2<S> {
        let entrance = self.entrance(&io);
        self.connections.http2.serve_connection(TokioIo::new(io), entrance)
    }

    fn entrance(&self, io: &Io<S>) -> Entrance {
        Entrance { router: self.connections.router.clone(), connection: io.connection().clone() }
    }
}

enum Next {
    Http1,
    Http2,
    Close,
}

/// Waits for the first bytes of the connection or of its next request.
fn wake<S: AsyncRead + Unpin>(io: &mut Io<S>, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
    loop {
        let activity = &io.connection().activity;
        if !io.ahead().is_empty() && activity.is_http1() {
            return Poll::Ready(Ok(Next::Http1));
        }
        if activity.is_http2() {
            return Poll::Ready(Ok(Next::Http2));
        }
        if ready!(io.poll_ahead(cx))? == 0 {
            // The parser answers to what has begun and doesn't go on.
            return Poll::Ready(Ok(if io.ahead().is_empty() { Next::Close } else { Next::Http1 }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::body::Body;
    use axum::routing::{get, post};
    use axum::{Extension, Router};
    use http_body_util::BodyExt;
    use mainstay_core::Context as Ctx;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_util::task::TaskTracker;

    use super::super::Connection;
    use super::*;
    use crate::HttpSettings;
    use crate::drain::Lifeline;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    const PAUSE: Duration = Duration::from_secs(1);

    /// What a client sees of a connection, and its server's side by hand.
    struct Scene<'a> {
        client: DuplexStream,
        protocol: Protocol<'a, DuplexStream>,
        connection: Arc<Connection>,
    }

    fn connections(router: Router) -> Connections {
        Connections::new(router, HttpSettings::default(), Lifeline::new())
    }

    /// Answers as the pipeline does, as far as the connection hears of it.
    fn ok() -> Router {
        let answer = async |Extension(connection): Extension<Arc<Connection>>| {
            connection.request_began();
            connection.request_ended();
            "ok"
        };
        Router::new().route("/", get(answer))
    }

    impl<'a> Scene<'a> {
        fn new(connections: &'a Connections) -> Self {
            let (client, server) = tokio::io::duplex(64 * 1024);
            let (context, _) = Ctx::background().with_cancel();
            let peer = ([127, 0, 0, 1], 1).into();
            let connection = Arc::new(Connection { context, peer, activity: Activity::new() });
            let io = Io::new(server, connection.clone(), None, TaskTracker::new().token());
            Self { client, protocol: Protocol::new(connections, io), connection }
        }

        async fn turn(&mut self) -> Poll<Result<(), String>> {
            poll_fn(|cx| Poll::Ready(self.protocol.poll(cx))).await
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.client.write_all(bytes).await.unwrap();
            assert!(self.turn().await.is_pending());
        }

        async fn answer(&mut self) -> String {
            let mut answer = Vec::with_capacity(4_096); // all of it
            self.client.read_buf(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        }

        /// What the watch of the connection does when nothing has happened for a while.
        async fn pause(&mut self) -> bool {
            tokio::time::advance(PAUSE).await;
            if self.connection.activity.may_rest() {
                poll_fn(|cx| {
                    self.protocol.rest(&self.connection.activity, cx);
                    Poll::Ready(())
                })
                .await;
            }
            matches!(self.protocol.stage, Stage::Resting(_))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_pauses_has_no_parser_and_answers_the_next_request() {
        let connections = connections(ok());
        let mut scene = Scene::new(&connections);
        for _ in 0..3 {
            scene.send(ASK).await;
            assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
            assert!(!matches!(scene.protocol.stage, Stage::Resting(_)));
            assert!(scene.pause().await);
            assert!(scene.turn().await.is_pending());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_a_resting_connection_ends_it_and_so_does_a_goodbye() {
        let connections = connections(ok());
        for leaves in [true, false] {
            let mut scene = Scene::new(&connections);
            scene.send(ASK).await;
            scene.answer().await;
            assert!(scene.pause().await);
            if leaves {
                scene.client.shutdown().await.unwrap();
            } else {
                scene.protocol.graceful_shutdown();
            }
            assert_eq!(scene.turn().await, Poll::Ready(Ok(())));
            assert_eq!(scene.answer().await, "");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_that_came_with_the_request_before_is_kept_and_watched() {
        let connections = connections(ok());
        let mut scene = Scene::new(&connections);
        scene.send(&[ASK, &ASK[..9]].concat()).await;
        assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
        assert!(scene.pause().await);
        assert!(scene.connection.activity.head_deadline(&HttpSettings::default()).is_some());
        scene.send(&ASK[9..]).await;
        assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_read_beyond_its_answer_keeps_the_parser() {
        let held = Arc::new(Mutex::new(None));
        let keeps = held.clone();
        let answer = async move |Extension(connection): Extension<Arc<Connection>>, body: Body| {
            connection.request_began();
            connection.request_ended();
            *keeps.lock().unwrap() = Some(body);
            "soon"
        };
        let connections = connections(Router::new().route("/", post(answer)));
        let mut scene = Scene::new(&connections);
        scene.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n").await;
        assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
        assert!(!scene.pause().await);
        let mut body = held.lock().unwrap().take().unwrap();
        scene.send(b"late").await;
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_asked_for_another_protocol_and_answered_in_http_goes_on() {
        let connections = connections(ok());
        let mut scene = Scene::new(&connections);
        scene.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
        assert!(!scene.pause().await);
        scene.send(ASK).await;
        assert!(scene.answer().await.starts_with("HTTP/1.1 200"));
    }
}
