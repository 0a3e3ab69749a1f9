//! Errors as gRPC tells them, and back: `grpc-status`, `grpc-message`, and `google.rpc.Status` with its details.
//!
//! Code and message travel as they are. [`FieldViolation`]s become `google.rpc.BadRequest`, [`ErrorInfo`] and the retry
//! delay the messages of those names; a detail of any other type stays what it is, as [`Detail::Any`]. The private chain
//! of an [`Error`] never travels.

use std::time::Duration;

use mainstay_core::{AnyDetail, Code, Detail, Error, ErrorInfo, FieldViolation};
use prost::Message;
use prost_types::Any;

use crate::rpc::{self, BadRequest, Packed, RetryInfo};

/// How much of details a client is sent. Most refuse trailers of more than 8 KiB, and these are a third longer on the
/// wire; a client that can't read why it failed is worse off than one that reads half of it.
const LARGEST_DETAILS: usize = 4 * 1024;

/// `error` as `google.rpc.Status`, encoded. Details that would make it larger than clients read are left out, the last
/// ones first.
pub fn encode(error: &Error) -> Vec<u8> {
    let (code, message) = (error.code() as i32, error.message().to_owned());
    let mut status = rpc::Status { code, message, details: details(error) };
    while status.encoded_len() > LARGEST_DETAILS && status.details.pop().is_some() {}
    status.encode_to_vec()
}

/// The error in an encoded `google.rpc.Status`; `None` if it is none, or says that all went well.
#[track_caller]
pub fn decode(bytes: &[u8]) -> Option<Error> {
    let status = rpc::Status::decode(bytes).ok()?;
    let code = Code::ALL.into_iter().find(|code| *code as i32 == status.code)?;
    Some(status.details.into_iter().fold(Error::new(code, status.message), with))
}

/// The details in their order: neighbouring violations go together.
fn details(error: &Error) -> Vec<Any> {
    let mut details = Vec::new();
    let mut bad = BadRequest::default();
    let flush = |bad: &mut BadRequest, details: &mut Vec<Any>| {
        let bad = std::mem::take(bad);
        if !bad.field_violations.is_empty() {
            details.push(bad.pack());
        }
    };
    for detail in error.details() {
        match detail {
            Detail::Field(FieldViolation { path, message }) => {
                bad.field_violations.push(rpc::Violation { field: path.clone(), description: message.clone() })
            }
            other => {
                flush(&mut bad, &mut details);
                details.extend(packed(other));
            }
        }
    }
    flush(&mut bad, &mut details);
    if let Some(delay) = error.retry_delay() {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        details.insert(0, RetryInfo { retry_delay }.pack());
    }
    details
}

fn packed(detail: &Detail) -> Option<Any> {
    match detail {
        Detail::Info(ErrorInfo { reason, domain, metadata }) => {
            let (reason, domain, metadata) = (reason.clone(), domain.clone(), metadata.clone());
            Some(rpc::ErrorInfo { reason, domain, metadata }.pack())
        }
        Detail::Any(AnyDetail { type_url, value }) => Some(Any { type_url: type_url.clone(), value: value.clone() }),
        _ => None,
    }
}

fn with(error: Error, any: Any) -> Error {
    if let Some(BadRequest { field_violations }) =
        BadRequest::unpack(&any).filter(|bad| !bad.field_violations.is_empty())
    {
        let fields = field_violations.into_iter().map(|field| FieldViolation::new(field.field, field.description));
        return fields.fold(error, Error::with_detail);
    }
    if let Some(rpc::ErrorInfo { reason, domain, metadata }) = rpc::ErrorInfo::unpack(&any) {
        return error.with_detail(ErrorInfo { reason, domain, metadata });
    }
    if error.retry_delay().is_none()
        && let Some(delay) = RetryInfo::unpack(&any).and_then(|retry| Duration::try_from(retry.retry_delay?).ok())
    {
        return error.retry_after(delay);
    }
    error.with_detail(Detail::Any(AnyDetail { type_url: any.type_url, value: any.value }))
}

/// As tonic writes it into headers and trailers.
pub(crate) fn of_error(error: &Error) -> tonic::Status {
    let code = tonic::Code::from_i32(error.code() as i32);
    let told = !error.details().is_empty() || error.retry_delay().is_some();
    let details = if told { encode(error) } else { Vec::new() };
    tonic::Status::with_details(code, error.message(), details.into())
}

/// What reading a request failed with. The caller's mistakes are said to be the caller's.
pub(crate) fn of_request(status: &tonic::Status) -> Error {
    let message = status.message().to_owned();
    match status.code() {
        tonic::Code::Internal => Error::invalid_argument(format!("the message can't be read: {message}")),
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Error::resource_exhausted(format!("the message is too large: {message}"))
        }
        tonic::Code::Cancelled => mainstay_core::Cause::ClientGone.into_error(),
        _ if message.contains("length limit exceeded") => Error::resource_exhausted("the message is too large"),
        _ if message.contains("no byte of the body came for") => Error::new(Code::DeadlineExceeded, message),
        _ => mainstay_core::Cause::ClientGone.into_error().context(message),
    }
}

/// What another service answered, or what kept it from answering.
pub(crate) fn of_answer(status: &tonic::Status) -> Error {
    if let Some(error) = decode(status.details()).filter(|error| error.code() as i32 == status.code() as i32) {
        return error;
    }
    let code = Code::ALL.into_iter().find(|code| *code as i32 == status.code() as i32).unwrap_or(Code::Unknown);
    if std::error::Error::source(status).is_some() {
        // No status came: the transport tells of itself, which is for the log.
        if std::error::Error::source(status).is_some_and(timed_out) {
            return mainstay_core::Cause::DeadlineExceeded.into_error();
        }
        return Error::new(Code::Unavailable, "the connection to another service broke").with_source(status.clone());
    }
    match code {
        Code::OutOfRange if status.message().contains("message length too large") => {
            Error::resource_exhausted("an answer of another service is too large").context(status.message().to_owned())
        }
        _ => Error::new(code, status.message().to_owned()),
    }
}

/// Whether the channel gave the call up at its own deadline, a moment before its context would have.
fn timed_out(source: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(source);
    while let Some(error) = next {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rich() -> Error {
        let metadata = BTreeMap::from([("sku".to_owned(), "tea".to_owned())]);
        Error::new(Code::FailedPrecondition, "naïve \u{1f375}")
            .with_detail(FieldViolation::new("lines[0].sku", "no such product"))
            .with_detail(FieldViolation::new("customer", ""))
            .with_detail(ErrorInfo { reason: "STOCK".to_owned(), domain: "shop".to_owned(), metadata })
            .with_detail(FieldViolation::new("late", "one"))
            .with_detail(Detail::Any(AnyDetail { type_url: "type.x/any.Thing".to_owned(), value: vec![1, 2, 3] }))
            .retry_after(Duration::from_millis(1500))
    }

    fn told(error: &Error) -> (Code, &str, &[Detail], Option<Duration>) {
        (error.code(), error.message(), error.details(), error.retry_delay())
    }

    #[test]
    fn an_error_survives_the_way_there_and_back() {
        for code in Code::ALL {
            let error = Error::new(code, "said");
            assert_eq!(told(&decode(&encode(&error)).unwrap()), told(&error));
        }
        assert_eq!(told(&decode(&encode(&rich())).unwrap()), told(&rich()));
    }

    #[test]
    fn a_status_survives_the_way_there_and_back_with_what_we_dont_know() {
        let localized =
            Any { type_url: "type.googleapis.com/google.rpc.LocalizedMessage".to_owned(), value: vec![10, 0] };
        // A violation with a field of a later version: 3, "why".
        let newer = Any { type_url: BadRequest::URL.to_owned(), value: vec![10, 5, 26, 3, 119, 104, 121] };
        let status = rpc::Status { code: 3, message: "m".to_owned(), details: vec![localized, newer] };
        let bytes = status.encode_to_vec();
        assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
    }

    #[test]
    fn no_error_is_made_of_success_or_noise() {
        assert!(decode(&[]).is_none());
        assert!(decode(&[8, 99]).is_none());
        assert!(decode(b"\xff\xff\xff").is_none());
    }

    #[test]
    fn the_chain_stays_here_and_too_many_details_dont_hide_the_message() {
        let error = Error::internal("password=hunter2");
        assert!(!encode(&error).windows(7).any(|window| window == b"hunter2"));
        let info = |index: usize| ErrorInfo {
            reason: format!("R{index}"),
            domain: "d".repeat(900),
            metadata: BTreeMap::new(),
        };
        let many = (0..20).fold(Error::aborted("said"), |error, index| error.with_detail(info(index)));
        let bytes = encode(&many);
        assert!(bytes.len() <= LARGEST_DETAILS);
        let read = decode(&bytes).unwrap();
        assert_eq!((read.message(), read.details().len()), ("said", 4));
    }
}
