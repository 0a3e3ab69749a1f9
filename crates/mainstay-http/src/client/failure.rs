//! How calls fail: the transport's errors and the other side's answers as [`Error`]s.

use std::time::Duration;

use http::{Method, StatusCode, header};
use mainstay_core::{Code, Error};
use reqwest::Url;

use super::Reply;
use crate::Problem;
use crate::problem::Document;

/// How much of an answer that is no problem document goes to the log.
const EXCERPT: usize = 256;

/// The call for the log: without user, password and query, which may be secrets.
pub(super) fn target(method: &Method, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{method} {}://{host}{port}{}", url.scheme(), url.path())
}

pub(super) fn of_transport(error: reqwest::Error, target: &str) -> Error {
    let error = error.without_url();
    let (code, message) = if error.is_builder() {
        return Error::from_any(error).context(target.to_owned());
    } else if error.is_connect() {
        (Code::Unavailable, "another service can't be reached")
    } else if error.is_timeout() {
        (Code::DeadlineExceeded, "another service didn't answer in time")
    } else {
        (Code::Unavailable, "the connection to another service broke")
    };
    Error::new(code, message).with_source(error).context(target.to_owned())
}

/// An answer of 400 and above.
pub(super) async fn of_answer(reply: Reply) -> Error {
    let status = reply.status();
    let target = format!("{} answered {}", reply.target, status.as_u16());
    let header = |name| reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_problem = header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with(Problem::CONTENT_TYPE));
    let retry_after = header(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let body = reply.bytes().await;
    let document = body.as_ref().ok().filter(|_| is_problem).and_then(|body| serde_json::from_slice(body).ok());
    let error = match document {
        Some(document) => of_problem(document, status),
        None => {
            let body = body.unwrap_or_default();
            let excerpt = String::from_utf8_lossy(&body[..body.len().min(EXCERPT)]).into_owned();
            Error::new(code_of(status), format!("another service answered {status}")).context(excerpt)
        }
    };
    let error = error.context(target);
    match retry_after {
        Some(delay) => error.retry_after(delay),
        None => error,
    }
}

fn of_problem(document: Document, status: StatusCode) -> Error {
    let code = Code::from_name(&document.code).unwrap_or_else(|| code_of(status));
    let message = match document.detail.is_empty() {
        true => format!("another service answered {status}"),
        false => document.detail.clone(),
    };
    let theirs = document.request_id.clone().unwrap_or_default();
    let error = Error::new(code, message).context(format!("their request {theirs}"));
    document.into_details().fold(error, Error::with_detail)
}

/// The nearest code to a status that says nothing else about itself.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 | 412 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        400..=498 => Code::InvalidArgument,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        _ => Code::Unknown,
    }
}
