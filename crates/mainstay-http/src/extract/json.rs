//! [`Json`]: a JSON body, validated on its way in.

use std::error::Error as StdError;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use garde::Validate;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError};
use mainstay_core::{Code, Error, FieldViolation};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::invalid;
use crate::Problem;
use crate::pipeline::BodyTimeout;

/// A JSON body: as an argument deserialised and validated, as a result serialised.
///
/// As an argument it reads the whole body within the body limit, so that hyper can see a client leave while the handler
/// runs. It is refused with a problem document:
///
/// | status | when |
/// |---|---|
/// | 400 | malformed JSON, with line and column; a field of the wrong type, with its path; every violated rule of [`garde`], by path |
/// | 408 | the body paused for longer than `body_read_timeout` |
/// | 413 | the body is larger than the route's limit |
/// | 415 | the content type is missing or not JSON |
///
/// A type without rules derives [`Validate`] with `#[garde(allow_unvalidated)]`, or is taken by plain `axum::Json`.
///
/// ```
/// use garde::Validate;
/// use mainstay_core::Result;
/// use mainstay_http::Json;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize, Validate)]
/// struct Greeting {
///     #[garde(length(min = 1, max = 50))]
///     name: String,
/// }
///
/// async fn greet(Json(greeting): Json<Greeting>) -> Result<Json<Greeting>> {
///     Ok(Json(greeting)) // `name` has 1 to 50 characters here
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned + Validate,
    T::Context: Default,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = request.into_body().collect().await.map_err(|error| broken_body(&error))?;
        let value: T = parse(&body.to_bytes())?;
        value.validate().map_err(|report| invalid(&report))?;
        Ok(Self(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut bytes = Vec::with_capacity(256);
        match serde_json::to_writer(&mut bytes, &self.0) {
            Ok(()) => {
                let kind = const { HeaderValue::from_static("application/json") };
                ([(header::CONTENT_TYPE, kind)], bytes).into_response()
            }
            Err(error) => Error::from(error).context("serialising the response").into_response(),
        }
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let found = if essence.is_empty() { "no content-type".to_owned() } else { format!("content-type {essence}") };
    let error = Error::invalid_argument(format!("the request has {found}: send content-type: application/json"));
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
}

/// Why a body could not be read to its end.
fn broken_body(error: &axum::Error) -> Problem {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            let error = Error::new(Code::ResourceExhausted, "the body of the request is too large");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error);
        }
        if let Some(timeout) = error.downcast_ref::<BodyTimeout>() {
            let error = Error::new(Code::DeadlineExceeded, timeout.to_string());
            return Problem::new(StatusCode::REQUEST_TIMEOUT, error);
        }
        next = error.source();
    }
    Error::invalid_argument("the body of the request broke off").context(error.to_string()).into()
}

fn parse<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        refuse(path, error.inner())
    })?;
    deserializer.end().map_err(|error| refuse(String::new(), &error))?;
    Ok(value)
}

/// The parser's text names what it expected, the line and the column, and quotes only what the caller sent.
fn refuse(path: String, error: &serde_json::Error) -> Problem {
    let message = match error.is_data() {
        true => "the body of the request has a field of the wrong form",
        false => "the body of the request is malformed JSON",
    };
    Error::invalid_argument(message).with_detail(FieldViolation::new(path, error.to_string())).into()
}
