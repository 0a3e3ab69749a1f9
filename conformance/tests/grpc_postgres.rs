//! A gRPC client's deadline, and its cancel, reach the statement on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::time::Duration;

use conformance::calls::v1::{CallsClient, WorkRequest};
use mainstay::grpc::Channel;
use mainstay::prelude::*;
use mainstay::sql::migrate::Migrations;
use mainstay_sql::testing::{Harness, Scene};
use mainstay_testing::TestApp;

fn main() -> ExitCode {
    mainstay::sql::cases![Harness::new(); Postgres; a_deadline_stops_the_statement, a_cancel_stops_the_statement].run()
}

fn service(app: &mut App) -> Result<()> {
    let db = app.database(Migrations::new([])?)?;
    app.grpc(conformance::calls::service(db));
    Ok(())
}

async fn a_deadline_stops_the_statement(scene: Scene) -> Result<()> {
    let (app, client) = start(&scene).await?;
    let ctx = scene.ctx.with_timeout(Duration::from_secs(1));
    let call = tokio::spawn(async move { client.sleep(&ctx, HALF_A_MINUTE).await });
    sleeping(&scene, 1).await?;
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    sleeping(&scene, 0).await?;
    assert!(app.stop().await.is_clean());
    Ok(())
}

async fn a_cancel_stops_the_statement(scene: Scene) -> Result<()> {
    let (app, client) = start(&scene).await?;
    let ctx = scene.ctx.clone();
    let call = tokio::spawn(async move { client.sleep(&ctx, HALF_A_MINUTE).await });
    sleeping(&scene, 1).await?;
    call.abort();
    sleeping(&scene, 0).await?;
    assert!(app.stop().await.is_clean());
    Ok(())
}

const HALF_A_MINUTE: WorkRequest = WorkRequest { ms: 30_000, id: 0 };

async fn start(scene: &Scene) -> Result<(TestApp, CallsClient)> {
    let app = TestApp::of("calls", service).set("database.url", scene.settings.url.expose()).start().await?;
    let channel = Channel::new(&format!("http://{}", app.http_addr()))?;
    Ok((app, CallsClient::new(channel)))
}

/// Waits until PostgreSQL runs as many of the statements. Half a minute would pass before they end by themselves.
async fn sleeping(scene: &Scene, wanted: i64) -> Result<()> {
    let running = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                   AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
    let ctx = scene.ctx.with_timeout(Duration::from_secs(20));
    while scene.db.query(running).one::<i64>(&ctx).await? != wanted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
