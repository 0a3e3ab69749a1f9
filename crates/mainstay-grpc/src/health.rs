//! `grpc.health.v1`: whether the server and each of its services take calls.

use futures_util::stream::{self, BoxStream, StreamExt};
use mainstay_telemetry::Health;
use tokio::time::{Duration, sleep};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest, HealthCheckResponse};

use crate::Service;

/// How often who watches is looked after; readiness itself is found out no more often than that.
const LOOK: Duration = Duration::from_secs(1);

/// The service, whose answers follow the readiness in `health`: `SERVING` while traffic is welcome. It knows `names`, and
/// the empty name for the whole server.
pub(crate) fn service(health: Health, names: Vec<&'static str>) -> Service {
    let server = HealthServer::new(Checker { health, names });
    Service::tonic(server, &["Check", "Watch"], FILE_DESCRIPTOR_SET)
}

#[derive(Clone)]
struct Checker {
    health: Health,
    names: Vec<&'static str>,
}

impl Checker {
    fn knows(&self, name: &str) -> bool {
        name.is_empty() || self.names.contains(&name)
    }

    async fn look(&self) -> HealthCheckResponse {
        let ready = self.health.readiness().await.ready;
        answer(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl health_server::Health for Checker {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("no service of this name is offered here"));
        }
        Ok(Response::new(self.look().await))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.get_ref().service) {
            // The protocol wants no error here: the service may come.
            let unknown = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(unknown.chain(stream::pending()).boxed()));
        }
        let changes = stream::unfold((self.clone(), None), |(checker, told)| async move {
            loop {
                let now = checker.look().await;
                if told != Some(now.status) {
                    return Some((Ok(now), (checker, Some(now.status))));
                }
                sleep(LOOK).await;
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}
