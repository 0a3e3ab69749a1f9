//! A database that stops and comes back: what the probes say, and when requests are served again.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::process::ExitCode;
use std::time::Duration;

use conformance::chaos::server::{PrivateServer, installed};
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay::sql::migrate::Migrations;
use mainstay::telemetry::Importance;
use mainstay_sql::testing::Harness;
use mainstay_testing::TestApp;
use serde_json::Value;
use tokio::time::Instant;

fn main() -> ExitCode {
    Harness::new()
        .case_if(installed(Dialect::Postgres), "postgres::readiness_follows_the_database_and_liveness_does_not", outage)
        .run()
}

fn service(app: &mut App) -> Result<()> {
    let db = app.database(Migrations::new([])?)?;
    app.depend("recommendations", Importance::Optional, |_| async { Err(Error::unavailable("nobody is there")) });
    let one = move |ctx: Context| {
        let db = db.clone();
        async move { db.read("SELECT 1").one::<i32>(&ctx).await.map(|one| one.to_string()) }
    };
    app.http(Routes::new().route("/one", get(one)));
    Ok(())
}

async fn outage() -> Result<()> {
    let mut server = PrivateServer::start(Dialect::Postgres).await?;
    let app = TestApp::of("outage", service)
        .set("database.url", &server.url("postgres"))
        .set("database.acquire_timeout", "1s")
        .start()
        .await?;
    let ready = app.admin("/readyz").await?;
    let body: Value = ready.json()?;
    assert_eq!(
        (ready.status(), &body["status"], &body["down"][0]["name"]),
        (200, &"degraded".into(), &"recommendations".into())
    );

    server.stop(true).await;
    let stopped = Instant::now();
    let told = until(async || {
        let answer = app.admin("/readyz").await.unwrap();
        let names = answer.json::<Value>().unwrap()["down"].to_string();
        (answer.status() == 503 && names.contains("\"database\"")).then(|| stopped.elapsed())
    });
    let told = told.await;
    assert_eq!(app.admin("/livez").await?.status(), 200);
    assert_eq!(app.get("/one").await?.status(), 503, "a request is told to come again");

    server.start_again().await?;
    let back = Instant::now();
    let served = until(async || (app.get("/one").await.unwrap().status() == 200).then(|| back.elapsed())).await;
    let ready = until(async || (app.admin("/readyz").await.unwrap().status() == 200).then(|| back.elapsed())).await;
    until(async || (app.samples().sum("health_dependency_up", &[("dependency", "database")]) == 1.0).then_some(()))
        .await;
    report(&format!(
        "readiness said no after {told:.1?}, requests were served {served:.1?} after the return, ready {ready:.1?}"
    ));
    assert!(app.stop().await.is_clean());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the figures in docs/guarantees.md")]
fn report(text: &str) {
    println!("{text}");
}

/// Looks until there is an answer, at most the 5 s of the guarantee.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("within 5 s")
}
