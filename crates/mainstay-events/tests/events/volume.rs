//! Many events: nothing stays behind.

use std::time::Duration;

use mainstay_core::Result;
use mainstay_core::{Context, Error};
use mainstay_events::testing::{Service, Step, publish, quick, quiet};
use mainstay_events::{Consumer, EventsSettings};
use mainstay_sql::Tx;
use mainstay_sql::testing::Scene;
use tokio::time::Instant;

/// Counts, and fails now and then, so that the retries have something to hold too.
struct Count;

impl Consumer for Count {
    type Event = Step;
    const GROUP: &'static str = "count";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        let attempt = ctx.value::<mainstay_events::Envelope>().map_or(1, |envelope| envelope.attempt);
        if step.number % 1_000 == 7 && attempt == 1 {
            return Err(Error::unavailable("once"));
        }
        let key: i64 = step.key.parse().unwrap();
        let count = "UPDATE counted SET events = events + 1 WHERE part = $1";
        tx.query(count).bind(key).execute(ctx).await.map(drop)
    }
}

pub(crate) async fn many_events_leave_nothing_behind(scene: Scene) -> Result<()> {
    let long = std::env::var("MAINSTAY_LONG_TESTS").is_ok_and(|value| value == "1");
    let (total, keys) = (if long { 100_000_i64 } else { 4_000 }, 512);
    scene
        .db
        .query("CREATE TABLE counted (part BIGINT PRIMARY KEY, events BIGINT NOT NULL)")
        .execute(&scene.ctx)
        .await?;
    let rows = (0..512_i64).map(|part| mainstay_sql::values![part, 0]);
    scene.db.query("INSERT INTO counted (part, events) VALUES ($1, $2)").batch(&scene.ctx, rows).await?;

    let settings = EventsSettings { retention: Duration::ZERO, batch: 32, partitions: 16, ..quick() };
    let service = Service::start(&scene, settings, |events| events.consume(Count)).await?;
    let began = Instant::now();
    let publishers = (0..4_i64).map(|publisher| {
        let (scene, db) = (&scene, &service.db);
        async move {
            for first in (0..total / 4).step_by(50) {
                let steps =
                    (first..first + 50).map(|number| Step::new((number % keys).to_string(), number * 4 + publisher));
                publish(&scene.ctx, db, steps).await?;
            }
            Ok::<_, Error>(())
        }
    });
    futures_util::future::try_join_all(publishers).await?;
    let published = began.elapsed();
    quiet(&scene, &service.events).await?;
    let all = began.elapsed();
    let counted: i64 = {
        let counts: Vec<i64> = scene.db.query("SELECT events FROM counted").all(&scene.ctx).await?;
        counts.into_iter().sum()
    };
    assert_eq!(counted, total);
    // The log is cleaned in rounds; all else is empty by now.
    mainstay_events::testing::eventually(&scene.ctx, async || {
        let left: i64 = scene.db.query("SELECT count(*) FROM mainstay_event_log").one(&scene.ctx).await?;
        Ok((left == 0).then_some(()))
    })
    .await?;
    for (table, most) in [
        ("SELECT count(*) FROM mainstay_outbox", 0_i64),
        ("SELECT count(*) FROM mainstay_event_retries", 0),
        ("SELECT count(*) FROM mainstay_dead_letters", 0),
        ("SELECT count(*) FROM mainstay_inbox", 0),
        ("SELECT count(*) FROM mainstay_event_partitions", 16),
        ("SELECT count(*) FROM mainstay_event_cursors", 16),
        ("SELECT count(*) FROM mainstay_event_leases", 48),
        ("SELECT count(*) FROM mainstay_event_members", 3),
    ] {
        let rows: i64 = scene.db.query(table).one(&scene.ctx).await?;
        assert!(rows <= most, "{table}: {rows}");
    }
    let rate = |took: Duration| f64::from(i32::try_from(total).unwrap_or(i32::MAX)) / took.as_secs_f64();
    println!(
        "{}: {total} events, {:.0}/s published, {:.0}/s published and applied",
        scene.db.dialect(),
        rate(published),
        rate(all)
    );
    service.stop(Duration::from_secs(20)).await;
    Ok(())
}
