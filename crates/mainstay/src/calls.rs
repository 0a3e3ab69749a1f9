//! Where gRPC calls are taken: on the port of HTTP, or on one of their own.

use std::sync::Arc;

use mainstay_grpc::Grpc;
use mainstay_http::{HttpSettings, Routes, Server};
use mainstay_telemetry::trace::Tracer;
use mainstay_telemetry::{Health, Metrics};

use crate::configuration::Configuration;

/// Adds `grpc` with its health and reflection to `routes`, or makes the server that `grpc.addr` asks for.
pub(crate) fn place<S>(
    grpc: Grpc,
    configuration: &Configuration<S>,
    health: &Health,
    metrics: &Metrics,
    tracer: &Tracer,
    routes: Routes,
) -> (Option<Arc<Server>>, Routes) {
    if grpc.is_empty() {
        return (None, routes);
    }
    let grpc = grpc.health(health);
    let calls = if configuration.grpc.reflection { grpc.reflection() } else { grpc }.into_routes();
    let Some(addr) = configuration.grpc.addr else {
        return (None, routes.merge(calls));
    };
    let settings = HttpSettings { addr, ..configuration.http.clone() };
    let server = Server::new("grpc", settings, calls, metrics).with_tracer(tracer.clone());
    (Some(Arc::new(server)), routes)
}
