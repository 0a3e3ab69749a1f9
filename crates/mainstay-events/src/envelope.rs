//! [`Envelope`]: an event with all that is known about it, in the terms of CloudEvents 1.0.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mainstay_core::Trace;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What surrounds an event's payload. A consumer's handler finds it by `ctx.value::<Envelope>()`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Envelope {
    /// `id`: the same for each delivery of the event, a UUIDv7.
    pub id: Uuid,
    /// `type`: see [`Event::TYPE`](crate::Event::TYPE).
    pub event_type: String,
    /// The topic it was published to.
    pub topic: String,
    /// `partitionkey`: see [`Event::key`](crate::Event::key).
    pub key: Option<String>,
    /// `source`, `time` and what else it carries.
    pub meta: Meta,
    /// How many times this group has begun to handle it, this time included; more than 1 after a failure or a crash.
    pub attempt: u32,
}

/// The attributes of an event that no query asks for, kept as one document.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Meta {
    /// `source`: the service that published it.
    pub source: String,
    /// `time`: when it was published, by the clock of the publisher.
    pub time: Option<Timestamp>,
    /// The version of the payload's shape.
    pub version: u32,
    /// `traceparent`: the trace of the request that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// `baggage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<String>,
    /// The request that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the publisher added; see [`PublishOptions::header`](crate::PublishOptions::header).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Meta {
    /// The trace that the event belongs to, if it carries one that can be read.
    pub fn trace(&self) -> Option<Trace> {
        let mut trace: Trace = self.traceparent.as_deref()?.parse().ok()?;
        trace.state = self.tracestate.as_deref().map(Into::into);
        trace.baggage = self.baggage.as_deref().map(Into::into);
        Some(trace)
    }
}
