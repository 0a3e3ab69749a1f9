//! Services that meet at a broker which is a server of its own.

use std::time::Duration;

use mainstay_core::{Component, Context, Result};
use mainstay_sql::Db;
use mainstay_sql::testing::Scene;
use mainstay_telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Probe, Service, Setup, Step, applied_count, assert_in_order, prepare, publish, quiet};
use crate::Events;

const STOP: Duration = Duration::from_secs(20);

/// A service with a database that is in memory.
struct Elsewhere {
    events: Events,
    steps: mpsc::UnboundedReceiver<(String, i64)>,
    running: JoinHandle<Result<()>>,
}

impl Elsewhere {
    async fn start(ctx: &Context, name: &str, setup: Setup) -> Result<Self> {
        let db = Db::memory();
        db.query("CREATE TABLE applied (id INTEGER PRIMARY KEY, grp TEXT, event_key TEXT, number BIGINT)")
            .execute(ctx)
            .await?;
        let mut events = Events::new(&db, setup.settings, name, &Metrics::new())?;
        if let Some(broker) = setup.broker {
            events = events.through(broker)?;
        }
        let (seen, steps) = mpsc::unbounded_channel();
        events.consume(Probe::doing(move |_, step, _| {
            let _ = seen.send((step.key.clone(), step.number));
            async { Ok(()) }
        }))?;
        events.start(ctx).await?;
        let running = tokio::spawn({
            let (events, ctx) = (events.clone(), ctx.clone());
            async move { events.run(&ctx).await }
        });
        Ok(Self { events, steps, running })
    }

    /// Waits for so many steps of each key, each once and in order.
    async fn sees(&mut self, ctx: &Context, keys: &[&str], count: i64) -> Result<()> {
        let mut steps = Vec::new();
        while steps.len() < keys.len() * usize::try_from(count).unwrap() {
            steps.push(ctx.run(self.steps.recv()).await?.unwrap());
        }
        assert_in_order(&steps, keys, count);
        Ok(())
    }

    async fn stop(self, ctx: &Context) -> Result<()> {
        assert!(self.events.stop(ctx).await.is_empty());
        self.running.await.unwrap()
    }
}

pub(super) async fn services_with_databases_of_their_own_each_get_every_event(
    scene: Scene,
    setup: Setup,
) -> Result<()> {
    prepare(&scene).await?;
    let ctx = &scene.ctx;
    let service = Service::start(&scene, setup.clone(), |events| events.consume(Probe::new())).await?;
    let mut other = Elsewhere::start(ctx, "other", setup).await?;
    publish(ctx, &service.db, (0..30).map(|number| Step::new("a", number))).await?;
    assert_in_order(&applied_count(&scene, "probe", 30).await?, &["a"], 30);
    other.sees(ctx, &["a"], 30).await?;
    quiet(&scene, &service.events).await?;
    other.stop(ctx).await?;
    service.stop(STOP).await;
    Ok(())
}

pub(super) async fn services_that_differ_in_partitions_share_a_topic(scene: Scene, setup: Setup) -> Result<()> {
    const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    prepare(&scene).await?;
    let ctx = &scene.ctx;
    let with = |partitions| setup.clone().with(|settings| settings.partitions = partitions);
    // The first one makes the topic: there are fewer streams than the publisher has partitions, and more than the last has.
    let mut two = Elsewhere::start(ctx, "two", with(2)).await?;
    let service = Service::start(&scene, with(4), |events| events.consume(Probe::new())).await?;
    let mut one = Elsewhere::start(ctx, "one", with(1)).await?;
    for number in 0..10 {
        publish(ctx, &service.db, KEYS.map(|key| Step::new(key, number))).await?;
    }
    assert_in_order(&applied_count(&scene, "probe", 80).await?, &KEYS, 10);
    two.sees(ctx, &KEYS, 10).await?;
    one.sees(ctx, &KEYS, 10).await?;
    quiet(&scene, &service.events).await?;
    one.stop(ctx).await?;
    two.stop(ctx).await?;
    service.stop(STOP).await;
    Ok(())
}
