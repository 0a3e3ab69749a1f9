//! The last look at a response: errors become problem documents, and so do the bare answers of the router and of
//! axum's own extractors.
//!
//! A response is rewritten only if nobody can have meant it as it is:
//! 1. It carries an [`Error`] (a handler or one of our extractors failed) and no body.
//! 2. It is a 404 without a route, or a 405, with neither a body nor a content type: the router's own.
//! 3. It is `text/plain` and begins with a sentence of axum's own extractors, under that rejection's status.
//!
//! Everything else is the service's own answer and goes out untouched, whatever its status.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use mainstay_core::axum::ErrorResponse;
use mainstay_core::{Code, Error};

use super::headers::REQUEST_ID;
use super::record::Record;
use crate::Problem;
use crate::dialect::Dialect;

/// The sentences that axum's rejections begin with, and their status.
const AXUM_REJECTIONS: [(u16, &str); 17] = [
    (400, "Failed to parse the request body as JSON"),
    (400, "Failed to deserialize query string"),
    (400, "Failed to deserialize form"),
    (400, "Failed to buffer the request body"),
    (400, "Request body didn't contain valid UTF-8"),
    (400, "Invalid URL: "),
    (400, "Invalid UTF-8 in"),
    (413, "Failed to buffer the request body"),
    (415, "Expected request with `Content-Type: application/json`"),
    (415, "Form requests must have `Content-Type: application/x-www-form-urlencoded`"),
    (422, "Failed to deserialize the JSON body into the target type"),
    (422, "Failed to deserialize form body"),
    (500, "Missing request extension"),
    (500, "No paths parameters found for matched route"),
    (500, "No matched path found"),
    (500, "The matched route is not nested"),
    (500, "Wrong number of path arguments for `Path`"),
];

/// Longer than any rejection that is worth reading.
const LONGEST_REJECTION: u64 = 4096;

/// Writes the problem document where one is due, logs the error behind it and echoes the request's id.
pub(super) fn complete(mut response: Response, record: &Record) -> Response {
    let status = response.status();
    if let Some(dialect) = record.dialect() {
        if status.is_client_error() || status.is_server_error() {
            response = retold(response, dialect, record);
        }
        response.headers_mut().insert(REQUEST_ID, record.request_id().clone());
        return response;
    }
    if status.is_client_error() || status.is_server_error() {
        if let Some(error) = response.extensions_mut().remove::<ErrorResponse>() {
            record.log_error(&error, status);
            if response.body().is_end_stream() {
                render(&mut response, &error, record.request_id());
            }
        } else if let Some(error) = bare(&response, record).or_else(|| rejected(&mut response)) {
            record.log_error(&error, status);
            render(&mut response, &error, record.request_id());
        }
    }
    response.headers_mut().insert(REQUEST_ID, record.request_id().clone());
    if record.closes_connection() && status != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, const { HeaderValue::from_static("close") });
    }
    response
}

/// An answer in HTTP's words, told in the caller's.
fn retold(mut response: Response, dialect: &dyn Dialect, record: &Record) -> Response {
    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<ErrorResponse>() {
        record.log_error(&error, status);
        return dialect.refusal(&error);
    }
    let error = Error::unknown(format!("a layer answered a call with {status}"));
    record.log_error(&error, status);
    dialect.refusal(&error)
}

fn render(response: &mut Response, error: &Error, request_id: &HeaderValue) {
    let id = request_id.to_str().ok();
    *response.body_mut() = Body::from(Problem::render(response.status(), error, id));
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, const { HeaderValue::from_static(Problem::CONTENT_TYPE) });
    if let Some(delay) = error.retry_delay() {
        // Whole seconds, rounded up: a caller that comes too early is refused again.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
}

/// Rule 2: the router's own answers.
fn bare(response: &Response, record: &Record) -> Option<Error> {
    if !response.body().is_end_stream() || response.headers().contains_key(header::CONTENT_TYPE) {
        return None;
    }
    match response.status() {
        StatusCode::NOT_FOUND if !record.has_route() => {
            Some(Error::new(Code::NotFound, "no route leads here: check the path of the request"))
        }
        StatusCode::METHOD_NOT_ALLOWED => Some(Error::new(
            Code::Unimplemented,
            "this route doesn't offer the method of the request: the Allow header lists those it does",
        )),
        _ => None,
    }
}

/// Rule 3: the rejections of axum's own extractors. Takes the body if it is one.
fn rejected(response: &mut Response) -> Option<Error> {
    let status = response.status().as_u16();
    let plain = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/plain; charset=utf-8");
    let short = response.body().size_hint().exact().is_some_and(|length| length <= LONGEST_REJECTION);
    if !plain || !short || !AXUM_REJECTIONS.iter().any(|(known, _)| *known == status) {
        return None;
    }
    // A text that is in memory is ready at once; anything that has to wait is no rejection, and is lost for it. That
    // can't happen to a body with a known length of text: axum makes them of one piece.
    let bytes = std::mem::take(response.body_mut()).collect().now_or_never()?.ok()?.to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let known = AXUM_REJECTIONS.iter().any(|(known, sentence)| *known == status && text.starts_with(sentence));
    if !known {
        *response.body_mut() = Body::from(bytes);
        return None;
    }
    Some(rejection(response, status, text))
}

fn rejection(response: &mut Response, status: u16, text: Cow<'_, str>) -> Error {
    let error = match status {
        413 => Error::new(Code::ResourceExhausted, "the body of the request is too large"),
        500.. => Error::internal(text.into_owned()),
        _ if text.contains("no byte of the body came for") => {
            *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
            Error::new(Code::DeadlineExceeded, text.into_owned())
        }
        _ => Error::invalid_argument(text.into_owned()),
    };
    response.headers_mut().remove(header::CONTENT_TYPE);
    error
}
