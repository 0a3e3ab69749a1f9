//! Extractors whose rejections are problem documents: [`Json`], [`Path`], [`Query`].

mod encoding;
mod json;
mod path;
mod query;

pub use json::Json;
pub use path::Path;
pub use query::Query;

use mainstay_core::{Error, FieldViolation};

/// `value`, if it keeps the rules of its type: what [`Json`](crate::Json) does to a body, for what came another way.
///
/// # Errors
/// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) with a violation per field.
pub fn validated<T: garde::Validate<Context = ()>>(value: T) -> mainstay_core::Result<T> {
    value.validate().map_err(|report| invalid(&report))?;
    Ok(value)
}

/// What garde found, as an error with a violation per field.
pub(crate) fn invalid(report: &garde::Report) -> Error {
    let violations = report.iter().map(|(path, error)| FieldViolation::new(path.to_string(), error.message()));
    let message = match report.iter().count() {
        1 => "the request has an invalid field".to_owned(),
        count => format!("the request has {count} invalid fields"),
    };
    violations.fold(Error::invalid_argument(message), Error::with_detail)
}
