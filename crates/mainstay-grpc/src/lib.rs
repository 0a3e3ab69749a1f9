//! gRPC for Mainstay services, on the port and through the pipeline of HTTP.
//!
//! [`mainstay-build`](https://docs.rs/mainstay-build) makes a trait, a server and a client from a `.proto` file. The trait
//! is implemented with what the rest of a service is made of, a [`Context`](core::Context) first and a
//! [`Result`](core::Result) back:
//!
//! ```text
//! impl Orders for OrdersApi {
//!     async fn get_order(&self, ctx: &Context, request: GetOrderRequest) -> Result<Order> {
//!         self.orders.find(ctx, parse(&request.id)?).await.map(Order::from)
//!     }
//! }
//! app.grpc(OrdersServer::new(OrdersApi { orders }));
//! ```
//!
//! The guide is `docs/grpc.md` of the repository.
//!
//! # Bad input
#![doc = include_str!("../docs/bad-input.md")]

mod call;
mod client;
mod dialect;
mod ending;
mod health;
mod message;
mod reflection;
mod rpc;
mod server;
mod service;
mod settings;
pub mod status;

pub use client::Channel;
pub use message::{Incoming, Outgoing};
pub use server::Grpc;
pub use service::Service;
pub use settings::GrpcSettings;

/// What a client-streaming call sends.
pub use futures_util::Stream;
/// Context and errors, as generated code names them.
pub use mainstay_core as core;
/// Messages, as generated code names them.
pub use prost;
/// The well-known messages: `Timestamp`, `Duration`, `Any` and their sisters.
pub use prost_types as well_known;

/// Includes what `mainstay-build` made of the package `$package`, as a module.
///
/// ```text
/// mainstay::grpc::include_proto!(pub mod v1, "shop.v1");
/// ```
#[macro_export]
macro_rules! include_proto {
    ($visibility:vis mod $name:ident, $package:literal) => {
        #[doc = concat!("The messages and services of `", $package, "`.")]
        #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated")]
        $visibility mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}
