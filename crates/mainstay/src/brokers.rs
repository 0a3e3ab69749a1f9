//! [`named`]: the broker that `events.url` means.

use std::sync::Arc;

use mainstay_core::{Error, Result, SecretUrl};
use mainstay_events::broker::Broker;

/// What every mistake is answered with.
const KNOWN: &str = "expected `embedded`, `nats://host:4222`, `tls://host:4222` (NATS), `amqp://host:5672`, `amqps://host:5671` \
                     (RabbitMQ) or `kafka://host:9092`";

/// The broker at `url`, to which nothing connects yet. No error repeats the URL, which may have a password in it.
pub(crate) fn named(url: &SecretUrl) -> Result<Arc<dyn Broker>> {
    match url.scheme() {
        Some("nats" | "tls") => nats(url),
        Some("amqp" | "amqps") => rabbitmq(url),
        Some("kafka") => kafka(url),
        Some(other) => {
            let other = other.escape_default();
            Err(Error::invalid_argument(format!("no broker is known by `{other}://`: {KNOWN}")))
        }
        None => Err(Error::invalid_argument(format!("this is no URL of a broker: {KNOWN}"))),
    }
}

#[cfg(feature = "nats")]
fn nats(url: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(mainstay_nats::Nats::new(url.expose())?))
}

#[cfg(not(feature = "nats"))]
fn nats(_: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Err(not_built_in("NATS", "nats"))
}

#[cfg(feature = "rabbitmq")]
fn rabbitmq(url: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(mainstay_rabbitmq::RabbitMq::new(url.expose())?))
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(_: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Err(not_built_in("RabbitMQ", "rabbitmq"))
}

#[cfg(feature = "kafka")]
fn kafka(url: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(mainstay_kafka::Kafka::new(url.expose())?))
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &SecretUrl) -> Result<Arc<dyn Broker>> {
    Err(not_built_in("Kafka", "kafka"))
}

#[cfg(not(all(feature = "nats", feature = "rabbitmq", feature = "kafka")))]
fn not_built_in(broker: &str, feature: &str) -> Error {
    Error::invalid_argument(format!(
        "{broker} is not built into this program: add the feature `{feature}` of `mainstay` in its Cargo.toml"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let error = named(&SecretUrl::from(url)).err().unwrap().report().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        error
    }

    #[test]
    fn what_is_no_broker_is_answered_with_those_that_are() {
        for url in ["nat://me:s3cret@host", "host:4222", "me:s3cret@host", "NATS", "redis://:s3cret@host"] {
            assert!(refused(url).contains("`nats://host:4222`"), "{url}");
        }
        assert!(refused("nat://s3cret@host").contains("`nat://`"));
    }

    #[test]
    fn a_broker_that_is_not_built_in_is_answered_with_its_feature() {
        if cfg!(not(feature = "nats")) {
            assert!(refused("nats://me:s3cret@host").contains("the feature `nats`"));
            assert!(refused("tls://s3cret@host").contains("the feature `nats`"));
        }
        if cfg!(not(feature = "rabbitmq")) {
            assert!(refused("amqp://me:s3cret@host").contains("the feature `rabbitmq`"));
        }
        if cfg!(not(feature = "kafka")) {
            assert!(refused("kafka://s3cret:9092").contains("the feature `kafka`"));
        }
    }

    #[cfg(feature = "nats")]
    #[test]
    fn a_url_that_is_wrong_further_on_is_told_by_its_broker() {
        assert!(refused("nats://s3cret@host?colour=red").contains("`colour` is not known"));
        assert_eq!(named(&SecretUrl::from("tls://s3cret@host")).unwrap().name(), "nats");
    }
}
