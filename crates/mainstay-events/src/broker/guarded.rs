//! [`Guarded`]: a broker whose adapter may panic.
//!
//! A panic in it is an error of that call, so that it ends neither the relay nor an intake, and no more than one topic
//! waits for what can't be sent.

use std::collections::HashMap;

use mainstay_core::{BoxFuture, Context, Error, Result};

use super::{Broker, Delivery, Outcome, Outgoing, Resume, Stream, Subscription, Traits};
use crate::panics::caught;

pub(crate) struct Guarded<B>(pub(crate) B);

impl<B: Broker> Guarded<B> {
    async fn attempt(&self, ctx: &Context, messages: &[Outgoing]) -> Result<Vec<Outcome>> {
        caught(ADAPTER, async { Ok(self.0.publish(ctx, messages).await) }).await
    }

    /// Sends each topic for itself: which message it was that the adapter can't send, nobody knows.
    async fn publish_by_topic(&self, ctx: &Context, messages: &[Outgoing]) -> Vec<Outcome> {
        let mut topics: Vec<(&str, Vec<usize>)> = Vec::new();
        for (place, outgoing) in messages.iter().enumerate() {
            match topics.iter_mut().find(|(topic, _)| *topic == outgoing.message.topic) {
                Some((_, places)) => places.push(place),
                None => topics.push((&outgoing.message.topic, vec![place])),
            }
        }
        let mut outcomes = HashMap::new();
        for (_, places) in topics {
            let batch: Vec<Outgoing> = places.iter().filter_map(|place| messages.get(*place)).cloned().collect();
            let attempt = self.attempt(ctx, &batch).await.unwrap_or_else(|error| unknown(&error, batch.len()));
            outcomes.extend(places.into_iter().zip(attempt));
        }
        let no_outcome = || Outcome::Unknown(Error::internal("the broker's adapter gave no outcome"));
        (0..messages.len()).map(|place| outcomes.remove(&place).unwrap_or_else(no_outcome)).collect()
    }
}

const ADAPTER: &str = "the broker's adapter";

fn unknown(error: &Error, count: usize) -> Vec<Outcome> {
    (0..count).map(|_| Outcome::Unknown(Error::internal(error.report().to_string()))).collect()
}

impl<B: Broker> Broker for Guarded<B> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn traits(&self) -> Traits {
        self.0.traits()
    }

    fn open<'a>(&'a self, ctx: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        Box::pin(caught(ADAPTER, async move { self.0.open(ctx, topic, streams).await }))
    }

    fn publish<'a>(&'a self, ctx: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            match self.attempt(ctx, messages).await {
                Ok(outcomes) => outcomes,
                Err(_) => self.publish_by_topic(ctx, messages).await,
            }
        })
    }

    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>> {
        Box::pin(caught(ADAPTER, async move {
            let subscription = self.0.subscribe(ctx, stream, from).await?;
            Ok(Box::new(GuardedSubscription(subscription)) as Box<dyn Subscription>)
        }))
    }
}

/// After an error, a subscription is given up: what a panic left half done in it goes with it.
struct GuardedSubscription(Box<dyn Subscription>);

impl Subscription for GuardedSubscription {
    fn place(&self) -> i64 {
        self.0.place()
    }

    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(caught(ADAPTER, async move { self.0.fetch(most).await }))
    }

    fn settle(&mut self, place: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(caught(ADAPTER, async move { self.0.settle(place).await }))
    }
}
