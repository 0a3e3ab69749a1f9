//! The scene: services that share a database, each with a pool of its own, as processes have them.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{BoxFuture, Code, Component, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{DatabaseSettings, Db, Tx, sql};
use mainstay_telemetry::Metrics;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::{Consumer, Envelope, Event, Events, EventsSettings, Publish};

/// How long a statement of a service may wait for a connection, or on SQLite for its turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// The event of most cases: the `number`-th step of `key`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    pub key: String,
    pub number: i64,
}

impl Event for Step {
    const TYPE: &'static str = "test.step";

    fn key(&self) -> Option<String> {
        Some(self.key.clone())
    }
}

impl Step {
    pub fn new(key: impl Into<String>, number: i64) -> Self {
        Self { key: key.into(), number }
    }
}

type Work = dyn Fn(&Context, &Step, &Envelope) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// A consumer that does what a case tells it, and then writes the step down, in the order in which steps come.
#[derive(Clone)]
pub struct Probe(Arc<Work>);

impl Probe {
    /// Writes down what it is given.
    pub fn new() -> Self {
        Self::doing(|_, _, _| async { Ok(()) })
    }

    /// Does `work` first.
    pub fn doing<F, Fut>(work: F) -> Self
    where
        F: Fn(&Context, &Step, &Envelope) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self(Arc::new(move |ctx, step, envelope| Box::pin(work(ctx, step, envelope))))
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Consumer for Probe {
    type Event = Step;
    const GROUP: &'static str = "probe";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        let envelope = ctx.value::<Envelope>().unwrap();
        (self.0)(ctx, &step, envelope).await?;
        write_down(ctx, tx, Self::GROUP, &step).await
    }
}

pub(crate) async fn write_down(ctx: &Context, tx: &Tx, group: &'static str, step: &Step) -> Result<()> {
    let insert = "INSERT INTO applied (grp, event_key, number) VALUES ($1, $2, $3)";
    tx.query(insert).bind(group).bind(&step.key).bind(step.number).execute(ctx).await.map(drop)
}

/// The table that steps are written down in. Nothing in it is unique: what is applied twice stands there twice.
///
/// # Errors
/// The database's.
pub async fn prepare(scene: &Scene) -> Result<()> {
    let table = sql! {
        postgres: "CREATE TABLE applied (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, grp TEXT, event_key TEXT, \
                   number BIGINT)",
        mysql: "CREATE TABLE applied (id BIGINT AUTO_INCREMENT PRIMARY KEY, grp VARCHAR(100), event_key VARCHAR(100), \
                number BIGINT)",
        sqlite: "CREATE TABLE applied (id INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT, event_key TEXT, number BIGINT)",
    };
    scene.db.query(table).execute(&scene.ctx).await.map(drop)
}

/// Settings under which nothing waits long.
pub fn quick() -> EventsSettings {
    EventsSettings {
        lease: Duration::from_secs(1),
        poll_interval: Duration::from_millis(20),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
        partitions: 4,
        ..EventsSettings::default()
    }
}

/// What the services of a case have in common.
#[derive(Clone)]
pub struct Setup {
    pub settings: EventsSettings,
    /// None: the embedded one.
    pub broker: Option<Arc<dyn Broker>>,
}

impl Setup {
    /// The setup of services whose events go through `broker`.
    pub fn through(broker: impl Broker, settings: EventsSettings) -> Self {
        Self { settings, broker: Some(Arc::new(broker)) }
    }

    /// The same with other settings.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut EventsSettings)) -> Self {
        change(&mut self.settings);
        self
    }
}

impl From<EventsSettings> for Setup {
    fn from(settings: EventsSettings) -> Self {
        Self { settings, broker: None }
    }
}

/// A service of the scene's database, running.
pub struct Service {
    pub db: Db,
    pub events: Events,
    pub metrics: Metrics,
    running: JoinHandle<Result<()>>,
}

impl Service {
    /// Starts a service with what `declare` declares.
    ///
    /// # Errors
    /// Those of the start.
    pub async fn start(
        scene: &Scene,
        setup: impl Into<Setup>,
        declare: impl FnOnce(&Events) -> Result<()>,
    ) -> Result<Self> {
        let metrics = Metrics::new();
        // A machine that has other things to do sheds no load here: the cases are about order, not about time.
        let patient = DatabaseSettings { acquire_timeout: PATIENCE, ..scene.settings.clone() };
        let db = Db::new(&patient, &metrics)?;
        db.connect(&scene.ctx).await?;
        let Setup { settings, broker } = setup.into();
        let mut events = Events::new(&db, settings, "test", &metrics)?;
        if let Some(broker) = broker {
            events = events.through(broker)?;
        }
        declare(&events)?;
        // As the lifecycle does: a start that misses something, or had somebody in its way, is tried again.
        while let Err(error) = events.start(&scene.ctx).await {
            if !matches!(error.code(), Code::Unavailable | Code::Aborted) {
                return Err(error);
            }
            scene.ctx.check()?;
        }
        let (ctx, running) = (scene.ctx.clone(), events.clone());
        let running = tokio::spawn(async move { running.run(&ctx).await });
        Ok(Self { db, events, metrics, running })
    }

    /// Ends as a process does that is asked to, and has `budget` for it; returns what was cut.
    pub async fn stop(self, budget: Duration) -> Vec<String> {
        let ctx = Context::background();
        let cut = self.events.stop(&ctx.with_timeout(budget)).await;
        let _ = self.running.await;
        self.db.close(&ctx.with_timeout(Duration::from_secs(5))).await;
        cut
    }

    /// Ends as a process does that is killed: nothing is finished and nothing given back.
    pub async fn kill(self) {
        self.running.abort();
        let _ = self.running.await;
        self.db.close(&Context::background().with_timeout(Duration::ZERO)).await;
    }
}

/// Publishes `steps` in one transaction.
///
/// # Errors
/// The transaction's.
pub async fn publish(ctx: &Context, db: &Db, steps: impl IntoIterator<Item = Step>) -> Result<()> {
    let steps: Vec<Step> = steps.into_iter().collect();
    let steps = &steps;
    db.transaction(ctx, |tx| async move {
        for step in steps {
            tx.publish(step.clone())?;
        }
        Ok(())
    })
    .await
}

/// What was written down for `group`, in order.
///
/// # Errors
/// The database's.
pub async fn applied(scene: &Scene, group: &str) -> Result<Vec<(String, i64)>> {
    let applied = "SELECT event_key, number FROM applied WHERE grp = $1 ORDER BY id";
    scene.db.query(applied).bind(group).all(&scene.ctx).await
}

/// Waits until `count` steps were written down for `group`.
///
/// # Errors
/// The database's, and the scene's limit.
pub async fn applied_count(scene: &Scene, group: &str, count: usize) -> Result<Vec<(String, i64)>> {
    eventually(&scene.ctx, async || {
        let applied = applied(scene, group).await?;
        Ok((applied.len() >= count).then_some(applied))
    })
    .await
}

/// Asks until there is an answer.
///
/// # Errors
/// Those of `ask`, and the end of `ctx`.
pub async fn eventually<T>(ctx: &Context, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        ctx.run(tokio::time::sleep(Duration::from_millis(10))).await?;
    }
}

/// Waits until nothing waits: not in the outbox, not in the log, not for another try.
///
/// # Errors
/// The database's, and the scene's limit.
pub async fn quiet(scene: &Scene, events: &Events) -> Result<()> {
    eventually(&scene.ctx, async || {
        let outbox = events.outbox(&scene.ctx).await?;
        let lag = events.lag(&scene.ctx).await?;
        Ok((outbox.depth == 0 && lag.iter().all(|group| group.lag == 0 && group.retries == 0)).then_some(()))
    })
    .await
}

/// Asserts that each key of `applied` has the numbers 0, 1, 2 … `count` - 1, each once and in order.
#[track_caller]
pub fn assert_in_order(applied: &[(String, i64)], keys: &[&str], count: i64) {
    for key in keys {
        let numbers: Vec<i64> = applied.iter().filter(|(name, _)| name == key).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "of the key {key}");
    }
    assert_eq!(applied.len(), keys.len() * usize::try_from(count).unwrap());
}
