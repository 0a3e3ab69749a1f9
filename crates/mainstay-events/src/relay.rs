//! [`Relay`]: sends what waits in the outbox to a broker that is a server of its own.
//!
//! A row leaves the outbox when the broker has confirmed it, or together with the dead letter that it becomes. A process
//! that has lost its partitions and doesn't know it can only send again what the broker may have already: the first copy
//! of each event stays in its place, and the inboxes of the consumers drop the others. A process that has missed the end
//! of its turn doesn't delete: whoever has the turn now finds the row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Error, Result};
use mainstay_sql::{FromRow, Sql};
use tokio::time::Instant;

use crate::broker::{Broker, Outcome, Outgoing};
use crate::dead::{Burial, Reason, bury};
use crate::engine::Engine;
use crate::failpoint::failpoint;
use crate::lease::{RELAY, options};
use crate::message::Message;
use crate::route;

/// Rows that are read of one partition at a time, and those that are in hand together: their payloads are in memory.
const READ_AT_ONCE: i64 = 100;
const IN_HAND: usize = 500;
const BYTES_IN_HAND: usize = 8 << 20;

/// Pauses of a topic that the broker doesn't take now.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// As a group's name, among dead letters: what the broker refused. No group can have it.
pub(crate) const REFUSED: &str = "(relay)";

pub(crate) struct Relay {
    broker: Arc<dyn Broker>,
    /// Topics that were opened by this process, and how many streams each has.
    open: HashMap<String, u32>,
    /// Topics that have to wait: until when, and for how long the next time.
    waiting: HashMap<String, (Instant, Duration)>,
    /// Topics of which the rows in hand may no longer be sent, however long that takes: one before them failed.
    stuck: HashSet<String>,
    /// Which of the partitions is first, so that none has to wait for all others.
    first: usize,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    part: i32,
    #[row(flatten)]
    message: Message,
}

impl Relay {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, open: HashMap::new(), waiting: HashMap::new(), stuck: HashSet::new(), first: 0 }
    }

    /// Sends some of what waits in `parts`, and returns how many rows have left the outbox.
    pub(crate) async fn send_waiting(&mut self, engine: &Engine, ctx: &Context, parts: &[i32]) -> Result<u64> {
        self.stuck.clear();
        let mut rows = self.read(engine, ctx, parts).await?;
        let mut gone = 0;
        while !rows.is_empty() {
            self.open_topics(engine, ctx, &mut rows).await;
            // The lease's own clock: what is not surely ours any more is somebody else's to send.
            let ours = engine.leases.held(RELAY);
            rows.retain(|row| ours.contains(&row.part));
            let wave = self.next_wave(&mut rows);
            if wave.is_empty() {
                break;
            }
            gone += self.send(engine, ctx, wave).await?;
            rows.retain(|row| !self.stuck.contains(&row.message.topic));
        }
        Ok(gone)
    }

    /// What waits, in the order of each partition, without topics that have to wait.
    async fn read(&mut self, engine: &Engine, ctx: &Context, parts: &[i32]) -> Result<Vec<Row>> {
        let now = Instant::now();
        let held: Vec<String> =
            self.waiting.iter().filter(|(_, (until, _))| *until > now).map(|(topic, _)| topic.clone()).collect();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        self.first = self.first.wrapping_add(1);
        for turn in 0..parts.len() {
            let Some(part) = parts.get(self.first.wrapping_add(turn) % parts.len()) else { break };
            let mut read =
                Sql::new("SELECT id, part, event_id, event_type, topic, event_key, meta, payload FROM mainstay_outbox")
                    .push_bind(" WHERE part = ", i64::from(*part));
            if !held.is_empty() {
                read = read.push(" AND NOT").push_in("topic", held.iter().map(String::as_str));
            }
            let read: Vec<Row> = engine.db.read(read.push_bind(" ORDER BY id LIMIT ", READ_AT_ONCE)).all(ctx).await?;
            bytes += read.iter().map(|row| row.message.payload.len()).sum::<usize>();
            rows.extend(read);
            if rows.len() >= IN_HAND || bytes >= BYTES_IN_HAND {
                break;
            }
        }
        Ok(rows)
    }

    /// Opens the topics of `rows` that are new here, and takes out those that can't be opened.
    async fn open_topics(&mut self, engine: &Engine, ctx: &Context, rows: &mut Vec<Row>) {
        let topics: HashSet<String> = rows.iter().map(|row| row.message.topic.clone()).collect();
        for topic in topics.into_iter().filter(|topic| !self.open.contains_key(topic)).collect::<Vec<_>>() {
            let limited = ctx.with_timeout(self.broker.traits().publish_timeout);
            let opened = limited.run(self.broker.open(&limited, &topic, engine.leases.partitions())).await.flatten();
            match opened {
                Ok(streams) => {
                    self.open.insert(topic, streams);
                }
                Err(error) => self.hold(&topic, &error),
            }
        }
        rows.retain(|row| !self.stuck.contains(&row.message.topic));
    }

    /// Takes as many rows as may be under way together: one of each key, unless the broker keeps their order.
    fn next_wave(&self, rows: &mut Vec<Row>) -> Vec<Row> {
        if self.broker.traits().ordered_batches {
            return std::mem::take(rows);
        }
        let mut keys = HashSet::new();
        let (wave, rest) = std::mem::take(rows).into_iter().partition(|row| match &row.message.key {
            Some(key) => keys.insert((row.message.topic.clone(), key.clone())),
            None => true,
        });
        *rows = rest;
        wave
    }

    async fn send(&mut self, engine: &Engine, ctx: &Context, wave: Vec<Row>) -> Result<u64> {
        let (rows, messages): (Vec<(i64, i32)>, Vec<Outgoing>) = wave
            .into_iter()
            .map(|Row { id, part, message }| {
                // The service that made the topic may have another number of partitions.
                let streams = self.open.get(&message.topic).copied().unwrap_or(1).max(1);
                ((id, part), Outgoing { stream: part.unsigned_abs() % streams, message })
            })
            .unzip();
        let limited = ctx.with_timeout(self.broker.traits().publish_timeout);
        failpoint("before-publish");
        let outcomes = limited.run(self.broker.publish(&limited, &messages)).await;
        failpoint("after-publish");
        let mut outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => {
                messages.iter().for_each(|outgoing| self.hold(&outgoing.message.topic, &error));
                return Ok(0);
            }
        };
        let (mut stored, mut refused, mut answered) = (Vec::new(), 0, HashSet::new());
        let mut uncertain = Vec::new();
        for ((id, part), Outgoing { message, .. }) in rows.into_iter().zip(&messages) {
            match outcomes.next() {
                Some(Outcome::Stored) => {
                    stored.push(id);
                    answered.insert(message.topic.as_str());
                }
                Some(Outcome::Refused(error)) => {
                    refused += self.give_up(engine, ctx, id, part, message, &error).await?;
                    answered.insert(message.topic.as_str());
                }
                Some(Outcome::Unknown(error)) => uncertain.push((message.topic.as_str(), error)),
                None => uncertain.push((&message.topic, Error::internal("the broker's adapter gave no outcome"))),
            }
        }
        // A broker that took something is there: its next pause is a short one again.
        for topic in answered {
            if self.waiting.remove(topic).is_some() {
                tracing::info!(target: "mainstay::events", topic, "the broker takes events again");
            }
        }
        uncertain.into_iter().for_each(|(topic, error)| self.hold(topic, &error));
        if stored.is_empty() {
            return Ok(refused);
        }
        failpoint("before-delete");
        let delete = Sql::new("DELETE FROM mainstay_outbox WHERE").push_in("id", stored);
        let delete = route::while_open(delete, engine.db.dialect(), &engine.standing.ours);
        let deleted = engine.db.query(delete).execute(ctx).await?;
        failpoint("after-delete");
        Ok(deleted + refused)
    }

    /// What the broker will never take becomes a dead letter.
    async fn give_up(
        &self,
        engine: &Engine,
        ctx: &Context,
        id: i64,
        part: i32,
        message: &Message,
        error: &Error,
    ) -> Result<u64> {
        let (error, event, event_id) = (error.report().to_string(), message.event_type.as_str(), message.id);
        let (broker, error) = (self.broker.name(), error.as_str());
        tracing::error!(target: "mainstay::events", broker, event, id = %event_id, error, "event refused by the broker");
        let buried = engine.db.transaction_with(ctx, options(), |tx| async move {
            // Whoever deletes the row is the one who buries it.
            if tx.query("DELETE FROM mainstay_outbox WHERE id = $1").bind(id).execute(ctx).await? == 0 {
                return Ok(0);
            }
            let (reason, attempts, first_failed_at) = (Reason::Refused, 1, None);
            let burial = Burial { group: REFUSED, part, record: message, reason, error, attempts, first_failed_at };
            bury(ctx, &tx, burial).await.map(|()| 1)
        });
        buried.await
    }

    /// Lets a topic wait: its next event is one that may have been stored, and none may overtake it.
    fn hold(&mut self, topic: &str, error: &Error) {
        self.stuck.insert(topic.to_owned());
        let now = Instant::now();
        let pause = match self.waiting.get(topic) {
            Some((until, _)) if *until > now => return, // said already
            Some((_, pause)) => *pause,
            None => {
                let (broker, error) = (self.broker.name(), error.report().to_string());
                tracing::warn!(target: "mainstay::events", broker, topic, error, "the broker takes no events now");
                SHORTEST_PAUSE
            }
        };
        self.open.remove(topic); // it may have been changed, or may be another server's now
        self.waiting.insert(topic.to_owned(), (now + pause, (pause * 2).min(LONGEST_PAUSE)));
    }
}
