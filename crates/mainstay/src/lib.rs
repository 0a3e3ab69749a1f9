//! Mainstay: the framework for backend services that must stay up under load.
//!
//! A service is a `build` function that declares its parts and a `main` that hands it to [`run`]:
//!
//! ```no_run
//! use mainstay::prelude::*;
//!
//! async fn hello(_ctx: Context) -> &'static str {
//!     "hello\n"
//! }
//!
//! fn build(app: &mut App) -> Result<()> {
//!     app.http(Routes::new().route("/hello", get(hello).summary("Say hello")));
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     mainstay::run("hello", build)
//! }
//! ```
//!
//! That program has the subcommands `serve` (the default), `migrate`, `config`, `routes`, `openapi`, `events` and `health`; a
//! request deadline, limits and timeouts; structured logs; metrics and health on an admin port; and it ends in order.

mod activation;
mod admin_port;
mod app;
mod brokers;
#[cfg(feature = "grpc")]
mod calls;
mod command;
mod configuration;
mod export;
mod handover;
mod notify;
mod parts;
mod run;
mod service;
mod signals;

pub use app::App;
pub use configuration::{Configuration, NoSettings, ShutdownSettings};
pub use run::run;
pub use service::Service;

/// Health, metrics and the explorer.
pub use mainstay_admin as admin;
/// Context, errors, concurrency, settings, lifecycle.
pub use mainstay_core as core;
/// Events: outbox, relay, consumers.
pub use mainstay_events as events;
/// gRPC: services, health, reflection, the client.
#[cfg(feature = "grpc")]
pub use mainstay_grpc as grpc;
/// The server, extractors, routes and client.
pub use mainstay_http as http;
/// Databases.
pub use mainstay_sql as sql;
/// Logs, metrics, health.
pub use mainstay_telemetry as telemetry;

pub mod prelude;
