//! [`Reader`]: one partition, from a place on. A place is the offset of the message behind it.

use std::sync::Arc;

use futures_util::FutureExt;
use mainstay_core::{BoxFuture, Error, Result};
use mainstay_events::broker::{Delivery, Resume, Stream, Subscription};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::consumer::{Assigned, Consumer};
use crate::headers;
use crate::topic::unavailable;
use crate::url::Address;

pub(crate) struct Reader {
    assigned: Assigned,
    topic: String,
    place: i64,
    /// What ends the reading, once what came before it was handed over.
    broken: Option<Error>,
}

/// Where reading begins, and what is wrong with that.
fn begin(from: Resume, (oldest, end): (i64, i64)) -> (i64, Option<&'static str>) {
    match from {
        Resume::Oldest => (oldest, None),
        Resume::Newest => (end, None),
        Resume::After(place) if place > end => {
            (oldest, Some("it ends before our place: it was made anew, and is read from its beginning"))
        }
        Resume::After(place) if place < oldest => {
            (oldest, Some("events were removed by its retention before this service has taken them"))
        }
        Resume::After(place) => (place, None),
    }
}

impl Reader {
    /// Reads through one of `consumers`, or returns `None` if another service of this process reads the partition through
    /// each of them.
    pub(crate) async fn open(
        consumers: &[Arc<Consumer>],
        address: &Address,
        stream: &Stream,
        from: Resume,
    ) -> Result<Option<Self>> {
        let name = address.topic(&stream.topic);
        let number = i32::try_from(stream.number).unwrap_or(i32::MAX);
        for consumer in consumers {
            let (place, trouble) = begin(from, consumer.bounds(&name, number).await?);
            if let Some(assigned) = consumer.assign(&name, number, place)? {
                if let Some(trouble) = trouble {
                    tracing::error!(target: "mainstay::events", topic = name, partition = number, ?from, place, "{trouble}");
                }
                return Ok(Some(Self { assigned, topic: stream.topic.clone(), place, broken: None }));
            }
        }
        Ok(None)
    }
}

fn delivery(topic: &str, message: &BorrowedMessage<'_>) -> Delivery {
    let payload = message.payload().unwrap_or_default().to_vec();
    let place = message.offset().saturating_add(1);
    Delivery { place, message: headers::read(topic, message.key(), message.headers(), payload) }
}

impl Subscription for Reader {
    fn place(&self) -> i64 {
        self.place
    }

    fn fetch(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        Box::pin(async move {
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            let queue = &self.assigned.queue;
            // Nothing is awaited after the first one, so that a call which is dropped loses none.
            let mut next = queue.recv().await;
            let mut fetched = Vec::new();
            loop {
                match next {
                    Ok(message) => fetched.push(delivery(&self.topic, &message)),
                    Err(error) if fetched.is_empty() => return Err(unavailable("reading", error)),
                    Err(error) => {
                        self.broken = Some(unavailable("reading", error));
                        return Ok(fetched);
                    }
                }
                if fetched.len() >= most {
                    return Ok(fetched);
                }
                match queue.recv().now_or_never() {
                    Some(more) => next = more,
                    None => return Ok(fetched),
                }
            }
        })
    }

    fn settle(&mut self, _: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_not_there_any_more_is_told() {
        let bounds = (10, 20);
        assert_eq!(begin(Resume::Oldest, bounds), (10, None));
        assert_eq!(begin(Resume::Newest, bounds), (20, None));
        assert_eq!(begin(Resume::After(10), bounds), (10, None));
        assert_eq!(begin(Resume::After(20), bounds), (20, None));
        assert!(matches!(begin(Resume::After(21), bounds), (10, Some(why)) if why.contains("made anew")));
        assert!(matches!(begin(Resume::After(9), bounds), (10, Some(why)) if why.contains("retention")));
    }
}
