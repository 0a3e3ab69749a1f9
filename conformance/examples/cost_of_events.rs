//! What an event costs: published in a transaction of PostgreSQL, carried by a broker, applied by a consumer in another
//! transaction. Beside it the floor, what the bare client has confirmed by the same broker, and the same transactions without
//! events. In interleaved rounds, one process, servers on loopback; the brokers are its own. `just cost-of-events` runs it.

#![allow(clippy::print_stdout, reason = "a program for measuring")]
#![allow(clippy::unwrap_used, reason = "a program for measuring, which ends where something is wrong")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use conformance::chaos::broker::{BrokerServer, Carrier};
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use mainstay::events::broker::Broker;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay::telemetry::Metrics;
use mainstay_events::EventsSettings;
use mainstay_nats::Nats;
use mainstay_rabbitmq::RabbitMq;
use mainstay_sql::testing::TestDatabase;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

const ROUNDS: usize = 5;
/// What a burst of each kind is at most: so many, and so long.
const EVENTS: i64 = 1_000;
const BURST: Duration = Duration::from_secs(4);
/// Transactions that are under way together.
const TASKS: i64 = 8;
/// Messages that the bare client has on the way together: as many as our relay.
const BATCH: usize = 500;
/// Where latency is measured: far from what the machine can do. A machine that is too busy for this pace shows queues.
const SAMPLES: i64 = 100;
const PACE: Duration = Duration::from_millis(25);
/// Of the topic of the bare client, as ours has them.
const STREAMS: u32 = 16;
const BARE: &str = "bench.bare";
const PADDING: usize = 150;

#[derive(Clone, Deserialize, Event, Serialize)]
#[event(type = "bench.step", key = "key")]
struct Step {
    key: String,
    number: i64,
    padding: String,
}

impl Step {
    fn new(number: i64) -> Self {
        Self { key: format!("order-{}", number % 1_000), number, padding: "x".repeat(PADDING) }
    }
}

/// When each event was applied.
struct Applied {
    at: Mutex<HashMap<i64, Instant>>,
    count: watch::Sender<usize>,
}

struct Apply(Arc<Applied>);

impl Consumer for Apply {
    type Event = Step;
    const GROUP: &'static str = "apply";

    async fn handle(&self, ctx: &Context, tx: &Tx, step: Step) -> Result<()> {
        tx.query("INSERT INTO applied (number) VALUES ($1)").bind(step.number).execute(ctx).await?;
        let applied = self.0.clone();
        tx.after_commit(move || {
            applied.at.lock().unwrap().insert(step.number, Instant::now());
            applied.count.send_modify(|count| *count += 1);
        })
    }
}

/// One round: events, messages or transactions a second, and how long each took, in milliseconds.
#[derive(Default)]
struct Round {
    bare: f64,
    transactions: f64,
    ours: f64,
    bare_took: Vec<f64>,
    ours_took: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    load();
    for (name, carrier) in [("NATS", Carrier::Nats), ("RabbitMQ", Carrier::RabbitMq)] {
        let mut server = BrokerServer::start(carrier).await?.unwrap();
        let rounds = compare(carrier, &server.url_by(server.address())).await?;
        tell(name, &rounds);
        server.stop(true).await;
    }
    load();
    Ok(())
}

async fn compare(carrier: Carrier, url: &str) -> Result<Vec<Round>> {
    let ctx = Context::background();
    let bare = Bare::connect(carrier, url).await?;
    let database = TestDatabase::create(Dialect::Postgres).await?;
    let db = database.connect(&ctx).await?;
    for table in ["CREATE TABLE published (number BIGINT NOT NULL)", "CREATE TABLE applied (number BIGINT NOT NULL)"] {
        db.query(table).execute(&ctx).await?;
    }
    let events = Events::new(&db, EventsSettings::default(), "bench", &Metrics::new())?;
    let events = match carrier {
        Carrier::Nats => events.through(Nats::new(url)?)?,
        _ => events.through(RabbitMq::new(url)?)?,
    };
    let applied = Arc::new(Applied { at: Mutex::default(), count: watch::Sender::new(0) });
    events.consume(Apply(applied.clone()))?;
    events.start(&ctx).await?;
    let (running, running_ctx) = (events.clone(), ctx.clone());
    let running = tokio::spawn(async move { running.run(&running_ctx).await });

    let ours = Ours { db: db.clone(), applied };
    let mut next = 0;
    next += ours.burst(next, true).await.1; // warm
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut round = Round { bare: bare.burst().await, bare_took: bare.paced().await, ..Round::default() };
        round.transactions = ours.burst(next, false).await.0;
        let (rate, count) = ours.burst(next, true).await;
        (round.ours, next) = (rate, next + count);
        round.ours_took = ours.paced(next).await;
        next += SAMPLES;
        rounds.push(round);
    }
    assert!(events.dead_letters(&ctx, None, 0, 1).await?.is_empty());
    events.stop(&ctx.with_timeout(Duration::from_secs(20))).await;
    running.await.unwrap()?;
    db.close(&ctx).await;
    database.remove().await?;
    Ok(rounds)
}

/// The service.
#[derive(Clone)]
struct Ours {
    db: Db,
    applied: Arc<Applied>,
}

impl Ours {
    /// A transaction as a request makes it, with an event or without.
    async fn transact(&self, number: i64, publish: bool) {
        let ctx = Context::background();
        let written = self.db.transaction(&ctx, |tx| async move {
            tx.query("INSERT INTO published (number) VALUES ($1)").bind(number).execute(tx.context()).await?;
            if publish {
                tx.publish(Step::new(number))?;
            }
            Ok(())
        });
        written.await.unwrap();
    }

    /// As many transactions as a burst has, from `first` on, until all is applied: how many a second, and how many.
    async fn burst(&self, first: i64, publish: bool) -> (f64, i64) {
        let (began, before) = (Instant::now(), *self.applied.count.borrow());
        let tasks = (0..TASKS).map(|task| {
            let ours = self.clone();
            tokio::spawn(async move {
                let mut done = 0;
                // Numbers without gaps are not needed: nobody counts them.
                for number in (0..EVENTS).filter(|number| number % TASKS == task) {
                    if began.elapsed() > BURST {
                        break;
                    }
                    ours.transact(first + number, publish).await;
                    done += 1;
                }
                done
            })
        });
        let done: usize = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
        if publish {
            self.until(before + done).await;
        }
        (done as f64 / began.elapsed().as_secs_f64(), EVENTS)
    }

    /// One after another at a pace, from `first` on: from the beginning of its transaction until each was applied.
    async fn paced(&self, first: i64) -> Vec<f64> {
        let before = *self.applied.count.borrow();
        let mut ticks = interval(PACE);
        let mut began = Vec::new();
        let mut tasks = Vec::new();
        for number in first..first + SAMPLES {
            ticks.tick().await;
            began.push((number, Instant::now()));
            let ours = self.clone();
            tasks.push(tokio::spawn(async move { ours.transact(number, true).await }));
        }
        join_all(tasks).await;
        self.until(before + began.len()).await;
        let at = self.applied.at.lock().unwrap();
        began.into_iter().map(|(number, began)| millis(at[&number] - began)).collect()
    }

    async fn until(&self, count: usize) {
        self.applied.count.subscribe().wait_for(|applied| *applied >= count).await.unwrap();
    }
}

/// The client that the adapter is made of, without the adapter.
#[derive(Clone)]
enum Bare {
    Nats(jetstream::Context),
    RabbitMq(Channel),
}

impl Bare {
    /// With a topic that is made as ours are.
    async fn connect(carrier: Carrier, url: &str) -> Result<Self> {
        let ctx = Context::background();
        Ok(match carrier {
            Carrier::Nats => {
                Nats::new(url)?.open(&ctx, BARE, STREAMS).await?;
                Self::Nats(jetstream::new(async_nats::connect(url).await.unwrap()))
            }
            _ => {
                RabbitMq::new(url)?.open(&ctx, BARE, STREAMS).await?;
                let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
                let channel = connection.create_channel().await.unwrap();
                channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
                Self::RabbitMq(channel)
            }
        })
    }

    /// Until it is confirmed.
    async fn send(&self, number: i64, payload: &[u8]) {
        let stream = number % i64::from(STREAMS);
        match self {
            Self::Nats(js) => {
                let sent = js.publish(format!("{BARE}.{stream}"), payload.to_vec().into()).await.unwrap();
                sent.await.unwrap();
            }
            Self::RabbitMq(channel) => {
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let sent = channel.basic_publish(BARE.into(), stream.to_string().into(), options, payload, properties);
                assert!(matches!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(_)));
            }
        }
    }

    /// Confirmed messages a second, in batches.
    async fn burst(&self) -> f64 {
        let payload = serde_json::to_vec(&Step::new(0)).unwrap();
        let began = Instant::now();
        let numbers: Vec<i64> = (0..EVENTS).collect();
        for batch in numbers.chunks(BATCH) {
            join_all(batch.iter().map(|number| self.send(*number, &payload))).await;
        }
        EVENTS as f64 / began.elapsed().as_secs_f64()
    }

    /// At the pace of ours: until each was confirmed.
    async fn paced(&self) -> Vec<f64> {
        let mut ticks = interval(PACE);
        let mut tasks = Vec::new();
        for number in 0..SAMPLES {
            ticks.tick().await;
            let bare = self.clone();
            tasks.push(tokio::spawn(async move {
                let (payload, began) = (serde_json::to_vec(&Step::new(number)).unwrap(), Instant::now());
                bare.send(number, &payload).await;
                millis(began.elapsed())
            }));
        }
        join_all(tasks).await.into_iter().map(Result::unwrap).collect()
    }
}

fn tell(name: &str, rounds: &[Round]) {
    let of = |value: fn(&Round) -> f64| sorted(rounds.iter().map(value).collect());
    let range = |values: Vec<f64>, digits: usize| {
        let (first, last) = (values[0], values[values.len() - 1]);
        format!("{:.digits$} [{first:.digits$}-{last:.digits$}]", percentile(&values, 50))
    };
    println!("{name}, a second: bare {}", range(of(|round| round.bare), 0));
    println!("{name}, a second: transactions alone {}", range(of(|round| round.transactions), 0));
    println!("{name}, a second: events {}", range(of(|round| round.ours), 0));
    println!("{name}: events to bare {}", range(of(|round| round.ours / round.bare), 3));
    println!("{name}: events to transactions {}", range(of(|round| round.ours / round.transactions), 3));
    for (what, took) in
        [("bare", all(rounds, |round| &round.bare_took)), ("events", all(rounds, |round| &round.ours_took))]
    {
        println!("{name}, ms: {what} p50 {:.1}, p99 {:.1}", percentile(&took, 50), percentile(&took, 99));
    }
}

fn all(rounds: &[Round], took: fn(&Round) -> &Vec<f64>) -> Vec<f64> {
    sorted(rounds.iter().flat_map(|round| took(round).iter().copied()).collect())
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn load() {
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}
