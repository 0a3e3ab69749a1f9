//! A topic on the server: made, or checked.

use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind, ExchangeKind};
use mainstay_core::{Code, Error, Result};

use crate::link::{CALL, Line, Link, call};
use crate::url::Address;

/// Pauses of those who find another process at it.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of the topic's exchange.
pub(crate) fn exchange_of(address: &Address, topic: &str) -> String {
    format!("{}{topic}", address.prefix)
}

/// The name of one of its streams.
pub(crate) fn stream_of(address: &Address, topic: &str, number: u32) -> String {
    format!("{}{topic}.{number}", address.prefix)
}

/// Makes the exchange of `topic` and `streams` streams, or checks those that are there and returns how many there are.
pub(crate) async fn open(link: &Link, address: &Address, topic: &str, streams: u32) -> Result<u32> {
    let mut there = count(link, address, topic).await?;
    if there == 0 {
        // Two who make it at once could be of two minds about the number. A queue of one connection is a lock.
        let name = format!("{}.being-made", exchange_of(address, topic));
        let lock = lock(link, &name).await?;
        there = count(link, address, topic).await?;
        if there == 0 {
            make(link, address, topic, streams).await?;
            // One that was given up in the middle may have left some behind the last of ours.
            there = count(link, address, topic).await?;
        }
        let _ = call("making a topic", lock.queue_delete(name.into(), QueueDeleteOptions::default())).await;
    }
    make(link, address, topic, there).await?;
    Ok(there)
}

/// How many streams there are. The first is made last, so that there are all or none.
async fn count(link: &Link, address: &Address, topic: &str) -> Result<u32> {
    let channel = link.channel().await?;
    let mut there = 0;
    while exists(&channel, &stream_of(address, topic, there)).await? {
        there += 1;
    }
    Ok(there)
}

/// Asks for a queue. The channel is closed by a `false`.
async fn exists(channel: &Channel, queue: &str) -> Result<bool> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    match call("looking for a stream", channel.queue_declare(queue.into(), passive, FieldTable::default())).await {
        Ok(_) => Ok(true),
        Err(error)
            if is_soft(&error, &AMQPSoftError::NOTFOUND) && reason(&error).is_some_and(|said| is_absent(&said)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// What the server says of a queue that it doesn't have. One that isn't up yet after a restart is "not found" by the same
/// code, and taking that for the end of the streams would leave those behind it unread.
fn is_absent(said: &str) -> bool {
    said.contains("no queue '")
}

/// Holds a name until it is deleted, or our connection ends.
async fn lock(link: &Link, name: &str) -> Result<Line> {
    let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut waited = Duration::ZERO;
    loop {
        let channel = link.channel().await?;
        match call("making a topic", channel.queue_declare(name.into(), exclusive, FieldTable::default())).await {
            Ok(_) => return Ok(channel),
            Err(error) if is_soft(&error, &AMQPSoftError::RESOURCELOCKED) && waited < CALL => {
                tokio::time::sleep(PAUSE).await;
                waited += PAUSE;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Declares everything; what is there already has to be the same.
async fn make(link: &Link, address: &Address, topic: &str, streams: u32) -> Result<()> {
    let channel = link.channel().await?;
    let exchange = exchange_of(address, topic);
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default());
    call("making an exchange", declared).await.map_err(|error| other_than_ours(&exchange, error))?;
    // All on their way at once; the server takes them in this order, the first stream last.
    let declared = join_all((0..streams).rev().map(async |number| {
        let stream = stream_of(address, topic, number);
        let declared =
            channel.queue_declare(stream.as_str().into(), QueueDeclareOptions::durable(), arguments(address));
        call("making a stream", declared).await.map_err(|error| other_than_ours(&stream, error))
    }));
    declared.await.into_iter().collect::<Result<Vec<_>>>()?;
    let bound = join_all((0..streams).map(async |number| {
        let (stream, key) = (stream_of(address, topic, number), number.to_string());
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bound = channel.queue_bind(stream.into(), exchange.as_str().into(), key.into(), options, arguments);
        call("binding a stream", bound).await
    }));
    bound.await.into_iter().collect::<Result<Vec<_>>>()?;
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}

fn arguments(address: &Address) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    arguments.insert("x-max-age".into(), AMQPValue::LongString(format!("{}D", address.max_age).into()));
    if let Some(replicas) = address.replicas {
        arguments.insert("x-initial-cluster-size".into(), AMQPValue::LongLongInt(i64::from(replicas)));
    }
    arguments
}

/// Says what to do about something that isn't as it has to be. The server says what that is.
fn other_than_ours(name: &str, error: Error) -> Error {
    if error.code() != Code::Unavailable || !is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) {
        return error;
    }
    Error::failed_precondition(format!(
        "`{name}` of RabbitMQ is not what events need, a durable stream with the `max_age` and `replicas` of the URL: {}; \
         have all services say the same, or delete it when everything in it was read",
        reason(&error).unwrap_or_default()
    ))
}

fn is_soft(error: &Error, kind: &AMQPSoftError) -> bool {
    matches!(cause(error), Some(ErrorKind::ProtocolError(error)) if matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == kind))
}

/// What the server said.
pub(crate) fn reason(error: &Error) -> Option<String> {
    match cause(error)? {
        ErrorKind::ProtocolError(error) => Some(error.get_message().to_string()),
        _ => None,
    }
}

fn cause(error: &Error) -> Option<&ErrorKind> {
    error.downcast_ref::<lapin::Error>().map(lapin::Error::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_not_up_yet_is_not_absent() {
        assert!(is_absent("NOT_FOUND - no queue 'orders.3' in vhost '/'"));
        assert!(!is_absent(
            "NOT_FOUND - home node 'rabbit@a' of durable queue 'orders.3' in vhost '/' is down or inaccessible"
        ));
    }
}
