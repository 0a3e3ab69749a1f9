//! [`Answers`]: what comes back is gRPC, or is told as a status: a proxy's 503, another server's 404.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode, header};
use mainstay_core::{Code, Error};
use mainstay_http::dialect::Dialect;
use tonic::body::Body;
use tonic::transport::{Channel, Error as TransportError};

use crate::dialect::{CONTENT_TYPE, GrpcDialect, trailers};

/// The connections, whose answers are all gRPC's. A clone shares them.
#[derive(Clone)]
pub(super) struct Answers(pub(super) Channel);

impl tower::Service<Request<Body>> for Answers {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Body>, TransportError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move { Ok(told(answer.await?)) })
    }
}

fn told(response: Response<Body>) -> Response<Body> {
    if GrpcDialect.is_spoken(response.headers()) {
        return response;
    }
    let status = response.status();
    let error = Error::new(code_of(status), format!("another service answered {status} and no gRPC"));
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, CONTENT_TYPE)]);
    headers.extend(trailers(&error));
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers;
    response
}

/// As gRPC's own table has it.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_not_grpc_is_told_by_its_http_status() {
        for (status, code) in [(404, Code::Unimplemented), (503, Code::Unavailable), (200, Code::Unknown)] {
            let mut page = Response::new(Body::empty());
            *page.status_mut() = StatusCode::from_u16(status).unwrap();
            page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            let told = told(page);
            assert_eq!((told.status().as_u16(), GrpcDialect.outcome(told.headers())), (200, Some(Err(code))));
        }
    }
}
