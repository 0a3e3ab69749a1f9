//! [`Consumer`]: what a service does about an event, and the group it does it for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{BoxFuture, Context, Error, Result};
use mainstay_sql::Tx;

use crate::Event;
use crate::panics::caught;

/// Reacts to one type of event, for one group.
///
/// `handle` takes effect exactly once for each event and group: what it writes through `tx`, what it publishes there, and
/// the note that the event was applied are one transaction. It may *run* more than once (after a failure, a conflict, a
/// crash), and then all of it but the last run was undone. What it does outside the database can't be undone: make that
/// safe to repeat, by the event's id for example.
///
/// ```
/// use mainstay_core::{Context, Result};
/// use mainstay_events::{Consumer, Event};
/// use mainstay_sql::Tx;
///
/// # #[derive(serde::Deserialize, serde::Serialize)] struct OrderPlaced { sku: String, quantity: i64 }
/// # impl Event for OrderPlaced { const TYPE: &'static str = "shop.order.placed"; }
/// struct ReserveStock;
///
/// impl Consumer for ReserveStock {
///     type Event = OrderPlaced;
///     const GROUP: &'static str = "reserve-stock";
///
///     async fn handle(&self, ctx: &Context, tx: &Tx, event: OrderPlaced) -> Result<()> {
///         let take = "UPDATE products SET stock = stock - $2 WHERE sku = $1 AND stock >= $2";
///         tx.query(take).bind(&event.sku).bind(event.quantity).execute(ctx).await?;
///         Ok(())
///     }
/// }
/// ```
///
/// # When it fails
/// An error, a panic or a run that takes too long is undone and tried again later, with growing random pauses; later
/// events of the same key wait behind it, others go on. After `events.max_attempts` it becomes a dead letter, at once if
/// the error has [`Permanent`] in its chain or the payload can't be read. An error that only says that the database
/// can't be reached costs no attempt.
pub trait Consumer: Send + Sync + 'static {
    /// What it reacts to.
    type Event: Event;

    /// The group: each has its own place in the stream of events, and its members share the work. Several consumers of
    /// one group, each for an event of its own, keep the order of a key over all of them. 1 to 100 lower-case letters,
    /// digits, `.`, `_` or `-`.
    const GROUP: &'static str;

    /// Where a group that is new begins.
    const START: Start = Start::Earliest;

    /// How long one run may take, instead of `events.handler_timeout`.
    const TIMEOUT: Option<Duration> = None;

    /// Handles one event in the transaction `tx`, which commits when this returns `Ok`. `ctx` ends with the time limit
    /// and with the service; [`Envelope`](crate::Envelope) is among its values.
    fn handle(&self, ctx: &Context, tx: &Tx, event: Self::Event) -> impl Future<Output = Result<()>> + Send;
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Start {
    /// With the oldest event that is still kept.
    #[default]
    Earliest,
    /// With the first event after the group was first seen.
    Latest,
}

/// Marks, in an error's chain, a failure that another try won't change: the event becomes a dead letter at once.
///
/// ```
/// # use mainstay_core::{Error, Result};
/// # use mainstay_events::Permanent;
/// fn refuse() -> Result<()> {
///     Err(Error::invalid_argument("the order has no lines").with_source(Permanent))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Permanent;

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another try won't change it")
    }
}

impl std::error::Error for Permanent {}

/// Marks, in an error's chain, a payload that isn't the JSON of its event.
#[derive(Debug)]
pub(crate) struct Undecodable(serde_json::Error);

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payload can't be read: {}", self.0)
    }
}

impl std::error::Error for Undecodable {}

/// A [`Consumer`] without its types.
pub(crate) trait Handler: Send + Sync {
    fn timeout(&self) -> Option<Duration>;

    /// Decodes the payload and handles it; a panic is an error.
    fn handle<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, payload: &'a [u8]) -> BoxFuture<'a, Result<()>>;
}

pub(crate) struct Typed<C>(pub(crate) C);

impl<C: Consumer> Handler for Typed<C> {
    fn timeout(&self) -> Option<Duration> {
        C::TIMEOUT
    }

    fn handle<'a>(&'a self, ctx: &'a Context, tx: &'a Tx, payload: &'a [u8]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let event = serde_json::from_slice(payload).map_err(|error| {
                Error::data_loss("an event whose payload can't be read").with_source(Undecodable(error))
            })?;
            // What a panic may leave half done is undone with the transaction.
            caught("the handler", async { self.0.handle(ctx, tx, event).await }).await
        })
    }
}

/// What is known of a group before anything runs.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    handlers: Vec<(&'static str, Arc<dyn Handler>)>,
    topics: Vec<&'static str>,
}

impl Group {
    pub(crate) fn new(name: &'static str, start: Start) -> Self {
        Self { name, start, handlers: Vec::new(), topics: Vec::new() }
    }

    pub(crate) fn add<C: Consumer>(&mut self, consumer: C) -> Result<()> {
        let (group, event) = (C::GROUP, C::Event::TYPE);
        if self.handler(event).is_some() {
            return Err(Error::internal(format!("the group `{group}` has two consumers of `{event}`")));
        }
        if self.start != C::START {
            return Err(Error::internal(format!("the consumers of the group `{group}` differ in where they start")));
        }
        self.handlers.push((event, Arc::new(Typed(consumer))));
        self.topics.push(C::Event::TOPIC);
        Ok(())
    }

    /// The topics of its events; one may be there twice.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.topics.iter().copied()
    }

    pub(crate) fn handler(&self, event_type: &str) -> Option<&Arc<dyn Handler>> {
        self.handlers.iter().find(|(name, _)| *name == event_type).map(|(_, handler)| handler)
    }
}

/// Whether `name` can be a group's, a topic's or a type's: lower-case words with dots between them.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    (1..=100).contains(&name.len()) && name.bytes().all(plain) && !name.split('.').any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_those_that_the_derive_takes() {
        for name in ["a", "shop.order.placed", "v2.order_line-added", &"x".repeat(100)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Shop", "a b", "a/b", "größe", ".a", "a.", "a..b", &"x".repeat(101)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
