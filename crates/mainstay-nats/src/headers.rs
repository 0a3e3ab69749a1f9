//! An event as the headers of a NATS message, by the CloudEvents binding: values are percent-encoded, so that a key with a
//! line break in it is no second header, and no panic of the client, which takes none.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use mainstay_events::{Malformed, Message};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What the attributes of a CloudEvent begin with.
const ATTRIBUTE: &str = "ce-";

/// What the binding of HTTP, to which that of NATS refers, wants encoded beside all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

pub(crate) fn write(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(async_nats::header::NATS_MESSAGE_ID, message.id.to_string());
    for (name, value) in message.attributes() {
        headers.insert(format!("{ATTRIBUTE}{name}"), utf8_percent_encode(&value, ENCODED).to_string());
    }
    for (name, value) in &message.meta.headers {
        headers.insert(name.as_str(), utf8_percent_encode(value, ENCODED).to_string());
    }
    headers
}

pub(crate) fn read(topic: &str, headers: &HeaderMap, payload: Vec<u8>) -> Result<Message, Malformed> {
    let (mut attributes, mut own) = (Vec::new(), BTreeMap::new());
    for (name, values) in headers.iter() {
        let (name, Some(value)) = (AsRef::<str>::as_ref(name), values.first()) else { continue };
        let value = percent_decode_str(value.as_str()).decode_utf8_lossy().into_owned();
        match name.strip_prefix(ATTRIBUTE) {
            Some(attribute) => attributes.push((attribute, value)),
            // What NATS adds for itself is none of the publisher's.
            None if name.starts_with("Nats-") => {}
            None => drop(own.insert(name.to_owned(), value)),
        }
    }
    Message::from_attributes(topic, attributes.iter().map(|(name, value)| (*name, value.as_str())), own, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_or_a_header_is_it_arrives_as_that_and_as_nothing_else() {
        let id = "0198a5a0-0000-7000-8000-000000000000";
        let attributes =
            |key| [("specversion", "1.0"), ("id", id), ("source", "s"), ("type", "t"), ("partitionkey", key)];
        for text in ["a\r\nce-id: spoofed", "ключ", "100 %41 \"quoted\"", "\t\u{1}"] {
            let own = BTreeMap::from([("tenant".to_owned(), text.to_owned())]);
            let sent = Message::from_attributes("t", attributes(text), own, b"{}".to_vec()).unwrap();
            let headers = write(&sent);
            assert_eq!(read("t", &headers, b"{}".to_vec()).unwrap(), sent, "{text:?}");
        }
    }
}
