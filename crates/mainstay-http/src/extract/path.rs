//! [`Path`]: the parameters of the route's template.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use mainstay_core::{Error, FieldViolation};
use serde::de::DeserializeOwned;

use super::encoding;

/// The parameters of the route: one value, a tuple in their order, or a struct by their names.
///
/// A parameter that doesn't fit its type is refused with 400 and its name; so is a path whose percent-encoding is broken
/// or is not UTF-8.
///
/// ```
/// use mainstay_core::Result;
/// use mainstay_http::{Path, Routes, routing::get};
///
/// async fn show(Path(id): Path<u64>) -> Result<String> {
///     Ok(format!("order {id}"))
/// }
/// let routes: Routes = Routes::new().route("/v1/orders/{id}", get(show));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => match encoding::mistake(parts.uri.path()) {
                None => Ok(Self(value)),
                Some(mistake) => Err(Error::invalid_argument("the path of the request is invalid")
                    .with_detail(FieldViolation::new("", mistake))),
            },
            Err(PathRejection::FailedToDeserializePathParams(failure)) => {
                let names = names(parts, state).await;
                Err(refuse(failure.into_kind(), &names))
            }
            // The route has no parameters: the service's mistake, not the caller's.
            Err(other) => Err(Error::internal(other.body_text())),
        }
    }
}

async fn names<S: Send + Sync>(parts: &mut Parts, state: &S) -> Vec<String> {
    match RawPathParams::from_request_parts(parts, state).await {
        Ok(params) => params.iter().map(|(name, _)| name.to_owned()).collect(),
        Err(_) => Vec::new(),
    }
}

fn refuse(kind: ErrorKind, names: &[String]) -> Error {
    let named = |index: usize| names.get(index).cloned().unwrap_or_default();
    let (name, expected) = match kind {
        ErrorKind::ParseError { expected_type, .. } => (named(0), format!("expected a value of type {expected_type}")),
        ErrorKind::ParseErrorAtIndex { index, expected_type, .. } => {
            (named(index), format!("expected a value of type {expected_type}"))
        }
        ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
            (key, format!("expected a value of type {expected_type}"))
        }
        ErrorKind::DeserializeError { key, message, .. } => (key, message),
        ErrorKind::InvalidUtf8InPathParam { key } => (key, "not UTF-8 after percent-decoding".to_owned()),
        ErrorKind::Message(message) => (named(0), message),
        // The template and the handler disagree: the service's mistake, not the caller's.
        other => return Error::internal(other.to_string()),
    };
    Error::invalid_argument(format!("the path parameter `{name}` is invalid"))
        .with_detail(FieldViolation::new(name, expected))
}
