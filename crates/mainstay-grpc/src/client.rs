//! [`Channel`]: gRPC calls that carry the caller's deadline, cancellation, trace and request id.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::Stream;
use http::uri::PathAndQuery;
use mainstay_core::{ByteSize, Code, Context, Error, Result};
use mainstay_telemetry::trace::{self, Span, SpanKind};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic_prost::ProstCodec;

use self::answers::Answers;
use self::budget::Budget;
use self::pool::Pool;
use crate::{Incoming, status};

mod answers;
mod budget;
mod metadata;
mod pool;

/// What is kept back of the time that is left: the answer has to come home too.
const HOP_ALLOWANCE: Duration = Duration::from_millis(5);

/// The longest a call with one message each way may take whose context has no deadline.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(30);

/// The largest message that is read: what most gRPC libraries read.
const LARGEST_MESSAGE: ByteSize = ByteSize::mib(4);

/// How often a call is made in all while it is answered by `UNAVAILABLE`.
const ATTEMPTS: u32 = 3;

/// The pause before the first repetition; it doubles. Each is cut at random, so that clients don't come together.
const PAUSE: Duration = Duration::from_millis(20);

/// The connections to a gRPC service, for the client that `mainstay-build` makes. A clone shares them.
///
/// The name in the URL is looked up again every ten seconds, and calls go to all its addresses, each to the one of two that
/// has less to do. Connections open with the first call, are asked every 20 s whether they live, and open again by
/// themselves.
///
/// Each call sends what is left of its deadline, less 5 ms for the way home, as `grpc-timeout`, `traceparent` with a new
/// span, `tracestate`, `baggage` and `x-request-id`. A call that can't finish in time is refused before it is sent. When
/// its context is done, or its future or stream is dropped, it is cancelled.
///
/// A call with one message each way is made again, up to three times in all and within its deadline, when it ends with
/// `UNAVAILABLE`. Repetitions have a budget: while more than one in eleven calls fails, there are none, so that a service
/// that is down isn't called three times as often. [`Channel::without_retries`] is for calls that must not happen twice; one
/// that the other side has not looked at, because its connection closed in just that moment, has not happened, and is made
/// again in any case.
///
/// ```no_run
/// # fn build() -> mainstay_core::Result<()> {
/// use mainstay_grpc::Channel;
///
/// let channel = Channel::new("http://stock.internal:8080")?; // once, in `build`: nothing connects yet
/// // let stock = StockClient::new(channel);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// | failure | code |
/// |---|---|
/// | a status that is not OK | its own code, message, details and retry delay |
/// | no connection, or one that broke | `UNAVAILABLE` |
/// | the deadline passed, or too little is left to begin | `DEADLINE_EXCEEDED` |
/// | a message of more than 4 MiB | `RESOURCE_EXHAUSTED` |
///
/// Message and details of a status reach the caller of this service unless you replace them by
/// [`ResultExt::or_code`](mainstay_core::ResultExt::or_code).
#[derive(Clone)]
pub struct Channel {
    pool: Arc<Pool>,
    budget: Option<Arc<Budget>>,
    gzip: bool,
    largest_message: usize,
}

impl Channel {
    /// A channel to `url`, as `http://stock.internal:8080`, or `https://…` for TLS with the roots of the system. Nothing is
    /// looked up and nothing connects before the first call.
    ///
    /// # Errors
    /// `InvalidArgument`: no URL of this form.
    pub fn new(url: &str) -> Result<Self> {
        let pool = Arc::new(Pool::new(url)?);
        let largest_message = LARGEST_MESSAGE.as_usize();
        Ok(Self { pool, budget: Some(Arc::default()), gzip: false, largest_message })
    }

    /// The same channel, whose calls are made once.
    #[must_use]
    pub fn without_retries(mut self) -> Self {
        self.budget = None;
        self
    }

    /// The same channel, whose messages are compressed. Compressed answers are always read.
    #[must_use]
    pub fn with_gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// The same channel with another limit for the messages it reads.
    #[must_use]
    pub fn with_max_message(mut self, limit: ByteSize) -> Self {
        self.largest_message = limit.as_usize();
        self
    }

    /// Calls the method at `path`, as `/shop.v1.Orders/GetOrder`, with one message each way. Generated clients do.
    ///
    /// # Errors
    /// By the table at [`Channel`].
    pub async fn unary<Q, A>(&self, ctx: &Context, path: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let ctx = &ctx.with_timeout(ctx.remaining().unwrap_or(WITHOUT_DEADLINE));
        let (mut failed, mut unseen) = (0, 0);
        loop {
            let attempt = self.once(ctx, path, |mut client, ctx| {
                let request = metadata::signed(ctx, request.clone());
                async move { client.unary(request?, method(path), ProstCodec::default()).await.map_err(Failure::of) }
            });
            let error = match attempt.await {
                Ok(answer) => {
                    self.budget.iter().for_each(|budget| budget.succeeded());
                    return Ok(answer.into_inner());
                }
                Err(error) => error,
            };
            if has_not_happened(&error) && unseen < ATTEMPTS {
                unseen += 1;
                continue;
            }
            failed += 1;
            let Some(pause) = self.pause(&error, failed) else { return Err(error) };
            // Who would not come back in time learns of the failure, and not of the deadline.
            if ctx.remaining().is_some_and(|left| left <= pause) || ctx.run(tokio::time::sleep(pause)).await.is_err() {
                return Err(error);
            }
        }
    }

    /// Calls a method that answers one message with many.
    ///
    /// # Errors
    /// By the table at [`Channel`]; what fails later is an error of the stream.
    pub async fn server_streaming<Q, A>(&self, ctx: &Context, path: &'static str, request: Q) -> Result<Incoming<A>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer =
            self.once(ctx, path, |mut client, ctx| {
                let request = metadata::signed(ctx, request);
                async move {
                    client.server_streaming(request?, method(path), ProstCodec::default()).await.map_err(Failure::of)
                }
            });
        Ok(Incoming::of_answer(ctx, answer.await?.into_inner()))
    }

    /// Calls a method that answers many messages with one.
    ///
    /// # Errors
    /// By the table at [`Channel`].
    pub async fn client_streaming<Q, A>(
        &self,
        ctx: &Context,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer =
            self.once(ctx, path, |mut client, ctx| {
                let request = metadata::signed(ctx, requests);
                async move {
                    client.client_streaming(request?, method(path), ProstCodec::default()).await.map_err(Failure::of)
                }
            });
        answer.await.map(tonic::Response::into_inner)
    }

    /// Calls a method of many messages each way.
    ///
    /// # Errors
    /// By the table at [`Channel`]; what fails later is an error of the stream.
    pub async fn bidi_streaming<Q, A>(
        &self,
        ctx: &Context,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Incoming<A>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = self.once(ctx, path, |mut client, ctx| {
            let request = metadata::signed(ctx, requests);
            async move { client.streaming(request?, method(path), ProstCodec::default()).await.map_err(Failure::of) }
        });
        Ok(Incoming::of_answer(ctx, answer.await?.into_inner()))
    }

    /// One attempt, to the head of its answer: under the deadline, in a span.
    async fn once<T, F>(&self, ctx: &Context, path: &'static str, call: impl FnOnce(Client, &Context) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        ctx.check()?;
        let name = path.trim_start_matches('/');
        let mut span = trace::span(ctx, SpanKind::Client, || name.into());
        let attempt = async {
            let client = self.client().await?;
            // The other side is a child of the call's span; where there is none, of one that nobody records.
            let unrecorded = span.is_none().then(|| ctx.trace().map(|trace| ctx.with_trace(trace.child()))).flatten();
            let outbound = unrecorded.as_ref().unwrap_or_else(|| trace::context(&span, ctx));
            call(client, outbound).await.map_err(|Failure(error)| error.context(name))
        };
        let answered = ctx.run(attempt).await.unwrap_or_else(|cause| Err(cause.context(name)));
        if let Some(span) = &mut span {
            describe(span, name, &answered);
        }
        answered
    }

    async fn client(&self) -> Result<Client> {
        let mut client = tonic::client::Grpc::new(Answers(self.pool.connections().await?))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(self.largest_message);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client
            .ready()
            .await
            .map_err(|error| Error::unavailable("another service can't be reached").with_source(error))?;
        Ok(client)
    }

    /// How long to wait before the call is made again; `None` if it isn't.
    fn pause(&self, error: &Error, failed: u32) -> Option<Duration> {
        let budget = self.budget.as_ref()?;
        if error.code() != Code::Unavailable || !budget.failed() || failed >= ATTEMPTS {
            return None;
        }
        Some(error.retry_delay().unwrap_or_default() + budget::jitter(PAUSE * 2_u32.pow(failed - 1)))
    }
}

type Client = tonic::client::Grpc<Answers>;

/// An error of one attempt.
struct Failure(Error);

impl Failure {
    fn of(status: tonic::Status) -> Self {
        Self(status::of_answer(&status))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// Whether the call has certainly not happened, so that it is made again without being counted: it waited to be written when
/// its connection closed, or the other side, which was saying goodbye, named it as one that it has not looked at.
fn has_not_happened(error: &Error) -> bool {
    let unwritten = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
    let unseen = error.downcast_ref::<h2::Error>().is_some_and(|error| {
        let goodbye = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (goodbye || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    });
    unwritten || unseen
}

fn method(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

fn describe<T>(span: &mut Span, name: &str, answered: &Result<T>) {
    span.set("rpc.system.name", "grpc");
    span.set("rpc.method", name.to_owned());
    span.set("rpc.response.status_code", answered.as_ref().map_or_else(|error| error.code().name(), |_| "OK"));
    span.outcome(answered);
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.pool).finish()
    }
}
