//! [`GrpcSettings`]: what of gRPC is configured and not declared.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The section `grpc` of the configuration.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct GrpcSettings {
    /// A port of its own. Without it, gRPC is spoken on the port of HTTP, by content type. Its limits are those of the
    /// section `http` either way.
    pub addr: Option<SocketAddr>,

    /// Whether clients can ask what is offered (`grpc.reflection`).
    pub reflection: bool,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self { addr: None, reflection: true }
    }
}
