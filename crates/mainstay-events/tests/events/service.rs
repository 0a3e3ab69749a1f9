//! The scene: services that share a database, each with its own pool, as processes have them.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Component, Context, Result};
use mainstay_events::{Consumer, Event, Events, EventsSettings, Publish};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Tx};
use mainstay_telemetry::Metrics;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// The event of most cases.
#[derive(Clone, Debug, Deserialize, Event, Serialize)]
#[event(type = "test.step", key = "key")]
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) number: i64,
}

impl Step {
    pub(crate) fn new(key: impl Into<String>, number: i64) -> Self {
        Self { key: key.into(), number }
    }
}

/// Writes down what it is given, in the order in which it is given it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record;

impl Consumer for Record {
    type Event = Step;
    const GROUP: &'static str = "record";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        record(ctx, tx, Self::GROUP, &step).await
    }
}

pub(crate) async fn record(ctx: &Context, tx: &Tx, group: &'static str, step: &Step) -> Result<()> {
    let insert = "INSERT INTO applied (grp, event_key, number) VALUES ($1, $2, $3)";
    tx.query(insert).bind(group).bind(&step.key).bind(step.number).execute(ctx).await.map(drop)
}

/// Settings for tests: nothing waits long.
pub(crate) fn quick() -> EventsSettings {
    EventsSettings {
        lease: Duration::from_secs(1),
        poll_interval: Duration::from_millis(20),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
        partitions: 4,
        ..EventsSettings::default()
    }
}

/// A service of the scene's database: started, running.
pub(crate) struct Service {
    pub(crate) db: Db,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    running: JoinHandle<Result<()>>,
}

impl Service {
    pub(crate) async fn start(
        scene: &Scene,
        settings: EventsSettings,
        declare: impl FnOnce(&Events) -> Result<()>,
    ) -> Result<Self> {
        let metrics = Metrics::new();
        let db = Db::new(&scene.settings, &metrics)?;
        db.connect(&scene.ctx).await?;
        let events = Events::new(&db, settings, "test", &metrics)?;
        declare(&events)?;
        events.start(&scene.ctx).await?;
        let (ctx, running) = (scene.ctx.clone(), events.clone());
        let running = tokio::spawn(async move { running.run(&ctx).await });
        Ok(Self { db, events, metrics, running })
    }

    /// Ends as a process does that is asked to.
    pub(crate) async fn stop(self, ctx: &Context) -> Vec<String> {
        let cut = self.events.stop(&ctx.with_timeout(Duration::from_secs(20))).await;
        let _ = self.running.await;
        self.db.close(&ctx.with_timeout(Duration::from_secs(5))).await;
        cut
    }

    /// Ends as a process does that is killed: nothing is finished, nothing is given back.
    pub(crate) async fn kill(self, ctx: &Context) {
        self.running.abort();
        let _ = self.running.await;
        self.db.close(&ctx.with_timeout(Duration::ZERO)).await;
    }
}

/// The table that [`Record`] writes to.
pub(crate) async fn prepare(scene: &Scene) -> Result<()> {
    let table = mainstay_sql::sql! {
        postgres: "CREATE TABLE applied (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, grp TEXT, event_key TEXT, number BIGINT)",
        mysql: "CREATE TABLE applied (id BIGINT AUTO_INCREMENT PRIMARY KEY, grp VARCHAR(100), event_key VARCHAR(100), number BIGINT)",
        sqlite: "CREATE TABLE applied (id INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT, event_key TEXT, number BIGINT)",
    };
    scene.db.query(table).execute(&scene.ctx).await.map(drop)
}

pub(crate) async fn publish(ctx: &Context, db: &Db, steps: impl IntoIterator<Item = Step>) -> Result<()> {
    let steps: Arc<Vec<Step>> = Arc::new(steps.into_iter().collect());
    db.transaction(ctx, |tx| {
        let steps = steps.clone();
        async move {
            for step in steps.iter() {
                tx.publish(step.clone())?;
            }
            Ok(())
        }
    })
    .await
}

/// What was applied, in order.
pub(crate) async fn applied(scene: &Scene, group: &str) -> Result<Vec<(String, i64)>> {
    let applied = "SELECT event_key, number FROM applied WHERE grp = $1 ORDER BY id";
    scene.db.query(applied).bind(group).all(&scene.ctx).await
}

/// Waits until `count` events were applied.
pub(crate) async fn applied_count(scene: &Scene, group: &str, count: usize) -> Result<Vec<(String, i64)>> {
    eventually(&scene.ctx, async || {
        let applied = applied(scene, group).await?;
        Ok((applied.len() >= count).then_some(applied))
    })
    .await
}

/// Asks until there is an answer; the scene's limit ends what never comes.
pub(crate) async fn eventually<T>(ctx: &Context, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        ctx.run(tokio::time::sleep(Duration::from_millis(10))).await?;
    }
}

/// Waits until nothing waits anywhere.
pub(crate) async fn quiet(scene: &Scene, events: &Events) -> Result<()> {
    eventually(&scene.ctx, async || {
        let outbox = events.outbox(&scene.ctx).await?;
        let lag = events.lag(&scene.ctx).await?;
        Ok((outbox.depth == 0 && lag.iter().all(|group| group.lag == 0 && group.retries == 0)).then_some(()))
    })
    .await
}
