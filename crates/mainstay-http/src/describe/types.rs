//! What the extractors and responses of this crate and of axum say about themselves.

use axum::extract::{ConnectInfo, Extension, MatchedPath, OriginalUri, RawQuery, State};
use axum::response::{Html, Redirect, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use mainstay_core::{Context, Error};
use utoipa::ToSchema;

use super::{Describe, Operation};
use crate::sse::Sse;
use crate::{Accepted, Created, Json, NoContent, Path, Problem, Query, Upserted};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

impl<T: ToSchema> Describe for Json<T> {
    fn request(operation: &mut Operation) {
        operation.takes::<T>(JSON);
    }
    fn response(operation: &mut Operation) {
        operation.answers::<T>(200, JSON);
    }
}

impl<T: ToSchema> Describe for axum::Json<T> {
    fn request(operation: &mut Operation) {
        operation.takes::<T>(JSON);
    }
    fn response(operation: &mut Operation) {
        operation.answers::<T>(200, JSON);
    }
}

impl<T> Describe for Path<T> {
    fn request(operation: &mut Operation) {
        operation.path_types.push(std::any::type_name::<T>());
    }
}

impl<T> Describe for axum::extract::Path<T> {
    fn request(operation: &mut Operation) {
        operation.path_types.push(std::any::type_name::<T>());
    }
}

impl<T: ToSchema> Describe for Query<T> {
    fn request(operation: &mut Operation) {
        operation.takes_query::<T>();
    }
}

impl<T: ToSchema> Describe for axum::extract::Query<T> {
    fn request(operation: &mut Operation) {
        operation.takes_query::<T>();
    }
}

impl<T: ToSchema> Describe for axum::Form<T> {
    fn request(operation: &mut Operation) {
        operation.takes::<T>("application/x-www-form-urlencoded");
    }
}

impl<T: Describe> Describe for Option<T> {
    fn request(operation: &mut Operation) {
        T::request(operation);
        if let Some(body) = &mut operation.body {
            body["required"] = false.into();
        }
    }
}

impl<T: Describe, E> Describe for Result<T, E> {
    fn request(operation: &mut Operation) {
        T::request(operation);
    }
    fn response(operation: &mut Operation) {
        T::response(operation); // problem documents are part of every operation
    }
}

impl<T: Describe> Describe for Created<T> {
    fn response(operation: &mut Operation) {
        T::response(operation);
        operation.answers_with_status(201);
    }
}

impl<T: Describe> Describe for Upserted<T> {
    fn response(operation: &mut Operation) {
        T::response(operation);
        operation.answers_with_status(201);
        T::response(operation);
    }
}

impl<T: Describe> Describe for Accepted<T> {
    fn response(operation: &mut Operation) {
        T::response(operation);
        operation.answers_with_status(202);
    }
}

impl Describe for NoContent {
    fn response(operation: &mut Operation) {
        operation.answers_empty(204);
    }
}

impl Describe for () {
    fn response(operation: &mut Operation) {
        operation.answers_empty(200);
    }
}

impl Describe for Sse {
    fn response(operation: &mut Operation) {
        operation.answers_any(200, "text/event-stream");
        operation.answers_empty(204);
    }
}

impl<T> Describe for Html<T> {
    fn response(operation: &mut Operation) {
        operation.answers_any(200, "text/html");
    }
}

/// The status is known when the handler runs, and not before.
impl<T: Describe> Describe for (StatusCode, T) {
    fn response(operation: &mut Operation) {
        T::response(operation);
    }
}

macro_rules! bodies {
    ($kind:ident: $($body:ty),*) => {$(
        impl Describe for $body {
            fn request(operation: &mut Operation) {
                operation.takes_any($kind);
            }
            fn response(operation: &mut Operation) {
                operation.answers_any(200, $kind);
            }
        }
    )*};
}

bodies!(TEXT: String, &'static str, std::borrow::Cow<'static, str>);
bodies!(BYTES: Bytes, Vec<u8>, axum::body::Body);

macro_rules! nothing {
    ($($silent:ty),* $(,)?) => {$(impl Describe for $silent {})*};
}

nothing!(
    Context,
    Error,
    HeaderMap,
    MatchedPath,
    Method,
    OriginalUri,
    Problem,
    RawQuery,
    Redirect,
    Response,
    StatusCode,
    Uri,
    axum::extract::Request,
    std::convert::Infallible,
);

impl<T> Describe for State<T> {}
impl<T> Describe for Extension<T> {}
impl<T> Describe for ConnectInfo<T> {}
