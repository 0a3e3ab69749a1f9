//! [`Producer`]: publishes under concurrency, undoes some of it on purpose, and goes on through every error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conformance::chaos::fleet::{REFUSED, TOOK, UNDONE, UNKNOWN};
use conformance::chaos::history::Temper;
use conformance::chaos::random::Random;
use mainstay::prelude::*;
use mainstay::sql::{CommitUnknown, Isolation, TxOptions};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::Step;
use crate::settings::Settings;

/// How many transactions in a hundred are undone at their end, and how many begin with a savepoint that is.
const UNDO: u64 = 8;
const SAVEPOINT: u64 = 5;
/// How the producer knows its own error from those of the framework, none of which has this code.
const ON_PURPOSE: Code = Code::OutOfRange;
/// A transaction without a deadline would hide one that hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// The loop, as a part of the service.
pub(crate) struct Producer {
    settings: Settings,
    db: Db,
    running: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    took: Took,
}

/// How long each transaction took that was committed, in microseconds.
type Took = Arc<Mutex<Vec<u64>>>;

/// What one transaction is to do; the same in each of its attempts.
struct Plan {
    steps: Vec<(String, Uuid, Temper)>,
    phantom: Option<(String, Uuid)>,
    undo: bool,
    options: TxOptions,
}

impl Producer {
    pub(crate) fn new(settings: &Settings, db: Db) -> Self {
        let (running, ended) = (watch::Sender::new(true), watch::Sender::new(false));
        Self { settings: settings.clone(), db, running, ended, took: Arc::default() }
    }
}

impl Component for Producer {
    fn name(&self) -> &str {
        "producer"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> futures_util::future::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut group = Group::new(ctx);
            for task in 0..self.settings.tasks {
                let (settings, db, running) = (self.settings.clone(), self.db.clone(), self.running.subscribe());
                let took = self.took.clone();
                group.spawn(move |ctx| produce(ctx, settings, db, running, task, took)).await;
            }
            let outcome = group.wait().await;
            tell(&self.took);
            self.ended.send_replace(true);
            outcome.map(drop)
        })
    }

    fn stop<'a>(&'a self, ctx: &'a Context) -> futures_util::future::BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            self.running.send_replace(false);
            let mut ended = self.ended.subscribe();
            let finished = ctx.run(ended.wait_for(|ended| *ended)).await.is_ok();
            if finished { Vec::new() } else { vec!["a producer's transaction".to_owned()] }
        })
    }
}

async fn produce(
    ctx: Context,
    settings: Settings,
    db: Db,
    mut running: watch::Receiver<bool>,
    task: u64,
    took: Took,
) -> Result<()> {
    let mut random = Random::named(settings.seed, &format!("producer {} {task}", settings.incarnation));
    let pause = Duration::from_millis(1_000 * settings.tasks / settings.rate.max(1));
    let mut beat = tokio::time::interval(pause.max(Duration::from_millis(1)));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while *running.borrow() {
        let plan = Plan::new(&settings, &mut random);
        let ctx = ctx.with_timeout(DEADLINE);
        let began = Instant::now();
        match publish(&ctx, &db, &plan).await {
            Ok(()) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                took.lock().unwrap_or_else(PoisonError::into_inner).push(micros);
            }
            Err(error) if error.is::<CommitUnknown>() => {
                tracing::warn!(events = plan.events(), error = error.report().to_string(), "{UNKNOWN}");
            }
            Err(error) if error.code() == ON_PURPOSE => tracing::info!(events = plan.events(), "{UNDONE}"),
            Err(error) => {
                tracing::warn!(code = ?error.code(), error = error.report().to_string(), "{REFUSED}");
                tracing::info!(events = plan.events(), "{UNDONE}");
            }
        }
        if let Some((_, phantom)) = plan.phantom {
            tracing::info!(events = phantom.to_string(), "{UNDONE}");
        }
        tokio::select! {
            _ = beat.tick() => {}
            _ = running.changed() => {}
        }
    }
    Ok(())
}

fn tell(took: &Took) {
    let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    tracing::info!(count = took.len(), median_us = at(50), p99_us = at(99), "{TOOK}");
}

impl Plan {
    fn new(settings: &Settings, random: &mut Random) -> Self {
        let key = |random: &mut Random| format!("key-{}", random.within(0..settings.keys));
        let count = random.within(1..4);
        let mut steps = Vec::new();
        for _ in 0..count {
            let wild = settings.wildest > 0 && random.chance(settings.wild);
            let slow = settings.slow > 0 && random.chance(settings.slow);
            let temper = if slow {
                Temper::Slow
            } else if wild {
                Temper::WILD[random.index(settings.wildest.min(Temper::WILD.len()))]
            } else {
                Temper::Tame
            };
            steps.push((key(random), Uuid::new_v4(), temper));
        }
        if !settings.shuffle {
            steps.sort_by(|a, b| a.0.cmp(&b.0)); // so that counters are locked in one order by everybody
        }
        let phantom = random.chance(SAVEPOINT).then(|| (key(random), Uuid::new_v4()));
        let options = TxOptions::new();
        let options = if settings.serializable { options.isolation(Isolation::Serializable) } else { options };
        Self { steps, phantom, undo: random.chance(UNDO), options }
    }

    /// The ids of its events, but not of the phantom.
    fn events(&self) -> String {
        self.steps.iter().map(|(_, id, _)| id.to_string()).collect::<Vec<_>>().join(" ")
    }
}

async fn publish(ctx: &Context, db: &Db, plan: &Plan) -> Result<()> {
    db.transaction_with(ctx, plan.options, |tx| async move {
        if let Some((key, event_id)) = &plan.phantom {
            let undone = tx.transaction(ctx, |tx| async move { phantom(ctx, &tx, key, *event_id).await }).await;
            // What the savepoint undid is forgotten; what the database said about it isn't.
            undone.or_else(|error| if error.code() == ON_PURPOSE { Ok(()) } else { Err(error) })?;
        }
        for (key, event_id, temper) in &plan.steps {
            let kseq = next(ctx, &tx, key).await?;
            let step = Step { key: key.clone(), kseq, event_id: *event_id, temper: temper.code() };
            step.send(ctx, &tx).await?;
        }
        if plan.undo { Err(Error::new(ON_PURPOSE, "undone on purpose")) } else { Ok(()) }
    })
    .await
}

/// The next number of a key. Its row stays locked to the end of the transaction.
pub(crate) async fn next(ctx: &Context, tx: &Tx, key: &str) -> Result<i64> {
    tx.query("UPDATE key_counters SET kseq = kseq + 1 WHERE event_key = $1").bind(key).execute(ctx).await?;
    tx.query("SELECT kseq FROM key_counters WHERE event_key = $1").bind(key).one(ctx).await
}

/// Publishes something and fails. It locks nothing, so as not to add deadlocks of its own.
async fn phantom(ctx: &Context, tx: &Tx, key: &str, event_id: Uuid) -> Result<()> {
    let temper = Temper::Tame.code();
    Step { key: key.to_owned(), kseq: -1, event_id, temper }.send(ctx, tx).await?;
    Err(Error::new(ON_PURPOSE, "undone on purpose"))
}
