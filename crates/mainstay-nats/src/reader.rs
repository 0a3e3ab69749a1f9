//! [`Reader`]: one subject of a stream, from a place on.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Config, Stream as Deliveries};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::{Context as JetStream, Message as Delivered};
use futures_util::{FutureExt, StreamExt};
use mainstay_core::{BoxFuture, Error, Result};
use mainstay_events::broker::{Delivery, Resume, Stream, Subscription};

use crate::headers;
use crate::topic::{self, unavailable};
use crate::url::Address;

/// A server that has said nothing for two of these is taken for gone.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long the server waits for messages before it is asked again.
const EXPIRES: Duration = Duration::from_secs(20);
/// How long the server keeps a reader that asks no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Messages, and bytes of them, that are under way.
const AHEAD: usize = 200;

pub(crate) struct Reader {
    deliveries: Deliveries,
    topic: String,
    place: i64,
    /// The server's count of what it sent to this reader: a gap is a delivery that was lost on a connection that broke.
    counted: u64,
    /// What ends the reading, once what came before it was handed over.
    broken: Option<Error>,
}

impl Reader {
    pub(crate) async fn open(js: &JetStream, address: &Address, stream: &Stream, from: Resume) -> Result<Self> {
        let name = topic::stream_of(address, &stream.topic);
        let on_server = js.get_stream(&name).await.map_err(|error| unavailable("looking for a stream", error))?;
        let last = place_of(on_server.cached_info().state.last_sequence);
        let place = match from {
            Resume::Oldest => 0,
            Resume::Newest => last,
            Resume::After(place) if place > last => {
                tracing::warn!(
                    target: "mainstay::events", stream = name, place, last,
                    "the stream of NATS ends before our place: it was made anew, and is read from its beginning"
                );
                0
            }
            Resume::After(place) => place,
        };
        let next = place.unsigned_abs() + 1;
        let config = Config {
            // What was taken in is noted in the service's own database, not here.
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next },
            filter_subject: topic::subject_of(address, &stream.topic, stream.number),
            inactive_threshold: FORGOTTEN_AFTER,
            ..Config::default()
        };
        let consumer =
            on_server.create_consumer(config).await.map_err(|error| unavailable("making a reader", error))?;
        let deliveries = consumer.stream().max_messages_per_batch(AHEAD).heartbeat(HEARTBEAT).expires(EXPIRES);
        let deliveries = deliveries.messages().await.map_err(|error| unavailable("beginning to read", error))?;
        Ok(Self { deliveries, topic: stream.topic.clone(), place, counted: 0, broken: None })
    }

    fn delivery(&mut self, delivered: &Delivered) -> Result<Delivery> {
        let info = delivered.info().map_err(|error| {
            Error::data_loss("a message of NATS without its place").with_source(std::io::Error::other(error))
        })?;
        self.counted += 1;
        if info.consumer_sequence != self.counted {
            return Err(Error::unavailable("a delivery of NATS was lost on its way"));
        }
        let place = place_of(info.stream_sequence);
        let headers = delivered.headers.clone().unwrap_or_default();
        let message = headers::read(&self.topic, &headers, delivered.payload.to_vec());
        Ok(Delivery { place, message })
    }
}

impl Subscription for Reader {
    fn place(&self) -> i64 {
        self.place
    }

    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            // Nothing is awaited after the first one, so that a call which is dropped loses none.
            let mut next = self.deliveries.next().await;
            let mut fetched = Vec::new();
            loop {
                let delivery = match next {
                    Some(Ok(delivered)) => self.delivery(&delivered),
                    Some(Err(error)) => Err(unavailable("reading", error)),
                    None => Err(Error::unavailable("NATS ended the reading")),
                };
                match delivery {
                    Ok(delivery) => fetched.push(delivery),
                    Err(error) if fetched.is_empty() => return Err(error),
                    Err(error) => {
                        self.broken = Some(error);
                        return Ok(fetched);
                    }
                }
                if fetched.len() >= most {
                    return Ok(fetched);
                }
                match self.deliveries.next().now_or_never() {
                    Some(more) => next = more,
                    None => return Ok(fetched),
                }
            }
        })
    }

    fn settle(&mut self, _: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Sequences of NATS as places.
fn place_of(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
