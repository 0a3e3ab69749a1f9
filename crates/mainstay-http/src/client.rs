//! [`Client`]: HTTP calls that carry the caller's deadline, cancellation, trace and request id.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use mainstay_core::{ByteSize, Code, Context, Error, Result, ResultExt};
use mainstay_telemetry::trace::{self, Span, SpanKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pipeline::headers::{BAGGAGE, CONNECT_TIMEOUT_MS, REQUEST_ID, TRACEPARENT, TRACESTATE};

mod failure;

/// What is kept back of the time that is left: the answer has to come home too.
const HOP_ALLOWANCE: Duration = Duration::from_millis(5);

/// The longest a call may take whose context has no deadline. A call without any end is a leak.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a connection may take to open. Within a data centre it takes a millisecond; what takes seconds is lost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest answer that is read into memory.
const MAX_RESPONSE: ByteSize = ByteSize::mib(16);

/// An HTTP client for calls that belong to a [`Context`]. A clone shares the connections.
///
/// Each call sends what is left of the deadline, less 5 ms for the way home, as `Connect-Timeout-Ms` (which our server
/// reads), `traceparent` with a new span, `tracestate`, `baggage` and `x-request-id`. A call that can't finish in time
/// is refused before it connects. When the context is done, or the future is dropped, the call is cancelled.
///
/// ```no_run
/// # async fn call(ctx: mainstay_core::Context) -> mainstay_core::Result<()> {
/// use mainstay_http::Client;
///
/// let client = Client::new()?; // once, in `build`
/// let stock: u64 = client.get("http://stock.internal/v1/stock/anvil").send(&ctx).await?.json().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// | failure | code |
/// |---|---|
/// | no connection, or one that broke | `UNAVAILABLE` |
/// | the deadline passed, or too little is left to begin | `DEADLINE_EXCEEDED` |
/// | an answer of 400 and above that is a problem document | its own code, message, violations and `Retry-After` |
/// | any other answer of 400 and above | the nearest code; 5xx other than 501, 503 and 504 are `UNKNOWN` |
/// | an answer that is larger than 16 MiB | `RESOURCE_EXHAUSTED` |
///
/// The message of a problem document reaches the caller of this service unless you replace it by
/// [`ResultExt::or_code`].
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    max_response: usize,
    roots: Vec<reqwest::Certificate>,
}

/// A call that has not been sent.
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    request: reqwest::RequestBuilder,
    max_response: usize,
    broken: Option<Error>,
}

/// The head of an answer; its body comes with [`Reply::json`] and its sisters.
#[derive(Debug)]
pub struct Reply {
    response: reqwest::Response,
    ctx: Context,
    target: String,
    max_response: usize,
}

impl Client {
    /// A client with its own pool of connections; TLS by rustls with the roots of the system.
    ///
    /// # Errors
    /// `FailedPrecondition` if TLS can't be set up, as where the system has no root certificates.
    pub fn new() -> Result<Self> {
        // An error says that the process has a provider already: that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { http: connected(&[])?, max_response: MAX_RESPONSE.as_usize(), roots: Vec::new() })
    }

    /// The same client, which also trusts the certificates in `pem`: for servers with a certificate of a private
    /// authority. May be called more than once; clones made before don't follow, and connections are opened anew.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no certificate in `pem` or one that can't be read.
    pub fn with_root_certificate(mut self, pem: impl AsRef<[u8]>) -> Result<Self> {
        let roots = reqwest::Certificate::from_pem_bundle(pem.as_ref())
            .or_code(Code::InvalidArgument, "a root certificate can't be read: it is no PEM text")?;
        if roots.is_empty() {
            return Err(Error::invalid_argument("a root certificate is missing: no block `BEGIN CERTIFICATE`"));
        }
        self.roots.extend(roots);
        self.http = connected(&self.roots)?;
        Ok(self)
    }

    /// The same client with another limit for answers that are read into memory.
    #[must_use]
    pub fn with_max_response(mut self, limit: ByteSize) -> Self {
        self.max_response = limit.as_usize();
        self
    }

    /// A GET call.
    pub fn get(&self, url: impl AsRef<str>) -> Call {
        self.call(Method::GET, url)
    }

    /// A POST call.
    pub fn post(&self, url: impl AsRef<str>) -> Call {
        self.call(Method::POST, url)
    }

    /// A PUT call.
    pub fn put(&self, url: impl AsRef<str>) -> Call {
        self.call(Method::PUT, url)
    }

    /// A PATCH call.
    pub fn patch(&self, url: impl AsRef<str>) -> Call {
        self.call(Method::PATCH, url)
    }

    /// A DELETE call.
    pub fn delete(&self, url: impl AsRef<str>) -> Call {
        self.call(Method::DELETE, url)
    }

    /// A call with any method.
    pub fn call(&self, method: Method, url: impl AsRef<str>) -> Call {
        Call { request: self.http.request(method, url.as_ref()), max_response: self.max_response, broken: None }
    }
}

impl Call {
    /// Adds a header. A malformed name or value fails [`Call::send`].
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.request = self.request.header(name.as_ref(), value.as_ref());
        self
    }

    /// Sends `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                let kind = HeaderValue::from_static("application/json");
                self.request = self.request.header(header::CONTENT_TYPE, kind).body(bytes);
            }
            Err(error) => self.broken = Some(Error::from(error).context("serialising the body of a call")),
        }
        self
    }

    /// Sends `body` as it is.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.request = self.request.body(body.into());
        self
    }

    /// Sends the call and waits for the head of the answer. Cancel safe: dropping the future cancels the call.
    ///
    /// # Errors
    /// By the table at [`Client`]; an answer of 400 and above is an error.
    pub async fn send(self, ctx: &Context) -> Result<Reply> {
        let reply = self.exchange(ctx).await?;
        if reply.status().is_client_error() || reply.status().is_server_error() {
            return Err(failure::of_answer(reply).await);
        }
        Ok(reply)
    }

    /// As [`Call::send`], and hands out every answer, whatever its status.
    ///
    /// # Errors
    /// By the table at [`Client`], where no answer came.
    pub async fn exchange(self, ctx: &Context) -> Result<Reply> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        ctx.check()?;
        let (http, request) = self.request.build_split();
        let mut request = request.map_err(|error| Error::from_any(error).context("building a call"))?;
        let target = failure::target(request.method(), request.url());
        let limit = time_limit(ctx, &target)?;
        let mut span = trace::span(ctx, SpanKind::Client, || request.method().to_string().into());
        if let Some(span) = &mut span {
            describe(span, &request);
        }
        sign(request.headers_mut(), trace::context(&span, ctx), span.is_some(), limit);
        let limited = ctx.with_timeout(limit.unwrap_or(WITHOUT_DEADLINE));
        let answered = match limited.run(http.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure::of_transport(error, &target)),
            Err(cause) => Err(cause.context(target.clone())),
        };
        if let Some(span) = &mut span {
            span.outcome(&answered);
            if let Ok(response) = &answered {
                span.set("http.response.status_code", i64::from(response.status().as_u16()));
                if let 400.. = response.status().as_u16() {
                    span.fail(response.status().canonical_reason().unwrap_or("error"));
                }
            }
        }
        let ctx = limited;
        Ok(Reply { response: answered?, ctx, target, max_response: self.max_response })
    }
}

impl Reply {
    /// The status; below 400 after [`Call::send`].
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The body, read to its end within the deadline of the call.
    ///
    /// # Errors
    /// By the table at [`Client`].
    pub async fn bytes(mut self) -> Result<Bytes> {
        let (ctx, target, limit) = (self.ctx.clone(), std::mem::take(&mut self.target), self.max_response);
        let announced = self.response.content_length().unwrap_or_default();
        let too_large = || {
            let message = format!("an answer of another service is larger than {limit} bytes");
            Error::resource_exhausted(message).context(target.clone())
        };
        if announced > limit as u64 {
            return Err(too_large());
        }
        let read = async {
            let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or_default());
            while let Some(chunk) =
                self.response.chunk().await.map_err(|error| failure::of_transport(error, &target))?
            {
                if body.len() + chunk.len() > limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Bytes::from(body))
        };
        ctx.run(read).await.unwrap_or_else(|cause| Err(cause.context(target.clone())))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// As [`Reply::bytes`]; `Internal` if the body is not what `T` expects.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let target = self.target.clone();
        let bytes = self.bytes().await?;
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut deserializer).with_context(|| format!("reading the answer of {target}"))
    }

    /// The body as text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// As [`Reply::bytes`].
    pub async fn text(self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }
}

fn connected(roots: &[reqwest::Certificate]) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
    builder.tls_certs_merge(roots.iter().cloned()).build().or_code(
        Code::FailedPrecondition,
        "the HTTP client can't set up TLS: install the system's root certificates (package ca-certificates)",
    )
}

/// What the called service may take, or `None` without a deadline.
fn time_limit(ctx: &Context, target: &str) -> Result<Option<Duration>> {
    let Some(remaining) = ctx.remaining() else { return Ok(None) };
    match remaining.checked_sub(HOP_ALLOWANCE).filter(|limit| limit.as_millis() > 0) {
        Some(limit) => Ok(Some(limit)),
        None => Err(Error::new(Code::DeadlineExceeded, "too little time is left to call another service")
            .context(format!("{target}, with {remaining:?} left"))),
    }
}

/// What is said of a call: neither its path nor its query, which may hold secrets.
fn describe(span: &mut Span, request: &reqwest::Request) {
    let url = request.url();
    span.set("http.request.method", request.method().to_string());
    span.set("server.address", url.host_str().unwrap_or_default().to_owned());
    if let Some(port) = url.port_or_known_default() {
        span.set("server.port", i64::from(port));
    }
}

/// Adds what travels with the context. A header that the call has set itself stays. The other side is a child of the call's
/// span; where there is none, of one that nobody records.
fn sign(headers: &mut HeaderMap, ctx: &Context, recorded: bool, limit: Option<Duration>) {
    let trace = ctx.trace();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let travelling: [(HeaderName, Option<String>); 5] = [
        (CONNECT_TIMEOUT_MS, limit.map(|limit| limit.as_millis().to_string())),
        (REQUEST_ID, ctx.request_id().map(ToString::to_string)),
        (TRACEPARENT, trace.map(|trace| if recorded { trace.traceparent() } else { trace.child().traceparent() })),
        (TRACESTATE, text(trace.and_then(|trace| trace.state.as_deref()))),
        (BAGGAGE, text(trace.and_then(|trace| trace.baggage.as_deref()))),
    ];
    for (name, value) in travelling {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.entry(name).or_insert(value);
        }
    }
}
