//! The request pipeline: one tower layer that gives every request its id, trace, deadline and limits, and takes its
//! metrics, log line and problem document.
//!
//! One layer and not ten: each tower layer of its own costs a boxed future and a boxed body per request. What follows
//! happens in this order:
//!
//! 1. The request's identity: `x-request-id`, `traceparent`, `tracestate`, `baggage`.
//! 2. Its limits: size of the head, announced size of the body, `Grpc-Timeout` and `Connect-Timeout-Ms`. What breaks
//!    one is refused here.
//! 3. Its [`Context`](mainstay_core::Context), in the request's extensions, and the handler, under the deadline, the cancel policy and a net
//!    for panics.
//! 4. Its answer: errors and bare rejections become problem documents; `x-request-id` is echoed.
//! 5. Its end, with the last byte of the body: metrics, the access log, the drain.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Version, header};
use http_body::Body as _;
use mainstay_core::{Code, Error};
use mainstay_telemetry::Metrics;
use tokio::time::Instant;
use tower::{Layer, Service};

use self::body::guard;
use self::deadline::TimeLimit;
use self::handling::{Handling, Stage, Work};
use self::identity::Identified;
use self::metrics::RequestMetrics;
use self::record::Record;
use self::route::{RouteState, RouteStates};
use crate::connection::Connection;
use crate::dialect::{Dialect, MessageLimit};
use crate::drain::Lifeline;
use crate::routes::OptionsTable;
use crate::routing::{Messages, RouteOptions};
use crate::ws::Origin;
use crate::{HttpSettings, Problem};

mod answer;
mod body;
mod deadline;
mod handling;
mod identity;
mod metrics;
mod record;
mod route;

pub(crate) use body::BodyTimeout;
#[cfg(feature = "fuzzing")]
pub(crate) use deadline::of_headers;

/// The layer. A clone is the same pipeline.
#[derive(Clone)]
pub(crate) struct Pipeline(Arc<Shared>);

struct Shared {
    limits: HttpSettings,
    lifeline: Lifeline,
    metrics: RequestMetrics,
    routes: RouteStates,
    dialect: Option<Arc<dyn Dialect>>,
}

impl Pipeline {
    pub(crate) fn new(
        limits: HttpSettings,
        lifeline: Lifeline,
        (options, dialect): (OptionsTable, Option<Arc<dyn Dialect>>),
        metrics: &Metrics,
    ) -> Self {
        let metrics = RequestMetrics::register(metrics);
        Self(Arc::new(Shared { limits, lifeline, metrics, routes: RouteStates::new(options), dialect }))
    }
}

impl<S> Layer<S> for Pipeline {
    type Service = PipelineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PipelineService { inner, shared: self.0.clone(), route: Arc::default() }
    }
}

/// One route under the pipeline. axum layers each method of each route on its own, so that what is known about the
/// route is found once and kept.
#[derive(Clone)]
pub(crate) struct PipelineService<S> {
    inner: S,
    shared: Arc<Shared>,
    route: Arc<OnceLock<Arc<RouteState>>>,
}

impl<S> PipelineService<S> {
    fn route(&self, request: &Request) -> Arc<RouteState> {
        let matched = request.extensions().get::<MatchedPath>();
        let template = matched.map_or("", MatchedPath::as_str);
        let known = self.route.get_or_init(|| self.shared.routes.get(template));
        // A service that is mounted at several paths sees them all.
        if known.template() == template { known.clone() } else { self.shared.routes.get(template) }
    }
}

impl<S> Service<Request> for PipelineService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Future<Output = Result<Response, Infallible>> + Send + Unpin + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Handling<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let shared = &self.shared;
        let route = self.route(&request);
        let method = route.method(request.method(), &shared.metrics);
        let options = method.options();
        let detaches = options.cancel.detaches(request.method());

        let connection = request.extensions_mut().remove::<Arc<Connection>>();
        let parent = connection.as_ref().map_or(shared.lifeline.root(), |connection| &connection.context);
        let identity = identity::identify(request.headers());
        let Identified { ctx: marked, id, span } = identity.begin(parent, shared.lifeline.tracer());
        let (ctx, canceler) = marked.with_cancel();

        let body_limit = options.body_limit.unwrap_or(shared.limits.max_body_bytes).as_usize();
        let spoken = shared.dialect.as_ref().filter(|dialect| dialect.is_spoken(request.headers()));
        let dialect = spoken.filter(|_| request.version() >= Version::HTTP_2).cloned();
        let checked = check_dialect(spoken.is_some(), dialect.is_some(), &options)
            .and_then(|()| check_head(&request, &shared.limits))
            .and_then(|()| check_announced_body(request.headers(), body_limit))
            .and_then(|()| TimeLimit::of(request.headers(), &options, shared.limits.request_timeout));
        let deadline = checked.as_ref().ok().and_then(|limit| limit.deadline(started));
        let ctx = deadline.map_or_else(|| ctx.clone(), |deadline| ctx.with_deadline(deadline));

        let record =
            Record::begin(shared.clone(), (route, method, dialect), connection, (&ctx, id, span), &request, started);
        let stage = match checked {
            Err(problem) => Stage::Refused(problem),
            Ok(_) if deadline.is_some_and(|deadline| deadline <= started) => {
                Stage::Refused(Error::new(Code::DeadlineExceeded, "the caller's deadline had passed on arrival").into())
            }
            Ok(_) => {
                let mut request = match (request.body().is_end_stream(), options.call) {
                    // Its messages are bounded one by one, and may be as far apart as its client likes.
                    (true, _) | (_, Some(Messages::Many)) => request,
                    (false, Some(Messages::One)) => {
                        let whole = body_limit.saturating_add(MESSAGE_HEAD);
                        request.map(|inner| guard(inner, whole, shared.limits.body_read_timeout))
                    }
                    (false, None) => request.map(|inner| guard(inner, body_limit, shared.limits.body_read_timeout)),
                };
                if options.call.is_some() {
                    request.extensions_mut().insert(MessageLimit(body_limit));
                }
                if body_limit > AXUM_BODY_LIMIT {
                    DefaultBodyLimit::disable().apply(&mut request);
                }
                if request.headers().contains_key(header::UPGRADE) {
                    request.extensions_mut().insert(Origin {
                        context: marked,
                        lifeline: shared.lifeline.clone(),
                        route: record.route().to_owned(),
                        request_id: record.request_id().to_str().unwrap_or_default().to_owned(),
                        largest_message: body_limit,
                    });
                }
                request.extensions_mut().insert(ctx);
                Stage::Handler(self.inner.call(request))
            }
        };
        Handling::new(Work { stage, canceler, deadline, detaches, record })
    }
}

/// What stands in front of a message of a call: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;

/// What axum's own extractors stop at. Our limit stands in front of theirs; where ours is larger, theirs must go.
const AXUM_BODY_LIMIT: usize = 2 * 1024 * 1024;

/// Who speaks a dialect reaches its calls and nothing else; who doesn't, everything else.
fn check_dialect(spoken: bool, can_be_answered: bool, options: &RouteOptions) -> Result<(), Problem> {
    match (spoken, options.call) {
        (true, _) if !can_be_answered => Err(Problem::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Error::unimplemented("the calls of this content type need HTTP/2: its answers end with trailers"),
        )),
        (true, None) => Err(Error::unimplemented("no service and method of this name are offered here").into()),
        (false, Some(_)) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::invalid_argument("this is a gRPC method: call it over HTTP/2 with content-type application/grpc"),
        )),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

fn check_head(request: &Request, limits: &HttpSettings) -> Result<(), Problem> {
    let headers = request.headers();
    if headers.len() > limits.max_header_count {
        let message = format!("the request has {} headers, more than {}", headers.len(), limits.max_header_count);
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Error::new(Code::ResourceExhausted, message),
        ));
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    // Four bytes stand between and behind a name and a value: ": " and the line's end.
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size + target > limits.max_header_bytes.as_usize() {
        let message = format!("the head of the request is larger than {} bytes", limits.max_header_bytes.as_u64());
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Error::new(Code::ResourceExhausted, message),
        ));
    }
    Ok(())
}

fn check_announced_body(headers: &HeaderMap, limit: usize) -> Result<(), Problem> {
    // hyper has refused a malformed or contradictory length by now.
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match announced {
        Some(length) if length > limit as u64 => Err(Problem::body_too_large(limit)),
        _ => Ok(()),
    }
}

/// The names of the headers the pipeline speaks.
pub(crate) mod headers {
    use http::HeaderName;

    pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
    pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
    pub(crate) const CONNECT_TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
}
