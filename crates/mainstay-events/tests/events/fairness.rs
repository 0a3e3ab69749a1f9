//! SQLite has one writer: requests and consumers take turns at it, and so does a second process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_events::testing::{Probe, Service, Step, applied, prepare, publish, quick, quiet};
use mainstay_sql::Db;
use mainstay_sql::testing::Scene;
use mainstay_telemetry::Metrics;
use tokio::time::Instant;

/// Callers that write at the same time, as handlers of requests do.
const CALLERS: usize = 8;

pub(crate) async fn requests_and_consumers_share_the_writer(scene: Scene) -> Result<()> {
    let long = std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1");
    let (writes, events) = if long { (500, 10_000_i64) } else { (60, 1_000) };
    let ctx = &scene.ctx;
    prepare(&scene).await?;
    scene.db.query("CREATE TABLE written (id INTEGER PRIMARY KEY, caller BIGINT NOT NULL)").execute(ctx).await?;
    let publisher = Service::start(&scene, quick(), |_| Ok(())).await?;

    let requests_alone = requests(ctx, &publisher.db, writes).await?;
    let backlog = async || {
        for first in (0..events).step_by(50) {
            let steps = (first..first + 50).map(|number| Step::new((number % 64).to_string(), number));
            publish(ctx, &publisher.db, steps).await?;
        }
        Ok::<_, Error>(())
    };
    backlog().await?;
    let began = Instant::now();
    let service = Service::start(&scene, quick(), |events| events.consume(Probe::new())).await?;
    quiet(&scene, &service.events).await?;
    let consumers_alone = began.elapsed();
    service.stop(Duration::from_secs(20)).await;

    backlog().await?;
    let service = Service::start(&scene, quick(), |events| events.consume(Probe::new())).await?;
    let before = applied(&scene, "probe").await?.len();
    let requests_beside = requests(ctx, &service.db, writes).await?;
    let applied_meanwhile = applied(&scene, "probe").await?.len() - before;

    // And with a second process that never rests: another pool on the same file is the same to SQLite.
    let second = Db::new(&scene.settings, &Metrics::new())?;
    second.connect(ctx).await?;
    let over = Arc::new(AtomicBool::new(false));
    let hot = {
        let (second, over, ctx) = (second.clone(), over.clone(), ctx.clone());
        tokio::spawn(async move {
            let mut written = 0_u64;
            while !over.load(Ordering::Relaxed) {
                second.query("INSERT INTO written (caller) VALUES (99)").execute(&ctx).await?;
                written += 1;
            }
            Ok::<_, Error>(written)
        })
    };
    let requests_beside_both = requests(ctx, &service.db, writes).await?;
    quiet(&scene, &service.events).await?;
    over.store(true, Ordering::Relaxed);
    let by_second = hot.await.map_err(Error::from_any)??;

    assert!(applied_meanwhile > 0, "consumers went on beside {} requests", writes * CALLERS);
    assert!(by_second > 0, "the second process got its turns");
    let p99 = |times: &[Duration]| times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    println!(
        "sqlite, p99 of a write of {CALLERS} callers: alone {:.1?}, beside consumers {:.1?}, beside consumers and a \
         second process {:.1?}; {events} events alone {consumers_alone:.1?}, {applied_meanwhile} applied beside \
         {} writes; the second process wrote {by_second} rows",
        p99(&requests_alone),
        p99(&requests_beside),
        p99(&requests_beside_both),
        writes * CALLERS,
    );
    service.stop(Duration::from_secs(20)).await;
    publisher.stop(Duration::from_secs(20)).await;
    Ok(())
}

/// How long each of the callers' writes took, the shortest first. None may fail: a locked database is nobody's business.
async fn requests(ctx: &Context, db: &Db, writes: usize) -> Result<Vec<Duration>> {
    let callers = (0..CALLERS).map(|caller| async move {
        let mut times = Vec::with_capacity(writes);
        for _ in 0..writes {
            let began = Instant::now();
            db.transaction(ctx, |tx| async move {
                let insert = "INSERT INTO written (caller) VALUES ($1)";
                tx.query(insert).bind(i64::try_from(caller).unwrap()).execute(ctx).await
            })
            .await?;
            times.push(began.elapsed());
        }
        Ok::<_, Error>(times)
    });
    let mut times: Vec<Duration> = futures_util::future::try_join_all(callers).await?.into_iter().flatten().collect();
    times.sort_unstable();
    Ok(times)
}
