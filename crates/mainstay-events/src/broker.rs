//! [`Broker`]: what is asked of a broker that is a server of its own.
//!
//! Such a broker carries events from the outbox of the service that published them to the log of each service that
//! consumes them; from there on everything is as with the embedded one. An event is taken into the log, and its id into
//! the inbox, in one transaction, before the broker hears that it may forget it. So a broker has to keep few promises,
//! and handlers, retries and dead letters are the same whatever it is.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};

use crate::message::{Malformed, Message};

mod guarded;

pub(crate) use guarded::Guarded;

/// A broker. One value serves a whole process.
///
/// A topic is divided into streams, numbered from 0, and the events of one key are always in the same one.
///
/// - **Kept.** What was answered with [`Outcome::Stored`] reaches every service that has ever subscribed to its stream,
///   through any crash that the broker is meant to survive.
/// - **In order.** A subscription delivers a stream in the order in which its messages were stored.
/// - **At least once.** Storing a message twice and delivering it twice are allowed.
///
/// An error with [`Code::Unavailable`](mainstay_core::Code::Unavailable) says that the broker can't be reached now: it is
/// tried again for ever, and the service goes on. Implementations reconnect by themselves, and end a connection that has
/// fallen silent. A panic is an error of the call that panicked. `testing::broker_suite` tries all of it.
pub trait Broker: Send + Sync + 'static {
    /// Its name in logs, in lower case.
    fn name(&self) -> &'static str;

    /// What it can and can't.
    fn traits(&self) -> Traits;

    /// Makes what `topic` needs, or checks it if it is there, and returns how many streams it has: `streams` if it was
    /// made now. Called before the first publish and the first subscription of each topic, and again after errors.
    ///
    /// # Errors
    /// [`Code::FailedPrecondition`](mainstay_core::Code::FailedPrecondition): it is there and would lose events. The
    /// text says what to change.
    fn open<'a>(&'a self, ctx: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>>;

    /// Sends `messages`, and returns one outcome for each, in their order, once each is known or `ctx` is done.
    ///
    /// No two of them have the same key, unless [`Traits::ordered_batches`]: they may be stored in any order.
    fn publish<'a>(&'a self, ctx: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>>;

    /// Begins to read a stream on behalf of a service, whose processes take turns: there is one reader of a stream at a
    /// time, but for one that was suspended and doesn't know it yet.
    ///
    /// # Errors
    /// Also those of [`Broker::open`].
    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>>;
}

impl<B: Broker + ?Sized> Broker for Arc<B> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn traits(&self) -> Traits {
        (**self).traits()
    }

    fn open<'a>(&'a self, ctx: &'a Context, topic: &'a str, streams: u32) -> BoxFuture<'a, Result<u32>> {
        (**self).open(ctx, topic, streams)
    }

    fn publish<'a>(&'a self, ctx: &'a Context, messages: &'a [Outgoing]) -> BoxFuture<'a, Vec<Outcome>> {
        (**self).publish(ctx, messages)
    }

    fn subscribe<'a>(
        &'a self,
        ctx: &'a Context,
        stream: &'a Stream,
        from: Resume,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>>> {
        (**self).subscribe(ctx, stream, from)
    }
}

/// A stream that is being read.
pub trait Subscription: Send {
    /// Where the stream was when this began: [`Resume::After`] of it is the same. Only with [`Traits::places`].
    fn place(&self) -> i64;

    /// Waits for messages and returns at least one, at most `most`. A call that is dropped loses none: they come with
    /// the next one, or with the next subscription.
    ///
    /// # Errors
    /// The stream can't be read any more: it is subscribed to again.
    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>>;

    /// Everything up to `place` was stored here: the broker need not deliver it to this service again.
    ///
    /// # Errors
    /// It may deliver it again, which does no harm; the stream is subscribed to again.
    fn settle(&mut self, place: i64) -> BoxFuture<'_, Result<()>>;
}

/// What a broker can and can't.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Streams can be read again from any place that is kept. The place is then held in the service's own database, with
    /// the events. Otherwise the broker remembers what was settled, and `place` only counts deliveries.
    pub places: bool,
    /// A batch is stored in its order and without gaps: where one message fails, those behind it fail too.
    pub ordered_batches: bool,
    /// How long the broker may need for a publish before that counts as failed.
    pub publish_timeout: Duration,
}

/// A message, and the stream of its topic that it belongs to.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Less than the number of streams that [`Broker::open`] returned.
    pub stream: u32,
    /// What is sent.
    pub message: Message,
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// It is stored, now or since an earlier try.
    Stored,
    /// It may be stored or not: it will be sent again, before any later one of its topic.
    Unknown(Error),
    /// It will never be stored, as one that is too large: it becomes a dead letter.
    Refused(Error),
}

/// A stream, and on whose behalf it is read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Stream {
    /// The service. Each gets every message, whichever of its processes reads.
    pub service: String,
    /// The topic.
    pub topic: String,
    /// The number of the stream, from 0.
    pub number: u32,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// With the oldest message that is kept, or behind what this service has settled.
    Oldest,
    /// With what is stored from now on, or behind what this service has settled.
    Newest,
    /// Behind this place. If the stream ends before it, it was made anew and begins at its beginning.
    After(i64),
}

/// What a subscription delivers.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it stands; later ones of the subscription have greater ones.
    pub place: i64,
    /// The event, or what nobody can make one of.
    pub message: Result<Message, Malformed>,
}
