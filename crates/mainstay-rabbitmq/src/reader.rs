//! [`Reader`]: one stream, from a place on.
//!
//! A place is an offset of RabbitMQ, counted from 1, so that 0 is before the first message.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Delivered;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use mainstay_core::{BoxFuture, Error, Result};
use mainstay_events::broker::{Delivery, Resume, Stream, Subscription};
use tokio::time::timeout;

use crate::headers;
use crate::link::{CALL, Line, Link, call, unavailable};
use crate::topic;
use crate::url::Address;

/// Messages that are under way, at least twice what is taken in at once.
const AHEAD: u16 = 500;

/// A stream of which nothing comes for so long is taken for empty by one who wants what comes next.
const EMPTY: Duration = Duration::from_secs(1);

/// After this long without a message the stream is looked at: a connection that is dead is found sooner by its heartbeat.
const SILENCE: Duration = Duration::from_secs(30);

pub(crate) struct Reader {
    link: Arc<Link>,
    channel: Line,
    deliveries: Consumer,
    queue: String,
    topic: String,
    begin: i64,
    /// The place of what was handed over last.
    at: i64,
    /// What was delivered before it was asked for.
    first: Option<Delivered>,
    /// Places and delivery tags of what was handed over and not settled.
    unsettled: Vec<(i64, u64)>,
    /// What ends the reading, once what came before it was handed over.
    broken: Option<Error>,
}

impl Reader {
    pub(crate) async fn open(link: &Arc<Link>, address: &Address, stream: &Stream, from: Resume) -> Result<Self> {
        let queue = topic::stream_of(address, &stream.topic, stream.number);
        let begin = match from {
            Resume::Oldest => 0,
            Resume::Newest => newest(link, &queue).await?,
            Resume::After(place) => place,
        };
        let mut reader = Self::at(link, stream, &queue, begin).await?;
        if begin > 0 && !reader.reaches(begin).await? {
            tracing::warn!(
                target: "mainstay::events", stream = queue, place = begin,
                "the stream of RabbitMQ ends before our place: it was made anew, and is read from its beginning"
            );
            reader = Self::at(link, stream, &queue, 0).await?;
        }
        Ok(reader)
    }

    /// Reads from the message at `begin`, which is one that we have.
    async fn at(link: &Arc<Link>, stream: &Stream, queue: &str, begin: i64) -> Result<Self> {
        // An offset that isn't kept any more is the first that is.
        let offset = AMQPValue::LongLongInt(begin.saturating_sub(1).max(0));
        let (channel, deliveries) = consume(link, queue, AHEAD, offset).await?;
        let (link, queue, topic) = (link.clone(), queue.to_owned(), stream.topic.clone());
        let (unsettled, first) = (Vec::new(), None);
        Ok(Self { link, channel, deliveries, queue, topic, begin, at: begin, first, unsettled, broken: None })
    }

    /// Whether the stream is as long as `place` says: the message there, or a later one, is delivered at once.
    async fn reaches(&mut self, place: i64) -> Result<bool> {
        match timeout(CALL, self.deliveries.next()).await {
            Ok(next) => {
                let delivered = delivered(next)?;
                let reaches = place_of(&delivered, &self.queue)? >= place;
                self.first = Some(delivered);
                Ok(reaches)
            }
            Err(_) if end_of(&self.link, &self.queue).await? < place => Ok(false),
            Err(_) => Err(Error::unavailable("RabbitMQ delivers nothing of a stream that has messages")),
        }
    }

    /// `None`: it is one that we have.
    fn delivery(&mut self, delivered: Delivered) -> Result<Option<Delivery>> {
        let place = place_of(&delivered, &self.queue)?;
        self.unsettled.push((place, delivered.delivery_tag));
        if place <= self.at {
            return Ok(None);
        }
        self.at = place;
        Ok(Some(Delivery { place, message: headers::read(&self.topic, &delivered.properties, delivered.data) }))
    }

    /// The next message; an error if the server doesn't read for us any more. Dropping it loses nothing.
    async fn next(&mut self) -> Result<Delivered> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let mut owed = false;
        loop {
            match timeout(SILENCE, self.deliveries.next()).await {
                Ok(next) => return delivered(next),
                Err(_) if owed => {
                    return Err(Error::unavailable("RabbitMQ delivers nothing of a stream that has more"));
                }
                // Readers have been seen to be forgotten by their servers without a word.
                Err(_) => owed = end_of(&self.link, &self.queue).await? > self.at,
            }
        }
    }
}

impl Subscription for Reader {
    fn place(&self) -> i64 {
        self.begin
    }

    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            let mut fetched = Vec::new();
            // Nothing is awaited after the first one, so that a call which is dropped loses none.
            let mut next = self.next().await;
            loop {
                match next.and_then(|delivered| self.delivery(delivered)) {
                    Ok(delivery) => fetched.extend(delivery),
                    Err(error) if fetched.is_empty() => return Err(error),
                    Err(error) => {
                        self.broken = Some(error);
                        return Ok(fetched);
                    }
                }
                if fetched.len() >= most {
                    return Ok(fetched);
                }
                next = match self.deliveries.next().now_or_never() {
                    Some(more) => delivered(more),
                    None if fetched.is_empty() => self.next().await,
                    None => return Ok(fetched),
                };
            }
        })
    }

    /// For RabbitMQ it is room for more messages; the place is in the service's own database.
    fn settle(&mut self, place: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let settled = self.unsettled.iter().take_while(|(at, _)| *at <= place).count();
            let Some((_, last)) = self.unsettled.drain(..settled).next_back() else { return Ok(()) };
            call("acknowledging", self.channel.basic_ack(last, BasicAckOptions { multiple: true })).await
        })
    }
}

/// A place behind which is what is stored from now on, and perhaps some of the last batch that was stored before.
async fn newest(link: &Link, queue: &str) -> Result<i64> {
    let (channel, mut deliveries) = consume(link, queue, AHEAD, AMQPValue::LongString("last".into())).await?;
    let mut place = 0;
    let mut next = timeout(EMPTY, deliveries.next()).await.ok();
    while let Some(last) = next {
        place = place_of(&delivered(last)?, queue)?;
        next = deliveries.next().now_or_never();
    }
    let _ = channel.close(200, "seen".into()).await;
    Ok(place)
}

/// The place of the last message of a stream as the server knew it some seconds ago, 0 if there was none. No call of AMQP
/// tells it: it is that of the first one with the number of messages.
async fn end_of(link: &Link, queue: &str) -> Result<i64> {
    let channel = link.channel().await?;
    let length = length_of(&channel, queue).await?;
    let _ = channel.close(200, "seen".into()).await;
    if length == 0 {
        return Ok(0);
    }
    let (channel, mut deliveries) = consume(link, queue, 1, AMQPValue::LongString("first".into())).await?;
    let first = timeout(CALL, deliveries.next()).await;
    let first = first.map_err(|_| Error::unavailable("RabbitMQ delivers nothing of a stream that has messages"))?;
    let first = place_of(&delivered(first)?, queue)?;
    let _ = channel.close(200, "seen".into()).await;
    Ok(first + length - 1)
}

async fn length_of(channel: &Channel, queue: &str) -> Result<i64> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    let found =
        call("looking for a stream", channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
    Ok(i64::from(found.message_count()))
}

async fn consume(link: &Link, queue: &str, ahead: u16, from: AMQPValue) -> Result<(Line, Consumer)> {
    let channel = link.channel().await?;
    call("beginning to read", channel.basic_qos(ahead, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), from);
    let consumer = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments);
    let consumer = call("beginning to read", consumer).await?;
    Ok((channel, consumer))
}

fn delivered(next: Option<lapin::Result<Delivered>>) -> Result<Delivered> {
    match next {
        Some(delivered) => delivered.map_err(|error| unavailable("reading", error)),
        None => Err(Error::unavailable("RabbitMQ ended the reading")),
    }
}

fn place_of(delivered: &Delivered, queue: &str) -> Result<i64> {
    let headers = delivered.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get("x-stream-offset")) {
        Some(AMQPValue::LongLongInt(offset)) => Ok(offset.saturating_add(1)),
        _ => Err(Error::failed_precondition(format!("the queue `{queue}` of RabbitMQ is no stream"))),
    }
}
