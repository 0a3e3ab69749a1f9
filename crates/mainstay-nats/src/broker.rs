//! [`Nats`]: JetStream as a [`Broker`].

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::{self, Context as JetStream};
use futures_util::future::join_all;
use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_events::broker::{Broker, Outcome, Outgoing, Resume, Stream, Subscription, Traits};
use tokio::sync::OnceCell;

use crate::headers;
use crate::reader::Reader;
use crate::topic::{self, unavailable};
use crate::url::Address;

/// How often the connection is asked whether it lives; it is given up when two answers are missing.
const PING: Duration = Duration::from_secs(3);

/// How long one call of JetStream's own interface may take.
const CALL: Duration = Duration::from_secs(5);

/// How long a confirmation may take.
const CONFIRM: Duration = Duration::from_secs(10);

/// A connection to NATS, made when it is first needed, and made again by itself. A clone is the same one.
#[derive(Clone)]
pub struct Nats {
    address: Address,
    js: Arc<OnceCell<JetStream>>,
}

impl Nats {
    /// Events through the server at `url`; see the crate's documentation. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) with what is wrong with the URL.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { address: Address::parse(url)?, js: Arc::default() })
    }

    async fn js(&self) -> Result<&JetStream> {
        let connected = self.js.get_or_try_init(async || {
            let options =
                ConnectOptions::new().ping_interval(PING).connection_timeout(CALL).request_timeout(Some(CALL));
            let client =
                options.connect(&self.address.servers[..]).await.map_err(|error| unavailable("connecting", error))?;
            let mut js = jetstream::new(client);
            js.set_timeout(CALL);
            Ok(js)
        });
        connected.await
    }

    async fn send(&self, js: &JetStream, outgoing: &Outgoing) -> Outcome {
        let Outgoing { stream, message } = outgoing;
        let subject = topic::subject_of(&self.address, &message.topic, *stream);
        let confirmed = async {
            let sent =
                js.publish_with_headers(subject, headers::write(message), message.payload.clone().into()).await?;
            sent.await
        };
        match tokio::time::timeout(CONFIRM, confirmed).await {
            Ok(Ok(_)) => Outcome::Stored, // or stored before
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Outcome::Refused(Error::invalid_argument("the event is larger than `max_payload` of the server"))
            }
            Ok(Err(error)) => Outcome::Unknown(unavailable("publishing", error)),
            Err(_) => Outcome::Unknown(Error::unavailable("NATS didn't confirm in time")),
        }
    }
}

impl Broker for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn traits(&self) -> Traits {
        // After a change of leader a message can be lost while the next one is stored: no batch of one key.
        Traits { places: true, ordered_batches: false, publish_timeout: CONFIRM + CALL }
    }

    fn open<'a>(&'a self, _: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move { topic::open(self.js().await?, &self.address, topic, streams).await })
    }

    fn publish<'a>(&'a self, _: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            match self.js().await {
                Ok(js) => join_all(messages.iter().map(|outgoing| self.send(js, outgoing))).await,
                Err(_) => {
                    messages.iter().map(|_| Outcome::Unknown(Error::unavailable("NATS can't be reached now"))).collect()
                }
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        _: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>> {
        Box::pin(async move {
            let reader = Reader::open(self.js().await?, &self.address, stream, from).await?;
            Ok(Box::new(reader) as Box<dyn Subscription>)
        })
    }
}
