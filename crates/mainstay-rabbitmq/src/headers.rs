//! An event as the properties and headers of a message, by the AMQP binding of CloudEvents.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mainstay_core::{Error, Result};
use mainstay_events::{Malformed, Message};

/// What the attributes of a CloudEvent begin with: ours, and what others may send as well, by AMQP's and Knative's binding.
const ATTRIBUTE: &str = "cloudEvents_";
const ATTRIBUTES: [&str; 3] = [ATTRIBUTE, "cloudEvents:", "ce-"];

/// The attribute that stands in a property of the message.
const CONTENT_TYPE: &str = "datacontenttype";

const TIME: &str = "time";

/// Of messages that outlive their server.
const PERSISTENT: u8 = 2;

/// # Errors
/// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument): a header's name is longer than names can be.
pub(crate) fn write(message: &Message) -> Result<BasicProperties> {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(ShortString::from(message.id.to_string()));
    let mut headers = FieldTable::default();
    let mut add = |name: String, value: String| -> Result<()> {
        let name = ShortString::try_new(name)
            .map_err(|_| Error::invalid_argument("RabbitMQ takes no header whose name is longer than 255 bytes"))?;
        headers.insert(name, AMQPValue::LongString(value.into()));
        Ok(())
    };
    for (name, value) in message.attributes() {
        match (name, ShortString::try_new(value.as_str())) {
            (CONTENT_TYPE, Ok(value)) => properties = properties.with_content_type(value),
            _ => add(format!("{ATTRIBUTE}{name}"), value)?,
        }
    }
    for (name, value) in &message.meta.headers {
        add(name.clone(), value.clone())?;
    }
    Ok(properties.with_headers(headers))
}

pub(crate) fn read(topic: &str, properties: &BasicProperties, payload: Vec<u8>) -> Result<Message, Malformed> {
    let (mut attributes, mut own) = (Vec::new(), BTreeMap::new());
    if let Some(content_type) = properties.content_type() {
        attributes.push((CONTENT_TYPE, content_type.as_str().to_owned()));
    }
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    for (name, value) in headers.into_iter().flatten() {
        let (name, Some(text)) = (name.as_str(), text_of(value)) else { continue };
        match ATTRIBUTES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            Some(TIME) => attributes.push((TIME, time_of(value).unwrap_or(text))),
            Some(attribute) => attributes.push((attribute, text)),
            // What RabbitMQ adds for itself is none of the publisher's.
            None if name.starts_with("x-stream-") => {}
            None => drop(own.insert(name.to_owned(), text)),
        }
    }
    Message::from_attributes(topic, attributes.iter().map(|(name, value)| (*name, value.as_str())), own, payload)
}

/// A time that is no text: milliseconds, as AMQP 1.0 has it.
fn time_of(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongLongInt(millis) => Timestamp::from_millisecond(*millis).ok().map(|time| time.to_string()),
        _ => None,
    }
}

/// A value of AMQP as the text that CloudEvents has for it; what is no single value has none.
fn text_of(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.as_str().to_owned(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => Timestamp::from_second(i64::try_from(*seconds).ok()?).ok()?.to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198a5a0-0000-7000-8000-000000000000";

    fn message(key: &str, own: BTreeMap<String, String>) -> Message {
        let attributes = [("specversion", "1.0"), ("id", ID), ("source", "s"), ("type", "t"), ("partitionkey", key)];
        Message::from_attributes("t", attributes, own, b"{}".to_vec()).unwrap()
    }

    #[test]
    fn whatever_a_key_or_a_header_is_it_arrives_as_that_and_as_nothing_else() {
        for text in ["a\r\ncloudEvents_id: spoofed", "ключ", "100 %41 \"quoted\"", "\t\u{1}", ""] {
            let sent = message(text, BTreeMap::from([("tenant".to_owned(), text.to_owned())]));
            let properties = write(&sent).unwrap();
            assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
            assert_eq!(read("t", &properties, b"{}".to_vec()).unwrap(), sent, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_and_no_panic() {
        let long = message("a", BTreeMap::from([("x".repeat(256), String::new())]));
        assert!(write(&long).is_err());
    }

    #[test]
    fn what_others_send_is_understood() {
        let mut headers = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("id", ID), ("source", "s"), ("type", "t")] {
            headers.insert(format!("cloudEvents:{name}").into(), AMQPValue::LongString(value.into()));
        }
        headers.insert("cloudEvents:dataversion".into(), AMQPValue::LongInt(3));
        headers.insert("cloudEvents:time".into(), AMQPValue::Timestamp(0));
        headers.insert("x-stream-offset".into(), AMQPValue::LongLongInt(7));
        headers.insert("list".into(), AMQPValue::Void);
        let properties = |headers: &FieldTable| BasicProperties::default().with_headers(headers.clone());
        let message = read("t", &properties(&headers), Vec::new()).unwrap();
        assert_eq!((message.meta.version, message.meta.time), (3, Some(Timestamp::UNIX_EPOCH)));
        assert!(message.meta.headers.is_empty());
        headers.insert("cloudEvents:time".into(), AMQPValue::LongLongInt(1_500));
        let message = read("t", &properties(&headers), Vec::new()).unwrap();
        assert_eq!(message.meta.time.unwrap().to_string(), "1970-01-01T00:00:01.5Z");
    }
}
