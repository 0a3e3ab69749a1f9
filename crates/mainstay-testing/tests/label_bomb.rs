//! A label bomb: callers who never use the same path, tenant or statement twice. Neither the series of metrics nor the memory
//! of the process grow with them. Alone in its program, whose memory it measures; `just label-bomb` is the long form.

#![allow(clippy::unwrap_used, reason = "helpers of a test are no `#[test]` functions")]
#![cfg(target_os = "linux")]

use axum::Extension;
use axum::extract::Path;
use futures_util::stream::{self, StreamExt};
use mainstay::core::settings::Loader;
use mainstay::core::{Context, Result};
use mainstay::http::{Client, Routes};
use mainstay::sql::Db;
use mainstay::sql::migrate::Migrations;
use mainstay::telemetry::Series;
use mainstay::telemetry::prometheus_client::metrics::counter::Counter;
use mainstay::{App, Configuration, NoSettings, Service};

/// What is measured from: every bound is reached by then, but for the queue of the exporter, which holds some 10 MB.
const BEFORE: u32 = 5_000;

/// More than any of the bounded things takes, and less than a tenth of what 100,000 of anything would.
const GROWTH: f64 = 32.0 * 1024.0 * 1024.0;

async fn serve(
    ctx: Context,
    Path(tenant): Path<u32>,
    Extension(db): Extension<Db>,
    Extension(served): Extension<Series<Counter>>,
) -> Result<String> {
    served.with(&[&format!("tenant-{tenant}")]).inc();
    // The library takes no text that a caller could have made; a program that insists pays for it, 40 bytes each.
    let statement: &'static str = format!("SELECT {tenant} AS number_{tenant}").leak();
    Ok(db.read(statement).one::<i64>(&ctx).await?.to_string())
}

fn bombed(app: &mut App<NoSettings>) -> Result<()> {
    let db = app.database(Migrations::new([])?)?;
    let served = app.metrics().counters("served", "Served", &["tenant"]);
    let routes = Routes::new().route_axum("/t/{tenant}", axum::routing::get(serve));
    app.http(routes.layer(Extension(db)).layer(Extension(served)));
    Ok(())
}

/// Three spans, two paths, a tenant and a statement that nobody has seen before, for each number.
async fn bomb(client: &Client, url: &str, numbers: std::ops::Range<u32>) {
    let ask = |number: u32| async move {
        for (path, status) in [("t", 200), ("nowhere", 404)] {
            let call = client.get(format!("{url}/{path}/{number}")).header("baggage", format!("tenant={number}"));
            let reply = call.exchange(&Context::background()).await.unwrap();
            assert_eq!(reply.status().as_u16(), status);
            reply.bytes().await.unwrap();
        }
    };
    stream::iter(numbers).map(ask).buffer_unordered(16).collect::<()>().await;
}

fn memory(metrics: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_bomb_fills_neither_series_nor_memory() {
    let long = std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1");
    let all = if long { 100_000 } else { 10_000 };
    let folder = tempfile::tempdir().unwrap();
    let loader = Loader::new("bombed")
        .environment(Vec::<(String, String)>::new())
        .directory(folder.path())
        .set("http.addr", "127.0.0.1:0")
        .set("admin.addr", "127.0.0.1:0")
        .set("shutdown.settle", "0s")
        .set("database.url", format!("sqlite://{}", folder.path().join("bombed.db").display()))
        // Nobody listens there: what is told waits until it is dropped. And everything is slow enough to be kept.
        .set("trace.endpoint", "http://127.0.0.1:9")
        .set("trace.keep", "100")
        .set("trace.slow", "0s");
    let service = Service::new(Configuration::from_loader("bombed", loader).unwrap(), bombed).unwrap();
    let (stopper, metrics, mut phase, addresses) =
        (service.stopper(), service.metrics(), service.phase(), service.addresses());
    let living = tokio::spawn(async move { service.run(&Context::background()).await });
    phase.wait_for(|phase| *phase == mainstay::core::Phase::Ready).await.unwrap();
    let (url, client) = (format!("http://{}", addresses().unwrap().0), Client::new().unwrap());

    bomb(&client, &url, 0..BEFORE).await;
    let before = metrics.render();
    bomb(&client, &url, BEFORE..all).await;
    let after = metrics.render();

    let growth = memory(&after) - memory(&before);
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let tenants = after.lines().filter(|line| line.starts_with("served_total{")).count();
    println!(
        "{all} paths, tenants and statements: {} lines of metrics, {} before; {:.1} MiB, {:+.1} MiB since {BEFORE}",
        series(&after),
        series(&before),
        memory(&after) / 1024.0 / 1024.0,
        growth / 1024.0 / 1024.0
    );
    assert_eq!(tenants, Series::<Counter>::LIMIT + 1, "and one for all others");
    assert_eq!(series(&after), series(&before));
    assert!(growth < GROWTH, "{growth} bytes more");
    stopper.stop();
    assert!(living.await.unwrap().is_clean());
}
