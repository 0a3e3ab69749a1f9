//! Events through RabbitMQ.
//!
//! ```no_run
//! # use mainstay_core::Result;
//! # use mainstay_events::{Events, EventsSettings};
//! # fn declare(db: &mainstay_sql::Db, metrics: &mainstay_telemetry::Metrics) -> Result<Events> {
//! use mainstay_rabbitmq::RabbitMq;
//!
//! let rabbitmq = RabbitMq::new("amqp://guest:guest@localhost:5672")?;
//! Events::new(db, EventsSettings::default(), "shop", metrics)?.through(rabbitmq)
//! # }
//! ```
//!
//! # What is on the server
//! Each topic is a durable topic exchange: `shop.order.placed`, and behind it the queues `shop.order.placed.0`, `.1` and so
//! on, one for each hash partition of the events' keys, with the partition's number as routing key. These queues are
//! *streams* (`x-queue-type: stream`, RabbitMQ 3.9 and newer): every service reads them from its own place, and what was
//! read stays for 7 days, so that a service which comes later finds it. They are made by the first process that needs them;
//! those that are there with other arguments are refused with what the server says about them.
//!
//! Other programs can bind queues of their own to the exchange, of any kind, with `#` for all partitions. A message is sent
//! `mandatory` and counts as stored when the server has confirmed it, which it does when all queues have it.
//!
//! A message is a CloudEvent in binary mode, by the AMQP binding: headers `cloudEvents_id`, `cloudEvents_type`, …, the
//! content type in its property. `cloudEvents:` and `ce-` are understood too.
//!
//! # URL
//! `amqp://[user:password@]host[:5672][,host…][/vhost]`, or `amqps://…` with the system's root certificates (or those in
//! `SSL_CERT_FILE`). In the query: `prefix`, which stands before the names of all exchanges and queues; `replicas` (what the
//! server does by default: one on each node) and `max_age` in days (7), for streams that are made.
//!
//! # Where it ends
//! RabbitMQ confirms what a stream has before it is on disk: a single node that loses power can lose what was confirmed last.
//! Run three nodes in places that don't fail together. A service that was away for longer than `max_age` has missed events.
//! A process reads each stream by a channel of its own, and a server allows some 2,000 in a connection (`channel_max`): so
//! many partitions, of all topics together, can one process take in.

mod broker;
mod headers;
mod link;
mod reader;
mod socket;
mod topic;
mod url;

pub use broker::RabbitMq;
