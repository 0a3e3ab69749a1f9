//! [`Entrance`]: where requests leave the connection and enter the router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tower::Service;

use super::Connection;

/// The service of one connection.
pub(super) struct Entrance {
    pub(super) router: Router,
    pub(super) connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::new(body),
            false => Body::new(Counted::new(body, self.connection.clone())),
        });
        if request.extensions().get::<OnUpgrade>().is_some() {
            self.connection.activity.upgrade_asked();
        }
        request.extensions_mut().insert(ConnectInfo(self.connection.peer));
        request.extensions_mut().insert(self.connection.clone());
        self.router.clone().call(request)
    }
}

/// A request's body, known to its connection for as long as somebody may read it: that can be longer than its answer.
struct Counted {
    body: Incoming,
    connection: Arc<Connection>,
}

impl Counted {
    fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        connection.activity.body_began();
        Self { body, connection }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connection.activity.body_ended();
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
