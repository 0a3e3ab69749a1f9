//! [`Query`]: the query string, validated.

use std::error::Error as StdError;

use axum::extract::FromRequestParts;
use garde::Validate;
use http::request::Parts;
use mainstay_core::{Error, FieldViolation};
use serde::de::{DeserializeOwned, value};

use super::{encoding, invalid};

/// The query string as a struct, validated by [`garde`]. An absent optional parameter is an `Option` or has
/// `#[serde(default)]`.
///
/// A parameter that is missing, doesn't fit its type or breaks a rule is refused with 400 and its name; so is a query
/// whose percent-encoding is broken or is not UTF-8.
///
/// ```
/// use garde::Validate;
/// use mainstay_http::Query;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, Validate)]
/// struct Page {
///     #[garde(inner(range(min = 1, max = 100)))]
///     limit: Option<u32>,
///     #[garde(skip)]
///     cursor: Option<String>,
/// }
/// async fn list(Query(page): Query<Page>) -> String {
///     format!("{} per page", page.limit.unwrap_or(20))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned + Validate,
    T::Context: Default,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        if let Some(mistake) = parts.uri.query().and_then(encoding::mistake) {
            return Err(Error::invalid_argument(INVALID).with_detail(FieldViolation::new("", mistake)));
        }
        let axum::extract::Query(value) =
            axum::extract::Query::<T>::try_from_uri(&parts.uri).map_err(|rejection| refuse(&rejection))?;
        value.validate().map_err(|report| invalid(&report))?;
        Ok(Self(value))
    }
}

const INVALID: &str = "the query of the request is invalid";

/// Finds the parameter in the error that axum wraps.
fn refuse(rejection: &(dyn StdError + 'static)) -> Error {
    let mut next = Some(rejection);
    while let Some(error) = next {
        if let Some(located) = error.downcast_ref::<serde_path_to_error::Error<value::Error>>() {
            let path = located.path().to_string();
            let path = if path == "." { String::new() } else { path };
            return Error::invalid_argument(INVALID)
                .with_detail(FieldViolation::new(path, located.inner().to_string()));
        }
        next = error.source();
    }
    Error::invalid_argument(INVALID).with_detail(FieldViolation::new("", rejection.to_string()))
}
