//! [`Problem`]: an [`Error`] as an RFC 9457 problem document.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use mainstay_core::{Code, Detail, Error, ErrorInfo, FieldViolation};
use serde::{Deserialize, Serialize};

/// An error together with the HTTP status it is answered with.
///
/// Handlers rarely need it: they return `mainstay_core::Result` and every [`Error`] is answered with the status of its
/// code. This is for the statuses that no code has, such as 413 or 415.
///
/// ```
/// use axum::http::StatusCode;
/// use mainstay_core::{Code, Error};
/// use mainstay_http::Problem;
///
/// let problem = Problem::new(StatusCode::GONE, Error::new(Code::NotFound, "the order was purged"));
/// assert_eq!(problem.status(), 410);
/// assert_eq!(Problem::from(Error::not_found("order")).status(), 404);
/// ```
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: Error,
}

impl Problem {
    /// The media type of a problem document.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// `error`, answered with `status`.
    pub fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The error behind it.
    pub fn error(&self) -> &Error {
        &self.error
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body of the request is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Error::new(Code::ResourceExhausted, message))
    }

    /// The document for `error`: what the caller may read, never the private chain.
    pub(crate) fn render(status: StatusCode, error: &Error, request_id: Option<&str>) -> Vec<u8> {
        let document = Document::new(status, error, request_id);
        // Only strings and maps of strings: they always serialise.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.error.into_response();
        *response.status_mut() = self.status;
        response
    }
}

/// The document as it goes over the wire, both ways.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Document {
    r#type: String,
    title: String,
    status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
    pub(crate) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<Violation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<Info>,
}

/// A field of the request that was refused.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Violation {
    path: String,
    message: String,
}

/// The reason as a constant a program can act on.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Info {
    reason: String,
    domain: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl Document {
    fn new(status: StatusCode, error: &Error, request_id: Option<&str>) -> Self {
        let title = match status.as_u16() {
            499 => "Client Closed Request",
            _ => status.canonical_reason().unwrap_or("Error"),
        };
        let violation = |field: &FieldViolation| Violation { path: field.path.clone(), message: field.message.clone() };
        let info = error.details().iter().find_map(|detail| match detail {
            Detail::Info(ErrorInfo { reason, domain, metadata }) => {
                Some(Info { reason: reason.clone(), domain: domain.clone(), metadata: metadata.clone() })
            }
            _ => None,
        });
        Self {
            r#type: "about:blank".to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: error.message().to_owned(),
            code: error.code().name().to_owned(),
            request_id: request_id.map(str::to_owned),
            errors: error.field_violations().map(violation).collect(),
            info,
        }
    }

    /// The details as an [`Error`] carries them.
    pub(crate) fn into_details(self) -> impl Iterator<Item = Detail> {
        let violations = self.errors.into_iter().map(|field| FieldViolation::new(field.path, field.message).into());
        let info = self
            .info
            .map(|info| Detail::Info(ErrorInfo { reason: info.reason, domain: info.domain, metadata: info.metadata }));
        violations.chain(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_what_a_caller_may_know_and_nothing_else() {
        let error = Error::invalid_argument("2 fields are invalid")
            .with_detail(FieldViolation::new("lines[0].quantity", "must be positive"))
            .with_detail(ErrorInfo { reason: "BAD_LINE".into(), domain: "shop".into(), metadata: BTreeMap::new() })
            .with_source(std::io::Error::other("secret"))
            .context("private");
        let text = String::from_utf8(Problem::render(StatusCode::BAD_REQUEST, &error, Some("r-1"))).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "2 fields are invalid",
                "code": "INVALID_ARGUMENT", "request_id": "r-1",
                "errors": [{ "path": "lines[0].quantity", "message": "must be positive" }],
                "info": { "reason": "BAD_LINE", "domain": "shop" },
            })
        );
        assert!(!text.contains("secret") && !text.contains("private"));
    }
}
