//! [`EventsSettings`]: how events are kept, moved and tried again.

use std::time::Duration;

use mainstay_core::settings::duration;
use mainstay_core::{ByteSize, Error, Result, SecretUrl};
use serde::{Deserialize, Serialize};

/// How events are kept, moved and tried again: the section `events` of a service's settings.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct EventsSettings {
    /// The broker. `embedded` keeps events in the service's own database; a URL, as `nats://host:4222`, is a server's.
    pub url: SecretUrl,
    /// How many hash partitions there are: the most processes, and handlers of one group, that can work side by side.
    /// It is fixed when the tables are made.
    pub partitions: u32,
    /// The largest payload that is published, as JSON.
    pub max_payload: ByteSize,
    /// The largest sum of names and values of an event's own headers.
    pub max_headers: ByteSize,
    /// How long a process that fell silent keeps its partitions. Longer than its pauses, shorter than users' patience.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often another process's events, and partitions without an owner, are looked for. Events of the own process
    /// don't wait for it.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How many events one transaction applies at most, when there is a backlog.
    pub batch: u32,
    /// How many transactions of consumers a process has open at most. They come out of the database's connections.
    pub concurrency: u32,
    /// How long one run of a handler may take.
    #[serde(with = "duration")]
    pub handler_timeout: Duration,
    /// How often an event is tried in all before it becomes a dead letter.
    pub max_attempts: u32,
    /// The limit of the first pause before another try; it doubles with each. The pause is a random part of it.
    #[serde(with = "duration")]
    pub retry_min: Duration,
    /// The longest limit.
    #[serde(with = "duration")]
    pub retry_max: Duration,
    /// How long events stay in the embedded broker's log after all groups have applied them, for groups that come later.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// A group that no process has run for this long keeps no events from being removed.
    #[serde(with = "duration")]
    pub group_expiry: Duration,
    /// How many events of one partition a group may have before it until nothing more is taken from an external broker,
    /// which keeps them meanwhile.
    pub max_backlog: u32,
    /// How long the ids of events of an external broker are remembered: longer than a publisher may be cut off from the
    /// broker in the middle of a publish, and longer than the broker can redeliver.
    #[serde(with = "duration")]
    pub inbox_retention: Duration,
}

impl Default for EventsSettings {
    fn default() -> Self {
        let (seconds, hours) = (Duration::from_secs, |hours: u64| Duration::from_secs(hours * 60 * 60));
        Self {
            url: SecretUrl::from("embedded"),
            partitions: 16,
            max_payload: ByteSize::kib(256),
            max_headers: ByteSize::kib(8),
            lease: seconds(10),
            poll_interval: Duration::from_millis(200),
            batch: 32,
            concurrency: 8,
            handler_timeout: seconds(30),
            max_attempts: 10,
            retry_min: Duration::from_millis(200),
            retry_max: seconds(5 * 60),
            retention: hours(24),
            group_expiry: hours(7 * 24),
            max_backlog: 10_000,
            inbox_retention: hours(7 * 24),
        }
    }
}

impl EventsSettings {
    /// Checks what no type can.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument) that names the key and what is expected.
    pub fn validate(&self) -> Result<()> {
        let wrong =
            |key: &str, expected: &str| Err(Error::invalid_argument(format!("events.{key}: expected {expected}")));
        if !(1..=1_024).contains(&self.partitions) {
            return wrong("partitions", "1 to 1024");
        }
        if !(1..=500).contains(&self.batch) {
            return wrong("batch", "1 to 500");
        }
        if self.concurrency == 0 {
            return wrong("concurrency", "at least 1");
        }
        if self.max_backlog == 0 {
            return wrong("max_backlog", "at least 1");
        }
        if self.max_attempts == 0 {
            return wrong("max_attempts", "at least 1");
        }
        if self.lease < Duration::from_millis(200) {
            return wrong("lease", "at least 200ms");
        }
        if self.handler_timeout.is_zero() {
            return wrong("handler_timeout", "a duration above 0");
        }
        if self.poll_interval < Duration::from_millis(5) {
            return wrong("poll_interval", "at least 5ms");
        }
        Ok(())
    }

    /// The URL of a broker that is a server of its own, unless the broker is the embedded one.
    pub fn external_broker(&self) -> Option<&SecretUrl> {
        (!matches!(self.url.expose(), "" | "embedded")).then_some(&self.url)
    }

    /// A random pause before the try after `attempt` tries: full jitter under a limit that doubles.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let limit = self.retry_min.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.retry_max);
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        let part = (random & 0xffff_ffff) as f64 / f64::from(u32::MAX);
        limit.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        EventsSettings::default().validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_told_by_key() {
        let base = EventsSettings::default;
        for (settings, key) in [
            (EventsSettings { partitions: 0, ..base() }, "events.partitions"),
            (EventsSettings { batch: 501, ..base() }, "events.batch"),
            (EventsSettings { lease: Duration::from_millis(1), ..base() }, "events.lease"),
        ] {
            let error = settings.validate().unwrap_err();
            assert!(error.message().starts_with(key), "{error:?}");
        }
    }

    #[test]
    fn pauses_grow_to_their_limit_and_are_random() {
        let settings = EventsSettings::default();
        for attempt in [1, 5, 40, u32::MAX] {
            assert!(settings.pause(attempt) <= settings.retry_max);
        }
        assert!((0..50).all(|_| settings.pause(1) <= settings.retry_min));
        assert!((0..50).any(|_| settings.pause(1) != settings.pause(1)));
    }
}
