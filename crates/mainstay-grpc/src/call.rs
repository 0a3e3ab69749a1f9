//! One method as a tower service: messages in, the handler, messages out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use mainstay_core::{Context, Error, Result};
use mainstay_http::axum::body::Body;
use mainstay_http::axum::extract::Request;
use mainstay_http::axum::response::{IntoResponse, Response};
use mainstay_http::dialect::MessageLimit;
use prost::Message;
use tonic::codec::{CompressionEncoding, EncodeBody, SingleMessageCompressionOverride, Streaming};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::dialect::CONTENT_TYPE;
use crate::ending::{Ending, tell};
use crate::{Incoming, Outgoing, status};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// What a message may be as large as, where no pipeline says so: as large as a body.
const LARGEST_MESSAGE: usize = 1024 * 1024;

type Answering = BoxFuture<'static, Result<Response, Infallible>>;

/// A method. A clone is the same method.
#[derive(Clone)]
pub(crate) struct Call(Arc<dyn Fn(Request) -> Answering + Send + Sync>);

/// Whether the answers of a service are compressed for clients that can read that; set after its methods are made.
pub(crate) type Gzip = Arc<AtomicBool>;

impl Call {
    pub(crate) fn unary<Q, A, F>(gzip: Gzip, handler: impl Fn(Context, Q) -> F + Send + Sync + 'static) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::new(gzip, move |ctx, request, gzip| {
            let handler = handler.clone();
            async move { Ok(one(handler(ctx, single(request).await?).await?, gzip)) }
        })
    }

    pub(crate) fn server_streaming<Q, A, F>(
        gzip: Gzip,
        handler: impl Fn(Context, Q) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<Outgoing<A>>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::new(gzip, move |ctx, request, gzip| {
            let handler = handler.clone();
            async move { Ok(many(&ctx, handler(ctx.clone(), single(request).await?).await?, gzip)) }
        })
    }

    pub(crate) fn client_streaming<Q, A, F>(
        gzip: Gzip,
        handler: impl Fn(Context, Incoming<Q>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::new(gzip, move |ctx, request, gzip| {
            let handler = handler.clone();
            async move { Ok(one(handler(ctx.clone(), Incoming::of_request(&ctx, messages(request)?)).await?, gzip)) }
        })
    }

    pub(crate) fn bidi_streaming<Q, A, F>(
        gzip: Gzip,
        handler: impl Fn(Context, Incoming<Q>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Future<Output = Result<Outgoing<A>>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::new(gzip, move |ctx, request, gzip| {
            let handler = handler.clone();
            async move {
                let incoming = Incoming::of_request(&ctx, messages(request)?);
                Ok(many(&ctx, handler(ctx.clone(), incoming).await?, gzip))
            }
        })
    }

    /// `run` is told whether the answer may be compressed.
    fn new<F>(gzip: Gzip, run: impl Fn(Context, Request, bool) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response>> + Send + 'static,
    {
        Self(Arc::new(move |request: Request| {
            let compressed = gzip.load(Ordering::Relaxed) && accepts_gzip(request.headers());
            let Some(ctx) = request.extensions().get::<Context>().cloned() else {
                let error = Error::internal("a call has no Context: serve it with mainstay_http::Server");
                return Box::pin(ready(Ok(error.into_response())));
            };
            let answer = run(ctx, request, compressed);
            // The pipeline tells the error in gRPC's words, and logs it.
            Box::pin(async move { Ok(answer.await.unwrap_or_else(IntoResponse::into_response)) })
        }))
    }
}

impl tower::Service<Request> for Call {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        (self.0)(request)
    }
}

/// The one message of a request that has one.
async fn single<Q: Message + Default + 'static>(request: Request) -> Result<Q> {
    let mut messages = messages(request)?;
    let read = |status: tonic::Status| status::of_request(&status);
    let first = messages.message().await.map_err(read)?;
    // What the protocol answers to a wrong number of messages.
    let first = first.ok_or_else(|| Error::unimplemented("the call takes one message and none came"))?;
    match messages.message().await.map_err(read)? {
        None => Ok(first),
        Some(_) => Err(Error::unimplemented("the call takes one message and more came")),
    }
}

fn messages<Q: Message + Default + 'static>(request: Request) -> Result<Streaming<Q>> {
    let encoding = match request.headers().get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => None,
        Some(b"gzip") => Some(CompressionEncoding::Gzip),
        Some(_) => {
            return Err(Error::unimplemented("the compression of grpc-encoding is not offered: use gzip or identity"));
        }
    };
    let largest = request.extensions().get().map_or(LARGEST_MESSAGE, |MessageLimit(bytes)| *bytes);
    Ok(Streaming::new_request(ProstDecoder::default(), request.into_body(), encoding, Some(largest)))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(GRPC_ACCEPT_ENCODING).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|encoding| encoding.trim() == "gzip")
}

fn one<A: Message + 'static>(message: A, gzip: bool) -> Response {
    answer(Body::new(encoded(stream::once(ready(Ok(message))), gzip)), gzip)
}

fn many<A: Message + 'static>(ctx: &Context, messages: Outgoing<A>, gzip: bool) -> Response {
    let told = messages.0.map(|message| {
        message.map_err(|error| {
            tell(&error);
            status::of_error(&error)
        })
    });
    answer(Body::new(Ending::new(ctx, Box::pin(encoded(told, gzip)))), gzip)
}

fn encoded<A, S>(messages: S, gzip: bool) -> EncodeBody<ProstEncoder<A>, S>
where
    A: Message + 'static,
    S: stream::Stream<Item = Result<A, tonic::Status>>,
{
    let encoding = gzip.then_some(CompressionEncoding::Gzip);
    EncodeBody::new_server(ProstEncoder::default(), messages, encoding, SingleMessageCompressionOverride::Inherit, None)
}

fn answer(body: Body, gzip: bool) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    if gzip {
        response.headers_mut().insert(GRPC_ENCODING, GZIP);
    }
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, const { HeaderValue::from_static("gzip,identity") });
    response
}
