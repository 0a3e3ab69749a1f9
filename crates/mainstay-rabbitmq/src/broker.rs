//! [`RabbitMq`]: streams of RabbitMQ as a [`Broker`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, PublisherConfirm};
use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_events::broker::{Broker, Outcome, Outgoing, Resume, Stream, Subscription, Traits};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::headers;
use crate::link::{CALL, Line, Link, call, unavailable};
use crate::reader::Reader;
use crate::topic;
use crate::url::Address;

/// How long a confirmation may take.
const CONFIRM: Duration = Duration::from_secs(10);

/// Connections to RabbitMQ, made when they are first needed, and made again by themselves. A clone is the same one.
#[derive(Clone)]
pub struct RabbitMq(Arc<Inner>);

struct Inner {
    address: Address,
    publishing: Link,
    reading: Arc<Link>,
    /// With confirmations; the next batch makes a new one where it was given up.
    publisher: Mutex<Option<Line>>,
    /// How many streams each topic has that was looked at since its last error.
    topics: Mutex<HashMap<String, u32>>,
}

impl RabbitMq {
    /// Events through the server at `url`; see the crate's documentation. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) with what is wrong with the URL.
    pub fn new(url: &str) -> Result<Self> {
        let address = Address::parse(url)?;
        let (publishing, reading) = (Link::new(&address, "events: publishing"), Link::new(&address, "events: reading"));
        let (publisher, topics) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { address, publishing, reading: Arc::new(reading), publisher, topics })))
    }
}

impl Inner {
    async fn open(&self, topic: &str, streams: u32) -> Result<u32> {
        let mut topics = self.topics.lock().await; // one of a process looks, the others wait for what it finds
        if let Some(there) = topics.get(topic) {
            return Ok(*there);
        }
        let there = topic::open(&self.reading, &self.address, topic, streams).await?;
        topics.insert(topic.to_owned(), there);
        Ok(there)
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<Vec<Outcome>> {
        if self.publishing.is_blocked().await {
            return Err(Error::unavailable("RabbitMQ has too little memory or disk, and takes no events now"));
        }
        let channel = self.publisher().await?;
        let mut outcomes = self.send_all(&channel, messages).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(error) if is_too_large(error))) {
            // The server ends the channel, and with it all that is on the way: each has to go alone to be told apart.
            for (outgoing, outcome) in messages.iter().zip(&mut outcomes) {
                if matches!(outcome, Outcome::Unknown(_)) {
                    *outcome = self.send_alone(outgoing).await?;
                }
            }
        }
        Ok(outcomes)
    }

    async fn send_all(&self, channel: &Channel, messages: &[Outgoing]) -> Vec<Outcome> {
        let sent = join_all(messages.iter().map(|outgoing| self.send(channel, outgoing))).await;
        join_all(sent.into_iter().map(outcome)).await
    }

    async fn send_alone(&self, outgoing: &Outgoing) -> Result<Outcome> {
        let channel = self.publisher().await?;
        let outcome = outcome(self.send(&channel, outgoing).await).await;
        Ok(match outcome {
            Outcome::Unknown(error) if is_too_large(&error) => {
                let refused = "the event is larger than `max_message_size` of the server";
                Outcome::Refused(Error::invalid_argument(refused).with_source(error))
            }
            other => other,
        })
    }

    async fn publisher(&self) -> Result<Line> {
        let mut publisher = self.publisher.lock().await;
        if let Some(channel) = publisher.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.publishing.channel().await?;
        call("asking for confirmations", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(publisher.insert(channel).clone())
    }

    async fn send(&self, channel: &Channel, outgoing: &Outgoing) -> Result<PublisherConfirm, Outcome> {
        let Outgoing { stream, message } = outgoing;
        let properties = headers::write(message).map_err(Outcome::Refused)?;
        let there = self.topics.lock().await.get(&message.topic).copied();
        let there = there.ok_or_else(|| Outcome::Unknown(Error::unavailable("the topic has to be looked at again")))?;
        let (exchange, key) = (topic::exchange_of(&self.address, &message.topic), (stream % there).to_string());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel.basic_publish(exchange.into(), key.into(), mandatory, &message.payload, properties);
        call("publishing", sent).await.map_err(Outcome::Unknown)
    }

    /// After a message that may be stored or not: the next one has a new connection, and finds its topic anew.
    async fn doubt(&self, topics: &[&str]) {
        *self.publisher.lock().await = None;
        if !self.publishing.is_blocked().await {
            self.publishing.give_up().await;
        }
        self.forget(topics).await;
    }

    async fn forget(&self, topics: &[&str]) {
        let mut known = self.topics.lock().await;
        known.retain(|topic, _| !topics.contains(&topic.as_str()));
    }
}

async fn outcome(sent: Result<PublisherConfirm, Outcome>) -> Outcome {
    let sent = match sent {
        Ok(sent) => sent,
        Err(outcome) => return outcome,
    };
    match timeout(CONFIRM, sent).await {
        Ok(Ok(Confirmation::Ack(None))) => Outcome::Stored,
        Ok(Ok(Confirmation::Ack(Some(_)))) => Outcome::Unknown(Error::unavailable("RabbitMQ has no queue for it")),
        Ok(Ok(_)) => Outcome::Unknown(Error::unavailable("RabbitMQ could not store it")),
        Ok(Err(error)) => Outcome::Unknown(unavailable("publishing", error)),
        Err(_) => Outcome::Unknown(Error::unavailable("RabbitMQ didn't confirm in time")),
    }
}

fn is_too_large(error: &Error) -> bool {
    topic::reason(error).is_some_and(|reason| reason.contains("message size"))
}

impl Broker for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn traits(&self) -> Traits {
        // A message can be lost while the next one is stored: no batch of one key.
        Traits { places: true, ordered_batches: false, publish_timeout: CONFIRM + 2 * CALL }
    }

    fn open<'a>(&'a self, _: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        Box::pin(self.0.open(topic, streams))
    }

    fn publish<'a>(&'a self, _: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let outcomes = match self.0.publish(messages).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    let others = || Outcome::Unknown(Error::unavailable("RabbitMQ can't be reached now"));
                    let first = std::iter::once(Outcome::Unknown(error));
                    first.chain(std::iter::repeat_with(others)).take(messages.len()).collect()
                }
            };
            let unknown = messages.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Unknown(_)));
            let topics: Vec<&str> = unknown.map(|(outgoing, _)| outgoing.message.topic.as_str()).collect();
            if !topics.is_empty() {
                self.0.doubt(&topics).await;
            }
            outcomes
        })
    }

    fn subscribe<'a>(
        &'a self,
        _: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>> {
        Box::pin(async move {
            let reader = Reader::open(&self.0.reading, &self.0.address, stream, from).await;
            if reader.is_err() {
                self.0.forget(&[stream.topic.as_str()]).await;
            }
            Ok(Box::new(reader?) as Box<dyn Subscription>)
        })
    }
}
