//! [`Grpc`]: the gRPC services of a port, with health and reflection.

use std::fmt;

use mainstay_http::{RouteInfo, Routes};
use mainstay_telemetry::Health;

use crate::dialect::GrpcDialect;
use crate::{Service, health, reflection};

/// The gRPC services that a port offers.
///
/// `App::grpc` fills it; a server of your own is made of its [routes](Grpc::into_routes).
#[derive(Default)]
pub struct Grpc {
    services: Vec<Service>,
}

impl Grpc {
    /// No services yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `service` too.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds `grpc.health.v1.Health`: the server and each service so far are `SERVING` while `health` is ready for traffic.
    #[must_use]
    pub fn health(mut self, health: &Health) -> Self {
        let names = self.services.iter().map(Service::name).collect();
        self.services.push(health::service(health.clone(), names));
        self
    }

    /// Adds `grpc.reflection` in its versions v1 and v1alpha, which show the services so far and themselves. Without
    /// readable descriptors there is none, and a line of the log says so.
    #[must_use]
    pub fn reflection(mut self) -> Self {
        match reflection::services(&self.services) {
            Ok(reflection) => self.services.extend(reflection),
            Err(error) => {
                tracing::error!(target: "mainstay::grpc", error = %error.report(), "reflection is not offered")
            }
        }
        self
    }

    /// Whether nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Every method, for a list of routes.
    pub fn methods(&self) -> Vec<RouteInfo> {
        self.services.iter().flat_map(Service::methods).collect()
    }

    /// The methods as routes, for a [`Server`](mainstay_http::Server), whose pipeline answers gRPC calls with statuses
    /// from then on.
    pub fn into_routes(self) -> Routes {
        let routes = self.services.into_iter().map(Service::into_routes);
        routes.fold(Routes::new().dialect(GrpcDialect), Routes::merge)
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.services).finish()
    }
}
