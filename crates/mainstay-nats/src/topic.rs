//! A topic on the server: made, or checked.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context as JetStream, ErrorCode};
use mainstay_core::{Error, Result};

use crate::url::Address;

/// How many subjects a stream has is kept in its description: servers before 2.10 keep no other data of ours.
const DESCRIPTION: &str = "Events of Mainstay services, streams: ";

/// The server drops a second message with an id within this time. The inbox drops those that come later.
const DUPLICATES: std::time::Duration = std::time::Duration::from_secs(2 * 60);

/// The name of the topic's stream.
pub(crate) fn stream_of(address: &Address, topic: &str) -> String {
    // Names can't have dots; what else topics consist of, they can.
    format!("{}{topic}", address.prefix).replace('.', "_")
}

/// The subject of one of its streams.
pub(crate) fn subject_of(address: &Address, topic: &str, number: u32) -> String {
    format!("{}{topic}.{number}", address.prefix)
}

/// Makes the stream of `topic` with `streams` subjects, or checks the one that is there and returns how many it has.
pub(crate) async fn open(js: &JetStream, address: &Address, topic: &str, streams: u32) -> Result<u32> {
    let name = stream_of(address, topic);
    let found = match js.get_stream(&name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_missing(error.kind()) => {
            let config = Config {
                name: name.clone(),
                subjects: vec![format!("{}{topic}.*", address.prefix)],
                description: Some(format!("{DESCRIPTION}{streams}")),
                retention: RetentionPolicy::Limits,
                storage: StorageType::File,
                discard: DiscardPolicy::New,
                num_replicas: address.replicas,
                max_age: address.max_age,
                duplicate_window: DUPLICATES.min(address.max_age),
                ..Config::default()
            };
            // Another process may have made it meanwhile: with the same settings that is no error.
            let made = js.create_stream(config).await.map_err(|error| unavailable("making a stream", error))?;
            made.cached_info().config.clone()
        }
        Err(error) => return Err(unavailable("looking for a stream", error)),
    };
    check(&found, &format!("{}{topic}.*", address.prefix))
        .map_err(|what| Error::failed_precondition(format!("the stream `{name}` of NATS would lose events: {what}")))
}

fn is_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// How many subjects it has, or what has to be changed.
fn check(config: &Config, subjects: &str) -> Result<u32, String> {
    let limited = config.max_bytes > 0 || config.max_messages > 0 || config.max_messages_per_subject > 0;
    if config.storage != StorageType::File {
        return Err("it is in memory; make it again with storage `file`".to_owned());
    }
    if config.no_ack {
        return Err("it confirms nothing; set `no_ack` to false".to_owned());
    }
    if config.retention != RetentionPolicy::Limits {
        return Err("it removes what one reader has seen; make it again with retention `limits`".to_owned());
    }
    if limited && config.discard == DiscardPolicy::Old {
        return Err("when it is full it drops the oldest; set `discard` to `new`, or remove its limits".to_owned());
    }
    if !config.subjects.iter().any(|subject| subject == subjects) {
        return Err(format!("it doesn't listen to `{subjects}`; add that to its subjects"));
    }
    let description = config.description.as_deref().unwrap_or_default();
    let streams = description.strip_prefix(DESCRIPTION).and_then(|count| count.parse().ok()).filter(|count| *count > 0);
    streams.ok_or_else(|| {
        format!("nobody knows how many subjects it has; describe it as `{DESCRIPTION}16`, or as many as there are")
    })
}

/// The error of a call that the server didn't answer, or not as it has to.
pub(crate) fn unavailable(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unavailable("the broker can't be reached now, try again")
        .context(format!("{what} on NATS"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lose_events_is_refused_with_what_to_change() {
        let good = Config {
            subjects: vec!["a.b.*".to_owned()],
            description: Some(format!("{DESCRIPTION}4")),
            storage: StorageType::File,
            ..Config::default()
        };
        assert_eq!(check(&good, "a.b.*"), Ok(4));
        type Spoil = fn(&mut Config);
        let bad: [(Spoil, &str); 7] = [
            (|config| config.storage = StorageType::Memory, "storage `file`"),
            (|config| config.no_ack = true, "no_ack"),
            (|config| config.retention = RetentionPolicy::WorkQueue, "retention `limits`"),
            (|config| config.max_bytes = 1, "`discard` to `new`"),
            (|config| config.max_messages_per_subject = 1, "`discard` to `new`"),
            (|config| config.subjects = vec!["other".to_owned()], "`a.b.*`"),
            (|config| config.description = None, "describe it as"),
        ];
        for (spoil, says) in bad {
            let mut config = good.clone();
            spoil(&mut config);
            let refused = check(&config, "a.b.*").unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
