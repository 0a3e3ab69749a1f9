//! What lets plain axum handlers take a [`Context`] and fail with an [`Error`]: two trait impls that only the crate of
//! the types may write. The rest of HTTP lives in `mainstay-http`.

use std::ops::Deref;
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::{Context, Error};

/// The [`Error`] a response stands for, as a response extension.
///
/// The response leaves the handler with the status of the code and no body. The request pipeline takes this extension,
/// writes the problem document with the request's id, and logs the private chain.
#[derive(Clone, Debug)]
pub struct ErrorResponse(Arc<Error>);

impl Deref for ErrorResponse {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

/// `ctx: Context` in a handler is the context of the request. It fails only outside the request pipeline.
impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        parts.extensions.get::<Context>().cloned().ok_or_else(|| {
            Error::internal("the request has no Context: serve the router with mainstay_http::Server, not on its own")
        })
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(ErrorResponse(Arc::new(self)));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn every_code_answers_with_its_status_and_keeps_the_error() {
        for code in Code::ALL {
            let response = Error::new(code, "said").into_response();
            assert_eq!(response.status().as_u16(), code.http_status());
            let error = response.extensions().get::<ErrorResponse>().unwrap();
            assert_eq!((error.code(), error.message()), (code, "said"));
        }
    }

    #[tokio::test]
    async fn without_the_pipeline_the_missing_context_is_named_in_the_log_only() {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let error = Context::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!(error.message(), "internal error");
        assert!(error.report().to_string().contains("mainstay_http::Server"));
    }
}
