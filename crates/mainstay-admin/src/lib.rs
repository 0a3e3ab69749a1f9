//! The admin port of a service: health, metrics, the OpenAPI document and a page to read it with.
//!
//! It belongs on loopback, or behind a network policy: it shows what the service is made of.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use mainstay_telemetry::{Health, Metrics};
use serde::{Deserialize, Serialize};

/// The section `admin`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct AdminSettings {
    /// Where the admin port listens: loopback unless you say otherwise.
    pub addr: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9000)) }
    }
}

/// What the admin port shows.
pub struct Admin {
    /// The service's name.
    pub service: String,
    /// The service's health.
    pub health: Health,
    /// The service's metrics.
    pub metrics: Metrics,
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
    /// | `/metrics` | the metrics, as OpenMetrics text |
    /// | `/openapi.json` | the OpenAPI 3.1 document |
    /// | `/docs` | a page that reads it, offline |
    pub fn into_router(self) -> Router {
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
            .with_state(Arc::new(self))
    }
}

type Shared = State<Arc<Admin>>;

async fn index(State(admin): Shared) -> Html<String> {
    // The name is chosen by the service's author; escaping it keeps a surprising one from becoming markup.
    let name = admin.service.replace('&', "&amp;").replace('<', "&lt;");
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>{name}</title><h1>{name}</h1><ul>\
         <li><a href=/docs>API explorer</a><li><a href=/openapi.json>OpenAPI document</a>\
         <li><a href=/metrics>metrics</a><li><a href=/readyz>readiness</a><li><a href=/livez>liveness</a></ul>"
    ))
}

async fn livez() -> &'static str {
    "live\n"
}

async fn startupz(State(admin): Shared) -> Response {
    if admin.health.has_started() {
        "started\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
    }
}

async fn readyz(State(admin): Shared) -> Response {
    let report = admin.health.readiness().await;
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn metrics(State(admin): Shared) -> Response {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], admin.metrics.render()).into_response()
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
