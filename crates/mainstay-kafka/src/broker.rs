//! [`Kafka`]: Kafka as a [`Broker`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_events::broker::{Broker, Outcome, Outgoing, Resume, Stream, Subscription, Traits};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::consumer::Consumer;
use crate::headers;
use crate::reader::Reader;
use crate::topic::{self, unavailable};
use crate::url::Address;

/// How long a confirmation may take.
const CONFIRM: Duration = Duration::from_secs(10);

/// How long librdkafka waits for a server that says nothing before it makes a new connection.
const SILENCE: Duration = Duration::from_secs(10);

/// Connections to Kafka, made when they are first needed, and made again by themselves. A clone is the same ones.
#[derive(Clone)]
pub struct Kafka(Arc<Inner>);

struct Inner {
    address: Address,
    base: ClientConfig,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    producer: Option<FutureProducer>,
    consumers: Vec<Arc<Consumer>>,
}

impl Kafka {
    /// Events through the servers at `url`; see the crate's documentation. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) with what is wrong with the URL.
    pub fn new(url: &str) -> Result<Self> {
        let address = Address::parse(url)?;
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", &address.servers)
            .set("client.id", "mainstay")
            .set("socket.timeout.ms", SILENCE.as_millis().to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        Ok(Self(Arc::new(Inner { address, base, clients: Mutex::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn producer(&self) -> Result<FutureProducer> {
        let mut clients = self.lock();
        if let Some(producer) = &clients.producer {
            return Ok(producer.clone());
        }
        let mut config = self.0.base.clone();
        config
            .set("enable.idempotence", "true") // with acks=all
            .set("message.timeout.ms", CONFIRM.as_millis().to_string())
            .set("linger.ms", "0")
            .set("message.max.bytes", "10000000"); // the server's own limit decides
        let producer: FutureProducer = config.create().map_err(|error| unavailable("connecting", error))?;
        clients.producer = Some(producer.clone());
        Ok(producer)
    }

    /// The clients that read; there is one at least, and `another` one more than before.
    fn consumers(&self, another: bool) -> Result<Vec<Arc<Consumer>>> {
        let mut clients = self.lock();
        if another || clients.consumers.is_empty() {
            let consumer = Arc::new(Consumer::new(&self.0.base)?);
            clients.consumers.push(consumer);
        }
        Ok(clients.consumers.clone())
    }

    async fn send(&self, producer: &FutureProducer, outgoing: &Outgoing) -> Outcome {
        let Outgoing { stream, message } = outgoing;
        let topic = self.0.address.topic(&message.topic);
        let mut record = FutureRecord::to(&topic)
            .partition(i32::try_from(*stream).unwrap_or_default())
            .payload(&message.payload)
            .headers(headers::write(message));
        record.key = message.key.as_ref();
        let sent = match producer.send_result(record) {
            Ok(delivery) => delivery.await.map(|delivered| delivered.map(drop).map_err(|(error, _)| error)),
            Err((error, _)) => Ok(Err(error)),
        };
        match sent {
            Ok(Ok(())) => Outcome::Stored,
            Ok(Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge))) => {
                Outcome::Refused(Error::invalid_argument("the event is larger than `max.message.bytes` of its topic"))
            }
            Ok(Err(error)) => Outcome::Unknown(unavailable("publishing", error)),
            Err(_) => Outcome::Unknown(Error::unavailable("the client of Kafka has ended")),
        }
    }

    /// An idempotent producer that has lost count can't go on: the next publish makes a new one.
    fn replace_if_broken(&self, producer: &FutureProducer) {
        if let Some((code, reason)) = producer.client().fatal_error() {
            tracing::warn!(target: "mainstay::events", %code, reason, "the producer of Kafka is replaced");
            self.lock().producer = None;
        }
    }
}

impl Broker for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn traits(&self) -> Traits {
        // A message that timed out leaves a gap before those that were sent after it: no batch of one key.
        Traits { places: true, ordered_batches: false, publish_timeout: CONFIRM + SILENCE }
    }

    fn open<'a>(&'a self, _: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            let Inner { base, address, .. } = &*self.0;
            let consumers = self.consumers(false)?;
            let consumer = consumers.first().ok_or_else(|| Error::internal("no client of Kafka"))?;
            topic::open(consumer, base, address, topic, streams).await
        })
    }

    fn publish<'a>(&'a self, _: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let producer = match self.producer() {
                Ok(producer) => producer,
                Err(error) => {
                    let error = error.report().to_string();
                    return messages.iter().map(|_| Outcome::Unknown(Error::unavailable(error.clone()))).collect();
                }
            };
            let outcomes = join_all(messages.iter().map(|outgoing| self.send(&producer, outgoing))).await;
            self.replace_if_broken(&producer);
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
            let mut consumers = self.consumers(false)?;
            loop {
                if let Some(reader) = Reader::open(&consumers, &self.0.address, stream, from).await? {
                    return Ok(Box::new(reader) as Box<dyn Subscription>);
                }
                consumers = self.consumers(true)?;
            }
        })
    }
}

impl Drop for Inner {
    /// librdkafka waits for its threads when a client ends: not on a thread of the runtime.
    fn drop(&mut self) {
        let clients = std::mem::take(self.clients.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Without a thread they end here.
        let _ = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(move || drop(clients));
    }
}
