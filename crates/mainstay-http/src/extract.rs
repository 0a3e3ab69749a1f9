//! Extractors whose rejections are problem documents: [`Json`], [`Path`], [`Query`].

mod encoding;
mod json;
mod path;
mod query;

pub use json::Json;
pub use path::Path;
pub use query::Query;

use mainstay_core::{Error, FieldViolation};

/// What garde found, as an error with a violation per field.
fn invalid(report: &garde::Report) -> Error {
    let violations = report.iter().map(|(path, error)| FieldViolation::new(path.to_string(), error.message()));
    let message = match report.iter().count() {
        1 => "the request has an invalid field".to_owned(),
        count => format!("the request has {count} invalid fields"),
    };
    violations.fold(Error::invalid_argument(message), Error::with_detail)
}
