//! [`Envelope`]: an event with all that is known about it, in the terms of CloudEvents 1.0.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mainstay_core::{Context, Trace};
use mainstay_sql::FromRow;
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

/// An event as tables keep it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Record {
    pub(crate) event_id: Uuid,
    pub(crate) event_type: String,
    pub(crate) topic: String,
    pub(crate) event_key: Option<String>,
    #[row(json)]
    pub(crate) meta: Meta,
    pub(crate) payload: Vec<u8>,
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

impl Record {
    pub(crate) fn envelope(&self, attempt: u32) -> Envelope {
        Envelope {
            id: self.event_id,
            event_type: self.event_type.clone(),
            topic: self.topic.clone(),
            key: self.event_key.clone(),
            meta: self.meta.clone(),
            attempt,
        }
    }

    /// `ctx` for whoever handles the event: in the trace of the request that published it.
    pub(crate) fn context(&self, ctx: &Context, attempt: u32) -> Context {
        let ctx = ctx.with_value(self.envelope(attempt));
        match self.meta.trace() {
            Some(trace) => ctx.with_trace(trace.child()),
            None => ctx,
        }
    }

    /// The event as one CloudEvents 1.0 document in JSON (structured mode).
    pub(crate) fn cloud_event(&self) -> serde_json::Value {
        let mut event = serde_json::json!({
            "specversion": "1.0",
            "id": self.event_id,
            "source": self.meta.source,
            "type": self.event_type,
            "datacontenttype": "application/json",
            "dataversion": self.meta.version.to_string(),
        });
        let optional = [
            ("time", self.meta.time.map(|time| time.to_string())),
            ("partitionkey", self.event_key.clone()),
            ("traceparent", self.meta.traceparent.clone()),
            ("tracestate", self.meta.tracestate.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                event[name] = value.into();
            }
        }
        match serde_json::from_slice::<serde_json::Value>(&self.payload) {
            Ok(data) => event["data"] = data,
            Err(_) => event["data"] = String::from_utf8_lossy(&self.payload).into(), // undecodable, shown as it is
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let meta = Meta {
            source: "shop".to_owned(),
            time: Some(Timestamp::UNIX_EPOCH),
            version: 1,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: Some("a=b".to_owned()),
            ..Meta::default()
        };
        Record {
            event_id: Uuid::nil(),
            event_type: "shop.order.placed".to_owned(),
            topic: "shop.order.placed".to_owned(),
            event_key: Some("7".to_owned()),
            meta,
            payload: br#"{"id":7}"#.to_vec(),
        }
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = record().cloud_event();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["time"], "1970-01-01T00:00:00Z");
        assert_eq!(event["partitionkey"], "7");
        assert_eq!(event["data"]["id"], 7);
    }

    #[test]
    fn a_handler_is_in_the_trace_of_the_publisher() {
        let ctx = record().context(&Context::background(), 2);
        let trace = ctx.trace().unwrap();
        assert_eq!(format!("{:032x}", trace.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.state.as_deref(), Some("a=b"));
        assert_ne!(trace.span_id, 0x00f0_67aa_0ba9_02b7, "a span of its own");
        assert_eq!(ctx.value::<Envelope>().unwrap().attempt, 2);
    }

    #[test]
    fn attributes_survive_the_round_trip() {
        let meta = record().meta;
        let json = serde_json::to_value(&meta).unwrap();
        assert_eq!(serde_json::from_value::<Meta>(json).unwrap(), meta);
        assert!(serde_json::from_str::<Meta>(r#"{"source":"s","time":null,"version":1,"new":true}"#).is_ok());
    }
}
