//! The admin port of a service: health, metrics, the OpenAPI document and a page to read it with.
//!
//! It belongs on loopback: it shows what the service is made of. Elsewhere only health and metrics answer without a token.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use mainstay_core::{Roster, Secret};
use mainstay_telemetry::trace::Tracer;
use mainstay_telemetry::{Health, InHand, LogControl, Metrics};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::guard::Guard;

mod guard;
mod log;
mod profile;
mod tasks;
mod traces;

/// The section `admin`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Where the admin port listens: loopback unless you say otherwise.
    pub addr: SocketAddr,

    /// What a request shows as `Authorization: Bearer <token>`; white space around it doesn't count. Where one is set, all
    /// but `/livez`, `/readyz`, `/startupz` and `/metrics` asks for it; where none is, they alone answer off loopback.
    pub token: Secret,
}

impl AdminSettings {
    /// Whether other machines can reach the admin port.
    pub fn is_exposed(&self) -> bool {
        !self.addr.ip().to_canonical().is_loopback()
    }

    /// Whether a token is set.
    pub fn has_token(&self) -> bool {
        !self.token.expose().trim().is_empty()
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)), token: Secret::default() }
    }
}

/// What the admin port shows.
pub struct Admin {
    /// The service's name.
    pub service: String,
    /// Where it listens, and what a request has to show.
    pub settings: AdminSettings,
    /// The service's health.
    pub health: Health,
    /// The service's metrics.
    pub metrics: Metrics,
    /// The service's logger.
    pub logs: LogControl,
    /// The service's components.
    pub components: Roster,
    /// The service's work in hand.
    pub in_hand: InHand,
    /// What has kept traces.
    pub tracer: Tracer,
    /// The OpenAPI document.
    pub openapi: serde_json::Value,
}

impl Admin {
    /// The routes:
    ///
    /// | path | answers |
    /// |---|---|
    /// | `/livez` | 200 while the process can answer |
    /// | `/startupz` | 200 once the service has started, 503 before |
    /// | `/readyz` | 200 while traffic is welcome, 503 while starting, draining or without a critical dependency |
    /// | `/metrics` | the metrics, as OpenMetrics where `Accept` asks for it and as Prometheus text otherwise |
    /// | `/livez?verbose`, `/startupz?verbose`, `/readyz?verbose` | the same as JSON with every detail |
    /// | `/openapi.json` | the OpenAPI 3.1 document |
    /// | `/docs` | a page that reads it, offline |
    /// | `/debug/traces` | requests and events that failed or were slow, with their spans, newest first (`trace.keep`) |
    /// | `/debug/tasks` | components, and requests and events in hand with age and deadline, the oldest first |
    /// | `/debug/pprof/profile?seconds=30` | where processor time goes, for `go tool pprof`; see [`profile`](mainstay_telemetry::profile) |
    /// | `/debug/pprof/heap` | what holds memory, likewise |
    /// | `/log/filter` | what is logged; PUT changes it until the process ends: `curl -X PUT -d mainstay=debug …` |
    ///
    /// The first four answer everybody, the others as [`AdminSettings::token`] says. On loopback the others also want a
    /// `Host`, and an `Origin` where there is one, of loopback: a web page that is open in a browser of this machine can't
    /// use them under a name of its own. What changes the service is logged by the target `mainstay::audit`.
    pub fn into_router(self) -> Router {
        let guard = Guard::of(&self.settings);
        Router::new()
            .route("/", get(index))
            .route("/livez", get(livez))
            .route("/startupz", get(startupz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/openapi.json", get(openapi))
            .route("/docs", get(docs))
            .route("/docs/explorer.js", get(docs_script))
            .route("/docs/explorer.css", get(docs_style))
            .route("/debug/traces", get(traces::show))
            .route("/debug/tasks", get(tasks::show))
            .route("/debug/pprof/profile", get(profile::cpu))
            .route("/debug/pprof/heap", get(profile::heap))
            .route("/log/filter", get(log::show).put(log::change))
            .with_state(Arc::new(self))
            .layer(from_fn_with_state(guard, guard::check))
    }
}

type Shared = State<Arc<Admin>>;

async fn index(State(admin): Shared) -> Html<String> {
    // The name is chosen by the service's author; escaping it keeps a surprising one from becoming markup.
    let name = admin.service.replace('&', "&amp;").replace('<', "&lt;");
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>{name}</title><h1>{name}</h1><ul>\
         <li><a href=/docs>API explorer</a><li><a href=/openapi.json>OpenAPI document</a>\
         <li><a href=/metrics>metrics</a><li><a href=/readyz>readiness</a><li><a href=/livez>liveness</a>\
         <li><a href=/debug/tasks>what is in hand</a>\
         <li><a href=/debug/traces>what failed or was slow</a></ul>"
    ))
}

async fn livez(State(admin): Shared, RawQuery(query): RawQuery) -> Response {
    standing(&admin, query, true, "live")
}

async fn startupz(State(admin): Shared, RawQuery(query): RawQuery) -> Response {
    let started = admin.health.has_started();
    standing(&admin, query, started, if started { "started" } else { "starting" })
}

/// A word, or with `?verbose` a JSON object that has it.
fn standing(admin: &Admin, query: Option<String>, good: bool, word: &'static str) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !is_verbose(query) {
        return (status, format!("{word}\n")).into_response();
    }
    let phase = format!("{:?}", admin.health.phase()).to_lowercase();
    (status, Json(json!({ "status": word, "service": admin.service, "phase": phase }))).into_response()
}

async fn readyz(State(admin): Shared, RawQuery(query): RawQuery) -> Response {
    let report = admin.health.readiness().await;
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if is_verbose(query) {
        return (status, Json(report)).into_response();
    }
    // Brief is what is wrong, and nothing that is different each time.
    let down = report.checks.iter().filter(|check| !check.up);
    let down = down.map(|check| json!({ "name": check.name, "importance": check.importance, "error": check.error }));
    let brief = json!({ "status": report.status, "ready": report.ready, "down": down.collect::<Vec<_>>() });
    (status, Json(brief)).into_response()
}

/// `?verbose`, alone or among others, as Kubernetes' own servers have it.
fn is_verbose(query: Option<String>) -> bool {
    query.is_some_and(|query| query.split('&').any(|word| word == "verbose" || word == "verbose=true"))
}

/// OpenMetrics for those who ask for it, as Prometheus does, and the older text format for everybody else.
async fn metrics(State(admin): Shared, headers: HeaderMap) -> Response {
    let asked = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let open = asked.flat_map(|accept| accept.split(',')).any(accepts_openmetrics);
    let (kind, text) = match open {
        true => (Metrics::CONTENT_TYPE, admin.metrics.render()),
        false => (Metrics::PROMETHEUS_CONTENT_TYPE, admin.metrics.render_prometheus()),
    };
    ([(header::CONTENT_TYPE, kind), (header::VARY, "Accept")], text).into_response()
}

/// One part of an `Accept` header. Version 0.0.1, which very old servers of Prometheus also ask for, reads the same; a
/// weight of 0 is a refusal.
fn accepts_openmetrics(part: &str) -> bool {
    let mut words = part.split(';').map(str::trim);
    let named = words.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
    let refused =
        |word: &str| word.strip_prefix("q=").is_some_and(|weight| weight.parse().is_ok_and(|w: f32| w <= 0.0));
    named && !words.any(refused)
}

async fn openapi(State(admin): Shared) -> Json<serde_json::Value> {
    Json(admin.openapi.clone())
}

/// Nothing but what this port serves is loaded or run.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'";

async fn docs() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)], Html(include_str!("explorer/explorer.html")))
        .into_response()
}

async fn docs_script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("explorer/explorer.js")).into_response()
}

async fn docs_style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("explorer/explorer.css")).into_response()
}

#[cfg(test)]
mod tests;
