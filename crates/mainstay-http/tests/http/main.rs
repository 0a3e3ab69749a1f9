//! The server as clients meet it: over real sockets on the loopback.

#![allow(clippy::unwrap_used, reason = "a test that meets what it doesn't expect fails")]

mod certificates;
mod scene;

mod cancel;
mod cancel_policy;
mod client;
mod connections;
mod drain;
mod errors;
mod extract;
mod openapi;
mod pipeline;
mod tls;
