//! The server as clients meet it: over real sockets on the loopback.

mod scene;

mod cancel;
mod client;
mod connections;
mod drain;
mod errors;
mod extract;
mod openapi;
mod pipeline;
