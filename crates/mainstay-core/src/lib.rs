//! The ground every Mainstay crate stands on: [`Context`], [`Error`], structured concurrency, settings and the
//! lifecycle of a service. It knows no HTTP, SQL or broker.

#[cfg(windows)]
compile_error!("Mainstay runs on Linux, and builds on macOS. Windows is not supported: use WSL or a container.");

#[cfg(feature = "axum")]
pub mod axum;

mod byte_size;
mod component;
mod context;
mod error;
mod fan;
mod group;
mod lifecycle;
mod pool;
mod secret;
pub mod settings;
mod singleflight;
mod task;

pub use byte_size::{ByteSize, InvalidByteSize};
pub use component::Component;
pub use context::{Canceler, Cause, Context, Principal, RequestId, Scoped, Trace};
pub use error::{AnyDetail, Chain, Code, Detail, Error, ErrorInfo, FieldViolation, Result, ResultExt};
pub use fan::{fan_in, fan_out, fan_out_unordered};
pub use group::Group;
pub use lifecycle::{Budgets, Lifecycle, Phase, Report, Roster, Standing, Stopped, Stopper};
pub use pool::{JobHandle, WorkerPool};
pub use secret::{Secret, SecretUrl, mask_url};
pub use singleflight::Singleflight;

/// The boxed future of object-safe async traits such as [`Component`].
pub use futures_util::future::BoxFuture;
/// The boxed stream that [`fan_out`] and [`fan_in`] return.
pub use futures_util::stream::BoxStream;
