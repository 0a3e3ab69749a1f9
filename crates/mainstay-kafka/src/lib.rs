//! Events through Kafka (feature `librdkafka`, which is off: it builds a C library, with make and a C compiler).
//!
//! ```no_run
//! # #[cfg(feature = "librdkafka")] {
//! # use mainstay_core::Result;
//! # use mainstay_events::{Events, EventsSettings};
//! # fn declare(db: &mainstay_sql::Db, metrics: &mainstay_telemetry::Metrics) -> Result<Events> {
//! use mainstay_kafka::Kafka;
//!
//! let kafka = Kafka::new("kafka://localhost:9092")?;
//! Events::new(db, EventsSettings::default(), "shop", metrics)?.through(kafka)
//! # }
//! # }
//! ```
//!
//! # What is on the server
//! Each topic is a topic of Kafka with a partition for each hash partition of the events' keys. It is made by the first
//! process that needs it, and kept for 7 days by age alone. One that is there and would lose events is refused with what to
//! change: compacted, limited in size, an unclean election of leaders, or replicas of which one alone may confirm.
//!
//! A message is a CloudEvent in binary mode (`ce_id`, `ce_type`, …), with the event's key as its own. It is confirmed by all
//! replicas that are in sync (`acks=all`), from a producer that is idempotent.
//!
//! Offsets are kept in the service's own database, with the events: there is no consumer group, and a rebalance never
//! happens. Which process reads a partition is decided by the leases of `mainstay-events`.
//!
//! # URL
//! `kafka://host[:9092][,host…]`. In the query: `prefix`, which stands before the names of all topics; `replicas` (1) and
//! `max_age` in days (7), for topics that are made; `verify=false` for servers that don't let this client see the settings
//! of topics.
//!
//! # Where it ends
//! A Kafka server confirms a message before it is on disk. With `replicas=3` an event survives the loss of a machine (a topic
//! that is made then needs two of them for each confirmation); with one replica, what a machine that loses power had not
//! written is lost though it was confirmed. TLS and SASL are not built in: librdkafka has them by OpenSSL only, and the
//! rest of Mainstay is rustls. Keep the way to the servers private.

#[cfg(feature = "librdkafka")]
mod broker;
#[cfg(feature = "librdkafka")]
mod consumer;
#[cfg(feature = "librdkafka")]
mod headers;
#[cfg(feature = "librdkafka")]
mod reader;
#[cfg(feature = "librdkafka")]
mod topic;
#[cfg(feature = "librdkafka")]
mod url;

#[cfg(feature = "librdkafka")]
pub use broker::Kafka;
