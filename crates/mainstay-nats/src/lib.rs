//! Events through NATS JetStream.
//!
//! ```no_run
//! # use mainstay_core::Result;
//! # use mainstay_events::{Events, EventsSettings};
//! # fn declare(db: &mainstay_sql::Db, metrics: &mainstay_telemetry::Metrics) -> Result<Events> {
//! use mainstay_nats::Nats;
//!
//! let nats = Nats::new("nats://localhost:4222")?;
//! Events::new(db, EventsSettings::default(), "shop", metrics)?.through(nats)
//! # }
//! ```
//!
//! # What is on the server
//! Each topic is a JetStream stream: `shop.order.placed` is the stream `shop_order_placed` with the subjects
//! `shop.order.placed.0`, `.1` and so on, one for each hash partition of the events' keys. It is made by the first process
//! that needs it: on disk, without a limit but age (7 days). One that is there and would lose events is refused with what
//! to change: in memory, `discard: old` under a limit of size, or without acknowledgements.
//!
//! A message is a CloudEvent in binary mode (`ce-id`, `ce-type`, …), with its id as `Nats-Msg-Id` too, so that the server
//! itself drops most of what is sent twice.
//!
//! # URL
//! `nats://[user:password@ | token@]host[:4222][,host…]`, or `tls://…` with the system's root certificates (or those in
//! `SSL_CERT_FILE`). In the query: `prefix`, which stands before the names of all streams and subjects; `replicas` (1) and
//! `max_age` in days (7), for streams that are made.
//!
//! # Where it ends
//! NATS acknowledges a message before it is on disk: by default a server flushes every two minutes (`sync_interval`), and
//! what a machine that loses power had not flushed is lost though it was confirmed, unless other replicas have it. Set
//! `jetstream { sync_interval: always }` (2.10 and newer), or run three replicas in places that don't fail together.

mod broker;
mod headers;
mod reader;
mod topic;
mod url;

pub use broker::Nats;
