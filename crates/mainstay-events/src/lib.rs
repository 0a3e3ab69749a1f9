//! Events that are never lost and take effect exactly once.
//!
//! [`Publish`] writes events with the transaction that they belong to; the relay moves them, in order per key, from the
//! outbox to the broker; a [`Consumer`] handles each in a transaction that also records that it was applied. Retries and
//! dead letters live in the service's own database, whatever the broker is.
//!
//! ```
//! use mainstay_core::{Component, Context, Result};
//! use mainstay_events::{Consumer, Event, Events, EventsSettings, Publish};
//! use mainstay_sql::{Db, Tx};
//! use mainstay_telemetry::Metrics;
//!
//! #[derive(Debug, serde::Deserialize, serde::Serialize)]
//! struct OrderPlaced {
//!     id: i64,
//! }
//!
//! impl Event for OrderPlaced { // or #[derive(Event)]
//!     const TYPE: &'static str = "shop.order.placed";
//!     fn key(&self) -> Option<String> {
//!         Some(self.id.to_string())
//!     }
//! }
//!
//! struct CountOrders;
//!
//! impl Consumer for CountOrders {
//!     type Event = OrderPlaced;
//!     const GROUP: &'static str = "count-orders";
//!
//!     async fn handle(&self, ctx: &Context, tx: &Tx, _: OrderPlaced) -> Result<()> {
//!         tx.query("UPDATE counts SET orders = orders + 1").execute(ctx).await.map(drop)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let (ctx, db) = (Context::background(), Db::memory());
//! db.query("CREATE TABLE counts (orders BIGINT NOT NULL)").execute(&ctx).await?;
//! let events = Events::new(&db, EventsSettings::default(), "shop", &Metrics::new())?;
//! events.consume(CountOrders)?;
//! events.start(&ctx).await?; // an app does this, and `run` and `stop`
//!
//! db.transaction(&ctx, |tx| async move { tx.publish(OrderPlaced { id: 7 }) }).await?;
//! # Ok(()) }
//! ```
//!
//! # Events
#![doc = include_str!("../docs/events.md")]
//!
//! # When an event fails
#![doc = include_str!("../docs/when-an-event-fails.md")]
//!
//! # Choosing a broker
#![doc = include_str!("../docs/choosing-a-broker.md")]
//!
//! # Where the guarantee ends
#![doc = include_str!("../docs/where-the-guarantee-ends.md")]

/// What the code that `#[derive(Event)]` makes needs of others.
#[doc(hidden)]
pub mod __private {
    pub use serde::Serialize;
    pub use serde::de::DeserializeOwned;
}
pub mod broker;
mod clock;
mod consumer;
mod cutover;
mod dead;
mod engine;
mod envelope;
mod event;
mod events;
mod failpoint;
mod hash;
mod intake;
mod janitor;
mod lane;
mod lease;
mod log;
mod message;
mod metrics;
mod operate;
mod outbox;
mod pace;
mod panics;
mod publish;
mod pulse;
mod relay;
mod retry;
mod route;
mod schema;
mod settings;
mod steady;
#[cfg(feature = "testing")]
pub mod testing;

pub use consumer::{Consumer, Permanent, Start};
pub use dead::DeadLetter;
pub use envelope::{Envelope, Meta};
pub use event::Event;
pub use events::Events;
pub use mainstay_macros::Event;
pub use message::{Malformed, Message};
pub use operate::{Lag, OutboxState};
pub use publish::{Publish, PublishOptions};
pub use settings::EventsSettings;
