//! [`Publish`]: `tx.publish(event)`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::{Error, Result};
use mainstay_sql::Tx;
use uuid::Uuid;

use crate::Event;
use crate::outbox::Outbox;

/// Adds `publish` to [`Tx`].
pub trait Publish {
    /// Publishes `event` with the transaction: when it commits, the event will reach every group; when it doesn't, the
    /// event never was. Returns the event's id.
    ///
    /// Nothing is written before the end of the transaction, so that events of one key are in the order of commits.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](mainstay_core::Code::InvalidArgument): a payload or a key that is too large.
    /// [`Code::Unavailable`](mainstay_core::Code::Unavailable): the events of this database were not started.
    /// [`Code::Internal`](mainstay_core::Code::Internal): a database without events, or an event that has no JSON.
    fn publish<E: Event>(&self, event: E) -> Result<Uuid>;

    /// As [`Publish::publish`], with headers or an id.
    ///
    /// # Errors
    /// As [`Publish::publish`]; also for headers that are too large or have a reserved name.
    fn publish_with<E: Event>(&self, event: E, options: PublishOptions) -> Result<Uuid>;
}

/// What [`Publish::publish_with`] adds to an event.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PublishOptions {
    pub(crate) id: Option<Uuid>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// Names, or beginnings of names, that the framework and CloudEvents keep for themselves.
const RESERVED: [&str; 6] = ["ce-", "ce_", "mainstay-", "traceparent", "tracestate", "baggage"];

impl PublishOptions {
    /// Nothing more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header of the service's own: a name of lower-case letters, digits and `-`. Names that begin with `ce-`,
    /// `ce_` or `mainstay-`, and those of the W3C trace context, are refused when the event is published.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// The id instead of a new one, for an event that has one from elsewhere.
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    pub(crate) fn check(&self, max_headers: usize) -> Result<()> {
        let mut size = 0;
        for (name, value) in &self.headers {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(Error::invalid_argument(format!(
                    "event header `{}`: expected lower-case letters, digits, `-` and `_`",
                    name.escape_default()
                )));
            }
            if RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
                return Err(Error::invalid_argument(format!("event header `{name}`: the name is reserved")));
            }
            if value.chars().any(char::is_control) {
                return Err(Error::invalid_argument(format!("event header `{name}`: control characters are refused")));
            }
            size += name.len() + value.len();
        }
        if size > max_headers {
            return Err(Error::invalid_argument(format!(
                "the event's headers have {size} bytes, at most {max_headers} are allowed (events.max_headers)"
            )));
        }
        Ok(())
    }
}

impl Publish for Tx {
    fn publish<E: Event>(&self, event: E) -> Result<Uuid> {
        self.publish_with(event, PublishOptions::new())
    }

    fn publish_with<E: Event>(&self, event: E, options: PublishOptions) -> Result<Uuid> {
        let hook: Option<Arc<dyn Any + Send + Sync>> = self.commit_hook().map(|hook| hook as _);
        let outbox = hook.and_then(|hook| hook.downcast::<Outbox>().ok()).ok_or_else(|| {
            Error::internal("this database has no events: declare them by `app.events(&db)` or `Events::new`")
        })?;
        let pending = outbox.pending(self.context(), &event, options)?;
        let id = pending.message.id;
        self.defer(Box::new(pending))?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_framework_cannot_be_spoofed() {
        for name in ["ce-id", "ce_id", "mainstay-attempt", "traceparent", "Upper", "", "a b", "x\n"] {
            assert!(PublishOptions::new().header(name, "v").check(1_000).is_err(), "{name:?}");
        }
        assert!(PublishOptions::new().header("tenant", "a\r\nce-id: 1").check(1_000).is_err());
        assert!(PublishOptions::new().header("tenant", "a").check(1_000).is_ok());
        assert!(PublishOptions::new().header("tenant", "a").check(6).is_err());
    }
}
