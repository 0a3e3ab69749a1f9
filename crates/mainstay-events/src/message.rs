//! [`Message`]: an event on its way, as tables and brokers keep it.

use std::collections::BTreeMap;
use std::fmt;

use mainstay_core::{Context, RequestId};
use mainstay_sql::FromRow;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::envelope::{Envelope, Meta};
use crate::hash::partition;

/// An event on its way: what tables and brokers keep of it.
///
/// On a broker it is a CloudEvent in binary mode: the payload is the message's body, and each attribute is a header in
/// the form that the CloudEvents binding of the protocol prescribes, as `ce-id` on NATS. The publisher's own headers,
/// [`Meta::headers`], stand beside them under their own names.
#[derive(Clone, Debug, Eq, FromRow, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// `id`: the same however often the message is sent.
    #[row(rename = "event_id")]
    pub id: Uuid,
    /// `type`.
    pub event_type: String,
    /// The topic, subject or exchange.
    pub topic: String,
    /// `partitionkey`.
    #[row(rename = "event_key")]
    pub key: Option<String>,
    /// `source`, `time` and what else it carries.
    #[row(json)]
    pub meta: Meta,
    /// The body: JSON.
    pub payload: Vec<u8>,
}

/// What a broker delivered and nobody can make an event of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Malformed {
    /// What is wrong with it, for the dead letter.
    pub reason: String,
    /// The body as it came.
    pub payload: Vec<u8>,
}

impl Message {
    /// The CloudEvents attributes, extensions among them, as names without a prefix and values.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let meta = &self.meta;
        let always = [
            ("specversion", Some("1.0".to_owned())),
            ("id", Some(self.id.to_string())),
            ("source", Some(meta.source.clone())),
            ("type", Some(self.event_type.clone())),
            ("datacontenttype", Some("application/json".to_owned())),
            ("dataversion", Some(meta.version.to_string())),
            ("time", meta.time.map(|time| time.to_string())),
            ("partitionkey", self.key.clone()),
            ("traceparent", meta.traceparent.clone()),
            ("tracestate", meta.tracestate.clone()),
            ("baggage", meta.baggage.clone()),
            ("requestid", meta.request_id.clone()),
        ];
        always.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The message that `attributes` and `headers` describe; also one that another library has made.
    ///
    /// An `id` that isn't a UUID becomes one that is derived from `source` and `id`, which together name an event.
    ///
    /// # Errors
    /// [`Malformed`]: an attribute that is missing or can't be read.
    pub fn from_attributes<'a>(
        topic: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
        headers: BTreeMap<String, String>,
        payload: Vec<u8>,
    ) -> Result<Self, Malformed> {
        let attributes: BTreeMap<&str, &str> = attributes.into_iter().collect();
        let optional = |name: &str| attributes.get(name).map(|value| (*value).to_owned());
        let described = || {
            let required = |name: &str| match attributes.get(name) {
                Some(value) if !value.is_empty() => Ok(*value),
                _ => Err(format!("the CloudEvents attribute `{name}` is missing")),
            };
            let version = required("specversion")?;
            if !version.starts_with("1.") {
                return Err(format!("specversion {version:?}: CloudEvents 1.0 is what is known here"));
            }
            let (id, source) = (required("id")?, required("source")?);
            let meta = Meta {
                source: source.to_owned(),
                time: optional("time").and_then(|time| time.parse().ok()),
                version: optional("dataversion").and_then(|version| version.parse().ok()).unwrap_or(1),
                traceparent: optional("traceparent"),
                tracestate: optional("tracestate"),
                baggage: optional("baggage"),
                request_id: optional("requestid"),
                headers,
            };
            let id = id.parse().unwrap_or_else(|_| derived_id([source, id].map(str::as_bytes)));
            Ok((id, required("type")?.to_owned(), meta))
        };
        match described() {
            Ok((id, event_type, meta)) => {
                let (topic, key) = (topic.to_owned(), optional("partitionkey"));
                Ok(Self { id, event_type, topic, key, meta, payload })
            }
            Err(reason) => Err(Malformed { reason, payload }),
        }
    }

    /// The event as one CloudEvents 1.0 document in JSON (structured mode).
    pub(crate) fn cloud_event(&self) -> serde_json::Value {
        let mut event = serde_json::Value::Object(serde_json::Map::new());
        for (name, value) in self.attributes() {
            event[name] = value.into();
        }
        match serde_json::from_slice::<serde_json::Value>(&self.payload) {
            Ok(data) => event["data"] = data,
            Err(_) => event["data"] = String::from_utf8_lossy(&self.payload).into(), // undecodable, shown as it is
        }
        event
    }

    /// The one of `count` partitions that it belongs to.
    pub(crate) fn part(&self, count: u32) -> i32 {
        partition(self.key.as_ref().map_or(self.id.as_bytes().as_slice(), |key| key.as_bytes()), count)
    }

    pub(crate) fn envelope(&self, attempt: u32) -> Envelope {
        Envelope {
            id: self.id,
            event_type: self.event_type.clone(),
            topic: self.topic.clone(),
            key: self.key.clone(),
            meta: self.meta.clone(),
            attempt,
        }
    }

    /// `ctx` for whoever handles the event: in the trace, and with the id, of the request that published it.
    pub(crate) fn context(&self, ctx: &Context, attempt: u32) -> Context {
        let ctx = ctx.with_value(self.envelope(attempt));
        let ctx = match self.meta.request_id.as_deref().and_then(RequestId::parse) {
            Some(id) => ctx.with_request_id(id),
            None => ctx,
        };
        match self.meta.trace() {
            Some(trace) => ctx.with_trace(trace.child()),
            None => ctx,
        }
    }
}

impl Malformed {
    /// What stands for it among dead letters. The same bytes of the same topic are the same one.
    pub(crate) fn into_message(self, topic: &str) -> (Message, String) {
        let message = Message {
            id: derived_id([topic.as_bytes(), &self.payload]),
            event_type: "malformed".to_owned(),
            topic: topic.to_owned(),
            key: None,
            meta: Meta::default(),
            payload: self.payload,
        };
        (message, self.reason)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Malformed {}

/// A UUIDv8 of what `parts` are.
fn derived_id<const N: usize>(parts: [&[u8]; N]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn message() -> Message {
        let meta = Meta {
            source: "shop".to_owned(),
            time: Some(Timestamp::UNIX_EPOCH),
            version: 3,
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: Some("a=b".to_owned()),
            baggage: Some("tenant=7".to_owned()),
            request_id: Some("r-1".to_owned()),
            headers: BTreeMap::from([("tenant".to_owned(), "seven".to_owned())]),
        };
        Message {
            id: Uuid::nil(),
            event_type: "shop.order.placed".to_owned(),
            topic: "shop.order".to_owned(),
            key: Some("7".to_owned()),
            meta,
            payload: br#"{"id":7}"#.to_vec(),
        }
    }

    fn read(attributes: &[(&'static str, String)]) -> Result<Message, Malformed> {
        let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
        Message::from_attributes("shop.order", attributes, message().meta.headers, message().payload)
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = message().cloud_event();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["time"], "1970-01-01T00:00:00Z");
        assert_eq!(event["partitionkey"], "7");
        assert_eq!(event["data"]["id"], 7);
    }

    #[test]
    fn attributes_survive_the_round_trip() {
        assert_eq!(read(&message().attributes()).unwrap(), message());
        let plain =
            Message { key: None, meta: Meta { headers: message().meta.headers, ..Meta::default() }, ..message() };
        assert!(read(&plain.attributes()).is_err(), "it has no source");
        let json = serde_json::to_value(message().meta).unwrap();
        assert_eq!(serde_json::from_value::<Meta>(json).unwrap(), message().meta);
        assert!(serde_json::from_str::<Meta>(r#"{"source":"s","time":null,"version":1,"new":true}"#).is_ok());
    }

    #[test]
    fn what_another_library_sent_is_understood_or_refused_with_the_reason() {
        let all = [("specversion", "1.0"), ("id", "A-1"), ("source", "/billing"), ("type", "paid")];
        let all = all.map(|(name, value)| (name, value.to_owned()));
        let message = read(&all).unwrap();
        assert_eq!((message.meta.version, message.key.as_deref(), message.meta.time), (1, None, None));
        assert_eq!(message.id.get_version_num(), 8);
        assert_eq!(message.id, read(&all).unwrap().id, "the same event has the same id");
        let mut other = all.clone();
        other[2].1 = "/b".to_owned();
        assert_ne!(message.id, read(&other).unwrap().id, "an id is its source's");
        for (missing, (name, _)) in all.iter().enumerate() {
            let mut some = all.to_vec();
            some.remove(missing);
            let malformed = read(&some).unwrap_err();
            assert!(malformed.reason.contains(name), "{malformed}");
            assert_eq!(malformed.payload, br#"{"id":7}"#);
        }
        let mut old = all.clone();
        old[0].1 = "0.3".to_owned();
        assert!(read(&old).unwrap_err().reason.contains("0.3"));
    }

    #[test]
    fn a_handler_is_in_the_trace_of_the_publisher() {
        let ctx = message().context(&Context::background(), 2);
        let trace = ctx.trace().unwrap();
        assert_eq!(format!("{:032x}", trace.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.state.as_deref(), Some("a=b"));
        assert_ne!(trace.span_id, 0x00f0_67aa_0ba9_02b7, "a span of its own");
        assert_eq!(ctx.value::<Envelope>().unwrap().attempt, 2);
    }
}
