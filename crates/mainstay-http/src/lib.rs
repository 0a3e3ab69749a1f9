//! HTTP for Mainstay services: the accept loop, the request pipeline, extractors, problem documents, OpenAPI and the
//! client.
//!
//! Handlers, extractors and tower layers are plain axum; [`Routes`] and [`routing`] add what OpenAPI and the limits
//! need to know. A handler takes its [`Context`](mainstay_core::Context) and fails with an
//! [`Error`](mainstay_core::Error):
//!
//! ```
//! use axum::extract::State;
//! use garde::Validate;
//! use mainstay_core::{Context, Result};
//! use mainstay_http::{Created, Json, Routes, routing::post};
//! use serde::{Deserialize, Serialize};
//! use utoipa::ToSchema;
//!
//! #[derive(Deserialize, ToSchema, Validate)]
//! struct NewOrder {
//!     #[garde(length(min = 1))]
//!     customer: String,
//! }
//! #[derive(Serialize, ToSchema)]
//! struct Order {
//!     id: u64,
//! }
//! #[derive(Clone)]
//! struct Orders;
//!
//! async fn place(ctx: Context, State(_): State<Orders>, Json(new): Json<NewOrder>) -> Result<Created<Json<Order>>> {
//!     ctx.check()?;
//!     Ok(Created::at("/v1/orders/7", Json(Order { id: 7 })))
//! }
//! let routes: Routes = Routes::new().route("/v1/orders", post(place).summary("Places an order")).with_state(Orders);
//! assert!(routes.openapi("shop", "1.0.0")["paths"]["/v1/orders"]["post"].is_object());
//! ```
//!
//! # Errors
#![doc = include_str!("../docs/errors.md")]
//!
//! # When a client leaves
#![doc = include_str!("../docs/cancel-policy.md")]
//!
//! # Bad input
#![doc = include_str!("../docs/bad-input.md")]

mod accept;
pub mod client;
mod connection;
pub mod describe;
pub mod dialect;
mod drain;
mod extract;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod pipeline;
mod problem;
mod respond;
mod routes;
pub mod routing;
mod server;
mod settings;
pub mod sse;
mod tls;
pub mod ws;

pub use client::Client;
pub use describe::Describe;
pub use drain::Draining;
pub use extract::{Json, Path, Query, validated};
pub use problem::Problem;
pub use respond::{Accepted, Created, NoContent, Upserted};
pub use routes::{RouteInfo, Routes};
pub use server::Server;
pub use settings::{Handover, HttpSettings, TlsSettings};

/// axum as this crate speaks it.
pub use axum;
