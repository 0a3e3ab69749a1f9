//! What a service's tests need: the service itself on a free port with a database of its own, a client that speaks its
//! types, and eyes on its logs and metrics.
//!
//! ```no_run
//! # use mainstay::prelude::*;
//! # fn build(_: &mut App) -> Result<()> { Ok(()) }
//! use mainstay_testing::TestApp;
//!
//! # #[tokio::main] async fn main() -> Result<()> {
//! let app = TestApp::of("shop", build).start().await?;
//! let answer = app.get("/v1/products/tea").await?;
//! assert_eq!(answer.status(), 404);
//! assert_eq!(app.logs().with_target("mainstay::access").count(), 1);
//! assert!(app.stop().await.is_clean());
//! # Ok(()) }
//! ```

mod app;
mod logs;
mod response;
mod samples;
mod spans;

pub use app::{TestApp, TestAppBuilder};
pub use logs::{LogLine, Logs};
pub use response::TestResponse;
pub use samples::Samples;
pub use spans::Spans;

/// A span, as [`Spans`] has it.
pub use mainstay::telemetry::trace::{FinishedSpan, SpanKind};

/// Temporary databases, and a harness whose tests are reported as ignored, with the reason, when their server is
/// missing.
pub use mainstay_sql::testing::*;
