//! [`Record`]: the account of one request, closed with the last byte of its response or with whatever ended it before.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use http::{HeaderValue, StatusCode};
use mainstay_core::{Code, Context, Error};
use mainstay_telemetry::Piecework;
use mainstay_telemetry::trace::Span;
use tokio::time::Instant;

use super::Shared;
use super::metrics::method_of;
use super::route::{MethodState, RouteState};
use crate::connection::Connection;
use crate::dialect::Dialect;
use crate::drain::Lifeline;

/// Counts the request as active from [`Record::begin`] until it is dropped; then it measures, logs, and tells the
/// drain. It travels: from the future to the response's body, or to a detached handler.
pub(super) struct Record {
    shared: Arc<Shared>,
    route: Arc<RouteState>,
    method: Arc<MethodState>,
    connection: Option<Arc<Connection>>,
    /// The request's own, whose identity its log lines carry.
    ctx: Context,
    span: Option<Span>,
    /// Dropped with the record: the request is in hand until then.
    _in_hand: Option<Piecework>,
    id: HeaderValue,
    is_head: bool,
    is_http1: bool,
    started: Instant,
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
    /// The protocol that the answer is told in, if it isn't HTTP's own.
    dialect: Option<Arc<dyn Dialect>>,
    /// How the call ended in its dialect, as its client reads it.
    told: Option<Result<(), Code>>,
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
        (route, method, dialect): (Arc<RouteState>, Arc<MethodState>, Option<Arc<dyn Dialect>>),
        connection: Option<Arc<Connection>>,
        (ctx, id, span): (&Context, HeaderValue, Option<Span>),
        request: &Request,
        started: Instant,
    ) -> Self {
        shared.lifeline.request_began();
        method.active.inc();
        if let Some(connection) = &connection {
            connection.request_began();
        }
        let register = shared.lifeline.in_hand();
        let in_hand = register.map(|register| register.begin("requests", (method.name, route.name()), ctx));
        Self {
            shared,
            route,
            method,
            connection,
            id,
            ctx: ctx.clone(),
            span,
            _in_hand: in_hand,
            is_head: request.method() == http::Method::HEAD,
            is_http1: request.version() < http::Version::HTTP_2,
            started,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
            outcome: Outcome::ClientLeft,
            dialect,
            told: None,
        }
    }

    pub(super) fn dialect(&self) -> Option<&dyn Dialect> {
        self.dialect.as_deref()
    }

    /// Takes down what headers or trailers of the answer say about the call's end.
    pub(super) fn read(&mut self, fields: &http::HeaderMap) {
        if let Some(dialect) = &self.dialect {
            self.told = dialect.outcome(fields).or(self.told);
        }
    }

    /// How the call ended: what its client was told, or that there was nobody to tell.
    fn ended(&self, cut: bool) -> Result<(), Code> {
        self.told.unwrap_or(Err(if cut { Code::Unavailable } else { Code::Cancelled }))
    }

    pub(super) fn context(&self) -> &Context {
        &self.ctx
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
        let (code, chain, location) = (error.code().name(), error.report(), error.location());
        // A call of what isn't there is no fault of ours, as a path that leads nowhere is none.
        let is_fault = if self.dialect.is_some() { error.code().is_server_fault() } else { status >= 500 };
        if is_fault {
            tracing::error!(target: "mainstay::http", method, route, status, code, error = %chain, %location, "request failed");
        } else {
            tracing::debug!(target: "mainstay::http", method, route, status, code, error = %chain, %location, "request refused");
        }
    }

    /// Logs that the handler runs on without its client.
    pub(super) fn log_detached(&self) {
        let (method, route) = (self.method.name, self.route.template());
        self.ctx.enter(|| {
            tracing::debug!(target: "mainstay::http", method, route, "the client left; the handler runs on");
        });
    }

    /// What is known about the request only now. Neither its path nor its query: they may hold secrets.
    fn end_span(&mut self, cut: bool, duration: Duration) {
        let Some(mut span) = self.span.take() else { return };
        if let Some(id) = self.ctx.request_id() {
            span.set("mainstay.request_id", id.shared());
        }
        if let Some(dialect) = &self.dialect {
            let (method, ended) = (method_of(self.route.template()), self.ended(cut));
            span.rename(method.to_owned());
            span.set("rpc.system.name", dialect.name());
            span.set("rpc.method", method.to_owned());
            span.set("rpc.response.status_code", ended.map_or_else(Code::name, |()| "OK"));
            match ended {
                _ if cut => span.fail("cut"),
                Err(code) if code.is_server_fault() => span.fail(code.name()),
                _ => {}
            }
            return span.end_after(duration);
        }
        let (method, status) = (self.method.name, self.status.as_u16());
        if self.has_route() {
            span.rename(self.method.span_name.clone());
            span.set("http.route", self.route.name());
        } else {
            span.rename(method);
        }
        span.set("http.request.method", method);
        span.set("http.response.status_code", i64::from(status));
        span.set("network.protocol.version", if self.is_http1 { "1.1" } else { "2" });
        if cut {
            span.fail("cut");
        } else if status >= 500 {
            span.fail(self.status.canonical_reason().unwrap_or("server error"));
        }
        span.end_after(duration);
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
        let cut = self.shared.lifeline.is_cut() && self.outcome != Outcome::Complete;
        match &self.dialect {
            Some(dialect) => self.method.calls.observe(&self.ctx, dialect.name(), self.ended(cut), duration),
            None => self.method.durations.observe(&self.ctx, self.status.as_u16(), duration),
        }
        if let Some(left) = self.ctx.remaining() {
            self.method.deadline_left.observe(left);
        }
        self.leave_connection();
        self.shared.lifeline.request_ended();
        if cut {
            self.shared.lifeline.report(self.casualty());
        }
        self.end_span(cut, duration);
        let outcome = match self.outcome {
            _ if cut => "cut",
            Outcome::Complete => "complete",
            Outcome::ClientLeft => "client_left",
            Outcome::Detached => "detached",
        };
        self.ctx.enter(|| {
            tracing::info!(
                target: "mainstay::access",
                method = self.method.name,
                route = self.route.template(),
                status = self.status.as_u16(),
                code = self.dialect.as_ref().map(|_| self.ended(cut).map_or_else(Code::name, |()| "OK")),
                duration = duration.as_secs_f64(),
                outcome,
            );
        });
    }
}
