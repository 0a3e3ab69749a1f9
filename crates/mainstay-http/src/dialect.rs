//! [`Dialect`]: a protocol over HTTP whose callers read errors in a form of its own, as gRPC's do.

use axum::response::Response;
use http::HeaderMap;
use mainstay_core::{Code, Error};

/// A protocol whose requests share the port, the pipeline and its limits with all others, and are told of errors in its
/// own words. [`Routes::dialect`](crate::Routes::dialect) adds it.
///
/// A request that speaks it reaches only routes of a dialect ([`call`](crate::routing::call)), over HTTP/2 only; every
/// other answer that the pipeline would make as a problem document is made by [`refusal`](Dialect::refusal).
pub trait Dialect: Send + Sync + 'static {
    /// Its name in metrics and spans, as `grpc`.
    fn name(&self) -> &'static str;

    /// Whether a request with these headers speaks it.
    fn is_spoken(&self, headers: &HeaderMap) -> bool;

    /// The answer that tells of `error`.
    fn refusal(&self, error: &Error) -> Response;

    /// How a call ended, if these headers or trailers of its answer say so.
    fn outcome(&self, fields: &HeaderMap) -> Option<Result<(), Code>>;
}

/// The largest message that a call may send, in the extensions of its request.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimit(pub usize);
