//! An event as the headers of a Kafka message, by the CloudEvents binding: values are plain UTF-8.

use std::collections::BTreeMap;

use mainstay_events::{Malformed, Message};
use rdkafka::message::{Header, Headers, OwnedHeaders};

/// What the attributes of a CloudEvent begin with.
const ATTRIBUTE: &str = "ce_";

/// The one attribute that has a header of its own name.
const CONTENT: (&str, &str) = ("datacontenttype", "content-type");

pub(crate) fn write(message: &Message) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (name, value) in message.attributes() {
        let key = if name == CONTENT.0 { CONTENT.1.to_owned() } else { format!("{ATTRIBUTE}{name}") };
        headers = headers.insert(Header { key: &key, value: Some(&value) });
    }
    for (name, value) in &message.meta.headers {
        headers = headers.insert(Header { key: name, value: Some(value) });
    }
    headers
}

pub(crate) fn read<H: Headers>(
    topic: &str,
    key: Option<&[u8]>,
    headers: Option<&H>,
    payload: Vec<u8>,
) -> Result<Message, Malformed> {
    let (mut attributes, mut own) = (BTreeMap::new(), BTreeMap::new());
    for header in headers.into_iter().flat_map(Headers::iter) {
        let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
        match header.key.strip_prefix(ATTRIBUTE) {
            Some(attribute) => drop(attributes.insert(attribute.to_owned(), value)),
            None if header.key == CONTENT.1 => drop(attributes.insert(CONTENT.0.to_owned(), value)),
            None => drop(own.insert(header.key.to_owned(), value)),
        }
    }
    // A stranger says by the message's own key what is to stay in order.
    if let Some(key) = key {
        attributes.entry("partitionkey".to_owned()).or_insert_with(|| String::from_utf8_lossy(key).into_owned());
    }
    Message::from_attributes(
        topic,
        attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        own,
        payload,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_or_a_header_is_it_arrives_as_that_and_as_nothing_else() {
        let id = "0198a5a0-0000-7000-8000-000000000000";
        for text in ["a\r\nce_id: spoofed", "ключ", "100 %41 \"quoted\"", "\t\u{1}", ""] {
            let attributes =
                [("specversion", "1.0"), ("id", id), ("source", "s"), ("type", "t"), ("partitionkey", text)];
            let own = BTreeMap::from([("tenant".to_owned(), text.to_owned())]);
            let sent = Message::from_attributes("t", attributes, own, b"{}".to_vec()).unwrap();
            let headers = write(&sent);
            assert_eq!(read("t", Some(text.as_bytes()), Some(&headers), b"{}".to_vec()).unwrap(), sent, "{text:?}");
        }
    }

    #[test]
    fn the_key_of_a_strangers_message_is_the_events_key() {
        let attributes = [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "t")];
        let mut headers = OwnedHeaders::new();
        for (name, value) in attributes {
            headers = headers.insert(Header { key: &format!("ce_{name}"), value: Some(value) });
        }
        let message = read("t", Some(b"42"), Some(&headers), b"{}".to_vec()).unwrap();
        assert_eq!(message.key.as_deref(), Some("42"));
        let malformed = read::<OwnedHeaders>("t", None, None, b"x".to_vec()).unwrap_err();
        assert!(malformed.reason.contains("`specversion` is missing"), "{}", malformed.reason);
    }
}
