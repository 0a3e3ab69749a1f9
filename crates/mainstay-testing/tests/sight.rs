//! What a service shows of itself: its logs, metrics and traces, seen through a small service that has a part of each kind.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use mainstay::core::{Context, Principal, Result};
use mainstay::events::{Consumer, Event, Publish};
use mainstay::http::Routes;
use mainstay::http::routing::{get, post};
use mainstay::sql::migrate::{Migration, Migrations};
use mainstay::sql::{Db, Tx};
use mainstay::telemetry::Series;
use mainstay::telemetry::prometheus_client::metrics::counter::Counter;
use mainstay::{App, NoSettings};
use mainstay_testing::{LogLine, TestApp};

#[path = "sight/logs.rs"]
mod logs;
#[path = "sight/metrics.rs"]
mod metrics;
#[cfg(target_os = "linux")]
#[path = "sight/profile.rs"]
mod profile;
#[path = "sight/traces.rs"]
mod traces;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Sold {
    amount: i64,
}

impl Event for Sold {
    const TYPE: &'static str = "stand.sold";
}

struct Count;

impl Consumer for Count {
    type Event = Sold;
    const GROUP: &'static str = "count";

    async fn handle(&self, ctx: &Context, tx: &Tx, event: Sold) -> Result<()> {
        tx.query("UPDATE stand SET sold = sold + $1").bind(event.amount).execute(ctx).await?;
        tracing::info!(target: "stand", "counted");
        Ok(())
    }
}

type Sales = Series<Counter>;

async fn sell(
    ctx: Context,
    axum::Extension(db): axum::Extension<Db>,
    axum::Extension(sales): axum::Extension<Sales>,
) -> Result<&'static str> {
    let ctx = ctx.with_principal(Principal { subject: "anna".to_owned(), scopes: Vec::new() });
    ctx.scope(async { tracing::info!(target: "stand", "selling") }).await;
    sales.with(&["anna"]).inc();
    db.transaction(&ctx, |tx| async move { tx.publish(Sold { amount: 1 }) }).await?;
    let mut group = mainstay::core::Group::new(&ctx);
    let task = |_| async {
        tracing::info!(target: "stand", "in a task");
        Ok(())
    };
    group.spawn(task).await;
    group.wait().await?;
    Ok("sold\n")
}

async fn sold(ctx: Context, axum::Extension(db): axum::Extension<Db>) -> Result<String> {
    Ok(db.read("SELECT sold FROM stand").one::<i64>(&ctx).await?.to_string())
}

fn stand(app: &mut App<NoSettings>) -> Result<()> {
    let db = app.database(Migrations::new([Migration::new(1, "stand", SCHEMA)])?)?;
    let events = app.events(&db)?;
    app.consume(&events, Count)?;
    let routes = Routes::new().route("/sell", post(sell)).route("/sold", get(sold)).route("/things/{id}", get(sold));
    let sales = app.metrics().counters("stand_sales", "Sales", &["seller"]);
    app.http(routes.layer(axum::Extension(db)).layer(axum::Extension(sales)));
    Ok(())
}

const SCHEMA: &str = "CREATE TABLE stand (sold BIGINT NOT NULL); INSERT INTO stand (sold) VALUES (0);";

/// One sale by a caller with a trace, applied by the consumer.
async fn one_sale(app: &TestApp) {
    let client = mainstay::http::Client::new().unwrap();
    let call = client.post(app.url("/sell")).header("traceparent", TRACEPARENT).header("x-request-id", "r-1");
    assert_eq!(call.exchange(&Context::background()).await.unwrap().status(), 200);
    while app.get("/sold").await.unwrap().text() != "1" {
        tokio::task::yield_now().await;
    }
}
