//! [`Consumer`]: the connection that readers share, and what is asked of the server about topics.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_core::{Error, Result};
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, DefaultConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::task::AbortOnDropHandle;

use crate::topic::{Shape, unavailable};

/// How long one question to the server may take.
const CALL: Duration = Duration::from_secs(5);

/// A client of librdkafka that reads: some threads of its own, whatever the number of partitions.
pub(crate) struct Consumer {
    client: Arc<StreamConsumer>,
    /// What somebody reads. Two who read the same partition, a process that was suspended and doesn't know it and its
    /// heir, need two clients.
    assigned: Mutex<HashSet<Partition>>,
    /// What concerns no partition goes to the client's own queue, which has to be looked at.
    _poll: AbortOnDropHandle<()>,
}

type Partition = (String, i32);

/// A partition that is being read through a client, until it is dropped.
pub(crate) struct Assigned {
    pub(crate) queue: StreamPartitionQueue<DefaultConsumerContext>,
    partition: Partition,
    consumer: Arc<Consumer>,
}

impl Consumer {
    pub(crate) fn new(base: &ClientConfig) -> Result<Self> {
        let mut config = base.clone();
        // The group has no members: partitions are assigned by hand, and offsets are kept in the service's database.
        config
            .set("group.id", "mainstay")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.error.backoff.ms", "100");
        let client: StreamConsumer = config.create().map_err(|error| unavailable("beginning to read", error))?;
        let client = Arc::new(client);
        let polled = client.clone();
        let poll = tokio::spawn(async move {
            loop {
                if let Err(error) = polled.recv().await {
                    tracing::debug!(target: "mainstay::events", %error, "Kafka");
                }
            }
        });
        Ok(Self { client, assigned: Mutex::default(), _poll: AbortOnDropHandle::new(poll) })
    }

    /// Begins to read a partition with the message at `offset`; `None` if somebody reads it through this client.
    pub(crate) fn assign(self: &Arc<Self>, topic: &str, partition: i32, offset: i64) -> Result<Option<Assigned>> {
        let key = (topic.to_owned(), partition);
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if assigned.contains(&key) {
            return Ok(None);
        }
        // Before the assignment, so that nothing goes to the client's own queue.
        let queue = self.client.split_partition_queue(topic, partition);
        let queue = queue.ok_or_else(|| Error::unavailable("Kafka has no such partition"))?;
        self.client
            .incremental_assign(&list(&key, Offset::Offset(offset))?)
            .map_err(|error| unavailable("beginning to read", error))?;
        assigned.insert(key.clone());
        drop(assigned);
        Ok(Some(Assigned { queue, partition: key, consumer: self.clone() }))
    }

    /// What the server says of a topic; `None` if there is none.
    pub(crate) async fn shape(self: &Arc<Self>, topic: &str) -> Result<Option<Shape>> {
        let name = topic.to_owned();
        let asked = self.ask(move |client| client.fetch_metadata(Some(&name), CALL)).await?;
        let metadata = asked.map_err(|error| unavailable("looking for a topic", error))?;
        let Some(found) = metadata.topics().first() else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
            Some(code) => return Err(unavailable("looking for a topic", KafkaError::MetadataFetch(code))),
        }
        let partitions = found.partitions();
        let replicas = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
        match u32::try_from(partitions.len()) {
            Ok(0) | Err(_) => Err(Error::unavailable(format!("the topic `{topic}` of Kafka has no partitions yet"))),
            Ok(partitions) => Ok(Some(Shape { partitions, replicas })),
        }
    }

    /// The offset of the oldest message that is kept, and of the next one that will be stored.
    pub(crate) async fn bounds(self: &Arc<Self>, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let topic = topic.to_owned();
        let asked = self.ask(move |client| client.fetch_watermarks(&topic, partition, CALL)).await?;
        asked.map_err(|error| unavailable("looking where a partition ends", error))
    }

    /// Asks on a thread that may block.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&StreamConsumer) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<Result<T, KafkaError>> {
        let client = self.client.clone();
        let answer = tokio::task::spawn_blocking(move || question(&client)).await;
        answer.map_err(|error| Error::internal("a question to Kafka was cut off").with_source(error))
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        let mut assigned = self.consumer.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = list(&self.partition, Offset::Invalid).and_then(|list| {
            self.consumer.client.incremental_unassign(&list).map_err(|error| unavailable("ending to read", error))
        }) {
            tracing::debug!(target: "mainstay::events", error = %error.report(), "Kafka");
        }
        assigned.remove(&self.partition);
    }
}

fn list((topic, partition): &Partition, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, *partition, offset).map_err(|error| unavailable("naming a partition", error))?;
    Ok(list)
}
