//! The ground every Mainstay crate stands on: [`Context`], [`Error`], structured concurrency, settings and the
//! lifecycle of a service. It knows no HTTP, SQL or broker.

mod component;
mod context;
mod error;

pub use component::Component;
pub use context::{Canceler, Cause, Context, Principal, RequestId, Trace};
pub use error::{Chain, Code, Detail, Error, ErrorInfo, FieldViolation, Result, ResultExt};

/// The boxed future of object-safe async traits such as [`Component`].
pub use futures_util::future::BoxFuture;
