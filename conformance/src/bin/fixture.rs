//! The service under test: handlers that take as long as they are told, and some that never end.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mainstay::http::axum::body::Body;
use mainstay::http::axum::http::HeaderValue;
use mainstay::http::axum::response::Response;
use mainstay::http::ws::WebSocketUpgrade;
use mainstay::prelude::*;
use serde::Deserialize;
use utoipa::ToSchema;

fn main() -> ExitCode {
    mainstay::run("fixture", build)
}

fn build(app: &mut App) -> Result<()> {
    let db = app.database(migrations!("migrations"))?;
    let routes = Routes::new()
        .route("/work", get(work))
        .route("/block", get(block))
        .route("/rows", post(store))
        .route("/endless", get(endless).without_deadline())
        .route("/events", get(events).without_deadline())
        .route("/echo", get(echo))
        .with_state(db.clone());
    app.http(routes);
    app.grpc(conformance::calls::service(db));
    Ok(())
}

#[derive(Deserialize, ToSchema, Validate)]
struct Work {
    #[garde(range(max = 60_000))]
    ms: u64,
    #[garde(skip)]
    #[serde(default)]
    id: i64,
}

/// Takes `ms` milliseconds.
async fn work(Query(work): Query<Work>) -> &'static str {
    tokio::time::sleep(Duration::from_millis(work.ms)).await;
    "done"
}

/// Holds a thread of the runtime for `ms` milliseconds: the mistake that a watchdog is there for.
async fn block(Query(work): Query<Work>) -> &'static str {
    let end = tokio::time::Instant::now() + Duration::from_millis(work.ms);
    while tokio::time::Instant::now() < end {
        std::hint::spin_loop();
    }
    "done"
}

/// Takes `ms` milliseconds, then stores the row `id`.
async fn store(ctx: Context, State(db): State<Db>, Query(work): Query<Work>) -> Result<Created<&'static str>> {
    tokio::time::sleep(Duration::from_millis(work.ms)).await;
    db.query("INSERT INTO stored (id) VALUES ($1)").bind(work.id).execute(&ctx).await?;
    Ok(Created::at("/rows", "stored"))
}

async fn endless() -> &'static str {
    std::future::pending().await
}

/// A response that begins, never ends and doesn't listen for the drain.
async fn events() -> Response {
    let first = stream::iter([Ok::<_, Infallible>("data: first\n\n")]);
    let mut response = Response::new(Body::from_stream(first.chain(stream::pending())));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

/// A WebSocket that says what it hears.
async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|_ctx, mut socket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    })
}
