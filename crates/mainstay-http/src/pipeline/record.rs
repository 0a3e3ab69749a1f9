//! [`Record`]: the account of one request, closed with the last byte of its response or with whatever ended it before.

use std::sync::Arc;

use axum::extract::Request;
use http::{HeaderValue, StatusCode};
use mainstay_core::Error;
use tokio::time::Instant;

use super::Shared;
use super::identity::Identity;
use super::route::{MethodState, RouteState};
use crate::connection::Connection;
use crate::drain::Lifeline;

/// Counts the request as active from [`Record::begin`] until it is dropped; then it measures, logs, and tells the
/// drain. It travels: from the future to the response's body, or to a detached handler.
pub(super) struct Record {
    shared: Arc<Shared>,
    route: Arc<RouteState>,
    method: Arc<MethodState>,
    connection: Option<Arc<Connection>>,
    id: HeaderValue,
    trace_id: u128,
    is_head: bool,
    is_http1: bool,
    started: Instant,
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The whole response went to the connection.
    Complete,
    /// The client left before the end; also what a record says that nobody closed.
    ClientLeft,
    /// The client left and the handler ran on to its end.
    Detached,
}

/// What nginx logs for a client that left; no client ever reads it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Record {
    pub(super) fn begin(
        shared: Arc<Shared>,
        (route, method): (Arc<RouteState>, Arc<MethodState>),
        connection: Option<Arc<Connection>>,
        identity: &Identity,
        request: &Request,
        started: Instant,
    ) -> Self {
        shared.lifeline.request_began();
        method.active.inc();
        if let Some(connection) = &connection {
            connection.request_began();
        }
        Self {
            shared,
            route,
            method,
            connection,
            id: identity.id_header.clone(),
            trace_id: identity.trace.trace_id,
            is_head: request.method() == http::Method::HEAD,
            is_http1: request.version() < http::Version::HTTP_2,
            started,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
            outcome: Outcome::ClientLeft,
        }
    }

    pub(super) fn lifeline(&self) -> &Lifeline {
        &self.shared.lifeline
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.id
    }

    pub(super) fn route(&self) -> &str {
        if self.has_route() { self.route.template() } else { "(no route)" }
    }

    pub(super) fn has_route(&self) -> bool {
        !self.route.template().is_empty()
    }

    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether the answer is the last on its connection: the server drains. HTTP/2 says so by other means.
    pub(super) fn closes_connection(&self) -> bool {
        self.is_http1 && self.shared.lifeline.draining().is_cancelled()
    }

    /// The request no longer holds its connection, which may be gone.
    pub(super) fn leave_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.request_ended();
        }
    }

    /// Logs the private chain of an error whose answer is `status`.
    pub(super) fn log_error(&self, error: &Error, status: StatusCode) {
        let (method, route, status) = (self.method.name, self.route.template(), status.as_u16());
        let (request_id, code, chain) = (self.id.to_str().unwrap_or_default(), error.code().name(), error.report());
        let location = error.location();
        let trace_id = format_args!("{:032x}", self.trace_id);
        if status >= 500 {
            tracing::error!(target: "mainstay::http", method, route, status, request_id, %trace_id, code, error = %chain, %location, "request failed");
        } else {
            tracing::debug!(target: "mainstay::http", method, route, status, request_id, %trace_id, code, error = %chain, %location, "request refused");
        }
    }

    /// Logs that the handler runs on without its client.
    pub(super) fn log_detached(&self) {
        let (method, route) = (self.method.name, self.route.template());
        let request_id = self.id.to_str().unwrap_or_default();
        tracing::debug!(target: "mainstay::http", method, route, request_id, "the client left; the handler runs on");
    }

    /// The line of the shutdown report.
    fn casualty(&self) -> String {
        let (route, id, seconds) =
            (self.route(), self.id.to_str().unwrap_or_default(), self.started.elapsed().as_secs_f64());
        format!("{} {route} (request {id}, {seconds:.1} s)", self.method.name)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.method.active.dec();
        self.method.durations.observe(self.status.as_u16(), duration);
        self.leave_connection();
        self.shared.lifeline.request_ended();
        let cut = self.shared.lifeline.is_cut() && self.outcome != Outcome::Complete;
        if cut {
            self.shared.lifeline.report(self.casualty());
        }
        let outcome = match self.outcome {
            _ if cut => "cut",
            Outcome::Complete => "complete",
            Outcome::ClientLeft => "client_left",
            Outcome::Detached => "detached",
        };
        tracing::info!(
            target: "mainstay::access",
            method = self.method.name,
            route = self.route.template(),
            status = self.status.as_u16(),
            duration = duration.as_secs_f64(),
            request_id = self.id.to_str().unwrap_or_default(),
            trace_id = %format_args!("{:032x}", self.trace_id),
            outcome,
        );
    }
}
