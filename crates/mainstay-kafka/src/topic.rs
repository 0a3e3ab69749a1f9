//! A topic on the server: made, or checked.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Error, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::consumer::Consumer;
use crate::url::Address;

/// How long one call of the administrative interface may take.
const CALL: Duration = Duration::from_secs(5);

/// What is known of a topic that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) partitions: u32,
    pub(crate) replicas: usize,
}

/// Makes the topic with `streams` partitions, or checks the one that is there and returns how many it has.
pub(crate) async fn open(
    consumer: &Arc<Consumer>,
    base: &ClientConfig,
    address: &Address,
    topic: &str,
    streams: u32,
) -> Result<u32> {
    let name = address.topic(topic);
    let Some(shape) = consumer.shape(&name).await? else {
        return make(base, address, &name, streams).await;
    };
    if address.verify {
        let client: AdminClient<DefaultClientContext> =
            base.create().map_err(|error| unavailable("asking about a topic", error))?;
        let options = AdminOptions::new().request_timeout(Some(CALL));
        let described = client.describe_configs([&ResourceSpecifier::Topic(&name)], &options).await;
        let described = described.map_err(|error| unavailable("asking about a topic", error))?;
        let settings = described.into_iter().next().and_then(Result::ok).ok_or_else(|| {
            Error::failed_precondition(format!(
                "Kafka doesn't show the settings of the topic `{name}`: allow DescribeConfigs, or add `verify=false` to the \
                 URL"
            ))
        })?;
        check(shape, |key| value(&settings, key)).map_err(|what| {
            Error::failed_precondition(format!("the topic `{name}` of Kafka would lose events: {what}"))
        })?;
    }
    Ok(shape.partitions)
}

async fn make(base: &ClientConfig, address: &Address, name: &str, streams: u32) -> Result<u32> {
    let client: AdminClient<DefaultClientContext> =
        base.create().map_err(|error| unavailable("making a topic", error))?;
    let age = address.max_age_ms.to_string();
    let in_sync = (address.replicas - 1).max(1).to_string();
    let topic =
        NewTopic::new(name, i32::try_from(streams).unwrap_or(i32::MAX), TopicReplication::Fixed(address.replicas))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &age)
            .set("retention.bytes", "-1")
            .set("unclean.leader.election.enable", "false")
            .set("min.insync.replicas", &in_sync);
    let made = client.create_topics([&topic], &AdminOptions::new().request_timeout(Some(CALL))).await;
    match made.map_err(|error| unavailable("making a topic", error))?.into_iter().next() {
        Some(Ok(_)) => Ok(streams),
        // By another process, meanwhile: the next try looks at it.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
            Err(Error::unavailable(format!("the topic `{name}` of Kafka was made by another process just now")))
        }
        Some(Err((_, code @ (RDKafkaErrorCode::InvalidReplicationFactor | RDKafkaErrorCode::PolicyViolation)))) => {
            Err(Error::failed_precondition(format!(
                "Kafka makes no topic `{name}` with {} replicas ({code}): change `replicas` in the URL, or make it by hand",
                address.replicas
            )))
        }
        Some(Err((_, RDKafkaErrorCode::TopicAuthorizationFailed))) => Err(Error::failed_precondition(format!(
            "Kafka doesn't let this client make the topic `{name}`: make it by hand"
        ))),
        Some(Err((_, code))) => Err(unavailable("making a topic", KafkaError::AdminOp(code))),
        None => Err(Error::unavailable("Kafka gave no answer about a topic")),
    }
}

fn value<'a>(settings: &'a ConfigResource, key: &str) -> Option<&'a str> {
    settings.get(key)?.value.as_deref()
}

/// What has to be changed, if anything.
fn check<'a>(shape: Shape, setting: impl Fn(&str) -> Option<&'a str>) -> Result<(), String> {
    if setting("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        return Err("it keeps the last event of each key only; set `cleanup.policy` to `delete`".to_owned());
    }
    if setting("retention.bytes").is_some_and(|bytes| bytes != "-1") {
        return Err("when it is full it drops the oldest; set `retention.bytes` to -1".to_owned());
    }
    if setting("unclean.leader.election.enable") == Some("true") {
        return Err("a replica that lacks events may lead; set `unclean.leader.election.enable` to `false`".to_owned());
    }
    let alone = setting("min.insync.replicas").is_some_and(|least| least == "1");
    if shape.replicas > 1 && alone {
        return Err("one replica alone may confirm; set `min.insync.replicas` to 2".to_owned());
    }
    Ok(())
}

/// The error of a call that the server didn't answer, or not as it has to.
pub(crate) fn unavailable(what: &'static str, error: KafkaError) -> Error {
    Error::unavailable("the broker can't be reached now, try again")
        .context(format!("{what} on Kafka"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lose_events_is_refused_with_what_to_change() {
        let of = |spoilt: Option<(&'static str, &'static str)>| {
            move |key: &str| match (key, spoilt) {
                (key, Some((name, value))) if key == name => Some(value),
                ("cleanup.policy", _) => Some("delete"),
                ("retention.bytes", _) => Some("-1"),
                ("unclean.leader.election.enable", _) => Some("false"),
                ("min.insync.replicas", _) => Some("2"),
                _ => None,
            }
        };
        let three = Shape { partitions: 4, replicas: 3 };
        assert_eq!(check(three, of(None)), Ok(()));
        assert_eq!(check(Shape { replicas: 1, ..three }, of(Some(("min.insync.replicas", "1")))), Ok(()));
        for (name, value, says) in [
            ("cleanup.policy", "compact,delete", "`cleanup.policy` to `delete`"),
            ("retention.bytes", "1073741824", "`retention.bytes` to -1"),
            ("unclean.leader.election.enable", "true", "`unclean.leader.election.enable` to `false`"),
            ("min.insync.replicas", "1", "`min.insync.replicas` to 2"),
        ] {
            let refused = check(three, of(Some((name, value)))).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
