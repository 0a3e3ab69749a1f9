//! [`Service`]: a gRPC service, as `mainstay-build` makes it.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mainstay_core::{Context, Error, Result};
use mainstay_http::axum::body::Body;
use mainstay_http::axum::extract::Request;
use mainstay_http::routing::{Messages, MethodRoutes, call};
use mainstay_http::{RouteInfo, Routes};
use prost::Message;
use tonic::server::NamedService;

use crate::call::{Call, Gzip};
use crate::ending::Ending;
use crate::{Incoming, Outgoing};

/// A gRPC service: its methods, what each may take, and its descriptors for reflection.
///
/// Generated code makes it. A method's time limit, cancel policy and largest message are those of the server, except that
/// a call is dropped when its client gives it up, and that one with more than one message has no time limit of the
/// server's. [`Service::method`] changes them:
///
/// ```text
/// OrdersServer::new(orders).method("PlaceOrder", |call| call.deadline(Duration::from_secs(2)))?
/// ```
#[must_use = "a service does nothing until it is served"]
pub struct Service {
    name: &'static str,
    descriptors: &'static [u8],
    methods: Vec<(String, MethodRoutes)>,
    gzip: Gzip,
}

impl Service {
    /// The service `name`, as `shop.v1.Orders`, without methods; `descriptors` is an encoded `FileDescriptorSet`.
    pub fn new(name: &'static str, descriptors: &'static [u8]) -> Self {
        Self { name, descriptors, methods: Vec::new(), gzip: Gzip::default() }
    }

    /// Adds a method of one message each way.
    pub fn unary<Q, A, F>(self, name: &str, handler: impl Fn(Context, Q) -> F + Send + Sync + 'static) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        let call = Call::unary(self.gzip.clone(), handler);
        self.with(name, Messages::One, call)
    }

    /// Adds a method that answers one message with many.
    pub fn server_streaming<Q, A, F>(
        self,
        name: &str,
        handler: impl Fn(Context, Q) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<Outgoing<A>>> + Send + 'static,
    {
        let call = Call::server_streaming(self.gzip.clone(), handler);
        self.with(name, Messages::Many, call)
    }

    /// Adds a method that answers many messages with one.
    pub fn client_streaming<Q, A, F>(
        self,
        name: &str,
        handler: impl Fn(Context, Incoming<Q>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        let call = Call::client_streaming(self.gzip.clone(), handler);
        self.with(name, Messages::Many, call)
    }

    /// Adds a method of many messages each way.
    pub fn bidi_streaming<Q, A, F>(
        self,
        name: &str,
        handler: impl Fn(Context, Incoming<Q>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<Outgoing<A>>> + Send + 'static,
    {
        let call = Call::bidi_streaming(self.gzip.clone(), handler);
        self.with(name, Messages::Many, call)
    }

    /// A service that tonic's own code generator has made, in the same pipeline and under the same limits; its messages are
    /// bounded by its own settings. Each of its `methods` counts as one of many messages.
    pub fn tonic<S>(service: S, methods: &[&str], descriptors: &'static [u8]) -> Self
    where
        S: tower::Service<
                http::Request<Body>,
                Response = http::Response<tonic::body::Body>,
                Error = Infallible,
                Future: Send + 'static,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let add = |all: Self, method: &&str| all.with(method, Messages::Many, Foreign(service.clone()));
        methods.iter().fold(Self::new(S::NAME, descriptors), add)
    }

    /// Changes the limits of the method `name`, as `PlaceOrder`.
    ///
    /// # Errors
    /// The service has no such method.
    pub fn method(mut self, name: &str, change: impl FnOnce(MethodRoutes) -> MethodRoutes) -> Result<Self> {
        let Some(index) = self.methods.iter().position(|(known, _)| known == name) else {
            return Err(Error::failed_precondition(format!("the service {} has no method {name}", self.name)));
        };
        let (name, routes) = self.methods.swap_remove(index);
        self.methods.push((name, change(routes)));
        Ok(self)
    }

    /// Compresses answers by gzip for clients that accept it. Compressed requests are always taken.
    pub fn gzip(self) -> Self {
        self.gzip.store(true, Ordering::Relaxed);
        self
    }

    /// Its full name, as `shop.v1.Orders`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn descriptors(&self) -> &'static [u8] {
        self.descriptors
    }

    /// Every method, for a list of routes.
    pub(crate) fn methods(&self) -> Vec<RouteInfo> {
        let info = |method: &str| RouteInfo {
            method: "CALL".to_owned(),
            path: format!("/{}/{method}", self.name),
            handler: format!("{}/{method}", self.name),
            summary: None,
        };
        self.methods.iter().map(|(method, _)| info(method)).collect()
    }

    pub(crate) fn into_routes(self) -> Routes {
        let path = |method: &str| format!("/{}/{method}", self.name);
        self.methods.into_iter().fold(Routes::new(), |routes, (method, call)| routes.route(&path(&method), call))
    }

    fn with<S>(mut self, name: &str, messages: Messages, service: S) -> Self
    where
        S: tower::Service<Request, Response = mainstay_http::axum::response::Response, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let full_name = format!("{}/{name}", self.name);
        self.methods.push((name.to_owned(), call(full_name, messages, service)));
        self
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("methods", &self.methods.len()).finish()
    }
}

/// tonic's service among axum's: its answers end when ours would.
#[derive(Clone)]
struct Foreign<S>(S);

impl<S> tower::Service<Request> for Foreign<S>
where
    S: tower::Service<
            http::Request<Body>,
            Response = http::Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send + 'static,
        >,
{
    type Response = mainstay_http::axum::response::Response;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ctx = request.extensions().get::<Context>().cloned().unwrap_or_else(Context::background);
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| ended::<_>(&ctx, body))) })
    }
}

fn ended<B>(ctx: &Context, body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<mainstay_http::axum::BoxError>,
{
    // An answer without messages is whole already: its status stands in its head.
    if body.is_end_stream() { Body::empty() } else { Body::new(Ending::new(ctx, body)) }
}
