//! gRPC as the pipeline hears and speaks it.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use mainstay_core::{Code, Error};
use mainstay_http::axum::body::Body;
use mainstay_http::axum::response::Response;
use mainstay_http::dialect::Dialect;

use crate::status;

pub(crate) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

pub(crate) struct GrpcDialect;

impl Dialect for GrpcDialect {
    fn name(&self) -> &'static str {
        "grpc"
    }

    /// `application/grpc`, also with a message format behind a `+`. gRPC-Web is another protocol.
    fn is_spoken(&self, headers: &HeaderMap) -> bool {
        let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        let rest = kind.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    }

    fn refusal(&self, error: &Error) -> Response {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response.headers_mut().extend(trailers(error));
        response
    }

    fn outcome(&self, fields: &HeaderMap) -> Option<Result<(), Code>> {
        let number = fields.get(GRPC_STATUS)?.to_str().ok()?.parse::<u8>().ok()?;
        if number == 0 {
            return Some(Ok(()));
        }
        Some(Err(Code::ALL.into_iter().find(|code| *code as u8 == number).unwrap_or(Code::Unknown)))
    }
}

/// What tells of `error` at the end of an answer.
pub(crate) fn trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    // It fails for bytes that no header can have; percent-encoding has left none.
    if status::of_error(error).add_header(&mut trailers).is_err() {
        trailers.insert(GRPC_STATUS, HeaderValue::from(error.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_what_only_begins_like_it() {
        for (kind, spoken) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(GrpcDialect.is_spoken(&headers), spoken, "{kind}");
        }
        assert!(!GrpcDialect.is_spoken(&HeaderMap::new()));
    }

    #[test]
    fn what_is_told_is_understood() {
        for code in Code::ALL {
            let response = GrpcDialect.refusal(&Error::new(code, "naïve\n"));
            assert_eq!((response.status().as_u16(), GrpcDialect.outcome(response.headers())), (200, Some(Err(code))));
        }
    }
}
