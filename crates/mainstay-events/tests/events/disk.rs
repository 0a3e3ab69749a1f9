//! Runs that end because the database has no space: none is counted against its event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_events::testing::{Probe, Service, Step, applied_count, eventually, prepare, publish, quick, quiet};
use mainstay_events::{Consumer, Envelope, EventsSettings};
use mainstay_sql::Tx;
use mainstay_sql::testing::Scene;
use tokio::sync::{Semaphore, mpsc};

const STOP: Duration = Duration::from_secs(20);

/// How a run goes.
enum Run {
    Well,
    /// By the event's fault.
    Badly,
    /// A statement finds the disk full.
    NoSpace,
}

/// Runs as a case tells it, and writes nothing down.
#[derive(Clone)]
struct Unlucky(Arc<dyn Fn(Step, u32) -> BoxFuture<'static, Run> + Send + Sync>);

impl Unlucky {
    fn doing<F, Fut>(run: F) -> Self
    where
        F: Fn(Step, u32) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Run> + Send + 'static,
    {
        Self(Arc::new(move |step, attempt| Box::pin(run(step, attempt))))
    }

    /// Fails once by itself; from then on tells of each run and goes on, into a full disk, when it may.
    fn again_and_again() -> (Self, mpsc::UnboundedReceiver<u32>, Arc<Semaphore>) {
        let ((runs, begun), go_on) = (mpsc::unbounded_channel(), Arc::new(Semaphore::new(0)));
        let gate = go_on.clone();
        let unlucky = Self::doing(move |_, attempt| {
            let (runs, gate) = (runs.clone(), gate.clone());
            async move {
                if attempt == 1 {
                    return Run::Badly;
                }
                runs.send(attempt).unwrap();
                gate.acquire().await.unwrap().forget();
                Run::NoSpace
            }
        });
        (unlucky, begun, go_on)
    }
}

impl Consumer for Unlucky {
    type Event = Step;
    const GROUP: &'static str = "probe";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        match (self.0)(step, ctx.value::<Envelope>().unwrap().attempt).await {
            Run::Well => Ok(()),
            Run::Badly => Err(Error::unavailable("not this time")),
            Run::NoSpace => {
                let full = "DO $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$";
                tx.query(full).execute(ctx).await.map(drop)
            }
        }
    }
}

/// Everything is applied in the end, and nobody was blamed.
async fn all_is_applied(scene: &Scene, settings: EventsSettings, count: usize) -> Result<()> {
    let service = Service::start(scene, settings, |events| events.consume(Probe::new())).await?;
    applied_count(scene, "probe", count).await?;
    quiet(scene, &service.events).await?;
    assert!(service.events.dead_letters(&scene.ctx, None, 0, 10).await?.is_empty());
    service.stop(STOP).await;
    Ok(())
}

pub(crate) async fn what_a_full_disk_ends_is_not_counted_though_the_service_stops(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let settings = EventsSettings { max_attempts: 3, ..quick() };
    let (unlucky, mut begun, go_on) = Unlucky::again_and_again();
    let publisher = Service::start(&scene, settings.clone(), |_| Ok(())).await?;
    publish(&scene.ctx, &publisher.db, [Step::new("a", 0)]).await?;
    for _ in 0..4 {
        let consumer = unlucky.clone();
        let service = Service::start(&scene, settings.clone(), |events| events.consume(consumer)).await?;
        assert_eq!(scene.ctx.run(begun.recv()).await?, Some(2), "the first one that is counted, each time");
        // Whoever could take the count back is asked to stop first.
        tokio::join!(service.stop(STOP), async { go_on.add_permits(1) });
    }
    all_is_applied(&scene, settings, 1).await?;
    publisher.stop(STOP).await;
    Ok(())
}

pub(crate) async fn a_full_disk_blames_nobody_though_the_partition_is_anothers_then(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let settings = EventsSettings { partitions: 1, ..quick() };
    let (unlucky, mut begun, go_on) = Unlucky::again_and_again();
    let service = Service::start(&scene, settings.clone(), |events| events.consume(unlucky)).await?;
    publish(&scene.ctx, &service.db, [Step::new("a", 0)]).await?;
    assert_eq!(scene.ctx.run(begun.recv()).await?, Some(2));
    // Another process has it, which does nothing.
    let taken = "UPDATE mainstay_event_leases SET owner = gen_random_uuid(), until_at = $1 WHERE name = 'probe'";
    scene.db.query(taken).bind(i64::MAX).execute(&scene.ctx).await?;
    eventually(&scene.ctx, async || {
        let held = service.metrics.render().lines().any(|line| line == r#"events_leases{name="probe"} 0"#);
        Ok(held.then_some(()))
    })
    .await?;
    go_on.add_permits(1);
    eventually(&scene.ctx, async || {
        let attempt: i64 = scene.db.query("SELECT attempt FROM mainstay_event_retries").one(&scene.ctx).await?;
        Ok((attempt == 1).then_some(()))
    })
    .await?;
    service.stop(STOP).await;
    scene.db.query(taken).bind(0).execute(&scene.ctx).await?;
    all_is_applied(&scene, settings, 1).await
}

pub(crate) async fn a_full_disk_blames_none_of_those_that_were_run_together(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    // Nothing is due again by itself.
    let pause = Duration::from_secs(3_600);
    let settings = EventsSettings { max_attempts: 3, partitions: 1, retry_min: pause, retry_max: pause, ..quick() };
    let (runs, mut begun) = mpsc::unbounded_channel();
    let number = Arc::new(AtomicU32::new(0));
    let unlucky = Unlucky::doing(move |step, attempt| {
        let run = match step.key.as_str() {
            "warm" => Run::Well,
            _ => {
                runs.send(attempt).unwrap();
                // Three alone, as they come; then together, by somebody's fault, and the first one alone, by nobody's.
                match number.fetch_add(1, Ordering::SeqCst) {
                    0..3 => Run::Badly,
                    number if number % 2 == 1 => Run::Badly,
                    _ => Run::NoSpace,
                }
            }
        };
        async { run }
    });
    let service = Service::start(&scene, settings.clone(), |events| events.consume(unlucky)).await?;
    let (ctx, db) = (&scene.ctx, &service.db);
    // Transactions are as large as the ones before have gone well.
    publish(ctx, db, (0..300).map(|number| Step::new("warm", number))).await?;
    quiet(&scene, &service.events).await?;
    publish(ctx, db, ["a", "b", "c"].map(|key| Step::new(key, 0))).await?;
    for _ in 0..3 {
        assert_eq!(ctx.run(begun.recv()).await?, Some(1));
    }
    eventually(ctx, async || {
        let waiting: i64 = db.query("SELECT count(*) FROM mainstay_event_retries").one(ctx).await?;
        Ok((waiting == 3).then_some(()))
    })
    .await?;
    // As if they had been redriven, all at once.
    db.query("UPDATE mainstay_event_retries SET attempt = 0, error = NULL, due_at = 0").execute(ctx).await?;
    for _ in 0..8 {
        assert_eq!(ctx.run(begun.recv()).await?, Some(1), "the first one that is counted, each time");
    }
    service.stop(STOP).await;
    let settings = EventsSettings { retry_min: Duration::from_millis(5), ..settings };
    all_is_applied(&scene, settings, 3).await
}

pub(crate) async fn a_full_disk_blames_nobody_whose_failure_cannot_be_written_down(scene: Scene) -> Result<()> {
    prepare(&scene).await?;
    let settings = EventsSettings { max_attempts: 3, ..quick() };
    let (runs, mut begun) = mpsc::unbounded_channel();
    let go_on = Arc::new(Semaphore::new(0));
    let gate = go_on.clone();
    let unlucky = Unlucky::doing(move |_, attempt| {
        let (runs, gate) = (runs.clone(), gate.clone());
        async move {
            if attempt > 1 {
                runs.send(attempt).unwrap();
                gate.acquire().await.unwrap().forget();
            }
            Run::Badly
        }
    });
    let service = Service::start(&scene, settings.clone(), |events| events.consume(unlucky)).await?;
    let (ctx, db) = (&scene.ctx, &service.db);
    for full in [
        "CREATE TABLE disk AS SELECT true AS is_full",
        "CREATE FUNCTION write_to_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF (SELECT is_full FROM disk) THEN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END IF; \
         RETURN NEW; END $$",
        // Where a failure is written down; counts are another statement.
        "CREATE TRIGGER write_to_disk BEFORE UPDATE OF error ON mainstay_event_retries \
         FOR EACH ROW EXECUTE FUNCTION write_to_disk()",
    ] {
        db.query(full).execute(ctx).await?;
    }
    publish(ctx, db, [Step::new("a", 0)]).await?;
    for _ in 0..4 {
        assert_eq!(ctx.run(begun.recv()).await?, Some(2), "the first one that is counted, each time");
        go_on.add_permits(1);
    }
    assert_eq!(ctx.run(begun.recv()).await?, Some(2));
    db.query("UPDATE disk SET is_full = false").execute(ctx).await?;
    tokio::join!(service.stop(STOP), async { go_on.add_permits(1) });
    all_is_applied(&scene, settings, 1).await
}
