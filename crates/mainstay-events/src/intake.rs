//! [`Intake`]: takes what a broker delivers into the log of the service.
//!
//! One transaction notes the ids of a batch in the inbox, writes the events that are new into the log, and moves the place
//! in the stream; then the broker is told. What comes a second time finds its id there. The batch of a process that has
//! lost its partition and doesn't know it finds another place than it left. So an event is in the log once, and a key in
//! the order of its stream, whatever leases and clocks say.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{Context, Error, Result};
use mainstay_sql::{CommitUnknown, Db, Sql, Tx, values};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{Broker, Delivery, Resume, Stream, Subscription};
use crate::clock::{clocked, millis};
use crate::dead::{Burial, Reason, bury};
use crate::engine::Engine;
use crate::failpoint::failpoint;
use crate::lease::options;
use crate::log;
use crate::message::Message;

/// As the name of leases, and as a group's among dead letters: what could not be read. No group can have it.
pub(crate) const INTAKE: &str = "(intake)";

/// Deliveries that one transaction takes in.
const TAKEN_AT_ONCE: usize = 200;

/// What one transaction of ours may take, and what a broker may need to say that a stream can be read.
const FRAME: Duration = Duration::from_secs(10);

/// Pauses while the broker or the database can't be reached.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a service takes in of one topic.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    /// Whether one of its groups wants all that is kept.
    pub(crate) from_the_oldest: bool,
}

/// Reads the streams of one lease.
pub(crate) struct Intake {
    pub(crate) engine: Arc<Engine>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) part: i32,
}

/// How long to wait after an error, and what to say.
struct Patience {
    broker: &'static str,
    topic: &'static str,
    pause: Duration,
}

/// Marks the error of a transaction that found its place in the stream moved.
#[derive(Debug)]
struct PlaceMoved;

impl fmt::Display for PlaceMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another process has taken these events in")
    }
}

impl std::error::Error for PlaceMoved {}

impl Intake {
    /// Works until `stop`, finishing the transaction in hand, or until `ctx` is done, undoing it.
    pub(crate) async fn run(self, ctx: Context, stop: CancellationToken) {
        let topics = self.engine.topics.iter().map(|topic| self.topic(&ctx, &stop, topic));
        join_all(topics).await;
    }

    /// Every `partitions`-th stream of the topic, which is one unless another service has made it with more of them.
    async fn topic(&self, ctx: &Context, stop: &CancellationToken, topic: &Topic) {
        let partitions = self.engine.leases.partitions();
        let mut patience = Patience::new(self.broker.name(), topic.name);
        let streams = loop {
            let limited = ctx.with_timeout(FRAME);
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = limited.run(self.broker.open(&limited, topic.name, partitions)) => opened.flatten(),
            };
            match opened {
                Ok(streams) => break streams,
                Err(error) if !patience.pause(ctx, stop, &error).await => return,
                Err(_) => {}
            }
        };
        let ours = (self.part.unsigned_abs()..streams).step_by(usize::try_from(partitions).unwrap_or(usize::MAX));
        join_all(ours.map(|number| self.stream(ctx, stop, topic, number))).await;
    }

    async fn stream(&self, ctx: &Context, stop: &CancellationToken, topic: &Topic, number: u32) {
        let stream = Stream { service: self.engine.outbox.source().to_owned(), topic: topic.name.to_owned(), number };
        let mut patience = Patience::new(self.broker.name(), topic.name);
        while let Err(error) = self.read(ctx, stop, &stream, topic.from_the_oldest, &mut patience).await {
            if !patience.pause(ctx, stop, &error).await {
                return;
            }
        }
    }

    /// Takes a stream in until `stop`.
    async fn read(
        &self,
        ctx: &Context,
        stop: &CancellationToken,
        stream: &Stream,
        from_the_oldest: bool,
        patience: &mut Patience,
    ) -> Result<()> {
        let (db, places) = (&self.engine.db, self.broker.traits().places);
        let name = self.broker.name();
        let known = place(ctx, db, stream).await?;
        let from = match known {
            Some((place, ref of)) if places && of.as_ref().is_none_or(|of| of == name) => Resume::After(place),
            _ if from_the_oldest => Resume::Oldest,
            _ => Resume::Newest,
        };
        let limited = ctx.with_timeout(FRAME);
        let subscribed = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            subscribed = limited.run(self.broker.subscribe(&limited, stream, from)) => subscribed,
        };
        let mut subscription = subscribed.flatten()?;
        // Where the broker keeps the place, ours only counts: up with each reader, which ends the one before.
        let mut at = if places { subscription.place() } else { known.as_ref().map_or(0, |(known, _)| known + 1) };
        begin_at(ctx, db, stream, known, (at, name)).await?;
        let most = TAKEN_AT_ONCE.min(usize::try_from(self.engine.settings.max_backlog).unwrap_or(TAKEN_AT_ONCE));
        loop {
            if !self.has_room(ctx, stop).await? {
                return Ok(());
            }
            let deliveries = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                deliveries = subscription.fetch(most) => deliveries?,
            };
            let Some(last) = deliveries.last().map(|last| last.place) else { continue };
            let next = if places { last } else { at + 1 };
            self.take_in(ctx, stream, (at, next), deliveries).await?;
            at = next;
            failpoint("before-settle");
            self.settle(&mut *subscription, last).await?;
            failpoint("after-settle");
            patience.renew();
        }
    }

    async fn settle(&self, subscription: &mut dyn Subscription, place: i64) -> Result<()> {
        let settled = timeout(FRAME, subscription.settle(place)).await;
        settled.unwrap_or_else(|_| Err(Error::unavailable("the broker didn't answer")))
    }

    /// Waits until the groups have caught up enough: what they can't take yet stays with the broker. `false`: stopped.
    async fn has_room(&self, ctx: &Context, stop: &CancellationToken) -> Result<bool> {
        let settings = &self.engine.settings;
        loop {
            if stop.is_cancelled() {
                return Ok(false);
            }
            let backlog = log::longest_backlog(ctx, &self.engine.db, settings.group_expiry).await?;
            if backlog < i64::from(settings.max_backlog) {
                return Ok(true);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = sleep(settings.poll_interval) => {}
            }
        }
    }

    /// Everything about a batch, in one transaction.
    async fn take_in(
        &self,
        ctx: &Context,
        stream: &Stream,
        (at, next): (i64, i64),
        batch: Vec<Delivery>,
    ) -> Result<()> {
        let partitions = self.engine.leases.partitions();
        let limited = &ctx.with_timeout(FRAME);
        let mut seen = HashSet::new();
        let mut messages = Vec::with_capacity(batch.len());
        let delivered = batch.len();
        for Delivery { message, .. } in batch {
            let (message, unreadable) = match message {
                Ok(message) => (message, None),
                Err(malformed) => {
                    let (message, reason) = malformed.into_message(&stream.topic);
                    (message, Some(reason))
                }
            };
            if seen.insert(message.id) {
                messages.push((message, unreadable));
            }
        }
        let messages = &messages;
        let taken = self.engine.db.transaction_with(limited, options(), |tx| async move {
            move_place(limited, &tx, stream, (at, next), self.broker.name()).await?;
            let new = remember(limited, &tx, messages.iter().map(|(message, _)| message.id)).await?;
            let mut parts: BTreeMap<i32, Vec<&Message>> = BTreeMap::new();
            for (message, unreadable) in messages.iter().filter(|(message, _)| new.contains(&message.id)) {
                let part = message.part(partitions);
                match unreadable {
                    None => parts.entry(part).or_default().push(message),
                    Some(error) => {
                        let (reason, attempts, first_failed_at) = (Reason::Undecodable, 0, None);
                        let record = message;
                        bury(
                            limited,
                            &tx,
                            Burial { group: INTAKE, part, record, reason, error, attempts, first_failed_at },
                        )
                        .await?;
                    }
                }
            }
            let mut ends = Vec::new();
            for (part, messages) in parts {
                ends.push((part, log::append(limited, &tx, part, &messages).await?));
            }
            Ok((new.len(), ends))
        });
        match taken.await {
            Ok((new, ends)) => {
                for (part, end) in ends {
                    self.engine.board.advance(part, end);
                }
                let metrics = &self.engine.metrics;
                metrics.taken_in.inc_by(new as u64);
                metrics.redelivered.inc_by((delivered - new) as u64);
                Ok(())
            }
            // Whether it is there or not is found where the stream is read again.
            Err(error) if error.is::<CommitUnknown>() => {
                self.engine.metrics.unknown_commits.inc();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

impl Patience {
    fn new(broker: &'static str, topic: &'static str) -> Self {
        Self { broker, topic, pause: SHORTEST_PAUSE }
    }

    fn renew(&mut self) {
        self.pause = SHORTEST_PAUSE;
    }

    /// `false`: stopped.
    async fn pause(&mut self, ctx: &Context, stop: &CancellationToken, error: &Error) -> bool {
        if stop.is_cancelled() || ctx.is_done() {
            return false;
        }
        if !error.is::<PlaceMoved>() {
            let (broker, topic, pause, error) = (self.broker, self.topic, self.pause, error.report().to_string());
            tracing::warn!(
                target: "mainstay::events", broker, topic, error, again_in = ?pause, "events can't be taken in now"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Where the service stands in the stream, and of which broker's; a place in another one's says nothing of ours.
async fn place(ctx: &Context, db: &Db, stream: &Stream) -> Result<Option<(i64, Option<String>)>> {
    let place = "SELECT place, broker FROM mainstay_event_intakes WHERE topic = $1 AND stream = $2";
    db.query(place).bind(&stream.topic).bind(i64::from(stream.number)).optional(ctx).await
}

/// Begins to read at `at`, where `known` was the place before.
async fn begin_at(
    ctx: &Context,
    db: &Db,
    stream: &Stream,
    known: Option<(i64, Option<String>)>,
    (at, broker): (i64, &str),
) -> Result<()> {
    let (topic, number) = (&stream.topic, i64::from(stream.number));
    let done = match known {
        Some((known, Some(of))) if known == at && of == broker => return Ok(()),
        Some((known, _)) => {
            let moved = "UPDATE mainstay_event_intakes SET place = $4, broker = $5 \
                         WHERE topic = $1 AND stream = $2 AND place = $3";
            let moved = db.query(moved).bind(topic).bind(number).bind(known).bind(at).bind(broker);
            moved.execute(ctx).await?
        }
        None => {
            let insert = Sql::new("INSERT INTO mainstay_event_intakes (topic, stream, place, broker)");
            let insert = insert.push_values([values![topic.as_str(), number, at, broker]]);
            match db.query(insert).execute(ctx).await {
                Err(error) if error.code() == mainstay_core::Code::AlreadyExists => 0,
                done => done?,
            }
        }
    };
    if done == 1 { Ok(()) } else { Err(moved_elsewhere()) }
}

async fn move_place(ctx: &Context, tx: &Tx, stream: &Stream, (at, next): (i64, i64), broker: &str) -> Result<()> {
    let moved = "UPDATE mainstay_event_intakes SET place = $4 \
                 WHERE topic = $1 AND stream = $2 AND place = $3 AND broker = $5";
    let moved = tx.query(moved).bind(&stream.topic).bind(i64::from(stream.number)).bind(at).bind(next).bind(broker);
    if moved.execute(ctx).await? == 1 { Ok(()) } else { Err(moved_elsewhere()) }
}

fn moved_elsewhere() -> Error {
    Error::aborted("the events were taken in elsewhere").with_source(PlaceMoved)
}

/// Notes `ids` in the inbox, and returns those that were not there. Another stream with one of them at the same time
/// breaks the rule that an event has one stream; the transaction fails then, and finds the id when it is repeated.
pub(crate) async fn remember(ctx: &Context, tx: &Tx, ids: impl Iterator<Item = Uuid>) -> Result<HashSet<Uuid>> {
    failpoint("before-inbox");
    let ids: Vec<Uuid> = ids.collect();
    let known = Sql::new("SELECT event_id FROM mainstay_inbox WHERE").push_in("event_id", ids.iter().copied());
    let known: HashSet<Uuid> = tx.query(known).all::<Uuid>(ctx).await?.into_iter().collect();
    let new: HashSet<Uuid> = ids.into_iter().filter(|id| !known.contains(id)).collect();
    if !new.is_empty() {
        let insert = Sql::new("INSERT INTO mainstay_inbox (event_id)");
        tx.query(insert.push_values(new.iter().map(|id| values![*id]))).execute(ctx).await?;
    }
    failpoint("after-inbox");
    Ok(new)
}

/// Forgets what came so long ago that the broker doesn't deliver it again.
pub(crate) async fn forget(ctx: &Context, db: &Db, retention: Duration) -> Result<()> {
    const FORGOTTEN_AT_ONCE: i64 = 1_000;
    let oldest = clocked!["SELECT at FROM mainstay_inbox WHERE at < ", " - $1 ORDER BY at LIMIT $2"];
    loop {
        let old: Vec<i64> = db.read(oldest.clone()).bind(millis(retention)).bind(FORGOTTEN_AT_ONCE).all(ctx).await?;
        let Some(last) = old.last() else { return Ok(()) };
        db.query("DELETE FROM mainstay_inbox WHERE at <= $1").bind(*last).execute(ctx).await?;
    }
}
