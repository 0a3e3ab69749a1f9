//! Responses that are more than a body: [`Created`], [`Upserted`], [`Accepted`], [`NoContent`].

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use mainstay_core::Error;

/// 201 with a body, and with a `Location` if there is one.
///
/// ```
/// use mainstay_http::{Created, Json};
///
/// let id = 7;
/// let answer = Created::at(format!("/v1/orders/{id}"), Json(id));
/// ```
#[derive(Clone, Debug)]
pub struct Created<T> {
    location: Option<String>,
    body: T,
}

impl<T> Created<T> {
    /// What was made is found at `location`, a path or an absolute URL of visible ASCII characters.
    pub fn at(location: impl Into<String>, body: T) -> Self {
        Self { location: Some(location.into()), body }
    }

    /// What was made has no address of its own.
    pub fn new(body: T) -> Self {
        Self { location: None, body }
    }
}

impl<T: IntoResponse> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::CREATED, self.body).into_response();
        if let Some(location) = self.location {
            match HeaderValue::try_from(location) {
                Ok(location) => response.headers_mut().insert(header::LOCATION, location),
                Err(error) => return Error::from_any(error).context("the Location of a response").into_response(),
            };
        }
        response
    }
}

/// What a PUT did: 201 with a `Location` for something new, 200 for what took the place of another.
#[derive(Clone, Debug)]
pub enum Upserted<T> {
    /// It is new, and found at the location.
    Created(String, T),
    /// It took the place of another.
    Replaced(T),
}

impl<T: IntoResponse> IntoResponse for Upserted<T> {
    fn into_response(self) -> Response {
        match self {
            Upserted::Created(location, body) => Created::at(location, body).into_response(),
            Upserted::Replaced(body) => body.into_response(),
        }
    }
}

/// 202 with a body: the work has been taken and is not done yet.
#[derive(Clone, Debug)]
pub struct Accepted<T>(pub T);

impl<T: IntoResponse> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, self.0).into_response()
    }
}

/// 204: done, and there is nothing to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_tells_where() {
        let response = Created::at("/v1/orders/7", "made").into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[header::LOCATION], "/v1/orders/7");
        assert!(!Created::new(()).into_response().headers().contains_key(header::LOCATION));
    }

    #[test]
    fn a_location_that_is_no_header_is_the_services_own_fault() {
        assert_eq!(Created::at("/a\nSet-Cookie: x", ()).into_response().status(), 500);
    }
}
